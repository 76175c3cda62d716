"""Secrets stay where they are, and names that would break a frame stay out of it."""

from __future__ import annotations

import traceback

import pytest

from asyncsmtp.errors import InvalidArgument
from asyncsmtp.protocol.auth.credentials import Bearer, Channel, Password, Secret, encode_name


def test_a_secret_shows_itself_to_nobody() -> None:
    """AU-08."""
    secret = Secret("hunter2")
    for shown in (repr(secret), str(secret), f"{secret}", repr(Password("ann", secret)), repr(Bearer("ann", secret))):
        assert "hunter2" not in shown
    assert not hasattr(secret, "__dict__")
    assert secret.reveal() == "hunter2"


def test_secrets_are_equal_when_their_texts_are() -> None:
    """Relays are compared, and kept in sets."""
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hunter2\0b", "a NUL or U\\+0001 in the password"),
        ("hunter2\x01", "a NUL or U\\+0001 in the password"),
        ("", "the password is empty"),
        ("hunter2\udcff", "a lone surrogate in the password"),
    ],
)
def test_a_secret_that_would_break_a_frame_is_refused_and_not_shown(text: str, why: str) -> None:
    """AU-13, AU-08: not even by a traceback with the variables of its frames."""
    with pytest.raises(InvalidArgument, match=why) as refused:
        Secret(text).encode("password")
    frames = traceback.TracebackException.from_exception(refused.value, capture_locals=True)
    inner = [frame for frame in frames.stack if "asyncsmtp/protocol" in frame.filename]
    assert inner
    assert "hunter2" not in "".join(map(str, ((frame.locals, frame.line) for frame in inner)))
    assert refused.value.__context__ is None


@pytest.mark.parametrize("text", ["a\0b", "a\x01auth=Bearer z", "", "a\udcff"])
def test_a_name_that_would_break_a_frame_is_refused(text: str) -> None:
    """AU-13."""
    with pytest.raises(InvalidArgument, match="the user name"):
        encode_name(text, "user name")


def test_names_and_secrets_go_out_as_utf_8() -> None:
    """D-32: RFC 4616 §2, and python/cpython#73936, where they crash."""
    assert encode_name("zoë", "user name") == b"zo\xc3\xab"
    assert Secret("pässword").encode("password") == b"p\xc3\xa4ssword"


def test_a_channel_does_not_show_what_goes_into_a_proof() -> None:
    """AU-08: its repr is one line of a log."""
    assert repr(Channel("relay.example", 587, b"certificate", "secret nonce")) == (
        "Channel(host='relay.example', port=587, plus=False)"
    )


def test_a_str_is_a_secret_where_one_is_meant() -> None:
    """It is hidden from then on; any other type is the caller's mistake."""
    assert Password("ann", "hunter2") == Password("ann", Secret("hunter2"))
    assert Bearer("ann", "hunter2") == Bearer("ann", Secret("hunter2"))
    assert "hunter2" not in repr((Password("ann", "hunter2", "bob"), Bearer("ann", "hunter2")))
    secret = Secret("hunter2")
    assert Secret.of(secret) is secret
    with pytest.raises(TypeError, match="a secret must be a str or a Secret, not bytes"):
        Secret.of(b"hunter2")  # type: ignore[arg-type]
