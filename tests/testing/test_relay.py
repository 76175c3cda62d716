"""The scripted relay as nothing but a correct server: what RFC 5321, 2920, 3030, 3207 and 4954 ask of it."""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from pathlib import Path

import aiosmtplib
import pytest

from asyncsmtp.testing import DEFAULT_REPLY, OFFERS, MessageNotAccepted, Received, ScriptedRelay, Stage, Wait
from tests.testing.peer import Peer, codes

ENVELOPE = ("MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.net>")


async def send(peer: Peer, content: str) -> str:
    """One transaction with this content, the end of data included; the last reply."""
    await peer.say(*ENVELOPE, "DATA")
    peer.write(content)
    return await peer.reply()


async def test_a_message_is_kept_with_its_envelope() -> None:
    """Tests of mail code make assertions on it."""
    async with ScriptedRelay() as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        await send(peer, "Subject: News\r\n\r\nHello\r\n.\r\n")
        assert relay.received == [
            Received("ann@example.org", ("bob@example.net",), b"Subject: News\r\n\r\nHello\r\n", rcpt_parameters=({},))
        ]
        assert relay.received[0].email["Subject"] == "News"


async def test_the_dialogue_is_written_down_line_by_line() -> None:
    """From 220 to 221, content as `C: .`."""
    async with ScriptedRelay(offers=()) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        for line in (*ENVELOPE, "DATA"):
            await peer.say(line)
        await peer.say("Hello\r\n.")
        await peer.say("QUIT")
    assert relay.dialogue == [
        "S: 220 relay.example ESMTP ready",
        "C: EHLO client.example",
        "S: 250-relay.example",
        "S: 250 SIZE 52428800",
        "C: MAIL FROM:<ann@example.org>",
        "S: 250 2.1.0 ok",
        "C: RCPT TO:<bob@example.net>",
        "S: 250 2.1.5 ok",
        "C: DATA",
        "S: 354 go ahead",
        "C: .",
        "S: 250 2.0.0 ok: queued as 1",
        "C: QUIT",
        "S: 221 2.0.0 relay.example closes",
    ]
    assert relay.get_dialogue(1) == relay.dialogue


async def test_another_client_is_served(client_tls: ssl.SSLContext, server_tls: ssl.SSLContext) -> None:
    """Both sides of our tests are ours; this one is not."""
    async with ScriptedRelay(tls=server_tls, users={"ann": "secret"}) as relay:
        client = aiosmtplib.SMTP(
            hostname=relay.host, port=relay.port, tls_context=client_tls, username="ann", password="secret"
        )
        async with client:
            await client.sendmail("ann@example.org", ["bob@example.net"], b"Subject: x\r\n\r\n.dot\r\n")
        [message] = relay.received
        assert (message.tls, message.user, message.content) == (True, "ann", b"Subject: x\r\n\r\n.dot\r\n")
        assert relay.pipelining_violations == []


async def test_transparency_is_undone() -> None:
    """RFC 5321 §4.5.2."""
    async with ScriptedRelay() as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        await send(peer, "..first\r\nnot.this\r\n...\r\n\r\n..\r\n.\r\n")
        assert relay.received[0].content == b".first\r\nnot.this\r\n..\r\n\r\n.\r\n"


@pytest.mark.parametrize("end", ["\n.\n", "\n.\r\n", "\r.\r", "\r\n.\r", "\r\n.\n", "\r\n\0.\r\n"])
async def test_nothing_but_crlf_dot_crlf_ends_the_content(end: str) -> None:
    """SMTP smuggling: a bare CR or LF is no line end (RFC 5321 §2.3.8; WO-07)."""
    async with ScriptedRelay() as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        await send(peer, f"a{end}MAIL FROM:<eve@example.org>\r\n.\r\n")
        transparent = end.replace("\r\n.", "\r\n")
        assert relay.received[0].content == f"a{transparent}MAIL FROM:<eve@example.org>\r\n".encode()


@pytest.mark.parametrize("line", ["NOOP\nRSET", "NOOP\rRSET", "NOOP\0", "N" * 20_000])
async def test_a_line_that_is_none_is_refused_whole(line: str) -> None:
    """A relay that guessed would hide the client's fault."""
    async with ScriptedRelay() as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        assert codes(await peer.say(line)) == [500]


async def test_empty_content_is_a_message() -> None:
    """A dot right behind the 354."""
    async with ScriptedRelay() as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        assert codes(await send(peer, ".\r\n")) == [250]
        assert relay.received[0].content == b""


async def test_one_octet_at_a_time_is_understood() -> None:
    """Segment boundaries have no meaning."""
    dialogue = "EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n..x\r\n.\r\n"
    async with ScriptedRelay() as relay, await Peer.connect(relay) as peer:
        for octet in dialogue:
            peer.write(octet)
            await peer.writer.drain()
            await asyncio.sleep(0)
        await relay.wait_for(1)
        assert relay.received[0].content == b".x\r\n"


async def test_a_pipelined_transaction_and_later_commands_are_answered_in_order() -> None:
    """RFC 2920: the content may begin the next group."""
    async with ScriptedRelay() as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        assert codes(await peer.say(*ENVELOPE, "DATA")) == [250, 250, 354]
        peer.write("one\r\n.\r\n" + "".join(f"{line}\r\n" for line in ("RSET", *ENVELOPE, "DATA")))
        assert [codes(await peer.reply()) for _ in range(5)] == [[250], [250], [250], [250], [354]]
        peer.write("two\r\n.\r\n")
        await relay.wait_for(2)
        assert [message.content for message in relay.received] == [b"one\r\n", b"two\r\n"]
        assert relay.pipelining_violations == []


@pytest.mark.parametrize("group", [("NOOP", "RSET"), (*ENVELOPE, "DATA", "NOOP")])
async def test_a_command_that_ends_its_group_may_not_be_followed(group: tuple[str, ...]) -> None:
    """RFC 2920 §3.1; the relay answers, and tells the test."""
    async with ScriptedRelay() as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write("".join(f"{line}\r\n" for line in group))
        await peer.reply()
        await relay.wait_until(lambda: bool(relay.pipelining_violations))
        assert len(relay.pipelining_violations) == 1


async def test_pipelining_that_was_not_offered_is_noted() -> None:
    """RFC 2920 §3.1: only after the keyword."""
    async with ScriptedRelay(offers=()) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        await peer.say(*ENVELOPE)
        assert relay.pipelining_violations == ["mail with 27 bytes after it"]


async def test_chunks_are_read_by_count_and_joined() -> None:
    """RFC 3030 §2: a chunk is octets, dots and line ends and all."""
    async with ScriptedRelay() as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        await peer.say(*ENVELOPE)
        peer.write("BDAT 5\r\n.\r\n.\rBDAT 3 LAST\r\n\n\r\n")
        assert codes(await peer.reply()) == [250]
        assert codes(await peer.reply()) == [250]
        assert relay.received[0].content == b".\r\n.\r\n\r\n"
        assert relay.received[0].chunked


async def test_an_empty_last_chunk_ends_the_content() -> None:
    """WO-11: BDAT 0 LAST."""
    async with ScriptedRelay() as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        await peer.say(*ENVELOPE)
        peer.write("BDAT 3\r\na\r\nBDAT 0 LAST\r\n")
        assert codes(await peer.reply()) == codes(await peer.reply()) == [250]
        assert relay.received[0].content == b"a\r\n"


async def test_a_refused_chunk_is_read_all_the_same_and_bars_the_next_until_rset() -> None:
    """RFC 3030 §2; WI-20."""
    async with ScriptedRelay() as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        await peer.say(ENVELOPE[0])
        peer.write("BDAT 6\r\nNOOP\r\nBDAT 6 LAST\r\nNOOP\r\n" + ENVELOPE[0] + "\r\nRSET\r\n" + ENVELOPE[0] + "\r\n")
        assert [codes(await peer.reply())[0] for _ in range(5)] == [554, 503, 503, 250, 250]
        assert relay.received == []


async def test_a_refused_data_leaves_the_transaction_open() -> None:
    """Postfix, Exim, Dovecot and Sendmail answer 503 to MAIL then; RSET ends it."""
    async with ScriptedRelay({Stage.RCPT: "550 5.1.1 no such user"}) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        assert codes(await peer.say(*ENVELOPE, "DATA")) == [250, 550, 554]
        assert codes(await peer.say(ENVELOPE[0], "RSET", ENVELOPE[0])) == [503, 250, 250]


async def test_an_empty_content_without_recipients_delivers_nothing() -> None:
    """WI-19, RFC 2920 §3.1: some servers say 354 although they refused every recipient."""
    script = {Stage.RCPT: "550 5.1.1 no such user", Stage.DATA: "354 go"}
    async with ScriptedRelay(script) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        await peer.say(*ENVELOPE, "DATA")
        assert codes(await peer.say(".")) == [554]
        assert relay.received == []


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("MAIL FROM:<>", 250),
        ("mail from:<a@b.example>", 250),
        ('MAIL FROM:<"a > b"@c.example> BODY=8BITMIME', 250),
        ("MAIL FROM:<a@[127.0.0.1]> SIZE=1000", 250),
        ("MAIL FROM:<é@b.example> SMTPUTF8", 250),
        ("MAIL FROM:<é@b.example>", 553),
        ("MAIL FROM: <a@b.example>", 501),
        ("MAIL FROM:a@b.example", 501),
        ("MAIL FROM:<a b@c.example>", 501),
        ("MAIL FROM:<a@b.example> AUTH=<x> >", 501),
        ("MAIL FROM:<a@b.example> RET=HDRS", 555),
        ("MAIL FROM:<a@b.example> BODY=BINARYMIME", 555),
        ("MAIL FROM:<a@b.example> SIZE=52428801", 552),
        ("MAIL FROM:<a@b.example> SIZE=-1", 501),
        ("MAIL TO:<a@b.example>", 501),
    ],
)
async def test_mail_is_read_strictly(line: str, code: int) -> None:
    """RFC 5321 §4.1.2, RFC 1870, RFC 6152, RFC 6531: a relay for tests forgives nothing."""
    async with ScriptedRelay() as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        assert codes(await peer.say(line)) == [code]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("RCPT TO:<postmaster>", 250),
        ("RCPT TO:<a@b.example> NOTIFY=NEVER", 250),
        ("RCPT TO:<a@b.example> SIZE=1", 555),
        ("RCPT TO:<>", 501),
        ("RCPT TO:<a>", 501),
        ("RCPT TO:<é@b.example>", 553),
        ("RCPT TO:<a@b.example> NOTIFY=success,DELAY ORCPT=rfc822;a+2Bb@c.example RRVS=2031-06-01T12:00:00Z;R", 250),
        ("RCPT TO:<a@b.example> ORCPT=utf-8;zo\\x{EB}@b.example RRVS=2031-06-01T12:00:00.5+02:00", 250),
        ("RCPT TO:<a@b.example> ORCPT=x400;/G+3Da/", 250),
        ("RCPT TO:<a@b.example> NOTIFY=NEVER,DELAY", 501),
        ("RCPT TO:<a@b.example> NOTIFY", 501),
        ("RCPT TO:<a@b.example> ORCPT=a@b.example", 501),
        ("RCPT TO:<a@b.example> ORCPT=rfc822;a+b@c.example", 501),
        ("RCPT TO:<a@b.example> ORCPT=rfc822;a+2b@c.examplé", 501),
        ("RCPT TO:<a@b.example> ORCPT=utf-8;a+2Bb@c.example", 501),
        ("RCPT TO:<a@b.example> ORCPT=rfc822;" + "x" * 494, 501),
        ("RCPT TO:<a@b.example> RRVS=2031-06-01", 501),
        ("RCPT TO:<a@b.example> RRVS=2031-06-01T12:00:00Z;X", 501),
    ],
)
async def test_rcpt_is_read_strictly(line: str, code: int) -> None:
    """As MAIL; WO-05: an address in ORCPT is encoded, or the relay would note another one."""
    async with ScriptedRelay(offers=(*OFFERS, "DSN", "RRVS")) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        await peer.say(ENVELOPE[0])
        assert codes(await peer.say(line)) == [code]


@pytest.mark.parametrize(("most", "keyword"), [(None, "SIZE"), (1000, "SIZE 1000"), (0, "SIZE 0")])
async def test_the_size_that_is_offered(most: int | None, keyword: str) -> None:
    """RFC 1870 §3: without a number, no limit is known."""
    async with ScriptedRelay(max_size=most) as relay, await Peer.connect(relay) as peer:
        await peer.reply()
        peer.write("EHLO a.example\r\n")
        lines = (await peer.reply()).splitlines()
    assert keyword in [line[4:].strip() for line in lines]


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ("RET=HDRS ENVID=a+20b BY=+60;RT HOLDFOR=60 MT-PRIORITY=+3 REQUIRETLS AUTH=e+3Dmc2@b.example", 250),
        ("BY=-5;N HOLDUNTIL=2031-06-01T12:00:00Z MT-PRIORITY=-9 AUTH=<>", 250),
        ("RET=BOTH", 501),
        ("ENVID=a+b", 501),
        ("ENVID=" + "x" * 101, 501),
        ("ENVID", 501),
        ("BY=0;R", 501),
        ("BY=60", 501),
        ("BY=1000000000;N", 501),
        ("HOLDFOR=soon", 501),
        ("HOLDUNTIL=2031-06-01", 501),
        ("HOLDFOR=60 HOLDUNTIL=2031-06-01T12:00:00Z", 501),
        ("MT-PRIORITY=10", 501),
        ("REQUIRETLS=yes", 501),
        ("SMTPUTF8=1", 501),
        ("AUTH=a+b", 501),
    ],
)
async def test_esmtp_options_are_parsed_strictly(parameters: str, code: int) -> None:
    """RFC 3461, 2852, 4865, 6710, 8689 and 4954 §5: a relay for tests forgives nothing."""
    offers = (*OFFERS, "DSN", "DELIVERBY", "FUTURERELEASE 60 2032-01-01T00:00:00Z", "MT-PRIORITY", "REQUIRETLS")
    async with ScriptedRelay(offers=offers, users={"ann": "x"}) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        assert codes(await peer.say(f"MAIL FROM:<a@b.example> {parameters}")) == [code]


@pytest.mark.parametrize("line", ["RCPT TO:<a@b.example>", "DATA", "BDAT 0 LAST"])
async def test_a_command_out_of_sequence_is_refused(line: str) -> None:
    """RFC 5321 §4.1.4."""
    async with ScriptedRelay() as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        assert codes(await peer.say(line)) == [503]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("EHLO", 501),
        ("EHLO a b", 501),
        ("HELO", 501),
        ("LHLO c", 500),
        ("STARTTLS", 502),
        ("STARTTLS now", 501),
        ("AUTH PLAIN", 502),
        ("RSET now", 501),
        ("QUIT now", 501),
        ("DATA now", 501),
        ("BDAT x LAST", 503),
        ("VRFY ann", 252),
        ("HELP", 214),
        ("XYZZY", 500),
        ("", 500),
        (f"MAIL FROM:<{'a' * 250}@b.example>", 501),
        ("MAIL FROM:<a@b.example> SIZE=1=2", 501),
        ("MAIL FROM:<a@b.example> AUTH=<>", 555),
    ],
)
async def test_every_line_has_its_reply(line: str, code: int) -> None:
    """RFC 5321 §4.3.2, and what is not offered."""
    async with ScriptedRelay() as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        assert codes(await peer.say(line)) == [code]


async def test_a_path_that_is_not_utf_8_is_refused() -> None:
    """RFC 6531 §3.3."""
    async with ScriptedRelay() as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write(b"MAIL FROM:<\xff@b.example> SMTPUTF8\r\n")
        assert codes(await peer.reply()) == [501]


async def test_a_chunk_that_was_not_offered_is_no_command_and_its_octets_are_lines() -> None:
    """A client that ignores EHLO risks this."""
    async with ScriptedRelay(offers=["PIPELINING"]) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        await peer.say(*ENVELOPE)
        peer.write("BDAT 6 LAST\r\nRSET\r\n")
        assert [codes(await peer.reply()) for _ in range(2)] == [[500], [250]]


async def test_chunks_beyond_the_size_are_refused() -> None:
    """RFC 1870 counts them together."""
    async with ScriptedRelay(max_size=5) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        await peer.say(*ENVELOPE)
        peer.write("BDAT 4\r\nabcdBDAT 2 LAST\r\ne\n")
        assert [codes(await peer.reply()) for _ in range(2)] == [[250], [552]]


async def test_binary_content_goes_by_chunks_only() -> None:
    """RFC 3030 §3."""
    async with ScriptedRelay(offers=(*OFFERS, "BINARYMIME")) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        said = await peer.say(f"{ENVELOPE[0]} BODY=BINARYMIME", ENVELOPE[1], "DATA")
        assert codes(said) == [250, 250, 503]


async def test_a_client_may_end_its_direction_and_is_answered_to_the_end() -> None:
    """As `nc` does at the end of its input."""
    async with ScriptedRelay({Stage.RSET: (Wait(0.02), DEFAULT_REPLY)}) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write("RSET\r\nRSET\r\n")
        peer.writer.write_eof()
        assert await peer.reader.read() == b"250 2.0.0 ok\r\n250 2.0.0 ok\r\n"


async def test_a_client_that_reads_nothing_is_not_read_from_for_ever() -> None:
    """RFC 2920 §3.1: a server may stop reading; WI-23 seen from here."""
    noop, script = b"NOOP " + b"x" * 480 + b"\r\n", {Stage.NOOP: "250 " + "y" * 20_000}
    async with ScriptedRelay(script) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.writer.transport.pause_reading()
        peer.write(noop * 3000)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await relay.wait_for_stage(Stage.NOOP, 3000)
        peer.writer.transport.resume_reading()
        for _ in range(3000):
            assert codes(await peer.reply()) == [250]


async def test_mail_needs_a_greeting_first() -> None:
    """RFC 5321 §4.1.1.1."""
    async with ScriptedRelay() as relay, await Peer.connect(relay) as peer:
        await peer.reply()
        assert codes(await peer.say(ENVELOPE[0])) == [503]


async def test_helo_has_no_extensions() -> None:
    """RFC 5321 §4.1.1.1: parameters belong to EHLO."""
    async with ScriptedRelay() as relay, await Peer.connect(relay) as peer:
        await peer.reply()
        assert codes(await peer.say("HELO client.example")) == [250]
        assert codes(await peer.say("MAIL FROM:<a@b.example> SIZE=1")) == [555]


async def test_eight_bit_content_needs_to_be_announced() -> None:
    """RFC 6152 §3."""
    async with ScriptedRelay() as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        assert codes(await send(peer, "é\r\n.\r\n")) == [554]
        await peer.say("MAIL FROM:<a@b.example> BODY=8BITMIME", ENVELOPE[1], "DATA")
        assert codes(await peer.say("é\r\n.")) == [250]


async def test_content_beyond_the_size_is_refused_and_not_kept_in_memory() -> None:
    """RFC 1870 §6.1: a client that declared nothing gets the refusal at the end of data."""
    async with ScriptedRelay(max_size=1000) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        assert codes(await send(peer, "x" * 100_000 + "\r\n.\r\n")) == [552]
        assert codes(await send(peer, "x" * 998 + "\r\n.\r\n")) == [250]
        assert [len(message.content) for message in relay.received] == [1000]


async def test_lmtp_answers_for_each_recipient() -> None:
    """RFC 2033 §4.2."""
    async with ScriptedRelay(lmtp=True) as relay, await Peer.connect(relay) as peer:
        await peer.reply()
        assert codes(await peer.say("EHLO c")) == [500]
        await peer.say("LHLO c")
        await peer.say(*ENVELOPE, "RCPT TO:<two@example.net>", "DATA")
        peer.write("x\r\n.\r\n")
        assert codes(await peer.reply()) == codes(await peer.reply()) == [250]


async def test_it_listens_on_a_unix_socket(tmp_path: Path) -> None:
    """And removes it."""
    path = tmp_path / "relay"
    async with ScriptedRelay(unix_path=path) as relay, await Peer.connect(relay) as peer:
        assert relay.url == f"smtp+unix://{path}"
        assert codes(await peer.reply()) == [220]
    assert not path.exists()


# TLS


def test_implicit_tls_needs_a_certificate() -> None:
    """An error before anything listens."""
    with pytest.raises(ValueError, match="give tls="):
        ScriptedRelay(implicit_tls=True)


@pytest.mark.both_loops
async def test_starttls_discards_earlier_plaintext(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """RFC 3207 §4.2: EHLO again, and no second STARTTLS."""
    async with ScriptedRelay(tls=server_tls) as relay, await Peer.connect(relay) as peer:
        assert "STARTTLS" in await peer.greet()
        assert codes(await peer.say("STARTTLS")) == [220]
        await peer.start_tls(client_tls)
        assert codes(await peer.say(ENVELOPE[0])) == [503]
        assert "STARTTLS" not in await peer.say("EHLO c")
        assert codes(await peer.say("STARTTLS")) == [503]
        await send(peer, "x\r\n.\r\n")
        assert relay.received[0].tls


@pytest.mark.both_loops
async def test_plaintext_commands_after_starttls_are_ignored(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """RFC 3207 §4.2, the server's side of TL-01."""
    async with ScriptedRelay(tls=server_tls) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write("STARTTLS\r\nEHLO eve\r\nMAIL FROM:<eve@example.org>\r\n")
        await peer.reply()
        await peer.start_tls(client_tls)
        assert codes(await peer.say(ENVELOPE[0])) == [503]
        assert relay.pipelining_violations == ["starttls with 39 bytes after it"]


@pytest.mark.both_loops
async def test_implicit_tls_comes_before_the_greeting(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """RFC 8314 §3.3."""
    async with ScriptedRelay(tls=server_tls, implicit_tls=True) as relay:
        assert relay.url.startswith("smtps://")
        async with await Peer.connect(relay, client_tls) as peer:
            assert "STARTTLS" not in await peer.greet()
            await send(peer, "x" * 300_000 + "\r\n.\r\n")
            assert len(relay.received[0].content) == 300_002


@pytest.mark.both_loops
async def test_a_client_that_does_not_trust_it_is_a_failure_on_record(server_tls: ssl.SSLContext) -> None:
    """TL-05: and the relay goes on."""
    async with ScriptedRelay(tls=server_tls, implicit_tls=True) as relay:
        with pytest.raises(ssl.SSLCertVerificationError):
            await Peer.connect(relay, ssl.create_default_context())
        await relay.wait_until_idle()
        assert len(relay.tls_failures) == 1


@pytest.mark.both_loops
async def test_it_ends_while_a_handshake_stalls(server_tls: ssl.SSLContext) -> None:
    """TL-08 from the other side: nothing is left behind."""
    async with ScriptedRelay(tls=server_tls, implicit_tls=True) as relay, await Peer.connect(relay):
        await relay.wait_for_stage(Stage.HANDSHAKE)
    assert relay.open_connections == 0


# AUTH


def plain(user: str, password: str) -> str:
    return b64encode(f"\0{user}\0{password}".encode()).decode()


def bearer(user: str, token: str) -> str:
    return b64encode(f"user={user}\1auth=Bearer {token}\1\1".encode()).decode()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([f"AUTH PLAIN {plain('ann', 'secret')}"], [235]),
        (["AUTH PLAIN", plain("ann", "secret")], [334, 235]),
        ([f"auth plain {plain('ann', 'wrong')}"], [535]),
        (["AUTH LOGIN", "YW5u", "c2VjcmV0"], [334, 334, 235]),
        (["AUTH LOGIN YW5u", "c2VjcmV0"], [334, 235]),
        ([f"AUTH XOAUTH2 {bearer('ann', 'secret')}"], [235]),
        ([f"AUTH XOAUTH2 {bearer('ann', 'old')}", ""], [334, 535]),
        (["AUTH PLAIN", "*"], [334, 501]),
        (["AUTH PLAIN", "not base64"], [334, 501]),
        (["AUTH PLAIN ="], [535]),
        (["AUTH SCRAM-SHA-256"], [504]),
        (["AUTH"], [501]),
    ],
)
async def test_auth_is_answered_as_rfc_4954_has_it(lines: list[str], expected: list[int]) -> None:
    """PLAIN (RFC 4616), LOGIN and XOAUTH2, with and without an initial response."""
    async with ScriptedRelay(users={"ann": "secret"}) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        assert [codes(await peer.say(line))[0] for line in lines] == expected
        [attempt] = relay.auth_attempts
        assert attempt.accepted is (expected[-1] == 235)
        assert attempt.mechanism == lines[0].upper().partition("AUTH")[2].strip().partition(" ")[0]


async def test_a_second_login_is_out_of_sequence() -> None:
    """RFC 4954 §4."""
    async with ScriptedRelay(users={"ann": "secret"}) as relay, await Peer.connect(relay) as peer:
        assert "AUTH PLAIN LOGIN XOAUTH2" in await peer.greet()
        await peer.say(f"AUTH PLAIN {plain('ann', 'secret')}")
        assert codes(await peer.say("AUTH PLAIN")) == [503]
        assert "AUTH" not in await peer.say("EHLO c")


async def test_auth_may_need_tls_first(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """As Postfix on port 587 has it; RFC 4954 §4."""
    relay = ScriptedRelay(tls=server_tls, users={"ann": "secret"}, auth_needs_tls=True, needs_auth=True)
    async with relay, await Peer.connect(relay) as peer:
        assert "AUTH" not in await peer.greet()
        assert codes(await peer.say("AUTH PLAIN")) == [538]
        assert codes(await peer.say(ENVELOPE[0])) == [530]
        await peer.say("STARTTLS")
        await peer.start_tls(client_tls)
        assert "AUTH" in await peer.say("EHLO c")
        assert codes(await peer.say(f"AUTH PLAIN {plain('ann', 'secret')}")) == [235]
        assert codes(await peer.say(ENVELOPE[0])) == [250]


# what a test can wait for


async def test_the_reply_has_the_text_of_on_accept_and_follows_it() -> None:
    """BL-06: a log line written before the 250 can carry the same token."""
    seen: list[str] = []

    def on_accept(message: Received) -> str:
        seen.append(relay.dialogue[-1])
        return "token-1"

    async with ScriptedRelay(on_accept=on_accept) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        assert await send(peer, "x\r\n.\r\n") == "250 2.0.0 token-1"
    assert seen == ["C: ."]


async def test_on_accept_may_refuse_a_message() -> None:
    """By the reply that `MessageNotAccepted` carries."""

    def on_accept(message: Received) -> str:
        raise MessageNotAccepted("452 4.3.1 disk full")

    async with ScriptedRelay(on_accept=on_accept) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        assert await send(peer, "x\r\n.\r\n") == "452 4.3.1 disk full"
        assert relay.received == []


async def test_a_fault_of_the_tests_own_rule_is_the_tests_failure() -> None:
    """It must not look like a relay that hung up."""

    def on_accept(message: Received) -> str:
        raise ZeroDivisionError

    relay = ScriptedRelay(on_accept=on_accept)
    await relay.start()
    async with await Peer.connect(relay) as peer:
        await peer.greet()
        assert await send(peer, "x\r\n.\r\n") == ""
    with pytest.raises(ZeroDivisionError):
        await relay.__aexit__(None, None, None)


async def test_a_late_round_trip_delays_replies_and_not_their_order() -> None:
    """The relay's replies cost a round trip each group, not each command."""
    async with ScriptedRelay(round_trip=0.05) as relay, await Peer.connect(relay) as peer:
        loop = asyncio.get_running_loop()
        await peer.greet()
        before = loop.time()
        assert codes(await peer.say(*ENVELOPE, "DATA")) == [250, 250, 354]
        assert 0.05 <= loop.time() - before < 0.1


async def test_connections_are_counted() -> None:
    """Opened so far, and open now."""
    async with ScriptedRelay() as relay:
        async with await Peer.connect(relay) as one, await Peer.connect(relay) as two:
            await one.reply()
            await two.reply()
            assert (relay.connections, relay.open_connections) == (2, 2)
        await relay.wait_until_idle()
        assert (relay.connections, relay.open_connections) == (2, 0)


async def test_quit_closes_and_a_refused_one_does_not() -> None:
    """RFC 5321 §4.1.1.10: the server closes behind its 221, and only then."""
    async with ScriptedRelay() as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        assert (await peer.say("QUIT")).startswith("221")
        assert await peer.reply() == ""
    async with ScriptedRelay({Stage.QUIT: {1: "500 5.5.1 not now"}}) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        assert codes(await peer.say("QUIT", "NOOP")) == [500, 250]
        assert (await peer.say("QUIT")).startswith("221")
        assert await peer.reply() == ""


@pytest.mark.parametrize(
    ("stage", "lines", "expected"),
    [
        (Stage.MAIL, ["MAIL FROM:<a@x.example>", "RCPT TO:<b@x.example>"], [451, 503]),
        (Stage.RCPT, ["MAIL FROM:<a@x.example>", "RCPT TO:<b@x.example>", "DATA"], [250, 451, 554]),
        (Stage.RSET, ["MAIL FROM:<a@x.example>", "RSET", "RCPT TO:<b@x.example>"], [250, 451, 250]),
        (Stage.NOOP, ["MAIL FROM:<a@x.example>", "RSET", "RCPT TO:<b@x.example>"], [250, 250, 503]),
        (Stage.EHLO, ["MAIL FROM:<a@x.example>", "EHLO again.example", "RCPT TO:<b@x.example>"], [250, 451, 250]),
    ],
)
async def test_a_command_that_is_refused_changes_nothing(stage: Stage, lines: list[str], expected: list[int]) -> None:
    """RFC 5321 §4.1.4: the state is that of the last command that was accepted."""
    number = 2 if stage is Stage.EHLO else 1
    async with ScriptedRelay({stage: {number: "451 4.3.0 not now"}}) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        assert codes(await peer.say(*lines)) == expected
