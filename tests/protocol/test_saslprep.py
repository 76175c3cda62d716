"""SASLprep, by the examples of RFC 4013 §3 and the rules of RFC 3454 §6."""

from __future__ import annotations

import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.protocol.auth.scram import SaslprepError, saslprep


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
        ("\u0627\u0031\u0628", "\u0627\u0031\u0628"),
        ("pass word", "pass word"),
        ("zoe\u0308", "zoë"),
        ("\U0001f511", "\U0001f511"),
    ],
)
def test_a_text_is_mapped_and_normalised(text: str, prepared: str) -> None:
    """RFC 4013 §3; the last one came to Unicode after 3.2, and stays as it is."""
    assert saslprep(text) == prepared


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("\u0007", "prohibits"),
        ("\u0627\u0031", "begin and end so"),
        ("\u0031\u0627", "begin and end so"),
        ("\u0627a\u0628", "mixes directions"),
        ("", "nothing is left"),
        ("\u00ad", "nothing is left"),
        ("a\ue000", "prohibits"),
        ("a\ufdd0", "prohibits"),
        ("a\ud800", "prohibits"),
        ("a\u2ff0", "prohibits"),
        ("a\u0340\u200e", "prohibits"),
        ("a\U000e0041", "prohibits"),
        ("a\u0085", "prohibits"),
    ],
)
def test_what_is_prohibited_is_refused(text: str, why: str) -> None:
    """RFC 4013 §2.3: each table; and the two examples of §3."""
    with pytest.raises(SaslprepError, match=why):
        saslprep(text)


def test_a_refused_text_is_in_no_traceback() -> None:
    """AU-08: it is a password most of the time."""
    with pytest.raises(SaslprepError) as refused:
        saslprep("hunter2\u0007")
    frames = traceback.TracebackException.from_exception(refused.value, capture_locals=True)
    assert "hunter2" not in str([frame.locals for frame in frames.stack if "asyncsmtp/protocol" in frame.filename])


@given(st.text())
def test_what_is_prepared_stays_as_it_is(text: str) -> None:
    """RFC 3454 §7: preparing twice is preparing once, or the two sides would compute with two passwords."""
    try:
        prepared = saslprep(text)
    except SaslprepError:
        return
    assert saslprep(prepared) == prepared
