"""BL-15: a machine that slept closes what was idle before it sends."""

from __future__ import annotations

import asyncio

import pytest

from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.pool.session_slots import MAX_SUSPENSION, SuspendDetector
from asyncsmtp.testing import ScriptedRelay
from tests.client.support import message, relay_of

pytestmark = pytest.mark.usefixtures("nothing_leaks")


class Clocks:
    """Two clocks; one of them goes on while the machine sleeps."""

    def __init__(self) -> None:
        self.awake = 1000.0
        self.asleep = 500.0

    def detector(self) -> SuspendDetector:
        return SuspendDetector(lambda: self.awake + self.asleep, lambda: self.awake)


def test_a_suspension_is_reported_once_and_a_short_one_is_ignored() -> None:
    """BL-15: thirty seconds are what any server bears."""
    clocks = Clocks()
    detector = clocks.detector()
    clocks.awake += 10_000
    assert not detector.was_suspended()
    clocks.asleep += MAX_SUSPENSION
    assert not detector.was_suspended()
    clocks.asleep += MAX_SUSPENSION + 1
    assert detector.was_suspended()
    assert not detector.was_suspended()


async def test_an_idle_session_is_not_used_after_a_sleep() -> None:
    """BL-15: it is broken off at once, without a QUIT that nobody would answer; a busy one is left alone."""
    clocks = Clocks()
    async with (
        ScriptedRelay() as server,
        Pool(relay_of(server), sessions=2, suspend_detector=clocks.detector()) as pool,
    ):
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
    assert not SuspendDetector().was_suspended()
