"""One row on its way: composed, sent, tried again where that is safe, and turned into an outcome."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from asyncsmtp.bulk.ledger import Claim, Ledger, Settlement
from asyncsmtp.bulk.pace.pace import Pace
from asyncsmtp.bulk.ports import Composes, Paced, Sends
from asyncsmtp.bulk.running.outage import Outage
from asyncsmtp.bulk.running.retry import Retry
from asyncsmtp.bulk.states import State
from asyncsmtp.errors import (
    AuthenticationRefused,
    CertificateRefused,
    ConnectFailed,
    ConnectionLost,
    DeliveryInDoubt,
    ExtensionNotSupported,
    MessageError,
    RecipientError,
    Refused,
    RemoteProtocolError,
    ReplyTimeout,
    SMTPError,
    StartTlsInjection,
)
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.delivery import Delivery

__all__ = ["Courier", "Hand"]

logger = logging.getLogger("asyncsmtp.campaign")

TRIES = 3  # for a message whose connection broke before the point of no return


@dataclass(slots=True)
class Hand:
    """A row in hand, and its mark once that is asked for: from then on it may pass the point of no return."""

    claim: Claim
    mark: asyncio.Future[None] | None = None


def utc_now() -> datetime:
    return datetime.now(UTC)


class Courier:
    """Takes rows to the relay, any number at a time.

    Args:
        clock: the wall clock, UTC: what is to be tried again is so after a time that outlasts the process.
    """

    def __init__(
        self,
        composer: Composes,
        ledger: Ledger,
        pool: Sends,
        outage: Outage,
        retry: Retry,
        pace: Pace,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._composer = composer
        self._ledger = ledger
        self._send = pool.offer if isinstance(pool, Paced) else pool.send
        self._broken: dict[int, int] = {}  # connections that broke under rows that came back
        self._outage = outage
        self._retry = retry
        self._pace = pace
        self._clock = clock
        self._date = ledger.created_at

    async def deliver(self, hand: Hand) -> Settlement | None:
        """Compose and send one row's message; every answer about this row is a value.

        None: no relay may take it now by its rates; this row was not delivered.

        Raises:
            SMTPError: it is not about this row but about the campaign; this row was not delivered.
        """
        claim = hand.claim
        try:
            message = self._compose(claim)
        except (RecipientError, MessageError) as error:
            return _ours(claim, State.REJECTED, error)
        broken = self._broken.pop(claim.recipient.row, 0)
        while True:
            try:
                delivery = await self._send(message, before_end=lambda: self._mark(hand))
            except DeliveryInDoubt as error:
                logger.warning("row %d is in doubt: %s", claim.recipient.row, error.__cause__ or error)
                return _ours(claim, State.IN_DOUBT, error)
            except (ConnectionLost, ReplyTimeout, RemoteProtocolError) as error:
                broken += 1
                if isinstance(error, StartTlsInjection):
                    raise
                if broken == TRIES:
                    return self._later(claim, _ours(claim, State.DEFERRED, error))
            except SMTPError as error:
                if _about_the_message(error):
                    return _ours(claim, State.REJECTED, error)
                if isinstance(error, Refused) and error.reply.code == 421:
                    self._pace.turned_away()
                if not (_may_pass(error) and await self._outage.wait()):
                    raise
            else:
                if delivery is None:
                    if broken:
                        self._broken[claim.recipient.row] = broken
                    return None
                self._outage.works()
                self._pace.heard(claim.recipient.mailbox.domain, delivery)
                settlement = _relays(claim, delivery)
                return self._later(claim, settlement) if settlement.state is State.DEFERRED else settlement

    def _compose(self, claim: Claim) -> Message:
        recipient = claim.recipient
        return self._composer.compose(
            recipient.mailbox, recipient.fields, message_id=claim.message_id, date=self._date, row=recipient.row
        )

    def _later(self, claim: Claim, settlement: Settlement) -> Settlement:
        """A refusal for the moment: with the time of the next attempt, or as the last one."""
        now = self._clock()
        if self._retry.is_over(claim.attempt, claim.first_at, now):
            reply = f"given up after attempt {claim.attempt}: {settlement.reply}"
            return settlement._replace(state=State.REJECTED, reply=reply)
        return settlement._replace(due_at=self._retry.due(claim.attempt, now))

    def _mark(self, hand: Hand) -> asyncio.Future[None]:
        """Before the end of the content: once it is done the ledger says that the relay may have the message."""
        if hand.mark is None:
            hand.mark = self._ledger.mark(hand.claim)
        return hand.mark


def _about_the_message(error: SMTPError) -> bool:
    """Whether the error concerns this one message, not the relay."""
    if isinstance(error, ExtensionNotSupported):
        return error.extension not in ("STARTTLS", "AUTH")
    return isinstance(error, MessageError | RecipientError)


def _may_pass(error: SMTPError) -> bool:
    """Whether the relay may take mail later: it cannot be reached, or asks us to come back."""
    if isinstance(error, Refused):
        return error.reply.code < 500 and not isinstance(error, AuthenticationRefused)
    return isinstance(error, ConnectFailed) and not isinstance(error, CertificateRefused)


def _relays(claim: Claim, delivery: Delivery) -> Settlement:
    """What the relay answered, as a line of the ledger."""
    if delivery.accepted:  # the way of nearly every row
        reply, state = delivery.content_replies[0], State.ACCEPTED
    else:
        (reply,), (outcome,) = delivery.replies, delivery.outcomes
        state = State.of(outcome)
    status = reply.status
    said = None if status is None else str(status)
    return Settlement(claim.recipient.row, state, reply.code, said, _one_line(reply.text), delivery.host)


def _ours(claim: Claim, state: State, error: SMTPError) -> Settlement:
    """What we found ourselves: no reply of a relay stands behind it."""
    return Settlement(claim.recipient.row, state, reply=_one_line(str(error)))


def _one_line(text: str) -> str:
    return " / ".join(text.splitlines())
