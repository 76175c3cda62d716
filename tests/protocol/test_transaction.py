"""A transaction: the next commands, the decision, and that pipelining changes nothing but the time it takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.errors import DeliveryRefused, LocalProtocolError
from asyncsmtp.protocol.commands import DATA, END_OF_CONTENT, RSET, Command, Verb
from asyncsmtp.protocol.delivery import Delivery, Outcome
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.replies import Reply
from asyncsmtp.protocol.transaction import Phase, Transaction

ONE = Envelope.of("ann@example.org", "bob@example.net")
THREE = Envelope.of(None, ["bob@example.net", "carol@example.net", "dave@example.net"])
OK, GO, LATER, NO, CLOSING = Reply(250), Reply(354), Reply(451), Reply(550), Reply(421)


def after(envelope: Envelope, *replies: Reply, pipelined: bool = True) -> Transaction:
    """A transaction whose commands got these replies, its content ended where that is due."""
    transaction = Transaction(envelope, pipelined=pipelined)
    said: list[Command] = []
    for reply in replies:
        said = said or list(transaction.commands_to_send())
        if not said and transaction.phase is Phase.CONTENT:
            transaction.end_content()
            said = [END_OF_CONTENT]
        transaction.receive_reply(said.pop(0), reply)
    return transaction


def test_a_pipelined_envelope_is_sent_at_once() -> None:
    """RFC 2920 §3.1: MAIL, each RCPT, DATA; and then nothing until all are answered."""
    transaction = Transaction(THREE, {"SIZE": "10"})
    group = transaction.commands_to_send()
    assert [command.verb for command in group] == [Verb.MAIL, Verb.RCPT, Verb.RCPT, Verb.RCPT, Verb.DATA]
    assert bytes(group[0]) == b"MAIL FROM:<> SIZE=10\r\n"
    assert [bytes(one)[9:12] for one in group[1:4]] == [b"bob", b"car", b"dav"]
    for command, reply in zip(group, (OK, NO, OK, OK, GO), strict=True):
        assert transaction.commands_to_send() == ()
        assert not transaction.all_answered
        transaction.receive_reply(command, reply)
    assert transaction.all_answered
    assert transaction.phase is Phase.CONTENT
    assert transaction.commands_to_send() == ()


def test_each_rcpt_has_its_own_parameters() -> None:
    """W-81."""
    each = ({"NOTIFY": "SUCCESS,FAILURE", "ORCPT": "rfc822;bob@example.net"}, {"NOTIFY": "NEVER"}, {})
    group = Transaction(THREE, {"RET": "HDRS"}, each).commands_to_send()
    assert [bytes(command) for command in group[:-1]] == [
        b"MAIL FROM:<> RET=HDRS\r\n",
        b"RCPT TO:<bob@example.net> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;bob@example.net\r\n",
        b"RCPT TO:<carol@example.net> NOTIFY=NEVER\r\n",
        b"RCPT TO:<dave@example.net>\r\n",
    ]


def test_a_group_after_content_begins_with_rset() -> None:
    """wire.md, "what real servers do": without it some lose count."""
    transaction = Transaction(ONE)
    group = transaction.commands_to_send(after_content=True)
    assert [command.verb for command in group] == [Verb.RSET, Verb.MAIL, Verb.RCPT, Verb.DATA]
    for command, reply in zip(group, (OK, OK, OK, GO), strict=True):
        transaction.receive_reply(command, reply)
    assert transaction.phase is Phase.CONTENT


def test_lockstep_sends_one_command_at_a_time() -> None:
    """PIPELINING is not offered here."""
    transaction = Transaction(ONE, pipelined=False)
    for verb, reply in ((Verb.MAIL, OK), (Verb.RCPT, OK), (Verb.DATA, GO)):
        (command,) = transaction.commands_to_send()
        assert command.verb is verb
        transaction.receive_reply(command, reply)
    assert transaction.phase is Phase.CONTENT


@pytest.mark.parametrize("replies", [(NO,), (OK, NO), (OK, LATER)])
def test_lockstep_omits_commands_made_pointless_by_a_refusal(replies: tuple[Reply, ...]) -> None:
    """W-55 and W-57: RSET is."""
    transaction = after(ONE, *replies, pipelined=False)
    assert transaction.phase is Phase.RESETTING
    assert transaction.is_decided
    assert transaction.commands_to_send() == (RSET,)
    transaction.receive_reply(RSET, OK)
    assert transaction.phase is Phase.DONE
    assert transaction.commands_to_send() == ()


@pytest.mark.parametrize("pipelined", [True, False])
def test_a_refused_data_is_the_reply_for_accepted_recipients(pipelined: bool) -> None:
    """R-04: RFC 5321 §3.3; RSET follows."""
    transaction = after(THREE, OK, OK, NO, OK, LATER, pipelined=pipelined)
    assert transaction.build_delivery().outcomes == (Outcome.DEFERRED, Outcome.REJECTED, Outcome.DEFERRED)
    assert not transaction.build_delivery().content_sent
    assert transaction.commands_to_send() == (RSET,)


@pytest.mark.parametrize(
    ("final", "outcome"), [(OK, Outcome.ACCEPTED), (LATER, Outcome.DEFERRED), (NO, Outcome.REJECTED)]
)
def test_the_final_reply_decides(final: Reply, outcome: Outcome) -> None:
    """RFC 5321 §4.2.5."""
    transaction = after(ONE, OK, OK, GO, final)
    assert transaction.phase is Phase.DONE
    assert transaction.build_delivery(host="relay:25", tls="TLSv1.3") == Delivery(
        ONE, OK, (OK,), (final,), True, "relay:25", "TLSv1.3"
    )
    assert transaction.build_delivery().outcomes == (outcome,)


@pytest.mark.parametrize("final", [OK, NO])
def test_the_reply_to_an_empty_content_counts_for_no_recipient(final: Reply) -> None:
    """PC-b, WI-19: though the relay says 250, nobody has the message; and it was never in doubt."""
    transaction = after(THREE, OK, NO, LATER, NO, GO)
    assert not transaction.has_accepted_recipient
    transaction.end_content()
    assert not transaction.content_sent
    assert not transaction.in_doubt
    transaction.receive_reply(END_OF_CONTENT, final)
    assert transaction.build_delivery() == Delivery(THREE, OK, (NO, LATER, NO), ())
    assert transaction.build_delivery().outcomes == (Outcome.REJECTED, Outcome.DEFERRED, Outcome.REJECTED)


def test_a_refused_mail_outweighs_accepted_recipients() -> None:
    """PC-d: the message is not the relay's to take."""
    transaction = after(ONE, NO, OK, GO)
    assert not transaction.has_accepted_recipient
    transaction.end_content()
    transaction.receive_reply(END_OF_CONTENT, OK)
    assert transaction.build_delivery() == Delivery(ONE, NO, (), ())


def test_it_is_in_doubt_between_its_end_and_its_reply() -> None:
    """RFC 1047: past the point of no return."""
    transaction = after(ONE, OK, OK, GO)
    assert not transaction.in_doubt
    assert not transaction.is_decided
    transaction.end_content()
    assert transaction.phase is Phase.AWAITING_RESULT
    assert transaction.in_doubt
    assert not transaction.all_answered
    transaction.receive_reply(END_OF_CONTENT, OK)
    assert not transaction.in_doubt
    assert transaction.is_decided


def test_a_content_ends_when_it_is_due_and_once() -> None:
    """Our bug otherwise: a second dot would be the next transaction's."""
    transaction = Transaction(ONE)
    with pytest.raises(LocalProtocolError, match="phase envelope"):
        transaction.end_content()
    transaction = after(ONE, OK, OK, GO)
    transaction.end_content()
    with pytest.raises(LocalProtocolError, match="phase awaiting result"):
        transaction.end_content()


@pytest.mark.parametrize("replies", [(), (OK,), (OK, OK), (OK, OK, GO)])
def test_there_is_no_delivery_before_it_is_decided(replies: tuple[Reply, ...]) -> None:
    """Our bug otherwise."""
    with pytest.raises(LocalProtocolError, match="not decided yet"):
        after(ONE, *replies).build_delivery()


@pytest.mark.parametrize(
    ("replies", "outcomes"),
    [
        ((), "ddd"),
        ((OK,), "ddd"),
        ((OK, NO), "rdd"),
        ((OK, OK, NO, OK), "drd"),
        ((OK, NO, NO, NO), "rrr"),
        ((OK, OK, NO, OK, GO), "drd"),
        ((NO,), "rrr"),
        ((NO, NO, NO, NO), "rrr"),
    ],
)
def test_a_421_stands_for_every_reply_that_is_still_to_come(replies: tuple[Reply, ...], outcomes: str) -> None:
    """WI-11, W-59: those who were judged keep their verdict."""
    transaction = after(THREE, *replies)
    transaction.commands_to_send()
    transaction.receive_closing(CLOSING)
    assert transaction.phase is Phase.DONE
    assert transaction.all_answered
    assert [outcome[0] for outcome in transaction.build_delivery().outcomes] == list(outcomes)


def test_a_421_to_the_content_is_an_answer() -> None:
    """WI-11: RFC 5321 §4.2.5, deferred and not in doubt."""
    transaction = after(ONE, OK, OK, GO)
    transaction.end_content()
    transaction.receive_closing(CLOSING)
    assert not transaction.in_doubt
    assert transaction.build_delivery().outcomes == (Outcome.DEFERRED,)


def test_a_421_after_the_end_changes_nothing() -> None:
    """Nor does one to the RSET that clears a refused transaction."""
    transaction = after(ONE, OK, OK, GO, OK)
    transaction.receive_closing(CLOSING)
    assert transaction.build_delivery().outcomes == (Outcome.ACCEPTED,)
    transaction = after(THREE, OK, OK, NO, LATER, NO)
    transaction.receive_closing(CLOSING)
    assert transaction.all_answered
    assert transaction.build_delivery() == Delivery(THREE, OK, (OK, NO, LATER), (NO,))
    transaction = after(ONE, NO, NO, NO)
    transaction.commands_to_send()
    transaction.receive_reply(RSET, CLOSING)
    assert transaction.phase is Phase.DONE
    assert transaction.build_delivery().outcomes == (Outcome.REJECTED,)


@pytest.mark.parametrize("reply", [LATER, NO, Reply(503)])
def test_what_was_answered_before_a_refused_rset_stays(reply: Reply) -> None:
    """FT-12, WI-06: whether the replies are one off shows at QUIT; a transaction behind it was not begun."""
    transaction = after(ONE, OK, NO, NO)
    transaction.commands_to_send()
    transaction.receive_reply(RSET, reply)
    assert transaction.build_delivery().outcomes == (Outcome.REJECTED,)
    assert (transaction.reset_reply, transaction.is_begun) == (reply, True)
    transaction = Transaction(ONE)
    assert transaction.commands_to_send(after_content=True)[0] is RSET
    transaction.receive_reply(RSET, reply)
    assert (transaction.reset_reply, transaction.is_begun) == (reply, False)


def test_only_those_without_a_reply_are_in_doubt() -> None:
    """FT-12: a refused recipient has its reply; what an LMTP server answered too, unless replies are one off."""
    envelope = Envelope.of("ann@example.org", ["a@example.net", "b@example.net", "c@example.net"])
    for lmtp, shifted, doubtful in ((False, False, 2), (False, True, 2), (True, False, 1), (True, True, 2)):
        transaction = Transaction(envelope, lmtp=lmtp)
        for command, reply in zip(transaction.commands_to_send(), (OK, OK, NO, OK, Reply(354)), strict=True):
            transaction.receive_reply(command, reply)
        transaction.end_content()
        if lmtp:
            transaction.receive_reply(END_OF_CONTENT, OK)
        part, delivery = transaction.divide(shifted=shifted, host="relay:25")
        assert len(part.forward_paths) == doubtful
        assert delivery is not None
        assert delivery.host == "relay:25"
        assert delivery.outcomes[1:] == (Outcome.REJECTED, Outcome.DEFERRED)


def test_all_are_in_doubt_where_no_reply_is_certain() -> None:
    """FT-12: nobody was refused; RCPT is not answered; or the replies to chunks are one off, with no 354 before."""
    assert after(ONE, OK, OK, Reply(354)).divide(shifted=False)[1] is None
    transaction = Transaction(ONE)
    assert transaction.divide(shifted=False) == (ONE, None)
    assert after(ONE, OK, NO, NO).divide(shifted=True) == (ONE, None)
    two = Envelope.of("ann@example.org", ["a@example.net", "b@example.net"])
    chunked = Transaction(two, chunked=True)
    for command, reply in zip(chunked.commands_to_send(), (OK, OK, NO), strict=True):
        chunked.receive_reply(command, reply)
    assert chunked.divide(shifted=True) == (two, None)
    assert chunked.divide(shifted=False)[1] is not None


def test_a_positive_reply_to_the_content_is_known() -> None:
    """FT-12: what was accepted is accepted, whatever the RSET before it was answered with."""
    transaction = after(ONE, OK, OK, Reply(354))
    assert not transaction.has_accepted_content
    transaction.end_content()
    transaction.receive_reply(END_OF_CONTENT, OK)
    assert transaction.has_accepted_content


REFUSALS = st.sampled_from([LATER, NO, Reply(552, (b"5.2.2 full",))])
ANSWERS = st.just(OK) | REFUSALS


def run(envelope: Envelope, mail: Reply, rcpts: list[Reply], data: Reply, final: Reply, *, pipelined: bool) -> Delivery:
    """A relay that judges each command so, whatever the order in which they reach it."""
    transaction = Transaction(envelope, pipelined=pipelined)
    verdicts = list(rcpts)
    for _ in range(20):
        for command in transaction.commands_to_send():
            if command.verb is Verb.MAIL:
                reply = mail
            elif command.verb is Verb.RCPT:
                reply = verdicts.pop(0) if mail.positive else Reply(503)
            elif command.verb is Verb.DATA:
                taken = mail.positive and any(one.positive for one in rcpts)
                reply = data if taken else Reply(503)
            else:
                reply = OK
            transaction.receive_reply(command, reply)
        if transaction.phase is Phase.CONTENT:
            transaction.end_content()
            transaction.receive_reply(END_OF_CONTENT, final)
    assert transaction.phase is Phase.DONE
    return transaction.build_delivery()


@given(ANSWERS, st.lists(ANSWERS, min_size=3, max_size=3), st.just(GO) | REFUSALS, ANSWERS)
def test_pipelined_and_lockstep_deliver_the_same(mail: Reply, rcpts: list[Reply], data: Reply, final: Reply) -> None:
    """P4: the same verdicts, the same delivery."""
    assert run(THREE, mail, rcpts, data, final, pipelined=True) == run(THREE, mail, rcpts, data, final, pipelined=False)


def test_data_is_one_command_for_all() -> None:
    """A constant, not made anew for each message."""
    assert Transaction(ONE).commands_to_send()[-1] is DATA


ALL = Envelope.of(None, ["bob@example.net", "carol@example.net", "dave@example.net"], all_or_nothing=True)


@pytest.mark.parametrize("pipelined", [True, False])
def test_all_or_nothing_sends_data_once_everybody_is_accepted(pipelined: bool) -> None:
    """A 354 cannot be unsaid: DATA is in no group with the recipients."""
    transaction = Transaction(ALL, pipelined=pipelined)
    said: list[list[Verb]] = []
    while transaction.phase is Phase.ENVELOPE:
        group = transaction.commands_to_send()
        said.append([command.verb for command in group])
        for command in group:
            transaction.receive_reply(command, GO if command is DATA else OK)
    assert said[-1] == [Verb.DATA]
    assert [verb for group in said for verb in group] == [Verb.MAIL, Verb.RCPT, Verb.RCPT, Verb.RCPT, Verb.DATA]
    transaction.end_content()
    transaction.receive_reply(END_OF_CONTENT, OK)
    assert transaction.build_delivery().accepted


@pytest.mark.parametrize("pipelined", [True, False])
@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("refusal", [NO, LATER])
def test_all_or_nothing_clears_where_one_is_refused(pipelined: bool, chunked: bool, refusal: Reply) -> None:
    """Each RCPT was sent, none has the message: the others are to be tried again, with the reason."""
    transaction = Transaction(ALL, pipelined=pipelined, chunked=chunked)
    verbs: list[Verb] = []
    answers = iter([OK, OK, refusal, OK, OK])
    while transaction.phase is not Phase.DONE:
        for command in transaction.commands_to_send():
            verbs.append(command.verb)
            transaction.receive_reply(command, next(answers))
    assert verbs == [Verb.MAIL, Verb.RCPT, Verb.RCPT, Verb.RCPT, Verb.RSET]
    delivery = transaction.build_delivery()
    assert not delivery.content_sent
    assert delivery.aborted
    assert delivery.outcomes == (Outcome.DEFERRED, Outcome.of(refusal), Outcome.DEFERRED)
    assert delivery.replies == (refusal,) * 3
    deferred = delivery.deferred
    assert deferred is not None
    assert deferred.all_or_nothing
    with pytest.raises(DeliveryRefused, match="RCPT") as caught:
        delivery.raise_for_refusal()
    assert b"carol" in bytes(caught.value.command)


def test_all_or_nothing_and_one_recipient_is_as_ever() -> None:
    """There is nobody to leave out."""
    one = Envelope.of(None, "bob@example.net", all_or_nothing=True)
    delivery = after(one, OK, NO, OK).build_delivery()
    assert (delivery.outcomes, delivery.aborted) == ((Outcome.REJECTED,), False)
