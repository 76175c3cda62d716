"""The number of messages for one session: limited by the pool, by LIMITS, or by a relay that does not announce it."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.testing import DEFAULT_REPLY, Action, Hang, ScriptedRelay, Stage, StageContext, Wait
from tests.client.support import commands, message, pooling, relay_of, rounds, token, told

pytestmark = pytest.mark.usefixtures("nothing_leaks")

USED_UP = "452 4.5.3 Too many messages sent"


def mails(server: ScriptedRelay) -> list[int]:
    """How many MAIL each connection heard."""
    return [commands(server, connection).count("MAIL") for connection in range(1, server.connections + 1)]


@pytest.mark.parametrize("depth", [1, 4])
async def test_a_session_is_given_so_many_messages_and_says_quit(depth: int) -> None:
    async with pooling(on_accept=token, pool={"sessions": 2, "depth": depth, "messages": 5}) as (server, pool):
        deliveries = await asyncio.gather(*(pool.send(message(n)) for n in range(40)))
        assert server.open_connections <= 2
    assert [told(d) for d in deliveries] == [f"2.0.0 taken for to{n}@example.net" for n in range(40)]
    assert sum(mails(server)) == 40
    assert sorted(mails(server))[2:] == [5] * (server.connections - 2)  # the last one of each place has the rest
    assert all(commands(server, connection)[-1] == "QUIT" for connection in range(1, server.connections + 1))


@pytest.mark.parametrize(("asked", "given"), [(None, 3), (10, 3), (2, 2)])
async def test_the_limit_that_a_relay_announces_is_kept(asked: int | None, given: int) -> None:
    """RFC 9422 §4.1: MAILMAX; the smaller of the two limits holds."""
    settings = {"sessions": 1} if asked is None else {"sessions": 1, "messages": asked}
    async with pooling({Stage.EHLO: "250-relay.example\r\n250 LIMITS MAILMAX=3"}, pool=settings) as (server, pool):
        for number in range(6):
            assert (await pool.send(message(number))).accepted
    assert mails(server) == [given] * (6 // given)


async def test_a_used_up_session_leaves_without_being_asked_for_another_message() -> None:
    """The relay's slot is free at once, not when the next message comes."""
    async with pooling(pool={"sessions": 1, "messages": 1}) as (server, pool):
        await pool.send(message())
        await server.wait_until_idle()
        assert commands(server)[-1] == "QUIT"
        assert pool.open_sessions == 0


async def test_a_replacement_waits_until_the_session_before_it_has_left() -> None:
    """The ceiling is hard: a relay that allows one connection never sees two."""
    most = 0

    def greeting(context: StageContext) -> Action | None:
        nonlocal most
        most = max(most, server.open_connections)
        return None

    script = {Stage.GREETING: greeting, Stage.QUIT: lambda context: (Wait(0.01), DEFAULT_REPLY)}
    async with pooling(script, pool={"sessions": 1, "messages": 2}) as (server, pool):
        await asyncio.gather(*(pool.send(message(n)) for n in range(12)))
    assert server.connections == 6
    assert most == 1


@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("limit", [1, 2, 7])
async def test_a_limit_that_nobody_announced_costs_no_message(limit: int, depth: int) -> None:
    """OpenSMTPD answers the 101st MAIL with 452 and keeps the session, each later mail deferred like it."""
    script = {Stage.MAIL: lambda context: USED_UP if context.occurrence_on_connection > limit else None}
    async with pooling(script, on_accept=token, pool={"sessions": 2, "depth": depth}) as (server, pool):
        deliveries = await asyncio.gather(*(pool.send(message(n)) for n in range(30)))
    assert [told(d) for d in deliveries] == [f"2.0.0 taken for to{n}@example.net" for n in range(30)]
    taken = Counter(path for received in server.received for path in received.forward_paths)
    assert set(taken.values()) == {1}


async def test_a_mail_deferred_by_a_fresh_session_is_the_verdict() -> None:
    """Or a relay that defers everyone would be asked without end; the session stays in use."""
    async with pooling({Stage.MAIL: "451 4.3.0 later"}, pool={"sessions": 1}) as (server, pool):
        deliveries = await asyncio.gather(*(pool.send(message(n)) for n in range(8)))
        assert [delivery.mail.code for delivery in deliveries] == [451] * 8
    assert server.connections == 1


async def test_a_mail_deferred_twice_is_deferred() -> None:
    """By a session that had taken messages, and by the fresh one: it was not about the session."""
    script = {Stage.MAIL: lambda context: "450 4.1.8 who?" if b"<late@" in context.line else None}
    late = message(1)
    async with pooling(script, pool={"sessions": 1}) as (server, pool):
        await pool.send(message(2))
        made = type(late)(type(late.envelope).of("late@example.org", ("to1@example.net",)), late.content)
        assert (await pool.send(made)).mail.code == 450
        assert (await pool.send(message(3))).accepted
    assert mails(server) == [2, 2]


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("about_session", ["421 4.3.2 closing", "452 4.3.2 too many concurrent connections"])
async def test_of_two_deferrals_the_one_about_the_session_decides(about_session: str, place: int) -> None:
    """Whichever recipient it answers: the message is sent again where the relay works."""
    deferring = set[int]()  # the first connection to hear of the recipients

    def rcpt(context: StageContext) -> Action | None:
        if b"<late" not in context.line or {context.connection} != (deferring or {context.connection}):
            return None
        deferring.add(context.connection)
        return about_session if b"<late%d@" % place in context.line else "450 4.2.1 mailbox busy"

    async with pooling({Stage.RCPT: rcpt}, pool={"sessions": 2, "depth": 1}) as (server, pool):
        await asyncio.gather(pool.send(message(1)), pool.send(message(2)))
        assert (await pool.send(message(3, to=("late0@example.net", "late1@example.net")))).accepted
    assert len(server.received) == 3


async def test_a_mail_rejected_for_good_is_said_once() -> None:
    script = {Stage.MAIL: {2: "550 5.7.1 no"}}
    async with pooling(script, pool={"sessions": 1}) as (server, pool):
        await pool.send(message(1))
        assert (await pool.send(message(2))).mail.code == 550
        assert (await pool.send(message(3))).accepted
    assert server.connections == 1


async def test_a_pool_is_closed_while_a_session_leaves() -> None:
    """Two seconds at the most, whatever the relay makes of QUIT; nobody is left waiting."""
    async with ScriptedRelay({Stage.QUIT: Hang()}) as server:
        pool = Pool(relay_of(server), sessions=1, messages=1)
        await pool.send(message())
        waiting = asyncio.create_task(pool.send(message()))
        await rounds()
        async with asyncio.timeout(2):
            await pool.aclose()
            with pytest.raises(Exception, match="closed"):
                await waiting


async def test_a_session_may_not_be_given_no_message() -> None:
    async with ScriptedRelay() as server:
        with pytest.raises(ValueError, match="messages=0 is not valid"):
            Pool(relay_of(server), messages=0)
