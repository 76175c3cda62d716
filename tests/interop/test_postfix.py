"""The server of these tests is what they take it for, proved by a client that is not ours."""

from __future__ import annotations

import ssl
from email.message import EmailMessage

import aiosmtplib
import pytest

from tests.interop.postfix import Postfix

pytestmark = pytest.mark.interop


def note(to: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "news@example.org", to, "hello"
    message["Message-ID"] = "<one@example.org>"
    message.set_content("a line\n.\nanother\n")
    return message


async def test_a_message_with_login_over_starttls_lands_in_the_mailbox(postfix: Postfix) -> None:
    """STARTTLS with the private CA, AUTH, and the Maildir work."""
    await aiosmtplib.send(
        note("ada@example.com"),
        hostname="localhost",
        port=postfix.submission,
        username=postfix.user,
        password=postfix.password,
        tls_context=ssl.create_default_context(cafile=str(postfix.ca_file)),
        start_tls=True,
    )
    (mail,) = postfix.wait_for(1)
    assert mail["Message-ID"] == "<one@example.org>"
    assert mail["Delivered-To"] == "ada@example.com"
    assert "ESMTPSA" in mail["Received"]


@pytest.mark.parametrize(("recipient", "code"), [("nobody@example.com", 550), ("busy@example.com", 450)])
async def test_two_recipients_are_never_taken(postfix: Postfix, recipient: str, code: int) -> None:
    """One for good, one for now."""
    with pytest.raises(aiosmtplib.SMTPRecipientsRefused) as refused:
        await aiosmtplib.send(note(recipient), hostname=postfix.host, port=postfix.plain, start_tls=False)
    assert refused.value.recipients[0].code == code


async def test_the_submission_port_wants_a_login(postfix: Postfix) -> None:
    """Otherwise a test of AUTH could pass without it."""
    context = ssl.create_default_context(cafile=str(postfix.ca_file))
    with pytest.raises(aiosmtplib.SMTPRecipientsRefused, match="Client host rejected"):
        await aiosmtplib.send(
            note("ada@example.com"), hostname="localhost", port=postfix.submission, tls_context=context, start_tls=True
        )
