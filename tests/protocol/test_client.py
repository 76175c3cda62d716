"""The client machine: its tables, its two cursors, and what it makes of replies that are out of order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.errors import LocalProtocolError, RemoteProtocolError, StartTlsInjection, UnexpectedReply
from asyncsmtp.protocol.client import ALLOWED_COMMANDS, ENDS_GROUP, NEXT_STATE, ClientProtocol, Exchange, ProtocolState
from asyncsmtp.protocol.commands import (
    DATA,
    END_OF_CONTENT,
    GREETING,
    NOOP,
    QUIT,
    RSET,
    STARTTLS,
    Command,
    Verb,
    auth,
    bdat,
    ehlo,
    helo,
    mail,
    rcpt,
    response,
)
from asyncsmtp.protocol.envelope import Mailbox
from asyncsmtp.protocol.masking import SecretMask
from asyncsmtp.protocol.replies import Reply

EHLO = ehlo("client.example")
MAIL, RCPT = mail(None), rcpt(Mailbox.parse("bob@example.net"))
LAST = bdat(0, last=True)
COMMANDS = {
    Verb.EHLO: EHLO,
    Verb.HELO: helo("client.example"),
    Verb.AUTH: auth("LOGIN"),
    Verb.RESPONSE: response(b"x"),
    Verb.MAIL: MAIL,
    Verb.RCPT: RCPT,
    Verb.BDAT: bdat(0, last=False),
    Verb.BDAT_LAST: LAST,
}


def command(verb: Verb) -> Command:
    return COMMANDS.get(verb) or Command(verb)


def receive(protocol: ClientProtocol, *lines: bytes) -> list[Exchange]:
    """One read that brings these lines."""
    return list(protocol.receive(b"".join(line + b"\r\n" for line in lines)))


def ready(*extensions: bytes) -> ClientProtocol:
    """After EHLO that offered these."""
    protocol = ClientProtocol()
    receive(protocol, b"220 relay")
    protocol.send(EHLO)
    receive(protocol, b"250-relay", *(b"250-" + keyword for keyword in extensions), b"250 HELP")
    return protocol


def pipelined(*group: Command) -> ClientProtocol:
    """PIPELINING is offered, and this group was sent."""
    protocol = ready(b"PIPELINING")
    for one in group:
        protocol.send(one)
    return protocol


PATHS: dict[ProtocolState, list[tuple[Command, bytes]]] = {
    ProtocolState.READY: [],
    ProtocolState.MAIL: [(MAIL, b"250 ok")],
    ProtocolState.RCPT: [(MAIL, b"250 ok"), (RCPT, b"250 ok")],
    ProtocolState.DATA: [(MAIL, b"250 ok"), (RCPT, b"250 ok"), (DATA, b"354 go")],
    ProtocolState.BDAT: [(MAIL, b"250 ok"), (RCPT, b"250 ok"), (command(Verb.BDAT), b"250 ok")],
    ProtocolState.AUTH: [(auth("LOGIN"), b"334 ")],
    ProtocolState.TLS: [(STARTTLS, b"220 go")],
    ProtocolState.CLOSED: [(QUIT, b"221 bye")],
}


def in_state(state: ProtocolState) -> ClientProtocol:
    protocol = ClientProtocol()
    if state is ProtocolState.CONNECTED:
        return protocol
    receive(protocol, b"220 relay")
    if state is ProtocolState.GREETED:
        return protocol
    protocol.send(EHLO)
    receive(protocol, b"250 relay")
    for said, reply in PATHS[state]:
        protocol.send(said)
        receive(protocol, reply)
    return protocol


@pytest.mark.parametrize("state", ProtocolState)
@pytest.mark.parametrize("verb", Verb)
def test_a_command_is_sent_in_the_states_that_list_it(state: ProtocolState, verb: Verb) -> None:
    """RFC 5321 §4.1.4; what is out of sequence is our bug and never reaches the wire."""
    protocol = in_state(state)
    if state is ProtocolState.CONNECTED:
        receive(protocol, b"554 no")  # the greeting is answered, and leads nowhere
    assert protocol.state is protocol.expected_state is state
    assert protocol.can_send(command(verb)) is (verb in ALLOWED_COMMANDS[state])
    if verb in ALLOWED_COMMANDS[state]:
        assert protocol.send(command(verb)) == bytes(command(verb))
        assert protocol.expected_state is NEXT_STATE.get(verb, state)
        assert protocol.state is state
        assert protocol.pending[-1] is command(verb) or protocol.pending[-1] == command(verb)
    else:
        with pytest.raises(LocalProtocolError, match=f"may not be sent in state {state}"):
            protocol.send(command(verb))
        assert not protocol.pending


@pytest.mark.parametrize("verb", [Verb.EHLO, Verb.MAIL, Verb.NOOP, Verb.RSET])
def test_nothing_is_sent_after_an_unanswered_command_without_pipelining(verb: Verb) -> None:
    """RFC 2920: an extension that was not offered is not used."""
    protocol = ready()
    protocol.send(command(verb))
    with pytest.raises(LocalProtocolError, match=f"with {verb} unanswered"):
        protocol.send(QUIT)


@pytest.mark.parametrize(
    "verb", [Verb.EHLO, Verb.HELO, Verb.STARTTLS, Verb.XCLIENT, Verb.AUTH, Verb.VRFY, Verb.EXPN, Verb.NOOP, Verb.QUIT]
)
def test_a_command_that_ends_a_group_is_the_last_of_it(verb: Verb) -> None:
    """RFC 2920 §3.1, though PIPELINING is offered."""
    protocol = pipelined(RSET)
    protocol.state = protocol.expected_state = ProtocolState.GREETED if verb is Verb.HELO else ProtocolState.READY
    protocol.send(command(verb))
    assert verb in ENDS_GROUP
    assert not protocol.can_send(RSET)
    assert not protocol.can_send(QUIT)


def test_a_whole_transaction_is_one_group() -> None:
    """RFC 2920 §3.1: up to DATA; the content may begin the next group, DATA ends that one too."""
    protocol = pipelined(MAIL, RCPT, RCPT, DATA)
    assert not protocol.can_send(END_OF_CONTENT)
    exchanges = receive(protocol, b"250 ok", b"250 ok", b"550 no", b"354 go")
    assert [exchange.command for exchange in exchanges] == [MAIL, RCPT, RCPT, DATA]
    for one in (END_OF_CONTENT, RSET, MAIL, RCPT, DATA):
        protocol.send(one)
    assert (protocol.state, protocol.expected_state) == (ProtocolState.DATA, ProtocolState.DATA)
    assert not protocol.can_send(RSET)


def test_a_refused_first_rcpt_leaves_the_way_that_the_second_opens() -> None:
    """`expected_state` is folded again over what is still pending."""
    protocol = pipelined(MAIL, RCPT, RCPT)
    receive(protocol, b"250 ok", b"550 no")
    assert (protocol.state, protocol.expected_state) == (ProtocolState.MAIL, ProtocolState.RCPT)
    receive(protocol, b"550 no")
    assert (protocol.state, protocol.expected_state) == (ProtocolState.MAIL, ProtocolState.MAIL)
    assert not protocol.can_send(DATA)


def test_354_means_content_though_every_recipient_was_refused() -> None:
    """WI-19, RFC 2920 §3.1: the end of data is due, and nothing else is allowed."""
    protocol = pipelined(MAIL, RCPT, DATA)
    receive(protocol, b"250 ok", b"550 no", b"354 go")
    assert protocol.state is ProtocolState.DATA
    assert protocol.send(END_OF_CONTENT) == b".\r\n"
    receive(protocol, b"554 no valid recipients")
    assert protocol.state is ProtocolState.READY


def test_a_refused_data_leaves_the_transaction_open() -> None:
    """wire.md, "what real servers do": only RSET or QUIT go on from there."""
    protocol = pipelined(MAIL, RCPT, DATA)
    receive(protocol, b"550 no", b"503 no", b"503 no")
    assert protocol.state is ProtocolState.READY
    protocol = pipelined(MAIL, RCPT, DATA)
    receive(protocol, b"250 ok", b"250 ok", b"451 no")
    assert protocol.state is ProtocolState.RCPT
    assert not protocol.can_send(MAIL)
    assert protocol.can_send(RSET)


@pytest.mark.parametrize("reply", [b"250 ok", b"450 no", b"550 no"])
def test_the_content_ends_its_transaction_whatever_the_reply(reply: bytes) -> None:
    """RFC 5321 §4.1.1.4: "the buffers are cleared"."""
    protocol = in_state(ProtocolState.DATA)
    protocol.send(END_OF_CONTENT)
    receive(protocol, reply)
    assert protocol.state is protocol.expected_state is ProtocolState.READY


def test_a_refused_last_chunk_leaves_its_transaction_open() -> None:
    """WI-20, RFC 3030 §2: RSET comes next."""
    protocol = in_state(ProtocolState.BDAT)
    protocol.send(LAST)
    receive(protocol, b"452 full")
    assert protocol.state is ProtocolState.BDAT
    assert not protocol.can_send(MAIL)


def test_an_accepted_chunk_leaves_the_expected_state_to_later_chunks() -> None:
    """RFC 3030 §4.2: chunks may be pipelined; `expected_state` has counted on each of them when it was sent."""
    protocol = pipelined(MAIL, RCPT, command(Verb.BDAT), LAST)
    receive(protocol, b"250 sender", b"250 recipient", b"250 chunk")
    assert (protocol.state, protocol.expected_state) == (ProtocolState.BDAT, ProtocolState.READY)


ANSWERS = [b"220 x", b"235 x", b"250 x", b"334 x", b"354 x"]
TAKES = {
    ProtocolState.CONNECTED: {Verb.GREETING: {220}},
    ProtocolState.READY: {Verb.STARTTLS: {220}, Verb.AUTH: {235, 334}},
    ProtocolState.RCPT: {Verb.DATA: {354}},
    ProtocolState.AUTH: {Verb.RESPONSE: {235, 334}, Verb.CANCEL: set()},
}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize(
    ("state", "verb"),
    [
        (ProtocolState.CONNECTED, Verb.GREETING),
        *((ProtocolState.GREETED, verb) for verb in (Verb.EHLO, Verb.HELO)),
        *(
            (ProtocolState.READY, verb)
            for verb in (Verb.STARTTLS, Verb.AUTH, Verb.MAIL, Verb.RSET, Verb.NOOP, Verb.QUIT)
        ),
        (ProtocolState.MAIL, Verb.RCPT),
        *((ProtocolState.RCPT, verb) for verb in (Verb.DATA, Verb.BDAT, Verb.BDAT_LAST)),
        (ProtocolState.DATA, Verb.CONTENT),
        *((ProtocolState.AUTH, verb) for verb in (Verb.RESPONSE, Verb.CANCEL)),
    ],
)
def test_a_reply_of_the_wrong_class_ends_the_dialogue(state: ProtocolState, verb: Verb, answer: bytes) -> None:
    """WI-13: 250 to DATA, 354 to MAIL, RCPT or the content, any other 3yz: replies may be one off."""
    protocol = in_state(state)
    if verb is not Verb.GREETING:
        protocol.send(command(verb))
    code = int(answer[:3])
    if code in TAKES.get(state, {}).get(verb, range(200, 300)):
        assert receive(protocol, answer)[0].reply.code == code
        assert protocol.state is (ProtocolState.AUTH if code == 334 else NEXT_STATE.get(verb, state))
    else:
        with pytest.raises(UnexpectedReply, match="which is not a valid reply to it"):
            receive(protocol, answer)
        assert protocol.state is ProtocolState.CLOSED


@pytest.mark.parametrize(
    "state",
    [state for state in ProtocolState if state not in (ProtocolState.CONNECTED, ProtocolState.DATA, ProtocolState.TLS)],
)
@pytest.mark.parametrize("answer", [b"250 stray", b"354 stray", b"450 stray", b"550 stray"])
def test_a_reply_to_nothing_ends_the_dialogue(state: ProtocolState, answer: bytes) -> None:
    """WI-06, W-30: in one segment with the last reply or later, of one line or of many, cut anywhere."""
    protocol = in_state(state)
    with pytest.raises(UnexpectedReply, match="although no command was waiting for a reply"):
        receive(protocol, answer)
    assert protocol.state is protocol.expected_state is ProtocolState.CLOSED
    protocol = in_state(state)
    with pytest.raises(UnexpectedReply):
        list(protocol.receive(answer[:3] + b"-half\r\n" + answer[:2]))


@pytest.mark.parametrize("state", [state for state in ProtocolState if state is not ProtocolState.TLS])
def test_a_421_closes_from_any_state(state: ProtocolState) -> None:
    """WI-11, RFC 5321 §3.8: asked for or not; while content is written it answers that."""
    protocol = in_state(state)
    expected = {ProtocolState.CONNECTED: GREETING, ProtocolState.DATA: END_OF_CONTENT}.get(state)
    assert receive(protocol, b"421 bye") == [Exchange(expected, Reply(421, (b"bye",)))]
    assert protocol.state is protocol.expected_state is ProtocolState.CLOSED
    assert not any(protocol.can_send(command(verb)) for verb in Verb)


def test_a_closed_dialogue_stays_closed() -> None:
    """WI-11: the replies to commands behind the 421 reopen nothing, in the same read or in the next."""
    for reads in ([b"421 bye\r\n250 ok\r\n354 go\r\n"], [b"421 bye\r\n", b""]):
        protocol = pipelined(MAIL, RCPT, DATA)
        exchanges = [exchange for octets in reads for exchange in protocol.receive(octets)]
        assert [exchange.command for exchange in exchanges] == [MAIL]
        assert not protocol.pending
        assert protocol.state is protocol.expected_state is ProtocolState.CLOSED
        with pytest.raises(UnexpectedReply):
            receive(protocol, b"250 ok", b"354 go")
        assert protocol.state is ProtocolState.CLOSED


def test_an_acceptance_before_the_end_of_the_content_is_none() -> None:
    """WI-14: it may be the message's, it may be anyone's."""
    with pytest.raises(UnexpectedReply, match="before the end of data was sent") as claimed:
        receive(in_state(ProtocolState.DATA), b"250 queued")
    assert claimed.value.claims_acceptance
    with pytest.raises(UnexpectedReply) as stray:
        receive(in_state(ProtocolState.READY), b"250 queued")
    assert not stray.value.claims_acceptance


@pytest.mark.parametrize("answer", [b"452 full", b"552 too large", b"421 bye"])
def test_a_refusal_before_the_end_of_the_content_answers_it(answer: bytes) -> None:
    """WI-14: taken as the content's reply; the line is dropped, since half a content cannot be taken back."""
    protocol = in_state(ProtocolState.DATA)
    (exchange,) = receive(protocol, answer)
    assert exchange.command is END_OF_CONTENT
    assert protocol.state is ProtocolState.CLOSED
    assert not protocol.can_send(END_OF_CONTENT)


def test_a_malformed_reply_ends_the_dialogue() -> None:
    """WI-08: replies before it stand, and nothing more is sent."""
    protocol = pipelined(MAIL, RCPT, DATA)
    replies = protocol.receive(b"250 ok\r\nHELLO\r\n250 ok\r\n")
    assert next(replies).command is MAIL
    with pytest.raises(RemoteProtocolError):
        next(replies)
    assert protocol.state is ProtocolState.CLOSED
    assert not protocol.can_send(RSET)


@pytest.mark.parametrize(
    "reads",
    [
        [b"220 go\r\n250-injected\r\n250 AUTH PLAIN\r\n"],
        [b"220 go\r\n2"],
        [b"220 go\r\n250-half\r\n"],
        [b"220 go\r\n", b"250 injected\r\n"],
        [b"220 go\r\n", b"\x16"],
        [b"220 go\r\n421 bye\r\n"],
        [b"220-go\r\n220 go\r\n\r\n"],
    ],
)
def test_a_byte_after_the_220_to_starttls_is_an_attack(reads: list[bytes]) -> None:
    """WI-06, TL-01, W-40: in the same segment or later, one byte or many; none of it is processed."""
    for pieces in (reads, [octet.to_bytes() for octet in b"".join(reads)]):
        protocol = ready(b"STARTTLS")
        protocol.send(STARTTLS)
        with pytest.raises(StartTlsInjection, match="plaintext bytes"):
            for _ in (exchange for octets in pieces for exchange in protocol.receive(octets)):
                pass
        assert protocol.state is ProtocolState.CLOSED
        with pytest.raises(LocalProtocolError):
            protocol.tls_started()


def test_an_end_without_octets_is_no_attack() -> None:
    """An empty read is how some transports say that it is over."""
    protocol = in_state(ProtocolState.TLS)
    assert list(protocol.receive(b"")) == []


def test_a_tls_handshake_resets_the_state() -> None:
    """TL-04, RFC 3207 §4.2: EHLO comes next, and MAIL does not."""
    protocol = ready(b"STARTTLS", b"AUTH PLAIN", b"PIPELINING")
    protocol.send(STARTTLS)
    receive(protocol, b"220 go")
    protocol.tls_started()
    assert protocol.state is protocol.expected_state is ProtocolState.GREETED
    assert not protocol.extensions
    assert protocol.can_send(EHLO)
    assert not protocol.can_send(MAIL)


def test_a_tls_handshake_needs_starttls() -> None:
    """W-43: our bug, reported at once."""
    with pytest.raises(LocalProtocolError, match="without a positive reply to STARTTLS"):
        ready().tls_started()


@pytest.mark.parametrize("implicit", [True, False])
def test_under_tls_there_is_no_starttls(implicit: bool) -> None:
    """W-43: an error without writing, be it that the relay offers it."""
    protocol = ClientProtocol(tls=True) if implicit else in_state(ProtocolState.TLS)
    if implicit:
        receive(protocol, b"220 relay")
    else:
        protocol.tls_started()
    protocol.send(EHLO)
    receive(protocol, b"250-relay", b"250 STARTTLS")
    assert protocol.extensions.starttls
    assert not protocol.can_send(STARTTLS)
    with pytest.raises(LocalProtocolError, match="STARTTLS may not be sent in state ready"):
        protocol.send(STARTTLS)
    assert not protocol.pending
    assert all(protocol.can_send(command(verb)) for verb in ALLOWED_COMMANDS[ProtocolState.READY] - {Verb.STARTTLS})


@pytest.mark.parametrize(("reply", "state"), [(b"220 again", ProtocolState.GREETED), (b"550 no", ProtocolState.READY)])
def test_after_xclient_the_relay_is_greeted_anew(reply: bytes, state: ProtocolState) -> None:
    """XCLIENT_README: as after the initial connection; a refused one changes nothing."""
    protocol = ready(b"XCLIENT ADDR")
    protocol.send(Command(Verb.XCLIENT, b"ADDR=192.0.2.7"))
    receive(protocol, reply)
    assert protocol.state is protocol.expected_state is state
    assert protocol.can_send(MAIL) is (state is ProtocolState.READY)
    assert protocol.can_send(EHLO)


def test_a_refused_starttls_changes_nothing() -> None:
    """W-38: old state kept."""
    protocol = ready(b"STARTTLS")
    protocol.send(STARTTLS)
    receive(protocol, b"454 not now")
    assert protocol.state is ProtocolState.READY
    assert protocol.extensions.starttls


def test_extensions_are_those_of_the_last_ehlo() -> None:
    """W-16, W-19, W-21 and W-22: replaced by each, kept when one is refused, none after HELO."""
    protocol = ready(b"SIZE 1", b"DSN")
    protocol.send(EHLO)
    receive(protocol, b"250-relay", b"250 SIZE 2")
    assert dict(protocol.extensions) == {"SIZE": ("2",)}
    protocol.send(EHLO)
    receive(protocol, b"550-no", b"550 DSN")
    assert dict(protocol.extensions) == {"SIZE": ("2",)}
    protocol = in_state(ProtocolState.GREETED)
    protocol.send(EHLO)
    receive(protocol, b"502-no", b"502 SIZE")
    assert protocol.state is ProtocolState.GREETED
    assert not protocol.extensions
    protocol.send(command(Verb.HELO))
    receive(protocol, b"250-relay", b"250 SIZE")
    assert protocol.state is ProtocolState.READY
    assert not protocol.extensions


def test_masked_extensions_are_as_if_not_offered() -> None:
    """A relay's settings may say so."""
    protocol = ClientProtocol(masked=frozenset({"PIPELINING"}))
    receive(protocol, b"220 relay")
    protocol.send(EHLO)
    receive(protocol, b"250-relay", b"250-PIPELINING", b"250 DSN")
    assert list(protocol.extensions) == ["DSN"]


@pytest.mark.parametrize("verb", [Verb.AUTH, Verb.RESPONSE, Verb.CANCEL])
def test_a_refused_login_leaves_the_session_ready(verb: Verb) -> None:
    """RFC 4954 §4."""
    protocol = ready()
    protocol.send(auth("LOGIN"))
    if verb is not Verb.AUTH:
        receive(protocol, b"334 ")
        protocol.send(command(verb))
    receive(protocol, b"535 no")
    assert protocol.state is protocol.expected_state is ProtocolState.READY


def test_every_reply_is_masked() -> None:
    """FT-52, AU-09: the greeting of a later connection, EHLO, the login, and what follows it."""
    protocol = ClientProtocol(mask=SecretMask(b"hunter2"))
    assert receive(protocol, b"220 hello hunter2")[0].reply == Reply(220, (b"hello ***",))
    protocol.send(EHLO)
    assert receive(protocol, b"250-relay", b"250-AUTH LOGIN hunter2", b"250 hunter2")[0].reply.lines == (
        b"relay",
        b"AUTH LOGIN ***",
        b"***",
    )
    assert dict(protocol.extensions) == {"AUTH": ("LOGIN",)}
    protocol.send(auth("LOGIN"))
    assert receive(protocol, b"334 hunter2")[0].reply == Reply(334, (b"***",))
    assert protocol.challenge == (b"hunter2",)
    protocol.send(response(b"x"))
    assert receive(protocol, b"535 hunter2")[0].reply == Reply(535, (b"***",))
    for _ in range(2):  # the second one comes from the cache
        protocol.send(NOOP)
        assert receive(protocol, b"250 hunter2")[0].reply == Reply(250, (b"***",))


@pytest.mark.parametrize("password", [b"PLAIN", b"SIZE", b"STARTTLS", b"35882577"])
def test_a_password_that_is_a_keyword_hides_no_extension(password: bytes) -> None:
    """FT-52: it is masked where it is shown; a relay that offers it says nothing about the password."""
    protocol = ClientProtocol(mask=SecretMask(password))
    receive(protocol, b"220 relay")
    protocol.send(EHLO)
    receive(protocol, b"250-relay", b"250-SIZE 35882577", b"250-STARTTLS", b"250 AUTH PLAIN LOGIN")
    assert (protocol.extensions.size, protocol.extensions.starttls) == (35_882_577, True)
    assert protocol.extensions.mechanisms == ("PLAIN", "LOGIN")


@pytest.mark.parametrize(
    "echo",
    [
        b"hunter2-canary\r\n",
        b"hunter2-canary",
        b"550 hunter2-canary",
        b"550 hunter2-c",
        b"250 hunter2-canary\n",
        b"550-hunter2\r\n551 -canary\r\n",
        b"550 a\rb hunter2-canary\r\n",
    ],
)
def test_a_reply_that_breaks_the_rules_is_masked_too(echo: bytes) -> None:
    """FT-52: malformed, cut off, without a command that waits for it."""
    protocol = ClientProtocol(mask=SecretMask(b"hunter2-canary"))
    receive(protocol, b"220 relay")
    with pytest.raises(RemoteProtocolError) as broken:
        list(protocol.receive(echo))
    assert "hunter2" not in str(broken.value)
    assert "-c" not in str(broken.value)


@pytest.mark.parametrize(("left", "found"), [(b"", False), (b"250 hal", False), (b"\x15\x03\x03", True)])
def test_the_end_of_the_connection_closes_and_reports_bytes_that_are_no_reply(left: bytes, found: bool) -> None:
    """W-28, WI-15."""
    protocol = ready()
    protocol.send(NOOP)
    list(protocol.receive(left))
    assert (protocol.receive_eof() is not None) is found
    assert protocol.state is protocol.expected_state is ProtocolState.CLOSED


@pytest.mark.parametrize("half", [b"2", b"250 ", b"250-", b"550 5.1.1 no", b"x", b"\r", b"43", b"334 ", b"250-a\r\n"])
@pytest.mark.parametrize("state", [ProtocolState.GREETED, ProtocolState.READY, ProtocolState.BDAT, ProtocolState.AUTH])
def test_half_a_line_that_no_command_waits_for_ends_the_dialogue(state: ProtocolState, half: bytes) -> None:
    """FT-15: `250 ` while idle, then `550 …` to MAIL, would be one positive reply."""
    protocol = in_state(state)
    with pytest.raises(UnexpectedReply, match="although no command was waiting for a reply"):
        list(protocol.receive(half))
    assert protocol.state is protocol.expected_state is ProtocolState.CLOSED


def test_half_a_line_behind_the_last_reply_ends_the_dialogue() -> None:
    """FT-15: in the same read; the reply before it is reported first."""
    protocol = in_state(ProtocolState.READY)
    protocol.send(NOOP)
    exchanges = protocol.receive(b"250 ok\r\n25")
    assert next(exchanges).reply == Reply(250, (b"ok",))
    with pytest.raises(UnexpectedReply, match="“25”"):
        next(exchanges)


@pytest.mark.parametrize(("half", "claims"), [(b"250 ", True), (b"354", True), (b"x", False)])
def test_half_a_line_before_the_end_of_data_ends_the_dialogue(half: bytes, claims: bool) -> None:
    """FT-15: completed behind the end of data, it would be its reply."""
    protocol = in_state(ProtocolState.DATA)
    with pytest.raises(UnexpectedReply, match="before the end of data was sent") as broken:
        list(protocol.receive(half))
    assert broken.value.claims_acceptance is claims


def test_the_content_may_be_refused_in_pieces_while_it_is_written() -> None:
    """FT-15: a negative reply can do no harm."""
    protocol = in_state(ProtocolState.DATA)
    assert list(protocol.receive(b"552-too\r\n55")) == []
    assert receive(protocol, b"2 big")[0] == Exchange(END_OF_CONTENT, Reply(552, (b"too", b"big")))


def test_a_421_may_arrive_in_pieces_and_nothing_is_sent_meanwhile() -> None:
    """FT-15, FT-16: it closes the session; its words are worth waiting for."""
    protocol = in_state(ProtocolState.READY)
    for piece in (b"4", b"21-4.3.2 shutting", b" down\r\n4", b"21 by"):
        assert list(protocol.receive(piece)) == []
        assert not any(protocol.can_send(command(verb)) for verb in Verb)
    assert protocol.partial_reply == "421-4.3.2 shutting down / 421 by"
    assert receive(protocol, b"e")[0] == Exchange(None, Reply(421, (b"4.3.2 shutting down", b"bye")))


@pytest.mark.parametrize(
    ("left", "lines"),
    [
        (b"421 4.3.2 bye", (b"4.3.2 bye",)),
        (b"421 4.3.2 bye\r", (b"4.3.2 bye",)),
        (b"421 ", (b"",)),
        (b"421-one\r\n421 two", (b"one", b"two")),
        (b"421-one\r\n", (b"one",)),
        (b"421-one\r\n421-", (b"one", b"")),
    ],
)
@pytest.mark.parametrize("waiting", [True, False])
def test_a_421_that_is_cut_off_is_a_421(left: bytes, lines: tuple[bytes, ...], waiting: bool) -> None:
    """FT-16: the connection ends before its line does; the reason is in it."""
    protocol = in_state(ProtocolState.READY)
    if waiting:
        protocol.send(NOOP)
    list(protocol.receive(left))
    assert protocol.receive_eof() == Exchange(NOOP if waiting else None, Reply(421, lines))
    assert not protocol.pending


def test_a_421_that_is_cut_off_refuses_the_content_that_is_being_written() -> None:
    """FT-16: and its secret, cut off as well, is masked."""
    protocol = in_state(ProtocolState.DATA)
    protocol.mask.add(b"hunter2-canary")
    list(protocol.receive(b"421 no room for hunter2-can"))
    assert protocol.receive_eof() == Exchange(END_OF_CONTENT, Reply(421, (b"no room for ***",)))


@pytest.mark.parametrize("left", [b"4", b"42", b"421", b"550 no"])
def test_what_is_left_of_another_reply_is_worth_nothing(left: bytes) -> None:
    """FT-16: `421` may have gone on as `4210`."""
    protocol = in_state(ProtocolState.READY)
    protocol.send(NOOP)
    list(protocol.receive(left))
    assert protocol.partial_reply == left.decode()
    assert protocol.receive_eof() is None


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (b"999 ok\r\n", "a reply code is 200 to 599"),
        (b"100 wait\r\n", "a reply code is 200 to 599"),
        (b"ok 250\r\n", "a reply begins with three digits"),
        (b"25\r\n", "a reply begins with three digits"),
        (b"250\tok\r\n", "a space or a hyphen follows the three digits"),
        (b"2500 ok\r\n", "a space or a hyphen follows the three digits"),
        (b"250 a\0b\r\n", "a line has no CR and no NUL in it"),
        (b"250 ok\n", "a line must end in CR LF"),
    ],
)
def test_a_malformed_reply_is_told_by_the_rule_that_it_breaks(line: bytes, rule: str) -> None:
    """FT-16: "begins with three digits" was said of `999 ok`."""
    protocol = in_state(ProtocolState.READY)
    protocol.send(NOOP)
    with pytest.raises(RemoteProtocolError, match=rule):
        list(protocol.receive(line))


STEPS = st.lists(
    st.sampled_from([*map(command, Verb)])
    | st.sampled_from(
        [b"220 x\r\n", b"250 x\r\n", b"354 x\r\n", b"334 eA==\r\n", b"451 x\r\n", b"550 x\r\n", b"421 x\r\n"]
    )
    | st.binary(max_size=8),
    max_size=25,
)


@given(st.booleans(), STEPS)
def test_every_reply_answers_the_oldest_pending_command(pipelining: bool, steps: list[Command | bytes]) -> None:
    """WI-06, P4: whatever is sent and received, commands are answered in order, once, or the dialogue is closed."""
    protocol = ready(b"PIPELINING") if pipelining else ready()
    said: list[Command] = []
    answered: list[Command] = []
    for step in steps:
        if isinstance(step, Command):
            if protocol.can_send(step):
                protocol.send(step)
                said.append(step)
            else:
                with pytest.raises(LocalProtocolError):
                    protocol.send(step)
            continue
        try:
            for exchange in protocol.receive(step):
                if exchange.command is not None and (exchange.command is not END_OF_CONTENT or said[-1:] != [DATA]):
                    answered.append(exchange.command)
        except RemoteProtocolError:
            assert protocol.state is ProtocolState.CLOSED
            break
        if protocol.state is ProtocolState.CLOSED:
            break
    assert answered == said[: len(answered)]
