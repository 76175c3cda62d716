"""Content in chunks (RFC 3030): asked for by an accepted recipient, or streamed with its envelope."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from asyncsmtp.client.config.relay import Dialogue
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import ConnectionLost, DeliveryInDoubt, UnexpectedReply
from asyncsmtp.protocol.delivery import Outcome
from asyncsmtp.testing import NO_REPLY, Action, Fin, Rst, ScriptedRelay, Stage, StageContext, Wait
from asyncsmtp.testing.server_profiles import GO_SMTP
from tests.client.support import Trail, big, message, playing, relay_of, token, told

STREAMED = {"dialogue": Dialogue.STREAMED, "window": 4}


async def test_each_streamed_message_arrives_once_with_its_own_reply() -> None:
    """BL-06, BL-07: the replies are counted, four messages ahead of them."""
    async with playing(relay=STREAMED, on_accept=token) as (server, session):
        deliveries = await asyncio.gather(*(session.send(message(n)) for n in range(200)))
        assert [told(delivery) for delivery in deliveries] == [f"2.0.0 taken for to{n}@example.net" for n in range(200)]
    assert sorted(received.forward_paths[0] for received in server.received) == sorted(
        f"to{n}@example.net" for n in range(200)
    )
    assert server.pipelining_violations == []


async def test_behind_an_unanswered_chunk_comes_rset() -> None:
    """Column c of `wire.md`: Dovecot's submission server crashes without it; the first message goes alone (FT-20)."""
    trail = Trail()
    async with ScriptedRelay() as server, Session(relay_of(server, **STREAMED), trace=trail) as session:
        await asyncio.gather(*(session.send(message(n)) for n in range(5)))
    behind = [later for earlier, later in pairwise(trail.lines) if earlier.startswith("C: BDAT")]
    assert behind[1:4] == ["C: RSET"] * 3


async def test_no_more_contents_are_unanswered_than_the_window_allows() -> None:
    """`delivery.md` §2: as many may be in doubt on a connection."""
    begun = 0

    async def mark() -> None:
        nonlocal begun
        begun += 1

    script = {Stage.BDAT: {2: (Wait(0.1), NO_REPLY, Fin())}}
    async with playing(script, relay=STREAMED) as (_, session):
        assert (await session.send(message(100))).accepted
        sending = [session.send(message(n), before_end=mark) for n in range(20)]
        results = await asyncio.gather(*sending, return_exceptions=True)
    assert begun <= 5  # four unanswered, and the mark of the one that waits for the window
    assert sum(isinstance(result, DeliveryInDoubt) for result in results) == 4
    assert sum(isinstance(result, ConnectionLost) for result in results) == 16


async def test_dots_and_line_ends_travel_as_they_are() -> None:
    """WO-11: counted on the octets that are written; no transparency in chunks."""
    sent = [message(1, body="..\r\n.\r\n.a\r\n"), big(300_000, 2)]
    async with playing(relay=STREAMED) as (server, session):
        for one in sent:
            assert (await session.send(one)).accepted
    assert [received.content for received in server.received] == [bytes(one.content) for one in sent]


async def test_a_large_content_waits_for_a_recipient_and_its_last_chunk_for_the_mark() -> None:
    """R-03: Rule 3 of `wire.md`: no chunk before a recipient is accepted."""
    seen: list[int] = []
    async with playing(relay=STREAMED) as (server, session):

        async def mark() -> None:
            await server.wait_for_stage(Stage.BDAT)
            seen.append(len(server.received))

        assert (await session.send(big(300_000), before_end=mark)).accepted
        lines = [line for line in server.dialogue if line.startswith(("C: RCPT", "C: BDAT", "S: 250 2.1.5"))]
    assert seen == [0]
    assert lines[0].startswith("C: RCPT")
    assert not lines[1].startswith("C: BDAT")
    assert lines[-1].endswith(" LAST")


@pytest.mark.parametrize("last", [1, 2, 3])
async def test_after_a_refused_chunk_no_more_of_them_but_rset(last: int) -> None:
    """R-04, WI-20: the session stays in step, and the next message is taken."""
    async with playing({Stage.BDAT: {last: "452 4.3.1 full"}}, relay=STREAMED) as (server, session):
        delivery = await session.send(big(300_000))
        assert delivery.outcomes == (Outcome.DEFERRED,)
        assert (await session.send(message(2))).accepted
        assert server.connections == 1
    assert len(server.received) == 1


async def test_a_chunk_refused_with_others_unanswered_ends_the_message_and_the_next_go_on() -> None:
    """RFC 3030 §2: its own RSET is still said, also where its mark was never made (once it waited for ever)."""
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    script = {
        Stage.BDAT: lambda context: (
            "452 4.3.1 full" if b"LAST" not in context.line and context.occurrence == 1 else None
        )
    }
    async with playing(script, relay=STREAMED, on_accept=token) as (_, session), asyncio.timeout(10):  # type: ignore[arg-type]
        large = session.send(big(200_000, 1), before_end=lambda: never)
        first, second = await asyncio.gather(large, session.send(message(2)))
    assert first.outcomes == (Outcome.DEFERRED,)
    assert told(second) == "2.0.0 taken for to2@example.net"


async def test_a_refused_recipient_among_streamed_messages_harms_no_other() -> None:
    """Column cr of the servers: every third transaction's only recipient is refused; after one, we ask again."""

    def refuse(context: StageContext) -> Action | None:
        return "550 5.1.1 nobody here" if b"to7@" in context.line or b"to13@" in context.line else None

    async with playing({Stage.RCPT: refuse}, relay=STREAMED, on_accept=token) as (server, session):
        deliveries = await asyncio.gather(*(session.send(message(n)) for n in range(20)))
        outcomes = [delivery.outcomes[0] for delivery in deliveries]
        assert [n for n, outcome in enumerate(outcomes) if outcome is not Outcome.ACCEPTED] == [7, 13]
        assert deliveries[7].replies[0].code == 550
        assert server.connections == 1
    assert len(server.received) == 18


async def test_a_relay_that_runs_a_refused_chunk_as_commands_is_left_and_nothing_is_completed_wrongly() -> None:
    """go-smtp 0.21: the content is executed; every message is accepted, refused, safe to retry, or in doubt."""
    script = {Stage.RCPT: {3: "550 5.1.1 nobody here"}}
    async with GO_SMTP.relay(script) as server, Session(relay_of(server, **STREAMED)) as session:
        results = await asyncio.gather(*(session.send(message(n)) for n in range(10)), return_exceptions=True)
    taken = {received.forward_paths[0] for received in server.received}
    for n, result in enumerate(results):
        if isinstance(result, BaseException):
            assert isinstance(result, DeliveryInDoubt | ConnectionLost | UnexpectedReply)
            assert f"to{n}@example.net" not in taken or isinstance(result, DeliveryInDoubt)
        else:
            assert result.accepted == (f"to{n}@example.net" in taken)


@pytest.mark.parametrize("end", [Fin(), Rst()], ids=lambda end: type(end).__name__)
@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.BDAT])
async def test_a_broken_stream_leaves_what_was_sent_in_doubt_and_the_rest_safe(stage: Stage, end: Action) -> None:
    """WI-12: the third transaction breaks; nothing that the relay took is called safe to retry."""
    async with playing({stage: {3: end}}, relay=STREAMED, on_accept=token) as (server, session):
        results = await asyncio.gather(*(session.send(message(n)) for n in range(12)), return_exceptions=True)
        await server.wait_until_idle()
    taken = {received.forward_paths[0] for received in server.received}
    for n, result in enumerate(results):
        if isinstance(result, ConnectionLost):
            assert f"to{n}@example.net" not in taken
        elif not isinstance(result, BaseException):
            assert result.accepted
            assert f"to{n}@example.net" in taken
    assert sum(isinstance(result, DeliveryInDoubt) for result in results) <= 4
    assert sum(isinstance(result, ConnectionLost) for result in results) >= 6


async def test_without_chunking_a_streamed_dialogue_is_a_pipelined_one() -> None:
    """What is not offered is not used."""
    async with playing(relay=STREAMED, hides=["CHUNKING"]) as (server, session):
        assert all([(await session.send(message(n))).accepted for n in range(3)])
    assert "C: DATA" in server.dialogue


async def test_a_mark_that_fails_breaks_off_before_anything_is_said() -> None:
    """The ledger is lost: the message is not."""

    async def mark() -> None:
        raise RuntimeError("the ledger is full")

    async with playing(relay=STREAMED) as (server, session):
        with pytest.raises(RuntimeError, match="full"):
            await session.send(message(1), before_end=mark)
        assert (await session.send(message(2))).accepted
    assert [received.forward_paths for received in server.received] == [("to2@example.net",)]


async def test_lmtp_answers_once_for_each_recipient_it_accepted() -> None:
    """RFC 2033 §4.2; LHLO, and no HELO to fall back to."""
    to = ("a@example.net", "b@example.net", "c@example.net")
    script = {Stage.RCPT: {2: "550 5.1.1 nobody here"}}
    async with playing(script, relay={"lmtp": True}, lmtp=True) as (server, session):
        deliveries = await asyncio.gather(session.send(message(1, to=to)), session.send(message(2)))
        first = deliveries[0]
        assert first.outcomes == (Outcome.ACCEPTED, Outcome.REJECTED, Outcome.ACCEPTED)
        assert len(first.content_replies) == 2
        assert deliveries[1].accepted
    assert any(line.startswith("C: LHLO") for line in server.dialogue)
    assert not any(line.startswith(("C: EHLO", "C: HELO")) for line in server.dialogue)


async def test_lmtp_lost_between_two_replies_leaves_the_message_in_doubt() -> None:
    """The first recipient has a reply, the second none."""
    script = {Stage.END_OF_DATA: ("250 2.0.0 kept for the first", Fin())}
    async with playing(script, relay={"lmtp": True}, lmtp=True) as (_, session):
        with pytest.raises(DeliveryInDoubt):
            await session.send(message(1, to=("a@example.net", "b@example.net")))
