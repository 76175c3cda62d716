"""BL-15: a machine that slept closes what was idle before it sends."""

from __future__ import annotations

import asyncio

import pytest

from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.pool.waking import GAP, Wakefulness
from asyncsmtp.testing import ScriptedRelay
from tests.client.support import message, relay_of

pytestmark = pytest.mark.usefixtures("nothing_leaks")


class Clocks:
    """Two clocks; one of them goes on while the machine sleeps."""

    def __init__(self) -> None:
        self.awake = 1000.0
        self.asleep = 500.0

    def wakefulness(self) -> Wakefulness:
        return Wakefulness(lambda: self.awake + self.asleep, lambda: self.awake)


def test_a_sleep_is_told_once_and_a_short_one_is_none() -> None:
    """BL-15: thirty seconds are what any server bears."""
    clocks = Clocks()
    mind = clocks.wakefulness()
    clocks.awake += 10_000
    assert not mind.slept()
    clocks.asleep += GAP
    assert not mind.slept()
    clocks.asleep += GAP + 1
    assert mind.slept()
    assert not mind.slept()


async def test_an_idle_session_is_not_used_after_a_sleep() -> None:
    """BL-15: it is broken off at once, without a QUIT that nobody would answer; a busy one is left alone."""
    clocks = Clocks()
    async with ScriptedRelay() as server, Pool(relay_of(server), sessions=2) as pool:
        pool._wakefulness = clocks.wakefulness()
        await asyncio.gather(pool.send(message(1)), pool.send(message(2)))
        assert (server.connections, pool.open_sessions) == (2, 2)
        await pool.send(message(3))
        assert server.connections == 2
        clocks.asleep += 3600
        assert (await pool.send(message(4))).accepted
        assert server.connections == 3
        assert pool.open_sessions == 1
    assert len(server.received) == 4


def test_the_clocks_of_this_machine_are_used() -> None:
    assert not Wakefulness().slept()
