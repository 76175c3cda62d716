"""Every fault at every stage: a typed error or a Delivery, in time, and never against what the relay knows."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from asyncsmtp.client.config.relay import Dialogue
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import ConnectFailed, ConnectionLost, DeliveryInDoubt, ReplyTimeout, SMTPError, UnexpectedReply
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.delivery import Delivery, Outcome
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import (
    DEFAULT_REPLY,
    NO_REPLY,
    Action,
    Fin,
    HalfClose,
    Hang,
    Rst,
    ScriptedRelay,
    SendSlowly,
    Stage,
    StopReading,
    Wait,
)
from tests.client.support import (
    BY_DATA,
    GRACE,
    LIMIT,
    PATIENT,
    QUICK,
    QUICK_OPENING,
    big,
    message,
    playing,
    relay_of,
    serving,
    token,
    until,
)

pytestmark = pytest.mark.usefixtures("nothing_leaks")

FAULTS: dict[str, Action] = {
    "fin": Fin(),
    "fin behind the reply": (DEFAULT_REPLY, Fin()),
    "rst": Rst(),
    "taken, then fin": (NO_REPLY, Fin()),
    "taken, then rst": (NO_REPLY, Rst()),
    "half-close": HalfClose(),
    "hang": Hang(),
    "taken, then hang": (NO_REPLY, Hang()),
    "421": "421 4.3.2 shutting down",
    "421 without closing": (b"421 4.3.2 shutting down\r\n", Hang()),
    "421 in front": (b"421 4.3.2 shutting down\r\n", DEFAULT_REPLY),
    "421 behind": (DEFAULT_REPLY, b"421 4.3.2 shutting down\r\n"),
    "4yz": "451 4.3.0 later",
    "5yz": "550 5.7.1 no",
    "5yz, then fin": ("550 5.7.1 no", Fin()),
    "garbage": b"ERROR\r\n",
    "garbage in front": (b"HELLO\r\n", DEFAULT_REPLY),
    "199": b"199 hm\r\n",
    "four digits": b"2500 ok\r\n",
    "codes that differ": b"550-no\r\n250 ok\r\n",
    "bare LF": b"250 ok\n",
    "NUL": b"250 o\0k\r\n",
    "drip": SendSlowly(b"250 slowly\r\n", LIMIT * 0.4),
    "drip of lines": SendSlowly(b"250-x\r\n", LIMIT * 0.1, times=0),
    "half a line, then fin": (b"25", Fin()),
    "a reply too many": (DEFAULT_REPLY, b"250 stray\r\n"),
    "a reply too many, refused": (DEFAULT_REPLY, b"550 stray\r\n"),
    "a reply too many, a moment later": (DEFAULT_REPLY, Wait(0.01), b"250 stray\r\n"),
    "a reply too many, before": (b"250 stray\r\n", DEFAULT_REPLY),
    "354": b"354 go on\r\n",
    "250 and no more": b"250 fine\r\n",
    "endless line": SendSlowly(b"2" * 4096, 0.0),
}


LATE = "took too long"
TRIES = 4


@pytest.mark.parametrize("occurrence", [1, 4])
@pytest.mark.parametrize("dialogue", BY_DATA)
@pytest.mark.parametrize(
    "stage",
    [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.BODY, Stage.END_OF_DATA, Stage.RSET],
    ids=lambda stage: stage.value,
)
async def test_no_fault_makes_us_believe_what_is_not(stage: Stage, dialogue: Dialogue, occurrence: int) -> None:
    """WI-03 to WI-13, W-55 to W-63: six messages through one session, and a fault at one stage of one of them."""
    ordeals = [
        (name, move)
        for name, move in FAULTS.items()
        if not (stage is Stage.END_OF_DATA and name == "250 and no more")  # that is an acceptance
        and not (stage is Stage.END_OF_DATA and name == "421 in front")  # that one refuses, and takes it nevertheless
        and not (stage is Stage.BODY and name in ("421 in front", "421 behind"))  # as does that
    ]
    for _ in range(TRIES):  # who is late on a busy machine has another try; whoever is wrong has none
        found = await asyncio.gather(*(_ordeal(name, stage, move, dialogue, occurrence) for name, move in ordeals))
        complaints = [complaint for some in found for complaint in some]
        if not all(LATE in complaint for complaint in complaints) or not complaints:
            break
    assert complaints == []


async def _ordeal(name: str, stage: Stage, move: Action, dialogue: Dialogue, occurrence: int) -> list[str]:
    """Send six messages at once with one fault on the way; return what is wrong with what we say of them."""
    loop = asyncio.get_running_loop()
    async with ScriptedRelay({stage: {occurrence: move}}, on_accept=token) as server:
        session = Session(relay_of(server, timeouts=QUICK, dialogue=dialogue))
        await session.connect()
        began = loop.time()
        sending = [session.send(message(number)) for number in range(6)]
        results = await asyncio.gather(*sending, return_exceptions=True)
        took = loop.time() - began
        await session.aclose()
        taken = Counter(path for received in server.received for path in received.forward_paths)
    limit = (1.0 if stage is Stage.RSET else LIMIT) + GRACE  # the probe's RSET has a second
    complaints = [] if took < limit else [f"{name}: {LATE}, {took:.2f} s"]
    doubts = 0
    for number, result in enumerate(results):
        complaints += [
            f"{name}, message {number}: {wrong}" for wrong in _wrong(result, taken[f"to{number}@example.net"])
        ]
        doubts += isinstance(result, DeliveryInDoubt)
    if doubts > 1:
        complaints.append(f"{name}: {doubts} in doubt on one session")
    return complaints


def _wrong(result: object, taken: int) -> list[str]:
    """What is wrong with a result, given how often the relay took the message."""
    wrong = ["taken twice"] if taken > 1 else []
    if isinstance(result, Delivery):
        if result.accepted and not taken:
            wrong.append(f"called accepted, was not: {result.replies}")
        if not result.accepted and taken:
            wrong.append(f"called refused, was accepted: {result.replies}")
    elif not isinstance(result, SMTPError):
        wrong.append(f"{type(result).__name__} is no error of ours: {result}")
    elif taken and not result.in_doubt:
        wrong.append(f"was accepted, and {type(result).__name__} says it is safe to try again: {result}")
    return wrong


@pytest.mark.parametrize("stage", [Stage.CONNECT, Stage.GREETING, Stage.EHLO], ids=lambda stage: stage.value)
async def test_a_fault_before_the_session_is_open_is_a_typed_error_in_time(stage: Stage) -> None:
    """WI-12, WI-15, W-03 to W-05."""

    async def attempt(move: Action) -> None:
        async with ScriptedRelay({stage: move}) as server:
            session, began = Session(relay_of(server, timeouts=QUICK_OPENING)), asyncio.get_running_loop().time()
            with contextlib.suppress(SMTPError):  # anything else fails the test
                await session.connect()
            assert asyncio.get_running_loop().time() - began < LIMIT + GRACE
            await session.aclose()

    await asyncio.gather(*map(attempt, FAULTS.values()))


# --- what exactly is said ---


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA])
@pytest.mark.parametrize("move", [Fin(), Rst(), HalfClose()], ids=["fin", "rst", "half-close"])
async def test_a_connection_lost_before_the_dot_is_safe_to_try_again(stage: Stage, move: Action) -> None:
    """WI-12: P."""
    async with playing({stage: move}) as (_, session):
        with pytest.raises(ConnectionLost) as caught:
            await session.send(message())
        assert not caught.value.in_doubt


@pytest.mark.parametrize("move", [Fin(), Rst(), HalfClose(), (b"25", Fin())], ids=["fin", "rst", "half", "part"])
@pytest.mark.parametrize("taken", [True, False])
async def test_a_connection_lost_after_the_end_of_data_is_in_doubt(move: Action, taken: bool) -> None:
    """WI-12: I, whether the relay took the message or not; we cannot know."""
    steps = (*((NO_REPLY,) if taken else ()), *(move if isinstance(move, Sequence) else (move,)))
    async with playing({Stage.END_OF_DATA: steps}) as (server, session):
        with pytest.raises(DeliveryInDoubt, match="may have it") as caught:
            await session.send(message())
        assert caught.value.envelope == message().envelope
        assert isinstance(caught.value.__cause__, SMTPError)
        assert len(server.received) == taken


async def test_no_reply_to_the_dot_is_in_doubt_after_its_own_limit() -> None:
    async with playing({Stage.END_OF_DATA: Hang()}, relay={"timeouts": QUICK}) as (_, session):
        with pytest.raises(DeliveryInDoubt, match=r"0\.25 s") as caught:
            await session.send(message())
        assert isinstance(caught.value.__cause__, ReplyTimeout)


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA], ids=["mail", "rcpt", "data"])
async def test_no_reply_before_the_dot_is_safe_and_names_the_command(stage: Stage) -> None:
    """D-30, W-32: the next message fails cleanly too."""
    async with playing({stage: Hang()}, relay={"timeouts": QUICK}) as (_, session):
        with pytest.raises(ReplyTimeout) as caught:
            await session.send(message())
        assert caught.value.command is not None
        assert caught.value.command.verb.lower() == stage.value
        assert caught.value.seconds == LIMIT
        assert isinstance(caught.value, TimeoutError)
        with pytest.raises(SMTPError):
            await session.send(message())


@pytest.mark.parametrize("octets", [b"250 slowly\r\n", b"250-x\r\n"], ids=["octets", "lines"])
async def test_a_drip_does_not_stretch_the_limit(octets: bytes) -> None:
    """WI-03: the limit is on the whole reply."""
    drip = SendSlowly(octets, LIMIT * (0.3 if octets.startswith(b"250 ") else 0.01), times=0)
    async with playing({Stage.MAIL: drip}, relay={"timeouts": QUICK}) as (_, session):
        began = asyncio.get_running_loop().time()
        with pytest.raises(ReplyTimeout):
            await session.send(message())
        assert asyncio.get_running_loop().time() - began < LIMIT + GRACE


async def test_each_command_has_the_whole_of_its_own_limit() -> None:
    """RFC 5321 §4.5.3.2: replies that each come late, but in time, are no timeout, together longer than the limit."""
    limit = 1.0  # of which a busy machine may take some
    late = (Wait(limit * 0.3), DEFAULT_REPLY)
    script = {Stage.MAIL: late, Stage.RCPT: late, Stage.DATA: late, Stage.END_OF_DATA: late}
    timeouts = replace(QUICK, mail=limit, rcpt=limit, data=limit, end=limit)
    async with playing(script, relay={"timeouts": timeouts}) as (_, session):
        assert (await session.send(message())).accepted


@pytest.mark.parametrize(
    ("stage", "final"),
    [(Stage.MAIL, False), (Stage.RCPT, False), (Stage.DATA, True), (Stage.END_OF_DATA, True)],
    ids=["mail", "rcpt", "data", "dot"],
)
@pytest.mark.parametrize("dialogue", BY_DATA)
async def test_421_is_the_answer_to_the_message_it_came_to(stage: Stage, final: bool, dialogue: Dialogue) -> None:
    """N-05, D-05, WI-11, W-59 and W-60: a definite 4yz with its text; the session is over, and no RSET is said."""
    async with playing({stage: "421 4.3.2 shutting down"}, relay={"dialogue": dialogue}) as (server, session):
        delivery = await session.send(message())
        assert delivery.outcomes == (Outcome.DEFERRED,)
        assert delivery.replies[0].code == 421
        assert (delivery.content_reply is not None) is final
        assert not session.usable
        with pytest.raises(ConnectionLost, match="shutting down"):
            await session.send(message())
    assert "C: RSET" not in server.dialogue


async def test_behind_a_421_nothing_counts() -> None:
    """In one segment with positive replies to all that was said: the session is over nevertheless."""
    replies = b"421 4.3.2 bye\r\n250 ok\r\n354 go on\r\n"
    async with playing({Stage.MAIL: (replies, Hang())}) as (server, session):
        delivery = await session.send(message())
        assert delivery.outcomes == (Outcome.DEFERRED,)
        assert delivery.replies[0].code == 421
        assert not session.usable
        await server.wait_until_idle()
        assert server.count_stage(Stage.BODY) == 0


async def test_421_to_the_second_of_three_recipients_names_it() -> None:
    """D-04, W-59: what was answered keeps its answer; nobody is accepted, since no content was taken."""
    async with playing({Stage.RCPT: {2: "421 4.3.2 bye"}}) as (server, session):
        delivery = await session.send(message(to=("a@example.net", "b@example.net", "c@example.net")))
        assert {reply.code for reply in delivery.replies} == {421}
    assert server.received == []


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.DATA])
async def test_a_refusal_outlives_the_connection_that_brought_it(stage: Stage) -> None:
    """W-56 and W-63: the refusal is reported, not the hang-up behind it."""
    async with playing({stage: ("550 5.7.1 not today", Fin())}) as (_, session):
        delivery = await session.send(message())
        assert delivery.outcomes == (Outcome.REJECTED,)
        assert delivery.replies[0].text == "5.7.1 not today"


@pytest.mark.parametrize(
    ("stage", "reply"),
    [
        (Stage.MAIL, b"354 go\r\n"),
        (Stage.RCPT, b"354 go\r\n"),
        (Stage.DATA, b"250 fine\r\n"),
        (Stage.DATA, b"334 \r\n"),
    ],
    ids=["354 to MAIL", "354 to RCPT", "250 to DATA", "334 to DATA"],
)
async def test_a_reply_of_the_wrong_class_ends_the_session_before_any_content(stage: Stage, reply: bytes) -> None:
    """WI-13, W-61: content is said after 354 only."""
    async with playing({stage: (reply, Hang())}) as (server, session):
        with pytest.raises(UnexpectedReply):
            await session.send(message())
        await server.wait_until_idle()
        assert server.count_stage(Stage.BODY) == 0


async def test_354_to_the_dot_is_in_doubt() -> None:
    """WI-13."""
    async with playing({Stage.END_OF_DATA: (b"354 more\r\n", Hang())}) as (_, session):
        with pytest.raises(DeliveryInDoubt):
            await session.send(message())


@pytest.mark.parametrize("size", ["small", "big"])
async def test_an_acceptance_before_the_end_of_the_content_is_in_doubt(size: str) -> None:
    """WI-14: never accepted, and never safe to try again: the relay says it has something."""
    async with playing({Stage.DATA: (DEFAULT_REPLY, b"250 2.0.0 queued\r\n", Hang())}) as (server, session):
        with pytest.raises(DeliveryInDoubt):
            await session.send(message() if size == "small" else big(3_000_000))
        await server.wait_until_idle()
        assert server.count_stage(Stage.END_OF_DATA) == 0


async def test_an_acceptance_while_the_content_is_written_is_in_doubt() -> None:
    """WI-14, in the middle of a body that the relay no longer reads."""
    script = {Stage.BODY: (b"250 2.0.0 queued\r\n", StopReading())}
    async with playing(script, relay={"timeouts": PATIENT}, receive_buffer=8192) as (_, session):
        with pytest.raises(DeliveryInDoubt):
            await session.send(big(20_000_000))


async def test_an_acceptance_while_the_mark_is_made_is_in_doubt() -> None:
    marking = asyncio.get_running_loop().create_future()
    async with playing({Stage.DATA: (DEFAULT_REPLY, Wait(0.02), b"250 2.0.0 queued\r\n", Hang())}) as (_, session):
        with pytest.raises(DeliveryInDoubt):
            await session.send(message(), before_end=lambda: marking)


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (b"552 5.3.4 too big\r\n", Outcome.REJECTED),
        (b"452 4.3.1 disk full\r\n", Outcome.DEFERRED),
        (b"421 4.3.2 bye\r\n", Outcome.DEFERRED),
    ],
    ids=["552", "452", "421"],
)
@pytest.mark.parametrize("when", ["with the 354", "in the middle", "before the mark"])
async def test_a_refusal_before_the_end_of_the_content_is_a_refusal(reply: bytes, outcome: Outcome, when: str) -> None:
    """WI-14: the content stops, the connection is dropped, and the relay's word is booked."""
    marking = asyncio.get_running_loop().create_future()
    script: dict[Stage, Action] = {
        "with the 354": {Stage.DATA: (DEFAULT_REPLY, reply, Hang())},
        "in the middle": {Stage.BODY: (reply, StopReading())},
        "before the mark": {Stage.DATA: (DEFAULT_REPLY, Wait(0.02), reply, Hang())},
    }[when]  # type: ignore[assignment]
    async with playing(script, receive_buffer=8192) as (server, session):
        made = big(20_000_000) if when == "in the middle" else message()
        delivery = await session.send(made, before_end=(lambda: marking) if when == "before the mark" else None)
        assert delivery.outcomes == (outcome,)
        assert delivery.replies[0].code == int(reply[:3])
        assert not session.usable
        assert server.received == []


async def test_a_relay_that_stops_reading_is_a_timeout_of_one_block() -> None:
    """RE-01: no progress within the limit; never the final dot."""
    async with playing({Stage.BODY: StopReading()}, relay={"timeouts": QUICK}, receive_buffer=8192) as (
        server,
        session,
    ):
        began = asyncio.get_running_loop().time()
        with pytest.raises(ReplyTimeout, match="content") as caught:
            await session.send(big(20_000_000))
        assert asyncio.get_running_loop().time() - began < LIMIT + GRACE
        assert not caught.value.in_doubt
        assert server.received == []


@pytest.mark.parametrize("behind", [200_000, 1_000_000, 3_000_000])
async def test_a_reset_in_the_middle_of_a_body_is_safe(behind: int) -> None:
    """WO-15, W-62: the end of the content was not written."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        while await reader.readline() != b"DATA\r\n":
            writer.write(b"250 ok\r\n")
        writer.write(b"354 go\r\n")
        await reader.readexactly(behind)

    async with serving(play) as port, asyncio.timeout(5), Session(relay_of(ScriptedRelay(port=port))) as session:
        with pytest.raises(ConnectionLost) as caught:
            await session.send(big(20_000_000))
    assert not caught.value.in_doubt


async def test_a_flood_of_replies_while_we_write_does_not_jam_both_sides() -> None:
    """WI-23: the relay does not read on before we have read its megabyte; we read while we write."""
    flood = b"".join(b"250-" + b"x" * 200 + b"\r\n" for _ in range(200)) + b"250 ok\r\n"
    many = Message(Envelope.of("from@example.org", [f"a{n}@example.net" for n in range(150)]), message().content)
    async with playing({Stage.RCPT: flood}, receive_buffer=2048) as (_, session), asyncio.timeout(10):
        delivery = await session.send(many)
        assert len(delivery.recipients) == 150


async def test_a_hang_up_without_close_notify_is_a_hang_up(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """TL-10, WI-12 under TLS."""
    for stage, error in ((Stage.MAIL, ConnectionLost), (Stage.END_OF_DATA, DeliveryInDoubt)):
        for move in (Fin(close_notify=False), Fin(), Rst(), HalfClose()):
            settings = {"security": Security.IMPLICIT_TLS, "context": client_tls}
            async with playing({stage: move}, relay=settings, tls=server_tls, implicit_tls=True) as (_, session):
                with pytest.raises(error):
                    await session.send(message())


async def test_nothing_listens() -> None:
    """W-02: an error of ours that is a built-in one as well."""
    async with ScriptedRelay() as server:
        relay = relay_of(server)
    with pytest.raises(ConnectFailed, match="nothing answers there") as caught:
        await Session(relay).connect()
    assert isinstance(caught.value, OSError)


async def test_a_thousand_failed_connects_leave_nothing() -> None:
    """RE-07; the fixture counts tasks and sockets."""
    async with ScriptedRelay(
        {Stage.GREETING: lambda context: (Fin(), Rst(), "554 no")[context.occurrence % 3]}
    ) as server:
        for _ in range(60):
            await asyncio.gather(*(Session(relay_of(server)).connect() for _ in range(5)), return_exceptions=True)
        await until(lambda: not server.open_connections)
