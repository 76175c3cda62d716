"""A pool whose sessions all have their hands full: how long a message waits, and what the pool tells of itself."""

from __future__ import annotations

import asyncio

import pytest

from asyncsmtp.errors import PoolTimeout
from asyncsmtp.testing import DEFAULT_REPLY, Action, CallRule, Hang, Stage, StageContext, Wait
from tests.client.support import message, pooling, rounds, until

pytestmark = pytest.mark.usefixtures("nothing_leaks")


async def test_a_message_waits_only_so_long_for_a_session() -> None:
    """Nothing of it is said, it is not in doubt, and the session serves on."""
    script = {Stage.END_OF_DATA: {1: (Wait(0.1), DEFAULT_REPLY)}}
    async with pooling(script, pool={"sessions": 1, "depth": 1, "wait": 0.03}) as (server, pool):
        first = asyncio.create_task(pool.send(message(1)))
        await server.wait_for_stage(Stage.END_OF_DATA)
        with pytest.raises(PoolTimeout, match=r"within 0\.03 s") as caught:
            await pool.send(message(2))
        assert isinstance(caught.value, TimeoutError)
        assert not caught.value.in_doubt
        assert (await first).accepted
        assert (await pool.send(message(3))).accepted
    assert [received.forward_paths for received in server.received] == [("to1@example.net",), ("to3@example.net",)]


async def test_a_message_that_finds_a_free_session_is_not_hurried() -> None:
    """The limit is on the wait for a session, not on the sending."""
    script = {Stage.END_OF_DATA: (Wait(0.05), DEFAULT_REPLY)}
    async with pooling(script, pool={"sessions": 1, "depth": 1, "wait": 0.0}) as (_, pool):
        assert (await pool.send(message())).accepted


async def test_who_gave_up_waiting_takes_nobodys_place() -> None:
    """However the limit, a cancellation and a free session fall together, none of the places is lost."""
    script = {Stage.END_OF_DATA: (Wait(0.01), DEFAULT_REPLY)}
    async with pooling(script, pool={"sessions": 2, "depth": 1, "wait": 0.01}) as (_, pool):
        results = await asyncio.gather(*(pool.send(message(n)) for n in range(30)), return_exceptions=True)
        assert {type(result).__name__ for result in results} == {"Delivery", "PoolTimeout"}
        await pool.drain()
        assert pool.waiting == pool.busy_sessions == 0
        both = await asyncio.gather(pool.send(message(40)), pool.send(message(41)))
        assert all(delivery.accepted for delivery in both)


async def test_the_pool_tells_what_it_is_doing() -> None:
    go = asyncio.Event()

    def dot(context: StageContext) -> Action:
        return DEFAULT_REPLY if go.is_set() else (Wait(0.005), CallRule(dot))

    async with pooling({Stage.END_OF_DATA: dot}, pool={"sessions": 3, "depth": 1}) as (_, pool):
        assert (pool.open_sessions, pool.busy_sessions, pool.waiting) == (0, 0, 0)
        one = asyncio.create_task(pool.send(message(0)))
        await until(lambda: pool.open_sessions == 1)
        assert (pool.busy_sessions, pool.waiting) == (1, 0)
        more = [asyncio.create_task(pool.send(message(n))) for n in range(1, 8)]
        await until(lambda: pool.busy_sessions == 3)
        assert (pool.open_sessions, pool.waiting) == (3, 5)
        go.set()
        assert all(delivery.accepted for delivery in await asyncio.gather(one, *more))
        assert (pool.open_sessions, pool.busy_sessions, pool.waiting) == (3, 0, 0)


async def test_a_cancelled_message_waits_no_more() -> None:
    async with pooling({Stage.MAIL: Hang()}, pool={"sessions": 1, "depth": 1}) as (_, pool):
        sending = [asyncio.create_task(pool.send(message(n))) for n in range(3)]
        await until(lambda: pool.waiting == 2)
        sending[2].cancel()
        await rounds()
        assert pool.waiting == 1
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        assert pool.waiting == 0
