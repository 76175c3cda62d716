"""What a session does to its process, and notices of a peer that is gone."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable

import pytest

from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.events.types import Event, SessionOpened
from asyncsmtp.client.session.session import Session
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import ScriptedRelay, Stage
from tests.client.support import big, message, playing, relay_of, serving, takes_all

pytestmark = pytest.mark.usefixtures("nothing_leaks")


async def test_the_kernel_looks_after_a_peer_that_says_nothing() -> None:
    """RE-03: keepalive, on top of the limits of each stage."""
    async with playing() as (_, session):
        assert session._wire is not None
        kept = session._wire.writer.get_extra_info("socket")
        with socket.socket(fileno=os.dup(kept.fileno())) as handle:
            assert handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def _longest_turn_during(work: Awaitable[object]) -> float:
    """Seconds of CPU that the longest turn of the loop took, meanwhile."""
    longest, before, working = 0.0, time.process_time(), asyncio.ensure_future(work)
    while not working.done():
        await asyncio.sleep(0)
        longest, before = max(longest, time.process_time() - before), time.process_time()
    await working
    return longest


async def test_the_loop_turns_while_a_large_content_goes_out() -> None:
    """RE-05, D-13: twenty megabytes, and no turn of the loop costs much; counted in our own CPU, not in wall time."""
    large = big(20_000_000)
    async with serving(takes_all) as port, Session(Relay("127.0.0.1", port, Security.PLAINTEXT)) as session:
        assert await _longest_turn_during(session.send(large)) < 0.1


async def test_the_loop_turns_while_many_small_messages_go_out() -> None:
    """RE-05: two hundred waiting at once."""
    async with playing() as (_, session):
        sending = asyncio.gather(*(session.send(message(number)) for number in range(200)))
        assert await _longest_turn_during(sending) < 0.1


async def test_sessions_that_went_on_in_clear_can_be_counted() -> None:
    """TL-11: where the owner allows that, and TLS was refused: in the events, and in each delivery."""
    told: list[Event] = []
    async with ScriptedRelay({Stage.STARTTLS: "454 4.7.0 not now"}, offers=("STARTTLS",)) as server:
        relay = relay_of(server, security=Security.OPPORTUNISTIC)
        async with Session(relay, on_event=told.append) as session:
            delivery = await session.send(message())
    assert delivery.tls is None
    assert [event.tls for event in told if isinstance(event, SessionOpened)] == [None]
