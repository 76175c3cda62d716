"""One connection and the protocol on it: its timeouts, its one failure, its end."""

from __future__ import annotations

import asyncio
import errno

import pytest

from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import ConnectionLost, DeliveryInDoubt, LocalProtocolError, ReplyTimeout, SMTPError
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
