"""Servers that lose commands behind the end of data: a probe detects them, and no message is in doubt for it."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter

import pytest

from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.session.send_pipeline import ServerQuirks
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import ConnectionLost, SMTPError
from asyncsmtp.testing import (
    DEFAULT_REPLY,
    NO_REPLY,
    Action,
    DiscardInput,
    RefuseInput,
    Rst,
    ScriptedRelay,
    Stage,
    StageContext,
    Wait,
)
from tests.client.support import commands, message, playing, pooling, relay_of, token, told

pytestmark = pytest.mark.usefixtures("nothing_leaks")

MESSAGES = 200


def _dovecot(context: StageContext) -> Action | None:
    """Takes the mail, and crashes when an envelope without RSET is behind it."""
    return (NO_REPLY, Rst()) if context.pipelined_input.startswith(b"MAIL") else None


SERVERS: dict[str, tuple[Action | object, bool]] = {  # what it does at the dot; whether it stops there
    "postfix": (DEFAULT_REPLY, False),
    "dovecot": (_dovecot, False),
    "haraka": ((DEFAULT_REPLY, RefuseInput()), True),
    "courier, chasquid": ((DEFAULT_REPLY, DiscardInput()), True),
    "courier, replying late": ((DEFAULT_REPLY, DiscardInput(), Wait(0.003)), True),
}


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("sessions", [1, 3])
async def test_each_message_is_taken_once_and_none_is_in_doubt(name: str, sessions: int) -> None:
    """R-02: what real servers do: 200 messages through a pool, whatever the server makes of pipelined input."""
    move, stops = SERVERS[name]
    script = {Stage.END_OF_DATA: move}
    async with pooling(script, on_accept=token, pool={"sessions": sessions, "depth": 8}) as (server, pool):  # type: ignore[arg-type]
        deliveries = await asyncio.gather(*(pool.send(message(n)) for n in range(MESSAGES)))
    assert [told(delivery) for delivery in deliveries] == [
        f"2.0.0 taken for to{n}@example.net" for n in range(MESSAGES)
    ]
    taken = Counter(path for received in server.received for path in received.forward_paths)
    assert set(taken.values()) == {1}
    assert len(taken) == MESSAGES
    assert server.pipelining_violations == []
    behind = sum(_said_behind(server, connection) for connection in range(1, server.connections + 1))
    assert (behind <= sessions) if stops else (behind >= MESSAGES / 2)  # one probe a session at the most


def _said_behind(server: ScriptedRelay, connection: int) -> int:
    """How often something was said behind a dot before that was answered."""
    lines = server.get_dialogue(connection)
    return sum(line == "C: ." and after.startswith("C: ") for line, after in itertools.pairwise(lines))


async def test_the_probe_goes_out_with_the_first_end_of_data_that_has_a_message_behind_it() -> None:
    """A lone message is sent without one; RSET precedes every envelope behind a dot (Dovecot)."""
    async with playing() as (server, session):
        await session.send(message(0))
        await asyncio.gather(*(session.send(message(n)) for n in range(1, 5)))
    assert commands(server)[1:] == [
        *("MAIL", "RCPT", "DATA", "."),
        *("MAIL", "RCPT", "DATA", ".", "RSET"),
        *("MAIL", "RCPT", "DATA", "."),
        *("RSET", "MAIL", "RCPT", "DATA", "."),
        *("RSET", "MAIL", "RCPT", "DATA", "."),
        "QUIT",
    ]


async def test_a_server_that_refuses_the_probe_keeps_its_session() -> None:
    """Haraka: the session goes on, and stops at the dot from then on."""
    async with playing({Stage.END_OF_DATA: (DEFAULT_REPLY, RefuseInput())}) as (server, session):
        deliveries = await asyncio.gather(*(session.send(message(n)) for n in range(20)))
        assert all(delivery.accepted for delivery in deliveries)
        assert session.usable
    assert server.connections == 1
    assert commands(server).count("RSET") == 0  # heard as input to refuse, never as a command


async def test_a_server_that_loses_the_probe_loses_the_session_and_no_message() -> None:
    """Courier: the message before it has its reply; those behind it were not begun, and say so."""
    quirks = ServerQuirks()
    async with ScriptedRelay({Stage.END_OF_DATA: (DEFAULT_REPLY, DiscardInput())}) as server:
        async with Session(relay_of(server), quirks=quirks) as session:
            results = await asyncio.gather(*(session.send(message(n)) for n in range(4)), return_exceptions=True)
        assert not isinstance(results[0], BaseException)
        for result in results[1:]:
            assert isinstance(result, ConnectionLost)
            assert not result.in_doubt
        assert len(server.received) == 1
        assert quirks.stops_at_end_of_data
        async with Session(relay_of(server), quirks=quirks) as session:
            results = await asyncio.gather(*(session.send(message(n)) for n in range(1, 4)))
        assert len(server.received) == 4


async def test_nothing_is_said_behind_a_probe_that_is_not_answered() -> None:
    """The dot's reply comes alone, and the probe's a moment later: an envelope in between could be lost with it."""
    at_the_probe: list[bytes] = []
    script = {Stage.END_OF_DATA: {1: (DEFAULT_REPLY, Wait(0.01))}, Stage.RSET: {1: lambda context: None}}

    def look(context: StageContext) -> Action | None:
        at_the_probe.append(context.pipelined_input)
        return (Wait(0.05), DEFAULT_REPLY) if context.occurrence == 1 else None

    script[Stage.RSET] = look  # type: ignore[assignment]
    async with playing(script) as (server, session):  # type: ignore[arg-type]
        await asyncio.gather(*(session.send(message(n)) for n in range(4)))
        dialogue = server.dialogue
    answered = dialogue.index("S: 250 2.0.0 ok")
    assert dialogue[answered - 1] == "C: RSET"
    assert at_the_probe[0] == b""


async def test_a_sender_that_leaves_during_the_probe_lets_nobody_speak_behind_it() -> None:
    """Its place goes to the next in line, which waits for the probe's reply like everyone."""
    script = {Stage.END_OF_DATA: {1: (DEFAULT_REPLY, DiscardInput())}}
    async with playing(script) as (server, session):
        sending = [asyncio.create_task(session.send(message(n))) for n in range(3)]
        await server.wait_for(1)
        sending[1].cancel()
        results = await asyncio.gather(*sending, return_exceptions=True)
    assert getattr(results[0], "accepted", False)
    assert isinstance(results[1], asyncio.CancelledError)
    assert isinstance(results[2], SMTPError)
    assert not results[2].in_doubt
    assert len(server.received) == 1


async def test_a_late_reply_to_the_probe_is_never_another_commands() -> None:
    """WI-07: The session is dropped at the limit of the probe: what comes later meets nobody."""
    script = {Stage.END_OF_DATA: {1: (DEFAULT_REPLY, DiscardInput(), Wait(1.2), b"250 late\r\n")}}
    async with ScriptedRelay(script, on_accept=token) as server, Pool(relay_of(server), sessions=1) as pool:
        deliveries = await asyncio.gather(*(pool.send(message(n)) for n in range(5)))
        assert [told(d) for d in deliveries] == [f"2.0.0 taken for to{n}@example.net" for n in range(5)]
    assert server.connections == 2


async def test_the_sessions_of_a_pool_share_what_one_observed() -> None:
    async with (
        ScriptedRelay({Stage.END_OF_DATA: (DEFAULT_REPLY, DiscardInput())}) as server,
        Pool(relay_of(server), sessions=1) as pool,
    ):
        await asyncio.gather(*(pool.send(message(n)) for n in range(10)))
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(pool.send(message(n)) for n in range(20, 40)))
        assert asyncio.get_running_loop().time() - began < 0.9  # no second probe was waited for


@pytest.mark.parametrize("reply", ["421 4.3.2 bye", "500 5.5.1 what"])
async def test_a_refused_probe_leaves_the_message_before_it_accepted(reply: str) -> None:
    async with playing({Stage.RSET: reply}, on_accept=token) as (_, session):
        results = await asyncio.gather(*(session.send(message(n)) for n in range(3)), return_exceptions=True)
        assert getattr(results[0], "accepted", False)
        assert all(not getattr(result, "in_doubt", False) for result in results)
