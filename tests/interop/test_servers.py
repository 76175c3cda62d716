"""Sessions of ours with real servers, and what then is in the mailbox, octet for octet."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from asyncsmtp.client.config.login_config import ClientCertificate
from asyncsmtp.client.config.relay import Dialogue, Login, TokenSource
from asyncsmtp.client.events.types import Direction
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import AuthenticationRefused, ConnectFailed, ExtensionNotSupported
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.auth.auth import MECHANISMS, Bearer, Mechanism, Secret
from asyncsmtp.protocol.commands import END_OF_CONTENT
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.delivery import Outcome
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.opening_handshake import Security
from tests.interop.dovecot import Dovecot
from tests.interop.exim import Exim
from tests.interop.opensmtpd import OpenSmtpd
from tests.interop.served_postfix import ServedPostfix
from tests.interop.server import PASSWORD, USER, Server, original

pytestmark = pytest.mark.interop

KINDS: dict[str, type[Server]] = {"postfix": ServedPostfix, "exim": Exim, "opensmtpd": OpenSmtpd, "dovecot": Dovecot}
THREE_WAYS = pytest.mark.parametrize("security", [Security.PLAINTEXT, Security.STARTTLS, Security.IMPLICIT_TLS])

TRICKY = "a\n.\n..\n.QUIT\nFrom here, an mbox would begin a new mail\n \n\ttab\ntrailing  \n" + "x" * 998 + "\n\n\n"


def on(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("server", names, indirect=True)


def offering(extension: str) -> list[str]:
    return [name for name, kind in KINDS.items() if extension in kind.extensions]


def lacking(extension: str) -> list[str]:
    return [name for name, kind in KINDS.items() if extension not in kind.extensions]


def letter(number: int = 1, *recipients: str, body: str = TRICKY, subject: str = "hello") -> Message:
    """A message with all that a server would add if it were missing."""
    head = (
        f"Message-ID: <{number}@example.org>\nDate: Thu, 01 Jan 2026 00:00:00 +0000\n"
        f"From: News <news@example.org>\nTo: undisclosed-recipients:;\nSubject: {subject}\n folded\n\n"
    )
    return Message(Envelope.of("news@example.org", recipients or ["ada@example.com"]), Content.of(head + body))


@on(*KINDS)
async def test_it_offers_what_its_tests_count_on(server: Server) -> None:
    """A test that is chosen by what a server offers would else vanish without a word."""
    async with Session(server.relay()) as session:
        assert server.extensions - set(session.extensions) == set()
        assert set(session.extensions.mechanisms) == server.mechanisms
        assert session.extensions.size == server.limit


@THREE_WAYS
@on(*KINDS)
async def test_a_message_arrives_octet_for_octet(server: Server, security: Security) -> None:
    """In clear, by STARTTLS and by implicit TLS: dots, blanks, empty lines and the longest line."""
    sent = letter()
    async with Session(server.relay(security)) as session:
        delivery = await session.send(sent)
    assert delivery.accepted
    assert (delivery.tls is None) == (security is Security.PLAINTEXT)
    assert [original(mail) for mail in server.wait_for(1)] == [bytes(sent.content)]


@on(*offering("8BITMIME"))
async def test_octets_above_127_arrive_as_they_are(server: Server) -> None:
    """8BITMIME (RFC 6152): nothing on the way makes quoted-printable of them."""
    sent = letter(body="Grüße aus Łódź\n.é\n")
    async with Session(server.relay()) as session:
        assert (await session.send(sent)).accepted
    assert [original(mail) for mail in server.wait_for(1)] == [bytes(sent.content)]


@on(*offering("SMTPUTF8"))
async def test_an_address_and_a_subject_beyond_ascii_arrive(server: Server) -> None:
    """SMTPUTF8 (RFC 6531), from the envelope to the mailbox."""
    sent = letter(1, "zoë@example.com", subject="Grüße")
    async with Session(server.relay()) as session:
        assert (await session.send(sent)).accepted
    assert [original(mail) for mail in server.wait_for(1)] == [bytes(sent.content)]


@on(*lacking("SMTPUTF8"))
async def test_a_server_without_smtputf8_is_not_bothered(server: Server) -> None:
    """The message is refused here, and the session goes on with the next."""
    async with Session(server.relay()) as session:
        with pytest.raises(ExtensionNotSupported, match="SMTPUTF8"):
            await session.send(letter(1, "zoë@example.com"))
        assert (await session.send(letter())).accepted
    assert len(server.wait_for(1)) == 1


@on(*KINDS)
async def test_a_message_over_the_size_is_not_begun(server: Server) -> None:
    """SIZE (RFC 1870): what the server would refuse is refused here, before MAIL."""
    async with Session(server.relay()) as session:
        with pytest.raises(ExtensionNotSupported, match="SIZE"):
            await session.send(letter(body="0123456789abcde\n" * (server.limit // 16)))
        assert (await session.send(letter())).accepted
    assert len(server.wait_for(1)) == 1


@on(*KINDS)
async def test_a_server_that_finds_the_size_too_large_refuses_it(server: Server) -> None:
    """With SIZE masked it counts, and says 552, or 554; Dovecot in the midst of the content, the others behind it."""
    async with Session(server.relay(ignored_extensions=frozenset({"SIZE"}))) as session:
        delivery = await session.send(letter(body="0123456789abcde\n" * (server.limit // 16)))
    assert delivery.outcomes == (Outcome.REJECTED,)
    assert delivery.replies[0].code in (552, 554)
    async with Session(server.relay()) as session:
        assert (await session.send(letter())).accepted
    assert len(server.wait_for(1)) == 1


@on(*KINDS)
async def test_a_content_of_many_blocks_arrives_octet_for_octet(server: Server) -> None:
    """It is streamed, and cut anywhere; each line begins with a dot."""
    body = "".join(f".{number}\n" for number in range(100_000))
    sent = letter(body=body)
    async with Session(server.relay()) as session:
        assert (await session.send(sent)).accepted
    assert [original(mail) for mail in server.wait_for(1)] == [bytes(sent.content)]


@on(*KINDS)
async def test_each_recipient_has_its_own_answer(server: Server) -> None:
    """One refused for good, one for now where the server can, one accepted."""
    busy = ("busy@example.com",) if server.has_busy else ()
    async with Session(server.relay()) as session:
        delivery = await session.send(letter(1, "nobody@example.com", *busy, "ada@example.com"))
    deferred = (Outcome.DEFERRED,) if server.has_busy else ()
    assert delivery.outcomes == (Outcome.REJECTED, *deferred, Outcome.ACCEPTED)
    assert len(server.wait_for(1)) == 1


@on(*KINDS)
async def test_a_session_goes_on_after_a_refusal(server: Server) -> None:
    """After a refused DATA some servers answer 503 to the next MAIL unless RSET comes between."""
    async with Session(server.relay()) as session:
        numbers = range(10)
        deliveries = await asyncio.gather(
            *(session.send(letter(n, "ada@example.com" if n % 2 else "nobody@example.com")) for n in numbers)
        )
    assert [delivery.accepted for delivery in deliveries] == [n % 2 == 1 for n in numbers]
    arrived = Counter(original(mail) for mail in server.wait_for(5))
    assert arrived == Counter(bytes(letter(n).content) for n in numbers if n % 2)


@pytest.mark.parametrize("dialogue", list(Dialogue))
@on(*KINDS)
async def test_hundreds_over_two_sessions_all_arrive_once(server: Server, dialogue: Dialogue) -> None:
    """Whatever the server bears behind the end of a content; nothing is lost, doubled, mixed up or in doubt."""
    sent = [letter(number, body=f"{number}\n.\n") for number in range(200 if dialogue is Dialogue.PIPELINED else 20)]
    async with Pool(server.relay(dialogue=dialogue), sessions=2) as pool:
        deliveries = await asyncio.gather(*map(pool.send, sent))
    assert all(delivery.accepted for delivery in deliveries)
    arrived = Counter(original(mail) for mail in server.wait_for(len(sent)))
    assert arrived == Counter(bytes(message.content) for message in sent)


@on(*KINDS)
async def test_a_session_pipelines_after_the_end_of_data_where_the_server_allows_it(server: Server) -> None:
    """A server that offers PIPELINING proves it with the first content, and is spoken to ahead from then on."""
    lines: list[tuple[Direction, str]] = []

    def listen(side: Direction, text: str, *, tls: bool, refused: bool) -> None:
        lines.append((side, text))

    async with Session(server.relay(), trace=listen) as session:
        await asyncio.gather(*(session.send(letter(number)) for number in range(10)))
    ahead = [
        text
        for before, (side, text) in pairwise(lines)
        if before[1] == str(END_OF_CONTENT) and side is Direction.CLIENT
    ]
    assert len(ahead) == (9 if "PIPELINING" in server.extensions else 0), lines
    assert len(server.wait_for(10)) == 10


@pytest.mark.parametrize(
    ("server", "mechanism"),
    [(name, m) for name, kind in KINDS.items() for m in MECHANISMS if m.name in kind.mechanisms],
    indirect=["server"],
    ids=lambda value: getattr(value, "name", value),
)
async def test_every_mechanism_that_both_sides_know_logs_in(server: Server, mechanism: Mechanism) -> None:
    """One by one, also those that a better one would be preferred to."""
    said: list[str] = []

    def listen(side: Direction, text: str, *, tls: bool, refused: bool) -> None:
        said.append(text)

    secret: dict[str, Any] = (
        {"token": make_token(server)} if mechanism.credentials_type is Bearer else {"password": Secret(PASSWORD)}
    )
    login = Login(USER, mechanisms=(mechanism.name,), **secret)
    async with Session(server.relay(login=login), trace=listen) as session:
        assert (await session.send(letter())).accepted
    assert [line.split()[1] for line in said if line.startswith("AUTH ")] == [mechanism.name]
    assert len(server.wait_for(1)) == 1


@on(*(name for name, kind in KINDS.items() if kind.knows_certificates))
async def test_a_client_certificate_logs_in(server: Server) -> None:
    """EXTERNAL (RFC 4422, appendix A): the relay takes the name from the certificate of the handshake."""
    certificate = ClientCertificate(server.client_certificate)
    async with Session(server.relay(login=Login.by_certificate(), client_certificate=certificate)) as session:
        assert (await session.send(letter())).accepted
    assert len(server.wait_for(1)) == 1


@on(*KINDS)
async def test_a_wrong_password_is_sent_once(server: Server) -> None:
    """The server's own words come with the refusal; the password does not."""
    with pytest.raises(AuthenticationRefused, match="535") as refused:
        await Session(server.relay(login=Login(USER, Secret("wrong horse")))).connect()
    assert "wrong horse" not in str(refused.value)


@pytest.mark.parametrize("security", [Security.STARTTLS, Security.IMPLICIT_TLS])
@on(*KINDS)
async def test_a_certificate_of_an_unknown_authority_ends_it(server: Server, security: Security) -> None:
    """Without the private CA nobody can tell this server from another."""
    with pytest.raises(ConnectFailed, match="certificate"):
        await Session(server.relay(security, ca_file=None)).connect()


def make_token(server: Server) -> TokenSource:
    async def token() -> str:
        return server.token()

    return token
