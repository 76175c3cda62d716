"""Every fault a script can ask for, as the client sees it on the wire."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from asyncsmtp.testing import (
    DEFAULT_REPLY,
    NO_REPLY,
    Action,
    CallRule,
    DiscardInput,
    Fin,
    HalfClose,
    Hang,
    RefuseInput,
    Rst,
    ScriptedRelay,
    SendSlowly,
    Stage,
    StageContext,
    StopReading,
    Wait,
)
from tests.testing.peer import Peer, codes

ENVELOPE = ("MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.net>")
pytestmark = pytest.mark.both_loops


async def test_a_reply_replaces_the_default_one_and_takes_effect() -> None:
    """A recipient that the script refused does not count."""
    script = {Stage.RCPT: {2: "550 5.1.1 no such user"}}
    async with ScriptedRelay(script) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        assert codes(await peer.say(*ENVELOPE, "RCPT TO:<two@example.net>", "DATA")) == [250, 250, 550, 354]
        await peer.say("x\r\n.")
        assert relay.received[0].forward_paths == ("bob@example.net",)


async def test_a_rule_may_depend_on_the_command() -> None:
    """A callable gets a context, and None means as usual."""
    contexts: list[StageContext] = []

    def rule(context: StageContext) -> Action | None:
        contexts.append(context)
        return "450 4.2.0 greylisted" if b"two@" in context.line else None

    async with ScriptedRelay({Stage.RCPT: rule}) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        assert codes(await peer.say(*ENVELOPE, "RCPT TO:<two@example.net>")) == [250, 250, 450]
    seen = [(c.occurrence, c.occurrence_on_connection, c.connection) for c in contexts]
    assert seen == [(1, 1, 1), (2, 2, 1)]
    assert contexts[1].reverse_path == "ann@example.org"
    assert contexts[1].forward_paths == ("bob@example.net",)
    assert contexts[0].pipelined_input == b"RCPT TO:<two@example.net>\r\n"


async def test_occurrences_are_counted_over_connections_and_on_each() -> None:
    """“The second connection” is a rule on `number` at connect; “each third” is one on `here`."""
    numbers: list[tuple[int, int]] = []

    def rule(context: StageContext) -> None:
        numbers.append((context.occurrence, context.occurrence_on_connection))

    async with ScriptedRelay({Stage.NOOP: rule}) as relay:
        for _ in range(2):
            async with await Peer.connect(relay) as peer:
                await peer.greet()
                await peer.say("NOOP")
    assert numbers == [(1, 1), (2, 1)]


@pytest.mark.parametrize(
    "octets",
    [
        b"gibberish\r\n",
        b"250 ok\n",
        b"250-a\r\n550 b\r\n",
        b"250 o\0k\r\n",
        b"250 \xff\xff\r\n",
        b"2500 ok\r\n",
        b"\r\n",
    ],
)
async def test_bytes_are_sent_as_they_are_and_change_nothing(octets: bytes) -> None:
    """WI-04, WI-05, WI-08, WI-09, WI-10."""
    async with ScriptedRelay({Stage.MAIL: (octets, DEFAULT_REPLY)}) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write(f"{ENVELOPE[0]}\r\n")
        assert await peer.reader.readexactly(len(octets)) == octets
        assert codes(await peer.reply()) == [250]


async def test_consecutive_steps_are_sent_in_one_segment() -> None:
    """WI-06: an unsolicited reply in the same segment."""
    async with ScriptedRelay({Stage.NOOP: (DEFAULT_REPLY, "250 stray")}) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write("NOOP\r\n")
        assert await peer.reader.read(1000) == b"250 2.0.0 ok\r\n250 stray\r\n"


async def test_a_wait_splits_the_output() -> None:
    """WI-07."""
    async with ScriptedRelay({Stage.NOOP: ("250-a", Wait(0.05), "250 b")}) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write("NOOP\r\n")
        assert await peer.reader.read(1000) == b"250-a\r\n"
        assert await peer.reader.read(1000) == b"250 b\r\n"
        assert codes(await peer.say("RSET")) == [250]


async def test_a_reply_may_be_sent_slowly() -> None:
    """WI-03: a slow loris."""
    script = {Stage.NOOP: SendSlowly(b"250 ok\r\n", 0.005)}
    async with ScriptedRelay(script) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write("NOOP\r\n")
        assert await peer.reader.read(1000) == b"2"
        assert await peer.reader.readline() == b"50 ok\r\n"
        assert codes(await peer.say("RSET")) == [250]


async def test_a_reply_may_be_sent_slowly_without_end() -> None:
    """WI-02, WI-03: `250-x` for ever."""
    script = {Stage.NOOP: SendSlowly(b"250-x\r\n", 0, times=0)}
    async with ScriptedRelay(script) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write("NOOP\r\n")
        assert await peer.reader.readexactly(700) == b"250-x\r\n" * 100


@pytest.mark.parametrize("stage", [Stage.CONNECT, Stage.GREETING])
async def test_it_may_close_before_a_word(stage: Stage) -> None:
    """Row 3 of the wire table."""
    async with ScriptedRelay({stage: Fin()}) as relay, await Peer.connect(relay) as peer:
        assert await peer.reader.read() == b""
        await relay.wait_until_idle()


async def test_it_may_reset_the_connection() -> None:
    """WI-12: RST is not FIN."""
    async with ScriptedRelay({Stage.MAIL: Rst()}) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write(f"{ENVELOPE[0]}\r\n")
        with pytest.raises(ConnectionResetError):
            await peer.reader.read()


async def test_it_may_speak_before_it_closes() -> None:
    """Row 60: 421, then the end."""
    async with ScriptedRelay({Stage.MAIL: "421 4.3.2 going down"}) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write(f"{ENVELOPE[0]}\r\nRSET\r\n")
        assert await peer.reader.read() == b"421 4.3.2 going down\r\n"


async def test_a_421_as_octets_leaves_the_connection_open() -> None:
    """WI-11: with and without FIN."""
    script = {Stage.MAIL: b"421 4.3.2 going down\r\n"}
    async with ScriptedRelay(script) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        assert codes(await peer.say(ENVELOPE[0])) == [421]
        assert codes(await peer.say("RSET")) == [250]


async def test_it_may_end_its_direction_only() -> None:
    """Row 24: half-close. What the client still says is read and thrown away."""
    async with ScriptedRelay({Stage.NOOP: (DEFAULT_REPLY, HalfClose())}) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write("NOOP\r\n")
        assert await peer.reader.read() == b"250 2.0.0 ok\r\n"
        peer.write("RSET\r\n")
        await peer.writer.drain()
        peer.writer.close()
        await relay.wait_until_idle()
        assert relay.count_stage(Stage.RSET) == 0


async def test_it_may_hang() -> None:
    """WI-07, TL-08: silence, and what comes in is not answered."""
    async with ScriptedRelay({Stage.MAIL: Hang()}) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write(f"{ENVELOPE[0]}\r\nRSET\r\n")
        await relay.wait_for_stage(Stage.MAIL)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await peer.reader.read(1)


async def test_it_may_stop_reading() -> None:
    """TL-09, WI-23: the client's writes come to stand."""
    script = {Stage.DATA: (DEFAULT_REPLY, StopReading())}
    async with ScriptedRelay(script, receive_buffer=4096) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        assert codes(await peer.say(*ENVELOPE, "DATA")) == [250, 250, 354]
        peer.write(b"x" * 20_000_000)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await peer.writer.drain()


@pytest.mark.parametrize("end", [Fin(), Rst(), Hang(), "421 4.3.2 later"])
async def test_a_message_may_be_accepted_and_its_reply_lost(end: Fin | Rst | Hang | str) -> None:
    """RFC 1047: what makes a message in doubt."""
    async with ScriptedRelay({Stage.END_OF_DATA: (NO_REPLY, end)}) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        await peer.say(*ENVELOPE, "DATA")
        peer.write("x\r\n.\r\n")
        await relay.wait_for(1)


async def test_a_message_may_be_dropped_with_the_connection() -> None:
    """The client cannot tell this from the one before."""
    async with ScriptedRelay({Stage.END_OF_DATA: Fin()}) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        await peer.say(*ENVELOPE, "DATA")
        peer.write("x\r\n.\r\n")
        assert await peer.reader.read() == b""
        assert relay.received == []


@pytest.mark.parametrize(("early", "kept"), [("250 2.0.0 queued", 1), ("554 5.7.1 spam", 0)])
async def test_the_content_may_be_answered_before_its_end(early: str, kept: int) -> None:
    """WI-14: then the end of data has no reply of its own."""
    async with ScriptedRelay({Stage.BODY: early}) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        await peer.say(*ENVELOPE, "DATA")
        peer.write("x")
        assert await peer.reply() == early
        peer.write("\r\n.\r\nRSET\r\n")
        assert await peer.reply() == "250 2.0.0 ok"
        assert len(relay.received) == kept


async def test_a_421_during_the_content_is_a_refusal_also_after_the_default_reply() -> None:
    """The default is no reply there, so the first reply counts."""
    async with (
        ScriptedRelay({Stage.BODY: (DEFAULT_REPLY, "421 4.3.2 down")}) as relay,
        await Peer.connect(relay) as peer,
    ):
        await peer.greet()
        await peer.say(*ENVELOPE, "DATA")
        peer.write("x\r\n.\r\n")
        assert await peer.reply() == "421 4.3.2 down"
        await relay.wait_until_idle()
        assert relay.received == []


async def test_a_final_reply_may_ride_on_the_354() -> None:
    """WI-14, in one segment."""
    script = {Stage.DATA: (DEFAULT_REPLY, b"250 queued\r\n"), Stage.END_OF_DATA: NO_REPLY}
    async with ScriptedRelay(script) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write("".join(f"{line}\r\n" for line in (*ENVELOPE, "DATA")))
        assert (await peer.reader.read(1000)).endswith(b"354 go ahead\r\n250 queued\r\n")


async def test_data_may_be_answered_with_250() -> None:
    """WI-13, row 61: no content is read then."""
    async with ScriptedRelay({Stage.DATA: "250 accepted"}) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        await peer.say(*ENVELOPE, "DATA")
        assert codes(await peer.say("RSET")) == [250]


async def test_a_greeting_of_554_bars_everything_but_quit() -> None:
    """RFC 5321 §3.1; WI-15."""
    async with ScriptedRelay({Stage.GREETING: "554 5.7.1 go away"}) as relay, await Peer.connect(relay) as peer:
        assert codes(await peer.reply()) == [554]
        assert codes(await peer.say("EHLO c")) == [503]
        assert codes(await peer.say("QUIT")) == [221]


async def test_endless_challenges_are_recorded_as_one_attempt() -> None:
    """AU-06, row 52."""
    script = {Stage.AUTH: "334 ", Stage.RESPONSE: {1: "334 ", 2: "334 ", 3: "235 2.7.0 at last"}}
    async with ScriptedRelay(script, users={"ann": "secret"}) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        assert [codes(await peer.say(line)) for line in ("AUTH PLAIN", "", "", "")] == [[334], [334], [334], [235]]
        [attempt] = relay.auth_attempts
        assert attempt.accepted


async def test_pipelined_input_may_be_discarded_or_refused() -> None:
    """Courier and Haraka do the same."""
    script = {Stage.RSET: (DEFAULT_REPLY, DiscardInput()), Stage.MAIL: (DEFAULT_REPLY, RefuseInput("503 5.5.1 no"))}
    async with ScriptedRelay(script) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write("RSET\r\nNOOP\r\nNOOP\r\n")
        assert codes(await peer.reply()) == [250]
        peer.write("".join(f"{line}\r\n" for line in ENVELOPE))
        assert [codes(await peer.reply()) for _ in range(2)] == [[250], [503]]


async def test_a_rule_may_be_asked_later() -> None:
    """More input has arrived after the command by then."""
    script = {Stage.RSET: (Wait(0.03), CallRule(lambda context: f"250 {len(context.pipelined_input)}"))}
    async with ScriptedRelay(script) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write("RSET\r\n")
        await relay.wait_for_stage(Stage.RSET)
        peer.write("NOOP\r\n")
        assert await peer.reply() == "250 6"


# TLS


@pytest.mark.parametrize("injected", [b"250 injected\r\n", b"2"])
async def test_plaintext_can_follow_the_220_of_starttls(server_tls: ssl.SSLContext, injected: bytes) -> None:
    """TL-01: in the same segment, a line or one octet."""
    relay = ScriptedRelay({Stage.STARTTLS: (DEFAULT_REPLY, injected)}, tls=server_tls)
    async with relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write("STARTTLS\r\n")
        assert await peer.reader.read(1000) == b"220 2.0.0 go ahead\r\n" + injected


async def test_plaintext_comes_into_the_handshake(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """TL-02: 20 ms later; a client's TLS cannot read it."""
    script = {Stage.STARTTLS: (DEFAULT_REPLY, Wait(0.02), b"250 injected\r\n")}
    async with ScriptedRelay(script, tls=server_tls) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        await peer.say("STARTTLS")
        with pytest.raises(ssl.SSLError, match=r"(?i)wrong[ _]version[ _]number|record layer failure"):
            await peer.start_tls(client_tls)


async def test_a_slow_starttls_is_a_starttls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """The client's first octets of TLS come while the relay still waits."""
    relay = ScriptedRelay({Stage.STARTTLS: (DEFAULT_REPLY, Wait(0.03))}, tls=server_tls, round_trip=0.01)
    async with relay, await Peer.connect(relay) as peer:
        await peer.greet()
        await peer.say("STARTTLS")
        await peer.start_tls(client_tls)
        assert codes(await peer.say("EHLO c"))[0] == 250


async def test_a_slow_handshake_is_a_handshake(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """The same with implicit TLS, where the client speaks first."""
    script = {Stage.HANDSHAKE: (Wait(0.03), DEFAULT_REPLY)}
    relay = ScriptedRelay(script, tls=server_tls, implicit_tls=True, round_trip=0.01)
    async with relay, await Peer.connect(relay, client_tls) as peer:
        assert codes(await peer.reply()) == [220]


@pytest.mark.parametrize("end", [Fin(), Rst(), (Wait(0.02), b"this is no TLS at all\r\n")])
async def test_a_handshake_may_fail(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, end: Action) -> None:
    """TL-03, row 39."""
    async with ScriptedRelay({Stage.HANDSHAKE: end}, tls=server_tls) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        assert codes(await peer.say("STARTTLS")) == [220]
        with pytest.raises(OSError):
            await peer.start_tls(client_tls)


async def test_starttls_may_be_stripped_although_it_works(server_tls: ssl.SSLContext) -> None:
    """TL-03: somebody on the line removed the keyword."""
    async with ScriptedRelay(tls=server_tls, hides=["STARTTLS"]) as relay, await Peer.connect(relay) as peer:
        assert "STARTTLS" not in await peer.greet()
        assert codes(await peer.say("STARTTLS")) == [220]


async def test_starttls_may_be_refused(server_tls: ssl.SSLContext) -> None:
    """Row 38: the session goes on in clear."""
    script = {Stage.STARTTLS: "454 4.7.0 not now"}
    async with ScriptedRelay(script, tls=server_tls) as relay, await Peer.connect(relay) as peer:
        assert "STARTTLS" in await peer.greet()
        assert codes(await peer.say("STARTTLS")) == [454]
        assert codes(await peer.say(ENVELOPE[0])) == [250]


async def test_tls_may_end_without_its_close_notify(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """TL-10, row 11."""
    script = {Stage.QUIT: Fin(close_notify=False)}
    relay = ScriptedRelay(script, tls=server_tls, implicit_tls=True)
    async with relay, await Peer.connect(relay, client_tls) as peer:
        await peer.greet()
        peer.write("QUIT\r\n")
        assert await peer.reader.read() == b""


@pytest.mark.parametrize("end", [Rst(), HalfClose()])
async def test_tcp_may_end_below_tls(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, end: Rst | HalfClose
) -> None:
    """WI-12 over TLS."""
    relay = ScriptedRelay({Stage.QUIT: end}, tls=server_tls, implicit_tls=True)
    async with relay, await Peer.connect(relay, client_tls) as peer:
        await peer.greet()
        peer.write("QUIT\r\n")
        try:
            assert await peer.reader.read() == b""
        except ConnectionResetError:
            assert end == Rst()
