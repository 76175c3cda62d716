"""Content: the octets between DATA and the end of mail data (RFC 5321 §2.3.8, §4.5.2; RFC 3030)."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from asyncsmtp.errors import MessageError

__all__ = [
    "AnyContent",
    "Canonical",
    "Content",
    "ContentSource",
    "Cutter",
    "Transparency",
    "as_data",
    "chunks",
    "has_dots",
    "transparent",
]

MAX_LINE = 998  # octets without CRLF, RFC 5322 §2.1.1

_ANY_LINE_END = re.compile(rb"\r\n|\r|\n")
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class Transparency:
    """Doubles the dot that begins a line (RFC 5321 §4.5.2); remembers whether a line begins."""

    __slots__ = ("_line_begins",)

    def __init__(self) -> None:
        self._line_begins = True

    def pass_on(self, block: bytes) -> bytes:
        """The block as it stands behind DATA; without such a dot it is passed on uncopied."""
        if not block:
            return block
        doubled = block.replace(b"\n.", b"\n..") if b"\n." in block else block
        if self._line_begins and block[0] == 0x2E:
            doubled = b"." + doubled
        self._line_begins = block[-1] == 0x0A
        return doubled


class Canonical:
    """Lets blocks of octets pass that are right, and says where they are not (RFC 5321 §2.3.8).

    What it has let pass, and what `end` returns, has CRLF and no other CR or LF, no NUL, no line over 998 octets, and
    a CRLF at its end.

    Args:
        fix_eols: whether other line ends become CRLF; without it they are an error.
    Attributes:
        size: octets so far, as declared by SIZE. eight_bit: whether one of them is above 127.
        utf8_headers: whether one of the header section is.
    """

    def __init__(self, *, fix_eols: bool = False) -> None:
        self.size = 0
        self.eight_bit = False
        self.utf8_headers = False
        self._fix_eols = fix_eols
        self._held = b""  # a CR whose LF may begin the next block
        self._line = 0  # octets of the line that has not ended
        self._last = b""  # the last octets of the header section, in which its end may be cut
        self._in_headers = True

    def pass_on(self, block: bytes) -> bytes:
        """The block, less what can be judged only with the next one, and with what was held before.

        Raises:
            MessageError: a bare CR or LF, a NUL or a line too long, with the octet at which it stands.
        """
        block = self._held + block
        self._held = b""
        if block.endswith(b"\r"):
            self._held, block = b"\r", block[:-1]
        return self._judge(block)

    def end(self) -> bytes:
        """What is still missing: the line end that was held or not there.

        Raises:
            MessageError: as above.
        """
        held, self._held = self._held, b""
        rest = self._judge(held)
        ended = self.size > 0 and self._line == 0
        return rest if ended else rest + self._judge(b"\r\n")

    def _judge(self, block: bytes) -> bytes:
        if self._fix_eols:
            block = _ANY_LINE_END.sub(b"\r\n", block)
        elif found := _BARE.search(block):
            name = "CR" if found[0] == b"\r" else "LF"
            raise MessageError(f"a bare {name} at octet {self.size + found.start()} of the content: use fix_eols=True")
        if b"\0" in block:
            place = self.size + block.index(0)
            raise MessageError(f"a NUL at octet {place} of the content: encode the part as base64")
        self._measure(block)
        if not block.isascii():
            self.eight_bit = True
        if self._in_headers:
            self._look_for_the_body(block)
        self.size += len(block)
        return block

    def _measure(self, block: bytes) -> None:
        lines = block.split(b"\r\n")
        lengths = [self._line + len(lines[0]), *map(len, lines[1:])]
        if max(lengths) > MAX_LINE:
            raise MessageError(
                f"a line of more than {MAX_LINE} octets ends at or behind octet {self.size} of the content: "
                "encode the part as quoted-printable or base64"
            )
        self._line = lengths[-1]

    def _look_for_the_body(self, block: bytes) -> None:
        seen = self._last + block
        end = 0 if self.size == 0 and block.startswith(b"\r\n") else seen.find(b"\r\n\r\n")
        self._in_headers = end < 0
        self.utf8_headers |= not (seen if end < 0 else seen[:end]).isascii()
        self._last = seen[-3:]


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
