"""Our LMTP with Dovecot's, and what then is in each mailbox, octet for octet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from asyncsmtp.client.config.relay import Dialogue, Relay
from asyncsmtp.client.events.types import Direction
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import ConnectFailed
from asyncsmtp.protocol.commands import END_OF_CONTENT
from asyncsmtp.protocol.delivery import Delivery, Outcome
from asyncsmtp.protocol.opening_handshake import Security
from tests.interop.dovecot import Dovecot
from tests.interop.server import original
from tests.interop.test_servers import letter

pytestmark = pytest.mark.interop

ADA, BOB, EVE, NOBODY = (f"{name}@example.com" for name in ("ada", "bob", "eve", "nobody"))
BOTH_WAYS = pytest.mark.parametrize("dialogue", list(Dialogue))


class Lines:
    """A trace that keeps each line with its sender."""

    def __init__(self) -> None:
        self.said: list[tuple[Direction, str]] = []

    def __call__(self, side: Direction, text: str, *, tls: bool, refused: bool) -> None:
        self.said.append((side, text))

    def verbs(self) -> list[str]:
        return [text.split()[0] for side, text in self.said if side is Direction.CLIENT]


def by_port(dovecot: Dovecot, dialogue: Dialogue) -> Relay:
    return Relay(dovecot.host, dovecot.lmtp, Security.PLAINTEXT, dialogue=dialogue, lmtp=True)


def by_socket(dovecot: Dovecot, dialogue: Dialogue) -> Relay:
    return replace(Relay.from_url(f"lmtp+unix://{dovecot.lmtp_socket}"), dialogue=dialogue)


@pytest.mark.parametrize("reached", [by_port, by_socket])
@BOTH_WAYS
async def test_each_recipient_has_its_own_answer(
    dovecot: Dovecot, dialogue: Dialogue, reached: Callable[[Dovecot, Dialogue], Relay]
) -> None:
    """One refused at RCPT, and a reply behind the content for each of the others (RFC 2033 §4.2)."""
    lines = Lines()
    sent = letter(1, ADA, NOBODY, BOB)
    async with Session(reached(dovecot, dialogue), trace=lines) as session:
        delivery = await session.send(sent)
    assert delivery.outcomes == (Outcome.ACCEPTED, Outcome.REJECTED, Outcome.ACCEPTED)
    assert [reply.code for reply in delivery.replies] == [250, 550, 250]
    assert [named(delivery, path) for path in (ADA, BOB)] == [True, True]
    assert ("BDAT" in lines.verbs()) == (dialogue is Dialogue.STREAMED)
    assert ("DATA" in lines.verbs()) == (dialogue is not Dialogue.STREAMED)
    assert lines.verbs()[0] == "LHLO"
    for path in (ADA, BOB):
        assert [original(mail) for mail in dovecot.lmtp_mails(path)] == [bytes(sent.content)]


@BOTH_WAYS
async def test_every_answer_finds_its_message(dovecot: Dovecot, dialogue: Dialogue) -> None:
    """The replies to a content are as many as its recipients: one counted wrong would shift all that follow."""
    paths = [(ADA,), (ADA, NOBODY, BOB), (NOBODY,), (EVE, BOB, ADA), (NOBODY, EVE)] * 4
    sent = [letter(number, *to, body=f"{number}\n.\n") for number, to in enumerate(paths)]
    async with Session(by_port(dovecot, dialogue)) as session:
        deliveries = await asyncio.gather(*map(session.send, sent))
    for to, delivery in zip(paths, deliveries, strict=True):
        taken = [path for path in to if path != NOBODY]
        assert [delivery.outcome(path) is Outcome.ACCEPTED for path in to] == [path in taken for path in to]
        assert all(named(delivery, path) for path in taken)
    for path in (ADA, BOB, EVE):
        arrived = sorted(original(mail) for mail in dovecot.lmtp_mails(path))
        assert arrived == sorted(bytes(sent[number].content) for number, to in enumerate(paths) if path in to)


async def test_a_session_pipelines_after_the_end_of_data(dovecot: Dovecot) -> None:
    """Dovecot reads on behind a content, so the next envelope does not wait for the replies to it."""
    lines = Lines()
    async with Session(by_port(dovecot, Dialogue.PIPELINED), trace=lines) as session:
        await asyncio.gather(*(session.send(letter(number, ADA, BOB)) for number in range(10)))
    ahead = [after for before, (side, after) in pairwise(lines.said) if is_end(before) and side is Direction.CLIENT]
    assert len(ahead) == 9, lines.said
    assert len(dovecot.lmtp_mails(ADA)) == len(dovecot.lmtp_mails(BOB)) == 10


@BOTH_WAYS
async def test_a_content_of_many_blocks_arrives_octet_for_octet(dovecot: Dovecot, dialogue: Dialogue) -> None:
    """It is cut anywhere, and each line begins with a dot."""
    sent = letter(1, ADA, EVE, body="".join(f".{number}\n" for number in range(50_000)))
    async with Session(by_port(dovecot, dialogue)) as session:
        assert (await session.send(sent)).accepted
    for path in (ADA, EVE):
        assert [original(mail) for mail in dovecot.lmtp_mails(path)] == [bytes(sent.content)]


@pytest.mark.parametrize("reached", [by_port, by_socket])
async def test_starttls_is_required_where_it_is_asked_for(
    dovecot: Dovecot, reached: Callable[[Dovecot, Dialogue], Relay]
) -> None:
    """LMTP knows it too; the certificate is for localhost, which is what a Unix socket is taken for."""
    plain = reached(dovecot, Dialogue.STREAMED)
    relay = replace(plain, security=Security.STARTTLS, ca_file=dovecot.ca_file)
    async with Session(relay) as session:
        delivery = await session.send(sent := letter(1, ADA, NOBODY))
    assert delivery.tls is not None
    assert delivery.tls.version == "TLSv1.3"
    assert delivery.outcomes == (Outcome.ACCEPTED, Outcome.REJECTED)
    assert [original(mail) for mail in dovecot.lmtp_mails(ADA)] == [bytes(sent.content)]
    with pytest.raises(ConnectFailed, match="certificate"):
        await Session(replace(relay, verify_name="other.example")).connect()


def is_end(line: tuple[Direction, str]) -> bool:
    return line == (Direction.CLIENT, str(END_OF_CONTENT))


def named(delivery: Delivery, path: str) -> bool:
    """Tell if the reply to the content names the recipient that it is recorded for."""
    return f"<{path}>" in delivery.reply(path).text
