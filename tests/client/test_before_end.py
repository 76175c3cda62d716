"""`before_end`: what a sender must have done before the relay can have the message."""

from __future__ import annotations

import asyncio

import pytest

from asyncsmtp.client.config.relay import Dialogue
from asyncsmtp.errors import ConnectionLost, LedgerError, SMTPError
from asyncsmtp.protocol.delivery import Outcome
from asyncsmtp.testing import DEFAULT_REPLY, Fin, Stage, Wait
from tests.client.support import BY_DATA, QUICK, big, message, playing, rounds

pytestmark = pytest.mark.usefixtures("nothing_leaks")


@pytest.mark.parametrize("made", [message(), big(1_000_000)], ids=["small", "big"])
async def test_while_it_has_not_returned_the_relay_cannot_have_the_message(made: object) -> None:
    """Fact 2, T2 of `delivery.md`: the end of the content is written behind it."""
    gate = asyncio.Event()
    async with playing() as (server, session):
        sending = asyncio.create_task(session.send(made, before_end=gate.wait))  # type: ignore[arg-type]
        await server.wait_for_stage(Stage.DATA)
        await asyncio.sleep(0.05)
        assert server.count_stage(Stage.END_OF_DATA) == 0
        gate.set()
        assert (await sending).accepted


async def test_a_large_content_travels_before_it_is_asked() -> None:
    """The commit hides behind the transfer."""
    gate = asyncio.Event()
    async with playing() as (server, session):
        sending = asyncio.create_task(session.send(big(1_000_000), before_end=gate.wait))
        await server.wait_for_stage(Stage.BODY)
        gate.set()
        assert (await sending).accepted


@pytest.mark.parametrize(
    "script",
    [
        {Stage.MAIL: "550 no"},
        {Stage.RCPT: "550 no"},
        {Stage.DATA: "451 no"},
        {Stage.RCPT: "550 no", Stage.DATA: "354 go"},
    ],
    ids=["mail", "rcpt", "data", "lone dot"],
)
async def test_it_is_not_asked_for_what_is_refused(script: dict[Stage, str]) -> None:
    asked = 0

    async def ask() -> None:
        nonlocal asked
        asked += 1

    async with playing(script) as (_, session):  # type: ignore[arg-type]
        assert (await session.send(message(), before_end=ask)).outcomes[0] is not Outcome.ACCEPTED
    assert asked == 0


class _Full(LedgerError):
    """Stands for a ledger that cannot write."""


@pytest.mark.parametrize("made", [message(), big(1_000_000)], ids=["small", "big"])
@pytest.mark.parametrize("error", [_Full("disk full"), KeyError("x"), ConnectionLost("its own")])
async def test_when_it_fails_the_message_is_never_accepted(made: object, error: Exception) -> None:
    """The content never ends; the sender gets the very error; the session is over."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise error

    async with playing() as (server, session):
        with pytest.raises(type(error)) as caught:
            await session.send(made, before_end=fail)  # type: ignore[arg-type]
        assert caught.value is error
        assert not session.usable
        await server.wait_until_idle()
        assert server.count_stage(Stage.END_OF_DATA) == 0
    assert server.received == []


@pytest.mark.parametrize("error", [_Full("disk full"), KeyError("x")])
async def test_when_it_cannot_even_be_called_only_its_own_message_fails(error: Exception) -> None:
    """A ledger that failed says so at once, without a coroutine; the message before it has its reply."""

    def fail() -> asyncio.Future[None]:
        raise error

    async with playing() as (server, session):
        results = await asyncio.gather(
            session.send(message(1)),
            session.send(message(2), before_end=fail),
            session.send(message(3)),
            return_exceptions=True,
        )
        assert getattr(results[0], "accepted", False)
        assert results[1] is error
        assert isinstance(results[2], ConnectionLost)
    assert [received.forward_paths for received in server.received] == [("to1@example.net",)]


async def test_a_future_that_is_already_done_will_do() -> None:
    """A mark that was made earlier, for a first attempt, is a future; it is not ours to cancel."""
    done = asyncio.get_running_loop().create_future()
    done.set_result(None)
    async with playing() as (_, session):
        for number in range(3):
            assert (await session.send(message(number), before_end=lambda: done)).accepted


async def test_a_future_of_somebody_else_outlives_the_sender() -> None:
    marking = asyncio.get_running_loop().create_future()
    async with playing() as (server, session):
        sending = asyncio.create_task(session.send(message(), before_end=lambda: marking))
        await server.wait_for_stage(Stage.DATA)
        await asyncio.sleep(0.02)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert not marking.done()
    assert server.received == []


async def test_what_it_was_doing_is_cancelled_with_the_sender() -> None:
    entered, ended = asyncio.Event(), []

    async def mark() -> None:
        entered.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(True)

    async with playing() as (server, session):
        sending = asyncio.create_task(session.send(message(), before_end=mark))
        await entered.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await rounds()
        assert ended == [True]
        await server.wait_until_idle()
    assert server.received == []


@pytest.mark.parametrize("dialogue", BY_DATA)
@pytest.mark.parametrize("delay", [0.0, 0.002])
async def test_a_result_is_recorded_before_the_next_message_is_marked(dialogue: Dialogue, delay: float) -> None:
    """U of `delivery.md` §4: at most one answered outcome a session is not yet with its sender at a crash."""
    events: list[tuple[str, int]] = []

    async def deliver(session: object, number: int) -> None:
        async def mark() -> None:
            events.append(("mark", number))
            await asyncio.sleep(delay)

        await session.send(message(number), before_end=mark)  # type: ignore[attr-defined]
        events.append(("settle", number))

    async with playing(relay={"dialogue": dialogue}) as (_, session), asyncio.TaskGroup() as senders:
        for number in range(30):
            senders.create_task(deliver(session, number))
    assert events == [(what, number) for number in range(30) for what in ("mark", "settle")]


async def test_messages_with_and_without_it_share_a_session() -> None:
    async with playing() as (server, session):
        deliveries = await asyncio.gather(
            *(session.send(message(n), before_end=_nothing if n % 2 else None) for n in range(40))
        )
        assert all(delivery.accepted for delivery in deliveries)
    assert len(server.received) == 40


async def _nothing() -> None:
    await asyncio.sleep(0)


async def test_a_connection_that_ends_meanwhile_is_safe() -> None:
    """The relay hangs up while the mark is made: the end was never written."""
    marking = asyncio.get_running_loop().create_future()
    async with playing({Stage.DATA: (DEFAULT_REPLY, Wait(0.02), Fin())}) as (_, session):
        with pytest.raises(ConnectionLost) as caught:
            await session.send(message(), before_end=lambda: marking)
        assert not caught.value.in_doubt


async def test_it_may_take_longer_than_any_limit_of_the_relay() -> None:
    """The limits are the relay's to keep; a slow disk of ours is no timeout of its."""

    async def slowly() -> None:
        await asyncio.sleep(QUICK.end * 1.5)

    async with playing(relay={"timeouts": QUICK}) as (_, session):
        assert (await session.send(message(), before_end=slowly)).accepted


async def test_a_sender_that_dies_without_its_result_does_not_hold_up_the_next() -> None:
    """Cancelled between the dot and the reply: the next message is marked nevertheless."""
    async with playing({Stage.END_OF_DATA: {1: (Wait(0.05), DEFAULT_REPLY)}}) as (server, session), asyncio.timeout(5):
        first = asyncio.create_task(session.send(message(1), before_end=_nothing))
        second = asyncio.create_task(session.send(message(2), before_end=_nothing))
        await server.wait_for_stage(Stage.END_OF_DATA)
        first.cancel()
        with pytest.raises(SMTPError):
            await first
        assert (await second).accepted


@pytest.mark.parametrize("dialogue", Dialogue)
async def test_a_connection_that_breaks_as_it_returns_leaves_no_doubt(
    dialogue: Dialogue, caplog: pytest.LogCaptureFixture
) -> None:
    """The transport knows it already, and tells us after the turn in which the end would be written."""
    async with playing(relay={"dialogue": dialogue}) as (server, session):

        async def mark() -> None:
            assert session._wire is not None
            asyncio.get_running_loop().call_soon(session._wire.writer.transport.abort)

        with pytest.raises(ConnectionLost):
            await session.send(message(), before_end=mark)
    assert server.received == []
    assert "Exception in callback" not in caplog.text
