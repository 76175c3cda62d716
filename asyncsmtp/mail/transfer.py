"""Content-Transfer-Encoding: octets that pass every relay (RFC 2045 §6).

The results have CRLF and no other CR or LF, lines of at most 76 octets (7bit: 998), and never a line
that begins with `--=_`: no boundary of ours can occur in them (RFC 2045 §6.7).
"""

from __future__ import annotations

from binascii import b2a_base64, b2a_qp
from collections.abc import Callable
from enum import StrEnum
from io import BytesIO

from asyncsmtp.mail.words import UnfitCharacter, encode

__all__ = ["Transfer", "base64", "lines", "quoted_printable", "soft_broken"]

MAX_LINE = 998  # octets of a line of 7bit, RFC 2045 §2.7
_OCTETS_OF_A_LINE = 57  # they make 76 of base64
_BLOCK = 256 * _OCTETS_OF_A_LINE
_PLAIN = bytes([0x09, 0x0A, *range(0x20, 0x7F)])


class Transfer(StrEnum):
    """How the octets of a part travel."""

    SEVEN_BIT = "7bit"
    QUOTED_PRINTABLE = "quoted-printable"
    BASE64 = "base64"

    @classmethod
    def of(cls, text: str) -> Transfer:
        """The plainest that carries this text as it is."""
        if text.isascii() and "=_" not in text and _is_plain(text.encode("ascii")):
            return cls.SEVEN_BIT
        return cls.of_any(text)

    @classmethod
    def of_any(cls, text: str) -> Transfer:
        """The shorter of the two that carry any text, judged by this one."""
        octets = encode(text)
        escaped = octets.translate(None, _PLAIN)  # each takes 3 octets; base64 takes 4/3 for all
        return cls.QUOTED_PRINTABLE if 6 * len(escaped) <= len(octets) else cls.BASE64

    def apply(self, text: str) -> bytes:
        """Encode text whose line ends are LF, see `lines`."""
        return _ENCODERS[self](encode(text))


def _is_plain(octets: bytes) -> bool:
    return not octets.translate(None, _PLAIN) and max(map(len, octets.split(b"\n"))) <= MAX_LINE


def lines(text: str) -> str:
    """Bring all line ends to LF, the form the encoders take.

    Raises:
        UnfitCharacter: a NUL, which text cannot hold (RFC 2045 §2.7, RFC 6532 §3.2).
    """
    if "\0" in text:
        raise UnfitCharacter("a NUL cannot stand in a text", "\0")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def seven_bit(octets: bytes) -> bytes:
    return octets.replace(b"\n", b"\r\n")


def quoted_printable(octets: bytes) -> bytes:
    """Encode lines that end with LF; each line by itself, so that texts may be encoded line by line."""
    if b" \n" in octets or b"\t\n" in octets:  # b2a_qp would make these lines too long
        return b"\r\n".join([b2a_qp(line).replace(b"\n", b"\r\n") for line in octets.split(b"\n")])
    return b2a_qp(octets).replace(b"\n", b"\r\n")


def soft_broken(octets: bytes) -> bytes:
    """The same, ending with a soft line break: whatever comes next begins a line (RFC 2045 §6.7 (5)).

    An `=` is always written `=3D` with room for it on its line, and its `=` is a soft break in itself.
    """
    return quoted_printable(octets + b"=")[:-2] + b"\r\n"


def base64(octets: bytes) -> bytes:
    """Encode any octets, in lines of 76; the last has its CRLF too."""
    encoded = BytesIO()
    for at in range(0, len(octets), _BLOCK):  # not at once: half a million lines apart are three times an attachment
        encoded.write(_base64_lines(octets[at : at + _BLOCK]))
    return encoded.getvalue()


def _base64_lines(octets: bytes) -> bytes:
    encoded = b2a_base64(octets, newline=False)
    width = _OCTETS_OF_A_LINE // 3 * 4
    return b"".join([encoded[at : at + width] + b"\r\n" for at in range(0, len(encoded), width)])


def _base64_text(octets: bytes) -> bytes:
    return base64(octets.replace(b"\n", b"\r\n"))  # the canonical form of text has CRLF, RFC 2045 §6.8


_ENCODERS: dict[Transfer, Callable[[bytes], bytes]] = {
    Transfer.SEVEN_BIT: seven_bit,
    Transfer.QUOTED_PRINTABLE: quoted_printable,
    Transfer.BASE64: _base64_text,
}
