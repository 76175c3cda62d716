"""Transactions whose content goes in chunks, or to an LMTP relay (RFC 3030, RFC 2033)."""

from __future__ import annotations

import pytest

from asyncsmtp.errors import LocalProtocolError, UnexpectedReply
from asyncsmtp.protocol.client import ClientProtocol, ProtocolState
from asyncsmtp.protocol.commands import END_OF_CONTENT, RSET, Command, Verb, bdat, lhlo, mail, rcpt
from asyncsmtp.protocol.delivery import Outcome
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.replies import Reply
from asyncsmtp.protocol.transaction import Phase, Transaction

TWO = Envelope.of("a@example.org", ["b@example.net", "c@example.net"])
OK, NO, LATER, FULL = Reply(250), Reply(550), Reply(451), Reply(452)
LAST = bdat(10, last=True)


def chunked(*replies: Reply, pipelined: bool = True) -> Transaction:
    """A transaction in chunks after these replies to MAIL and RCPT."""
    transaction = Transaction(TWO, pipelined=pipelined, chunked=True)
    said: list[Command] = []
    for reply in replies:
        said += transaction.commands_to_send()
        transaction.receive_reply(said.pop(0), reply)
    return transaction


@pytest.mark.parametrize("pipelined", [True, False])
def test_the_content_is_due_when_a_recipient_is_accepted(pipelined: bool) -> None:
    """PC-h: There is no DATA and no 354; a chunk waits for a 2yz to RCPT (rule 3 of wire.md)."""
    transaction = chunked(OK, NO, pipelined=pipelined)
    assert transaction.phase is Phase.ENVELOPE
    transaction = chunked(OK, NO, OK, pipelined=pipelined)
    assert transaction.phase is Phase.CONTENT
    assert transaction.commands_to_send() == ()
    transaction.end_content()
    transaction.receive_reply(LAST, OK)
    assert transaction.build_delivery().outcomes == (Outcome.REJECTED, Outcome.ACCEPTED)


@pytest.mark.parametrize("pipelined", [True, False])
def test_without_a_recipient_no_chunk_but_rset(pipelined: bool) -> None:
    """Nothing is sent for nobody."""
    transaction = chunked(OK, NO, LATER, pipelined=pipelined)
    assert transaction.phase is Phase.RESETTING
    assert transaction.commands_to_send() == (RSET,)
    assert transaction.build_delivery().outcomes == (Outcome.REJECTED, Outcome.DEFERRED)


def test_the_first_refused_chunk_is_the_verdict_and_the_last_one() -> None:
    """WI-20, RFC 3030 §2: after any non-2yz no more chunks, and RSET is mandatory."""
    transaction = chunked(OK, OK, OK)
    first, second = transaction.start_chunk(5), transaction.start_chunk(5)
    transaction.receive_reply(first, FULL)
    assert transaction.phase is Phase.RESETTING
    with pytest.raises(LocalProtocolError):
        transaction.start_chunk(5)
    transaction.receive_reply(second, NO)
    assert transaction.build_delivery().outcomes == (Outcome.DEFERRED, Outcome.DEFERRED)
    assert transaction.commands_to_send() == (RSET,)


def test_a_chunk_refused_meanwhile_decides_when_the_last_is_answered() -> None:
    """The last chunk was sent already: its own 503 is no news."""
    transaction = chunked(OK, OK, OK)
    chunk = transaction.start_chunk(5)
    transaction.end_content()
    transaction.receive_reply(chunk, FULL)
    assert transaction.phase is Phase.AWAITING_RESULT
    transaction.receive_reply(LAST, NO)
    assert transaction.phase is Phase.DONE
    assert transaction.build_delivery().outcomes == (Outcome.DEFERRED, Outcome.DEFERRED)


def test_a_last_chunk_accepted_after_a_refused_one_is_unexpected() -> None:
    """It cannot be the reply to what was sent; the message may be there or not."""
    transaction = chunked(OK, OK, OK)
    chunk = transaction.start_chunk(5)
    transaction.end_content()
    transaction.receive_reply(chunk, FULL)
    with pytest.raises(UnexpectedReply):
        transaction.receive_reply(LAST, OK)


def test_an_accepted_chunk_is_not_the_result() -> None:
    """Only the last one's reply is."""
    transaction = chunked(OK, OK, OK)
    transaction.receive_reply(transaction.start_chunk(5), OK)
    assert transaction.phase is Phase.CONTENT
    assert not transaction.all_refused


def test_streamed_content_may_be_delivered_as_soon_as_it_is_sent() -> None:
    """It goes out before any recipient is accepted: in doubt until a reply says otherwise."""
    transaction = Transaction(TWO, chunked=True)
    group = transaction.commands_to_send()
    transaction.end_content(before_replies=True)
    assert transaction.in_doubt
    for command in group:
        transaction.receive_reply(command, OK)
    assert transaction.phase is Phase.AWAITING_RESULT
    transaction.receive_reply(LAST, OK)
    assert not transaction.in_doubt
    assert transaction.build_delivery().accepted


def test_streamed_content_goes_to_the_accepted_recipients() -> None:
    """PC-g: the last chunk was in the flight with a recipient who is refused; the other gets it."""
    transaction = Transaction(TWO, chunked=True)
    for command, reply in zip((*transaction.commands_to_send(), LAST), (OK, OK, NO, OK), strict=True):
        if command.verb is Verb.MAIL:
            transaction.end_content(before_replies=True)
        transaction.receive_reply(command, reply)
    assert transaction.build_delivery().outcomes == (Outcome.ACCEPTED, Outcome.REJECTED)


def test_streamed_content_without_recipients_reaches_none() -> None:
    """Its chunk is refused as well: 503 or 554, depending on the server."""
    transaction = Transaction(TWO, chunked=True)
    for command, reply in zip((*transaction.commands_to_send(), LAST), (OK, NO, NO, Reply(554)), strict=True):
        if command is LAST:
            assert transaction.all_refused
        elif command.verb is Verb.MAIL:
            transaction.end_content(before_replies=True)
        transaction.receive_reply(command, reply)
    assert transaction.build_delivery().outcomes == (Outcome.REJECTED, Outcome.REJECTED)


def test_a_chunk_after_a_refused_mail_reaches_no_recipient() -> None:
    """PC-h: it was streamed, and is refused with all of its envelope; who takes it nevertheless delivers to nobody."""
    for last in (NO, OK):
        transaction = Transaction(TWO, chunked=True)
        commands = (*transaction.commands_to_send(), LAST)
        for command, reply in zip(commands, (NO, Reply(503), Reply(503), last), strict=True):
            if command.verb is Verb.MAIL:
                transaction.end_content(before_replies=True)
            transaction.receive_reply(command, reply)
        assert transaction.build_delivery().outcomes == (Outcome.REJECTED, Outcome.REJECTED)


def test_content_after_data_waits_for_replies() -> None:
    """It waits for 354."""
    transaction = Transaction(TWO)
    transaction.commands_to_send()
    with pytest.raises(LocalProtocolError):
        transaction.end_content(before_replies=True)


def lmtp(*replies: Reply) -> Transaction:
    """An LMTP transaction after these replies, its content sent."""
    transaction = Transaction(TWO, lmtp=True)
    for command, reply in zip(transaction.commands_to_send(), (OK, *replies, Reply(354)), strict=True):
        transaction.receive_reply(command, reply)
    transaction.end_content()
    return transaction


def test_an_lmtp_relay_answers_for_each_recipient() -> None:
    """RFC 2033 §4.2: in the order of the RCPTs that it accepted."""
    transaction = lmtp(OK, OK)
    assert transaction.expected_replies == 2
    transaction.receive_reply(END_OF_CONTENT, OK)
    assert transaction.phase is Phase.AWAITING_RESULT
    assert transaction.in_doubt
    transaction.receive_reply(END_OF_CONTENT, FULL)
    assert transaction.phase is Phase.DONE
    assert transaction.build_delivery().outcomes == (Outcome.ACCEPTED, Outcome.DEFERRED)


def test_an_lmtp_relay_answers_once_where_it_accepted_one() -> None:
    """No reply for a refused recipient."""
    transaction = lmtp(NO, OK)
    transaction.receive_reply(END_OF_CONTENT, OK)
    assert transaction.build_delivery().outcomes == (Outcome.REJECTED, Outcome.ACCEPTED)


def test_the_machine_counts_the_replies_an_lmtp_content_has() -> None:
    """Every reply answers the oldest pending command: the end of the content is pending twice."""
    protocol = ClientProtocol()
    list(protocol.receive(b"220 lmtp\r\n"))
    assert protocol.send(lhlo("client.example")) == b"LHLO client.example\r\n"
    list(protocol.receive(b"250-lmtp\r\n250 PIPELINING\r\n"))
    assert protocol.extensions.pipelining
    for command in (mail(None), rcpt(TWO.forward_paths[0]), Command(Verb.DATA)):
        protocol.send(command)
    list(protocol.receive(b"250 ok\r\n250 ok\r\n354 go\r\n"))
    protocol.send(END_OF_CONTENT, answers=2)
    exchanges = list(protocol.receive(b"250 one\r\n452 two\r\n"))
    assert [(exchange.command, exchange.reply.code) for exchange in exchanges] == [
        (END_OF_CONTENT, 250),
        (END_OF_CONTENT, 452),
    ]
    assert protocol.state is ProtocolState.READY
    assert not protocol.pending
