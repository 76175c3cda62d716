"""Which message of ours a report may be about: the token, wherever mail systems leave it."""

from __future__ import annotations

import time
from base64 import encodebytes
from quopri import encodestring

import pytest

from asyncsmtp.bulk.bounces.matching import MAX_TOKENS, read_report
from asyncsmtp.mail.list_unsubscribe import ReturnPath
from tests.bulk.bounces.test_dsn import report

TOKEN = "abcdefghijklmnopqrstuvwxyz"
OURS = "mfrggzdfmztwq2lknnwg23tpob"  # 26 characters of base 32, as in each Message-ID of a campaign
PATH = ReturnPath("bounces+{{ token }}@example.org")

# A report by Postfix to an address of the desk, in which nothing else is left of the message.
BARE = report().replace(f"bounces+{TOKEN}".encode(), b"desk").replace(b"Message-ID: <xyz@example.org>\n", b"")


def insert_field(field: str) -> bytes:
    return field.encode() + b"\n" + BARE


@pytest.mark.parametrize(
    "field",
    [
        f"Delivered-To: bounces+{OURS}@example.org",
        f"X-Original-To: bounces+{OURS}@example.org",
        f"Envelope-To: BOUNCES+{OURS.upper()}@EXAMPLE.ORG",
        f"Cc: desk@example.net, <bounces+{OURS}@example.org>",
        f"To: <SRS0=x1=y2=example.org=bounces+{OURS}@forwarder.example>",
        f"To: bounces+{OURS}=example.org@gateway.example",
        f"Received: from mx.example.net by mail.example.org\n for <bounces+{OURS}@example.org>; Sun, 1 Mar 2026",
    ],
)
@pytest.mark.parametrize("path", [PATH, None])
def test_the_token_is_found_in_any_field_of_a_recipient(field: str, path: ReturnPath | None) -> None:
    """RFC 3464 §2: a report is sent to the return path; a forwarder or a gateway may have put it into its own."""
    assert read_report(insert_field(field), path).tokens == (OURS,)


@pytest.mark.parametrize("name", ["In-Reply-To", "References", "X-Original-Message-ID"])
def test_the_message_id_is_found_in_the_fields_of_the_report(name: str) -> None:
    """RFC 5322 §3.6.4: some mail systems answer the message rather than return it."""
    data = insert_field(f"{name}: <other@example.com>\n <{OURS}@example.org>")
    assert read_report(data, PATH).tokens == (OURS,)


@pytest.mark.parametrize(
    "text",
    [
        f"Message-ID: <{OURS}@example.org>",
        f"> Message-Id:<{OURS}@example.org>",
        f"Return-Path: <bounces+{OURS}@example.org>",
        f"MAIL FROM:<bounces+{OURS}@example.org> SIZE=1000",
        f"https://example.net/r?from=bounces%2B{OURS}%40example.org",
        f"bounces=2B{OURS}=40example.org",
    ],
)
@pytest.mark.parametrize("encoding", ["7bit", "base64", "quoted-printable"])
def test_the_token_is_found_anywhere_in_the_body(text: str, encoding: str) -> None:
    """A mail system that knows no RFC 3464 writes what it likes, in whatever encoding."""
    padded = ("x" * 60 + " " + text + "\n").encode()
    body = {"7bit": bytes, "base64": encodebytes, "quoted-printable": encodestring}[encoding](padded)
    head = f"From: MAILER-DAEMON@mx.example.net\nTo: desk@example.org\nContent-Transfer-Encoding: {encoding}\n\n"
    assert read_report(head.encode() + body, PATH).tokens == (OURS,)


def test_a_return_path_without_a_separator_is_found_too() -> None:
    """`{{ token }}` may stand anywhere in the local part."""
    data = insert_field(f"To: <SRS0=x=y=example.org=b{OURS}x@forwarder.example>")
    assert read_report(data, ReturnPath("b{{ token }}x@example.org")).tokens == (OURS,)
    assert read_report(data, ReturnPath("{{ token }}@example.org")).tokens == ()


def test_to_whom_the_report_was_sent_comes_first() -> None:
    """What came back may be about another message as well; the return path is of one."""
    data = insert_field(f"References: <{TOKEN}@example.org>").replace(b"desk@", b"bounces+" + OURS.encode() + b"@", 1)
    assert read_report(data, PATH).tokens == (OURS,)


def test_what_only_looks_like_a_token_is_part_of_something_longer() -> None:
    """27 letters, or a hexadecimal number of 32 digits, are none."""
    assert read_report(insert_field(f"X-Id: {OURS}a"), PATH).tokens == ()
    assert read_report(insert_field(f"X-Id: 9{OURS}"), PATH).tokens == ()
    assert read_report(insert_field("X-Id: 4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a4a"), PATH).tokens == ()


def test_each_token_has_the_failure_that_says_most() -> None:
    """Of two recipients in one report, one over quota and one that does not exist, the second counts."""
    data = insert_field(f"To: bounces+{OURS}@example.org").replace(
        b"Action: delayed\nStatus: 4.4.1", b"Action: failed\nStatus: 5.2.2"
    )
    assert [bounce.status for bounce in read_report(data).bounces] == ["5.1.1", "5.2.2"]
    assert {token: bounce.status for token, bounce in read_report(data).failures.items()} == {OURS: "5.1.1"}


def test_by_address_there_is_only_who_is_gone() -> None:
    """And nobody where a token names a message, ours or another campaign's."""
    assert list(read_report(BARE).failures_by_address) == ["ann@example.net"]
    refused = BARE.replace(b"Status: 5.1.1", b"Status: 5.7.1").replace(b"550 5.1.1", b"550 5.7.1")
    assert read_report(refused).failures_by_address == {}
    assert read_report(insert_field(f"References: <{OURS}@example.net>")).failures_by_address == {}
    odd = BARE.replace(b"rfc822; ann@example.net", b"x400; /S=ann/OU=example")
    assert read_report(odd).failures_by_address == {}
    assert list(read_report(BARE.replace(b"; ann@", b"; ANN@")).failures_by_address) == ["ann@example.net"]


@pytest.mark.parametrize(
    "data",
    [
        b"To: " + b"a" * 2_000_000,
        b"\n" + b"=2B" * 700_000,
        b"\n" + b" ".join(b"%026d" % 2 for _ in range(80_000)).replace(b"0", b"b"),
        b"\n" + b"bounces+" * 250_000,
        b"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n" * 30_000,
        b"Received: " + b"for <" * 400_000,
    ],
)
@pytest.mark.slow
def test_whatever_is_written_takes_no_time(data: bytes) -> None:
    """Anybody can write to the mailbox; two megabytes are read at most."""
    began = time.process_time()
    assert len(read_report(data, PATH).tokens) <= MAX_TOKENS
    assert time.process_time() - began < 5


def test_a_made_up_report_names_a_limited_number_of_tokens() -> None:
    """Each would be looked up in the ledger."""
    letters = "abcdefghijklmnop"
    many = "\n".join(f"{'b' * 24}{first}{second}" for first in letters for second in letters)
    assert len(read_report(b"To: desk@example.org\n\n" + many.encode()).tokens) == MAX_TOKENS
