"""The envelope: who to whom, and what is asked for beyond that."""

from __future__ import annotations

import pytest

from asyncsmtp.errors import InvalidArgument, RecipientError
from asyncsmtp.protocol.envelope import Envelope, Mailbox, MailOptions, Notify, RcptOptions, Ret, deduplicate

NEVER, ALWAYS = RcptOptions(Notify.NEVER), RcptOptions(Notify.SUCCESS | Notify.FAILURE)
HEADERS = MailOptions(ret=Ret.HDRS)


def test_an_envelope_is_made_of_text_or_mailboxes() -> None:
    """A library user has text, a campaign has checked mailboxes."""
    bob = Mailbox.parse("bob@example.net")
    assert Envelope.of("ann@example.org", "bob@example.net") == Envelope(Mailbox.parse("ann@example.org"), (bob,))
    assert Envelope.of("ann@example.org", bob) == Envelope.of("ann@example.org", ["bob@example.net"])
    assert Envelope.of(None, [bob, "bob@example.net"]).forward_paths == (bob, bob)


@pytest.mark.parametrize("null", [None, "", "<>"])
def test_the_null_reverse_path_has_three_spellings(null: str | None) -> None:
    """W-67, RFC 5321 §4.5.5."""
    assert Envelope.of(null, "bob@example.net").reverse_path is None


@pytest.mark.parametrize("paths", [[], [""], ["bob@example.net", "no"]])
def test_an_envelope_needs_recipients_and_all_of_them_good(paths: list[str]) -> None:
    """W-80."""
    with pytest.raises(RecipientError):
        Envelope.of("ann@example.org", paths)


@pytest.mark.parametrize(
    ("reverse_path", "forward_path", "needed"),
    [
        ("ann@example.org", "bob@example.net", False),
        ("zoë@example.org", "bob@example.net", True),
        ("ann@example.org", "zoë@example.net", True),
        (None, "zoë@example.net", True),
        (None, "bob@example.net", False),
    ],
)
def test_any_path_may_need_smtputf8(reverse_path: str | None, forward_path: str, needed: bool) -> None:
    """W-73."""
    assert Envelope.of(reverse_path, forward_path).needs_smtputf8 is needed


def test_a_summary_names_the_first_and_counts_the_others() -> None:
    """Errors say who it is about, not who all of them are."""
    assert Envelope.of(None, "bob@example.net").summary == "bob@example.net"
    assert Envelope.of(None, ["bob@example.net", "c@d.example", "e@f.example"]).summary == "bob@example.net and 2 more"


def test_nothing_is_asked_for_unless_somebody_does() -> None:
    """The way of nearly every envelope."""
    envelope = Envelope.of("ann@example.org", "bob@example.net")
    assert envelope.mail_options is None
    assert envelope.rcpt_options == ()


def test_rcpt_options_are_for_all_or_for_each() -> None:
    """W-81: one recipient is reported on, the other never."""
    both = ["bob@example.net", "carol@example.net"]
    assert Envelope.of("ann@example.org", both, rcpt_options=NEVER).rcpt_options == (NEVER, NEVER)
    each = Envelope.of("ann@example.org", both, mail_options=HEADERS, rcpt_options=[ALWAYS, None])
    assert (each.mail_options, each.rcpt_options) == (HEADERS, (ALWAYS, None))


@pytest.mark.parametrize("mail_options", [[NEVER], [NEVER, None, NEVER]])
def test_rcpt_options_for_some_are_refused(mail_options: list[RcptOptions | None]) -> None:
    """There is no telling which recipients they are for."""
    with pytest.raises(InvalidArgument, match=f"{len(mail_options)} rcpt_options for 2 recipients"):
        Envelope.of(None, ["bob@example.net", "carol@example.net"], rcpt_options=mail_options)


def test_other_options_make_another_envelope() -> None:
    """W-83: the caller's stays as it is."""
    envelope = Envelope.of("ann@example.org", "bob@example.net", mail_options=HEADERS)
    assert envelope.with_options(None, NEVER) == Envelope.of("ann@example.org", "bob@example.net", rcpt_options=NEVER)
    assert envelope == Envelope.of("ann@example.org", "bob@example.net", mail_options=HEADERS)


def test_the_callers_list_of_options_is_not_changed() -> None:
    """W-83: nor does a change to it reach the envelope."""
    asked: list[RcptOptions | None] = [NEVER]
    envelope = Envelope.of(None, "bob@example.net", rcpt_options=asked)
    asked[0] = ALWAYS
    assert envelope.rcpt_options == (NEVER,)


def test_a_subset_keeps_each_recipients_options() -> None:
    """WI-22: what is sent again later asks for the same as before."""
    three = ["bob@example.net", "carol@example.net", "bob@example.net"]
    envelope = Envelope.of(None, three, mail_options=HEADERS, rcpt_options=[ALWAYS, None, NEVER])
    part = envelope.subset([2, 0])
    assert part == Envelope.of(None, [three[2], three[0]], mail_options=HEADERS, rcpt_options=[NEVER, ALWAYS])
    assert Envelope.of(None, three).subset([1]) == Envelope.of(None, three[1])


def test_a_mailbox_in_two_spellings_is_one_recipient() -> None:
    """RFC 5321 §2.4: the domain in any case, the local part as it is; the first spelling is kept, in order."""
    found = [
        Mailbox.parse(text) for text in ("bob@Example.net", "ann@example.net", "bob@example.NET", "Bob@example.net")
    ]
    assert deduplicate(found) == (found[0], found[1], found[3])
