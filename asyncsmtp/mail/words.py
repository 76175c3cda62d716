"""Encoded words: text beyond ASCII inside a header field (RFC 2047)."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable

from asyncsmtp.errors import MessageError

__all__ = ["ENCODED_LINE", "UnfitCharacter", "encode", "encoded_words"]

ENCODED_LINE = 76  # octets of a line that holds an encoded word, RFC 2047 §2
MAX_WORD = 75  # octets of one, the same
_FRAME = len("=?utf-8?q??=")
_LEAST = _FRAME + 12  # one character of four octets, in Q

_IN_PHRASE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")  # §5 (3)
_Q = [chr(octet) if octet in _IN_PHRASE else "_" if octet == 0x20 else f"={octet:02X}" for octet in range(256)]


def encoded_words(text: str, room: int = MAX_WORD) -> list[str]:
    """Write `text` as encoded words in UTF-8, as Q or B, whichever is shorter; they decode to it exactly.

    Args:
        text: anything; what looks like an encoded word in it is encoded like the rest.
        room: octets left for the first word; the others have 75. Too little room counts as 75.
    Raises:
        MessageError: a lone surrogate, which no encoding can carry.
    """
    octets = encode(text)
    q_octets = sum(len(_Q[octet]) for octet in octets)
    if q_octets <= (len(octets) + 2) // 3 * 4:
        return _words(text, "q", _q, room)
    return _words(text, "b", _b, room)


class UnfitCharacter(MessageError):
    """A character that cannot stand where it is; `character` is it, so that its column can be found."""

    def __init__(self, why: str, character: str, field: str | None = None) -> None:
        super().__init__(why, field)
        self.character = character


def encode(text: str) -> bytes:
    """UTF-8; UnfitCharacter for a lone surrogate."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = text[error.start]
        why = f"the character U+{ord(half):04X} is half a pair: no encoding can carry it"
        raise UnfitCharacter(why, half) from error


def _q(octets: bytes) -> str:
    return "".join(map(_Q.__getitem__, octets))


def _b(octets: bytes) -> str:
    return b2a_base64(octets, newline=False).decode("ascii")


def _words(text: str, letter: str, write: Callable[[bytes], str], room: int) -> list[str]:
    """Cut between characters, never inside one (RFC 2047 §5)."""
    room = MAX_WORD if room < _LEAST else min(room, MAX_WORD)
    words: list[str] = []
    taken = b""
    for character in text:
        octets = character.encode("utf-8")
        if taken and len(write(taken + octets)) + _FRAME > room:
            words.append(f"=?utf-8?{letter}?{write(taken)}?=")
            taken, room = b"", MAX_WORD
        taken += octets
    words.append(f"=?utf-8?{letter}?{write(taken)}?=")
    return words
