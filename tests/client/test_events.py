"""What an observer is told: each thing once, and enough to count by."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import Counter

import pytest

from asyncsmtp.client.api import send
from asyncsmtp.client.config.relay import Login
from asyncsmtp.client.events.types import (
    Event,
    MessageDequeued,
    MessageEnded,
    MessageQueued,
    MessageRetried,
    SessionClosed,
    SessionFailed,
    SessionOpened,
)
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import (
    AuthenticationRefused,
    ConnectFailed,
    ConnectionLost,
    DeliveryInDoubt,
    LocalProtocolError,
    Refused,
    SMTPError,
)
from asyncsmtp.protocol.auth.auth import Secret
from asyncsmtp.protocol.delivery import Outcome
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import DEFAULT_REPLY, NO_REPLY, Fin, Hang, ScriptedRelay, Stage, Wait
from tests.client.support import message, pooling, relay_of, rounds, until

pytestmark = pytest.mark.usefixtures("nothing_leaks")


class Observed(list[Event]):
    """An observer that keeps what it is told."""

    def __call__(self, event: Event, /) -> None:
        self.append(event)

    def only(self, kind: type) -> list[Event]:
        return [event for event in self if isinstance(event, kind)]

    @property
    def ended(self) -> list[MessageEnded]:
        return [event for event in self if isinstance(event, MessageEnded)]


async def test_a_message_in_one_call_emits_events_from_opening_to_closing(server: ScriptedRelay) -> None:
    observed = Observed()
    delivery = await send(message(), relay=relay_of(server), on_event=observed)
    opened, ended, closed = observed
    assert isinstance(opened, SessionOpened)
    assert (opened.tls, opened.verified) == (None, False)
    assert isinstance(ended, MessageEnded)
    assert ended.delivery is delivery
    assert (ended.result, ended.code, ended.error) == ("accepted", None, None)
    assert ended.octets == message().content.size
    assert 0.0 < ended.seconds < 10.0
    assert ended.waited == 0.0
    assert isinstance(closed, SessionClosed)
    assert (closed.messages, closed.error) == (1, None)
    assert {event.host for event in observed} == {str(relay_of(server))}


@pytest.mark.parametrize("verified", [True, False])
async def test_the_opening_tells_of_tls(verified: bool, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    if not verified:
        client_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client_tls.check_hostname, client_tls.verify_mode = False, ssl.CERT_NONE
    observed = Observed()
    async with ScriptedRelay(tls=server_tls) as server:
        relay = relay_of(server, security=Security.STARTTLS, context=client_tls)
        async with Session(relay, on_event=observed):
            [opened] = observed
    assert isinstance(opened, SessionOpened)
    assert (opened.tls, opened.verified) == ("TLSv1.3", verified)


async def test_a_pool_emits_one_end_for_each_message() -> None:
    observed = Observed()
    script = {Stage.RCPT: lambda context: "550 5.1.1 no" if context.occurrence % 4 == 0 else None}
    async with pooling(script, pool={"sessions": 3, "on_event": observed}) as (_, pool):
        await asyncio.gather(*(pool.send(message(n)) for n in range(40)))
    assert Counter(event.result for event in observed.ended) == {"accepted": 30, "rejected": 10}
    assert Counter(event.code for event in observed.ended) == {None: 30, 550: 10}
    assert len(observed.only(SessionOpened)) == len(observed.only(SessionClosed)) == 3
    assert sum(event.messages for event in observed if isinstance(event, SessionClosed)) == 40


async def test_waiting_emits_an_event_at_its_beginning_and_end() -> None:
    """The difference of the two is the queue's depth at any time."""
    observed = Observed()
    script = {Stage.END_OF_DATA: (Wait(0.02), DEFAULT_REPLY)}
    async with pooling(script, pool={"sessions": 1, "depth": 1, "on_event": observed}) as (server, pool):
        sending = [asyncio.create_task(pool.send(message(n))) for n in range(4)]
        await server.wait_for_stage(Stage.END_OF_DATA)
        assert len(observed.only(MessageQueued)) - len(observed.only(MessageDequeued)) == pool.waiting == 3
        sending[1].cancel()
        await asyncio.gather(*sending, return_exceptions=True)
    assert len(observed.only(MessageQueued)) == len(observed.only(MessageDequeued)) == 3
    waits = [event.waited for event in observed.ended if event.result == "accepted"]
    assert waits[0] == 0.0 < waits[1] < waits[2]
    assert all(event.waited <= event.seconds for event in observed.ended)


async def test_doubt_failure_and_cancelling_have_different_results() -> None:
    observed = Observed()
    script = {Stage.END_OF_DATA: {1: (NO_REPLY, Fin())}, Stage.DATA: {2: Fin(), 3: Hang()}}
    async with pooling(script, pool={"sessions": 1, "on_event": observed}) as (server, pool):  # type: ignore[arg-type]
        for error in (DeliveryInDoubt, ConnectionLost):
            with pytest.raises(error):
                await pool.send(message())
        given_up = asyncio.create_task(pool.send(message()))
        await server.wait_for_stage(Stage.DATA, 3)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
    assert [event.result for event in observed.ended] == ["in doubt", "failed", "cancelled"]
    assert [event.outcomes for event in observed.ended] == [(Outcome.IN_DOUBT,), (), ()]
    assert isinstance(observed.ended[0].error, DeliveryInDoubt)
    closed = [event.error for event in observed if isinstance(event, SessionClosed)]
    assert [isinstance(error, SMTPError) for error in closed] == [True, True, True]


async def test_recipients_with_different_outcomes_are_reported_one_by_one() -> None:
    observed = Observed()
    async with pooling({Stage.RCPT: {2: "451 4.2.1 later"}}, pool={"on_event": observed}) as (_, pool):
        await pool.send(message(to=("a@example.net", "b@example.net")))
    [ended] = observed.ended
    assert (ended.result, ended.outcomes) == ("mixed", (Outcome.ACCEPTED, Outcome.DEFERRED))
    assert ended.code == 451


async def test_a_message_that_is_sent_again_says_why() -> None:
    observed = Observed()
    async with pooling({Stage.MAIL: {2: Fin()}}, pool={"sessions": 1, "on_event": observed}) as (_, pool):
        await pool.send(message(1))
        assert (await pool.send(message(2))).accepted
    assert [event.result for event in observed.ended] == ["accepted", "accepted"]
    [retried] = [event for event in observed if isinstance(event, MessageRetried)]
    assert "hung up" in retried.why
    assert len(observed.only(SessionOpened)) == len(observed.only(SessionClosed)) == 2


async def test_an_envelope_that_was_not_answered_as_a_whole_is_a_retry() -> None:
    """It is sent again command by command, on a session that is fresh as the first one was."""
    observed = Observed()
    async with pooling({Stage.MAIL: {1: Fin()}}, pool={"sessions": 1, "on_event": observed}) as (_, pool):
        assert (await pool.send(message())).accepted
    [retried] = [event for event in observed if isinstance(event, MessageRetried)]
    assert "hung up" in retried.why


async def test_a_deferred_mail_of_a_used_session_is_a_retry() -> None:
    observed = Observed()
    script = {Stage.MAIL: {2: "452 4.5.3 too many messages sent"}}
    async with pooling(script, pool={"sessions": 1, "on_event": observed}) as (_, pool):  # type: ignore[arg-type]
        await pool.send(message(1))
        assert (await pool.send(message(2))).accepted
    [retried] = [event for event in observed if isinstance(event, MessageRetried)]
    assert retried.why == "452 4.5.3 too many messages sent"
    assert [event.messages for event in observed if isinstance(event, SessionClosed)] == [2, 1]


async def test_a_session_that_fails_to_open_is_reported_with_its_error() -> None:
    observed = Observed()
    async with ScriptedRelay({Stage.GREETING: {1: "554 5.7.1 no", 2: Fin()}}, users={"ann": "right"}) as server:  # type: ignore[dict-item]
        for login, kind in ((None, Refused), (None, ConnectFailed), ("wrong", AuthenticationRefused)):
            settings = {"login": Login("ann", Secret(login)), "cleartext_login": True} if login else {}
            with pytest.raises(kind):
                await send(message(), relay=relay_of(server, **settings), on_event=observed)  # type: ignore[arg-type]
    failures = [event for event in observed if isinstance(event, SessionFailed)]
    assert [event.code for event in failures] == [554, None, 535]
    assert len(observed) == 3  # what never opened is not closed, and no message was begun


async def test_a_callback_that_raises_is_logged_once_and_breaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def raising(_: Event, /) -> None:
        raise RuntimeError("its own fault")

    async with pooling(pool={"sessions": 2, "on_event": raising}) as (server, pool):
        deliveries = await asyncio.gather(*(pool.send(message(n)) for n in range(10)))
        assert all(delivery.accepted for delivery in deliveries)
    assert len(server.received) == 10
    [record] = [record for record in caplog.records if record.name == "asyncsmtp.events"]
    assert record.levelno == logging.ERROR
    assert "further exceptions are not logged" in record.getMessage()


async def test_no_event_has_a_secret_or_the_content() -> None:
    """AU-08: observers print and store what they are told."""
    observed = Observed()
    async with ScriptedRelay({Stage.DATA: "554 hunter2 no"}, users={"ann": "hunter2"}, mechanisms=["LOGIN"]) as server:
        relay = relay_of(server, login=Login("ann", Secret("hunter2")), cleartext_login=True)
        async with Pool(relay, on_event=observed) as pool:
            await pool.send(message(body="my secret plans\r\n"))
    assert len(observed) == 3
    assert "hunter2" not in repr(observed).replace("554 hunter2", "").replace("b'hunter2 no'", "")
    assert "plans" not in repr(observed)


async def test_messages_of_a_closed_pool_are_reported_too() -> None:
    observed = Observed()
    async with pooling({Stage.MAIL: Hang()}, pool={"sessions": 1, "on_event": observed}) as (server, pool):
        sending = asyncio.create_task(pool.send(message()))
        await server.wait_for_stage(Stage.MAIL)
        await pool.aclose()
        with pytest.raises(LocalProtocolError):
            await sending
    assert [event.result for event in observed.ended] == ["failed"]


async def test_an_idle_session_that_the_relay_ends_is_reported_at_once() -> None:
    observed = Observed()
    async with pooling({Stage.END_OF_DATA: (DEFAULT_REPLY, Fin())}, pool={"on_event": observed}) as (_, pool):
        await pool.send(message())
        await until(lambda: bool(observed.only(SessionClosed)))
        await rounds()
        [closed] = observed.only(SessionClosed)
        assert isinstance(closed, SessionClosed)
        assert isinstance(closed.error, ConnectionLost)
