"""F3: whatever a server says, and when, each message has a result or an error of ours, and nothing is left over.

Also where the session logs in, where the server half closes, and where a sender is cancelled at any turn of the loop.
"""

from __future__ import annotations

import asyncio
import re

from asyncsmtp.client.config.login_config import Login
from asyncsmtp.client.config.relay import Dialogue, Relay
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import ConnectionLost, DeliveryInDoubt, SMTPError
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.auth.credentials import Secret
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.opening_handshake import Security
from tests.fuzz.memory import MemoryTransport, VirtualLoop, memory_streams
from tests.fuzz.script import turns

__all__ = ["target"]

DIALOGUES = tuple(Dialogue)
MAX_SECONDS = 6 * 3600.0  # of virtual time; the limits of all stages of three messages are less
ENDS = (b"\r\n.\r\n", b" LAST\r\n")
BEGUN = (b"\r\nDATA\r\n", b"BDAT ")
PASSWORD = "hunter2-c4n4ry"
_loop: VirtualLoop | None = None


def target(data: bytes) -> None:
    """An octet for the dialogue, recipients and size, one for login and cancelling; the rest the server says."""
    global _loop
    if len(data) < 2:
        return
    if _loop is None:
        _loop = VirtualLoop()
    _loop.run_until_complete(_play(_loop, data[0], data[1], data[2:]))


async def _play(loop: VirtualLoop, settings: int, moves: int, script: bytes) -> None:
    transport = MemoryTransport(loop, turns(script))
    relay = Relay(
        "relay.example",
        25,
        Security.PLAINTEXT,
        dialogue=DIALOGUES[settings % 3],
        opener=lambda host, port: memory_streams(transport),
        lmtp=bool(settings & 4),
        login=Login("ann", Secret(PASSWORD)) if moves & 1 else None,
        cleartext_login=True,
    )
    body = b"x" * 76 + b"\r\n"
    content = Content.of(b"Subject: fuzz\r\n\r\n" + body * (2_000 if settings & 8 else 1))
    paths = [f"{name}@example.net" for name in ("a", "b", "c")[: 1 + (settings >> 4) % 3]]
    messages = [Message(Envelope.of("from@example.org", paths), content)] * (1 + (settings >> 6) % 3)
    faults: list[object] = []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    began = loop.time()
    results: list[object] = []
    try:
        async with Session(relay) as session:
            senders = [loop.create_task(session.send(message)) for message in messages]
            if moves & 2:
                _cancel_later(loop, senders[(moves >> 2) % len(senders)], moves >> 4)
            results += await asyncio.gather(*senders, return_exceptions=True)
    except SMTPError as error:
        results = [error]
    assert not faults
    assert loop.time() - began < MAX_SECONDS
    assert transport.is_closing()
    assert len(asyncio.all_tasks(loop)) == 1
    if len(messages) == 1 and body in transport.written and any(end in transport.written for end in ENDS):
        # Never "nothing was delivered", unless a relay that refused RSET refused what followed as well.
        assert isinstance(results[0], Delivery | DeliveryInDoubt) or _is_refused(results[0], bytes(transport.said)), (
            repr(results[0])
        )
    cancelled = [result for result in results if isinstance(result, asyncio.CancelledError)]
    assert len(cancelled) <= bool(moves & 2)
    for result in results:
        assert isinstance(result, Delivery | SMTPError | asyncio.CancelledError), repr(result)
        assert PASSWORD not in str(result)
        if isinstance(result, Delivery) and result.content_sent:
            assert any(end in transport.written for end in ENDS)
        if isinstance(result, DeliveryInDoubt):  # WI-14: a reply that comes too early claims what cannot be
            assert any(begun in transport.written for begun in BEGUN)


def _is_refused(result: object, said: bytes) -> bool:
    """Tell if one of a stream's two RSETs was refused, and of MAIL, RCPT and BDAT not all were accepted before QUIT."""
    said = re.split(rb"\n421", said)[0]  # it ends the session: what comes behind it answers nothing
    codes: list[bytes] = re.findall(rb"(?m)^([2-5])[0-9][0-9](?: |\r?$)", said.rpartition(b"\n235 ")[2])
    replies = codes[2 - said.count(b"\n235 ") :]  # behind those to the connection and EHLO, or behind that to AUTH
    is_reset_refused = any(code != b"2" for code in replies[:2])
    return isinstance(result, ConnectionLost) and is_reset_refused and replies[1:].count(b"2") < 3


def _cancel_later(loop: VirtualLoop, sender: asyncio.Task[Delivery], turns: int) -> None:
    """Cancel a sender after so many turns of the loop: before its envelope, within it, behind its content."""
    if turns:
        loop.call_soon(_cancel_later, loop, sender, turns - 1)
    else:
        sender.cancel()
