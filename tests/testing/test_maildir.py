"""The Maildir of the sandbox: what a mail becomes, and how it is read back."""

from __future__ import annotations

import mailbox
import os
from pathlib import Path

import pytest

from asyncsmtp.testing import Maildir, Received

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


def test_a_mail_tells_its_envelope_and_its_text(tmp_path: Path) -> None:
    """What a test or the command line asks for."""
    maildir = Maildir(tmp_path)
    maildir.add(MESSAGE)
    [mail] = maildir.mails()
    assert (mail.reverse_path, mail.forward_paths) == ("ann@example.org", ("bob@example.net", "eve@example.net"))
    assert mail.message["Subject"] == "News"
    assert mail.text == "Hello\r\n.\r\n"


def test_delivery_lines_in_the_content_do_not_count(tmp_path: Path) -> None:
    """Who got a mail is for the envelope to say."""
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


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    """A rehearsal's mails hold every recipient, and the tokens by which one leaves the list."""
    before = os.umask(0o022)
    try:
        folder = Maildir(tmp_path / "mails")
        folder.add(Received("from@example.org", ("to@example.net",), b"Subject: x\r\n\r\nhi\r\n"))
    finally:
        os.umask(before)
    made = [folder.path, *folder.path.rglob("*")]
    assert {path.stat().st_mode & 0o077 for path in made} == {0}
