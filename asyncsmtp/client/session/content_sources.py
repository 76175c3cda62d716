"""Content that is not in memory: read in blocks while it is sent (RFC 5321 §4.5.3.1.7 sets no limit to its size)."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Self

import aiofiles

from asyncsmtp.client.connection.transport import READ_SIZE
from asyncsmtp.client.session.pending_message import iterate
from asyncsmtp.errors import MessageError
from asyncsmtp.protocol.content import ContentNormalizer

__all__ = ["FileContent", "StreamContent"]


class FileContent:
    """A finished message in a file, read again each time it is sent; made by `FileContent.scan`.

    Attributes:
        path: of the file. size: bytes, with its line ends as they are sent.
    """

    binary = False
    is_consumed = False

    def __init__(self, path: Path, size: int, *, eight_bit: bool, utf8_headers: bool, fix_eols: bool) -> None:
        self.path = path
        self.size = size
        self.eight_bit = eight_bit
        self.utf8_headers = utf8_headers
        self._fix_eols = fix_eols

    @classmethod
    async def scan(cls, path: str | os.PathLike[str], *, fix_eols: bool = False) -> Self:
        """Read the file once, for its size and for what the relay must offer; its content is not kept.

        Raises:
            MessageError: a bare CR or LF (unless `fix_eols`), a NUL or a line over 998 bytes, with its position.
            OSError: it cannot be read.
        """
        checker = ContentNormalizer(fix_eols=fix_eols)
        async with aclosing(_canonical(_read(Path(path)), checker)) as blocks:
            async for _ in blocks:
                pass
        return cls(
            Path(path), checker.size, eight_bit=checker.eight_bit, utf8_headers=checker.utf8_headers, fix_eols=fix_eols
        )

    async def blocks(self) -> AsyncGenerator[bytes]:
        """Yield its blocks.

        Raises:
            MessageError: it has changed since it was scanned.
        """
        checker = ContentNormalizer(fix_eols=self._fix_eols)
        async with aclosing(_canonical(_read(self.path), checker)) as blocks:
            async for block in blocks:
                if checker.size > self.size:
                    break
                yield block
        found, scanned = (checker.eight_bit, checker.utf8_headers), (self.eight_bit, self.utf8_headers)
        if checker.size != self.size or found > scanned or found[1] > scanned[1]:
            raise MessageError(f"{self.path} has changed since it was scanned: nothing was delivered; scan it again")


class StreamContent:
    """A finished message from a source that yields it in blocks, once.

    Args:
        blocks: bytes, cut anywhere; an asynchronous iterable, or one that does not block.
        size: bytes, with the line ends as they are sent, if known: then SIZE is declared, and another size is an error.
        eight_bit: whether bytes above 127 may come: the relay must offer 8BITMIME for them.
        utf8_headers: whether they may come in the header section: the relay must offer SMTPUTF8 for them.
        fix_eols: whether other line ends become CRLF; without it they are an error.
    Attributes:
        is_consumed: whether it was begun; it cannot be sent again.
    """

    binary = False

    def __init__(
        self,
        blocks: AsyncIterable[bytes] | Iterable[bytes],
        *,
        size: int | None = None,
        eight_bit: bool = True,
        utf8_headers: bool = False,
        fix_eols: bool = False,
    ) -> None:
        self.size = size
        self.eight_bit = eight_bit
        self.utf8_headers = utf8_headers
        self.is_consumed = False
        self._blocks = blocks
        self._fix_eols = fix_eols

    async def blocks(self) -> AsyncGenerator[bytes]:
        """Yield them.

        Raises:
            MessageError: they are not what was announced, or were used before. And whatever their source raises.
        """
        if self.is_consumed:
            raise MessageError("a stream can be sent once, and this one was begun: make another")
        self.is_consumed = True
        checker = ContentNormalizer(fix_eols=self._fix_eols)
        async with aclosing(_canonical(iterate(self._blocks), checker)) as blocks:
            async for block in blocks:
                if checker.eight_bit and not self.eight_bit:
                    raise MessageError("a byte above 127 in a stream that was to have none: give eight_bit=True")
                if checker.utf8_headers and not self.utf8_headers:
                    raise MessageError("a header beyond ASCII in a stream: give utf8_headers=True if it may have one")
                if self.size is not None and checker.size > self.size:
                    break
                yield block
        if self.size is not None and checker.size != self.size:
            raise MessageError(f"the stream has not the {self.size} bytes that were announced: nothing was delivered")


async def _canonical(source: AsyncGenerator[bytes], checker: ContentNormalizer) -> AsyncGenerator[bytes]:
    async with aclosing(source) as blocks:
        async for block in blocks:
            if passed := checker.feed(block):
                yield passed
    if rest := checker.end():
        yield rest


async def _read(path: Path) -> AsyncGenerator[bytes]:
    async with aiofiles.open(path, "rb") as file:
        while block := await file.read(READ_SIZE):
            yield block
