"""RFC 5965: what providers report whose users complain."""

from __future__ import annotations

import pytest

from asyncsmtp.bulk.bounces.matching import read_report

TOKEN = "mfrggzdfmztwq2lknnwg23tpob"

REPORT = f"""\
From: feedback@provider.example
To: fbl@example.org
Subject: FW: News
Content-Type: multipart/report; report-type=feedback-report; boundary="b"

--b
Content-Type: text/plain

This is an email abuse report.
--b
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: Feedback/1.0
Version: 1
Original-Mail-From: <news@example.org>
Original-Rcpt-To: <ann@example.net>

--b
Content-Type: message/rfc822

From: news@example.org
To: ann@example.net
Message-ID: <{TOKEN}@example.org>

550 5.1.1 no such user
--b--
""".encode()


@pytest.mark.parametrize("kind", [b"abuse", b"fraud", b"opt-out", b"opt-out-list", b"Abuse "])
def test_a_complaint_names_the_row_and_is_no_failure(kind: bytes) -> None:
    """RFC 5965 §3: whatever the message says that it returns."""
    report = read_report(REPORT.replace(b"Type: abuse", b"Type: " + kind))
    (complaint,) = report.bounces
    assert (complaint.complaint, complaint.failed, complaint.permanent) == (True, False, False)
    assert complaint.recipient == "ann@example.net"
    assert report.failures == {TOKEN: complaint}


@pytest.mark.parametrize("kind", [b"not-spam", b"auth-failure", b"virus", b"other", b"", b"dkim"])
def test_what_is_no_complaint_suppresses_nobody(kind: bytes) -> None:
    """RFC 6430, RFC 6591: the reader wants the message, or a signature is broken."""
    assert read_report(REPORT.replace(b"Type: abuse", b"Type: " + kind)).bounces == ()


def test_where_the_provider_removed_the_address_the_token_is_enough() -> None:
    """RFC 6590."""
    report = read_report(REPORT.replace(b"Original-Rcpt-To: <ann@example.net>\n", b"Redacted-Address: redacted\n"))
    assert [(each.recipient, each.complaint) for each in report.bounces] == [("", True)]
    assert list(report.failures) == [TOKEN]


def test_without_a_token_each_recipient_is_known_by_address() -> None:
    """One report may be on several people."""
    data = REPORT.replace(TOKEN.encode(), b"1").replace(
        b"Original-Rcpt-To: <ann@example.net>\n",
        b"Original-Rcpt-To: <Ann@Example.net>\nOriginal-Rcpt-To: bob@example.net\nRemoval-Recipient: cid@example.net\n",
    )
    assert list(read_report(data).failures_by_address) == ["ann@example.net", "bob@example.net", "cid@example.net"]


def test_microsoft_sends_the_message_only() -> None:
    """Its junk mail reporting has no part of its own for the feedback."""
    head = (
        b"From: staff@hotmail.com\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822\n\n"
    )
    data = head + b"X-HmXmrOriginalRecipient: ann@example.net\nMessage-ID: <%s@example.org>\n\nHi\n" % TOKEN.encode()
    assert [(each.recipient, each.complaint) for each in read_report(data).bounces] == [("ann@example.net", True)]
    assert read_report(data.replace(b"staff@", b"ann@")).bounces == ()


def test_a_report_with_thousands_of_recipients_is_limited() -> None:
    """Anybody can write one."""
    many = b"".join(b"Original-Rcpt-To: u%d@example.net\n" % number for number in range(50_000))
    assert len(read_report(REPORT.replace(b"Original-Rcpt-To: <ann@example.net>\n", many)).bounces) <= 1000
    some = b"".join(b"Original-Rcpt-To: u%d@example.net\n" % number for number in range(1001))
    found = read_report(REPORT.replace(b"Original-Rcpt-To: <ann@example.net>\n", some)).bounces
    assert [each.recipient for each in found] == [f"u{number}@example.net" for number in range(1000)]
    assert {each.words for each in found} == {"complaint: abuse"}
