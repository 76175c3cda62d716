"""A client for tests of the relay: raw octets over a stream, and a reader of replies that is not ours."""

from __future__ import annotations

import asyncio
import ssl
from types import TracebackType
from typing import Self

from asyncsmtp.testing.relay import SmtpServer


class Peer:
    """A client that sends what it is given, byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, relay: SmtpServer, tls: ssl.SSLContext | None = None) -> Self:
        if relay.unix_path is not None:
            return cls(*await asyncio.open_unix_connection(str(relay.unix_path)))
        name = "relay.example" if tls else None
        return cls(*await asyncio.open_connection(relay.host, relay.port, ssl=tls, server_hostname=name))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.writer.transport.abort()

    def write(self, octets: str | bytes) -> None:
        self.writer.write(octets.encode() if isinstance(octets, str) else octets)

    async def reply(self) -> str:
        """One reply, lines joined by LF; "" when the relay has closed."""
        lines = []
        while True:
            line = await self.reader.readline()
            lines.append(line.decode("utf-8", "backslashreplace").removesuffix("\r\n"))
            if line[3:4] != b"-":
                return "\n".join(lines)

    async def say(self, *lines: str) -> str:
        """Write these lines in one segment and return the replies, one for each, in lines."""
        self.write("".join(f"{line}\r\n" for line in lines))
        return "\n".join([await self.reply() for _ in lines])

    async def greet(self) -> str:
        """Read the greeting, say EHLO, return its reply."""
        await self.reply()
        return await self.say("EHLO client.example")

    async def start_tls(self, context: ssl.SSLContext) -> None:
        await self.writer.start_tls(context, server_hostname="relay.example")


def codes(replies: str) -> list[int]:
    """The codes of replies, one for each line."""
    return [int(line[:3]) for line in replies.split("\n")]
