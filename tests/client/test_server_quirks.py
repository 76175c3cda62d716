"""Servers that lose commands behind the end of data: a probe detects them, and no message is in doubt for it."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections import Counter

import pytest

from asyncsmtp.client.api import send
from asyncsmtp.client.config.relay import Dialogue
from asyncsmtp.client.events.types import Event, MessageEnded, MessageRetried
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.session.send_pipeline import ServerQuirks
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import ConnectionLost, DeadlineExceeded, DeliveryInDoubt, SMTPError
from asyncsmtp.testing import (
    DEFAULT_REPLY,
    NO_REPLY,
    Action,
    DiscardInput,
    Fin,
    Hang,
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


@pytest.mark.parametrize("move", [Fin(), Rst(), (Wait(0.01), Fin())])
async def test_a_relay_that_hangs_up_at_commands_in_groups_gets_them_one_at_a_time(
    move: Action, caplog: pytest.LogCaptureFixture
) -> None:
    """FT-18: found out at the first two sessions, and logged once; no sender gets an error."""
    script = {Stage.MAIL: lambda context: move if context.pipelined_input else None}
    settings = {"sessions": 4, "depth": 2, "messages": 5}
    async with pooling(script, on_accept=token, pool=settings) as (server, pool):
        deliveries = await asyncio.gather(*(pool.send(message(n)) for n in range(40)))
        assert [told(d) for d in deliveries] == [f"2.0.0 taken for to{n}@example.net" for n in range(40)]
        found_out = server.connections
        assert found_out <= 16  # eight or a few more take five messages each
        await asyncio.gather(*(pool.send(message(n)) for n in range(40)))
        assert server.connections <= found_out + 11
    assert len(server.received) == 80
    warnings = [record.getMessage() for record in caplog.records if "one at a time" in record.getMessage()]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{pool.relay} hangs up when commands come in groups: they are sent one at a time")


async def test_a_relay_that_hangs_up_whatever_it_gets_is_not_tried_twice_for_every_message() -> None:
    """FT-18: one session without groups shows that they are not the reason; and groups are used again afterwards."""
    down = True
    async with pooling({Stage.MAIL: lambda _: Fin() if down else None}, pool={"sessions": 1}) as (server, pool):
        for _ in range(4):
            with pytest.raises(ConnectionLost):
                await pool.send(message())
        assert server.connections == 5
        down = False
        assert (await pool.send(message())).accepted
        assert (await pool.send(message())).accepted


async def test_one_hang_up_at_the_first_message_of_all_makes_no_later_session_slow() -> None:
    """FT-18: groups are tried once more, since it may have been a coincidence."""
    async with pooling({Stage.MAIL: {1: Fin()}}, pool={"sessions": 1, "messages": 2}) as (server, pool):
        for number in range(6):
            assert (await pool.send(message(number))).accepted
        assert server.connections == 4
        dialogues = [server.get_dialogue(connection) for connection in (2, 3, 4)]
    assert [_is_pipelined(lines) for lines in dialogues] == [False, True, True]


@pytest.mark.parametrize("stage", [Stage.DATA, Stage.END_OF_DATA])
async def test_a_hang_up_after_a_reply_to_rcpt_has_nothing_to_do_with_groups(stage: Stage) -> None:
    """FT-18: the group was read, so its sender is told at once."""
    async with pooling({stage: {1: Fin()}}, pool={"sessions": 1}) as (server, pool):
        with pytest.raises(ConnectionLost if stage is Stage.DATA else DeliveryInDoubt):
            await pool.send(message())
        assert (await pool.send(message())).accepted
        assert server.connections == 2
        assert _is_pipelined(server.get_dialogue(2))


def _is_pipelined(lines: list[str]) -> bool:
    mail = next(index for index, line in enumerate(lines) if line.startswith("C: MAIL"))
    return lines[mail + 1].startswith("C: RCPT")  # in one write


async def test_a_relay_that_has_answered_groups_gets_them_after_it_hung_up() -> None:
    """FT-18: a restart of the relay does not make every later message slow."""
    async with pooling({Stage.MAIL: {3: Fin(), 4: Fin()}}, pool={"sessions": 1}) as (server, pool):
        await pool.send(message(1))
        await pool.send(message(2))
        with pytest.raises(ConnectionLost):
            await pool.send(message(3))
        await pool.send(message(4))
        assert _is_pipelined(server.get_dialogue(server.connections))


HANGS_UP = {Stage.MAIL: lambda context: Fin() if context.pipelined_input else None}


@pytest.mark.parametrize("deadline", [None, 5.0])
async def test_one_message_in_one_call_falls_back_to_one_command_at_a_time(deadline: float | None) -> None:
    """FT-18: without `retry=`; the relay hangs up at every group, and the message goes over a second connection."""
    seen: list[Event] = []
    async with ScriptedRelay(HANGS_UP, on_accept=token) as server:
        delivery = await send(message(7), relay=relay_of(server), on_event=seen.append, deadline=deadline)
        assert told(delivery) == "2.0.0 taken for to7@example.net"
        await server.wait_until_idle()
    assert server.connections == 2
    assert not _is_pipelined(server.get_dialogue(2))
    [retried] = [event for event in seen if isinstance(event, MessageRetried)]
    assert "hung up" in retried.why
    [ended] = [event for event in seen if isinstance(event, MessageEnded)]
    assert ended.delivery == delivery


async def test_one_message_in_one_call_is_tried_twice_at_the_most() -> None:
    """FT-18: a relay that hangs up whatever it gets."""
    seen: list[Event] = []
    async with ScriptedRelay({Stage.MAIL: Fin()}) as server:
        with pytest.raises(ConnectionLost):
            await send(message(), relay=relay_of(server), on_event=seen.append)
        await server.wait_until_idle()
    assert server.connections == 2
    [ended] = [event for event in seen if isinstance(event, MessageEnded)]
    assert isinstance(ended.error, ConnectionLost)


@pytest.mark.parametrize(
    ("stage", "dialogue"),
    [(Stage.DATA, Dialogue.PIPELINED), (Stage.END_OF_DATA, Dialogue.PIPELINED), (Stage.MAIL, Dialogue.LOCKSTEP)],
)
async def test_one_message_in_one_call_is_not_sent_again_for_another_reason(stage: Stage, dialogue: Dialogue) -> None:
    """FT-18: the group was read, the relay may have the message, or it was no group."""
    async with ScriptedRelay({stage: Fin()}) as server:
        with pytest.raises(DeliveryInDoubt if stage is Stage.END_OF_DATA else ConnectionLost):
            await send(message(), relay=relay_of(server, dialogue=dialogue))
        await server.wait_until_idle()
    assert server.connections == 1


async def test_a_socket_of_ones_own_serves_one_connection() -> None:
    """FT-18: there is no second one to fall back to."""
    async with ScriptedRelay(HANGS_UP) as server:
        with socket.create_connection((server.host, server.port)) as sock, pytest.raises(ConnectionLost):
            await send(message(), relay=relay_of(server), sock=sock)
        await server.wait_until_idle()
    assert server.connections == 1


async def test_a_deadline_holds_for_both_connections() -> None:
    """FT-18: nothing is delivered."""
    script = {Stage.MAIL: lambda context: Fin() if context.connection == 1 else Hang()}
    async with ScriptedRelay(script) as server:
        with pytest.raises(DeadlineExceeded):
            await send(message(), relay=relay_of(server), deadline=0.5)
        await server.wait_until_idle()
    assert (server.connections, server.received) == (2, [])
