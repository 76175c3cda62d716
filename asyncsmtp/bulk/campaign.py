"""The one loop: rows out of the ledger, messages to the relay, outcomes back into the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from asyncsmtp.bulk.ledger import Claim, Ledger, Settlement, State
from asyncsmtp.bulk.outage import Outage
from asyncsmtp.client.place import BeforeEnd
from asyncsmtp.errors import (
    AuthenticationRefused,
    ConnectFailed,
    ConnectionLost,
    DeliveryInDoubt,
    LedgerError,
    MessageError,
    NotOffered,
    RecipientError,
    Refused,
    RemoteProtocolError,
    ReplyTimeout,
    SMTPError,
    StartTlsInjection,
)
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.delivery import Delivery, Outcome
from asyncsmtp.protocol.envelope import Mailbox
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Composes", "Run", "Sends", "Watch"]

BATCH = 500  # rows taken out of the ledger at a time
TRIES = 3  # for a message whose connection broke before the point of no return
REPLY_LENGTH = 512  # characters of the relay's words that are kept

Watch = Callable[[Claim, Settlement], None]


class Composes(Protocol):
    """What a run asks of a composer."""

    def compose(
        self, to: Mailbox, fields: Mapping[str, str], *, message_id: str, date: datetime, row: int | None = None
    ) -> Message: ...


class Sends(Protocol):
    """What a run asks of a pool."""

    async def send(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery: ...


@dataclass(slots=True)
class _Hand:
    """A row in hand, and its mark once that is asked for: from then on it may pass the point of no return."""

    claim: Claim
    mark: asyncio.Future[None] | None = None


class Run:
    """Sends what a ledger has to send, once; refusals are outcomes and never stop it.

    A row is marked in the ledger, durably, before the end of its content is written, and settled when the relay
    has answered. Whatever ends the process in between leaves a row that is listed as in doubt.

    Args:
        ledger: loaded. Its `created_at` is the Date of every message, so that a second attempt has the same octets.
        concurrency: messages in flight at the most, from composing to the relay's last word.
        limit: rows to try in this run; None for all.
        watch: called with each outcome as it is recorded.
    """

    def __init__(
        self,
        composer: Composes,
        ledger: Ledger,
        pool: Sends,
        *,
        concurrency: int = 100,
        limit: int | None = None,
        watch: Watch | None = None,
        outage: Outage | None = None,
    ) -> None:
        self._composer = composer
        self._ledger = ledger
        self._pool = pool
        self._date = ledger.created_at
        self._gate = asyncio.Semaphore(concurrency)
        self._left = limit
        self._watch = watch
        self._outage = outage or Outage()
        self._ended_by: SMTPError | None = None
        self._stopping = False
        self._senders: set[asyncio.Task[None]] = set()

    async def go(self) -> None:
        """Send until nothing is left, or until stopped; what is in flight is always waited for.

        Raises:
            LedgerError: the ledger cannot be trusted; everything stops at once.
            ConnectFailed, Refused, NotOffered, InsecureConnection: the relay cannot be used; rows stay pending.
        Cancelled, it breaks off what is in flight: rows past the point of no return are in doubt, the others pending.
        """
        self._ledger.failed.add_done_callback(self._lost_ledger)
        try:
            await self._feed()
        finally:
            self._ledger.failed.remove_done_callback(self._lost_ledger)
        if not isinstance(self._ended_by, LedgerError):
            await self._ledger.flush()
        if self._ended_by is not None:
            raise self._ended_by

    def stop(self) -> None:
        """Begin nothing new; `go` returns when what is in flight is answered."""
        self._stopping = True

    def cut(self) -> None:
        """Break off what is in flight as well."""
        self.stop()
        for task in tuple(self._senders):
            task.cancel()

    async def _feed(self) -> None:
        async with asyncio.TaskGroup() as senders, aclosing(self._claims()) as claims:
            async for claim in claims:
                await self._gate.acquire()
                if self._stopping:
                    self._gate.release()
                    return
                task = senders.create_task(self._deliver(_Hand(claim)))
                self._senders.add(task)
                task.add_done_callback(self._senders.discard)

    async def _claims(self) -> AsyncGenerator[Claim]:
        while not self._stopping and self._left != 0:
            batch = await self._ledger.claim(BATCH if self._left is None else min(BATCH, self._left))
            if not batch:
                return
            if self._left is not None:
                self._left -= len(batch)
            for claim in batch:
                yield claim

    def _lost_ledger(self, failed: asyncio.Future[None]) -> None:
        error = None if failed.cancelled() else failed.exception()
        if isinstance(error, LedgerError):
            self._end(error)

    def _end(self, error: SMTPError) -> None:
        """End the campaign: gently, or at once where the ledger is lost."""
        if self._ended_by is None or isinstance(error, LedgerError):
            self._ended_by = error
        if isinstance(error, LedgerError):
            self.cut()
        else:
            self.stop()

    async def _deliver(self, hand: _Hand) -> None:
        """Take one row to its outcome; nothing but being cancelled gets out of here."""
        try:
            settlement = await self._attempt(hand)
            self._ledger.settle(settlement)
            if self._watch is not None:
                self._watch(hand.claim, settlement)
        except LedgerError as error:
            self._end(error)
        except SMTPError as error:
            self._ledger.give_back(hand.claim)
            self._end(error)
        except asyncio.CancelledError:
            self._ledger.give_back(hand.claim)
            raise
        finally:
            self._gate.release()

    async def _attempt(self, hand: _Hand) -> Settlement:
        """Compose and send one row's message.

        Raises:
            SMTPError: it is not about this row but about the campaign; this row was not delivered.
        """
        claim, broken = hand.claim, 0
        try:
            message = self._compose(claim)
        except (RecipientError, MessageError) as error:
            return _local(claim, State.REJECTED, error)
        while True:
            try:
                delivery = await self._pool.send(message, before_end=lambda: self._mark(hand))
            except DeliveryInDoubt as error:
                return _local(claim, State.IN_DOUBT, error)
            except (ConnectionLost, ReplyTimeout, RemoteProtocolError) as error:
                broken += 1
                if isinstance(error, StartTlsInjection):
                    raise
                if broken == TRIES:
                    return _local(claim, State.DEFERRED, error)
            except SMTPError as error:
                if _about_the_message(error):
                    return _local(claim, State.REJECTED, error)
                if not (_may_pass(error) and await self._outage.wait()):
                    raise
            else:
                self._outage.works()
                return _settlement(claim, delivery)

    def _compose(self, claim: Claim) -> Message:
        recipient = claim.recipient
        return self._composer.compose(
            recipient.mailbox, recipient.fields, message_id=claim.message_id, date=self._date, row=recipient.row
        )

    def _mark(self, hand: _Hand) -> asyncio.Future[None]:
        """Before the end of the content: once it is done the ledger says that the relay may have the message."""
        if hand.mark is None:
            hand.mark = self._ledger.mark(hand.claim)
        return hand.mark


def _about_the_message(error: SMTPError) -> bool:
    """Whether the error concerns this one message, not the relay."""
    if isinstance(error, NotOffered):
        return error.extension not in ("STARTTLS", "AUTH")
    return isinstance(error, MessageError | RecipientError)


def _may_pass(error: SMTPError) -> bool:
    """Whether the relay may take mail later: it cannot be reached, or asks us to come back."""
    if isinstance(error, Refused):
        return error.reply.code < 500 and not isinstance(error, AuthenticationRefused)
    return isinstance(error, ConnectFailed)


def _settlement(claim: Claim, delivery: Delivery) -> Settlement:
    """What the relay answered, as a line of the ledger."""
    (reply,) = delivery.replies()
    return Settlement(
        claim.recipient.row,
        State.of(Outcome.of(reply)),
        reply.code,
        str(reply.status) if reply.status else None,
        safe_text(" / ".join(reply.text.splitlines()), REPLY_LENGTH),
        delivery.host,
    )


def _local(claim: Claim, state: State, error: SMTPError) -> Settlement:
    """What we found ourselves: no reply of a relay stands behind it."""
    return Settlement(claim.recipient.row, state, None, None, safe_text(str(error), REPLY_LENGTH), "")
