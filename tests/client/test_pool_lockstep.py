"""Relays that offer PIPELINING and lose commands: found out once, and spoken to command by command from then on."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from asyncsmtp.client.config.relay import Dialogue
from asyncsmtp.client.session.manners import Manners
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import ReplyTimeout
from asyncsmtp.testing import DEFAULT_REPLY, Action, DiscardInput, Hang, Rule, ScriptedRelay, Stage, StageContext, Wait
from tests.client.support import LIMIT, QUICK, commands, message, pooling, relay_of, token, told

pytestmark = pytest.mark.usefixtures("nothing_leaks")

RELAY = {"timeouts": QUICK}


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT])
@pytest.mark.parametrize(("sessions", "depth"), [(1, 1), (1, 4), (3, 2)])
async def test_a_relay_that_reads_a_line_a_segment_takes_each_message_once(
    stage: Stage, sessions: int, depth: int
) -> None:
    """WI-18: the rest of the group is lost; nobody's message is, and the time is lost once."""
    script = {stage: (DEFAULT_REPLY, DiscardInput())}
    pool = {"sessions": sessions, "depth": depth}
    began = asyncio.get_running_loop().time()
    async with pooling(script, relay=RELAY, pool=pool, on_accept=token) as (server, made):
        deliveries = await asyncio.gather(*(made.send(message(n)) for n in range(20)))
    assert [told(d) for d in deliveries] == [f"2.0.0 taken for to{n}@example.net" for n in range(20)]
    taken = Counter(path for received in server.received for path in received.forward_paths)
    assert set(taken.values()) == {1}
    assert server.connections <= 2 * sessions
    assert asyncio.get_running_loop().time() - began < 3 * LIMIT


async def test_a_session_found_out_late_costs_none_that_speak_command_by_command() -> None:
    """WI-18: one that was still being opened, pipelined, fails later; the ones opened since know better and stay."""

    def ehlo(context: StageContext) -> Action | None:
        return (Wait(LIMIT / 2), DEFAULT_REPLY) if context.connection == 2 else None

    script: dict[Stage, Rule] = {Stage.EHLO: ehlo, Stage.MAIL: (DEFAULT_REPLY, DiscardInput())}
    async with pooling(script, relay=RELAY, pool={"sessions": 2, "depth": 1}) as (server, pool):
        for first in (1, 3):
            await asyncio.gather(*(pool.send(message(n)) for n in (first, first + 1)))
        assert server.connections == 4


async def test_a_relay_that_clears_its_input_after_each_5yz_costs_no_recipient() -> None:
    """WI-18: the recipient behind the refused one was lost; command by command he is accepted."""

    def rcpt(context: StageContext) -> Action | None:
        return ("550 5.1.1 no such user", DiscardInput()) if b"<bad@" in context.line else None

    async with pooling({Stage.RCPT: rcpt}, relay=RELAY, pool={"sessions": 1}) as (server, pool):
        delivery = await pool.send(message(to=("bad@example.net", "good@example.net")))
        assert [reply.code for reply in delivery.replies] == [550, 250]
        assert [received.forward_paths for received in server.received] == [("good@example.net",)]
        assert (await pool.send(message(to=("bad@example.net", "good@example.net")))).replies[1].positive
        assert server.connections == 2


async def test_where_all_are_refused_the_refusal_stands_and_the_relay_is_known() -> None:
    """WI-18: the DATA behind them is lost, which changes nothing for the message; the next does not wait for it."""
    script: dict[Stage, object] = {Stage.RCPT: {1: ("550 5.1.1 no such user", DiscardInput())}}
    async with pooling(script, relay=RELAY, pool={"sessions": 1}) as (server, pool):  # type: ignore[arg-type]
        assert (await pool.send(message(1))).replies[0].code == 550
        assert (await pool.send(message(2))).accepted
        assert server.connections == 2
        assert commands(server, 2)[1:] == ["MAIL", "RCPT", "DATA", "."]
        assert server.received[0].forward_paths == ("to2@example.net",)


async def test_a_relay_that_is_mute_command_by_command_too_is_not_asked_again() -> None:
    """The silence was not about pipelining: one try more, then the sender is told; nothing is in doubt."""
    async with pooling({Stage.RCPT: Hang()}, relay=RELAY, pool={"sessions": 1}) as (server, pool):
        with pytest.raises(ReplyTimeout) as caught:
            await pool.send(message())
        assert not caught.value.in_doubt
        assert server.connections == 2


async def test_a_relay_that_is_mute_from_the_first_command_has_lost_none() -> None:
    """Silence to MAIL tells nothing of pipelining."""
    async with pooling({Stage.MAIL: {1: Hang()}}, relay=RELAY, pool={"sessions": 1}) as (server, pool):
        with pytest.raises(ReplyTimeout):
            await pool.send(message(1))
        assert (await pool.send(message(2))).accepted
        assert server.connections == 2


async def test_a_lone_session_says_that_nothing_was_delivered_and_remembers() -> None:
    manners = Manners()
    async with ScriptedRelay({Stage.MAIL: (DEFAULT_REPLY, DiscardInput())}) as server:
        async with Session(relay_of(server, **RELAY), manners=manners) as session:
            assert session.pipelined
            with pytest.raises(ReplyTimeout):
                await session.send(message())
        assert manners.loses_commands
        async with Session(relay_of(server, **RELAY), manners=manners) as session:
            assert not session.pipelined
            assert (await session.send(message())).accepted


async def test_silence_in_lockstep_tells_nothing_of_pipelining() -> None:
    manners = Manners()
    async with ScriptedRelay({Stage.RCPT: Hang()}) as server:
        relay = relay_of(server, dialogue=Dialogue.LOCKSTEP, **RELAY)
        async with Session(relay, manners=manners) as session:
            with pytest.raises(ReplyTimeout):
                await session.send(message())
    assert not manners.loses_commands
