"""Content: the octets between DATA and the end of mail data (RFC 5321 §2.3.8, §4.5.2; RFC 3030)."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from asyncsmtp.errors import MessageError
from asyncsmtp.protocol.codec import MAX_LINE, Transparency

__all__ = ["AnyContent", "Content", "ContentSource", "Cutter", "as_data", "chunks", "has_dots", "transparent"]

_ANY_LINE_END = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Content:
    """Header section and body as canonical octets, in one or more parts that may be shared.

    Joined, the parts have CRLF and no other CR or LF, no NUL, no line over 998 octets, and a CRLF at
    the end. `Content.of` makes and checks one; `Content.trusted` is for a composer that has checked.
    `Content.of_any` keeps to none of this: its octets go by BDAT alone.

    Attributes:
        spent: never; it can be sent again.
        size: octets, as declared by SIZE (RFC 1870 §3): before transparency, CRLFs counted.
        eight_bit: whether an octet is above 127, so that 8BITMIME is needed (RFC 6152).
        utf8_headers: whether the header section is beyond ASCII, so that SMTPUTF8 is needed (RFC 6531).
        binary: whether it is not canonical, so that BINARYMIME is needed (RFC 3030 §3).
        dotted: whether a line may begin with a dot; False spares the search for one (RFC 5321 §4.5.2).
    """

    parts: tuple[bytes, ...]
    size: int
    eight_bit: bool
    utf8_headers: bool
    binary: bool = False
    dotted: bool = field(default=True, compare=False)

    @classmethod
    def of(cls, octets: bytes | str, *, fix_eols: bool = False) -> Content:
        """Check finished content.

        Args:
            octets: `str` has its line ends normalised; `bytes` must be right unless `fix_eols`.
        Raises:
            MessageError: a bare CR or LF, a NUL or a line over 998 octets, with where it stands.
        """
        if isinstance(octets, str):
            octets, fix_eols = _encode(octets), True
        if fix_eols:
            octets = _ANY_LINE_END.sub(b"\r\n", octets)
        check(octets)
        parts = (octets,) if octets.endswith(b"\r\n") else (octets, b"\r\n")
        beyond_ascii = not _header_section(octets).isascii()
        return cls(parts, sum(map(len, parts)), not octets.isascii(), beyond_ascii, dotted=has_dots(octets))

    @classmethod
    def trusted(cls, parts: tuple[bytes, ...], *, utf8_headers: bool = False) -> Content:
        """Take parts that are known to be canonical; nothing is looked at twice."""
        return cls(parts, sum(map(len, parts)), not all(map(bytes.isascii, parts)), utf8_headers)

    @classmethod
    def of_any(cls, octets: bytes) -> Content:
        """Take octets as they are, be they canonical or not; a relay needs BINARYMIME for those that are not."""
        try:
            check(octets)
        except MessageError:
            canonical = False
        else:
            canonical = octets.endswith(b"\r\n")
        beyond = not octets.isascii()
        return cls((octets,), len(octets), beyond, not _header_section(octets).isascii(), not canonical)

    @property
    def spent(self) -> bool:
        return False

    def __bytes__(self) -> bytes:
        return b"".join(self.parts)


class ContentSource(Protocol):
    """What a session needs to know of content that it reads as it goes.

    Attributes:
        size: octets, as declared by SIZE; None where nobody knows.
        eight_bit, utf8_headers, binary: as of `Content`.
        spent: whether it cannot be read again, so that the message cannot be sent again by itself.
    """

    @property
    def size(self) -> int | None: ...
    @property
    def eight_bit(self) -> bool: ...
    @property
    def utf8_headers(self) -> bool: ...
    @property
    def binary(self) -> bool: ...
    @property
    def spent(self) -> bool: ...

    def blocks(self) -> AsyncGenerator[bytes]:
        """The content from its first octet, canonical, in blocks; what this raises aborts the message."""


AnyContent: TypeAlias = Content | ContentSource


def _header_section(octets: bytes) -> bytes:
    end = 0 if octets.startswith(b"\r\n") else octets.find(b"\r\n\r\n")
    return octets if end < 0 else octets[:end]


def _encode(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise MessageError(f"character {error.start} is a lone surrogate, which no encoding can carry") from error


def check(octets: bytes) -> None:
    """Raise MessageError unless the octets are canonical (RFC 5321 §2.3.8: no bare CR or LF)."""
    pairs = octets.count(b"\r\n")
    if octets.count(b"\n") != pairs or octets.count(b"\r") != pairs:
        found = re.search(rb"\r(?!\n)|(?<!\r)\n", octets)
        assert found is not None
        name = "CR" if found[0] == b"\r" else "LF"
        raise MessageError(f"a bare {name} at octet {found.start()} of the content: use CRLF, or pass fix_eols=True")
    if b"\0" in octets:
        raise MessageError(f"a NUL at octet {octets.index(0)} of the content: encode the part as base64")
    if (line := _long_line(octets)) is not None:
        raise MessageError(
            f"line {line} of the content has more than {MAX_LINE} octets: encode the part as quoted-printable or base64"
        )


def _long_line(octets: bytes) -> int | None:
    """The number (from 1) of the first line that is too long. Looks at one octet in a thousand, not at all."""
    start = 0
    while len(octets) - start > MAX_LINE:
        end = octets.rfind(b"\r\n", start, start + MAX_LINE + 2)
        if end < 0:
            return octets.count(b"\r\n", 0, start) + 1
        start = end + 2
    return None


def transparent(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The parts as they stand behind DATA (RFC 5321 §4.5.2), wherever they are cut; see `codec.Transparency`."""
    return map(Transparency().pass_on, parts)


def has_dots(octets: bytes) -> bool:
    """Whether a line begins with a dot; so it is of a whole content if it is of any part."""
    return octets.startswith(b".") or b"\n." in octets


def as_data(content: Content) -> bytes:
    """The whole content as it stands behind DATA: what `transparent` gives, for one that is in memory anyway."""
    octets = b"".join(content.parts)
    if not content.dotted:
        return octets
    if b"\n." in octets:
        octets = octets.replace(b"\n.", b"\n..")
    return b"." + octets if octets.startswith(b".") else octets


class Cutter:
    """Cuts content that comes in parts: each piece but the last has exactly `octets`."""

    __slots__ = ("_octets", "_pending")

    def __init__(self, octets: int) -> None:
        self._octets = octets
        self._pending = bytearray()

    def cut(self, part: bytes) -> Iterator[bytes]:
        """The pieces that are full, and not the last."""
        for start in range(0, len(part), self._octets):
            self._pending += part[start : start + self._octets]
            if len(self._pending) > self._octets:
                yield bytes(self._pending[: self._octets])
                del self._pending[: self._octets]

    def rest(self) -> bytes:
        """The last piece, maybe empty."""
        return bytes(self._pending)


def chunks(parts: Iterable[bytes], octets: int) -> Iterator[bytes]:
    """Cut content, see `Cutter`; at least one piece, maybe empty."""
    cutter = Cutter(octets)
    for part in parts:
        yield from cutter.cut(part)
    yield cutter.rest()
