"""Reports of what came back: by RFC 3464, as large mail systems write them, and as nobody should."""

from __future__ import annotations

import os
import socket
import time
import tracemalloc
from binascii import b2a_base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.bulk.bounces.dsn import MAX_DSN_BYTES, Bounce, parse_dsn, read_mail_files
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
    mbox.write_bytes(mbox.read_bytes().replace(b"\n", b"\r\n"))
    assert len(list(read_mail_files(mbox))) == 2
    assert (maildir / "new" / "1").exists()
    with pytest.raises(InvalidArgument, match="cannot be read: no such file"):
        list(read_mail_files(tmp_path / "none"))


def status(*lines: str, text: str = "It failed.") -> bytes:
    """A report whose delivery status has these lines."""
    parts = ["Content-Type: multipart/report; boundary=b", "", "--b", "", text, "--b"]
    return "\r\n".join([*parts, "Content-Type: message/delivery-status", "", *lines, "", "--b--", ""]).encode()


@pytest.mark.parametrize(
    "lines",
    [
        (
            "Final-Recipient: rfc822; ann@example.net",
            "Action: failed (bad destination mailbox address)",
            "Status: 5.1.1",
        ),
        ("Final-Recipient: rfc822; ann@example.net", "Action:   FAILED ", "Status: 5.1.1 (no such user)"),
        ("Final-recipient: rfc822;ann@example.net", "Action: failure", "Status: 5.1.1"),
        ("Final-Recipient: <ann@example.net>", "Action: error", "Status:5.1.1"),
        ("Final-Recipient: rfc822; ann@example.net", "Status: 5.1.1"),
        (
            "Original-Recipient: rfc822; ann@example.net",
            "Action: failed",
            "Diagnostic-Code: SMTP; 550 5.1.1 User unknown",
        ),
        (
            *("Reporting-MTA: dns; mx.example.net", "", "", "Final-Recipient: rfc822; ann@example.net"),
            *(
                "Action: failed",
                "Status: 5.0.0",
                "Diagnostic-Code: x-postfix; host mx.example.net",
                "said: 550 5.1.1 no",
            ),
        ),
        (
            "Reporting-MTA: dns; mx.example.net",
            "Final-Recipient: rfc822; ann@example.net",
            "Action: failed",
            "Status: 5.1.1",
        ),
    ],
)
def test_a_report_is_read_although_it_is_not_quite_one(lines: tuple[str, ...]) -> None:
    """FT-03: comments, other words for failed, no Action, no type, a lost fold, no blank line before a recipient."""
    (bounce,) = parse_dsn(status(*lines))
    assert (bounce.recipient, bounce.failed, bounce.status, bounce.permanent) == (
        "ann@example.net",
        True,
        "5.1.1",
        True,
    )


def test_two_recipients_in_one_group_are_two() -> None:
    """FT-03: the fault of one is not the other's."""
    lines = ("Original-Recipient: rfc822; a@x.example", "Final-Recipient: rfc822; a@x.example", "Action: failed")
    others = ("Final-Recipient: rfc822; b@x.example", "Action: failed", "Status: 5.1.1")
    first, second = parse_dsn(status(*lines, "Status: 5.2.2", *others))
    assert (first.recipient, first.permanent) == ("a@x.example", False)
    assert (second.recipient, second.permanent) == ("b@x.example", True)


def test_where_the_diagnostic_is_missing_the_text_has_the_words() -> None:
    """FT-03: of a report on one recipient; several recipients have one text."""
    group = ("Final-Recipient: rfc822; ann@example.net", "Action: failed", "Status: 5.0.0")
    text = "Hi!\r\n\r\nann@example.net: 550 5.1.1 <ann@example.net>: user unknown\r\n"
    (bounce,) = parse_dsn(status(*group, text=text))
    assert (bounce.words, bounce.permanent) == ("ann@example.net: 550 5.1.1 <ann@example.net>: user unknown", True)
    assert [found.permanent for found in parse_dsn(status(*group, "", *group, text=text))] == [False, False]


@pytest.mark.parametrize("encoding", ["quoted-printable", "base64"])
def test_an_encoded_status_is_decoded(encoding: str) -> None:
    """FT-03: RFC 3464 forbids it, and some do it."""
    fields = b"Final-Recipient: rfc822; ann@example.net\nAction: failed\nStatus: 5.1.1\n"
    body = {"base64": b2a_base64(fields), "quoted-printable": fields.replace(b": ", b":=20").replace(b"net", b"n=\net")}
    head = b"Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/delivery-status\n"
    data = head + b"Content-Transfer-Encoding: " + encoding.encode() + b"\n\n" + body[encoding] + b"\n--b--\n"
    (bounce,) = parse_dsn(data)
    assert (bounce.recipient, bounce.status) == ("ann@example.net", "5.1.1")


def test_line_ends_of_every_kind_are_read() -> None:
    """FT-56: also those of files that somebody has converted."""
    lines = report().replace(b"\r\n", b"\n")
    for end in (b"\n", b"\r\n", b"\r"):
        assert [bounce.status for bounce in parse_dsn(lines.replace(b"\n", end))] == ["5.1.1", "4.4.1"]


NESTED = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(200))
STATUS = b"Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\n"
HOSTILE = {
    "multiparts in multiparts": NESTED + b"x\n" * 900_000,
    "one boundary for all": b"Content-Type: multipart/mixed; boundary=b\n\n--b\n" * 40_000,
    "messages in messages": b"Content-Type: message/rfc822\n\n" * 60_000,
    "empty parts": b"Content-Type: multipart/report; boundary=b\n\n" + b"--b\n" * 500_000,
    "recipients": STATUS + b"Final-Recipient: rfc822; a@b.example\nAction: failed\n\n" * 40_000,
    "lost folds": STATUS + b"Action: failed\nDiagnostic-Code: x\n" + b"a\n" * 900_000,
    "words": STATUS + (b"Action: failed\nDiagnostic-Code: " + b"user host a " * 160 + b"\n\n") * 1000,
    "a header without end": b"To: " + b"a" * 2_000_000,
    "a parameter without end": b"Content-Type: multipart/report" + b'; x="' * 30_000 + b"\n\n",
    "addresses": b"To: " + b"a@b.example, " * 100_000,
    "blanks": b" \t" * 1_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.slow
def test_no_message_holds_up_the_reader(name: str) -> None:
    """FT-56: ninety nested multiparts took the standard library's parser 64 s; memory is a few times the message."""
    tracemalloc.start()
    try:
        began = time.process_time()
        found = list(parse_dsn(HOSTILE[name]))
        took = time.process_time() - began
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) <= 1001
    assert took < 30  # ten times what it takes
    assert peak < 16 * MAX_DSN_BYTES


def test_a_report_within_the_bounds_is_found() -> None:
    """FT-56: forwarded by a mailing list that wraps it, and behind forty other parts."""
    wrapped = b"Content-Type: multipart/mixed; boundary=o\n\n" + b"--o\n\nfooter\n" * 40
    wrapped += b"--o\nContent-Type: message/rfc822\n\n" + report() + b"\n--o--\n"
    assert [bounce.status for bounce in parse_dsn(wrapped)] == ["5.1.1", "4.4.1"]


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    """FT-56: no FIFO, for whose writer nobody waits, device, socket, folder or link to nothing; a link to a file is."""
    inbox = tmp_path / "inbox"
    (inbox / "folder").mkdir(parents=True)
    os.mkfifo(inbox / "fifo")
    (inbox / "link").symlink_to(inbox / "fifo")
    (inbox / "zero").symlink_to("/dev/zero")
    (inbox / "gone").symlink_to("nowhere")
    (inbox / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(inbox / "socket"))
    (tmp_path / "report").write_bytes(report())
    (inbox / "report").symlink_to(tmp_path / "report")
    assert list(read_mail_files(inbox)) == [report()]
    for name in ("fifo", "link", "zero"):
        with pytest.raises(InvalidArgument, match=f"{name} is not a regular file: name a Maildir, an mbox file or a "):
            list(read_mail_files(inbox / name))


@pytest.mark.parametrize("beginning", [b"From - Sun\n", b""])
@pytest.mark.slow
def test_a_line_without_end_is_not_kept_in_memory(tmp_path: Path, beginning: bytes) -> None:
    """FT-56: an mbox file with a line of 256 MB; the message behind it is read."""
    mbox = tmp_path / "mbox"
    mbox.write_bytes(beginning + report())
    os.truncate(mbox, 256 * 1024 * 1024)
    with mbox.open("ab") as file:
        file.write(b"\n\nFrom - Sun\n" + report())
    tracemalloc.start()
    try:
        sizes = [(len(data), len(list(parse_dsn(data)))) for data in read_mail_files(mbox)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [number for _, number in sizes] == [2, 2]
    assert max(size for size, _ in sizes) < 2 * MAX_DSN_BYTES
    assert peak < 16 * MAX_DSN_BYTES


def test_a_line_that_is_read_in_pieces_is_one_line(tmp_path: Path) -> None:
    """FT-56: its later pieces begin no message, and are not unquoted."""
    mbox = tmp_path / "mbox"
    long = b"x" * (64 * 1024) + b"From here\n" + b"y" * (64 * 1024) + b">From there\n"
    mbox.write_bytes(b"From - Sun\nSubject: a\n\n\n" + long + b"\nFrom - Sun\nSubject: b\n\n")
    assert list(read_mail_files(mbox)) == [b"Subject: a\n\n\n" + long + b"\n", b"Subject: b\n\n"]


@pytest.mark.parametrize("action", ["failed", "failure", "fail", "error", "expired", "undeliverable", "FAILED (x) y"])
def test_words_for_a_failure(action: str) -> None:
    """RFC 3464 §2.3.3 has one; mail systems have more. What is delayed, relayed or delivered has not failed."""
    group = ("Final-Recipient: rfc822; a@x.example", "Status: 4.4.7")
    (bounce,) = parse_dsn(status(*group, f"Action: {action}"))
    assert bounce.failed
    for other in ("delayed", "relayed", "delivered", "expanded", "not failed"):
        (bounce,) = parse_dsn(status(*group, f"Action: {other}"))
        assert not bounce.failed
    for code, failed in (("5.1.1", True), ("4.4.7", False), ("2.0.0", False)):
        (bounce,) = parse_dsn(status(group[0], f"Status: {code}"))
        assert bounce.failed is failed


@pytest.mark.parametrize(
    ("fields", "recipient"),
    [
        (("Original-Recipient: rfc822; a@x.example", "Final-Recipient: rfc822; b@x.example"), "a@x.example"),
        (("Original-Recipient: x400; /S=a@x/OU=x", "Final-Recipient: rfc822; b@x.example"), "b@x.example"),
        (("Original-Recipient: unknown; nobody", "Final-Recipient: rfc822; <b@x.example>"), "b@x.example"),
        (("Original-Recipient: unknown; nobody",), "nobody"),
        (("Final-Recipient: x-local; bob",), "bob"),
        (("Final-Recipient: b@x.example",), "b@x.example"),
        ((), ""),
    ],
)
def test_whom_a_message_was_for(fields: tuple[str, ...], recipient: str) -> None:
    """RFC 3464 §2.3: the original recipient is who is in the file, if it is an address."""
    (bounce,) = parse_dsn(status("Reporting-MTA: dns; mx", "", *fields, "Action: failed", "Status: 5.1.1"))
    assert bounce.recipient == recipient


@pytest.mark.parametrize("field", ["Delivered-To", "X-Original-To", "Envelope-To", "To"])
def test_to_whom_a_report_was_sent(field: str) -> None:
    """In the fields that mail systems write when they deliver."""
    data = f"{field}: x <a@x.example>, b@x.example\n".encode() + status("Action: failed", "Status: 5.1.1")
    (bounce,) = parse_dsn(data)
    assert bounce.sent_to == ("a@x.example", "b@x.example")


def test_a_thousand_recipients_of_a_report_are_read() -> None:
    """The first group is about the message."""
    group = b"Final-Recipient: rfc822; u%d@b.example\nAction: failed\n\n"
    many = b"".join(group % number for number in range(1005))
    found = [bounce.recipient for bounce in parse_dsn(STATUS + b"Reporting-MTA: dns; mx\n\n" + many)]
    assert found == [f"u{number}@b.example" for number in range(1000)]


def test_what_is_kept_of_a_report_has_a_limit() -> None:
    """Words of 300 characters, an address of 320; the report's own identifier says which it was."""
    address = "a" * 64 + "@" + "b" * 255
    lines = (f"Final-Recipient: rfc822; {address}", "Action: failed", f"Diagnostic-Code: smtp; {'w' * 300}")
    (bounce,) = parse_dsn(status(*lines))
    assert (bounce.recipient, bounce.words) == (address, "w" * 300)
    (longer,) = parse_dsn(status(f"{lines[0]}x", lines[1], f"{lines[2]}w"))
    assert (longer.recipient, longer.words) == (f"{address[:-1]}…", f"{'w' * 299}…")
    (other,) = parse_dsn(status(*lines, text="other"))
    assert (len(bounce.report), bounce.report == other.report, bounce == other) == (32, False, True)
