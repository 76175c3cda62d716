"""One message in the line of a session: its transaction, and what its sender waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from asyncsmtp.client.connection.ear import READ_SIZE
from asyncsmtp.errors import DeliveryInDoubt, SMTPError
from asyncsmtp.protocol.content import AnyContent, Content
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.protocol.transaction import Phase, Transaction

__all__ = ["BeforeEnd", "Place"]

_ENDED = Phase.AWAITING_RESULT  # looked up once: on Python 3.11 that is a call
BeforeEnd = Callable[[], Awaitable[object]]


class Place:
    """Made when a message joins the line, dropped when its sender has the result.

    Attributes:
        opened: its envelope is said; it cannot be taken back without breaking the connection.
        whole: the content, if it goes in one write; None where it is streamed.
        room: for content too large for one write: done when the sender may begin to stream it.
        streamed: whether all but the end of such a content is written. rest: of it, in chunks, the last one.
        mark: what `before_end` returned, once it was called.
        booked: the delivery, or the error that ended it.
        collected: whether the sender has that in hand, or has left.
    """

    __slots__ = (
        "before_end",
        "booked",
        "collected",
        "content",
        "mark",
        "opened",
        "rest",
        "room",
        "streamed",
        "transaction",
        "whole",
    )

    def __init__(
        self,
        transaction: Transaction,
        content: AnyContent,
        before_end: BeforeEnd | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.transaction = transaction
        self.content = content
        self.whole = content if isinstance(content, Content) and content.size <= READ_SIZE else None
        self.before_end = before_end
        self.opened = False
        self.room: asyncio.Future[None] | None = loop.create_future() if self.whole is None else None
        self.streamed = self.whole is not None
        self.rest: bytes | None = None
        self.mark: asyncio.Future[object] | None = None
        self.booked: asyncio.Future[Delivery] = loop.create_future()
        self.collected = False

    @property
    def ended(self) -> bool:
        """Whether the end of its content is written and unanswered."""
        return self.transaction.phase is _ENDED

    @property
    def halfway(self) -> bool:
        """Whether its MAIL is answered, and its envelope is not."""
        transaction = self.transaction
        if transaction.envelope.all_or_nothing:
            return False  # DATA was held back: it is not a part of that group
        return transaction.phase is Phase.ENVELOPE and transaction.mail is not None

    @property
    def welcome(self) -> bool:
        """Whether its DATA was answered with 354."""
        return self.transaction.phase is Phase.CONTENT or self.ended

    def conclude(self) -> bool:
        """The connection is gone: return whether the replies that came decide it, a refusal of all being one."""
        transaction = self.transaction
        last = transaction.recipients[-1] if transaction.recipients else transaction.mail
        if last is not None and transaction.all_refused:
            transaction.receive_closing(last)
        return transaction.is_decided

    def make_room(self) -> None:
        """Let the sender stream its content."""
        if self.room is not None and not self.room.done():
            self.room.set_result(None)

    def book(self, delivery: Delivery) -> None:
        """End it with the relay's answers."""
        self.make_room()
        if not self.booked.done():
            self.booked.set_result(delivery)

    def fail(self, error: BaseException) -> None:
        """End it with an error."""
        self.make_room()
        if not self.booked.done():
            self.booked.set_exception(error)
            self.booked.exception()  # marks it seen: a sender that has left is not missed

    def doubt(self, error: SMTPError) -> None:
        """End it with DeliveryInDoubt: `error` came when the relay may have had the message."""
        doubt = DeliveryInDoubt(self.transaction.envelope, str(error).partition(": ")[0])
        doubt.__cause__ = error
        self.fail(doubt)

    def leave(self) -> None:
        """The sender has the result in hand, or gave up."""
        self.collected = True
        if isinstance(self.mark, asyncio.Task):  # ours to end; a bare future has another owner
            self.mark.cancel()
