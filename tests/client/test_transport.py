"""Connections: names to streams, and the ways that fails."""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import replace

import pytest

from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.connection.transport import tls_context, verifies
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import ConnectFailed
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import ScriptedRelay
from tests.client.support import GRACE, QUICK_OPENING, message, relay_of

pytestmark = pytest.mark.usefixtures("nothing_leaks")


async def test_a_name_is_looked_up_and_its_addresses_tried() -> None:
    async with ScriptedRelay() as server:
        relay = Relay("localhost", server.port, Security.PLAINTEXT, timeouts=QUICK_OPENING)
        async with Session(relay) as session:
            assert (await session.send(message())).accepted


async def test_we_greet_with_the_address_of_our_end() -> None:
    """P-07, D-21: RFC 5321 §4.1.3; no look-up of our own name, which could block."""
    async with ScriptedRelay() as server, Session(relay_of(server)):
        assert "C: EHLO [127.0.0.1]" in server.dialogue


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
async def test_we_greet_with_an_ipv6_literal() -> None:
    try:
        server = ScriptedRelay(host="::1")
        await server.start()
    except OSError:
        pytest.skip("no IPv6 loopback here")
    async with Session(Relay("::1", server.port, Security.PLAINTEXT, timeouts=QUICK_OPENING)):
        assert "C: EHLO [IPv6:::1]" in server.dialogue
    await server.aclose()


async def test_a_connection_that_is_never_taken_is_bounded() -> None:
    """N-10: RFC 5321 leaves it open; the limit counts name lookup and all addresses together."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = []
        for _ in range(4):  # the backlog is full: the kernel drops what comes now
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        await asyncio.sleep(0.05)
        began = asyncio.get_running_loop().time()
        relay = Relay("127.0.0.1", port, Security.PLAINTEXT, timeouts=replace(QUICK_OPENING, connect=0.25))
        with pytest.raises(ConnectFailed, match=r"within 0\.25 s") as caught:
            await Session(relay).connect()
        assert "firewall" in str(caught.value)
        assert asyncio.get_running_loop().time() - began < 0.25 + GRACE
        for filler in fillers:
            filler.close()


async def test_the_usual_context_verifies_and_is_made_once() -> None:
    """D-24, TL-05, TL-06: certificates and names; TLS 1.2 at the least."""
    context = await tls_context(Relay("relay.example"))
    assert verifies(Relay("h", context=context))
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert await tls_context(Relay("other.example")) is context


def test_what_proves_the_relay() -> None:
    """TL-07: a context that checks names and certificates, or a pin."""
    context = ssl.create_default_context()
    assert verifies(Relay("h"))
    assert verifies(Relay("h", context=context))
    context.check_hostname = False
    assert not verifies(Relay("h", context=context))
    context.verify_mode = ssl.CERT_NONE
    assert not verifies(Relay("h", context=context))
    assert not verifies(Relay("h", verify=False))
    assert verifies(Relay("h", verify=False, pins=("ab" * 32,)))
