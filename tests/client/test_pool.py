"""A pool: as many connections as it may have, used again, replaced when they break, closed in time."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from math import nan
from typing import Any
from weakref import WeakSet

import pytest

from asyncsmtp.client.config.relay import Login
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import (
    AuthenticationRefused,
    ConnectFailed,
    ConnectionLost,
    DeliveryInDoubt,
    InvalidArgument,
    LocalProtocolError,
    Refused,
    SMTPError,
)
from asyncsmtp.protocol.auth.auth import Secret
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import (
    DEFAULT_REPLY,
    NO_REPLY,
    Action,
    Fin,
    Hang,
    ScriptedRelay,
    Stage,
    StageContext,
    StopReading,
    Wait,
)
from tests.client.support import QUICK_OPENING, commands, message, playing, pooling, relay_of, rounds, token, told

pytestmark = pytest.mark.usefixtures("nothing_leaks")


async def test_a_thousand_messages_through_ten_sessions_each_once() -> None:
    async with pooling(on_accept=token, pool={"sessions": 10}) as (server, pool):
        deliveries = await asyncio.gather(*(pool.send(message(n)) for n in range(1000)))
        assert pool.open_sessions == 10
    assert [told(d) for d in deliveries] == [f"2.0.0 taken for to{n}@example.net" for n in range(1000)]
    assert len(server.received) == 1000
    assert server.connections == 10
    assert all(commands(server, connection)[-1] == "QUIT" for connection in range(1, 11))


async def test_connections_are_opened_as_they_are_needed() -> None:
    async with pooling(pool={"sessions": 5}) as (server, pool):
        assert server.connections == 0
        for number in range(5):
            await pool.send(message(number))
        assert server.connections == 1


@pytest.mark.parametrize(("sessions", "depth"), [(1, 1), (1, 4), (3, 1), (3, 4)])
async def test_the_maximum_is_never_exceeded(sessions: int, depth: int) -> None:
    """Not even while broken sessions are replaced and senders give up."""
    most = 0

    def dot(context: StageContext) -> Action | None:
        nonlocal most
        most = max(most, server.open_connections)
        return (DEFAULT_REPLY, Fin()) if context.occurrence % 5 == 0 else (Wait(0.002), DEFAULT_REPLY)

    async with pooling({Stage.END_OF_DATA: dot}, pool={"sessions": sessions, "depth": depth}) as (server, pool):
        sending = [asyncio.create_task(pool.send(message(n))) for n in range(40)]
        for number, task in enumerate(sending):
            await rounds(2)
            if number % 6 == 0:
                task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
    assert most <= sessions


async def test_a_refused_message_leaves_its_session_in_use() -> None:
    script = {Stage.RCPT: lambda context: "550 5.1.1 no" if context.occurrence % 2 else None}
    async with pooling(script, pool={"sessions": 2}) as (server, pool):
        deliveries = await asyncio.gather(*(pool.send(message(n)) for n in range(20)))
    assert sum(delivery.accepted for delivery in deliveries) == 10
    assert server.connections == 2


@pytest.mark.parametrize("wait", [0.0, 0.001])
@pytest.mark.parametrize("depth", [1, 4])
async def test_a_server_that_closes_after_each_message_costs_nobody_anything(wait: float, depth: int) -> None:
    """WI-24: a session that died in between is replaced, and the message sent again, unseen."""
    script = (
        {Stage.END_OF_DATA: (DEFAULT_REPLY, Wait(wait), Fin())} if wait else {Stage.END_OF_DATA: (DEFAULT_REPLY, Fin())}
    )
    async with pooling(script, on_accept=token, pool={"sessions": 2, "depth": depth}) as (server, pool):
        deliveries = await asyncio.gather(*(pool.send(message(n)) for n in range(30)))
    assert [told(d) for d in deliveries] == [f"2.0.0 taken for to{n}@example.net" for n in range(30)]
    assert len(server.received) == 30


async def test_a_connection_that_breaks_under_its_first_message_is_that_messages_failure() -> None:
    """One that was opened for it: there is no old connection to blame, and no endless trying."""
    async with pooling({Stage.MAIL: Fin()}, pool={"sessions": 1}) as (server, pool):
        results = await asyncio.gather(*(pool.send(message(n)) for n in range(6)), return_exceptions=True)
        assert all(isinstance(result, ConnectionLost) for result in results)
    assert server.connections == 7  # one more, to see whether it takes commands one at a time


async def test_nothing_is_sent_again_after_the_end_of_data() -> None:
    """BL-05: the library never retries past the point of no return."""
    async with pooling({Stage.END_OF_DATA: {2: (NO_REPLY, Fin())}}, pool={"sessions": 1}) as (server, pool):
        assert (await pool.send(message(1))).accepted
        with pytest.raises(DeliveryInDoubt):
            await pool.send(message(2))
        assert (await pool.send(message(3))).accepted
    assert Counter(r.forward_paths[0] for r in server.received) == {f"to{n}@example.net": 1 for n in (1, 2, 3)}


async def test_an_idle_session_that_was_closed_is_replaced() -> None:
    """WI-11: also where the 421 crosses with the MAIL that it seems to answer; no attempt of the message's counts."""
    script = {Stage.END_OF_DATA: {1: (DEFAULT_REPLY, Wait(0.01), b"421 4.4.2 idle\r\n", Fin())}}
    async with pooling(script, pool={"sessions": 1}) as (server, pool):
        await pool.send(message(1))
        await server.wait_until_idle()
        assert (await pool.send(message(2))).accepted
        assert server.connections == 2


async def test_421_to_mail_on_a_fresh_connection_is_the_answer() -> None:
    """Or a relay that says it to everyone would be asked without end."""
    async with pooling({Stage.MAIL: "421 4.7.0 no more today"}, pool={"sessions": 1}) as (server, pool):
        deliveries = await asyncio.gather(*(pool.send(message(n)) for n in range(4)))
        assert all(delivery.replies[0].code == 421 for delivery in deliveries)
    assert server.connections == 4


# --- opening ---


async def test_when_the_relay_is_down_everyone_gets_the_error_at_once() -> None:
    async with ScriptedRelay() as server:
        relay = relay_of(server)
    async with Pool(relay, sessions=4, depth=2) as pool, asyncio.timeout(2):
        results = await asyncio.gather(*(pool.send(message(n)) for n in range(100)), return_exceptions=True)
    assert all(isinstance(result, ConnectFailed) for result in results)


@pytest.mark.parametrize("move", [Hang(), "421 4.3.2 too many", "554 5.7.1 go away"], ids=["silence", "421", "554"])
async def test_a_relay_that_takes_nobody_is_asked_once_for_all_who_wait(move: Action) -> None:
    """With a limit of 300 s each, one after the other would be hours."""
    async with pooling({Stage.GREETING: move}, relay={"timeouts": QUICK_OPENING}, pool={"sessions": 4}) as (
        server,
        pool,
    ):
        results = await asyncio.gather(*(pool.send(message(n)) for n in range(100)), return_exceptions=True)
        assert all(isinstance(result, ConnectFailed | Refused) for result in results)
        assert server.connections == 1
        with pytest.raises((ConnectFailed, Refused)):  # who comes later asks again
            await pool.send(message())
        assert server.connections == 2


async def test_the_first_session_is_opened_alone_and_the_others_together() -> None:
    """AU-12; and ten logins are not one after the other."""
    script = {Stage.GREETING: lambda context: (Wait(0.1), DEFAULT_REPLY)}
    async with pooling(script, pool={"sessions": 8, "depth": 1}) as (server, pool):
        began = asyncio.get_running_loop().time()
        sending = [asyncio.create_task(pool.send(message(n))) for n in range(8)]
        await server.wait_for_stage(Stage.GREETING)
        await asyncio.sleep(0.05)
        assert server.connections == 1
        await asyncio.gather(*sending)
        assert server.connections == 8
        assert asyncio.get_running_loop().time() - began < 0.6


async def test_a_refused_password_is_said_once_by_a_pool_of_twenty() -> None:
    """AU-12: twenty connections with a wrong password would lock the account."""
    async with ScriptedRelay(users={"ann": "right"}) as server:
        relay = relay_of(server, login=Login("ann", Secret("wrong")), cleartext_login=True)
        async with Pool(relay, sessions=20) as pool:
            results = await asyncio.gather(*(pool.send(message(n)) for n in range(100)), return_exceptions=True)
            assert all(isinstance(result, AuthenticationRefused) for result in results)
            with pytest.raises(AuthenticationRefused):
                await pool.send(message())
    assert len(server.auth_attempts) == 1
    assert server.connections == 1


# --- ending ---


async def test_drain_waits_for_every_reply() -> None:
    async with pooling({Stage.END_OF_DATA: (Wait(0.02), DEFAULT_REPLY)}, pool={"sessions": 2}) as (server, pool):
        sending = [asyncio.create_task(pool.send(message(n))) for n in range(6)]
        await rounds()
        await pool.drain()
        assert len(server.received) == 6
        assert all(delivery.accepted for delivery in await asyncio.gather(*sending))


async def test_a_closed_pool_takes_nothing() -> None:
    async with pooling() as (_, pool):
        await pool.send(message())
    with pytest.raises(LocalProtocolError, match="closed"):
        await pool.send(message())
    await pool.aclose()


@pytest.mark.parametrize("stage", [Stage.CONNECT, Stage.GREETING, Stage.EHLO, Stage.MAIL, Stage.DATA])
async def test_closing_breaks_off_what_is_in_hand_and_not_past_the_end_of_data(stage: Stage) -> None:
    """Also what still connects; nobody is left waiting, nothing is left open."""
    async with ScriptedRelay({stage: Hang()}) as server:
        pool = Pool(relay_of(server), sessions=2, depth=2)
        sending = [asyncio.create_task(pool.send(message(n))) for n in range(6)]
        await server.wait_for_stage(stage)
        async with asyncio.timeout(2):
            await pool.aclose()
            results = await asyncio.gather(*sending, return_exceptions=True)
        for result in results:
            assert isinstance(result, SMTPError), repr(result)
            assert not result.in_doubt
        await server.wait_until_idle()


async def test_closing_leaves_in_doubt_what_is_past_the_end_of_data() -> None:
    async with ScriptedRelay({Stage.END_OF_DATA: Hang()}) as server:
        pool = Pool(relay_of(server), sessions=1)
        sending = asyncio.create_task(pool.send(message()))
        await server.wait_for_stage(Stage.END_OF_DATA)
        await pool.aclose()
        with pytest.raises(DeliveryInDoubt):
            await sending


async def test_closing_twice_at_once_is_harmless() -> None:
    async with pooling({Stage.QUIT: (Wait(0.02), DEFAULT_REPLY)}) as (_, pool), asyncio.timeout(3):
        await pool.send(message())
        await asyncio.gather(pool.aclose(), pool.aclose())


@pytest.mark.parametrize("move", [Hang(), StopReading()], ids=["mute", "deaf"])
async def test_closing_is_bounded_whatever_the_peers_do(
    move: Action, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """TL-09: a mute peer under TLS would hold `wait_closed` up for half a minute; the usual limits apply here."""
    async with ScriptedRelay({Stage.QUIT: move}, tls=server_tls, implicit_tls=True) as server:
        relay = relay_of(server, security=Security.IMPLICIT_TLS, context=client_tls)
        pool = Pool(relay, sessions=5, depth=1)
        await asyncio.gather(*(pool.send(message(n)) for n in range(10)))
        began = asyncio.get_running_loop().time()
        await pool.aclose()
        assert asyncio.get_running_loop().time() - began < 2.0


async def test_a_pool_without_sessions_is_none() -> None:
    async with playing() as (server, _):
        for name, wrong in (("sessions", 0), ("depth", 0), ("messages", 0), ("idle", -1), ("wait", -1), ("age", nan)):
            with pytest.raises(InvalidArgument, match=f"^{name}={wrong} is not valid"):
                Pool(relay_of(server), **{name: wrong})  # type: ignore[arg-type]


async def test_a_pool_and_a_session_show_their_relay_and_state() -> None:
    async with playing() as (server, session), Pool(relay_of(server), sessions=3) as pool:
        await pool.send(message())
        where = str(session.relay)
        assert repr(pool) == f"<Pool for {where}: 1 of 3 sessions open>"
        assert repr(session) == f"<Session with {where}: open>"
        assert repr(Session(session.relay)) == f"<Session with {where}: not open>"
    assert repr(session) == f"<Session with {where}: ended>"


def test_a_pool_and_a_session_belong_to_one_event_loop() -> None:
    """A second `asyncio.run` must not wait for the streams of the first for ever."""
    server = ScriptedRelay()
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(_awaited(server.__aenter__))
        pool, session = Pool(relay_of(server)), Session(relay_of(server))  # an unused one may be made anywhere
        first.run(session.connect())
        first.run(_awaited(lambda: asyncio.gather(pool.send(message(1)), session.send(message(2)))))
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: pool.send(message(3)),
            lambda: anext(pool.send_all([message(4)])),
            pool.aclose,
            pool.drain,
            lambda: session.send(message(5)),
            session.noop,
            session.aclose,
        ]
        for call in calls:
            with pytest.raises(LocalProtocolError, match="belongs to another event loop: create one in each"):
                second.run(_awaited(call))
        for close in (pool.aclose, session.aclose, lambda: server.__aexit__(None, None, None)):
            first.run(_awaited(close))


async def _awaited(call: Callable[[], Awaitable[object]]) -> object:
    return await call()


@contextmanager
def recorded_tasks() -> Iterator[WeakSet[asyncio.Task[Any]]]:
    """The tasks made meanwhile that somebody still holds."""
    loop, tasks = asyncio.get_running_loop(), WeakSet[asyncio.Task[Any]]()

    def make(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coroutine, loop=loop, **options)
        tasks.add(task)
        return task

    loop.set_task_factory(make)  # type: ignore[arg-type]
    try:
        yield tasks
    finally:
        loop.set_task_factory(None)


def ended_inside(tasks: WeakSet[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """Those of asyncsmtp itself that have ended."""
    gc.collect()
    return [task for task in tasks if task.done() and "asyncsmtp/client" in task.get_coro().cr_code.co_filename]  # type: ignore[union-attr]


async def test_tasks_that_have_ended_do_not_pile_up() -> None:
    """FT-87: of connections, and of sessions that are retired; the pool of a server lives for weeks."""
    async with pooling(pool={"sessions": 2, "messages": 1}) as (server, pool):
        with recorded_tasks() as tasks:
            for number in range(25):
                await asyncio.gather(pool.send(message(number)), pool.send(message(100 + number)))
            assert server.connections == 50
            assert len(ended_inside(tasks)) <= 4


@pytest.mark.slow
async def test_tasks_of_connections_that_failed_do_not_pile_up() -> None:
    """FT-87: a relay that is down for a night is tried thousands of times."""
    async with pooling({Stage.GREETING: "554 5.3.2 closed"}, pool={"sessions": 2}) as (server, pool):
        with recorded_tasks() as tasks:
            for number in range(8):
                with pytest.raises(SMTPError):
                    await pool.send(message(number))
            assert server.connections == 8
            assert len(ended_inside(tasks)) <= 2


async def test_tasks_of_connections_that_were_given_up_do_not_pile_up() -> None:
    """FT-87: each sender leaves while its session is opened."""
    async with pooling({Stage.GREETING: Hang()}, pool={"sessions": 2}) as (server, pool):
        with recorded_tasks() as tasks:
            for number in range(8):
                sending = asyncio.ensure_future(pool.send(message(number)))
                await server.wait_for_stage(Stage.GREETING, number + 1)
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
            del sending
            assert len(ended_inside(tasks)) <= 2
