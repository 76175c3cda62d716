"""Messages of the standard library and finished bytes on their way to a relay: what it takes, and how long it takes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.message import Message as ParsedMessage
from email.mime.text import MIMEText
from pathlib import Path
from threading import current_thread, main_thread
from time import perf_counter
from typing import Any, cast

import pytest

import asyncsmtp
from asyncsmtp.client import compose
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import ExtensionNotSupported, InvalidArgument, MessageError
from asyncsmtp.mail.message import Message
from asyncsmtp.mail.signing.dkim import Signer
from asyncsmtp.testing import ScriptedRelay
from tests.client.support import relay_of
from tests.mail.test_dkim import hold, keys

pytestmark = pytest.mark.usefixtures("nothing_leaks")

EIGHT_BIT = (
    "From: Zoë <a@example.org>\r\nTo: b@example.net\r\nDate: Mon, 03 Nov 2025 09:00:00 +0000\r\n"
    "Message-ID: <1@example.org>\r\nContent-Type: text/plain; charset=utf-8\r\n"
    "Content-Transfer-Encoding: 8bit\r\n\r\nGrüße\r\n"
).encode()
Sender = Callable[[ScriptedRelay, Any], Awaitable[object]]


async def by_send(relay: ScriptedRelay, message: Any) -> object:
    return await asyncsmtp.send(message, relay=relay_of(relay))


async def by_session(relay: ScriptedRelay, message: Any) -> object:
    async with Session(relay_of(relay)) as session:
        return await session.send(message)


async def by_pool(relay: ScriptedRelay, message: Any) -> object:
    async with Pool(relay_of(relay)) as pool:
        return await pool.send(message)


SENDERS = [by_send, by_session, by_pool]


def read(octets: bytes) -> EmailMessage:
    return cast(EmailMessage, message_from_bytes(octets, policy=policy.default))


@pytest.mark.parametrize("send", SENDERS)
async def test_a_relay_with_8bitmime_gets_the_bytes_that_were_received(send: Sender) -> None:
    """FT-43: with raw UTF-8 in the header section SMTPUTF8 is needed too (RFC 6531)."""
    async with ScriptedRelay() as relay:
        await send(relay, message_from_bytes(EIGHT_BIT))
        assert relay.received[0].content == EIGHT_BIT
        assert any("BODY=8BITMIME SMTPUTF8" in line for line in relay.dialogue)


@pytest.mark.parametrize("offers", [("PIPELINING",), ("8BITMIME",)])
@pytest.mark.parametrize("send", SENDERS)
async def test_a_relay_without_it_gets_the_same_in_seven_bits(send: Sender, offers: tuple[str, ...]) -> None:
    """FT-43: without 8BITMIME, and without SMTPUTF8."""
    async with ScriptedRelay(offers=offers) as relay:
        await send(relay, message_from_bytes(EIGHT_BIT))
        octets = relay.received[0].content
        assert octets.isascii()
        assert read(octets)["From"].addresses[0].display_name == "Zoë"
        assert read(octets).get_content().replace("\r\n", "\n") == "Grüße\n"
        assert octets.count(b"Message-ID") == 1


@pytest.mark.parametrize("send", SENDERS)
async def test_a_signed_message_that_the_relay_cannot_take_is_an_error(send: Sender) -> None:
    """FT-43: nothing is sent; and finished bytes are never encoded anew, signed or not."""
    async with ScriptedRelay(offers=("PIPELINING",)) as relay:
        with pytest.raises(MessageError, match="signature"):
            await send(relay, message_from_bytes(b"DKIM-Signature: v=1\r\n" + EIGHT_BIT))
        with pytest.raises(ExtensionNotSupported, match="SMTPUTF8"):
            await send(relay, EIGHT_BIT)
        assert relay.received == []


async def test_the_parts_of_a_long_list_of_recipients_are_the_same() -> None:
    """FT-43: RFC 9422, and a fallback that is used for each part."""
    async with ScriptedRelay(offers=("LIMITS RCPTMAX=2",)) as relay, Session(relay_of(relay)) as session:
        recipients = [f"r{number}@example.net" for number in range(5)]
        await session.send(Message.of(message_from_bytes(EIGHT_BIT), recipients=recipients))
        assert [len(received.forward_paths) for received in relay.received] == [2, 2, 1]
        assert len({received.content for received in relay.received}) == 1
        assert relay.received[0].content.isascii()


async def test_our_signature_is_made_over_seven_bits() -> None:
    """FT-43: a relay that converts 8 bits would break it (RFC 6376 §5.3); that of others is passed on with ours."""
    async with ScriptedRelay() as relay, Session(relay_of(relay), signer=Signer(*keys())) as session:
        await session.send(message_from_bytes(EIGHT_BIT))
        await session.send(message_from_bytes(b"DKIM-Signature: v=1\r\n" + EIGHT_BIT))
        ours, both = (received.content for received in relay.received)
    assert ours.isascii()
    assert hold(ours) == [True, True]
    assert both.endswith(b"DKIM-Signature: v=1\r\n" + EIGHT_BIT)


@pytest.mark.parametrize("send", SENDERS)
@pytest.mark.parametrize("make", [EmailMessage, lambda: MIMEText("x", "plain", "utf-8")])
async def test_date_and_message_id_are_added(send: Sender, make: Callable[[], ParsedMessage]) -> None:
    """FT-47: RFC 5322 §3.6; the caller's message is as it was."""
    message = make()
    message["From"], message["To"] = "a@example.org", "b@example.net"
    before = message.items()
    async with ScriptedRelay() as relay:
        await send(relay, message)
        received = read(relay.received[0].content)
    assert received["Message-ID"].endswith("@example.org>")
    assert received["Date"].datetime.tzinfo is not None
    assert message.items() == before


async def test_one_that_is_there_is_kept() -> None:
    """FT-47: and none is added to what others have signed, or to finished bytes."""
    message = MIMEText("x")
    message["From"], message["To"], message["message-id"] = "a@example.org", "b@example.net", "<own@example.org>"
    bare = b"From: a@example.org\r\nTo: b@example.net\r\n\r\nx\r\n"
    signed = message_from_bytes(b"DKIM-Signature: v=1\r\n" + bare)
    async with ScriptedRelay() as relay, Session(relay_of(relay)) as session:
        for each in (message, signed, bare):
            await session.send(each)  # type: ignore[arg-type]
        own, theirs, finished = (received.content for received in relay.received)
    assert re.findall(rb"(?im)^message-id: (.*)\r$", own) == [b"<own@example.org>"]
    assert own.count(b"Date:") == 1
    assert (theirs, finished) == (b"DKIM-Signature: v=1\r\n" + bare, bare)


async def test_a_message_in_eight_bits_gets_them_too() -> None:
    """FT-47: whether the relay has 8BITMIME or not."""
    message = EmailMessage()
    message["From"], message["To"] = "a@example.org", "b@example.net"
    message.set_content("Grüße\n", cte="8bit")
    for offers in (("8BITMIME",), ("PIPELINING",)):
        async with ScriptedRelay(offers=offers) as relay:
            await by_send(relay, message)
            octets = relay.received[0].content
        assert (octets.count(b"Date: "), octets.count(b"Message-ID: ")) == (1, 1)
        assert octets.isascii() is ("8BITMIME" not in offers)


def test_a_message_of_the_library_without_them_is_not_signed() -> None:
    """FT-47: what is added later would break the signature."""
    message = MIMEText("x")
    message["From"], message["To"] = "a@example.com", "b@example.net"
    with pytest.raises(InvalidArgument, match="before it is signed"):
        Signer(*keys()).sign(message)


def addressed(number: int, **settings: Any) -> EmailMessage:
    message = EmailMessage(**settings)
    message["From"] = "a@example.org"
    message["To"] = ", ".join(f"Name {each} <user{each}@example.net>" for each in range(number))
    message.set_content("x\n")
    return message


LARGE: dict[str, Callable[[], object]] = {
    "bytes": lambda: EIGHT_BIT + b"x" * 60 + b"\r\n" * 50_000,
    "bytes with LF": lambda: EIGHT_BIT.replace(b"\r", b"") + b"x\n" * 50_000,
    "a long header section": lambda: b"X-Long: x\r\n" * 2_000 + EIGHT_BIT,
    "a parsed message": lambda: message_from_bytes(EIGHT_BIT + "Grüße\r\n".encode() * 20_000),
    "1,000 addresses": lambda: addressed(1000),
    "many parts": lambda: message_from_bytes(
        b"From: a@example.org\nTo: b@example.net\nContent-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * 500
    ),
}


@pytest.mark.parametrize("send", SENDERS)
@pytest.mark.parametrize("large", LARGE)
async def test_large_messages_are_converted_in_a_thread(
    large: str, send: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FT-48: every way to send them, and each kind of large."""
    threads: list[str] = []
    convert = compose.prepare_message

    def prepare(message: Any) -> Message:
        if not isinstance(message, Message):
            threads.append("event loop" if current_thread() is main_thread() else "thread")
        return convert(message)

    monkeypatch.setattr(compose, "prepare_message", prepare)
    async with ScriptedRelay() as relay:
        await send(relay, LARGE[large]())
        await send(relay, message_from_bytes(EIGHT_BIT))
        assert len(relay.received) == 2
    assert threads == ["thread", "event loop"]


async def longest_step(work: Awaitable[object]) -> float:
    """Seconds of the longest step of the event loop while `work` is awaited."""
    longest, last, over = 0.0, perf_counter(), False

    async def watch() -> None:
        nonlocal longest, last
        while not over:
            await asyncio.sleep(0)
            now = perf_counter()
            longest, last = max(longest, now - last), now

    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        await asyncio.sleep(0)
        await work
        over = True
    return longest


@pytest.mark.parametrize("kind", ["bytes", "parsed", "addresses"])
@pytest.mark.slow
async def test_the_event_loop_goes_on_meanwhile(kind: str) -> None:
    """FT-48: it stood still for 3 s (20 MB) and 2.5 s (1,000 addresses); the limit here is a loaded machine's."""
    body = b"x" * 70 + b"\r\n"
    octets = EIGHT_BIT + body * 280_000
    message: Any = {"bytes": octets, "parsed": message_from_bytes(octets), "addresses": addressed(1000)}[kind]
    shortest = min([await longest_step(compose.prepare_for_sending(message, None)) for _ in range(3)])
    assert shortest < 0.25


def test_the_package_copies_no_message() -> None:
    """FT-48: `deepcopy` of a header with 1,000 addresses takes a second."""
    package = Path(cast(str, asyncsmtp.__file__)).parent
    assert [path.name for path in package.rglob("*.py") if "deepcopy" in path.read_text("utf-8")] == []
