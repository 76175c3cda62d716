"""The line of a session: who writes when, and what goes out in one write."""

from __future__ import annotations

import asyncio

import pytest

from asyncsmtp.errors import DeliveryInDoubt, SMTPError
from asyncsmtp.testing import DEFAULT_REPLY, Action, Hang, Stage, StageContext, Wait
from tests.client.support import QUICK, big, commands, message, playing, token, told

pytestmark = pytest.mark.usefixtures("nothing_leaks")


async def test_messages_go_out_in_the_order_in_which_they_came() -> None:
    async with playing() as (server, session):
        await asyncio.gather(*(session.send(message(n)) for n in range(30)))
    assert [received.forward_paths[0] for received in server.received] == [f"to{n}@example.net" for n in range(30)]


async def test_a_proved_session_says_the_next_envelope_in_the_same_write_as_the_dot() -> None:
    """One round trip a message: the relay has the next DATA before it has answered the dot."""
    behind: list[bytes] = []

    def dot(context: StageContext) -> Action | None:
        behind.append(context.pipelined_input)
        return None

    async with playing({Stage.END_OF_DATA: dot}) as (server, session):
        await asyncio.gather(*(session.send(message(n)) for n in range(10)))
    assert behind[0] == b"RSET\r\n"
    assert all(one.startswith(b"RSET\r\nMAIL") and one.endswith(b"DATA\r\n") for one in behind[2:-1])
    assert behind[-1] == b""
    assert server.pipelining_violations == []


async def test_at_most_one_message_is_past_the_dot_and_unanswered() -> None:
    """`delivery.md` §2: DATA ends a group, so one session puts one message in doubt at the most."""
    script = {Stage.END_OF_DATA: lambda context: Hang() if context.occurrence == 5 else None}
    async with playing(script, relay={"timeouts": QUICK}) as (server, session):
        results = await asyncio.gather(*(session.send(message(n)) for n in range(12)), return_exceptions=True)
    assert sum(isinstance(result, DeliveryInDoubt) for result in results) == 1
    assert isinstance(results[4], DeliveryInDoubt)
    assert all(isinstance(result, SMTPError) and not result.in_doubt for result in results[5:])
    assert server.count_stage(Stage.END_OF_DATA) == 5


async def test_a_group_is_booked_when_all_of_it_is_answered() -> None:
    """WI-06: the 354 of the next envelope proves that the reply before it was the dot's; then both are believed."""
    script = {Stage.DATA: {4: (Wait(0.05), DEFAULT_REPLY)}}
    async with playing(script, on_accept=token) as (server, session):
        await asyncio.gather(session.send(message(1)), session.send(message(2)))
        third, fourth = (asyncio.create_task(session.send(message(n))) for n in (3, 4))
        await server.wait_for(3)
        await asyncio.sleep(0.02)
        assert not third.done()
        assert told(await third) == "2.0.0 taken for to3@example.net"
        assert told(await fourth) == "2.0.0 taken for to4@example.net"


async def test_a_shifted_reply_is_found_out_by_the_354() -> None:
    """WI-06: the dot's real reply is a refusal, and a stray 250 stands in front of it: never accepted."""
    script = {Stage.END_OF_DATA: {3: (b"250 stray\r\n", "550 5.7.1 spam")}}
    async with playing(script, on_accept=token) as (server, session):
        await asyncio.gather(session.send(message(1)), session.send(message(2)))
        results = await asyncio.gather(*(session.send(message(n)) for n in (3, 4, 5)), return_exceptions=True)
    assert isinstance(results[0], DeliveryInDoubt)
    assert all(isinstance(result, SMTPError) and not result.in_doubt for result in results[1:])
    assert [received.forward_paths[0] for received in server.received] == ["to1@example.net", "to2@example.net"]


async def test_a_shift_over_refusals_books_nothing_on_the_wrong_recipient() -> None:
    """BL-06: a stray reply in front of 450, 550 and 554 would make each recipient's fate another's."""
    script: dict[Stage, Action] = {
        Stage.RCPT: {1: (b"250 stray\r\n", "450 4.2.1 first"), 2: "550 5.1.1 second"},  # type: ignore[dict-item]
        Stage.DATA: "554 5.5.1 no valid recipients",
    }
    async with playing(script) as (_, session):
        with pytest.raises(SMTPError) as caught:
            await session.send(message(to=("a@example.net", "b@example.net")))
        assert not caught.value.in_doubt


async def test_large_and_small_messages_take_turns() -> None:
    async with playing(on_accept=token) as (server, session):
        made = [big(300_000, n) if n % 3 else message(n) for n in range(12)]
        deliveries = await asyncio.gather(*map(session.send, made))
    assert [told(d) for d in deliveries] == [f"2.0.0 taken for to{n}@example.net" for n in range(12)]
    assert [received.content for received in server.received] == [bytes(one.content) for one in made]
    assert server.pipelining_violations == []


async def test_a_refused_envelope_behind_a_dot_costs_the_next_nothing() -> None:
    script = {Stage.RCPT: lambda context: "550 5.1.1 no" if context.occurrence % 2 else None}
    async with playing(script, on_accept=token) as (server, session):
        deliveries = await asyncio.gather(*(session.send(message(n)) for n in range(20)))
    assert [d.accepted for d in deliveries] == [False, True] * 10
    assert server.connections == 1
    assert commands(server)[-1] == "QUIT"
