"""One connection after another, and what a relay that does not read or stay costs us."""

from __future__ import annotations

import asyncio
import ssl
import time
import tracemalloc

import pytest

from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import ConnectFailed, ExtensionNotSupported, LocalProtocolError, Refused, ReplyTimeout
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import Fin, HalfClose, ScriptedRelay, Stage, StopReading
from tests.client.support import QUICK, big, commands, message, relay_of, until

pytestmark = pytest.mark.usefixtures("nothing_leaks")


async def test_a_relay_is_connected_again_with_nothing_known(server: ScriptedRelay) -> None:
    """W-08: a session is for one connection, so the next one has no extension before its own EHLO."""
    relay = relay_of(server)
    async with Session(relay) as first:
        assert first.extensions
    second = Session(relay)
    with pytest.raises(LocalProtocolError):
        _ = second.extensions
    async with second:
        assert (await second.send(message())).accepted
    assert commands(server, 2)[0] == "EHLO"


async def test_the_late_end_of_a_connection_leaves_the_next_one_alone() -> None:
    """W-09, D-19: the relay ends its side of the first while the second is in use."""
    async with ScriptedRelay({Stage.QUIT: HalfClose()}) as server:
        first = Session(relay_of(server))
        await first.connect()
        async with Session(relay_of(server)) as second:
            await first.aclose()
            await until(lambda: server.open_connections == 1)
            assert second.usable
            assert (await second.send(message())).accepted
        assert not first.usable


async def test_helo_is_no_way_around_tls() -> None:
    """WI-17: one fallback, and it ends where TLS is required; HELO offers no STARTTLS."""
    async with ScriptedRelay({Stage.EHLO: "502 5.5.1 what"}) as server:
        with pytest.raises((Refused, ExtensionNotSupported)):
            await Session(relay_of(server, security=Security.STARTTLS)).connect()
        await server.wait_until_idle()
    assert commands(server).count("HELO") <= 1
    assert "MAIL" not in commands(server)


async def test_a_slow_reader_under_starttls_holds_us_back(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """P-02: what pauses writing after the upgrade is the TLS transport, and all of it arrives."""
    sent = big(2_000_000)
    async with ScriptedRelay(tls=server_tls, receive_buffer=8192) as server:
        relay = relay_of(server, security=Security.STARTTLS, context=client_tls)
        async with Session(relay) as session:
            assert (await session.send(sent)).accepted
    assert server.received[0].content == bytes(sent.content)


async def test_a_relay_that_takes_and_closes_does_not_make_the_pool_spin() -> None:
    """RE-04: each sender is told at once, by one connection or a few, and nothing runs on behind it."""
    async with ScriptedRelay({Stage.GREETING: Fin()}) as server, Pool(relay_of(server), sessions=4) as pool:
        results = await asyncio.gather(*(pool.send(message(n)) for n in range(50)), return_exceptions=True)
        assert all(isinstance(result, ConnectFailed) for result in results)
        made, used = server.connections, time.process_time()
        assert made <= 50
        await asyncio.sleep(0.5)
        assert server.connections == made
        assert time.process_time() - used < 0.25


async def test_a_relay_that_stops_reading_costs_no_memory() -> None:
    """RE-01: of 50 MB no more than some blocks are held for it, and it never sees the dot."""
    sent = big(50_000_000)
    async with ScriptedRelay({Stage.BODY: StopReading()}, receive_buffer=8192) as server:
        async with Session(relay_of(server, timeouts=QUICK)) as session:
            tracemalloc.start()
            try:
                with pytest.raises(ReplyTimeout):
                    await session.send(sent)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert server.received == []
    assert peak < 5 * 2**20
