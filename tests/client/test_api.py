"""The calls that people guess: URLs, many messages, retries, and a TypeError that names the parameter."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from email.message import EmailMessage
from functools import partial
from random import Random
from typing import Any, TypeVar

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import asyncsmtp
from asyncsmtp import (
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    Delivery,
    DeliveryInDoubt,
    DkimKey,
    Event,
    ExtensionNotSupported,
    InsecureConnection,
    Message,
    MessageEnded,
    MessageError,
    MessageRetried,
    MessagesFailed,
    Outcome,
    Pool,
    Relay,
    Retry,
    Security,
    Session,
    SessionOpened,
    Signer,
    StreamContent,
    Template,
    build,
    send,
)
from asyncsmtp.client.connection.transport import Streams, open_connection
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.testing import DEFAULT_REPLY, Action, Fin, Rule, ScriptedRelay, Stage, StageContext, Wait
from tests.client.support import message, pooling, relay_of, rounds
from tests.mail.dkim_verifier import verdicts

pytestmark = pytest.mark.usefixtures("nothing_leaks")

SOON = Retry(delay=0.01, attempts=3, jitter=0)


def url_of(server: ScriptedRelay, user: str = "") -> str:
    return f"smtp://{user}{server.host}:{server.port}?security=none"


# --- a URL wherever a relay is meant ---


async def test_a_url_is_a_relay_for_a_session_a_pool_and_send(server: ScriptedRelay) -> None:
    async with Session(url_of(server)) as session:
        assert (await session.send(message(1))).accepted
    async with Pool(url_of(server), sessions=4) as pool:
        assert (await pool.send(message(2))).accepted
    assert (await send(message(3), relay=url_of(server))).accepted
    assert session.relay == pool.relay == Relay(server.host, server.port, Security.PLAINTEXT)


async def test_a_password_or_token_stands_beside_the_url(server: ScriptedRelay) -> None:
    """It reaches the login, which this relay, being in clear, is not shown."""

    async def token() -> str:
        return "ya29"

    url = url_of(server, "ada@")
    with pytest.raises((InsecureConnection, ExtensionNotSupported)):
        await send(message(), relay=url, password="open sesame")
    for kind in (Session, Pool):
        assert kind(url, password="open sesame").relay == Relay.from_url(url, password="open sesame")
        assert kind(url, token=token).relay == Relay.from_url(url, token=token)


async def test_a_relay_with_a_password_beside_it_is_refused(server: ScriptedRelay) -> None:
    """Else one of its login and this would be ignored silently."""
    with pytest.raises(asyncsmtp.InvalidArgument, match="password= and token= belong to a URL"):
        await send(message(), relay=relay_of(server), password="open sesame")


# --- a wrong type is a TypeError at the call ---


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: Session(42), "relay must be a Relay or a URL .*, not int"),
        (lambda: Session("smtp://relay.example", sock=25), "sock must be socket, not int"),
        (lambda: Pool(None), "relay must be"),
        (lambda: Pool("smtp://relay.example", sessions="4"), "sessions must be int, not str"),
        (lambda: Pool("smtp://relay.example", depth=1.5), "depth must be int, not float"),
        (lambda: Pool("smtp://relay.example", messages="all"), "messages must be int, not str"),
        (lambda: Pool("smtp://relay.example", idle="1"), "idle must be int or float, not str"),
        (lambda: Pool("smtp://relay.example", retry=3), "retry must be Retry, not int"),
        (lambda: Pool("smtp://relay.example", wait="1"), "wait must be int, float or None, not str"),
        (lambda: Pool("smtp://ada@relay.example", password=3), "password must be str, Secret or None, not int"),
        (lambda: Pool("smtp://ada@relay.example", token=3), "token must be str, Secret or an async function, not int"),
        (lambda: Pool("smtp://relay.example", signer="s1"), "signer must be Signer or None, not str"),
        (lambda: Session("smtp://relay.example", signer="s1"), "signer must be Signer or None, not str"),
        *(
            (partial(Pool("smtp://relay.example").send_all, one), "messages must be an iterable of messages")
            for one in (EmailMessage(), "text", b"text", {"a": 1})
        ),
        (
            lambda: Pool("smtp://relay.example").send_all(message()),
            "messages must be an iterable of messages, not Mess",
        ),
    ],
)
def test_a_wrong_type_is_named_at_the_call(call: Callable[[], Any], named: str) -> None:
    async def on_a_loop() -> None:
        call()

    with pytest.raises(TypeError, match=named):
        asyncio.run(on_a_loop())


@pytest.mark.parametrize("wrong", ["text", None, 42])
async def test_a_message_of_a_wrong_type_is_named(server: ScriptedRelay, wrong: Any) -> None:
    with pytest.raises(TypeError, match="message must be a Message or an EmailMessage"):
        await send(wrong, relay=relay_of(server))
    async with Session(relay_of(server)) as session, Pool(relay_of(server)) as pool:
        for sender in (session, pool):
            with pytest.raises(TypeError, match="message must be a Message or an EmailMessage"):
                await sender.send(wrong)


async def test_a_wrong_argument_of_send_is_named(server: ScriptedRelay) -> None:
    for wrong, named in (
        ({"relay": 42}, "relay must be a Relay or a URL"),
        ({"retry": 3}, "retry must be Retry, not int"),
        ({"signer": "s1"}, "signer must be Signer or None, not str"),
    ):
        with pytest.raises(TypeError, match=named):
            await send(message(), **{"relay": url_of(server), **wrong})
    assert not server.received


@pytest.mark.parametrize("number", [{"sessions": 0}, {"depth": 0}, {"messages": 0}, {"idle": 0}, {"age": -1.0}])
async def test_a_pool_of_nothing_is_an_invalid_argument(number: dict[str, Any]) -> None:
    """Every error but a TypeError is an SMTPError."""
    with pytest.raises(asyncsmtp.InvalidArgument):
        Pool("smtp://relay.example", **number)


# --- the outcome for each recipient ---


async def test_a_delivery_has_the_outcome_of_each_recipient() -> None:
    script: dict[Stage, Rule] = {Stage.RCPT: {2: "550 5.1.1 nobody"}}
    async with ScriptedRelay(script) as server:
        delivery = await send(message(to=("ann@example.net", "bad@example.net")), relay=url_of(server))
        everyone = await send(message(), relay=url_of(server))
    assert [(r.address, r.outcome, r.reply.code) for r in delivery] == [
        ("ann@example.net", Outcome.ACCEPTED, 250),
        ("bad@example.net", Outcome.REJECTED, 550),
    ]
    assert list(map(str, delivery.refused)) == ["bad@example.net"]
    assert not delivery
    assert everyone


# --- DKIM ---


def signer_of(seen: list[str]) -> tuple[Signer, dict[str, str]]:
    """Return a signer, which notes its threads, and the record that its signatures are verified with."""
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key = DkimKey.from_pem("example.org", "s1", pem)

    def sign(data: bytes) -> bytes:
        seen.append(threading.current_thread().name)
        return key.sign(data)

    return Signer(replace(key, sign=sign)), {key.name: key.record}


@pytest.mark.parametrize("way", ["send", "send with a retry", "session", "pool"])
async def test_a_signer_signs_what_is_sent(server: ScriptedRelay, way: str) -> None:
    """After the Date and the Message-ID of a draft are added, since it signs them; in UTC and with its time."""
    signer, records = signer_of(seen := [])
    composer = Template("Ada <ada@example.org>", "Hi", text="Hi {{ name }}").compile(["name"])
    heavy = build(from_="ada@example.org", to="cy@example.com", text="Hi\n" * 50_000)
    parsed = EmailMessage()
    parsed["From"], parsed["To"], parsed["Subject"] = "ada@example.org", "bob@example.com", "Hi"
    parsed.set_content("Hi")
    for to_send in (composer.compose("ann@example.com", {"name": "Ann"}), parsed, heavy):
        if way.startswith("send"):
            retry = SOON if "retry" in way else None
            await send(to_send, relay=url_of(server), signer=signer, retry=retry)
        elif way == "session":
            async with Session(url_of(server), signer=signer) as session:
                await session.send(to_send, deadline=5)
        else:
            async with Pool(url_of(server), signer=signer) as pool:
                await pool.send(to_send, deadline=5)
    draft, other, large = (received.content for received in server.received)
    assert b"\r\nDate:" in draft
    assert b"\r\nMessage-ID:" in draft
    assert re.match(rb"DKIM-Signature: (?:[^\r]|\r\n )*\bt=\d{10};", other)
    assert [verdicts(content, records) for content in (draft, other, large)] == [[True]] * 3
    main = threading.main_thread().name
    assert seen[:2] == [main, main]
    assert seen[2] != main, "hashing a large message held up the event loop"
    assert len(seen) == 3


async def test_a_message_that_cannot_be_signed_is_not_sent(server: ScriptedRelay) -> None:
    """Nothing connects for it, and a socket that was given is closed."""
    signer, _ = signer_of([])
    streamed = Message(message().envelope, StreamContent([b"Subject: x\r\n\r\n"]))
    with socket.create_connection((server.host, server.port)) as sock:
        with pytest.raises(MessageError, match="cannot be signed"):
            await send(streamed, relay=url_of(server), sock=sock, signer=signer)
        assert sock.fileno() == -1
    async with Pool(url_of(server), signer=signer) as pool:
        with pytest.raises(MessageError, match="cannot be signed"):
            await pool.send(streamed)
    assert not server.received


async def test_a_retry_signs_once() -> None:
    signer, _ = signer_of(seen := [])
    async with ScriptedRelay({Stage.RCPT: {1: "450 4.2.0 later"}}) as server:
        made = build(from_="ada@example.org", to="bob@example.com", text="Hi")
        assert await send(made, relay=url_of(server), signer=signer, retry=SOON)
    assert len(seen) == 1


# --- many messages ---

Failure = TypeVar("Failure", bound=BaseException)


async def collect(deliveries: AsyncIterator[Delivery], kind: type[Failure]) -> tuple[list[Delivery], Failure]:
    """Return the deliveries, and the error of this kind that came behind them."""
    got = []
    try:
        async for delivery in deliveries:
            got.append(delivery)
    except kind as error:
        return got, error
    raise AssertionError(f"no {kind.__name__}")


async def test_each_delivery_knows_its_message_and_comes_when_it_is_complete() -> None:
    """The first is the slowest here, so others come before it."""
    made = [message(n) for n in range(20)]
    slow: dict[Stage, Rule] = {Stage.MAIL: {1: (Wait(0.5), DEFAULT_REPLY)}}
    async with pooling(slow, pool={"sessions": 3, "depth": 1}) as (server, pool):
        got = [delivery async for delivery in pool.send_all(made)]
    assert all(delivery.accepted for delivery in got)
    assert {id(delivery.message) for delivery in got} == set(map(id, made))
    assert got[0].message is not made[0]
    assert len(server.received) == 20
    assert all(delivery.envelope == delivery.message.envelope for delivery in got)  # type: ignore[attr-defined]


async def test_it_takes_async_iterables_and_email_messages() -> None:
    written = EmailMessage()
    written["From"], written["To"] = "from@example.org", "ann@example.net"
    written.set_content("hello")

    async def source() -> AsyncIterator[Any]:
        yield message(1)
        await asyncio.sleep(0.01)
        yield written

    async with pooling() as (_, pool):
        got = [delivery.message async for delivery in pool.send_all(source())]
    assert got[1] is written


async def test_it_takes_no_more_than_the_pool_may_send_and_the_reader_has_room_for() -> None:
    """So an endless source is fine, and a slow reader holds it up."""
    taken = 0

    def endless() -> Iterator[Any]:
        nonlocal taken
        while True:
            taken += 1
            yield message(taken)

    async with pooling(pool={"sessions": 2, "depth": 3}) as (server, pool):
        seen = 0
        async with aclosing(pool.send_all(endless())) as deliveries:
            async for _ in deliveries:
                seen += 1
                assert taken - seen <= 6
                if seen == 10:
                    await asyncio.sleep(0.05)
                    assert taken <= 16
                if seen == 20:
                    break
        assert pool.counts.in_hand == 0
    assert server.connections == 2


async def test_a_slow_source_holds_up_no_outcome() -> None:
    asked = asyncio.Event()

    async def source() -> AsyncIterator[Any]:
        yield message(1)
        await asked.wait()
        yield message(2)

    async with pooling() as (_, pool), asyncio.timeout(5):
        got = []
        async for delivery in pool.send_all(source()):
            got.append(delivery)
            asked.set()
    assert len(got) == 2


async def test_a_refusal_is_a_delivery_and_an_error_loses_no_other_outcome() -> None:
    """One message has no recipient, one is in doubt: each of the others is yielded, and these are at the end."""
    made: list[Any] = [message(n) for n in range(8)]
    made[2] = EmailMessage()
    script: dict[Stage, Rule] = {
        Stage.RCPT: lambda context: "550 5.1.1 nobody" if b"to5@" in context.line else None,
        Stage.END_OF_DATA: {4: Fin()},
    }
    async with pooling(script, pool={"sessions": 1, "depth": 1}) as (_, pool):
        got, caught = await collect(pool.send_all(made), MessagesFailed)
    failures = {id(failed): error for failed, error in caught.failures}
    assert len(got) == 6
    assert {id(delivery.message) for delivery in got} | failures.keys() == set(map(id, made))
    assert isinstance(failures[id(made[2])], MessageError)
    assert [type(error) for key, error in failures.items() if key != id(made[2])] == [DeliveryInDoubt]
    assert "2 messages ended with an error" in str(caught)
    assert caught.in_doubt
    assert not caught.retryable


async def test_when_no_session_can_be_opened_no_further_message_is_taken() -> None:
    taken = 0

    def many() -> Iterator[Any]:
        nonlocal taken
        for taken in range(1, 1000):
            yield message(taken)

    async with ScriptedRelay() as server:
        relay = relay_of(server)
    async with Pool(relay, sessions=2, depth=2) as pool:
        got, caught = await collect(pool.send_all(many()), MessagesFailed)
    assert got == []
    assert all(isinstance(error, ConnectFailed) for _, error in caught.failures)
    assert taken == len(caught.failures) <= 8


async def test_an_error_of_the_source_comes_behind_the_outcomes() -> None:
    def broken() -> Iterator[Any]:
        yield message(1)
        yield message(2)
        raise ZeroDivisionError

    async with pooling() as (_server, pool):
        got, _ = await collect(pool.send_all(broken()), ZeroDivisionError)
    assert len(got) == 2


@pytest.mark.parametrize("turns", [0, 1, 3, 10, 30])
async def test_closing_it_early_leaves_nothing_running(turns: int) -> None:
    """RE-07: wherever it stands; `nothing_leaks` looks for tasks and sockets."""
    closed = False

    async def source() -> AsyncIterator[Any]:
        nonlocal closed
        try:
            for number in range(1000):
                yield message(number)
        finally:
            closed = True

    async with pooling({Stage.END_OF_DATA: (Wait(0.01), DEFAULT_REPLY)}) as (_, pool):
        async with aclosing(pool.send_all(source())) as deliveries:
            await anext(deliveries)
            await rounds(turns)
        assert closed
        assert pool.counts.in_hand == 0

        async def read() -> None:
            async with aclosing(pool.send_all(source())) as again:
                await anext(again)

        reading = asyncio.ensure_future(read())
        await rounds(turns)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


# --- retries ---


async def test_a_4xx_is_sent_again_and_the_last_reply_is_the_result() -> None:
    script: dict[Stage, Rule] = {Stage.RCPT: {1: "450 4.2.0 greylisted", 2: "451 4.3.0 not yet"}}
    async with pooling(script, pool={"retry": SOON}) as (server, pool):
        assert (await pool.send(message())).accepted
    assert server.count_stage(Stage.RCPT) == 3
    assert len(server.received) == 1


async def test_send_takes_a_retry_and_keeps_its_session_open() -> None:
    async with ScriptedRelay({Stage.MAIL: {1: "451 4.3.0 later"}}) as server:
        assert (await send(message(), relay=relay_of(server), retry=SOON)).accepted
        assert server.connections == 1
    async with ScriptedRelay({Stage.GREETING: {1: "421 4.3.2 busy"}}) as server:
        assert (await send(message(), relay=relay_of(server), retry=SOON)).accepted
        assert server.connections == 2


async def test_the_attempts_are_bounded() -> None:
    async with pooling({Stage.RCPT: "450 4.2.0 greylisted"}, pool={"retry": SOON}) as (server, pool):
        delivery = await pool.send(message())
    assert delivery.outcomes == (Outcome.DEFERRED,)
    assert server.count_stage(Stage.RCPT) == 3


async def test_only_who_was_deferred_gets_it_again() -> None:
    """One copy each: the accepted one is in no second envelope, and the rejected one is not asked again."""
    paths = ("a@example.net", "b@example.net", "c@example.net")

    def rcpt(context: StageContext) -> Action | None:
        return {2: "450 4.2.0 later", 3: "550 5.1.1 nobody"}.get(context.occurrence)

    async with pooling({Stage.RCPT: rcpt}, pool={"retry": SOON}) as (server, pool):
        delivery = await pool.send(message(to=paths))
    assert delivery.outcomes == (Outcome.ACCEPTED, Outcome.ACCEPTED, Outcome.REJECTED)
    assert [list(one.forward_paths) for one in server.received] == [["a@example.net"], ["b@example.net"]]
    assert list(map(str, delivery.envelope.forward_paths)) == list(paths)


async def test_all_or_nothing_is_sent_again_as_a_whole_or_not_at_all() -> None:
    made = message(to=("a@example.net", "b@example.net"))
    whole = type(made)(
        Envelope.of("from@example.org", ["a@example.net", "b@example.net"], all_or_nothing=True), made.content
    )
    async with pooling({Stage.RCPT: {2: "450 4.2.0 later"}}, pool={"retry": SOON}) as (server, pool):
        assert (await pool.send(whole)).accepted
        assert [len(one.forward_paths) for one in server.received] == [2]
    async with pooling({Stage.RCPT: {2: "550 5.1.1 nobody"}}, pool={"retry": SOON}) as (server, pool):
        delivery = await pool.send(whole)
        assert delivery.outcomes == (Outcome.DEFERRED, Outcome.REJECTED)
        assert server.count_stage(Stage.MAIL) == 1


async def test_a_safe_error_is_tried_again() -> None:
    """ConnectionLost before the point of no return, on a connection that was opened for this message."""
    async with pooling({Stage.MAIL: {1: Fin()}}, pool={"retry": SOON}) as (server, pool):
        assert (await pool.send(message())).accepted
    assert server.connections == 2
    async with pooling({Stage.MAIL: Fin()}, pool={"retry": SOON}) as (server, pool):
        with pytest.raises(ConnectionLost):
            await pool.send(message())
    assert server.connections == 4  # the first was followed at once by one without groups of commands


async def test_nothing_is_tried_again_past_the_point_of_no_return() -> None:
    async with pooling({Stage.END_OF_DATA: Fin()}, pool={"retry": SOON}) as (server, pool):
        with pytest.raises(DeliveryInDoubt):
            await pool.send(message())
    assert server.count_stage(Stage.END_OF_DATA) == 1


async def test_a_retry_in_doubt_tells_who_had_the_message_before() -> None:
    script: dict[Stage, Rule] = {Stage.RCPT: {2: "450 4.2.0 later"}, Stage.END_OF_DATA: {2: Fin()}}
    async with pooling(script, pool={"retry": SOON}) as (_, pool):
        with pytest.raises(DeliveryInDoubt) as caught:
            await pool.send(message(to=("a@example.net", "b@example.net")))
    assert caught.value.delivery is not None
    assert caught.value.delivery.outcomes[0] is Outcome.ACCEPTED
    assert list(map(str, caught.value.envelope.forward_paths)) == ["b@example.net"]


async def test_an_error_of_a_later_attempt_hides_nobody_who_has_the_message() -> None:
    script: dict[Stage, Rule] = {
        Stage.RCPT: {2: "450 4.2.0 later"},
        Stage.MAIL: lambda c: Fin() if c.occurrence > 1 else None,
    }
    async with pooling(script, pool={"retry": SOON}) as (_, pool):
        delivery = await pool.send(message(to=("a@example.net", "b@example.net")))
    assert delivery.outcomes == (Outcome.ACCEPTED, Outcome.DEFERRED)


async def test_cancelled_between_attempts_it_says_who_has_the_message() -> None:
    retry = Retry(delay=60)
    async with pooling({Stage.RCPT: {2: "450 4.2.0 later"}}, pool={"retry": retry}) as (server, pool):
        sending = asyncio.create_task(pool.send(message(to=("a@example.net", "b@example.net"))))
        await server.wait_for(1)
        await asyncio.sleep(0.02)
        sending.cancel()
        with pytest.raises(DeliveryInDoubt) as caught:
            await sending
    assert caught.value.delivery is not None
    assert caught.value.delivery.outcomes == (Outcome.ACCEPTED, Outcome.DEFERRED)
    async with pooling({Stage.RCPT: "450 4.2.0 later"}, pool={"retry": retry}) as (server, pool):
        sending = asyncio.create_task(pool.send(message()))
        await server.wait_for_stage(Stage.RCPT)
        await asyncio.sleep(0.02)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending


async def test_no_attempt_begins_that_the_deadline_would_end() -> None:
    """The delay is longer than what is left: the outcome is known now, so it is returned now."""
    async with pooling({Stage.RCPT: "450 4.2.0 later"}, pool={"retry": Retry(delay=60)}) as (server, pool):
        async with asyncio.timeout(5):
            delivery = await pool.send(message(), deadline=10.0)
        assert delivery.outcomes == (Outcome.DEFERRED,)
        assert server.count_stage(Stage.MAIL) == 1
    async with pooling({Stage.MAIL: {1: (Wait(5.0), DEFAULT_REPLY)}}, pool={"retry": SOON}) as (server, pool):
        with pytest.raises(DeadlineExceeded) as caught:
            await pool.send(message(), deadline=0.1)
        assert caught.value.seconds == 0.1


async def test_a_permanent_refusal_is_sent_once() -> None:
    async with pooling({Stage.RCPT: "550 5.1.1 nobody"}, pool={"retry": SOON}) as (server, pool):
        assert (await pool.send(message())).outcomes == (Outcome.REJECTED,)
    assert server.count_stage(Stage.RCPT) == 1


async def test_a_stream_that_was_begun_is_not_sent_again() -> None:
    made = message()
    stream = type(made)(made.envelope, asyncsmtp.StreamContent([bytes(made.content)]))  # type: ignore[arg-type]
    async with pooling({Stage.END_OF_DATA: "451 4.3.0 later"}, pool={"retry": SOON}) as (server, pool):
        assert (await pool.send(stream)).outcomes == (Outcome.DEFERRED,)
    assert server.count_stage(Stage.END_OF_DATA) == 1


async def test_each_retry_is_an_event_and_the_message_ends_once() -> None:
    events: list[Event] = []
    script: dict[Stage, Rule] = {Stage.RCPT: {1: "450 4.2.0 greylisted"}, Stage.MAIL: {2: "451 4.3.0 later"}}
    async with pooling(script, pool={"retry": SOON, "on_event": events.append}) as (_, pool):
        assert (await pool.send(message())).accepted
    assert [event.why for event in events if isinstance(event, MessageRetried)] == [
        "450 4.2.0 greylisted",
        "451 4.3.0 later",
    ]
    assert [event.result for event in events if isinstance(event, MessageEnded)] == ["accepted"]


async def test_the_opening_of_streams_is_a_parameter() -> None:
    """A simulation connects to no socket; this one counts, and goes on to the real thing."""
    opened = []

    async def opener(relay: Relay, sock: socket.socket | None) -> Streams:
        opened.append(str(relay))
        return await open_connection(relay, sock)

    async with ScriptedRelay() as server:
        async with Session(relay_of(server), open_connection=opener) as session:
            assert (await session.send(message(1))).accepted
        async with Pool(relay_of(server), open_connection=opener) as pool:
            assert (await pool.send(message(2))).accepted
    assert opened == [f"{server.host}:{server.port}"] * 2


async def test_clock_and_chance_are_parameters() -> None:
    """A simulation drives them: here the time stands still, and no random number is drawn but from this source."""

    class Fixed(Random):
        drawn = 0

        def random(self) -> float:
            self.drawn += 1
            return 0.0

    chance = Fixed()
    events: list[Event] = []
    settings = {"retry": Retry(delay=0.001), "random": chance, "clock": lambda: 1000.0, "on_event": events.append}
    async with pooling({Stage.RCPT: {1: "450 4.2.0 later"}}, pool=settings) as (_, pool):
        assert (await pool.send(message())).accepted
    assert chance.drawn == 1
    assert [event.seconds for event in events if isinstance(event, SessionOpened | MessageEnded)] == [0.0, 0.0]
