"""The habits of real servers, and a thousand messages to each: all arrive once, and none is in doubt."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.testing.server_profiles import REAL_SERVERS, ServerProfile
from tests.client.support import message, relay_of

pytestmark = [pytest.mark.usefixtures("nothing_leaks"), pytest.mark.slow]


@pytest.mark.parametrize("server", REAL_SERVERS, ids=lambda server: server.name)
async def test_a_thousand_messages_arrive_once_and_none_is_in_doubt(server: ServerProfile) -> None:
    """WI-18: those that crash, refuse or lose what follows the dot are found out, and nobody's message is."""
    async with server.relay() as served, Pool(relay_of(served), sessions=4, depth=4) as pool:
        deliveries = await asyncio.gather(*(pool.send(message(n)) for n in range(1000)))  # a doubt would be raised
        taken = Counter(path for received in served.received for path in received.forward_paths)
    assert all(delivery.accepted for delivery in deliveries)
    assert taken == {f"to{n}@example.net": 1 for n in range(1000)}
