"""One message in one call."""

from __future__ import annotations

import asyncio
import socket
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

from asyncsmtp.client.compose import check_signer, prepare_message, sign_message
from asyncsmtp.client.config.login_config import TokenSource
from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.events.types import OnEvent, Trace
from asyncsmtp.client.retry import Retry
from asyncsmtp.client.session.pending_message import BeforeEnd, with_deadline
from asyncsmtp.client.session.session import Session, to_relay
from asyncsmtp.errors import DeliveryInDoubt, InvalidArgument, check_type
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.auth.auth import Secret
from asyncsmtp.protocol.delivery import Delivery, Outcome

if TYPE_CHECKING:
    from email.message import Message as ParsedMessage

    from asyncsmtp.client.pool.pool import Pool
    from asyncsmtp.mail.signing.dkim import Signer

__all__ = ["send"]


async def send(
    message: Message | ParsedMessage,
    *,
    relay: Relay | str,
    password: str | Secret | None = None,
    token: str | Secret | TokenSource | None = None,
    signer: Signer | None = None,
    sock: socket.socket | None = None,
    trace: Trace | None = None,
    on_event: OnEvent | None = None,
    deadline: float | None = None,
    hard: bool = False,
    retry: Retry | None = None,
) -> Delivery:
    """Open a session, send one message, say QUIT; return what the relay answered for each recipient.

    A refused recipient is in the result, not an exception: call `raise_for_refusal()` on it for one.

    Args:
        message: a Message, or an `email.message` one with its envelope taken from its headers.
        relay: a Relay, or its URL. password, token: for the user of a URL.
        signer: signs the message with DKIM.
        sock: a socket that is connected to it; it is closed at the end, whatever comes of it.
        trace: is called with each line of the dialogue. on_event: with each event, see `asyncsmtp.Event`.
        deadline: seconds until the end of the content must be written, connecting and retries included, and not QUIT.
            hard: and the reply to it received.
        retry: sends again what failed temporarily, as `Pool.send` does; the session stays open meanwhile.
    Raises and cancels as `Session.connect` and `Session.send` do; cancelled while it says QUIT, it raises
    DeliveryInDoubt where somebody was accepted.
    """
    sender: Session | Pool
    try:
        made = prepare_message(message)
        check_signer(signer)
        if signer is not None:
            made = await sign_message(made, signer)
        relay = to_relay(relay, password, token)
        if retry is None:
            sender = Session(relay, sock=sock, trace=trace, on_event=on_event)
        elif sock is not None:
            raise InvalidArgument("sock= and retry= exclude each other: a socket serves one connection")
        else:
            check_type("retry", retry, Retry)
            from asyncsmtp.client.pool.pool import Pool  # loaded late: without a retry it is not needed

            sender = Pool(relay, sessions=1, retry=retry, trace=trace, on_event=on_event)
    except BaseException:
        if isinstance(sock, socket.socket):
            sock.close()
        raise
    delivery = None
    try:
        async with aclosing(sender):
            if isinstance(sender, Session):
                delivery = await with_deadline(deadline, hard, None, partial(_connect_and_send, sender, made))
            else:
                delivery = await sender.send(made, deadline=deadline, hard=hard)
    except asyncio.CancelledError as error:
        if delivery is None or Outcome.ACCEPTED not in delivery.outcomes:
            raise
        raise DeliveryInDoubt(made.envelope, "the sender gave up waiting for the end of the session") from error
    return delivery


async def _connect_and_send(session: Session, message: Message, before_end: BeforeEnd | None) -> Delivery:
    """Do all that the deadline is for: QUIT comes after the reply, and has a limit of its own."""
    await session.connect()
    return await session.send(message, before_end=before_end)
