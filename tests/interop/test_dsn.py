"""Notifications of delivery (RFC 3461) asked of real servers, which report to the sender's mailbox."""

from __future__ import annotations

import email
import email.policy
from email.message import MIMEPart

import pytest

from asyncsmtp.client.session.session import Session
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.envelope import MailOptions, Notify, RcptOptions, Ret
from tests.interop.exim import Exim
from tests.interop.opensmtpd import OpenSmtpd
from tests.interop.served_postfix import ServedPostfix
from tests.interop.server import Server, original
from tests.interop.test_servers import letter, offering, on

pytestmark = pytest.mark.interop

ENVID = "QQ+314159=a b"  # all that must be encoded: a plus, an equals sign, a space
ORCPT = "rfc822;Ada+list=x@example.com"
REPORTED = {  # the two, as each server's report has them
    ServedPostfix: (ENVID, ORCPT),
    Exim: ("QQ+2B314159+3Da+20b", "rfc822;Ada+2Blist+3Dx@example.com"),  # in the xtext of the wire
    OpenSmtpd: (None, None),  # it takes them, and leaves them out
}


def asking(*notify: Notify) -> Message:
    """A message to one recipient for each of `notify`, the first of them once known by another name."""
    to = [f"{name}@example.com" for name in ("ada", "bob")[: len(notify)]]
    asked = [RcptOptions(notify=each, orcpt=None if number else ORCPT) for number, each in enumerate(notify)]
    made = letter(1, *to)
    return Message(made.envelope.with_options(MailOptions(ret=Ret.HDRS, envid=ENVID), asked), made.content)


def reports(mails: list[bytes]) -> list[list[MIMEPart]]:
    """Of each mail that is a report its blocks: about the message, then about each recipient (RFC 3464 §2.1)."""
    parsed = [email.message_from_bytes(mail, policy=email.policy.default) for mail in mails]
    parts = [part for mail in parsed for part in mail.walk() if part.get_content_type() == "message/delivery-status"]
    return [[block for block in part.iter_parts() if block.items()] for part in parts]


@on(*offering("DSN"))
async def test_success_is_reported_with_our_names_for_it(server: Server) -> None:
    """ENVID and ORCPT come back as they were given: what was encoded on the wire was understood there."""
    sent = asking(Notify.SUCCESS)
    async with Session(server.relay()) as session:
        assert (await session.send(sent)).accepted
    mails = server.wait_for(2)
    assert bytes(sent.content) in map(original, mails)
    [fields] = [
        {name.lower(): str(value) for block in report for name, value in block.items()} for report in reports(mails)
    ]
    assert fields["action"] == "delivered"
    assert fields["final-recipient"].endswith("ada@example.com")
    assert (fields.get("original-envelope-id"), fields.get("original-recipient")) == REPORTED[type(server)]


@on("postfix", "exim")  # OpenSMTPD adds each recipient's NOTIFY to that of the one before (6.8.0p2)
async def test_each_recipient_has_options_of_its_own(server: Server) -> None:
    """Both are delivered; who is to be silent about is in no report."""
    async with Session(server.relay()) as session:
        assert (await session.send(asking(Notify.SUCCESS | Notify.FAILURE, Notify.NEVER))).accepted
        assert (await session.send(asking(Notify.NEVER))).accepted
        assert (await session.send(asking(Notify.FAILURE | Notify.DELAY))).accepted
    [report] = reports(server.wait_for(5))
    about = [str(block["Final-Recipient"]) for block in report if block["Final-Recipient"]]
    assert [each.endswith("ada@example.com") for each in about] == [True]
