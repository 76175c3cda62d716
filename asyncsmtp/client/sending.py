"""One message in one call."""

from __future__ import annotations

import asyncio
import socket
from contextlib import aclosing
from typing import TYPE_CHECKING

from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.events.trace import Trace
from asyncsmtp.client.events.types import OnEvent
from asyncsmtp.client.session.deadline import by
from asyncsmtp.client.session.place import BeforeEnd
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import DeliveryInDoubt
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.delivery import Delivery, Outcome

if TYPE_CHECKING:
    from email.message import Message as ParsedMessage

__all__ = ["send"]


async def send(
    message: Message | ParsedMessage,
    *,
    relay: Relay | str,
    sock: socket.socket | None = None,
    trace: Trace | None = None,
    on_event: OnEvent | None = None,
    deadline: float | None = None,
    hard: bool = False,
) -> Delivery:
    """Open a session, send one message, say QUIT; return what the relay answered for each recipient.

    A refused recipient is in the result, not an exception: call `raise_for_refusal()` on it for one.

    Args:
        message: a Message, or an `email.message` one with its envelope taken from its headers.
        relay: a Relay, or its URL.
        sock: a socket that is connected to it; it is closed at the end, whatever comes of it.
        trace: is given each line of the dialogue. on_event: what happens, see `client.events`.
        deadline: seconds until the end of the content must be written, connecting included, and not QUIT. hard: and
            its reply be there.
    Raises and cancels as `Session.connect` and `Session.send` do; cancelled while it says QUIT, it raises
    DeliveryInDoubt where somebody was accepted.
    """
    try:
        made = Message.of(message)
        reached = Relay.from_url(relay) if isinstance(relay, str) else relay
        session = Session(reached, sock=sock, trace=trace, on_event=on_event)
    except BaseException:
        if sock is not None:
            sock.close()
        raise
    delivery = None
    try:
        async with aclosing(session):
            delivery = await _deliver(session, made, deadline, hard)
    except asyncio.CancelledError as error:
        if delivery is None or Outcome.ACCEPTED not in delivery.outcomes:
            raise
        raise DeliveryInDoubt(made.envelope, "the sender gave up waiting for the end of the session") from error
    return delivery


async def _deliver(session: Session, made: Message, deadline: float | None, hard: bool) -> Delivery:
    """All that the deadline is about: QUIT comes behind the answer, and has a limit of its own."""

    async def connect_and_send(before_end: BeforeEnd | None) -> Delivery:
        await session.connect()
        return await session.send(made, before_end=before_end)

    if deadline is None:
        return await connect_and_send(None)
    return await by(deadline, hard, None, connect_and_send)
