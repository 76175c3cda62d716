"""xtext and unitext: the encoding is reversible, byte for byte, and breaks no parameter."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.protocol.commands import rcpt
from asyncsmtp.protocol.envelope import Mailbox, uxtext, xtext

BOB = Mailbox.parse("bob@example.net")
XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")  # RFC 3461 §4
UXTEXT = re.compile(r"(?:[!-*,-<>-\[\]-~]|\\x\{[0-9A-F]{2,6}\})*")  # RFC 6533 §3, utf-8-addr-xtext


def read_xtext(text: str) -> bytes:
    """A reader of its own, as a relay has it."""
    return re.sub(rb"\+([0-9A-F]{2})", lambda found: bytes([int(found[1], 16)]), text.encode("ascii"))


def read_uxtext(text: str) -> str:
    """The same for RFC 6533."""
    return re.sub(r"\\x\{([0-9A-F]+)\}", lambda found: chr(int(found[1], 16)), text)


@pytest.mark.parametrize("octet", range(256))
def test_each_octet_comes_back(octet: int) -> None:
    """WO-05: `+` and `=` are encoded too."""
    said = xtext(bytes([octet]))
    assert XTEXT.fullmatch(said)
    assert read_xtext(said) == bytes([octet])
    assert said == chr(octet) or octet in b"+=" or not 33 <= octet <= 126


@given(st.binary(max_size=200))
def test_any_octets_come_back_and_fit_a_parameter(octets: bytes) -> None:
    """WO-05, WO-01: a line break in them is two hex digits, not a line."""
    said = xtext(octets)
    assert read_xtext(said) == octets
    assert bytes(rcpt(BOB, {"X": said or "none"})).count(b"\r\n") == 1


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_any_text_comes_back_in_seven_bits(text: str) -> None:
    """WO-05: what is beyond ASCII, and the backslash itself."""
    said = uxtext(text)
    assert UXTEXT.fullmatch(said)
    assert read_uxtext(said) == text
    assert bytes(rcpt(BOB, {"X": said or "none"})).count(b"\r\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("zoë+x=1@example.org", r"zo\x{EB}\x{2B}x\x{3D}1@example.org"),
        ("a\\b c", r"a\x{5C}b\x{20}c"),
        ("例@example.org", r"\x{4F8B}@example.org"),
        ("🦊@example.org", r"\x{1F98A}@example.org"),
    ],
)
def test_unitext_is_written_in_the_fewest_hex_digits(text: str, said: str) -> None:
    """RFC 6533 §3, HEXPOINT: two at least, upper case, none to pad."""
    assert uxtext(text) == said
