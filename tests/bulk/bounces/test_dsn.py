"""Reports of what came back: by RFC 3464, as large mail systems write them, and as nobody should."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.bulk.bounces.dsn import Bounce, parse_dsn, read_mail_files
from asyncsmtp.errors import InvalidArgument

REPORT = """\
Return-Path: <>
Delivered-To: bounces+abcdefghijklmnopqrstuvwxyz@example.org
From: MAILER-DAEMON@mx.example.net
To: <bounces+abcdefghijklmnopqrstuvwxyz@example.org>
Subject: Undelivered Mail Returned to Sender
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: text/plain

I'm sorry to have to inform you that your message could not be delivered.

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.net
Arrival-Date: Sun, 1 Mar 2026 09:00:00 +0000

Final-Recipient: rfc822; ann@example.net
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 <ann@example.net>: no such
 user \x1b[31m here

Final-Recipient: rfc822; bob@example.net
Action: delayed
Status: 4.4.1

--b
Content-Type: {kind}

Subject: News
Message-ID: <xyz@example.org>

{body}
--b--
"""


def report(kind: str = "message/rfc822", body: str = "Dear Ann\n") -> bytes:
    return REPORT.format(kind=kind, body=body).encode()


@pytest.mark.parametrize("kind", ["message/rfc822", "text/rfc822-headers"])
def test_each_recipient_of_a_report_is_read(kind: str) -> None:
    """RFC 3464: the message by its Message-ID, whole or by its header; the words made harmless."""
    ann, bob = parse_dsn(report(kind))
    to = "bounces+abcdefghijklmnopqrstuvwxyz@example.org"
    words = "550 5.1.1 <ann@example.net>: no such user \\x1b[31m here"
    assert ann == Bounce("ann@example.net", True, "5.1.1", words, "xyz@example.org", (to, to))
    assert (ann.permanent, bob.failed, bob.permanent, bob.status) == (True, False, False, "4.4.1")


def test_an_international_report_is_read_too() -> None:
    """RFC 6533: another type for the same fields."""
    global_ = report().replace(b"message/delivery-status\n", b"message/global-delivery-status\n")
    assert [bounce.status for bounce in parse_dsn(global_)] in (["5.1.1", "4.4.1"], [])


@pytest.mark.parametrize(
    "octets", [b"", b"From: a\n\nhello", b"Content-Type: multipart/report; boundary=b\n\n--b\n", b"\xff" * 5000]
)
def test_what_is_no_report_says_nothing(octets: bytes) -> None:
    assert list(parse_dsn(octets)) == []


@given(st.data())
def test_no_report_breaks_the_reader(data: st.DataObject) -> None:
    """Anybody can write to a mailbox for bounces."""
    octets = bytearray(report(data.draw(st.sampled_from(["message/rfc822", "text/rfc822-headers"]))))
    for _ in range(data.draw(st.integers(0, 20))):
        place = data.draw(st.integers(0, len(octets) - 1))
        octets[place : place + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=10))
        octets = octets or bytearray(b"x")
    for bounce in parse_dsn(bytes(octets)):
        assert bounce.words.isprintable()
        assert bounce.recipient.isprintable()


def test_mailboxes_of_every_kind_give_the_same_messages(tmp_path: Path) -> None:
    """A Maildir, an mbox with its quoted From, a folder of files, one file; nothing is moved or marked."""
    maildir = tmp_path / "Maildir"
    for name in ("new", "cur", "tmp"):
        (maildir / name).mkdir(parents=True)
    (maildir / "new" / "1").write_bytes(report())
    (maildir / "cur" / "2:2,S").write_bytes(report())
    (maildir / "tmp" / "3").write_bytes(report())
    mbox = tmp_path / "mbox"
    mbox.write_bytes(b"From - Sun\n" + report(body=">From here\n") + b"\nFrom - Sun\n" + report() + b"\n")
    single = tmp_path / "one.eml"
    single.write_bytes(report())
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.eml").write_bytes(report())
    for place, number in ((maildir, 2), (mbox, 2), (single, 1), (folder, 1)):
        found = [bounce for octets in read_mail_files(place) for bounce in parse_dsn(octets)]
        assert [bounce.status for bounce in found] == ["5.1.1", "4.4.1"] * number
    assert b"\nFrom here\n" in next(read_mail_files(mbox))
    assert (maildir / "new" / "1").exists()
    with pytest.raises(InvalidArgument, match="cannot be read: no such file"):
        list(read_mail_files(tmp_path / "none"))
