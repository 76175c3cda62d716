"""What a campaign asks of the floors below: something that composes, and something that sends."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from asyncsmtp.client.session.place import BeforeEnd
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.protocol.envelope import Mailbox

__all__ = ["Composes", "Sends"]


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
