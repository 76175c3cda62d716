"""A port without a relay: the error says in one sentence what it is, or what to check."""

from __future__ import annotations

import asyncio

import pytest

from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import ConnectFailed
from asyncsmtp.protocol.opening_handshake import Security
from tests.client.support import GRACE, LIMIT, QUICK_OPENING, serving

pytestmark = pytest.mark.usefixtures("nothing_leaks")

HTTP = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("security", [Security.STARTTLS, Security.PLAINTEXT])
@pytest.mark.parametrize(
    ("octets", "what"),
    [
        (HTTP, "HTTP"),
        (b"<html><body>hello</body></html>\r\n", "HTTP"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH"),
        (b"* OK [CAPABILITY IMAP4rev1] ready\r\n", "IMAP"),
        (b"+OK POP3 ready\r\n", "POP3"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "TLS"),
        (b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03", "TLS"),
        (b"\x15\x03\x01\x00\x02\x02\n", "TLS"),
        (b"Z" * 4096, "SMTP"),
        (b"\x00\x01\x02\x03" * 20 + b"\r\n", "SMTP"),
        (b"", "smtps"),
    ],
    ids=["http", "html", "ssh", "imap", "pop3", "tls alert", "tls hello", "tls line", "endless", "binary", "silence"],
)
async def test_one_clear_sentence(octets: bytes, what: str, security: Security) -> None:
    """WI-15: the wrong port is named as such, in time, whether the peer hangs up or waits."""
    for hangs_up in (True, False):
        if hangs_up and not octets:
            continue

        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, ends: bool = hangs_up) -> None:
            writer.write(octets)
            await writer.drain()
            if ends:
                writer.close()
                return
            while await reader.read(1024):
                pass

        async with serving(play) as port:
            loop = asyncio.get_running_loop()
            began = loop.time()
            with pytest.raises(ConnectFailed) as caught:
                await Session(Relay("127.0.0.1", port, security, timeouts=QUICK_OPENING)).connect()
            assert loop.time() - began < LIMIT + GRACE
        said = str(caught.value)
        assert what in said
        assert f"127.0.0.1:{port}" in said
        assert said.isprintable()
        assert len(said) < 500


async def test_a_server_that_waits_for_us_to_speak_first_is_silence() -> None:
    """HTTP servers say nothing until they are asked."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(HTTP)

    async with serving(play) as port:
        with pytest.raises(ConnectFailed, match="no greeting"):
            await Session(Relay("127.0.0.1", port, Security.PLAINTEXT, timeouts=QUICK_OPENING)).connect()


async def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(ConnectFailed, match="host name is not known"):
        await Session(Relay("no-such-host.invalid", 25, Security.PLAINTEXT, timeouts=QUICK_OPENING)).connect()
