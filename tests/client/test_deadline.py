"""The caller's limit on one message: kept before the point of no return, not past it unless the caller insists."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import inf

import pytest

from asyncsmtp.client.api import send
from asyncsmtp.client.config.relay import Dialogue
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.retry import Retry
from asyncsmtp.errors import DeadlineExceeded, DeliveryInDoubt, InvalidArgument, PoolTimeout, ReplyTimeout
from asyncsmtp.testing import DEFAULT_REPLY, NO_REPLY, Hang, Rule, ScriptedRelay, Stage, StopReading, Wait
from tests.client.support import PATIENT, QUICK, big, message, playing, pooling, relay_of

pytestmark = pytest.mark.usefixtures("nothing_leaks")

SOON = 0.2  # seconds


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA])
async def test_before_the_end_of_the_content_nothing_was_delivered(stage: Stage) -> None:
    """Abort, and tell: trying again is safe; the pool serves on."""
    async with pooling({stage: {1: Hang()}}, pool={"sessions": 1}) as (server, pool):
        with pytest.raises(DeadlineExceeded, match=r"0\.2 s") as caught:
            await pool.send(message(1), deadline=SOON)
        assert isinstance(caught.value, TimeoutError)
        assert not caught.value.in_doubt
        assert (await pool.send(message(2), deadline=30)).accepted
    assert [received.forward_paths for received in server.received] == [("to2@example.net",)]


async def test_a_body_that_does_not_move_is_broken_off() -> None:
    async with playing({Stage.BODY: StopReading()}) as (server, session):
        with pytest.raises(DeadlineExceeded):
            await session.send(big(20_000_000), deadline=SOON)
        assert not session.usable
    assert server.received == []


async def test_past_it_the_reply_is_waited_for() -> None:
    """A message that may be there is not given up for a limit of the caller's."""
    async with playing({Stage.END_OF_DATA: (Wait(3 * SOON), DEFAULT_REPLY)}) as (_, session):
        assert (await session.send(message(), deadline=SOON)).accepted
        assert session.usable


async def test_past_it_and_insisting_it_is_in_doubt() -> None:
    async with playing({Stage.END_OF_DATA: (NO_REPLY, Hang())}) as (server, session):
        with pytest.raises(DeliveryInDoubt):
            await session.send(message(), deadline=SOON, hard=True)
    assert len(server.received) == 1


async def test_the_senders_own_mark_is_awaited_and_counts() -> None:
    """The relay cannot have the message before it has returned."""
    marked = []

    async def mark() -> None:
        marked.append(1)

    async with playing() as (_, session):
        assert (await session.send(message(), before_end=mark, deadline=30)).accepted
        with pytest.raises(DeadlineExceeded):
            await session.send(message(), before_end=lambda: asyncio.sleep(60), deadline=SOON)
    assert marked == [1]


async def test_waiting_for_a_session_is_a_part_of_it() -> None:
    """Nothing was said, so the session that is busy does not notice."""
    async with pooling({Stage.END_OF_DATA: {1: (Wait(3 * SOON), DEFAULT_REPLY)}}, pool={"sessions": 1, "depth": 1}) as (
        server,
        pool,
    ):
        first = asyncio.create_task(pool.send(message(1)))
        await server.wait_for_stage(Stage.END_OF_DATA)
        with pytest.raises(DeadlineExceeded):
            await pool.send(message(2), deadline=SOON)
        assert (await first).accepted
    assert len(server.received) == 1


async def test_connecting_is_a_part_of_it() -> None:
    async with ScriptedRelay({Stage.GREETING: Hang()}) as server:
        with pytest.raises(DeadlineExceeded):
            await send(message(), relay=relay_of(server), deadline=SOON)
    async with ScriptedRelay() as server:
        assert (await send(message(), relay=relay_of(server), deadline=30)).accepted


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("rcpt", ["250 ok", "550 5.1.1 no such user"])
async def test_saying_quit_is_no_part_of_it(rcpt: str, hard: bool) -> None:
    """The answer is there: a relay that is slow to say goodbye has a limit of its own."""
    leaves = replace(PATIENT, quit=3 * SOON)
    async with ScriptedRelay({Stage.RCPT: rcpt, Stage.QUIT: Hang()}) as server:
        delivery = await send(message(), relay=relay_of(server, timeouts=leaves), deadline=SOON, hard=hard)
    assert delivery.recipients[0].code == int(rcpt[:3])


async def test_cancelled_during_quit_the_sender_learns_the_outcome() -> None:
    """FT-10: the relay has answered; giving up waiting for its 221 changes nothing."""
    leaves = replace(PATIENT, quit=5.0)
    async with ScriptedRelay({Stage.QUIT: Hang()}) as server:
        sending = asyncio.create_task(send(message(), relay=relay_of(server, timeouts=leaves), deadline=30))
        await server.wait_for_stage(Stage.QUIT)
        sending.cancel()
        assert (await sending).accepted


async def test_other_limits_keep_their_own_names() -> None:
    """A relay that is mute, and a pool that is full, are told as such."""
    async with playing({Stage.MAIL: Hang()}, relay={"timeouts": QUICK}) as (_, session):
        with pytest.raises(ReplyTimeout):
            await session.send(message(), deadline=30)
    pool = {"sessions": 1, "depth": 1, "wait": 0.05}
    async with pooling({Stage.END_OF_DATA: {1: (Wait(1.0), DEFAULT_REPLY)}}, pool=pool) as (server, made):
        first = asyncio.create_task(made.send(message(1)))
        await server.wait_for_stage(Stage.END_OF_DATA)
        with pytest.raises(PoolTimeout):
            await made.send(message(2), deadline=30)
        await first


async def test_it_holds_for_a_further_try() -> None:
    """Off from the mark of the first one on, it would not end a second one that nobody answers."""
    script: Mapping[Stage, Rule] = {Stage.MAIL: {2: "452 4.5.3 enough for one session"}, Stage.GREETING: {2: Hang()}}
    async with (
        pooling(script, relay={"dialogue": Dialogue.STREAMED}, pool={"sessions": 1}) as (server, pool),
        asyncio.timeout(5),
    ):
        assert (await pool.send(message(1))).accepted
        with pytest.raises(DeadlineExceeded):
            await pool.send(message(2), deadline=SOON)
    assert len(server.received) == 1


@pytest.mark.parametrize(
    ("deadline", "error"),
    [("3", TypeError), (True, TypeError), (float("nan"), InvalidArgument), (inf, InvalidArgument)],
)
async def test_a_deadline_is_a_finite_number(deadline: float, error: type[Exception]) -> None:
    async with playing() as (server, session), Pool(relay_of(server), retry=Retry(attempts=2)) as retrying:
        calls = [session.send, retrying.send, Pool(relay_of(server)).send, partial(send, relay=relay_of(server))]
        for call in calls:
            with pytest.raises(error, match=r"^deadline"):
                await call(message(), deadline=deadline)  # type: ignore[operator]
    assert server.received == []
