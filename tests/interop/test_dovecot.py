"""Dovecot's LMTP is what later tests take it for, proved by a client that is not ours."""

from __future__ import annotations

import smtplib
from collections.abc import Callable

import pytest

from tests.interop.dovecot import Dovecot
from tests.interop.server import original

pytestmark = pytest.mark.interop

LETTER = b"From: <news@example.org>\r\nSubject: hello\r\n\r\n..\r\n"  # as it travels: one dot is doubled


def by_port(dovecot: Dovecot) -> smtplib.LMTP:
    return smtplib.LMTP(dovecot.host, dovecot.lmtp)


def by_socket(dovecot: Dovecot) -> smtplib.LMTP:
    return smtplib.LMTP(str(dovecot.lmtp_socket))


@pytest.mark.parametrize("connect", [by_port, by_socket])
def test_each_recipient_accepted_has_a_reply_and_a_mail(
    dovecot: Dovecot, connect: Callable[[Dovecot], smtplib.LMTP]
) -> None:
    """One reply for each RCPT that was accepted (RFC 2033 §4.2), none for the one that was refused."""
    with connect(dovecot) as client:
        client.ehlo()
        assert {"pipelining", "chunking"} <= client.esmtp_features.keys()
        client.mail("news@example.org")
        codes = [client.rcpt(f"{name}@example.com")[0] for name in ("ada", "nobody", "bob")]
        client.docmd("DATA")
        client.send(LETTER + b".\r\n")
        replies = [client.getreply() for _ in range(2)]
    assert codes == [250, 550, 250]
    assert [(code, words.split()[1]) for code, words in replies] == [
        (250, b"<ada@example.com>"),
        (250, b"<bob@example.com>"),
    ]
    for name in ("ada@example.com", "bob@example.com"):
        assert [original(mail) for mail in dovecot.lmtp_mails(name)] == [LETTER.replace(b"..", b".")]
