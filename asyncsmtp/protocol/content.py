"""Message content: validation, line ends, dot-stuffing and chunks (RFC 5321 §2.3.8, §4.5.2; RFC 3030).

The *content* is the "mail data": header section and body, without the line "." that ends it. *Canonical* content has
CRLF line ends and no other CR or LF, no NUL, no line over 998 bytes, and a CRLF at its end.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from asyncsmtp.errors import MessageError

__all__ = [
    "AnyContent",
    "ChunkSplitter",
    "Content",
    "ContentNormalizer",
    "ContentSource",
    "DotStuffer",
    "dot_stuff",
    "dot_stuff_content",
    "has_leading_dots",
    "split_chunks",
]

MAX_LINE = 998  # bytes without CRLF, RFC 5322 §2.1.1
MAX_JOINED = 65_536  # bytes of blocks that become one part

_ANY_LINE_END = re.compile(rb"\r\n|\r|\n")
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class DotStuffer:
    """An incremental dot-stuffer: doubles a leading dot of a line (RFC 5321 §4.5.2), block by block."""

    __slots__ = ("_line_begins",)

    def __init__(self) -> None:
        self._line_begins = True

    def feed(self, block: bytes) -> bytes:
        """Return the block as it is sent after DATA; one without a leading dot is returned uncopied."""
        if not block:
            return block
        doubled = block.replace(b"\n.", b"\n..") if b"\n." in block else block
        if self._line_begins and block[0] == 0x2E:
            doubled = b"." + doubled
        self._line_begins = block[-1] == 0x0A
        return doubled


class ContentNormalizer:
    """An incremental check for canonical content, which can also convert line ends (RFC 5321 §2.3.8).

    The output of `feed` and `end`, joined, is canonical.

    Args:
        fix_eols: convert other line ends to CRLF; otherwise they are an error.
    Attributes:
        size: bytes so far, as declared by SIZE. eight_bit: true if one of them is above 127.
        utf8_headers: true if the header section has a byte above 127.
    """

    def __init__(self, *, fix_eols: bool = False) -> None:
        self.size = 0
        self.eight_bit = False
        self.utf8_headers = False
        self._fix_eols = fix_eols
        self._held_back = b""  # a CR; its LF may begin the next block
        self._line = 0  # bytes of the unfinished line
        self._last = b""  # the last bytes of the header section: the block may split its end
        self._in_headers = True

    def feed(self, block: bytes) -> bytes:
        """Return the block, preceded by what was held back and without what only the next block can decide.

        Raises:
            MessageError: a bare CR or LF, a NUL or a line too long, with its position.
        """
        block = self._held_back + block
        self._held_back = b""
        if block.endswith(b"\r"):
            self._held_back, block = b"\r", block[:-1]
        return self._check(block)

    def end(self) -> bytes:
        """Return what is missing at the end: a line end held back or absent. Raises MessageError: as for `feed`."""
        held_back, self._held_back = self._held_back, b""
        rest = self._check(held_back)
        ended = self.size > 0 and self._line == 0
        return rest if ended else rest + self._check(b"\r\n")

    def _check(self, block: bytes) -> bytes:
        if self._fix_eols:
            block = _ANY_LINE_END.sub(b"\r\n", block)
        _check_bytes(block, self.size)
        self._measure(block)
        if not block.isascii():
            self.eight_bit = True
        if self._in_headers:
            self._find_header_end(block)
        self.size += len(block)
        return block

    def _measure(self, block: bytes) -> None:
        lines = block.split(b"\r\n")
        lengths = [self._line + len(lines[0]), *map(len, lines[1:])]
        if max(lengths) > MAX_LINE:
            raise MessageError(
                f"a line of more than {MAX_LINE} bytes ends at or after byte {self.size} of the content: "
                "encode the part as quoted-printable or base64"
            )
        self._line = lengths[-1]

    def _find_header_end(self, block: bytes) -> None:
        window = self._last + block
        end = 0 if self.size == 0 and block.startswith(b"\r\n") else window.find(b"\r\n\r\n")
        self._in_headers = end < 0
        self.utf8_headers |= not (window if end < 0 else window[:end]).isascii()
        self._last = window[-3:]


@dataclass(frozen=True, slots=True)
class Content:
    """Header section and body as canonical bytes, in one or more parts that may be shared.

    Attributes:
        size: bytes of all parts, as declared by SIZE (RFC 1870).
        eight_bit: true if a byte is above 127, so that 8BITMIME is needed (RFC 6152).
        utf8_headers: true if the header section is not ASCII, so that SMTPUTF8 is needed (RFC 6531).
        binary: true if the content is not canonical, so that BINARYMIME is needed (RFC 3030 §3).
        needs_dot_stuffing: false if no line begins with a dot, which saves the search for one (RFC 5321 §4.5.2).
        downgrade: returns the same message for a server without 8BITMIME or SMTPUTF8, encoded anew, or raises
            MessageError where that must not be; None if nothing is known of its parts. It may take long.
        is_consumed: always false; the content can be sent again.
    """

    parts: tuple[bytes, ...]
    size: int
    eight_bit: bool
    utf8_headers: bool
    binary: bool = False
    needs_dot_stuffing: bool = field(default=True, compare=False)
    downgrade: Callable[[], Content] | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        return f"<Content of {self.size} bytes>"

    @classmethod
    def of(cls, octets: bytes | str, *, fix_eols: bool = False) -> Content:
        """Check finished content.

        Args:
            octets: `str` gets its line ends converted; `bytes` must be canonical unless `fix_eols`.
        Raises:
            MessageError: a bare CR or LF, a NUL or a line over 998 bytes, with its position.
        """
        if isinstance(octets, str):
            octets, fix_eols = _encode(octets), True
        if fix_eols:
            octets = _ANY_LINE_END.sub(b"\r\n", octets)
        check_canonical(octets)
        parts = (octets,) if octets.endswith(b"\r\n") else (octets, b"\r\n")
        beyond_ascii = not _header_section(octets).isascii()
        return cls(
            parts, sum(map(len, parts)), not octets.isascii(), beyond_ascii, needs_dot_stuffing=has_leading_dots(octets)
        )

    @classmethod
    def from_blocks(cls, blocks: Iterable[bytes]) -> Content:
        """Convert the line ends of finished content that comes in blocks, and check it; small blocks are joined.

        No step takes longer than that for one block, so a thread that does this lets others run.

        Raises:
            MessageError: a NUL or a line over 998 bytes, with its position.
        """
        normalizer = ContentNormalizer(fix_eols=True)
        parts: list[bytes] = []
        run: list[bytes] = []
        for block in blocks:
            run.append(normalizer.feed(block))
            if sum(map(len, run)) >= MAX_JOINED:
                parts.append(b"".join(run))
                run.clear()
        parts.append(b"".join([*run, normalizer.end()]))
        is_dotted = any(map(has_leading_dots, parts))
        return cls(
            tuple(parts), normalizer.size, normalizer.eight_bit, normalizer.utf8_headers, needs_dot_stuffing=is_dotted
        )

    @classmethod
    def from_canonical(cls, parts: tuple[bytes, ...], *, utf8_headers: bool = False) -> Content:
        """Take parts that are known to be canonical, without checking them."""
        return cls(parts, sum(map(len, parts)), not all(map(bytes.isascii, parts)), utf8_headers)

    @classmethod
    def from_binary(cls, octets: bytes) -> Content:
        """Take any bytes; the server needs BINARYMIME for those that are not canonical."""
        try:
            check_canonical(octets)
        except MessageError:
            canonical = False
        else:
            canonical = octets.endswith(b"\r\n")
        beyond = not octets.isascii()
        return cls((octets,), len(octets), beyond, not _header_section(octets).isascii(), not canonical)

    @property
    def is_consumed(self) -> bool:
        return False

    def __bytes__(self) -> bytes:
        return b"".join(self.parts)


class ContentSource(Protocol):
    """Content that a session reads while sending it.

    Attributes:
        size: bytes, as declared by SIZE; None if unknown.
        eight_bit, utf8_headers, binary: as in `Content`.
        is_consumed: true if it cannot be read again, so that the message cannot be retried.
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
    def is_consumed(self) -> bool: ...

    def blocks(self) -> AsyncGenerator[bytes]:
        """Yield the canonical content from its first byte, in blocks; an exception aborts the message."""


AnyContent: TypeAlias = Content | ContentSource


def _header_section(octets: bytes) -> bytes:
    end = 0 if octets.startswith(b"\r\n") else octets.find(b"\r\n\r\n")
    return octets if end < 0 else octets[:end]


def _encode(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise MessageError(f"character {error.start} is a lone surrogate, which cannot be encoded") from error


def check_canonical(octets: bytes) -> None:
    """Raise MessageError unless the bytes are canonical, apart from their end (RFC 5321 §2.3.8: no bare CR or LF)."""
    _check_bytes(octets)
    if (line := _long_line(octets)) is not None:
        raise MessageError(
            f"line {line} of the content has more than {MAX_LINE} bytes: encode the part as quoted-printable or base64"
        )


def _check_bytes(octets: bytes, offset: int = 0) -> None:
    """Raise MessageError for a bare CR or LF or a NUL; `offset` is the position of the bytes in the content."""
    pairs = octets.count(b"\r\n")
    if octets.count(b"\n") != pairs or octets.count(b"\r") != pairs:
        found = _BARE.search(octets)
        assert found is not None
        name, place = "CR" if found[0] == b"\r" else "LF", offset + found.start()
        raise MessageError(f"a bare {name} at byte {place} of the content: use CRLF, or pass fix_eols=True")
    if b"\0" in octets:
        place = offset + octets.index(0)
        raise MessageError(f"a NUL at byte {place} of the content: encode the part as base64")


def _long_line(octets: bytes) -> int | None:
    """Return the number (from 1) of the first line that is too long; steps from line end to line end."""
    start = 0
    while len(octets) - start > MAX_LINE:
        end = octets.rfind(b"\r\n", start, start + MAX_LINE + 2)
        if end < 0:
            return octets.count(b"\r\n", 0, start) + 1
        start = end + 2
    return None


def dot_stuff(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the parts as they are sent after DATA (RFC 5321 §4.5.2), wherever they are split."""
    return map(DotStuffer().feed, parts)


def has_leading_dots(octets: bytes) -> bool:
    """Tell if a line begins with a dot. True for a whole content if it is true for any part."""
    return octets.startswith(b".") or b"\n." in octets


def dot_stuff_content(content: Content) -> bytes:
    """Return the whole content as it is sent after DATA: the result of `dot_stuff`, joined, for content in memory."""
    octets = b"".join(content.parts)
    if not content.needs_dot_stuffing:
        return octets
    if b"\n." in octets:
        octets = octets.replace(b"\n.", b"\n..")
    return b"." + octets if octets.startswith(b".") else octets


class ChunkSplitter:
    """An incremental splitter into chunks of exactly `octets` bytes; the last one may be shorter."""

    __slots__ = ("_octets", "_pending")

    def __init__(self, octets: int) -> None:
        self._octets = octets
        self._pending = bytearray()

    def feed(self, part: bytes) -> Iterator[bytes]:
        """Yield the full chunks, except the last."""
        for start in range(0, len(part), self._octets):
            self._pending += part[start : start + self._octets]
            if len(self._pending) > self._octets:
                yield bytes(self._pending[: self._octets])
                del self._pending[: self._octets]

    def end(self) -> bytes:
        """Return the last chunk, which may be empty."""
        return bytes(self._pending)


def split_chunks(parts: Iterable[bytes], octets: int) -> Iterator[bytes]:
    """Split content into chunks, see `ChunkSplitter`; at least one chunk, which may be empty."""
    splitter = ChunkSplitter(octets)
    for part in parts:
        yield from splitter.feed(part)
    yield splitter.end()
