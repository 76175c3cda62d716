"""A pool whose sessions are all busy: the wait of a message, and the figures of the pool."""

from __future__ import annotations

import asyncio

import pytest

from asyncsmtp.client.config.relay import Dialogue
from asyncsmtp.errors import LocalProtocolError, PoolTimeout
from asyncsmtp.protocol.delivery import Delivery
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


@pytest.mark.parametrize("dialogue", [Dialogue.LOCKSTEP, Dialogue.PIPELINED])
async def test_a_stopped_pool_gives_back_what_has_not_begun(dialogue: Dialogue) -> None:
    """FT-74: of 30 messages over two sessions those that have begun are answered; of the others nothing is written."""
    go = asyncio.Event()

    def dot(context: StageContext) -> Action:
        return DEFAULT_REPLY if go.is_set() else (Wait(0.005), CallRule(dot))

    relay = {"dialogue": dialogue}
    async with pooling({Stage.END_OF_DATA: dot}, relay=relay, pool={"sessions": 2}) as (server, pool):
        sends = [asyncio.create_task(pool.send(message(n))) for n in range(30)]
        await until(lambda: sum("C: ." in line for line in server.dialogue) == 2)
        pool.stop()
        await until(lambda: sum(send.done() for send in sends) >= 26)
        begun = [n for n, send in enumerate(sends) if not send.done()]
        assert 2 <= len(begun) <= 4  # a session may have the next envelope written
        go.set()
        results = await asyncio.gather(*sends, return_exceptions=True)
        with pytest.raises(LocalProtocolError, match="the pool is closed"):
            await pool.send(message(99))
    assert [n for n, result in enumerate(results) if isinstance(result, Delivery)] == begun
    assert {str(result) for n, result in enumerate(results) if n not in begun} == {"the pool is closed"}
    assert sorted(one.forward_paths[0] for one in server.received) == sorted(f"to{n}@example.net" for n in begun)


async def test_a_stopped_pool_opens_no_session() -> None:
    """FT-74: whoever waits for a session that is being opened hears at once, not when the relay has answered."""
    async with pooling({Stage.GREETING: Hang()}, pool={"sessions": 2}) as (server, pool):
        sends = [asyncio.create_task(pool.send(message(n))) for n in range(3)]
        await until(lambda: server.connections > 0)
        pool.stop()
        async with asyncio.timeout(5):
            results = await asyncio.gather(*sends, return_exceptions=True)
        pool.stop()  # a second call does nothing
        assert await pool.drain(1)
    assert [str(result) for result in results] == ["the pool is closed"] * 3


async def test_a_pool_stopped_before_its_first_message() -> None:
    """FT-74: as one that is closed."""
    async with pooling() as (server, pool):
        pool.stop()
        with pytest.raises(LocalProtocolError, match="the pool is closed"):
            await pool.send(message())
    assert server.connections == 0
