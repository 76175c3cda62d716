"""A session of ours with a Postfix: TLS with a private CA, a login, and what it says to whom it refuses."""

from __future__ import annotations

import asyncio

import pytest

from asyncsmtp.client.config.relay import Login, Relay
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import AuthenticationRefused, ConnectFailed
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.auth.auth import Secret
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.delivery import Outcome
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.opening_handshake import Security
from tests.interop.postfix import Postfix

pytestmark = pytest.mark.interop

TWO_WAYS_TO_TLS = pytest.mark.parametrize("security", [Security.STARTTLS, Security.IMPLICIT_TLS])


def make_relay(postfix: Postfix, security: Security = Security.STARTTLS, password: str = Postfix.password) -> Relay:
    port = postfix.submission if security is Security.STARTTLS else postfix.smtps
    return Relay("localhost", port, security, Login(postfix.user, Secret(password)), ca_file=postfix.ca_file)


def letter(number: int, *recipients: str) -> Message:
    text = f"From: <news@example.org>\nMessage-ID: <{number}@example.org>\nSubject: {number}\n\nHello\n.\n..dots\n"
    return Message(Envelope.of("news@example.org", recipients or ["ada@example.com"]), Content.of(text))


@TWO_WAYS_TO_TLS
async def test_a_message_arrives_octet_for_octet(postfix: Postfix, security: Security) -> None:
    """TLS by a private CA, AUTH, and dots at the beginning of lines."""
    async with Session(make_relay(postfix, security)) as session:
        delivery = await session.send(letter(1))
    assert delivery.accepted
    assert delivery.tls is not None
    assert delivery.tls.version == "TLSv1.3"
    (mail,) = postfix.wait_for(1)
    assert mail.get_content() == "Hello\n.\n..dots\n"


async def test_hundreds_over_a_few_sessions_all_arrive_once(postfix: Postfix) -> None:
    """Postfix reads on after the end of data: the sessions prove it and use it, and nothing is lost or doubled."""
    async with Pool(make_relay(postfix), sessions=3) as pool:
        deliveries = await asyncio.gather(*(pool.send(letter(number)) for number in range(200)))
    assert all(delivery.accepted for delivery in deliveries)
    arrived = sorted(int(str(mail["Subject"])) for mail in postfix.wait_for(200))
    assert arrived == list(range(200))


async def test_each_recipient_has_its_own_answer(postfix: Postfix) -> None:
    """One refused for good, one for now, one accepted, in one transaction; with Postfix's words."""
    async with Session(make_relay(postfix)) as session:
        delivery = await session.send(letter(1, "nobody@example.com", "busy@example.com", "ada@example.com"))
    assert delivery.outcomes == (Outcome.REJECTED, Outcome.DEFERRED, Outcome.ACCEPTED)
    refused, deferred, _ = delivery.replies
    assert (refused.code, str(refused.status)) == (550, "5.1.1")
    assert "No such user here" in str(refused)
    assert (deferred.code, str(deferred.status)) == (450, "4.2.1")
    assert "come back later" in str(deferred)
    assert len(postfix.wait_for(1)) == 1


async def test_a_session_goes_on_after_a_refusal(postfix: Postfix) -> None:
    """Postfix answers 503 to a MAIL that follows a refused DATA without RSET."""
    async with Session(make_relay(postfix)) as session:
        refused = await session.send(letter(1, "nobody@example.com"))
        accepted = await session.send(letter(2))
    assert (refused.accepted, accepted.accepted) == (False, True)


@TWO_WAYS_TO_TLS
async def test_a_certificate_of_an_unknown_authority_ends_it(postfix: Postfix, security: Security) -> None:
    """Without the private CA nobody can tell this server from another."""
    relay = Relay("localhost", make_relay(postfix, security).port, security)
    with pytest.raises(ConnectFailed, match="certificate"):
        await Session(relay).connect()


async def test_a_wrong_password_is_sent_once(postfix: Postfix) -> None:
    """Postfix's own words come with the refusal; the password does not."""
    with pytest.raises(AuthenticationRefused, match="535") as refused:
        await Session(make_relay(postfix, password="wrong horse")).connect()
    assert "wrong horse" not in str(refused.value)
