"""A delivery: which reply decided whose fate."""

from __future__ import annotations

import pytest

from asyncsmtp.errors import DeliveryRefused, InvalidArgument
from asyncsmtp.protocol.commands import Verb
from asyncsmtp.protocol.delivery import Delivery, Outcome, RecipientResult, TlsInfo
from asyncsmtp.protocol.envelope import Envelope, Mailbox, RcptOptions
from asyncsmtp.protocol.replies import Reply

BOB, CAROL = "bob@example.net", "carol@example.net"
BOTH = Envelope.of("ann@example.org", [BOB, CAROL])
OK, LATER, NO, SPAM = Reply(250, (b"ok",)), Reply(451, (b"later",)), Reply(550, (b"no",)), Reply(554, (b"spam",))
ACCEPTED, DEFERRED, REJECTED = Outcome.ACCEPTED, Outcome.DEFERRED, Outcome.REJECTED


@pytest.mark.parametrize(
    ("code", "outcome"), [(250, ACCEPTED), (251, ACCEPTED), (421, DEFERRED), (452, DEFERRED), (550, REJECTED)]
)
def test_an_outcome_follows_the_first_digit(code: int, outcome: Outcome) -> None:
    """WI-21: the reply code governs, not what its text claims."""
    assert Outcome.of(Reply(code, (b"5.1.1 2.0.0 4.0.0",))) is outcome


@pytest.mark.parametrize(
    ("delivery", "outcomes", "verb", "reply"),
    [
        (Delivery(BOTH, OK, (OK, OK), (OK,), True), (ACCEPTED, ACCEPTED), None, OK),
        (Delivery(BOTH, OK, (NO, OK), (OK,), True), (REJECTED, ACCEPTED), Verb.RCPT, NO),
        (Delivery(BOTH, OK, (OK, NO), (OK,), True), (ACCEPTED, REJECTED), Verb.RCPT, NO),
        (Delivery(BOTH, OK, (NO, LATER), ()), (REJECTED, DEFERRED), Verb.RCPT, NO),
        (Delivery(BOTH, OK, (OK, NO), (SPAM,), True), (REJECTED, REJECTED), Verb.CONTENT, SPAM),
        (Delivery(BOTH, OK, (OK, NO), (LATER,)), (DEFERRED, REJECTED), Verb.DATA, LATER),
        (Delivery(BOTH, LATER, (), ()), (DEFERRED, DEFERRED), Verb.MAIL, LATER),
    ],
)
def test_each_recipient_has_the_reply_that_decided(
    delivery: Delivery, outcomes: tuple[Outcome, ...], verb: Verb | None, reply: Reply
) -> None:
    """W-55 to W-58: MAIL decides for all, RCPT for one, DATA and the content for those who are left."""
    assert delivery.outcomes == outcomes
    assert delivery.accepted is (verb is None)
    if verb is None:
        delivery.raise_for_refusal()
        return
    with pytest.raises(DeliveryRefused) as refused:
        delivery.raise_for_refusal()
    assert refused.value.delivery is delivery
    assert refused.value.command.verb is verb
    assert refused.value.reply == reply


def test_a_refused_rcpt_names_its_recipient() -> None:
    """D-23: The error is read by a person who looks for the address."""
    with pytest.raises(DeliveryRefused) as refused:
        Delivery(BOTH, OK, (OK, NO), (OK,), True).raise_for_refusal()
    assert str(refused.value.command) == f"RCPT TO:<{CAROL}>"
    assert refused.value.reply.code == 550
    assert "550" in str(refused.value)


def test_a_recipient_is_found_by_mailbox_or_by_text() -> None:
    """In either form in which the caller has it."""
    delivery = Delivery(BOTH, OK, (OK, NO), (OK,), True, "relay:25", "TLSv1.3")
    assert delivery.reply(BOB) == OK
    assert delivery.outcome(Mailbox.parse(CAROL)) is REJECTED


@pytest.mark.parametrize("said", ["bob@b\u00fccher.example", "bob@XN--BCHER-KVA.example", "bob@xn--bcher-kva.example"])
def test_a_recipient_is_found_however_its_domain_is_written(said: str) -> None:
    """The envelope has it in A-labels; the caller knows what he wrote."""
    delivery = Delivery(Envelope.of(None, ["ann@example.net", "bob@b\u00fccher.example"]), OK, (OK, NO), (OK,), True)
    assert delivery.outcome(said) is REJECTED
    assert delivery.reply(said) == NO


def test_two_spellings_of_a_recipient_stay_apart() -> None:
    """An exact match comes first."""
    delivery = Delivery(Envelope.of(None, ["bob@Example.net", BOB]), OK, (OK, NO), (OK,), True)
    assert (delivery.outcome("bob@Example.net"), delivery.outcome(BOB)) == (ACCEPTED, REJECTED)
    assert delivery.outcome("bob@EXAMPLE.NET") is ACCEPTED


@pytest.mark.parametrize("stranger", ["Bob@example.net", Mailbox.parse("dan@example.net"), "bob", "bob\r\n"])
def test_an_unknown_recipient_is_an_error_that_names_the_known_ones(stranger: Mailbox | str) -> None:
    """A local part in other case is another mailbox (RFC 5321 §2.4)."""
    delivery = Delivery(BOTH, OK, (OK, NO), (OK,), True)
    named = str(stranger).replace("\r\n", "")
    for ask in (delivery.outcome, delivery.reply):
        with pytest.raises(
            InvalidArgument, match=rf"“{named}.*” is not a recipient of this message.*{BOB}.*{CAROL}"
        ) as caught:
            ask(stranger)
        assert "\r" not in str(caught.value)


def test_of_many_recipients_a_few_are_named() -> None:
    """The message of an error is for reading."""
    delivery = Delivery(Envelope.of(None, [f"r{number}@example.net" for number in range(250)]), NO, (), ())
    with pytest.raises(
        InvalidArgument, match=r"use one of r0@example.net, r1@example.net, r2@example.net and 247 more$"
    ):
        delivery.outcome(BOB)


def test_the_same_recipient_twice_is_two_recipients() -> None:
    """D-18: wire.md, defects seen in peers: duplicates must not collapse."""
    delivery = Delivery(Envelope.of(None, [BOB, BOB]), OK, (OK, NO), (OK,), True)
    assert delivery.outcomes == (ACCEPTED, REJECTED)
    assert delivery.outcome(BOB) is ACCEPTED


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (Reply(552, (b"too many recipients",)), DEFERRED),
        (Reply(552, (b"5.5.3 too many recipients",)), DEFERRED),
        (Reply(552, (b"5.2.2 mailbox full",)), DEFERRED),
        (Reply(552, (b"5.3.4 message too big",)), REJECTED),
        (Reply(552, (b"5.2.3 message too big",)), REJECTED),
        (Reply(452, (b"4.5.3 too many recipients",)), DEFERRED),
        (Reply(550, (b"5.5.3 too many recipients",)), REJECTED),
    ],
)
def test_a_552_to_rcpt_is_temporary(reply: Reply, outcome: Outcome) -> None:
    """WI-22, RFC 5321 §4.5.3.1.10: it is how RFC 821 wrote 452; not where it says that the message is too big."""
    delivery = Delivery(BOTH, OK, (OK, reply), (OK,), True)
    assert delivery.outcomes == (ACCEPTED, outcome)
    assert delivery.outcome(CAROL) is outcome
    assert delivery.reply(CAROL) == reply


@pytest.mark.parametrize(
    "delivery",
    [
        Delivery(BOTH, OK, (OK, OK), (Reply(552),), True),
        Delivery(BOTH, OK, (OK, OK), (Reply(552),)),
        Delivery(BOTH, Reply(552), (), ()),
    ],
)
def test_a_552_to_anything_else_is_final(delivery: Delivery) -> None:
    """RFC 5321 §4.2.3: "exceeded storage allocation", of the message or of the sender."""
    assert delivery.outcomes == (REJECTED, REJECTED)
    assert delivery.deferred is None


def test_the_rest_of_a_batch_is_an_envelope() -> None:
    """PC-f, WI-22: of 250 recipients 100 are accepted; the others are sent again, with their options."""
    paths = [f"r{number}@example.net" for number in range(250)]
    mail_options = [RcptOptions(orcpt=f"rfc822;{path}") for path in paths]
    envelope = Envelope.of("ann@example.org", paths, rcpt_options=mail_options)
    delivery = Delivery(envelope, OK, (*[OK] * 100, *[Reply(552, (b"too many",))] * 150), (OK,), True)
    assert delivery.deferred == Envelope.of("ann@example.org", paths[100:], rcpt_options=mail_options[100:])


def test_the_final_reply_is_the_first_of_them() -> None:
    """There is one, but from an LMTP relay; none where it never came to the content."""
    assert Delivery(BOTH, OK, (OK, OK), (SPAM, OK), True).content_reply == SPAM
    assert Delivery(BOTH, NO, (), ()).content_reply is None


@pytest.mark.parametrize(
    ("delivery", "accepted"),
    [
        (Delivery(BOTH, OK, (OK, OK), (OK,), True), True),
        (Delivery(BOTH, OK, (OK, OK), (OK, OK), True), True),
        (Delivery(BOTH, NO, (), ()), False),
        (Delivery(BOTH, OK, (OK, NO), (OK,), True), False),
        (Delivery(BOTH, OK, (OK, OK), (SPAM,), True), False),
        (Delivery(BOTH, OK, (OK, OK), (OK, SPAM), True), False),
        (Delivery(BOTH, OK, (OK, OK), ()), False),
    ],
)
def test_accepted_are_all_or_it_is_not(delivery: Delivery, accepted: bool) -> None:
    """MAIL, each RCPT and each reply to the content; and there must be one."""
    assert delivery.accepted is accepted


def test_an_lmtp_relay_judges_each() -> None:
    """RFC 2033 §4.2: a refused recipient has no reply of its own behind the content."""
    envelope = Envelope.of("a@example.org", ["a@example.net", "b@example.net", "c@example.net"])
    delivery = Delivery(envelope, OK, (OK, NO, OK), (OK, LATER), True)
    assert delivery.outcomes == (ACCEPTED, REJECTED, DEFERRED)
    assert delivery.replies == (OK, NO, LATER)


@pytest.mark.parametrize(("verified", "said"), [(True, "verified"), (False, "not verified")])
def test_tls_info_is_readable(verified: bool, said: str) -> None:
    """As a line of the dialogue has it; the fingerprint is for comparing, not for reading."""
    facts = TlsInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", verified, "ab" * 32)
    assert str(facts) == f"TLSv1.3, TLS_AES_256_GCM_SHA384, certificate {said}"


def test_a_delivery_is_iterated_by_recipient() -> None:
    """In the order of the envelope; the same recipient twice has two results."""
    delivery = Delivery(Envelope.of(None, [BOB, CAROL, BOB]), OK, (OK, NO, LATER), (OK,), True)
    assert [(r.address, r.outcome, r.reply) for r in delivery] == [
        (BOB, ACCEPTED, OK),
        (CAROL, REJECTED, NO),
        (BOB, DEFERRED, LATER),
    ]
    assert next(iter(delivery)) == RecipientResult(Mailbox.parse(BOB), ACCEPTED, OK)
    assert len(delivery) == 3


@pytest.mark.parametrize(
    ("delivery", "refused"),
    [
        (Delivery(BOTH, OK, (OK, OK), (OK,), True), ()),
        (Delivery(BOTH, OK, (OK, NO), (OK,), True), (CAROL,)),
        (Delivery(BOTH, OK, (LATER, OK), (OK,), True), (BOB,)),
        (Delivery(BOTH, OK, (OK, OK), (SPAM,), True), (BOB, CAROL)),
        (Delivery(BOTH, OK, (OK, NO), ()), (BOB, CAROL)),
        (Delivery(BOTH, NO, (), ()), (BOB, CAROL)),
    ],
)
def test_the_recipients_that_were_not_accepted_are_listed(delivery: Delivery, refused: tuple[str, ...]) -> None:
    """Deferred ones too; a delivery is true where there is none of them."""
    assert delivery.refused == tuple(map(Mailbox.parse, refused))
    assert bool(delivery) is (not refused)


def test_a_delivery_is_short_in_a_traceback() -> None:
    """Counts and the relay; no address, no text of a reply."""
    assert repr(Delivery(BOTH, OK, (OK, NO), (OK,), True, "relay.example:587")) == (
        "<Delivery: 1 accepted, 1 rejected by relay.example:587>"
    )
    assert repr(Delivery(BOTH, OK, (LATER, LATER), ())) == "<Delivery: 2 deferred>"


def test_the_message_does_not_count_in_comparisons() -> None:
    """It is there to tell deliveries apart, and shown nowhere."""
    message = object()
    delivery = Delivery(BOTH, OK, (OK, OK), (OK,), True, message=message)
    assert delivery.message is message
    assert delivery == Delivery(BOTH, OK, (OK, OK), (OK,), True)
    assert "object" not in repr(delivery)
