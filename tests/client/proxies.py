"""Proxies on loopback for tests: SOCKS 5 (RFC 1928, RFC 1929) and HTTP CONNECT, as far as a relay needs them."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.client.support import serving

__all__ = ["Seen", "http_proxy", "socks_proxy"]


@dataclass
class Seen:
    """Where a proxy listens, whom it was asked for, and who asked.

    Attributes:
        leads_to: the port on loopback where every name ends.
    """

    leads_to: int
    port: int = 0
    asked: list[tuple[str, int]] = field(default_factory=list)
    users: list[tuple[str, str]] = field(default_factory=list)
    peers: list[str] = field(default_factory=list)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while octets := await reader.read(65_536):
            writer.write(octets)
            await writer.drain()
        writer.write_eof()
    except OSError:
        pass


async def _join(
    seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes, *, at_once: bool = False
) -> None:
    """Answer, and pass on what either side says."""
    there, back = await asyncio.open_connection("127.0.0.1", seen.leads_to)
    try:
        writer.write(answer + (await there.readline() if at_once else b""))
        async with asyncio.TaskGroup() as both:
            both.create_task(_pipe(reader, back))
            both.create_task(_pipe(there, writer))
    finally:
        back.transport.abort()


@asynccontextmanager
async def socks_proxy(
    leads_to: int, *, users: dict[str, str] | None = None, refuses: int | None = None
) -> AsyncIterator[Seen]:
    """A SOCKS 5 proxy; `refuses` is the code it answers CONNECT with."""
    seen = Seen(leads_to)

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.peers.append(writer.get_extra_info("peername")[0])
        version, number = await reader.readexactly(2)
        assert version == 5
        methods = await reader.readexactly(number)
        method = 2 if users is not None else 0
        if method not in methods:
            writer.write(b"\x05\xff")
            return
        writer.write(bytes([5, method]))
        if users is not None:
            await reader.readexactly(1)
            username = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
            password = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
            seen.users.append((username, password))
            known = users.get(username) == password
            writer.write(b"\x01\x00" if known else b"\x01\x01")
            if not known:
                return
        _, command, _, kind = await reader.readexactly(4)
        assert command == 1
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            host = ".".join(map(str, await reader.readexactly(4)))
        seen.asked.append((host, int.from_bytes(await reader.readexactly(2))))
        if refuses is not None:
            writer.write(bytes([5, refuses, 0, 1, 0, 0, 0, 0, 0, 0]))
            return
        await _join(seen, reader, writer, b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x19")

    async with serving(play) as seen.port:
        yield seen


@asynccontextmanager
async def http_proxy(
    leads_to: int, *, users: dict[str, str] | None = None, answer: bytes | None = None, at_once: bool = False
) -> AsyncIterator[Seen]:
    """An HTTP proxy; with `at_once` the relay's greeting stands in the same write as the proxy's answer."""
    seen = Seen(leads_to)

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.peers.append(writer.get_extra_info("peername")[0])
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
        method, target, version = first.split(" ")
        assert (method, version) == ("CONNECT", "HTTP/1.1")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        assert headers["host"] == target
        host, _, port = target.rpartition(":")
        seen.asked.append((host, int(port)))
        if "proxy-authorization" in headers:
            kind, _, said = headers["proxy-authorization"].partition(" ")
            assert kind == "Basic"
            username, _, password = b64decode(said).decode().partition(":")
            seen.users.append((username, password))
        if answer is not None:
            writer.write(answer)
            return
        if users is not None and not (seen.users and users.get(seen.users[-1][0]) == seen.users[-1][1]):
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        await _join(
            seen, reader, writer, b"HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n", at_once=at_once
        )

    async with serving(play) as seen.port:
        yield seen
