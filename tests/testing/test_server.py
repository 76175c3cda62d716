"""The listener: clients that connect while it closes."""

from __future__ import annotations

import asyncio
import gc
import socket

import pytest

from asyncsmtp.testing import ScriptedRelay

pytestmark = pytest.mark.both_loops


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.slow
async def test_it_ends_whoever_comes_just_then(turns: int) -> None:
    """Accepted and not yet reported to the relay, or reported and without a transport: at each turn of the loop."""
    relay = ScriptedRelay()
    await relay.start()
    with socket.create_connection((relay.host, relay.port)) as client:
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await relay.aclose()
        assert relay.open_connections == 0
        await hung_up(client)
    gc.collect()  # what only the collector closes warns, and warnings are errors


async def test_it_ends_for_two_who_end_it_at_once() -> None:
    """A fixture, and the test that uses it."""
    relay = ScriptedRelay()
    await relay.start()
    with socket.create_connection((relay.host, relay.port)):
        await asyncio.gather(relay.aclose(), relay.aclose())
    assert relay.open_connections == 0


async def hung_up(client: socket.socket) -> None:
    """Return when the other end is closed, after what it may have sent before."""
    client.setblocking(False)
    try:
        async with asyncio.timeout(5):
            while await asyncio.get_running_loop().sock_recv(client, 4096):
                pass
    except ConnectionResetError:
        pass
