"""Whose fault a bounce is. Each case: Status field, Diagnostic-Code without its type, as mail systems write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.bulk.bounces.dsn import Bounce, parse_dsn
from asyncsmtp.bulk.bounces.fault import effective_status

RECIPIENT = [
    *[("5.1.1", f"{code} no such user") for code in ("505", "550", "551", "553", "554", "559")],
    ("5.1.1", "550 5.1.1 <ann@example.net>: no such user here"),
    ("5.1.1", ""),
    ("5.1.2", "550 5.1.2 Bad destination host 'DNS Hard Error'"),
    ("5.1.2", ""),
    ("5.1.3", "553 5.1.3 Bad recipient address"),
    ("5.1.6", "550 5.1.6 recipient no longer on server: ann@example.net"),
    ("5.1.10", "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup"),
    ("5.1.10", "host/domain does not accept mail"),
    ("5.2.1", "550 5.2.1 The email account that you tried to reach is disabled."),
    ("5.2.1", "mailbox disabled, not accepting messages"),
    ("5.4.1", "550 5.4.1 [ann@example.net]: Recipient address rejected: Access denied [X.prod.protection.outlook.com]"),
    ("5.4.4", "Host or domain name not found. Name service error for name=example.net type=A: Host not found"),
    ("5.4.4", "550 5.4.4 Invalid domain"),
    ("5.5.0", "550 Requested action not taken: mailbox unavailable (-1915321397:308:-2147467259)"),
    ("5.5.0", "550 5.5.0 Requested action not taken: mailbox unavailable"),
    ("5.0.0", "550 5.1.1 <ann@example.net>: user unknown"),
    ("5.0.0", "550 Unknown user ann@example.net"),
    ("5.0.0", "550 No such user - psmtp"),
    ("5.0.0", "554 delivery error: dd This user doesn't have a yahoo.com account (ann@yahoo.com) [0]"),
    ("", "550 <ann@example.net>... User not exist"),
    ("5.0.0", "550 5.1.1 User unknown in relay recipient table"),
    ("5.1.0", "550 5.1.0 Unknown recipient"),
    ("5.1.351", "550 5.1.351 Remote server returned unknown recipient or mailbox unavailable -> 550 : User unknown"),
    ("5.0.0", "5.1.0 - Unknown address error 550-'5.1.1 <ann@example.net>... no such user' (delivery attempts: 0)"),
    ("5.0.0", "5.3.0 - Other mail system problem 550-'Unknown user ann@example.net' (delivery attempts: 0)"),
    ("4.0.0", "DNS Error: 9 DNS type 'mx' lookup of example.net responded with code NXDOMAIN Domain name not found"),
    ("5.1.1", "550 5.1.1 <sender@quota.example>: unknown user"),  # its own name is no word of the relay
    ("5.7.1", "550 5.1.1 user unknown"),
]
SENDER = [
    ("5.1.1", "554 INVALID IP FOR SENDING MAIL OF DOMAIN example.org"),
    ("5.1.8", "553 5.1.8 <news@example.org>... Domain of sender address news@example.org does not exist"),
    ("5.1.7", "553 5.1.7 Bad sender's mailbox address syntax"),
    ("5.1.8", ""),
    ("5.1.0", "550 5.1.0 <news@example.org> sender rejected. Refer to Error Codes"),
    ("5.1.0", "550 5.1.0 192.0.2.22 is not allowed to send from <example.org> per it's SPF Record"),
    ("5.1.1", "552 5.2.2 over quota"),
    ("5.1.1", "552 user is over quota"),
    ("5.1.1", "550 mailbox is full"),
    ("5.2.2", "550 5.2.2 <ann@example.net>... Mailbox Full"),
    ("5.2.2", ""),
    ("5.0.0", "recipient reached disk quota"),
    ("5.2.3", "550 5.2.3 RESOLVER.RST.RecipSizeLimit; message too large for this recipient"),
    ("5.1.1", "550 5.7.1 blacklisted"),
    ("5.1.1", "550 blocked by our policy, see https://example.net/rbl?ip=192.0.2.1"),
    ("5.1.3", "553 http://www.spamhaus.org/query/bl?ip=192.0.2.22"),
    ("5.7.1", "554 5.7.1 <ann@example.net>: Relay access denied"),
    ("5.0.0", "550 relay not permitted"),
    ("5.7.1", ""),
    ("5.7.26", "550-5.7.26 This mail has been blocked because the sender is unauthenticated."),
    ("5.7.509", "550 5.7.509 Access denied, sending domain example.org does not pass DMARC verification"),
    ("5.7.606", "550 5.7.606 Access denied, banned sending IP [192.0.2.22]"),
    ("5.3.4", "552 5.3.4 Message size exceeds fixed limit"),
    ("5.3.0", "554 5.3.0 unknown mailer error 1"),
    ("5.3.2", ""),
    ("5.4.1", ""),
    ("5.4.1", "541 5.4.1 Mail rejected by destination domain"),
    ("5.4.6", "554 5.4.6 Too many hops"),
    ("5.4.7", "550 5.4.7 delivery time expired"),
    ("5.5.0", "550 5.5.0 domain [example.org] mismatches client ip 192.0.2.225."),
    ("5.5.0", "503 Improper sequence of commands"),
    ("5.5.1", "503 5.5.1 Bad sequence of commands"),
    ("5.6.0", "554 5.6.0 Message contains invalid header"),
    ("5.2.1", "550-5.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional"),
    ("5.0.0", ""),
    ("", ""),
    ("5.0.0", "554 Service currently unavailable"),
    ("5.0.0", "550 5.1.1 user unknown, or your IP is listed: 5.7.1"),
    ("4.2.2", "452 4.2.2 mailbox full"),
    ("4.1.1", "450 4.1.1 <ann@example.net>: Recipient address rejected: User unknown in virtual alias table"),
    ("5.1.1", "450 unknown user, try again later"),
    ("4.4.7", "Message expired"),
    ("5.0.0", "554 Denied (Mode: normal)"),
    *[("5.1.1", f"{code} no such user") for code in ("450", "459", "500", "501", "502", "503", "504", "552")],
]


def report(status: str, words: str) -> Bounce:
    """The bounce of a report with these fields."""
    lines = ["Content-Type: multipart/report; boundary=b", "", "--b", "Content-Type: message/delivery-status", ""]
    lines += ["Reporting-MTA: dns; mx.example.net", "", "Final-Recipient: rfc822; ann@example.net", "Action: failed"]
    lines += [f"Status: {status}"] if status else []
    lines += [f"Diagnostic-Code: smtp; {words}"] if words else []
    (bounce,) = parse_dsn("\r\n".join([*lines, "", "--b--", ""]).encode())
    return bounce


@pytest.mark.parametrize(("status", "words"), RECIPIENT)
def test_who_is_gone_is_suppressed(status: str, words: str) -> None:
    """FT-03: every kind of the recipient's fault."""
    assert report(status, words).permanent


@pytest.mark.parametrize(("status", "words"), SENDER)
def test_nobody_is_suppressed_for_the_fault_of_the_sender(status: str, words: str) -> None:
    """FT-03: nor for that of the message, the server or the moment, nor where it is doubtful."""
    bounce = report(status, words)
    assert bounce.failed
    assert not bounce.permanent


@pytest.mark.parametrize(
    "words", [words for status, words in SENDER if status[:1] == "5" and words and "Denied (" not in words]
)
@pytest.mark.parametrize("status", ["5.1.1", "5.1.2", "5.2.1"])
def test_words_about_the_sender_win_over_the_code_of_an_unknown_user(status: str, words: str) -> None:
    """FT-03: Status is what a mail system made of the reply; the reply itself is more exact."""
    assert not report(status, words).permanent


@pytest.mark.parametrize(
    ("status", "words", "code"),
    [
        ("5.1.1", "550 5.7.1 blacklisted", "5.7.1"),
        ("5.0.0", "550 5.1.1 user unknown", "5.1.1"),
        ("5.1.1", "552 5.2.2 over quota", "5.2.2"),
        ("5.1.1 (unknown)", "550 no", "5.1.1"),
        ("5.2.0", "550 5.0.0 no", "5.2.0"),
        ("5.0.0", "5.1.0 - Unknown address error 550-'5.2.2 full'", "5.2.2"),
        ("5.1.1", "554 5.3.0 unknown mailer error 1", "5.3.0"),
        ("5.1.1", "connect to mx[5.1.2.3]: no", "5.1.1"),
        ("", "version 4.99.1, 550 no", ""),
        ("", "", ""),
    ],
)
def test_the_more_exact_code_counts(status: str, words: str, code: str) -> None:
    """FT-03: it is also what `results` shows."""
    assert effective_status(status, words) == code
    assert report(status, words).status == code


@given(st.sampled_from(["5.1.1", "5.0.0", "5.2.1", "", "x"]), st.text(max_size=300))
@pytest.mark.slow
def test_no_words_break_it(status: str, words: str) -> None:
    """FT-03: they are anybody's."""
    bounce = Bounce("", True, effective_status(status, words), words, "", ())
    assert bounce.permanent in (True, False)
