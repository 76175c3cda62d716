"""What a campaign asks of the floors below: something that composes, and something that sends."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol, runtime_checkable

from asyncsmtp.client.session.pending_message import BeforeEnd
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.protocol.envelope import Mailbox

__all__ = ["Composes", "Paced", "Sends"]


class Composes(Protocol):
    """A composer, as far as a campaign is concerned."""

    def compose(
        self, to: Mailbox, fields: Mapping[str, str], *, message_id: str, date: datetime, row: int | None = None
    ) -> Message:
        """Compose the message of one row; RecipientError when this row cannot have one."""
        ...


class Sends(Protocol):
    """A pool, as far as a run is concerned."""

    async def send(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery:
        """Send one message, as `Pool.send` does."""
        ...


@runtime_checkable
class Paced(Protocol):
    """What sends at rates of its own; a run asks it before each message, and waits where it waits for all else."""

    async def take_turn(self) -> float:
        """Take a turn for one message; return 0, or the seconds after which to ask again when there is none now."""
        ...

    async def offer(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery | None:
        """Send one message, as `Pool.send` does, in the turn that was taken first; it waits for no rate.

        None: it needs another turn; the end of its content was not written.
        """
        ...
