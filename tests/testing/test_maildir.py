"""The Maildir of the sandbox: what a mail becomes, and how it is read back."""

from __future__ import annotations

import mailbox
import os
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import SMTP
from pathlib import Path

import pytest

import asyncsmtp
from asyncsmtp.testing import Maildir, Received, Sandbox

CONTENT = b"Subject: News\r\nFrom: Ann <ann@example.org>\r\n\r\nHello\r\n.\r\n"
MESSAGE = Received("ann@example.org", ("bob@example.net", "eve@example.net"), CONTENT)


def test_a_mail_is_kept_octet_for_octet_below_its_delivery_lines(tmp_path: Path) -> None:
    """RFC 5321 §4.4: final delivery adds Return-Path; Delivered-To tells the Bcc recipients."""
    maildir = Maildir(tmp_path)
    name = maildir.add(MESSAGE)
    assert (tmp_path / "new" / name).read_bytes() == (
        b"Return-Path: <ann@example.org>\r\nDelivered-To: bob@example.net\r\nDelivered-To: eve@example.net\r\n"
        + CONTENT
    )
    assert list((tmp_path / "tmp").iterdir()) == []


def test_mails_come_back_in_the_order_of_arrival(tmp_path: Path) -> None:
    """Names sort by it, many in one microsecond included."""
    maildir = Maildir(tmp_path)
    names = [maildir.add(MESSAGE) for _ in range(200)]
    assert [mail.path.name for mail in maildir.mails()] == names
    assert len(maildir) == len(set(names)) == 200


def test_a_mail_has_its_envelope_and_its_text(tmp_path: Path) -> None:
    """Tests and the command line use these."""
    maildir = Maildir(tmp_path)
    maildir.add(MESSAGE)
    [mail] = maildir.mails()
    assert (mail.reverse_path, mail.forward_paths) == ("ann@example.org", ("bob@example.net", "eve@example.net"))
    assert mail.message["Subject"] == "News"
    assert mail.text == "Hello\r\n.\r\n"


def test_delivery_lines_in_the_content_do_not_count(tmp_path: Path) -> None:
    """The envelope alone has the recipients."""
    maildir = Maildir(tmp_path)
    maildir.add(Received("", ("bob@example.net",), b"Subject: x\r\nDelivered-To: eve@example.net\r\n\r\n"))
    [mail] = maildir.mails()
    assert (mail.reverse_path, mail.forward_paths) == ("", ("bob@example.net",))


def test_other_programs_read_it(tmp_path: Path) -> None:
    """The standard library's reader stands for them."""
    Maildir(tmp_path).add(MESSAGE)
    [message] = mailbox.Maildir(str(tmp_path), create=False)
    assert message["Subject"] == "News"


def test_a_mail_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    """No half mail in tmp, none in new."""
    maildir = Maildir(tmp_path)
    (tmp_path / "new").rmdir()
    with pytest.raises(OSError):
        maildir.add(MESSAGE)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    """A rehearsal's mails hold every recipient, and the tokens by which one leaves the list."""
    before = os.umask(0o022)
    try:
        folder = Maildir(tmp_path / "mails")
        folder.add(Received("from@example.org", ("to@example.net",), b"Subject: x\r\n\r\nhi\r\n"))
    finally:
        os.umask(before)
    made = [folder.path, *folder.path.rglob("*")]
    assert {path.stat().st_mode & 0o077 for path in made} == {0}


async def test_a_file_of_the_sandbox_is_a_mail_that_programs_open(tmp_path: Path) -> None:
    """It ends with .eml and begins with header fields; it parses without a defect, as what was sent."""
    message = EmailMessage(policy=SMTP)
    message["From"], message["To"], message["Subject"] = "Ann <ann@example.org>", "bob@example.net", "Grüße " * 30
    message.set_content("Hallo\n.\n..\n")
    message.add_alternative("<p>Hallo</p>", subtype="html")
    message.add_attachment(b"\x00\xff" * 500, maintype="application", subtype="pdf", filename="Größe.pdf")
    async with Sandbox(tmp_path) as sandbox:
        await asyncsmtp.send(message, relay=sandbox.url)
        [mail] = sandbox.mails()
    assert mail.path.suffix == ".eml"
    octets = mail.path.read_bytes()
    assert b"\n" not in octets.replace(b"\r\n", b"")
    opened = BytesParser(policy=SMTP).parsebytes(octets)
    assert [part.defects for part in opened.walk()] == [[]] * 5
    assert opened.keys()[:2] == ["Return-Path", "Delivered-To"]
    assert {"Date", "Message-ID", "MIME-Version"} <= {*opened.keys()}
    assert opened["Subject"] == ("Grüße " * 30).strip()
    assert [part.get_content() for part in opened.iter_attachments()] == [b"\x00\xff" * 500]
