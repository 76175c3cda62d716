"""Interfaces of the parts that a run is given: the composer, the sender, the way to sleep and to use threads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Protocol, TypeVar, runtime_checkable

from asyncsmtp.client.session.pending_message import BeforeEnd
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.protocol.envelope import Mailbox

__all__ = [
    "ComposerProtocol",
    "ConvertingComposer",
    "CopyingComposer",
    "MessageSender",
    "RateLimitedSender",
    "ReadingComposer",
    "Sleep",
    "StoppableSender",
    "ThreadRunner",
    "sleep_unless",
    "utc_now",
]

Sleep = Callable[[float, asyncio.Event], Awaitable[None]]  # as `sleep_unless`, which it can take the place of
_T = TypeVar("_T")


class ComposerProtocol(Protocol):
    """A composer, as far as a campaign uses it."""

    def compose(
        self, to: Mailbox, fields: Mapping[str, str], *, message_id: str, date: datetime, row: int | None = None
    ) -> Message:
        """Compose the message of one row. Raises RecipientError: this row cannot have one."""


@runtime_checkable
class ConvertingComposer(Protocol):
    """A composer that may have to convert a rendered template first, which takes longer than a step of the loop may."""

    def pending_conversion(self, to: Mailbox, fields: Mapping[str, str]) -> Callable[[], None] | None:
        """Return the conversion that `compose` would make first for this row, or None.

        It is meant to run in a thread, one at a time: conversions hold the interpreter's lock most of the time.
        """


@runtime_checkable
class CopyingComposer(Protocol):
    """A composer of messages that also go to Cc and Bcc."""

    def compose_copy(
        self,
        to: Mailbox,
        fields: Mapping[str, str],
        *,
        recipient: Mailbox,
        token: str,
        message_id: str,
        date: datetime,
        row: int | None = None,
    ) -> Message:
        """Compose the message of one row for `recipient`, who is in Cc or Bcc. Raises RecipientError: as `compose`."""


@runtime_checkable
class ReadingComposer(Protocol):
    """A composer that may read files for each row.

    Attributes:
        reads_files: whether it does, so that messages share little of their memory; it is used by one thread at a time.
    """

    reads_files: bool


class MessageSender(Protocol):
    """A pool, as far as a run uses it."""

    async def send(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery:
        """Send one message, as `Pool.send` does."""


@runtime_checkable
class RateLimitedSender(Protocol):
    """A sender with rates of its own. A run asks it before each message and waits together with its other limits."""

    async def take_turn(self) -> float:
        """Take a turn for one message; return 0, or the seconds after which to ask again."""

    async def offer(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery | None:
        """Send one message, as `Pool.send` does, in the turn that was taken first; never wait for a rate.

        None: it needs another turn; the end of its content was not written.
        """


@runtime_checkable
class StoppableSender(Protocol):
    """A sender that can give back the messages which it has not begun."""

    def stop(self) -> None:
        """Begin no further message, as `Pool.stop` does; those that have begun are answered."""


class ThreadRunner(Protocol):
    """A function that runs a blocking one outside the event loop, as `asyncio.to_thread` does."""

    def __call__(self, function: Callable[[], _T], /) -> Awaitable[_T]: ...


async def sleep_unless(seconds: float, event: asyncio.Event) -> None:
    """Sleep; return early when `event` is set."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


def utc_now() -> datetime:
    """Return the time of the wall clock."""
    return datetime.now(UTC)
