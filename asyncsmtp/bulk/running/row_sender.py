"""The sending of one row: compose, send, try again where that is safe, and return the outcome."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from random import Random

from asyncsmtp.bulk.interfaces import ComposerProtocol, MessageSender, RateLimitedSender, utc_now
from asyncsmtp.bulk.ledger import Claim, Ledger, Settlement
from asyncsmtp.bulk.rate_limit.rate_policy import RatePolicy
from asyncsmtp.bulk.running.reconnect import ReconnectPolicy
from asyncsmtp.bulk.running.retry import Retry
from asyncsmtp.bulk.states import State
from asyncsmtp.errors import (
    ConnectionLost,
    DeliveryInDoubt,
    ExtensionNotSupported,
    MessageError,
    RecipientError,
    Refused,
    RemoteProtocolError,
    ReplyTimeout,
    SMTPError,
)
from asyncsmtp.protocol.delivery import Delivery

__all__ = ["InFlight", "RowSender"]

logger = logging.getLogger("asyncsmtp.campaign")

MAX_TRIES = 3  # of a message whose connection broke before the point of no return


@dataclass(slots=True)
class InFlight:
    """A claimed row, and its mark once that was asked for: from then on it may pass the point of no return."""

    claim: Claim
    mark: asyncio.Future[None] | None = None


class RowSender:
    """Sends rows to the relay, any number at a time.

    Args:
        clock: the wall clock, UTC: the time of the next attempt outlives the process.
        random: spreads the times of next attempts.
    """

    # The point of no return. Once the end of a message's content is written, the relay may deliver the message,
    # whatever happens to the connection or to this process. So the ledger must say so *before*: `before_end` is
    # awaited by the session between the content and its end, and completes when the row is durably marked as SENDING.
    # From these two writes every crash can be told apart: a row without a mark was not sent and is sent again; a row
    # with a mark and without an outcome is in doubt, and a person decides.
    #
    # - One mark for each row, kept in `InFlight`: a message that is tried again after a broken connection was marked
    #   before, and a second mark would count a second attempt.
    # - `DeliveryInDoubt` is returned as an outcome before any other failure is looked at. It is the only error past
    #   the point of no return, and must never lead to another try.
    # - Every other error means that this attempt delivered nothing, so trying again, or giving the row back, is safe,
    #   even where the mark is durable already.

    def __init__(
        self,
        composer: ComposerProtocol,
        ledger: Ledger,
        pool: MessageSender,
        reconnect: ReconnectPolicy,
        retry: Retry,
        rate_policy: RatePolicy,
        clock: Callable[[], datetime] = utc_now,
        random: Random | None = None,
    ) -> None:
        self._composer = composer
        self._ledger = ledger
        self._send = pool.offer if isinstance(pool, RateLimitedSender) else pool.send
        self._broken: dict[int, int] = {}  # connections that broke, by the row of a message that awaits another turn
        self._reconnect = reconnect
        self._retry = retry
        self._rate_policy = rate_policy
        self._clock = clock
        self._random = random or Random()  # noqa: S311 - spreads times; no secret
        self._date = ledger.created_at

    async def deliver(self, row: InFlight) -> Settlement | None:
        """Compose and send one row's message; return its outcome, a refusal included.

        None: by its rates no relay may take it now; the row was not delivered.

        Raises:
            SMTPError: the failure is the campaign's and not the row's; the row was not delivered.
        """
        claim, recipient = row.claim, row.claim.recipient
        try:
            message = self._composer.compose(
                recipient.mailbox, recipient.fields, message_id=claim.message_id, date=self._date, row=recipient.row
            )
        except (RecipientError, MessageError) as error:
            return _failure(claim, State.REJECTED, error)
        broken = self._broken.pop(recipient.row, 0)
        while True:
            try:
                delivery = await self._send(message, before_end=lambda: self._mark(row))
            except DeliveryInDoubt as error:
                logger.warning("row %d is in doubt: %s", recipient.row, error.__cause__ or error)
                return _failure(claim, State.IN_DOUBT, error)
            except SMTPError as error:
                if _is_about_message(error):
                    return _failure(claim, State.REJECTED, error)
                if isinstance(error, Refused) and error.reply.code == 421:
                    self._rate_policy.record_session_refusal()
                if not error.retryable:
                    raise
                if isinstance(error, ConnectionLost | ReplyTimeout | RemoteProtocolError):  # of an open session
                    broken += 1
                    if broken == MAX_TRIES:
                        return self._retry_later(claim, _failure(claim, State.DEFERRED, error))
                elif not await self._reconnect.wait():
                    raise
            else:
                if delivery is None:
                    if broken:
                        self._broken[recipient.row] = broken
                    return None
                self._reconnect.record_success()
                self._rate_policy.record_delivery(recipient.mailbox.domain, delivery)
                settlement = _reply(claim, delivery)
                return self._retry_later(claim, settlement) if settlement.state is State.DEFERRED else settlement

    def _retry_later(self, claim: Claim, settlement: Settlement) -> Settlement:
        """Add the time of the next attempt to a temporary failure, or make it the last one."""
        now = self._clock()
        if self._retry.is_over(claim.attempt, claim.first_at, now):
            reply = f"given up after attempt {claim.attempt}: {settlement.reply}"
            return settlement._replace(state=State.REJECTED, reply=reply)
        return settlement._replace(due_at=self._retry.due(claim.attempt, now, self._random))

    def _mark(self, row: InFlight) -> asyncio.Future[None]:
        """Mark the row once; the mark is durable when the future is done."""
        if row.mark is None:
            row.mark = self._ledger.mark(row.claim)
        return row.mark


def _is_about_message(error: SMTPError) -> bool:
    """Return whether the error concerns this one message and not the relay."""
    if isinstance(error, ExtensionNotSupported):
        return error.extension not in ("STARTTLS", "AUTH")
    return isinstance(error, MessageError | RecipientError)


def _reply(claim: Claim, delivery: Delivery) -> Settlement:
    """Return the relay's reply as an outcome."""
    if delivery.accepted:  # nearly every row
        reply, state = delivery.content_replies[0], State.ACCEPTED
    else:
        (reply,), (outcome,) = delivery.replies, delivery.outcomes
        state = State.of(outcome)
    status = None if reply.status is None else str(reply.status)
    return Settlement(claim.recipient.row, state, reply.code, status, _one_line(reply.text), delivery.host)


def _failure(claim: Claim, state: State, error: SMTPError) -> Settlement:
    """Return an error of our own as an outcome; there is no reply of a relay."""
    return Settlement(claim.recipient.row, state, reply=_one_line(str(error)))


def _one_line(text: str) -> str:
    return " / ".join(text.splitlines())
