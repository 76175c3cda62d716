"""One message in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsmtp.client.events import OnEvent
from asyncsmtp.client.relay import Relay
from asyncsmtp.client.session import Session
from asyncsmtp.client.trace import Trace
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.delivery import Delivery

if TYPE_CHECKING:
    from email.message import Message as ParsedMessage

__all__ = ["send"]


async def send(
    message: Message | ParsedMessage,
    *,
    relay: Relay | str,
    trace: Trace | None = None,
    on_event: OnEvent | None = None,
) -> Delivery:
    """Open a session, send one message, say QUIT; return what the relay answered for each recipient.

    A refused recipient is in the result, not an exception: call `raise_for_refusal()` on it for one.

    Args:
        message: a Message, or an `email.message` one with its envelope taken from its headers.
        relay: a Relay, or its URL.
        trace: is given each line of the dialogue. on_event: what happens, see `client.events`.
    Raises and cancels as `Session.connect` and `Session.send` do.
    """
    made = Message.of(message)
    reached = Relay.from_url(relay) if isinstance(relay, str) else relay
    async with Session(reached, trace=trace, on_event=on_event) as session:
        return await session.send(made)
