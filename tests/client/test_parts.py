"""More recipients than a relay takes at once (RFC 9422): once a part was sent, nothing hides what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.session.session import Session
from asyncsmtp.client.session.sources import FileContent, StreamContent
from asyncsmtp.errors import DeliveryInDoubt
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.testing import DEFAULT_REPLY, NO_REPLY, OFFERS, Hang, Rule, ScriptedRelay, Stage, Wait
from tests.client.support import commands, message, relay_of, until

pytestmark = pytest.mark.usefixtures("nothing_leaks")

SOON = 0.2  # seconds
TWO = Envelope.of("from@example.org", ["a@example.net", "b@example.net"])
HALF = ["accepted", "deferred"]
SECOND_IS_SILENT: Mapping[Stage, Rule] = {Stage.MAIL: {2: Hang()}}


@asynccontextmanager
async def one_at_a_time(script: Mapping[Stage, Rule]) -> AsyncIterator[tuple[ScriptedRelay, Session]]:
    """A session with a relay that takes one recipient at a time; the first of two is taken, whatever comes."""
    async with ScriptedRelay(script, offers=(*OFFERS, "LIMITS RCPTMAX=1")) as server:
        async with Session(relay_of(server)) as session:
            yield server, session
        assert [received.forward_paths for received in server.received] == [("a@example.net",)]


def both() -> Message:
    return Message(TWO, message().content)


@pytest.mark.parametrize("reply", [b"hello there\r\n", b"999 what\r\n", b"354 go on\r\n"])
async def test_a_relay_that_breaks_the_rules_later_is_no_reason_to_forget(reply: bytes) -> None:
    async with one_at_a_time({Stage.MAIL: {2: reply}}) as (_, session):
        delivery = await session.send(both())
    assert [outcome.value for outcome in delivery.outcomes] == HALF
    assert str(delivery.reply("b@example.net")).startswith("450 not sent: ")


@pytest.mark.parametrize("hard", [False, True])
async def test_a_deadline_holds_for_all_the_parts(hard: bool) -> None:
    """It was off from the first part's mark on, and the second was waited for as long as a relay may take."""
    async with one_at_a_time(SECOND_IS_SILENT) as (_, session), asyncio.timeout(5):
        delivery = await session.send(both(), deadline=SOON, hard=hard)
    assert [outcome.value for outcome in delivery.outcomes] == HALF


async def test_a_part_past_its_end_outlives_a_soft_deadline() -> None:
    script = {Stage.END_OF_DATA: {2: (Wait(3 * SOON), DEFAULT_REPLY)}}
    async with ScriptedRelay(script, offers=(*OFFERS, "LIMITS RCPTMAX=1")) as server:
        async with Session(relay_of(server)) as session:
            assert (await session.send(both(), deadline=SOON)).accepted
        assert len(server.received) == 2


async def test_who_cancels_is_told_what_was_sent() -> None:
    """A bare CancelledError would say: nothing was."""
    async with one_at_a_time(SECOND_IS_SILENT) as (server, session):
        sending = asyncio.create_task(session.send(both()))
        await until(lambda: server.count_stage(Stage.MAIL) == 2)
        sending.cancel()
        with pytest.raises(DeliveryInDoubt) as caught:
            await sending
    assert caught.value.delivery is not None
    assert [outcome.value for outcome in caught.value.delivery.outcomes] == HALF


async def test_where_nobody_has_it_a_cancellation_is_one() -> None:
    async with (
        ScriptedRelay({Stage.MAIL: {1: "550 no", 2: Hang()}}, offers=(*OFFERS, "LIMITS RCPTMAX=1")) as server,
        Session(relay_of(server)) as session,
    ):
        sending = asyncio.create_task(session.send(both()))
        await until(lambda: server.count_stage(Stage.MAIL) == 2)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending


async def test_a_pool_that_is_closed_tells_what_was_sent() -> None:
    async with ScriptedRelay(SECOND_IS_SILENT, offers=(*OFFERS, "LIMITS RCPTMAX=1")) as server:
        pool = Pool(relay_of(server))
        sending = asyncio.create_task(pool.send(both()))
        await until(lambda: server.count_stage(Stage.MAIL) == 2)
        assert not await pool.drain(SOON)
        assert [outcome.value for outcome in (await sending).outcomes] == HALF


async def test_a_file_that_is_gone_does_not_hide_the_part_that_went(tmp_path: Path) -> None:
    place = tmp_path / "mail.eml"
    place.write_bytes(b"Subject: x\r\n\r\nhi\r\n")
    content = await FileContent.scan(place)
    async with one_at_a_time({Stage.MAIL: {2: (Wait(0.05), DEFAULT_REPLY)}}) as (server, session):
        sending = asyncio.create_task(session.send(Message(TWO, content)))
        await until(lambda: server.count_stage(Stage.MAIL) == 2)
        place.unlink()
        delivery = await sending
    assert "No such file" in str(delivery.reply("b@example.net"))


async def test_a_stream_serves_one_part_and_the_reason_is_said() -> None:
    async with one_at_a_time({}) as (_, session):
        stream = StreamContent([b"Subject: x\r\n\r\nhi\r\n"], eight_bit=False)
        delivery = await session.send(Message(TWO, stream))
    assert "a stream, which cannot be read again" in str(delivery.reply("b@example.net"))


async def test_each_part_counts_where_a_session_takes_so_many() -> None:
    """RFC 9422 §4: MAILMAX is of transactions; a message that would not fit goes to a new session, all of it."""
    offers = (*OFFERS, "LIMITS RCPTMAX=1 MAILMAX=3")
    async with ScriptedRelay(offers=offers) as server, Pool(relay_of(server), sessions=1) as pool:
        deliveries = [await pool.send(both()) for _ in range(3)]
        assert all(delivery.accepted for delivery in deliveries)
        assert server.connections == 3
    assert [commands(server, number).count("MAIL") for number in (1, 2, 3)] == [2, 2, 2]


async def test_a_message_of_more_parts_than_a_session_takes_is_sent_as_far_as_that_goes() -> None:
    script: Mapping[Stage, Rule] = {Stage.MAIL: {2: "421 4.7.0 too many messages"}, Stage.END_OF_DATA: {2: NO_REPLY}}
    offers = (*OFFERS, "LIMITS RCPTMAX=1 MAILMAX=1")
    async with ScriptedRelay(script, offers=offers) as server, Pool(relay_of(server), sessions=1) as pool:
        delivery = await pool.send(both())
        assert [outcome.value for outcome in delivery.outcomes] == HALF
        assert server.connections == 1
