"""The sending of one row, with the reconnect policy and the circuit breaker that a run applies to its relay."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random

from asyncsmtp.bulk.interfaces import (
    ComposerProtocol,
    ConvertingComposer,
    MessageSender,
    RateLimitedSender,
    Sleep,
    ThreadRunner,
    sleep_unless,
    utc_now,
)
from asyncsmtp.bulk.ledger.interfaces import Claim, Ledger, RowState, Settlement
from asyncsmtp.bulk.rate_limit.rate_policy import RatePolicy
from asyncsmtp.client.retry import Retry
from asyncsmtp.errors import (
    CampaignHalted,
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

__all__ = [
    "MAX_FAILURES",
    "OUTCOME_WINDOW",
    "RECONNECT_DELAYS",
    "CircuitBreaker",
    "InFlight",
    "ReconnectPolicy",
    "RowSender",
]

logger = logging.getLogger("asyncsmtp.campaign")

RECONNECT_DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each further try
OUTCOME_WINDOW = 50  # outcomes that a circuit breaker considers
MAX_FAILURES = 20  # of these, before it opens


class ReconnectPolicy:
    """Delays between attempts to reach a relay that is gone in the middle of a run; shared by all senders of the run.

    Args:
        delays: seconds before each further try; when they are used up the run ends and its rows stay pending.
        sleep: sleeps, and returns early when the event is set.
    """

    def __init__(self, delays: Sequence[float] = RECONNECT_DELAYS, *, sleep: Sleep = sleep_unless) -> None:
        self._delays = delays
        self._sleep = sleep
        self._failures = 0
        self._has_worked = False
        self._stopped = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    def record_success(self) -> None:
        """Record that the relay answered."""
        self._has_worked = True
        self._failures = 0

    def stop(self) -> None:
        """End all waiting; there will be no further try."""
        self._stopped.set()

    async def wait(self) -> bool:
        """Wait before the next try; return False when there must not be another.

        A relay that never answered in this run has a wrong name, or does not run: there is no second try.
        """
        async with self._one_at_a_time:
            if self._stopped.is_set() or not self._has_worked or self._failures >= len(self._delays):
                self._stopped.set()
                return False
            self._failures += 1
            delay = self._delays[self._failures - 1]
            logger.warning("the relay is unreachable: the campaign waits, and tries again in %g s", delay)
            await self._sleep(delay, self._stopped)
            return not self._stopped.is_set()


class CircuitBreaker:
    """A stop for a run in which most of the last outcomes say that the sender, or the relay, has a problem.

    Attributes:
        error: why the campaign must stop; None: it may go on. Once set it stays.
    """

    # Enhanced codes 5.7.x (RFC 3463 §3.8) are about the sender: a blocked address, a revoked account. Such a relay
    # refuses everyone, and each refusal would be recorded as a permanent one of its recipient: a campaign would use
    # up its whole list in minutes. A lost reply leaves a doubt that a person must decide; a relay that loses one after
    # another would leave a campaign of doubts. Both count together, by the share of the last outcomes and not in a
    # row, since a few recipients are accepted also in a storm. Below `MAX_FAILURES` outcomes nothing is stopped: five
    # dead policies on a list are no storm. Refusals after the stop, of messages that were in flight, are deferred: the
    # next run tries them again. Those before it stay as the relay reported them.

    def __init__(self, window: int = OUTCOME_WINDOW, max_failures: int = MAX_FAILURES) -> None:
        self.error: CampaignHalted | None = None
        self._last: deque[bool] = deque(maxlen=window)
        self._max_failures = max_failures
        self._failures = 0

    def admit(self, settlement: Settlement) -> bool:
        """Count an outcome; return False for a refusal that must not be held against the recipient."""
        refused = settlement.state is RowState.REJECTED and (settlement.status or "").startswith("5.7.")
        if self.error is not None:
            return not refused
        failure = refused or settlement.state is RowState.IN_DOUBT
        if not (failure or self._failures):  # while all goes well there is nothing to count
            return True
        if len(self._last) == self._last.maxlen:
            self._failures -= self._last[0]
        self._last.append(failure)
        self._failures += failure
        if self._failures >= self._max_failures:
            what = f"{settlement.code} {settlement.reply}" if settlement.code else settlement.reply
            self.error = CampaignHalted(self._failures, len(self._last), settlement.host, what)
        return True


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
        random: spreads the times of next attempts. run_in_thread: converts templates.
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
        run_in_thread: ThreadRunner = asyncio.to_thread,
    ) -> None:
        self._composer = composer
        self._pending_conversion = composer.pending_conversion if isinstance(composer, ConvertingComposer) else None
        self._converting = asyncio.Lock()  # one at a time: a conversion holds the interpreter's lock most of the time
        self._ledger = ledger
        self._send = pool.offer if isinstance(pool, RateLimitedSender) else pool.send
        self._broken: dict[int, int] = {}  # connections that broke, by the row of a message that awaits another turn
        self._reconnect = reconnect
        self._retry = retry
        self._rate_policy = rate_policy
        self._clock = clock
        self._run_in_thread = run_in_thread
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
            if self._pending_conversion is not None:
                convert = self._pending_conversion(recipient.mailbox, recipient.fields)
                if convert is not None:  # the first row that takes these branches of the template
                    async with self._converting:
                        await self._run_in_thread(convert)
            message = self._composer.compose(
                recipient.mailbox, recipient.fields, message_id=claim.message_id, date=self._date, row=recipient.row
            )
        except (RecipientError, MessageError) as error:
            return _failure(claim, RowState.REJECTED, error)
        broken = self._broken.pop(recipient.row, 0)
        while True:
            try:
                delivery = await self._send(message, before_end=lambda: self._mark(row))
            except DeliveryInDoubt as error:
                reason = str(error.__cause__ or "").partition(": ")[0] or str(error).partition(" after the content ")[0]
                logger.warning("row %d is in doubt: %s", recipient.row, reason)
                return _failure(claim, RowState.IN_DOUBT, error)
            except SMTPError as error:
                if _is_about_message(error):
                    return _failure(claim, RowState.REJECTED, error)
                if isinstance(error, Refused) and error.reply.code == 421:
                    self._rate_policy.record_session_refusal()
                if not error.retryable:
                    raise
                if isinstance(error, ConnectionLost | ReplyTimeout | RemoteProtocolError):  # of an open session
                    broken += 1
                    if broken == MAX_TRIES:
                        return self._retry_later(claim, _failure(claim, RowState.DEFERRED, error))
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
                return self._retry_later(claim, settlement) if settlement.state is RowState.DEFERRED else settlement

    def _retry_later(self, claim: Claim, settlement: Settlement) -> Settlement:
        """Add the time of the next attempt to a temporary failure, or make it the last one."""
        now = self._clock()
        if self._retry.is_over(claim.attempt, claim.first_at, now):
            reply = f"given up after attempt {claim.attempt}: {settlement.reply}"
            return settlement._replace(state=RowState.REJECTED, reply=reply)
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
        reply, state = delivery.content_replies[0], RowState.ACCEPTED
    else:
        (reply,), (outcome,) = delivery.replies, delivery.outcomes
        state = RowState.from_outcome(outcome)
    status = None if reply.status is None else str(reply.status)
    return Settlement(claim.recipient.row, state, reply.code, status, _one_line(reply.text), delivery.host)


def _failure(claim: Claim, state: RowState, error: SMTPError) -> Settlement:
    """Return an error of our own as an outcome; there is no reply of a relay."""
    return Settlement(claim.recipient.row, state, reply=_one_line(str(error)))


def _one_line(text: str) -> str:
    return " / ".join(text.splitlines())
