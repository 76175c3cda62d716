"""One connection and the protocol on it: its timeouts, its one failure, its end."""

from __future__ import annotations

import asyncio
import errno
import traceback

import pytest

from asyncsmtp.client.session.pending_message import PendingMessage
from asyncsmtp.client.session.send_pipeline import PipeliningProbe, SendPipeline, ServerQuirks
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import ConnectionLost, DeliveryInDoubt, LocalProtocolError, ReplyTimeout, SMTPError
from asyncsmtp.protocol.replies import Reply
from asyncsmtp.protocol.transaction import Transaction
from asyncsmtp.testing import DEFAULT_REPLY, Hang, ScriptedRelay, SendSlowly, Stage, Wait
from tests.client.support import LIMIT, QUICK, message, playing, relay_of, until

pytestmark = pytest.mark.usefixtures("nothing_leaks")


async def test_a_reply_in_single_bytes_is_a_reply() -> None:
    """W-31, over loopback."""
    script = {stage: SendSlowly(b"", 0.0) for stage in ()} | {
        Stage.END_OF_DATA: SendSlowly(b"250-2.0.0 taken\r\n250 2.0.0 for good\r\n", 0.0005)
    }
    async with playing(script) as (_, session):
        delivery = await session.send(message())
        assert delivery.content_reply is not None
        assert delivery.content_reply.text == "2.0.0 taken\n2.0.0 for good"


async def test_the_first_failure_is_raised_to_everyone() -> None:
    """W-32: told again to whoever comes later."""
    async with playing({Stage.MAIL: Hang()}, relay={"timeouts": QUICK}) as (_, session):
        with pytest.raises(ReplyTimeout) as first:
            await session.send(message())
        with pytest.raises(ReplyTimeout) as second:
            await session.noop()
        assert first.value is second.value


async def test_an_idle_session_has_no_limit() -> None:
    """Nothing is due, so nothing is late."""
    async with playing(relay={"timeouts": QUICK}) as (_, session):
        await session.send(message(1))
        await asyncio.sleep(LIMIT * 1.5)
        assert (await session.send(message(2))).accepted


async def test_a_limit_begins_when_the_command_is_the_oldest() -> None:
    """RCPT's does not run while MAIL is unanswered, though both were said at once."""
    late = (Wait(LIMIT * 0.7), DEFAULT_REPLY)
    async with playing({Stage.MAIL: late, Stage.RCPT: late}, relay={"timeouts": QUICK}) as (_, session):
        assert (await session.send(message())).accepted


@pytest.mark.parametrize("past_the_dot", [True, False])
async def test_a_connection_that_times_out_below_tcp_is_lost(past_the_dot: bool) -> None:
    """ETIMEDOUT is a TimeoutError, and no timeout of ours."""
    stage = Stage.END_OF_DATA if past_the_dot else Stage.MAIL
    async with playing({stage: Hang()}) as (server, session):
        sending = asyncio.create_task(session.send(message()))
        await server.wait_for_stage(stage)
        assert session._connection is not None
        session._connection._reader.set_exception(TimeoutError(errno.ETIMEDOUT, "Connection timed out"))
        with pytest.raises(DeliveryInDoubt if past_the_dot else ConnectionLost, match="was lost"):
            await sending


async def test_aborting_is_abrupt_and_raised_to_all() -> None:
    """Abort, never close: closing would still send what is buffered (fact 2)."""
    async with playing({Stage.DATA: Hang()}) as (server, session):
        sending = [asyncio.create_task(session.send(message(n))) for n in range(3)]
        await server.wait_for_stage(Stage.DATA)
        session.abort()
        results = await asyncio.gather(*sending, return_exceptions=True)
        assert all(isinstance(result, SMTPError) and not result.in_doubt for result in results)
        with pytest.raises(LocalProtocolError, match="owner"):
            await session.send(message())
        await server.wait_until_idle()


async def test_nothing_is_written_after_the_connection_is_gone() -> None:
    """WO-15: asyncio drops such writes without a word."""
    async with ScriptedRelay() as server:
        session = Session(relay_of(server))
        await session.connect()
        await server.aclose()
        await until(lambda: not session.usable)
        with pytest.raises(ConnectionLost):
            await session.send(message())
        await session.aclose()
    assert server.count_stage(Stage.MAIL) == 0


async def test_a_session_ends_when_the_relay_ends_it() -> None:
    async with ScriptedRelay() as server:
        session = Session(relay_of(server))
        await session.connect()
        ended = asyncio.create_task(session.wait_closed())
        await asyncio.sleep(0.01)
        assert not ended.done()
        await server.aclose()
        async with asyncio.timeout(1):
            await ended
        await session.aclose()


_armed: list[bool] = []


class _BrokenQuirks(ServerQuirks):
    """Raises once where the reply to a probe is noted: in the reading callback, as a bug there would."""

    def __setattr__(self, name: str, value: object) -> None:
        if _armed:
            _armed.clear()
            raise ZeroDivisionError("a bug")
        super().__setattr__(name, value)


async def test_a_bug_while_a_reply_is_read_keeps_its_traceback() -> None:
    """FT-87: for the senders, as the cause; and for the event loop, which logs it."""
    told: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    async with ScriptedRelay() as server, Session(relay_of(server), quirks=_BrokenQuirks()) as session:
        _armed.append(True)
        results = await asyncio.gather(*(session.send(message(n)) for n in (1, 2)), return_exceptions=True)
        assert isinstance(results[1], SMTPError)  # the reply to the first one was complete
        shown = "".join(traceback.format_exception(results[1]))
        assert "ZeroDivisionError: a bug" in shown
        assert "in __setattr__" in shown
        assert not session.usable
    assert [type(error) for error in told] == [ZeroDivisionError]


async def test_a_bug_before_the_point_of_no_return_leaves_no_doubt() -> None:
    """FT-87: what it says of the message is as true as with any other failure."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    armed: list[Reply] = []

    class Broken(SendPipeline):
        def replies_received(self) -> None:
            if armed:
                raise ZeroDivisionError("a bug")
            super().replies_received()

    async with ScriptedRelay() as server, Session(relay_of(server)) as session:
        connection = session._connection
        assert connection is not None
        armed.append(await session.noop())
        pipeline = Broken(session.relay, connection, ServerQuirks(), None)
        with pytest.raises(LocalProtocolError, match="ZeroDivisionError while reading a reply") as caught:
            await pipeline.send(message().envelope, message().content, None)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert not caught.value.in_doubt
    assert server.received == []


@pytest.mark.parametrize("broken", ["conclude", "mark_in_doubt", "divide", "connection_failed"])
async def test_a_bug_while_a_result_is_made_leaves_nobody_waiting(
    broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """FT-87: each sender gets an error, one whose content was sent DeliveryInDoubt; the log has the traceback."""
    to = ("a@example.net", "b@example.net")
    async with playing({Stage.END_OF_DATA: {2: Hang()}}) as (server, session):
        assert (await session.send(message(9))).accepted

        def fail(*_: object, **__: object) -> None:
            raise ZeroDivisionError("a bug")

        if broken == "connection_failed":  # what is learned of the server
            monkeypatch.setattr(PipeliningProbe, "connection_failed", fail)
        else:
            owner = PendingMessage if broken in ("conclude", "mark_in_doubt") else Transaction
            monkeypatch.setattr(owner, broken, fail)
        sending = [asyncio.create_task(session.send(message(n, to=to if n == 1 else None))) for n in range(1, 5)]
        await server.wait_for_stage(Stage.END_OF_DATA, 2)
        await asyncio.sleep(0.05)
        session.abort()
        async with asyncio.timeout(5):
            results = await asyncio.gather(*sending, return_exceptions=True)
        assert isinstance(results[0], DeliveryInDoubt)
        assert all(isinstance(result, SMTPError) and not result.in_doubt for result in results[1:])
        assert not session.usable
    assert "ZeroDivisionError: a bug" in caplog.text
    assert "in fail" in caplog.text


async def test_a_bug_while_a_reply_is_given_to_its_sender_leaves_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """FT-87: the message whose reply it was is in doubt, the others were not sent; the event loop logs the bug."""
    shown: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: shown.append(context["exception"]))
    async with ScriptedRelay() as server, Session(relay_of(server)) as session:

        def fail(*_: object, **__: object) -> None:
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(Transaction, "build_delivery", fail)
        async with asyncio.timeout(5):
            results = await asyncio.gather(*(session.send(message(n)) for n in (1, 2, 3)), return_exceptions=True)
    assert isinstance(results[0], DeliveryInDoubt)
    assert "ZeroDivisionError: a bug" in "".join(traceback.format_exception(results[0]))
    assert all(isinstance(result, SMTPError) for result in results)
    assert [type(error) for error in shown] == [ZeroDivisionError]


async def test_a_bug_of_the_session_at_its_end_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """FT-87: whoever is told before the messages may fail as well."""
    async with playing({Stage.MAIL: Hang()}) as (server, session):
        connection = session._connection
        assert connection is not None

        def fail(_: SMTPError) -> None:
            raise ZeroDivisionError("a bug")

        sending = asyncio.create_task(session.send(message()))
        await server.wait_for_stage(Stage.MAIL)
        monkeypatch.setattr(connection, "_on_failure", fail)
        with pytest.raises(ZeroDivisionError):
            session.abort()
        async with asyncio.timeout(5):
            with pytest.raises(LocalProtocolError, match="owner"):
                await sending
