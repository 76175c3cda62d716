"""The sending of one row, with the reconnect policy that a run applies to its relay."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random
from time import monotonic

from asyncsmtp.bulk.interfaces import (
    ComposerProtocol,
    ConvertingComposer,
    CopyingComposer,
    MessageSender,
    RateLimitedSender,
    ReadingComposer,
    Sleep,
    ThreadRunner,
    sleep_unless,
    utc_now,
)
from asyncsmtp.bulk.ledger.interfaces import Claim, LeasedLedger, Ledger, RowState, Settlement, find_file_row
from asyncsmtp.bulk.ledger.transitions import suppressed_reply
from asyncsmtp.bulk.rate_limit.rate_policy import RatePolicy
from asyncsmtp.bulk.recipients.recipient import CopyRecipient
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
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.delivery import Delivery

__all__ = ["RECONNECT_DELAYS", "InFlight", "MemoryLimit", "ReconnectPolicy", "RowSender"]

logger = logging.getLogger("asyncsmtp.campaign")

RECONNECT_DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each further try


class ReconnectPolicy:
    """Delays between attempts to reach a relay that is gone in the middle of a run; shared by all senders of the run.

    Args:
        delays: seconds before each further try; when they are used up the run ends and its rows stay pending.
        sleep: sleeps, and returns early when the event is set.
        warn: called with a sentence before each wait.
    """

    def __init__(
        self,
        delays: Sequence[float] = RECONNECT_DELAYS,
        *,
        sleep: Sleep = sleep_unless,
        warn: Callable[[str], object] = logger.warning,
    ) -> None:
        self._delays = delays
        self._sleep = sleep
        self._warn = warn
        self._failures = 0
        self._hang_ups = 0
        self._has_worked = False
        self._stopped = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    def record_success(self) -> None:
        """Record that the relay answered."""
        self._has_worked = True
        self._failures = self._hang_ups = 0

    def record_hang_up(self) -> int:
        """Record a connection that broke before a message was answered; return how many have since the last answer."""
        self._hang_ups += 1
        return self._hang_ups

    def stop(self) -> None:
        """End all waiting; there will be no further try."""
        self._stopped.set()

    async def wait(self, reason: SMTPError) -> bool:
        """Wait before the next try; return False when there must not be another.

        A relay that never answered in this run has a wrong name, or does not run: there is no second try.
        """
        async with self._one_at_a_time:
            if self._stopped.is_set() or not self._has_worked or self._failures >= len(self._delays):
                self._stopped.set()
                return False
            self._failures += 1
            delay = self._delays[self._failures - 1]
            self._warn(f"the relay cannot be used: the campaign waits, and tries again in {delay:g} s ({reason})")
            await self._sleep(delay, self._stopped)
            return not self._stopped.is_set()


MAX_TRIES = 3  # of a message whose connection broke before the point of no return
MAX_HANG_UPS = 2 * MAX_TRIES  # of connections in a row, from which on the fault is the relay's and not a message's


@dataclass(slots=True)
class InFlight:
    """A claimed row whose message has begun.

    Attributes:
        number: of the message, in the order in which they began.
        mark: once that was asked for: from then on it may pass the point of no return.
        marked_at: when that was last, by a monotonic clock; 0.0 before it.
        at_mail: whether it was MAIL that the relay refused.
    """

    claim: Claim
    number: int
    mark: asyncio.Future[None] | None = None
    marked_at: float = 0.0
    at_mail: bool = False


MAX_COMPOSED_AT_ONCE = 262_144  # bytes; composing more with files of the row's own is done in a thread
MIN_MEMORY = 16 << 20  # bytes of composed messages that are always allowed


class MemoryLimit:
    """A limit on the memory of messages that are composed and not yet answered, where each has files of its own.

    Args:
        messages: how many of the largest size so far may be in memory; small ones as many as fill MIN_MEMORY.
    Attributes:
        largest: bytes of the largest message so far.
    """

    def __init__(self, messages: int) -> None:
        self.largest = 0
        self._messages = messages
        self._used = 0
        self._released = asyncio.Event()

    @property
    def fits_another(self) -> bool:
        """True if there is memory for another message of the largest size so far."""
        return not self._used or self._used + self.largest <= max(MIN_MEMORY, self._messages * self.largest)

    async def wait(self) -> None:
        """Wait until another message fits. Cancelling it changes nothing."""
        while not self.fits_another:
            self._released.clear()
            await self._released.wait()

    def add(self, message: Message) -> Message:
        """Count a message that was composed, and return it."""
        size = message.content.size or 0
        self._used += size
        self.largest = max(self.largest, size)
        return message

    def release(self, message: Message) -> None:
        """Uncount a message that has its outcome."""
        self._used -= message.content.size or 0
        self._released.set()


class RowSender:
    """Sends rows to the relay, any number at a time.

    Args:
        sessions: of the pool: so many large messages with files of their own are in memory at a time.
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
        sessions: int = 1,
    ) -> None:
        self._composer = composer
        reads = isinstance(composer, ReadingComposer) and composer.reads_files
        self._memory = MemoryLimit(sessions) if reads else None
        self._pending_conversion = composer.pending_conversion if isinstance(composer, ConvertingComposer) else None
        self._converting = asyncio.Lock()  # one at a time: a conversion holds the interpreter's lock most of the time
        self._ledger = ledger
        self._before_end: Callable[[InFlight], Awaitable[None]] = self._mark
        if isinstance(ledger, LeasedLedger):  # others may take the row over: look after the mark whether they have
            guard = ledger.guard
            self._before_end = lambda row: guard(self._mark(row))
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
            CampaignHalted: the relay closes every connection before it answers a message.
            SMTPError: the failure is the campaign's and not the row's; the row was not delivered.
        """
        try:
            message = await self.compose(row)
        except (RecipientError, MessageError) as error:
            return _failure(row.claim, RowState.REJECTED, error)
        try:
            return await self._send_message(row, message)
        finally:
            self.release(message)

    async def compose(self, row: InFlight) -> Message:
        """Compose one row's message, when there is memory for it; `release` follows.

        Raises:
            RecipientError, MessageError: this row cannot have one.
        """
        if self._memory is not None:
            return await self._compose_with_files(row, self._memory)
        convert = self._find_conversion(row)
        if convert is not None:
            async with self._converting:
                await self._run_in_thread(convert)
        return self._compose(row)

    def release(self, message: Message) -> None:
        """Release the memory of a message that has its outcome."""
        if self._memory is not None:
            self._memory.release(message)

    def _compose(self, row: InFlight) -> Message:
        claim, recipient = row.claim, row.claim.recipient
        if isinstance(recipient, CopyRecipient):
            assert isinstance(self._composer, CopyingComposer), "only such a composer has copies"
            return self._composer.compose_copy(
                recipient.to,
                recipient.fields,
                recipient=recipient.mailbox,
                token=claim.message_id,
                message_id=recipient.message_id,
                date=self._date,
                row=find_file_row(recipient.row),
            )
        return self._composer.compose(
            recipient.mailbox, recipient.fields, message_id=claim.message_id, date=self._date, row=recipient.row
        )

    async def _compose_with_files(self, row: InFlight, memory: MemoryLimit) -> Message:
        """Compose a message that has files of its own, as soon as there is memory for it, and count it."""
        if memory.fits_another and memory.largest <= MAX_COMPOSED_AT_ONCE and not self._converting.locked():
            convert = self._find_conversion(row)
            if convert is None:
                return memory.add(self._compose(row))
        async with self._converting:  # the composer is for one thread at a time
            await memory.wait()
            convert = self._find_conversion(row)
            if convert is not None:
                await self._run_in_thread(convert)
            if memory.largest <= MAX_COMPOSED_AT_ONCE:
                return memory.add(self._compose(row))
            return memory.add(await self._run_in_thread(lambda: self._compose(row)))

    def _find_conversion(self, row: InFlight) -> Callable[[], None] | None:
        """Return the conversion that must come first: for the first row that takes these branches of the template."""
        if self._pending_conversion is None:
            return None
        return self._pending_conversion(row.claim.recipient.mailbox, row.claim.recipient.fields)

    async def _send_message(self, row: InFlight, message: Message) -> Settlement | None:
        claim, recipient = row.claim, row.claim.recipient
        broken = self._broken.pop(recipient.row, 0)
        while True:
            row.marked_at = 0.0
            try:
                delivery = await self._send(message, before_end=lambda: self._before_end(row))
            except DeliveryInDoubt as error:
                logger.warning("row %d is in doubt: %s", find_file_row(recipient.row), error.why)
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
                    hang_ups = self._reconnect.record_hang_up()
                    if broken == MAX_TRIES:
                        return self._retry_later(claim, _failure(claim, RowState.DEFERRED, error))
                    if hang_ups >= MAX_HANG_UPS and not await self._reconnect.wait(error):
                        why = "lost their connection before the relay answered"
                        raise CampaignHalted(hang_ups, hang_ups, "", _one_line(str(error)), why) from error
                elif not await self._reconnect.wait(error):
                    raise
                if row.mark is None and (reason := (await self._ledger.find_listed()).get(recipient.row)) is not None:
                    return Settlement(recipient.row, RowState.SUPPRESSED, reply=suppressed_reply(reason))
            else:
                if delivery is None:
                    if broken:
                        self._broken[recipient.row] = broken
                    return None
                self._reconnect.record_success()
                self._rate_policy.record_delivery(recipient.mailbox.domain, delivery)
                settlement = _reply(claim, delivery)
                totals = self._rate_policy.totals.relay(delivery.host)
                if row.marked_at:
                    totals.record_reply(monotonic() - row.marked_at)
                if settlement.state is RowState.ACCEPTED:
                    totals.messages += 1
                    totals.size += message.content.size or 0
                    return settlement
                row.at_mail = not delivery.mail.positive
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
        row.marked_at = monotonic()
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
