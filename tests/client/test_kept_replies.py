"""What a relay said before a session broke, and bytes that it sends at the wrong time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from asyncsmtp.client.config.relay import Dialogue
from asyncsmtp.client.events.types import Event, MessageEnded
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import ConnectFailed, ConnectionLost, DeliveryInDoubt, ReplyTimeout, SMTPError, UnexpectedReply
from asyncsmtp.protocol.commands import NOOP
from asyncsmtp.protocol.delivery import Delivery, Outcome
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import DEFAULT_REPLY, NO_REPLY, Action, Fin, Hang, Rst, Rule, ScriptedRelay, Stage, StageContext
from tests.client.support import QUICK, Play, message, playing, pooling, relay_of, serving, until

pytestmark = pytest.mark.usefixtures("nothing_leaks")

BOTH = pytest.mark.parametrize("dialogue", [Dialogue.LOCKSTEP, Dialogue.PIPELINED])
GONE = "550 5.1.1 no such user"

# --- FT-12: before a refused RSET ---

RSETS: dict[str, Action] = {
    "503": "503 5.5.1 bad sequence of commands",
    "554 and hang-up": ("554 5.5.0 too many nonmail commands", Fin()),
    "451": "451 4.3.0 later",
    "421": "421 4.3.2 bye",
    "421 without line end": (b"421 4.3.2 bye", Fin()),
    "hang-up": Fin(),
    "reset": Rst(),
    "garbage": b"what?\r\n",
    "silence": Hang(),
    "half a line": (b"250 o", Fin()),
}


@BOTH
@pytest.mark.parametrize("rset", RSETS)
async def test_what_was_answered_before_rset_failed_is_kept(rset: str, dialogue: Dialogue) -> None:
    """FT-12: a 550 to RCPT is the outcome, however the session ends; nothing more is sent on it."""
    script = {Stage.RCPT: GONE, Stage.RSET: RSETS[rset]}
    async with playing(script, relay={"dialogue": dialogue, "timeouts": QUICK}) as (server, session):
        delivery = await session.send(message())
        assert delivery.outcomes == (Outcome.REJECTED,)
        assert str(delivery.replies[0]) == GONE
        await session.wait_closed()
        assert not session.usable
        with pytest.raises(SMTPError):
            await session.send(message(2))
        await server.wait_until_idle()
    assert server.count_stage(Stage.MAIL) == 1


@BOTH
@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA])
async def test_each_refusal_before_a_refused_rset_is_kept(stage: Stage, dialogue: Dialogue) -> None:
    """FT-12: of MAIL, of some recipients, of DATA with recipients that were accepted."""
    to = ("a@example.net", "b@example.net")
    script = {stage: {1: "554 5.7.1 no", 2: "451 4.3.0 later"}, Stage.RSET: "503 5.5.1 bad sequence of commands"}
    async with playing(script, relay={"dialogue": dialogue, "timeouts": QUICK}) as (_, session):
        delivery = await session.send(message(to=to))
    rejected, deferred = Outcome.REJECTED, Outcome.DEFERRED
    assert delivery.outcomes == ((rejected, deferred) if stage is Stage.RCPT else (rejected, rejected))


async def test_a_pool_goes_on_with_another_session_after_a_refused_rset() -> None:
    """FT-12: the row that was refused is refused, the others are sent."""
    script: dict[Stage, Action | Callable[[StageContext], Action | None]] = {
        Stage.RCPT: lambda context: GONE if b"<to3@" in context.line else None,
        Stage.RSET: lambda context: "503 5.5.1 no" if not context.content and context.connection == 1 else None,
    }
    async with pooling(script, pool={"sessions": 1}) as (server, pool):  # type: ignore[arg-type]
        deliveries = [await pool.send(message(n)) for n in range(1, 6)]
    assert [delivery.outcomes[0] for delivery in deliveries] == [
        Outcome.ACCEPTED if n != 3 else Outcome.REJECTED for n in range(1, 6)
    ]
    assert sorted(each.forward_paths[0] for each in server.received) == [f"to{n}@example.net" for n in (1, 2, 4, 5)]


@pytest.mark.parametrize("mail", [None, "503 5.5.1 RSET first"], ids=["goes on", "stays out of step"])
@pytest.mark.parametrize("at", [2, 3, 4])
async def test_a_refused_rset_between_pipelined_messages_loses_nothing(at: int, mail: str | None) -> None:
    """FT-12: the content before it is accepted; the envelope behind it was not begun, and goes another way."""
    script: dict[Stage, object] = {Stage.RSET: {at: "503 5.5.1 not now"}}
    refused = False

    def after(context: StageContext) -> Action | None:
        nonlocal refused
        if mail is not None and not refused and server.count_stage(Stage.RSET) == at and context.connection == 1:
            refused = True
            return mail
        return None

    script[Stage.MAIL] = after
    async with pooling(script, pool={"sessions": 1}) as (server, pool):  # type: ignore[arg-type]
        deliveries = await asyncio.gather(*(pool.send(message(n)) for n in range(12)))
        assert all(delivery.accepted for delivery in deliveries)
    assert sorted(each.forward_paths[0] for each in server.received) == sorted(f"to{n}@example.net" for n in range(12))


TO = ("a@example.net", "b@example.net", "c@example.net")
ENDS: dict[str, Action] = {
    "hang-up": Fin(),
    "garbage": b"what?\r\n",
    "silence": Hang(),
    "of the wrong class": "354 more",
}


@BOTH
@pytest.mark.parametrize("end", ENDS)
async def test_a_recipient_that_was_refused_is_not_in_doubt(end: str, dialogue: Dialogue) -> None:
    """FT-12: the content is in doubt for those that it was sent to; the 550 of another one stands."""
    script: dict[Stage, Rule] = {Stage.RCPT: {2: GONE}, Stage.END_OF_DATA: ENDS[end]}
    seen: list[Event] = []
    async with ScriptedRelay(script) as server:
        session = Session(relay_of(server, dialogue=dialogue, timeouts=QUICK), on_event=seen.append)
        await session.connect()
        with pytest.raises(DeliveryInDoubt) as caught:
            await session.send(message(to=TO))
        await session.aclose()
    doubt = caught.value
    assert [path.address for path in doubt.envelope.forward_paths] == ["a@example.net", "c@example.net"]
    assert doubt.delivery is not None
    assert doubt.delivery.outcomes == (Outcome.DEFERRED, Outcome.REJECTED, Outcome.DEFERRED)
    assert str(doubt.delivery.reply("b@example.net")) == GONE
    [ended] = [event for event in seen if isinstance(event, MessageEnded)]
    assert ended.outcomes == (Outcome.IN_DOUBT, Outcome.REJECTED, Outcome.IN_DOUBT)


async def test_a_recipient_that_an_lmtp_server_answered_is_not_in_doubt() -> None:
    """FT-12: it answers the content once for each; two of three replies came."""
    end = (b"250 2.0.0 a has it\r\n552 5.2.2 b is full\r\n", Fin())
    async with playing({Stage.END_OF_DATA: end}, relay={"lmtp": True, "timeouts": QUICK}, lmtp=True) as (_, session):
        with pytest.raises(DeliveryInDoubt) as caught:
            await session.send(message(to=TO))
    doubt = caught.value
    assert [path.address for path in doubt.envelope.forward_paths] == ["c@example.net"]
    assert doubt.delivery is not None
    assert doubt.delivery.outcomes == (Outcome.ACCEPTED, Outcome.REJECTED, Outcome.DEFERRED)


@BOTH
@pytest.mark.parametrize("way", ["cancelled", "twice", "hard deadline", "a failing scope"])
async def test_a_recipient_that_was_refused_is_not_in_doubt_after_giving_up(way: str, dialogue: Dialogue) -> None:
    """FT-12: whoever is not waited for any more has what RCPT was answered with, however the wait ended."""
    script: dict[Stage, Rule] = {Stage.RCPT: {2: GONE}, Stage.END_OF_DATA: Hang()}
    async with playing(script, relay={"dialogue": dialogue}) as (server, session):
        limit = {"deadline": 0.3, "hard": True} if way == "hard deadline" else {}
        sending = asyncio.create_task(session.send(message(to=TO), **limit))  # type: ignore[arg-type]
        await server.wait_for_stage(Stage.END_OF_DATA)
        await asyncio.sleep(0.05)
        if way == "a failing scope":
            with pytest.raises(ExceptionGroup) as group:
                await _fail_around(sending)
            assert group.group_contains(DeliveryInDoubt)
        elif way != "hard deadline":
            for _ in range(2 if way == "twice" else 1):
                sending.cancel()
                await asyncio.sleep(0)
        with pytest.raises(DeliveryInDoubt) as caught:
            await sending
        session.abort()
    doubt = caught.value
    assert [path.address for path in doubt.envelope.forward_paths] == ["a@example.net", "c@example.net"]
    assert doubt.delivery is not None
    assert doubt.delivery.outcomes == (Outcome.DEFERRED, Outcome.REJECTED, Outcome.DEFERRED)
    assert str(doubt.delivery.reply("b@example.net")) == GONE


async def _fail_around(sending: asyncio.Task[Delivery]) -> None:
    async def wait() -> Delivery:
        return await sending

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(wait())
        await asyncio.sleep(0)
        raise ValueError


async def test_giving_up_keeps_what_an_lmtp_server_answered() -> None:
    """FT-12: one reply for each; the recipient that was accepted, and the one that was refused, are not in doubt."""
    end = (b"250 2.0.0 a has it\r\n552 5.2.2 b is full\r\n", Hang())
    async with playing({Stage.END_OF_DATA: end}, relay={"lmtp": True}, lmtp=True) as (server, session):
        sending = asyncio.create_task(session.send(message(to=TO)))
        await server.wait_for_stage(Stage.END_OF_DATA)
        await asyncio.sleep(0.05)
        sending.cancel()
        with pytest.raises(DeliveryInDoubt) as caught:
            await sending
        session.abort()
    doubt = caught.value
    assert [path.address for path in doubt.envelope.forward_paths] == ["c@example.net"]
    assert doubt.delivery is not None
    assert doubt.delivery.outcomes == (Outcome.ACCEPTED, Outcome.REJECTED, Outcome.DEFERRED)


async def test_a_reply_that_is_not_believed_yet_leaves_those_in_doubt_that_were_accepted() -> None:
    """FT-12: the content's 250 came, and the reply to the RSET behind it did not; it may be one off."""
    script: dict[Stage, Rule] = {Stage.RCPT: {2: GONE}, Stage.RSET: Hang()}
    async with playing(script) as (server, session):
        sending = [asyncio.create_task(session.send(message(to=TO))), asyncio.create_task(session.send(message(2)))]
        await server.wait_for_stage(Stage.RSET)
        await asyncio.sleep(0.05)
        assert not sending[0].done()
        sending[0].cancel()
        with pytest.raises(DeliveryInDoubt) as caught:
            await sending[0]
        session.abort()
        with pytest.raises(SMTPError):
            await sending[1]
    doubt = caught.value
    assert [path.address for path in doubt.envelope.forward_paths] == ["a@example.net", "c@example.net"]
    assert doubt.delivery is not None
    assert doubt.delivery.outcomes == (Outcome.DEFERRED, Outcome.REJECTED, Outcome.DEFERRED)


async def test_giving_up_in_the_first_of_several_parts_keeps_all_that_is_known() -> None:
    """FT-12: the relay takes two recipients at once; the delivery has every recipient of the message."""
    script: dict[Stage, Rule] = {Stage.RCPT: {2: GONE}, Stage.END_OF_DATA: Hang()}
    async with playing(script, offers=("PIPELINING", "LIMITS RCPTMAX=2")) as (server, session):
        sending = asyncio.create_task(session.send(message(to=TO)))
        await server.wait_for_stage(Stage.END_OF_DATA)
        await asyncio.sleep(0.05)
        sending.cancel()
        with pytest.raises(DeliveryInDoubt) as caught:
            await sending
        session.abort()
    doubt = caught.value
    assert [path.address for path in doubt.envelope.forward_paths] == ["a@example.net"]
    assert doubt.delivery is not None
    assert doubt.delivery.outcomes == (Outcome.DEFERRED, Outcome.REJECTED, Outcome.DEFERRED)


async def test_replies_that_are_one_off_are_not_kept() -> None:
    """FT-12, WI-06: a surplus 250 shifts them by one, so RSET gets the 554 to DATA, and QUIT the 250 to RSET."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers = {
            b"EHLO": b"250-relay\r\n250 PIPELINING\r\n",
            b"DATA": b"250 ok\r\n250 surplus\r\n550 5.1.1 gone\r\n",
            b"RSET": b"554 no valid recipients\r\n",
            b"QUIT": b"250 reset\r\n",
        }
        writer.write(b"220 relay\r\n")
        while line := await reader.readline():
            writer.write(answers.get(line[:4], b""))

    async with serving(play) as port:
        session = Session(relay_of(ScriptedRelay(port=port), timeouts=QUICK))
        await session.connect()
        with pytest.raises(UnexpectedReply, match="the relay answered QUIT with “250 reset”"):
            await session.send(message())
        await session.aclose()


# --- FT-15: bytes while no command is pending ---

HALVES = [b"250 ", b"2", b"250-", b"550 5.1.1 n", b"4", b"421", b"421 4.3", b"421-a\r\n42", b"x", b"\r"]


def idling(half: bytes, stage: str) -> Play:
    """A relay that sends half a line behind one of its replies, and the rest of the line with its next reply."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 relay\r\n")
        while line := (await reader.readline()).decode():
            verb = line.split()[0].upper() if line.strip() else ""
            reply = {"DATA": b"354 go\r\n", "MAIL": b"550 5.7.1 you are blocked\r\n"}.get(verb, b"250 ok\r\n")
            writer.write(reply)
            if verb == stage:
                await writer.drain()
                await asyncio.sleep(0.02)
                writer.write(half)

    return play


@pytest.mark.parametrize("half", HALVES)
async def test_half_a_line_while_idle_closes_the_session(half: bytes) -> None:
    """FT-15: `250 ` and then `550 …` to MAIL was booked as accepted."""
    async with serving(idling(half, "NOOP")) as port, asyncio.timeout(10):
        relay = relay_of(ScriptedRelay(port=port), timeouts=QUICK)
        async with Session(relay) as session:
            await session.ask(NOOP)
            await until(lambda: not session.usable)
            with pytest.raises(SMTPError) as caught:
                await session.send(message())
            assert isinstance(
                caught.value, ConnectionLost if half.startswith(b"4") else UnexpectedReply | ConnectionLost
            )
            await session.wait_closed()  # by itself, also where the rest never comes


@pytest.mark.parametrize("half", HALVES)
async def test_half_a_line_while_opening_ends_the_attempt(half: bytes) -> None:
    """FT-15: before any message, where the login or STARTTLS would be next."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 relay\r\n" + half)
        await reader.read()

    async with serving(play) as port, asyncio.timeout(10):
        relay = relay_of(ScriptedRelay(port=port), timeouts=QUICK, security=Security.STARTTLS)
        with pytest.raises(ConnectFailed):
            await Session(relay).connect()


async def test_a_pool_does_not_use_a_session_with_half_a_line() -> None:
    """FT-15: it opens another one; the message goes once."""
    halved = False

    def rule(context: StageContext) -> Action | None:
        nonlocal halved
        if halved:
            return None
        halved = True
        return (DEFAULT_REPLY, b"250 ")

    async with ScriptedRelay({Stage.RSET: rule, Stage.RCPT: {1: GONE}}) as server:
        async with Pool(relay_of(server, timeouts=QUICK), sessions=1) as pool:
            with pytest.raises(UnexpectedReply):
                await pool.send(message(1))
            assert (await pool.send(message(2))).accepted
        assert server.connections == 2


@pytest.mark.parametrize("dialogue", [Dialogue.LOCKSTEP, Dialogue.PIPELINED])
async def test_half_a_line_before_the_end_of_data_is_no_acceptance(dialogue: Dialogue) -> None:
    """FT-15: its rest would come behind the end of data, with the 550 that is the reply to it."""
    script = {Stage.DATA: (DEFAULT_REPLY, b"250 "), Stage.END_OF_DATA: b"ok\r\n550 5.7.1 no\r\n"}
    async with playing(script, relay={"dialogue": dialogue, "timeouts": QUICK}) as (_, session):
        with pytest.raises(SMTPError):
            await session.send(message())


# --- FT-16: the relay's words ---


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ((b"421 4.3.2 shutting down: come back at 12:00", Fin()), "421 4.3.2 shutting down: come back at 12:00"),
        (b"421 4.3.2 shutting down: come back at 12:00\r\n", "421 4.3.2 shutting down: come back at 12:00"),
        (b"250 2.0.0: taken? no: ok\n", "250 2.0.0: taken? no: ok"),
        (b"999 ok: really\r\n", "“999 ok: really” (a reply code is 200 to 599)"),
        ((b"250 2.0.0 queued as 4711: o", Fin()), "inside the reply “250 2.0.0 queued as 4711: o”"),
        ((b"250-2.0.0 queued: wait", Hang()), "it only began “250-2.0.0 queued: wait”"),
        (Fin(), "hung up"),
    ],
)
async def test_doubt_keeps_the_relays_words(end: Action, words: str) -> None:
    """FT-16: they were cut off at the first colon; "try again" is no advice for a message in doubt."""
    async with playing({Stage.END_OF_DATA: end}, relay={"timeouts": QUICK}) as (_, session):
        [result] = await asyncio.gather(session.send(message()), return_exceptions=True)
    if isinstance(result, DeliveryInDoubt):
        assert words in str(result)
        assert words in result.why
        assert "try again" not in str(result)
    else:
        assert isinstance(result, Delivery)
        assert str(result.replies[0]) == words


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.END_OF_DATA])
@pytest.mark.parametrize("end", [Fin(), Rst()], ids=["FIN", "RST"])
async def test_a_421_whose_line_end_is_missing_is_one(stage: Stage, end: Action) -> None:
    """FT-16: its words are the reason; the relay has nothing, and the message is deferred."""
    script = {stage: (b"421 4.7.0 too many connections: wait", end)}
    async with playing(script, relay={"timeouts": QUICK, "dialogue": Dialogue.LOCKSTEP}) as (_, session):
        [result] = await asyncio.gather(session.send(message()), return_exceptions=True)
    if isinstance(result, Delivery):
        assert result.outcomes == (Outcome.DEFERRED,)
        assert str(result.replies[0]) == "421 4.7.0 too many connections: wait"
    else:
        assert isinstance(end, Rst)  # which may overtake the bytes before it
        assert isinstance(result, ConnectionLost | DeliveryInDoubt)


async def test_an_idle_session_keeps_the_words_of_a_421_without_line_end() -> None:
    """FT-16: the next message names them."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 relay\r\n")
        await reader.readline()
        writer.write(b"250 relay\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b"421 4.4.2 idle: bye")

    async with serving(play) as port:
        session = Session(relay_of(ScriptedRelay(port=port), timeouts=QUICK))
        await session.connect()
        await session.wait_closed()
        with pytest.raises(ConnectionLost, match="421 4.4.2 idle: bye"):  # noqa: RUF043
            await session.send(message())
        await session.aclose()


async def test_a_reply_that_is_not_complete_in_time_is_quoted() -> None:
    """FT-16: a relay that answers in many lines, slowly, is not a silent one."""
    script = {Stage.MAIL: (b"250-checking: DNS\r\n250-checking: list", Hang())}
    async with playing(script, relay={"timeouts": QUICK}) as (_, session):
        with pytest.raises(ReplyTimeout, match="it only began “250-checking: DNS / 250-checking: list”"):
            await session.send(message())


# --- FT-20: one reply too few in a stream ---

STREAMED = {"dialogue": Dialogue.STREAMED, "window": 4, "timeouts": QUICK}


def without(stage: Stage, number: int) -> dict[Stage, Action]:
    """A relay that leaves out one reply, and does nothing in its place."""
    return {stage: {number: b""}}  # type: ignore[dict-item]


def claimed(results: list[object]) -> set[str]:
    """The recipients whose message is said to be accepted."""
    return {
        result.envelope.forward_paths[0].address
        for result in results
        if isinstance(result, Delivery) and result.accepted
    }


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.BDAT, Stage.RSET])
async def test_a_relay_that_leaves_out_a_reply_is_not_believed(stage: Stage, number: int) -> None:
    """FT-20: RSET's 250 was taken for the acceptance of a message that the relay does not have."""
    async with playing(without(stage, number), relay=STREAMED) as (server, session):
        sending = [session.send(message(n)) for n in range(12)]
        results: list[object] = list(await asyncio.gather(*sending, return_exceptions=True))
    stored = {received.forward_paths[0] for received in server.received}
    assert claimed(results) <= stored
    for n, result in enumerate(results):  # and nothing that it has is called safe to send again
        if isinstance(result, BaseException) and not isinstance(result, DeliveryInDoubt):
            assert f"to{n}@example.net" not in stored


@pytest.mark.parametrize("number", [2, 5])
async def test_a_relay_that_answers_all_alike_gets_one_streamed_message_at_a_time(number: int) -> None:
    """FT-20: without a witness nothing is behind a content that is unanswered, so no reply can be shifted."""
    alike = {Stage.MAIL: "250 ok", Stage.RCPT: "250 ok", Stage.RSET: "250 ok"}

    def last(context: StageContext) -> Action | None:
        return b"" if context.occurrence == number else None

    async with playing({**alike, Stage.BDAT: last}, relay=STREAMED) as (server, session):  # type: ignore[dict-item]
        sending = [session.send(message(n)) for n in range(8)]
        results: list[object] = list(await asyncio.gather(*sending, return_exceptions=True))
    assert claimed(results) == {received.forward_paths[0] for received in server.received}
    assert len(claimed(results)) == number - 1
    assert sum(isinstance(result, DeliveryInDoubt) for result in results) == 1


async def test_a_relay_whose_rset_is_answered_differently_each_time_is_streamed_to_one_by_one() -> None:
    """FT-20: with a number in it, the words of RSET prove nothing; every message arrives all the same."""
    script = {Stage.RSET: lambda context: f"250 2.0.0 reset {context.occurrence}"}
    async with playing(script, relay=STREAMED) as (server, session):  # type: ignore[arg-type]
        deliveries = await asyncio.gather(*(session.send(message(n)) for n in range(10)))
    assert all(delivery.accepted for delivery in deliveries)
    assert len(server.received) == 10


async def test_a_surplus_reply_in_a_stream_is_noticed_at_the_next_rset() -> None:
    """FT-20: the shift in the other direction."""
    script = {Stage.BDAT: {3: (b"250 2.0.0 surplus\r\n", DEFAULT_REPLY)}, Stage.RCPT: {4: GONE}}
    async with playing(script, relay=STREAMED) as (server, session):
        sending = [session.send(message(n)) for n in range(10)]
        results: list[object] = list(await asyncio.gather(*sending, return_exceptions=True))
    assert claimed(results) <= {received.forward_paths[0] for received in server.received}


async def test_a_reply_left_out_between_pipelined_messages_is_not_replaced_by_another() -> None:
    """FT-20: the same without a stream: the next recipient is refused, so no 354 shows the shift."""
    script = {Stage.END_OF_DATA: {4: NO_REPLY}, Stage.RCPT: {5: GONE}}
    async with playing(script, relay={"timeouts": QUICK}) as (server, session):
        sending = [session.send(message(n)) for n in range(8)]
        results: list[object] = list(await asyncio.gather(*sending, return_exceptions=True))
    fourth = results[3]
    assert isinstance(fourth, DeliveryInDoubt)
    assert claimed(results) <= {received.forward_paths[0] for received in server.received}
