"""A session: opened, used by one task or by many, ended."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from asyncsmtp.client.config.relay import Dialogue, Login
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import (
    ConnectFailed,
    ConnectionLost,
    ExtensionNotSupported,
    LocalProtocolError,
    Refused,
    RemoteProtocolError,
    SMTPError,
)
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.auth.auth import Secret
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.delivery import Outcome
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
    Stage,
    StageContext,
    Wait,
)
from tests.client.support import (
    QUICK,
    QUICK_OPENING,
    big,
    commands,
    message,
    playing,
    relay_of,
    rounds,
    serving,
    token,
    told,
    until,
)

pytestmark = pytest.mark.usefixtures("nothing_leaks")

WITHOUT_PIPELINING = ("8BITMIME", "SMTPUTF8")


async def test_from_the_greeting_to_quit_every_line_is_said_and_answered(server: ScriptedRelay) -> None:
    """W-01: 220, EHLO, one transaction, QUIT, 221."""
    async with Session(relay_of(server, name="client.example")) as session:
        delivery = await session.send(message())
    assert delivery.accepted
    assert server.dialogue == [
        "S: 220 relay.example ESMTP ready",
        "C: EHLO client.example",
        "S: 250-relay.example",
        "S: 250-PIPELINING",
        "S: 250-CHUNKING",
        "S: 250-8BITMIME",
        "S: 250-SMTPUTF8",
        "S: 250-ENHANCEDSTATUSCODES",
        "S: 250 SIZE 52428800",
        "C: MAIL FROM:<from@example.org> SIZE=42",
        "C: RCPT TO:<to1@example.net>",
        "C: DATA",
        "S: 250 2.1.0 ok",
        "S: 250 2.1.5 ok",
        "S: 354 go ahead",
        "C: .",
        "S: 250 2.0.0 ok: queued as 1",
        "C: QUIT",
        "S: 221 2.0.0 relay.example closes",
    ]


async def test_without_pipelining_each_command_waits_for_its_reply() -> None:
    async with ScriptedRelay(offers=WITHOUT_PIPELINING) as server, Session(relay_of(server)) as session:
        deliveries = await asyncio.gather(*(session.send(message(n)) for n in range(5)))
    assert all(delivery.accepted for delivery in deliveries)
    assert server.pipelining_violations == []


async def test_lockstep_can_be_asked_for_where_pipelining_is_offered(server: ScriptedRelay) -> None:
    async with Session(relay_of(server, dialogue=Dialogue.LOCKSTEP)) as session:
        assert all(d.accepted for d in await asyncio.gather(*(session.send(message(n)) for n in range(4))))
    lines = [line for line in server.dialogue if line[:6] not in ("S: 250", "S: 220")]
    assert lines.index("S: 354 go ahead") == lines.index("C: DATA") + 1
    transactions = server.dialogue[server.dialogue.index("S: 250 SIZE 52428800") + 1 :]
    assert [line[0] for line in transactions] == ["C", "S"] * (len(transactions) // 2)


async def test_one_group_is_one_write_inside_a_transaction(server: ScriptedRelay) -> None:
    """R-01: RFC 2920 §3.1: MAIL, RCPT and DATA leave together, and nothing that must wait leaves with them."""
    async with Session(relay_of(server)) as session:
        await session.send(message(to=("a@example.net", "b@example.net")))
    lines = [line.split(" ")[0] + " " + line.split(" ")[1].split(":")[0] for line in server.dialogue]
    assert "C: MAIL C: RCPT C: RCPT C: DATA" in " ".join(lines)
    assert server.pipelining_violations == []


@pytest.mark.parametrize("offers", [WITHOUT_PIPELINING, ("PIPELINING",)], ids=["lockstep", "pipelined"])
async def test_tasks_that_send_at_once_each_get_their_own_reply(offers: tuple[str, ...]) -> None:
    """BL-06, BL-07, W-34: the relay's reply names the recipient it took the message for."""
    async with ScriptedRelay(offers=offers, on_accept=token) as server, Session(relay_of(server)) as session:
        deliveries = await asyncio.gather(*(session.send(message(n)) for n in range(60)))
    assert [told(d) for d in deliveries] == [f"2.0.0 taken for to{n}@example.net" for n in range(60)]
    assert [r.forward_paths[0] for r in server.received] == [f"to{n}@example.net" for n in range(60)]
    assert server.pipelining_violations == []
    assert server.connections == 1


async def test_refusals_among_many_go_to_the_right_senders() -> None:
    """BL-06: each third recipient is refused, each fifth content, and nobody gets another's reply."""

    def rcpt(context: object) -> str | None:
        number = int(context.line.split(b"to")[1].split(b"@")[0])  # type: ignore[attr-defined]
        return f"550 5.1.1 no to{number}" if number % 3 == 0 else None

    def dot(context: object) -> str | None:
        number = int(context.forward_paths[0][2:].split("@")[0])  # type: ignore[attr-defined]
        return f"451 4.3.0 later to{number}" if number % 5 == 0 else None

    async with playing({Stage.RCPT: rcpt, Stage.END_OF_DATA: dot}, on_accept=token) as (_server, session):
        deliveries = await asyncio.gather(*(session.send(message(n)) for n in range(60)))
    for n, delivery in enumerate(deliveries):
        reply, outcome = delivery.replies[0], delivery.outcomes[0]
        assert f"to{n}" in reply.text.removesuffix("@example.net").split()
        assert outcome is (Outcome.REJECTED if n % 3 == 0 else Outcome.DEFERRED if n % 5 == 0 else Outcome.ACCEPTED)


async def test_each_recipient_has_its_own_outcome() -> None:
    """W-58: one of three refused, one deferred; the third gets the mail."""
    script = {Stage.RCPT: {2: "550 5.1.1 unknown", 3: "450 4.2.1 full"}}
    async with ScriptedRelay(script) as server, Session(relay_of(server)) as session:
        delivery = await session.send(message(to=("a@example.net", "b@example.net", "c@example.net")))
        assert delivery.outcomes == (Outcome.ACCEPTED, Outcome.REJECTED, Outcome.DEFERRED)
        assert [r.forward_paths for r in server.received] == [("a@example.net",)]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ({Stage.MAIL: {1: "550 5.7.1 not you"}}, ["MAIL", "RCPT", "DATA", "RSET"]),
        ({Stage.RCPT: {1: "550 5.1.1 unknown"}}, ["MAIL", "RCPT", "DATA", "RSET"]),
        ({Stage.DATA: {1: "451 4.3.0 later"}}, ["MAIL", "RCPT", "DATA", "RSET"]),
        ({Stage.END_OF_DATA: {1: "552 5.3.4 too big"}}, ["MAIL", "RCPT", "DATA", "."]),
    ],
    ids=["mail", "rcpt", "data", "dot"],
)
@pytest.mark.parametrize("offers", [WITHOUT_PIPELINING, ("PIPELINING",)], ids=["lockstep", "pipelined"])
async def test_after_a_refusal_the_session_goes_on(
    script: dict[Stage, object], said: list[str], offers: tuple[str, ...]
) -> None:
    """W-55 and W-57: RSET clears what was refused, and the next message is accepted."""
    async with playing(script, offers=offers) as (server, session):  # type: ignore[arg-type]
        assert not (await session.send(message(1))).accepted
        assert (await session.send(message(2))).accepted
    first = commands(server)[1 : commands(server).index("MAIL", 2)]
    if offers == ("PIPELINING",):
        assert first == said
    else:
        assert first == [verb for verb in said if verb in first]
        assert first[-1] == said[-1]


async def test_a_lone_dot_when_data_is_taken_without_recipients() -> None:
    """RFC 2920 §3.1, WI-19: 354 though every RCPT was refused; nothing is booked on the reply."""
    script = {Stage.RCPT: {1: "550 5.1.1 unknown"}, Stage.DATA: {1: "354 go on"}, Stage.END_OF_DATA: {1: "250 queued"}}
    async with ScriptedRelay(script) as server, Session(relay_of(server)) as session:
        delivery = await session.send(message(1))
        assert delivery.outcomes == (Outcome.REJECTED,)
        assert (await session.send(message(2))).accepted
    assert server.received[0].content == b""
    assert server.received[1].forward_paths == ("to2@example.net",)


async def test_a_big_content_reaches_a_slow_reader_whole() -> None:
    """W-32 and W-64: five megabytes through a small window; every leading dot is doubled and undone."""
    sent = big(5_000_000)
    async with ScriptedRelay(receive_buffer=8192) as server, Session(relay_of(server)) as session:
        assert (await session.send(sent)).accepted
    assert server.received[0].content == bytes(sent.content)


async def test_an_upload_that_is_slow_but_moves_does_not_time_out() -> None:
    """N-06, D-12: Each block has its own time: the whole takes three times the limit of one."""
    sent = big(2_000_000)
    taken = bytearray()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _until_data(reader, writer)
        while not taken.endswith(b"\r\n.\r\n"):
            taken.extend(await reader.read(200_000))
            await asyncio.sleep(QUICK.block / 5)
        writer.write(b"250 ok\r\n")
        await reader.readline()

    async with serving(play) as port:
        relay = relay_of(ScriptedRelay(port=port), timeouts=replace(QUICK, end=10.0))
        async with Session(relay) as session:
            assert (await session.send(sent)).accepted
    assert len(taken) > 2_000_000


async def _until_data(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Greet, and answer everything up to the 354."""
    writer.write(b"220 hi\r\n")
    while (line := await reader.readline()) != b"DATA\r\n":
        assert line
        writer.write(b"250 ok\r\n")
    writer.write(b"354 go\r\n")


@pytest.mark.parametrize(
    "body", ["..\r\n.\r\n.x\r\n", ".\r\n", "", "a\r\n.\r\nMAIL FROM:<>\r\n", "no line end"], ids=range(5)
)
async def test_dots_arrive_as_they_were(server: ScriptedRelay, body: str) -> None:
    """W-64 and W-65: one message, nothing smuggled, whatever the content holds."""
    async with Session(relay_of(server)) as session:
        await session.send(message(body=body))
    assert len(server.received) == 1
    assert server.received[0].content.endswith(body.encode() if body.endswith("\n") or not body else b"no line end\r\n")


async def test_what_the_relay_does_not_offer_is_said_before_the_first_command() -> None:
    """N-03, D-03, W-74: refused locally, zero octets, and the session stays in use."""
    envelope = Envelope.of("from@example.org", "über@example.net")
    async with ScriptedRelay(offers=("PIPELINING",), max_size=100) as server, Session(relay_of(server)) as session:
        with pytest.raises(ExtensionNotSupported, match="SMTPUTF8"):
            await session.send(Message(envelope, Content.of("a: b\r\n\r\n")))
        with pytest.raises(ExtensionNotSupported, match="101 bytes"):
            await session.send(Message(message().envelope, Content.of(b"x" * 99 + b"\r\n")))
        assert commands(server) == ["EHLO"]
        assert (await session.send(Message(message().envelope, Content.of("a: b\r\n\r\n")))).accepted


# --- opening ---


async def test_a_session_is_for_one_connection(server: ScriptedRelay) -> None:
    """W-06: a second connect() is an error, and the first connection is untouched by it."""
    async with Session(relay_of(server)) as session:
        with pytest.raises(LocalProtocolError, match="make another"):
            await session.connect()
        assert (await session.send(message())).accepted
    assert server.connections == 1


async def test_before_connect_nothing_can_be_sent(server: ScriptedRelay) -> None:
    session = Session(relay_of(server))
    with pytest.raises(LocalProtocolError, match="not connected"):
        await session.send(message())
    assert session.greeting is None
    assert not session.usable
    await session.aclose()


@pytest.mark.parametrize("move", [Fin(), Rst()], ids=["fin", "rst"])
async def test_a_connection_that_ends_before_the_greeting_is_a_failed_connect(move: object) -> None:
    """W-03: the second attempt fails the same way, and nothing hangs."""
    async with ScriptedRelay({Stage.CONNECT: move}) as server:  # type: ignore[dict-item]
        for _ in range(2):
            with pytest.raises(ConnectFailed, match="no greeting"):
                await Session(relay_of(server)).connect()


@pytest.mark.parametrize("greeting", ["421 4.3.2 come back later", "554 5.7.1 go away"])
async def test_a_refusing_greeting_keeps_its_code_and_text(greeting: str) -> None:
    """W-04, WI-15."""
    async with ScriptedRelay({Stage.GREETING: greeting}) as server:
        with pytest.raises((Refused, ConnectFailed), match=greeting) as caught:
            await Session(relay_of(server)).connect()
    assert isinstance(caught.value, Refused)
    assert caught.value.reply.code == int(greeting[:3])


async def test_a_greeting_of_a_class_that_is_none_is_refused() -> None:
    """W-04: 199."""
    async with ScriptedRelay({Stage.GREETING: b"199 hm\r\n"}) as server:
        with pytest.raises(ConnectFailed, match="199 hm"):
            await Session(relay_of(server)).connect()


async def test_a_greeting_that_never_ends_times_out() -> None:
    """W-05."""
    async with ScriptedRelay({Stage.GREETING: (b"220-hi\r\n", Hang())}) as server:
        with pytest.raises(ConnectFailed, match="greeting"):
            await Session(relay_of(server, timeouts=QUICK_OPENING)).connect()


async def test_helo_where_ehlo_is_not_known() -> None:
    """D-17, W-18, WI-17: no extension is used then, not even one that the message could do with."""
    async with ScriptedRelay({Stage.EHLO: "502 5.5.1 what"}) as server, Session(relay_of(server)) as session:
        assert (await session.send(message())).accepted
        assert dict(session.extensions) == {}
    assert commands(server)[:2] == ["EHLO", "HELO"]
    assert "C: MAIL FROM:<from@example.org>" in server.dialogue


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ({Stage.EHLO: "502 5.5.1 what", Stage.HELO: "550 5.7.1 no"}, ["EHLO", "HELO", "QUIT"]),
        ({Stage.EHLO: "421 4.3.2 shutting down"}, ["EHLO"]),
    ],
    ids=["both refused", "421"],
)
async def test_a_refused_introduction_ends_the_session(script: dict[Stage, str], said: list[str]) -> None:
    """W-19 and W-20: no HELO behind a 421."""
    async with ScriptedRelay(script) as server:  # type: ignore[arg-type]
        session = Session(relay_of(server))
        with pytest.raises((Refused, ConnectionLost)) as caught:
            await session.connect()
        assert "421" in str(caught.value) or "550" in str(caught.value)
        assert not session.usable
        await server.wait_until_idle()
    assert commands(server) == said


@pytest.mark.parametrize(
    "policy", [{"security": Security.STARTTLS}, {"login": Login("ann", Secret("secret"))}], ids=str
)
async def test_helo_is_the_end_where_more_is_needed(policy: dict[str, object]) -> None:
    """WI-17: HELO once, which offers nothing; then neither TLS nor a login is to be had, and no mail is sent."""
    async with ScriptedRelay({Stage.EHLO: "502 5.5.1 what"}) as server:
        session = Session(relay_of(server, cleartext_login=True, **policy))  # type: ignore[arg-type]
        with pytest.raises(ExtensionNotSupported):
            await session.connect()
        await server.wait_until_idle()
    assert commands(server) == ["EHLO", "HELO", "QUIT"]


@pytest.mark.parametrize("dialogue", list(Dialogue))
async def test_all_or_nothing_is_said_in_every_dialogue(dialogue: Dialogue) -> None:
    """One refused: nobody has it, and the next message goes on; all accepted: everybody has it."""
    path = {1: ("a@example.net", "bad@example.net", "b@example.net"), 2: ("a@example.net", "b@example.net")}

    def rcpt(context: StageContext) -> Action | None:
        return "550 5.1.1 no such user" if b"<bad@" in context.line else None

    async with playing({Stage.RCPT: rcpt}, relay={"dialogue": dialogue}) as (server, session):
        made = [message(number, to=path[number]) for number in (1, 2)]
        whole = [Message(replace(one.envelope, all_or_nothing=True), one.content) for one in made]
        refused, taken, after = await asyncio.gather(*map(session.send, [*whole, message(3)]))
        assert [outcome.value for outcome in refused.outcomes] == ["deferred", "rejected", "deferred"]
        assert taken.accepted
        assert after.accepted
    assert [received.forward_paths for received in server.received] == [path[2], ("to3@example.net",)]
    assert server.pipelining_violations == []


async def test_a_relay_that_knows_neither_hello_is_asked_once_each() -> None:
    """WI-17: no loop of HELOs."""
    async with ScriptedRelay({Stage.EHLO: "500 5.5.1 what", Stage.HELO: "500 5.5.1 what"}) as server:
        with pytest.raises(Refused):
            await Session(relay_of(server)).connect()
        await server.wait_until_idle()
    assert commands(server) == ["EHLO", "HELO", "QUIT"]


async def test_what_the_relay_says_of_users_and_lists_is_reported_line_by_line() -> None:
    """W-82: code and lines; a refusal is a reply like another."""
    lists = b"250-Ann <ann@example.org>\r\n250 Bob <bob@example.org>\r\n"
    refusal = "553-user ambiguous\r\n553-ann@a.example\r\n553 ann@b.example"

    def other(context: StageContext) -> Action | None:
        return {b"EXPN staff": lists, b"VRFY ann": refusal.encode() + b"\r\n"}.get(context.line)

    async with playing({Stage.OTHER: other}) as (server, session):
        reply = await session.expn("staff")
        assert (reply.code, reply.text) == (250, "Ann <ann@example.org>\nBob <bob@example.org>")
        assert (await session.vrfy("ann")).text == "user ambiguous\nann@a.example\nann@b.example"
        assert (await session.vrfy("bob")).code == 252
        with pytest.raises(ValueError, match="ASCII"):
            await session.vrfy("ännchen")
        assert (await session.send(message())).accepted
    assert commands(server)[1:4] == ["EXPN", "VRFY", "VRFY"]


async def test_another_session_knows_nothing_of_the_one_before() -> None:
    """W-08, W-09: what was offered is asked for anew; and an end that comes late is the old connection's own."""
    async with ScriptedRelay({Stage.QUIT: Hang()}) as server:
        relay = relay_of(server)
        first, second = Session(relay), Session(relay)
        with pytest.raises(LocalProtocolError):
            _ = second.extensions
        await first.connect()
        closing = asyncio.create_task(first.aclose())
        await server.wait_for_stage(Stage.QUIT)
        await second.connect()
        await closing
        assert (await second.send(message())).accepted
        second.abort()


# --- being idle, and ending ---


@pytest.mark.parametrize("move", [Fin(), Rst(), HalfClose()], ids=["fin", "rst", "half-close"])
async def test_a_hang_up_while_idle_is_noticed_without_asking(move: object) -> None:
    """W-24 and W-25: the session says so before anybody sends."""
    async with playing({Stage.EHLO: (DEFAULT_REPLY, Wait(0.02), move)}) as (server, session):  # type: ignore[dict-item]
        assert session.usable
        await until(lambda: not session.usable)
        with pytest.raises(ConnectionLost):
            await session.send(message())
        async with Session(relay_of(server)):
            pass


async def test_a_421_while_idle_is_reported_to_the_next_sender() -> None:
    """N-04, D-06, WI-11: its text is in the next error."""
    async with playing({Stage.EHLO: (DEFAULT_REPLY, Wait(0.02), b"421 4.3.2 maintenance\r\n", Fin())}) as (
        _server,
        session,
    ):
        await until(lambda: not session.usable)
        with pytest.raises(ConnectionLost, match="maintenance"):
            await session.send(message())


async def test_a_reply_to_nothing_is_never_paired_with_a_later_command() -> None:
    """W-30, WI-06."""
    async with playing({Stage.EHLO: (DEFAULT_REPLY, Wait(0.02), b"250 stray\r\n")}) as (server, session):
        await until(lambda: not session.usable)
        with pytest.raises(RemoteProtocolError, match="stray"):
            await session.send(message())
    assert commands(server) == ["EHLO"]


async def test_noop_asks_for_a_sign_of_life(server: ScriptedRelay) -> None:
    async with Session(relay_of(server)) as session:
        assert (await session.noop()).code == 250


async def test_noops_at_once_each_get_their_own_reply() -> None:
    """W-33: seven commands by gather on one session."""
    async with (
        playing({Stage.NOOP: lambda context: f"250 noop {context.occurrence}"}) as (_server, session),
        asyncio.timeout(5),
    ):
        replies = await asyncio.gather(*(session.noop() for _ in range(7)))
        assert [reply.text for reply in replies] == [f"noop {n}" for n in range(1, 8)]
        assert (await session.send(message())).accepted


async def test_a_message_waits_for_a_noop_that_is_under_way() -> None:
    """NOOP must be the last command of a group (RFC 2920 §3.1)."""
    async with playing({Stage.NOOP: (Wait(0.05), DEFAULT_REPLY)}) as (server, session), asyncio.timeout(5):
        noop = asyncio.create_task(session.noop())
        await server.wait_for_stage(Stage.NOOP)
        assert (await session.send(message())).accepted
        assert (await noop).code == 250
    assert server.pipelining_violations == []


async def test_noop_is_refused_while_messages_are_under_way_and_harms_none() -> None:
    async with playing({Stage.END_OF_DATA: (Wait(0.05), DEFAULT_REPLY)}) as (server, session), asyncio.timeout(5):
        sending = asyncio.create_task(session.send(message()))
        await server.wait_for_stage(Stage.END_OF_DATA)
        with pytest.raises(LocalProtocolError, match="under way"):
            await session.noop()
        assert (await sending).accepted
        assert (await session.noop()).positive


async def test_421_to_noop_closes_the_session() -> None:
    """W-23."""
    async with playing({Stage.NOOP: "421 4.4.2 idle too long"}) as (_server, session):
        with pytest.raises(ConnectionLost, match="idle too long"):
            await session.noop()
        assert not session.usable


@pytest.mark.parametrize(
    "move",
    ["502 5.5.1 never", NO_REPLY, Fin(), Rst(), Hang(), (DEFAULT_REPLY, Wait(0.01), b"x", Hang()), "250 fine"],
    ids=["502", "silence", "fin", "rst", "hang", "octets behind the 221", "250"],
)
async def test_however_the_relay_takes_quit_the_session_ends_at_once(move: object) -> None:
    """D-20, W-10 and W-11: the context exits, the connection is closed."""
    async with ScriptedRelay({Stage.QUIT: move}) as server:  # type: ignore[dict-item]
        began = asyncio.get_running_loop().time()
        async with Session(relay_of(server)) as session:
            await session.send(message())
        assert asyncio.get_running_loop().time() - began < 1.0
        assert not session.usable
        with pytest.raises(SMTPError):
            await session.send(message())


async def test_an_error_of_the_caller_passes_through_and_quit_is_said(server: ScriptedRelay) -> None:
    """W-12."""
    with pytest.raises(KeyError):
        async with Session(relay_of(server)):
            raise KeyError
    assert commands(server)[-1] == "QUIT"


async def test_after_a_broken_connection_no_quit_is_said() -> None:
    """W-13."""
    async with ScriptedRelay({Stage.MAIL: Fin()}) as server:
        with pytest.raises(ConnectionLost):
            async with Session(relay_of(server)) as session:
                await session.send(message())
    assert "QUIT" not in commands(server)


async def test_closing_twice_and_at_once_is_harmless() -> None:
    """The second close waits for the same end; neither hangs."""
    async with ScriptedRelay({Stage.QUIT: (Wait(0.05), DEFAULT_REPLY)}) as server, asyncio.timeout(3):
        session = Session(relay_of(server))
        await session.connect()
        await asyncio.gather(session.aclose(), session.aclose())
        await session.aclose()


async def test_closing_while_connecting_ends_the_connect() -> None:
    """Nobody is left waiting for a greeting on a connection that was closed."""
    async with ScriptedRelay({Stage.GREETING: Hang()}) as server, asyncio.timeout(3):
        session = Session(relay_of(server))
        connecting = asyncio.create_task(session.connect())
        await server.wait_for_stage(Stage.GREETING)
        await rounds()
        await session.aclose()
        with pytest.raises(ConnectFailed):
            await connecting


async def test_closing_that_is_cancelled_passes_the_cancellation_on() -> None:
    """A timeout around aclose() must fire, and the connection is gone nevertheless."""
    async with ScriptedRelay({Stage.QUIT: Hang()}) as server:
        session = Session(relay_of(server))
        await session.connect()
        closing = asyncio.create_task(session.aclose())
        await server.wait_for_stage(Stage.QUIT)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await server.wait_until_idle()
