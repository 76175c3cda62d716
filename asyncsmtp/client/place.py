"""One message in the line of a session: its transaction, and what its sender waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from asyncsmtp.errors import DeliveryInDoubt, SMTPError
from asyncsmtp.protocol.client import CLOSING
from asyncsmtp.protocol.commands import Command, Verb
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.protocol.replies import Reply
from asyncsmtp.protocol.transaction import Phase, Transaction

__all__ = ["BeforeEnd", "Place"]

BeforeEnd = Callable[[], Awaitable[object]]


class Place:
    """Made when a message joins the line, dropped when its sender has the result.

    Attributes:
        turn: done when it may be written.
        opened: its envelope is said; it cannot be taken back without breaking the connection.
        heard: done when all that was said of it so far is answered; renewed with each group.
        booked: the delivery, or the error that ended it.
        collected: done when the sender has that in hand.
    """

    __slots__ = ("before_end", "booked", "collected", "content", "heard", "opened", "transaction", "turn")

    def __init__(self, transaction: Transaction, content: Content, before_end: BeforeEnd | None) -> None:
        loop = asyncio.get_running_loop()
        self.transaction = transaction
        self.content = content
        self.before_end = before_end
        self.turn: asyncio.Future[None] = loop.create_future()
        self.heard: asyncio.Future[None] = loop.create_future()
        self.booked: asyncio.Future[Delivery] = loop.create_future()
        self.collected: asyncio.Future[None] = loop.create_future()
        self.opened = False

    @property
    def ended(self) -> bool:
        """Whether the end of its content was written: from then on it can only be waited for."""
        return self.transaction.phase is Phase.ENDED

    def hear(self, command: Command, reply: Reply) -> None:
        """Take the reply to one of its commands; wake the sender when the group is answered."""
        if reply.code == CLOSING and command.verb is not Verb.RSET:
            self.transaction.broken_off(reply)
        else:
            self.transaction.answered(command, reply)
        if self.transaction.caught_up and not self.heard.done():
            self.heard.set_result(None)

    def book(self, delivery: Delivery) -> None:
        for future in (self.turn, self.heard):
            if not future.done():
                future.set_result(None)
        if not self.booked.done():
            self.booked.set_result(delivery)

    def fail(self, error: SMTPError, *, in_doubt: bool) -> None:
        """End it with an error: as DeliveryInDoubt where the relay may have the message."""
        if in_doubt and not error.in_doubt:
            doubt = DeliveryInDoubt(self.transaction.envelope, str(error).partition(":")[0])
            doubt.__cause__ = error
            error = doubt
        for future in (self.turn, self.heard, self.booked):
            if not future.done():
                future.set_exception(error)
                future.exception()  # marks it seen: a sender that has left is not missed
