"""Content that is not in memory: read block by block while it is sent (RFC 5321 §4.5.3.1.7 sets no limit to it)."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Self

import aiofiles

from asyncsmtp.client.connection.ear import READ_SIZE
from asyncsmtp.errors import MessageError
from asyncsmtp.protocol.content import ContentNormalizer

__all__ = ["FileContent", "StreamContent"]


class FileContent:
    """A finished message in a file, read again each time it is sent; made by `FileContent.scan`.

    Attributes:
        path: where it is. size: octets, its line ends mended.
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
        """Read the file once, to know its size and what the relay must offer; nothing of it is kept.

        Raises:
            MessageError: a bare CR or LF (but with `fix_eols`), a NUL or a line over 998 octets, with its place.
            OSError: it cannot be read.
        """
        judge = ContentNormalizer(fix_eols=fix_eols)
        async with aclosing(_canonical(_read(Path(path)), judge)) as blocks:
            async for _ in blocks:
                pass
        return cls(
            Path(path), judge.size, eight_bit=judge.eight_bit, utf8_headers=judge.utf8_headers, fix_eols=fix_eols
        )

    async def blocks(self) -> AsyncGenerator[bytes]:
        """Read it.

        Raises:
            MessageError: it is not what was scanned.
        """
        judge = ContentNormalizer(fix_eols=self._fix_eols)
        async with aclosing(_canonical(_read(self.path), judge)) as blocks:
            async for block in blocks:
                if judge.size > self.size:
                    break
                yield block
        found, scanned = (judge.eight_bit, judge.utf8_headers), (self.eight_bit, self.utf8_headers)
        if judge.size != self.size or found > scanned or found[1] > scanned[1]:
            raise MessageError(f"{self.path} has changed since it was scanned: nothing was delivered; scan it again")


class StreamContent:
    """A finished message that somebody gives us in blocks, once.

    Args:
        blocks: octets, cut anywhere; an asynchronous iterable, or one that does not block.
        size: octets, their line ends mended, if it is known: then SIZE is declared, and another number is an error.
        eight_bit: whether octets above 127 may come: the relay must offer 8BITMIME for them.
        utf8_headers: whether they may come in the header section: the relay must offer SMTPUTF8 for them.
        fix_eols: whether other line ends become CRLF; without it they are an error.
    Attributes:
        is_consumed: whether it was begun.
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
        """Take them.

        Raises:
            MessageError: they are not what was announced, or were taken before. And whatever their source raises.
        """
        if self.is_consumed:
            raise MessageError("a stream can be sent once, and this one was begun: make another")
        self.is_consumed = True
        judge = ContentNormalizer(fix_eols=self._fix_eols)
        async with aclosing(_canonical(_each(self._blocks), judge)) as blocks:
            async for block in blocks:
                if judge.eight_bit and not self.eight_bit:
                    raise MessageError("an octet above 127 in a stream that was to have none: give eight_bit=True")
                if judge.utf8_headers and not self.utf8_headers:
                    raise MessageError("a header beyond ASCII in a stream: give utf8_headers=True if it may have one")
                if self.size is not None and judge.size > self.size:
                    break
                yield block
        if self.size is not None and judge.size != self.size:
            raise MessageError(f"the stream has not the {self.size} octets that were announced: nothing was delivered")


async def _canonical(source: AsyncGenerator[bytes], judge: ContentNormalizer) -> AsyncGenerator[bytes]:
    async with aclosing(source) as blocks:
        async for block in blocks:
            if passed := judge.feed(block):
                yield passed
    if rest := judge.end():
        yield rest


async def _read(path: Path) -> AsyncGenerator[bytes]:
    async with aiofiles.open(path, "rb") as file:
        while block := await file.read(READ_SIZE):
            yield block


async def _each(blocks: AsyncIterable[bytes] | Iterable[bytes]) -> AsyncGenerator[bytes]:
    if isinstance(blocks, AsyncGenerator):  # its own clean-up is due when we are done with it, not at some time
        async with aclosing(blocks):
            async for block in blocks:
                yield block
    elif isinstance(blocks, AsyncIterable):
        async for block in blocks:
            yield block
    else:
        for block in blocks:
            yield block
