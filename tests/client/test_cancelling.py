"""A sender that gives up, at every place where it can wait."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import anyio
import pytest

from asyncsmtp.client.api import send
from asyncsmtp.client.config.relay import Dialogue, Login, Relay
from asyncsmtp.client.events.types import Direction
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import (
    AuthenticationRefused,
    ConnectionLost,
    DeliveryInDoubt,
    LocalProtocolError,
    MessagesFailed,
    SMTPError,
)
from asyncsmtp.protocol.auth.auth import Secret
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import DEFAULT_REPLY, Action, Hang, ScriptedRelay, Stage, StageContext, StopReading, Wait
from tests.client.support import (
    BY_DATA,
    PATIENT,
    big,
    message,
    playing,
    pooling,
    relay_of,
    rounds,
    serving,
    token,
    told,
    until,
)

pytestmark = pytest.mark.usefixtures("nothing_leaks")


async def cancelled(task: asyncio.Task[Delivery]) -> BaseException:
    """Cancel it; return what it raised."""
    task.cancel()
    [result] = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(result, BaseException)
    return result


async def _prove(session: Session) -> None:
    """Have the session prove that its server reads on behind the dot."""
    await asyncio.gather(session.send(message(101)), session.send(message(102)))


@pytest.mark.parametrize("dialogue", BY_DATA)
async def test_before_its_turn_nothing_happens_to_the_session(dialogue: Dialogue) -> None:
    """Its envelope was not said: the others do not notice."""
    script = {Stage.END_OF_DATA: {1: (Wait(0.05), DEFAULT_REPLY)}}
    async with playing(script, relay={"dialogue": dialogue}, on_accept=token) as (server, session):
        sending = [asyncio.create_task(session.send(message(n))) for n in range(4)]
        await server.wait_for_stage(Stage.END_OF_DATA)
        assert isinstance(await cancelled(sending[2]), asyncio.CancelledError)
        for n in (0, 1, 3):
            assert told(await sending[n]) == f"2.0.0 taken for to{n}@example.net"
    assert len(server.received) == 3
    assert server.connections == 1


@pytest.mark.parametrize("when", ["at once", "before the dot is answered", "before the 354"])
async def test_once_it_is_said_behind_an_end_of_data_the_message_before_is_never_in_doubt(when: str) -> None:
    """The connection is broken off for it, but not before message i has its reply."""
    script: dict[Stage, Callable[[StageContext], Action | None]] = {
        Stage.END_OF_DATA: lambda context: (Wait(0.03), DEFAULT_REPLY) if context.occurrence == 3 else None,
        Stage.DATA: lambda context: (Wait(0.03), DEFAULT_REPLY) if context.occurrence == 4 else None,
    }
    async with playing(script, on_accept=token) as (server, session):  # type: ignore[arg-type]
        await _prove(session)
        before = asyncio.create_task(session.send(message(1)))
        behind = asyncio.create_task(session.send(message(2)))
        after = asyncio.create_task(session.send(message(3)))
        if when == "at once":
            await server.wait_for_stage(Stage.DATA, 3)
            await rounds(3)
        elif when == "before the dot is answered":
            await server.wait_for_stage(Stage.END_OF_DATA, 3)
        else:
            await server.wait_for_stage(Stage.DATA, 4)
        error = await cancelled(behind)
        assert isinstance(error, asyncio.CancelledError)
        assert told(await before) == "2.0.0 taken for to1@example.net"
        with pytest.raises(ConnectionLost, match="cancelled while it was being sent") as caught:
            await after
        assert not caught.value.in_doubt
        await server.wait_until_idle()
    assert "to2@example.net" not in [path for received in server.received for path in received.forward_paths]


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA])
@pytest.mark.parametrize("dialogue", BY_DATA)
async def test_while_its_envelope_is_answered_the_session_ends(stage: Stage, dialogue: Dialogue) -> None:
    """N-02, D-02: Half a transaction cannot be taken back; no octet of a next one follows on this connection."""
    async with playing({stage: Hang()}, relay={"dialogue": dialogue}) as (server, session):
        sending = asyncio.create_task(session.send(message()))
        await server.wait_for_stage(stage)
        assert isinstance(await cancelled(sending), asyncio.CancelledError)
        assert not session.usable
        with pytest.raises(ConnectionLost):
            await session.send(message())
        await server.wait_until_idle()


async def test_in_the_middle_of_a_body_the_relay_never_sees_the_end_of_data() -> None:
    """WO-14, D-02: Fact 2: cancelling is not aborting; `close()` would still have sent the rest and the end."""
    seen = bytearray()
    ended = asyncio.Event()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        while await reader.readline() != b"DATA\r\n":
            writer.write(b"250 ok\r\n")
        writer.write(b"354 go\r\n")
        begun.set()
        try:
            while data := await reader.read(65536):
                seen.extend(data)
                await asyncio.sleep(0.001)
        finally:
            ended.set()

    begun = asyncio.Event()
    async with serving(play) as port, Session(relay_of(ScriptedRelay(port=port))) as session:
        sending = asyncio.create_task(session.send(big(20_000_000)))
        await begun.wait()
        await asyncio.sleep(0.02)
        assert isinstance(await cancelled(sending), asyncio.CancelledError)
        await session.aclose()
        await ended.wait()
    assert 0 < len(seen) < 20_000_000
    assert b"\r\n.\r\n" not in seen


async def test_while_the_relay_does_not_read_the_session_is_aborted_at_once() -> None:
    async with playing({Stage.BODY: StopReading()}, receive_buffer=8192) as (server, session):
        sending = asyncio.create_task(session.send(big(20_000_000)))
        await server.wait_for_stage(Stage.BODY)
        began = asyncio.get_running_loop().time()
        assert isinstance(await cancelled(sending), asyncio.CancelledError)
        await session.aclose()
        assert asyncio.get_running_loop().time() - began < 0.5
    assert server.received == []


async def test_after_the_end_of_data_it_is_in_doubt_and_the_session_stays_in_step() -> None:
    """The next message gets its own reply, not the one that nobody waits for any more (BL-06)."""
    script = {Stage.END_OF_DATA: {1: (Wait(0.05), DEFAULT_REPLY)}}
    async with playing(script, on_accept=token) as (server, session):
        sending = asyncio.create_task(session.send(message(1)))
        await server.wait_for_stage(Stage.END_OF_DATA)
        error = await cancelled(sending)
        assert isinstance(error, DeliveryInDoubt)
        assert isinstance(error.__cause__, asyncio.CancelledError)
        assert session.usable
        assert told(await session.send(message(2))) == "2.0.0 taken for to2@example.net"
    assert server.connections == 1
    assert len(server.received) == 2


async def test_after_the_end_of_data_those_behind_it_do_not_notice() -> None:
    script = {Stage.END_OF_DATA: {3: (Wait(0.03), DEFAULT_REPLY)}}
    async with playing(script, on_accept=token) as (server, session):
        await _prove(session)
        sending = [asyncio.create_task(session.send(message(n))) for n in range(5)]
        await server.wait_for_stage(Stage.END_OF_DATA, 3)
        assert isinstance(await cancelled(sending[0]), DeliveryInDoubt)
        for n in range(1, 5):
            assert told(await sending[n]) == f"2.0.0 taken for to{n}@example.net"
    assert server.connections == 1


async def test_after_a_lone_dot_the_session_stays_in_step() -> None:
    """Nothing can have been delivered: no doubt, and nothing to break off for."""
    script = {Stage.RCPT: {1: "550 no"}, Stage.DATA: {1: "354 go"}, Stage.END_OF_DATA: {1: (Wait(0.05), "250 ok")}}
    async with playing(script) as (server, session):  # type: ignore[arg-type]
        sending = asyncio.create_task(session.send(message(1)))
        await server.wait_for_stage(Stage.END_OF_DATA)
        assert isinstance(await cancelled(sending), asyncio.CancelledError)
        assert (await session.send(message(2))).accepted
    assert server.connections == 1


async def test_while_a_refused_message_is_cleared_the_session_stays_in_step() -> None:
    script = {Stage.RCPT: {1: "550 no"}, Stage.RSET: {1: (Wait(0.05), DEFAULT_REPLY)}}
    async with playing(script, on_accept=token) as (server, session):  # type: ignore[arg-type]
        sending = asyncio.create_task(session.send(message(1)))
        await server.wait_for_stage(Stage.RSET)
        assert isinstance(await cancelled(sending), asyncio.CancelledError)
        assert told(await session.send(message(2))) == "2.0.0 taken for to2@example.net"
    assert server.connections == 1


async def test_a_timeout_around_a_send_tells_of_the_doubt() -> None:
    """`asyncio.timeout` gives way to the error that says more."""
    async with playing({Stage.END_OF_DATA: {1: (Wait(0.1), DEFAULT_REPLY)}}) as (_, session):
        with pytest.raises(DeliveryInDoubt):
            async with asyncio.timeout(0.03):
                await session.send(message())
        await asyncio.sleep(0)  # and no cancellation is left over


@pytest.mark.parametrize("stage", [Stage.CONNECT, Stage.GREETING, Stage.EHLO])
async def test_during_connect_the_connection_is_closed(stage: Stage) -> None:
    """W-07: the next attempt works, nothing is locked."""
    async with ScriptedRelay({stage: {1: Hang()}}) as server:
        connecting = asyncio.create_task(Session(relay_of(server)).connect())
        await server.wait_for_stage(stage)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await server.wait_until_idle()
        async with Session(relay_of(server)) as session:
            assert (await session.send(message())).accepted


@pytest.mark.parametrize("implicit", [True, False])
async def test_during_the_handshake_the_connection_is_closed(
    implicit: bool, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    async with ScriptedRelay({Stage.HANDSHAKE: Hang()}, tls=server_tls, implicit_tls=implicit) as server:
        security = Security.IMPLICIT_TLS if implicit else Security.STARTTLS
        connecting = asyncio.create_task(Session(relay_of(server, security=security, context=client_tls)).connect())
        await server.wait_for_stage(Stage.HANDSHAKE)
        await asyncio.sleep(0.02)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting  # that the socket is closed, the fixture sees: this relay is deaf


@pytest.mark.parametrize("stage", [Stage.AUTH, Stage.RESPONSE])
async def test_during_the_login_the_connection_is_closed(stage: Stage) -> None:
    async with ScriptedRelay({stage: Hang()}, users={"ann": "secret"}, mechanisms=["LOGIN"]) as server:
        relay = relay_of(server, login=Login("ann", Secret("secret")), cleartext_login=True)
        connecting = asyncio.create_task(Session(relay).connect())
        await server.wait_for_stage(stage)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await server.wait_until_idle()


async def test_while_the_token_is_fetched_the_connection_is_closed() -> None:
    fetching = asyncio.Event()

    async def fetch() -> str:
        fetching.set()
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async with ScriptedRelay(users={"ann": "token"}) as server:
        relay = relay_of(server, login=Login("ann", token=fetch), cleartext_login=True)
        connecting = asyncio.create_task(Session(relay).connect())
        await fetching.wait()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await server.wait_until_idle()


async def test_a_noop_that_is_given_up_ends_the_session() -> None:
    """N-01, D-01: Cancellation desync of a peer: its reply would come to the next command."""
    async with playing({Stage.NOOP: Hang()}) as (server, session):
        asking = asyncio.create_task(session.noop())
        await server.wait_for_stage(Stage.NOOP)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        with pytest.raises(SMTPError):
            await session.noop()


# --- through a pool ---


async def test_in_a_pool_waiting_for_capacity_leaves_no_trace() -> None:
    script = {Stage.END_OF_DATA: {1: (Wait(0.05), DEFAULT_REPLY)}}
    async with pooling(script, pool={"sessions": 1, "depth": 1}) as (server, pool):
        sending = [asyncio.create_task(pool.send(message(n))) for n in range(3)]
        await server.wait_for_stage(Stage.END_OF_DATA)
        assert isinstance(await cancelled(sending[1]), asyncio.CancelledError)
        assert (await sending[0]).accepted
        assert (await sending[2]).accepted
        await pool.drain()
    assert len(server.received) == 2


async def test_in_a_pool_while_the_session_is_opened_the_next_message_opens_it() -> None:
    async with pooling({Stage.GREETING: {1: Hang()}}, pool={"sessions": 1}) as (server, pool):
        first = asyncio.create_task(pool.send(message(1)))
        second = asyncio.create_task(pool.send(message(2)))
        await server.wait_for_stage(Stage.GREETING)
        assert isinstance(await cancelled(first), asyncio.CancelledError)
        assert (await second).accepted
    assert server.connections == 2


async def test_in_a_pool_a_message_given_up_halfway_costs_the_others_nothing() -> None:
    """They were not begun, so they are sent again on a fresh session, unseen."""

    def data(context: StageContext) -> Action | None:
        return Hang() if context.occurrence == 1 else None

    async with pooling({Stage.DATA: data}, pool={"sessions": 1, "depth": 4}, on_accept=token) as (server, pool):
        sending = [asyncio.create_task(pool.send(message(n))) for n in range(4)]
        await server.wait_for_stage(Stage.DATA)
        assert isinstance(await cancelled(sending[0]), asyncio.CancelledError)
        for n in range(1, 4):
            assert told(await sending[n]) == f"2.0.0 taken for to{n}@example.net"


@pytest.mark.parametrize("seed", range(4))
async def test_cancelled_anywhere_no_result_is_ever_wrong(seed: int) -> None:
    """Messages through three sessions, every third given up after some rounds of the loop, all told the truth."""
    results: list[tuple[int, object]] = []

    async def deliver(pool: Pool, number: int) -> None:
        task = asyncio.ensure_future(pool.send(message(number), before_end=_marking))
        if number % 3 == seed % 3:
            await rounds((number * 7919 + seed * 104_729) % 60)
            task.cancel()
        [result] = await asyncio.gather(task, return_exceptions=True)
        results.append((number, result))

    script = {Stage.END_OF_DATA: lambda context: (Wait(0.002), DEFAULT_REPLY) if context.occurrence % 7 == 0 else None}
    async with pooling(script, pool={"sessions": 3, "depth": 3}, on_accept=token) as (server, pool):
        await asyncio.gather(*(deliver(pool, number) for number in range(150)))
        await pool.drain()
    taken = Counter(path for received in server.received for path in received.forward_paths)
    for number, result in results:
        count = taken[f"to{number}@example.net"]
        assert count <= 1
        if isinstance(result, Delivery):
            assert told(result) == f"2.0.0 taken for to{number}@example.net"
            assert count == 1
        elif not (isinstance(result, SMTPError) and result.in_doubt):
            assert isinstance(result, SMTPError | asyncio.CancelledError), repr(result)
            assert count == 0, f"{number}: {result!r}"


async def _marking() -> None:
    await asyncio.sleep(0)


REFUSALS: dict[str, dict[Stage, dict[int, Action]]] = {  # of the second message
    "nothing": {},
    "MAIL": {Stage.MAIL: {2: "550 5.7.1 no"}},
    "RCPT": {Stage.RCPT: {2: "550 5.1.1 no"}},
    "DATA": {Stage.DATA: {2: "451 4.3.0 later"}},
    "the content": {Stage.END_OF_DATA: {2: "554 5.6.0 no"}},
}


@pytest.mark.parametrize("dialogue", Dialogue)
@pytest.mark.parametrize("refused", REFUSALS)
@pytest.mark.parametrize("victim", range(3))
async def test_one_that_leaves_as_a_reply_comes_does_not_take_the_turn_with_it(
    dialogue: Dialogue, refused: str, victim: int
) -> None:
    """F3: given up in the step of the loop in which a reply is heard, at each reply: the others still have an end."""
    heard = at = 0
    while heard >= at:
        heard, at = 0, at + 1
        sending: list[asyncio.Task[Delivery]] = []

        def hear(side: Direction, _: str, *, tls: bool, refused: bool) -> None:
            nonlocal heard
            if side is Direction.SERVER and sending:  # noqa: B023
                heard += 1
                if heard == at:  # noqa: B023
                    sending[victim].cancel()  # noqa: B023

        async with (
            ScriptedRelay(REFUSALS[refused], on_accept=token) as server,
            Session(relay_of(server, dialogue=dialogue), trace=hear) as session,
        ):
            sending.extend(asyncio.create_task(session.send(message(n))) for n in range(3))
            async with asyncio.timeout(5.0):
                results = await asyncio.gather(*sending, return_exceptions=True)
            for n, result in enumerate(results):
                if isinstance(result, Delivery):
                    assert not result.accepted or told(result) == f"2.0.0 taken for to{n}@example.net"
                elif n != victim:
                    assert isinstance(result, ConnectionLost)


# --- more than once ---


@asynccontextmanager
async def _late_reply() -> AsyncIterator[ScriptedRelay]:
    """A relay that takes its time for the end of data, and for QUIT; it must have the message at the end."""
    async with ScriptedRelay({Stage.END_OF_DATA: (Wait(0.1), DEFAULT_REPLY), Stage.QUIT: Hang()}) as server:
        yield server
        await server.wait_until_idle()
        assert len(server.received) == 1


async def _by_send(relay: Relay) -> Delivery:
    return await send(message(), relay=relay)


async def _by_session(relay: Relay) -> Delivery:
    async with Session(relay) as session:
        return await session.send(message())


async def _by_pool(relay: Relay) -> Delivery:
    async with Pool(relay) as pool:
        return await pool.send(message())


BY = pytest.mark.parametrize("call", [_by_send, _by_session, _by_pool])


@BY
async def test_a_cancel_scope_that_cancels_at_every_step_does_not_hide_the_doubt(
    call: Callable[[Relay], Coroutine[object, object, Delivery]],
) -> None:
    """FT-10: `anyio.move_on_after` ended in silence, though the relay has the message."""
    async with _late_reply() as server:
        with pytest.raises(DeliveryInDoubt):
            with anyio.move_on_after(0.05):
                await call(relay_of(server))


@BY
async def test_a_second_cancellation_does_not_hide_the_doubt(
    call: Callable[[Relay], Coroutine[object, object, Delivery]],
) -> None:
    """FT-10: the first one ends the wait for the reply, the second one QUIT."""
    async with _late_reply() as server:
        sending = asyncio.ensure_future(call(relay_of(server)))
        await server.wait_for_stage(Stage.END_OF_DATA)
        while not sending.done():
            sending.cancel()
            await asyncio.sleep(0)
        with pytest.raises(DeliveryInDoubt):
            await sending


@BY
async def test_cancelled_while_it_says_quit_a_block_returns_what_it_has(
    call: Callable[[Relay], Coroutine[object, object, Delivery]],
) -> None:
    """FT-10: the relay has answered: that is no doubt, and no silence."""
    async with _late_reply() as server:
        relay = relay_of(server, timeouts=replace(PATIENT, quit=5.0))
        sending = asyncio.ensure_future(call(relay))
        await server.wait_for_stage(Stage.QUIT)
        sending.cancel()
        assert (await sending).accepted


async def test_a_cancellation_of_clean_up_comes_at_the_next_await() -> None:
    """FT-10: a worker that sends in a loop must end when its TaskGroup does."""
    ends = []

    async def work(relay: Relay) -> None:
        ends.append(await _by_session(relay))
        ends.append("goes on")
        await asyncio.Event().wait()

    async with _late_reply() as server:
        working = asyncio.ensure_future(work(relay_of(server, timeouts=replace(PATIENT, quit=5.0))))
        await server.wait_for_stage(Stage.QUIT)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert ends[1:] == ["goes on"]


async def test_a_timeout_that_fires_during_clean_up_leaves_no_cancellation_behind() -> None:
    """FT-10: whoever asked for it has taken it back at the end of its block."""
    async with _late_reply() as server:
        relay = relay_of(server, timeouts=replace(PATIENT, quit=5.0))
        async with asyncio.timeout(5), asyncio.timeout(None) as limit, Session(relay) as session:
            delivery = await session.send(message())
            limit.reschedule(asyncio.get_running_loop().time() + 0.05)
        assert limit.expired()
        assert delivery.accepted
        await rounds()


async def _by_aclosing(relay: Relay) -> None:
    async with aclosing(Pool(relay)) as pool:
        await pool.send(message())


async def test_a_doubt_outlives_the_aclose_of_a_finally_block() -> None:
    """FT-10: not only `async with` cleans up."""
    async with _late_reply() as server:
        with pytest.raises(DeliveryInDoubt), anyio.move_on_after(0.05):
            await _by_aclosing(relay_of(server))


async def test_a_refused_login_outlives_a_cancelled_quit() -> None:
    """FT-10: the outcome of `connect` is one too."""
    script = {Stage.AUTH: "535 5.7.8 no", Stage.QUIT: Hang()}
    async with ScriptedRelay(script, users={"ann": "secret"}) as server:  # type: ignore[arg-type]
        login = Login("ann", Secret("wrong"))
        relay = relay_of(server, login=login, cleartext_login=True, timeouts=replace(PATIENT, quit=5.0))
        for call in (_by_session, _by_pool):
            sending = asyncio.ensure_future(call(relay))
            await server.wait_for_stage(Stage.QUIT, server.count_stage(Stage.QUIT) + 1)
            sending.cancel()
            with pytest.raises(AuthenticationRefused):
                await sending


async def test_a_cancelled_send_all_tells_what_the_relay_may_have() -> None:
    """FT-10: the one that is unanswered, and the one that is accepted and was not yielded."""
    script = {Stage.END_OF_DATA: lambda context: Hang() if context.occurrence == 3 else None}
    async with pooling(script, pool={"sessions": 1}) as (server, pool):
        seen: list[Delivery] = []

        async def consume() -> None:
            async with aclosing(pool.send_all([message(n) for n in range(3)])) as deliveries:
                async for delivery in deliveries:
                    seen.append(delivery)
                    await asyncio.Event().wait()

        consuming = asyncio.ensure_future(consume())
        await server.wait_for_stage(Stage.END_OF_DATA, 3)
        await until(lambda: bool(seen))
        consuming.cancel()
        with pytest.raises(MessagesFailed) as caught:
            await consuming
    assert caught.value.in_doubt
    told = [delivery.envelope.forward_paths for delivery in seen]
    told += [error.envelope.forward_paths for _, error in caught.value.failures]  # type: ignore[attr-defined]
    assert len(told) == 3


async def test_a_send_all_of_which_the_relay_has_nothing_is_simply_cancelled() -> None:
    """FT-10: a CancelledError says that nothing was sent."""
    async with pooling({Stage.MAIL: Hang()}) as (server, pool):
        taking = asyncio.ensure_future(anext(pool.send_all([message()])))
        await server.wait_for_stage(Stage.MAIL)
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking


async def test_a_cancellation_in_the_step_that_brings_the_reply_keeps_the_reply() -> None:
    """FT-10: a refused message is not in doubt; the task is cancelled at its next `await`."""
    sending: list[asyncio.Task[Delivery]] = []

    def hear(side: Direction, text: str, *, tls: bool, refused: bool) -> None:
        if text.startswith("554") and refused:
            asyncio.get_running_loop().call_soon(sending[0].cancel)

    async with (
        ScriptedRelay({Stage.END_OF_DATA: "554 5.6.0 no"}) as server,
        Session(relay_of(server), trace=hear) as session,
    ):
        sending.append(asyncio.ensure_future(session.send(message())))
        [result] = await asyncio.gather(*sending, return_exceptions=True)
    assert isinstance(result, Delivery)
    assert not result.accepted


@pytest.mark.slow
async def test_after_a_doubt_a_pool_that_is_closed_says_so() -> None:
    """FT-10: an earlier cancellation of the task is not taken for one of now."""
    async with pooling({Stage.END_OF_DATA: {1: Hang()}, Stage.GREETING: {2: Hang()}}) as (server, pool):

        async def work() -> None:
            with pytest.raises(DeliveryInDoubt):
                await pool.send(message(1))
            with pytest.raises(LocalProtocolError, match="the pool is closed"):
                await pool.send(message(2))

        working = asyncio.ensure_future(work())
        await server.wait_for_stage(Stage.END_OF_DATA)
        working.cancel()
        await server.wait_for_stage(Stage.GREETING, 2)
        await pool.aclose()
        await working
