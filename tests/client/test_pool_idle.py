"""Sessions of a pool that are idle, or old: their end."""

from __future__ import annotations

import asyncio
import math

import pytest

from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.testing import DEFAULT_REPLY, Fin, Hang, ScriptedRelay, Stage, Wait
from tests.client.support import commands, message, pooling, relay_of, token, told, until

pytestmark = pytest.mark.usefixtures("nothing_leaks")


async def test_an_idle_session_says_quit_by_itself() -> None:
    """RE-10: before the relay reaps it, and its place there is free."""
    async with pooling(pool={"sessions": 3, "depth": 1, "idle": 0.05}) as (server, pool):
        await asyncio.gather(*(pool.send(message(n)) for n in range(3)))
        assert server.connections == 3
        await server.wait_until_idle()
        assert pool.open_sessions == 0
        assert [commands(server, n)[-1] for n in (1, 2, 3)] == ["QUIT"] * 3
        assert (await pool.send(message(4))).accepted
        assert server.connections == 4
    assert "NOOP" not in server.dialogue


async def test_a_message_keeps_its_session_from_being_idle() -> None:
    async with pooling({Stage.END_OF_DATA: (Wait(0.15), DEFAULT_REPLY)}, pool={"sessions": 1, "idle": 0.05}) as (
        server,
        pool,
    ):
        deliveries = [await pool.send(message(n)) for n in range(3)]
        assert all(delivery.accepted for delivery in deliveries)
        assert server.connections == 1


async def test_an_idle_session_is_replaced_even_where_no_timer_could_run() -> None:
    """A loop that was held up, a laptop that slept: the message finds the session too old, and asks it nothing."""
    async with pooling(pool={"sessions": 1, "idle": 0.03}) as (server, pool):
        await pool.send(message(1))
        began = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() < began + 0.04:
            pass  # nothing else runs meanwhile
        assert (await pool.send(message(2))).accepted
        assert server.connections == 2
    assert commands(server, 1)[-1] == "QUIT"
    assert commands(server, 1).count("MAIL") == 1


async def test_an_old_session_is_replaced_though_it_is_never_idle() -> None:
    """The messages in its line are answered first; none of them is lost or said twice."""
    script = {Stage.END_OF_DATA: (Wait(0.005), DEFAULT_REPLY)}
    async with pooling(script, on_accept=token, pool={"sessions": 1, "age": 0.05}) as (server, pool):
        deliveries = await asyncio.gather(*(pool.send(message(n)) for n in range(30)))
    assert [told(d) for d in deliveries] == [f"2.0.0 taken for to{n}@example.net" for n in range(30)]
    assert len(server.received) == 30
    assert server.connections > 1
    assert all(commands(server, n)[-1] == "QUIT" for n in range(1, server.connections + 1))


async def test_an_old_session_ends_though_no_message_comes() -> None:
    async with pooling(pool={"sessions": 1, "age": 0.05}) as (server, pool):
        await pool.send(message())
        await server.wait_until_idle()
        assert pool.open_sessions == 0


async def test_a_relay_that_is_mute_at_quit_holds_up_nobody_who_finds_another_place() -> None:
    """QUIT is said in the background; its place is taken only when it has ended."""
    async with pooling({Stage.QUIT: {1: Hang()}}, pool={"sessions": 2, "idle": 0.03}) as (server, pool):
        await pool.send(message(1))
        await server.wait_for_stage(Stage.QUIT)
        began = asyncio.get_running_loop().time()
        await pool.send(message(2))
        assert asyncio.get_running_loop().time() - began < 0.09  # the limit for QUIT is 0.1 s here
        assert server.connections == 2


async def test_a_relay_that_reaps_sooner_costs_no_message() -> None:
    """RE-10: a server that reaps before our limit; its hang-up is seen while nothing is asked."""
    async with pooling({Stage.END_OF_DATA: (DEFAULT_REPLY, Wait(0.01), Fin())}, pool={"sessions": 1}) as (server, pool):
        await pool.send(message(1))
        await until(lambda: not pool.open_sessions)
        assert (await pool.send(message(2))).accepted
        assert server.connections == 2


async def test_a_session_may_be_kept_for_ever() -> None:
    async with pooling(pool={"sessions": 1, "idle": math.inf, "age": math.inf}) as (server, pool):
        await pool.send(message(1))
        await pool.send(message(2))
        assert server.connections == 1


async def test_the_session_used_last_is_used_first() -> None:
    """So the others grow idle and end, and a pool shrinks to what it needs."""
    async with pooling(pool={"sessions": 4, "depth": 1}) as (server, pool):
        await asyncio.gather(*(pool.send(message(n)) for n in range(4)))
        for number in range(10, 20):
            await pool.send(message(number))
        assert sorted(commands(server, n).count("MAIL") for n in range(1, 5)) == [1, 1, 1, 11]


@pytest.mark.parametrize("limit", ["idle", "age"])
async def test_a_session_needs_some_time(limit: str) -> None:
    async with ScriptedRelay() as server:
        with pytest.raises(ValueError, match=f"^{limit}=0.0 is not valid"):
            Pool(relay_of(server), **{limit: 0.0})  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", ["idle", "age"])
async def test_a_session_takes_the_message_it_was_opened_for_however_short_its_time(limit: str) -> None:
    """A process that is held up between the two must not have it leave with that message in its line."""
    async with pooling(pool={"sessions": 1, limit: 1e-9}) as (_, pool):
        for n in range(3):
            assert (await pool.send(message(n))).accepted
