"""Several sessions with one relay, opened as they are needed and used again.

*Capacity.* A message first takes a place in `capacity`, which is `depth` for each session that may exist, and then a
slot. So capacity is the only queue, in the order of the calls, and a message with a place never waits for a session to
become free, only for it to be opened. Places are given back in the same step as the result, before the sender runs.

*Growth.* An idle session that is open is used before a new one is opened, and a new one before a second message is
given to a busy one: opening costs several round trips, but it is paid once and then doubles the rate. The first session
of a pool is opened alone, so a refused password is one refused login, not ten.

*Shrinking.* See `pool_limits`. A broken session costs nothing until the next message needs its slot: it is replaced
then, not before. A message is sent again by the pool itself only where a connection broke before the point of no
return and was not opened for this very message: so each broken connection gives up at most one message, and the loop
in `_submit` ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from math import inf
from random import Random
from typing import TYPE_CHECKING, Self

from asyncsmtp.client.compose import check_signer, prepare_for_sending
from asyncsmtp.client.config.login_config import TokenSource
from asyncsmtp.client.config.relay import Dialogue, Relay
from asyncsmtp.client.connection.transport import OpenConnection, open_connection
from asyncsmtp.client.event_loop import DeferredCancellation, LoopOwner, defer_during_error
from asyncsmtp.client.events.types import EventEmitter, MessageTimer, OnEvent, Trace, guard_callback
from asyncsmtp.client.pool.pool_limits import NoRoom, PoolLimits, means_no_room, means_too_many
from asyncsmtp.client.pool.send_all import send_all
from asyncsmtp.client.pool.session_slots import (
    Connector,
    PooledSession,
    SessionLimits,
    Slot,
    Slots,
    SuspendDetector,
    closed,
)
from asyncsmtp.client.retry import RANDOM, Retry
from asyncsmtp.client.session.pending_message import BeforeEnd, check_deadline, restart_deadline, with_deadline
from asyncsmtp.client.session.send_pipeline import ServerQuirks
from asyncsmtp.client.session.session import Session, merge_deliveries, to_relay
from asyncsmtp.errors import (
    ConnectionLost,
    DeadlineExceeded,
    DeliveryInDoubt,
    PoolTimeout,
    ReplyTimeout,
    SMTPError,
    check_number,
    check_type,
)
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.auth.auth import Secret
from asyncsmtp.protocol.client import SERVICE_CLOSING
from asyncsmtp.protocol.delivery import Delivery, Outcome
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.replies import Reply

if TYPE_CHECKING:
    from email.message import Message as ParsedMessage

    from asyncsmtp.mail.signing.dkim import Signer

__all__ = ["Pool", "PoolCounts"]

MAX_PAUSES = 3  # of the last session, while others that the relay refused are being closed
PAUSE = 0.1  # seconds, doubled with each further one


@dataclass(frozen=True, slots=True)
class PoolCounts:
    """Counts of a pool at one moment.

    Attributes:
        open: sessions that could send now. busy: those with an unanswered message.
        allowed: how many sessions there may be now: fewer than the pool was made for while the relay, or this
            process, has no room for more.
        in_hand: messages whose `send` has not returned. waiting: those of them that wait because every session
            has as many messages as it may.
    """

    open: int
    busy: int
    allowed: int
    in_hand: int
    waiting: int


class Pool:
    """A pool of at most `sessions` connections with one relay.

        async with Pool("smtps://ada@mail.example.org", password=…, sessions=10) as pool:
            delivery = await pool.send(message)

    A message goes to an idle session that is open, else to a new one, else behind the shortest queue. A refused
    message leaves its session in use; a broken session is replaced when the next message needs it. Where the relay,
    or this process, allows no more sessions, the pool uses those that are open, and tries one more later.

    It belongs to the event loop, the thread and the process of its first message. From another one every call raises
    LocalProtocolError. It may be made anywhere, also before a fork, and before there is an event loop.

    Args:
        relay: the relay and the policy for it, or its URL. password, token: for the user of a URL.
        sessions: the most connections at a time. depth: the most messages handed to one session at a time;
            more than one lets the next envelope travel while a content is being taken.
        messages: a session says QUIT after so many and is replaced; None for no limit but the relay's LIMITS.
        idle, age: and after so many seconds without a message, or since it was opened; nobody waits for that QUIT
            unless every slot is taken.
        wait: the most seconds a message waits for a session; None for as long as it takes.
        retry: sends again what failed temporarily, see `send`; None for what `send` does without it.
        signer: signs each message with DKIM, once, before it waits for a session.
        trace: is called with each line of the dialogue. on_event: with each event, see `asyncsmtp.Event`.
        clock, random, open_connection, suspend_detector: replace the event loop's clock, the chance in delays, the
            opening of streams and the detection of sleep; for simulations.
    """

    def __init__(
        self,
        relay: Relay | str,
        *,
        password: str | Secret | None = None,
        token: str | Secret | TokenSource | None = None,
        sessions: int = 10,
        depth: int = 4,
        messages: int | None = None,
        idle: float = 60.0,
        age: float = 300.0,
        wait: float | None = None,
        retry: Retry | None = None,
        signer: Signer | None = None,
        trace: Trace | None = None,
        on_event: OnEvent | None = None,
        clock: Callable[[], float] | None = None,
        random: Random = RANDOM,
        open_connection: OpenConnection = open_connection,
        suspend_detector: SuspendDetector | None = None,
    ) -> None:
        self.relay = relay = to_relay(relay, password, token)
        for name, number in (("sessions", sessions), ("depth", depth)):
            check_number(name, number, int)
        if messages is not None:
            check_number("messages", messages, int)
        for name, seconds in (("idle", idle), ("age", age)):
            if seconds != inf:  # a session may be kept for ever
                check_number(name, seconds, int, float)
        check_number("wait", wait, int, float, None, zero=True)
        if retry is not None:
            check_type("retry", retry, Retry)
        check_signer(signer)
        self._given_clock = clock
        self._owner = LoopOwner("pool")  # from the first message on
        self._clock = clock or _loop_time
        self._random = random
        self._retry = retry
        self._signer = signer
        self._quirks = ServerQuirks()
        self._emitter = None if on_event is None else EventEmitter(on_event, relay)
        trace = None if trace is None else guard_callback("trace", trace)  # logs once for all sessions
        self._connector = Connector(relay, self._quirks, trace, self._emitter, self._clock, open_connection)
        self._session_limits = SessionLimits(messages, idle, age)
        self._slots = Slots(sessions, self._clock)
        if relay.dialogue is Dialogue.STREAMED:
            depth = max(depth, relay.window)
        self._depth = depth
        self._max_messages = sessions * depth
        self._wait = wait
        self._limits = PoolLimits(relay, self._slots, sessions, depth, self._emitter, self._clock)
        self._capacity = self._limits.capacity
        self._suspend_detector = suspend_detector or SuspendDetector()
        self._idle = asyncio.Event()
        self._idle.set()
        self._in_hand = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        with DeferredCancellation():
            await self.aclose()

    def __repr__(self) -> str:
        return f"<Pool for {self.relay}: {self.open_sessions} of {self._limits.sessions} sessions open>"

    @property
    def open_sessions(self) -> int:
        """Number of sessions that could send now."""
        return sum(session.usable for session in self._slots.sessions)

    @property
    def busy_sessions(self) -> int:
        """Number of sessions with an unanswered message; also those that take no other."""
        return sum(session.busy for session in self._slots.sessions)

    @property
    def waiting(self) -> int:
        """Number of messages that wait because every session has as many as it may."""
        return self._in_hand - self._slots.load

    @property
    def counts(self) -> PoolCounts:
        """Counts of sessions and messages at this moment."""
        return PoolCounts(self.open_sessions, self.busy_sessions, self._limits.sessions, self._in_hand, self.waiting)

    async def send(
        self,
        message: Message | ParsedMessage,
        *,
        before_end: BeforeEnd | None = None,
        deadline: float | None = None,
        hard: bool = False,
    ) -> Delivery:
        """Send one message over some session; wait for a session if all are full.

        It is sent again at once, and `before_end` called again, after a connection broke before the point of no return
        that was not opened for this very message; after a 4xx to MAIL, or a 421 to any command, on a session that has
        taken messages, since a relay may take so many a session; and, command by command, where a relay answered a
        pipelined envelope only in part, or hung up at it. (A stream that was begun cannot be sent again.) Where no
        further session can be opened, or the relay says that there are too many, the message waits for those that are
        open; where none can be opened at all, everyone who waits gets the error.

        With the pool's `retry` it is sent again after a delay, to those recipients that were refused with 4xx, or to
        all after a `retryable` error; never to a recipient that may have it, and never after the deadline. The
        result has the last reply for each recipient.

        Raises and cancels as `Session.send` does, and as `Session.connect` where a session must be opened.
        Raises also PoolTimeout after `wait` seconds. The seconds of a `deadline` count from the call: waiting for a
        session, opening one, and the delays of a retry are a part of them.
        """
        self._owner.bind()
        if deadline is not None:
            check_deadline(deadline)
        made = await prepare_for_sending(message, self._signer)
        if self._retry is not None:
            return await self._send_with_retry(self._retry, made, before_end, deadline, hard)
        if deadline is not None:
            return await with_deadline(deadline, hard, before_end, lambda mark: self._send_once(made, mark))
        return await self._send_once(made, before_end)

    async def _send_once(self, message: Message, before_end: BeforeEnd | None) -> Delivery:
        if self._emitter is None:
            return await self._deliver(message, before_end)
        with MessageTimer(self._emitter, message.envelope, message.content, self._given_clock) as timer:
            return timer.record_delivery(await self._deliver(message, before_end, timer))

    async def _send_with_retry(
        self, retry: Retry, message: Message, before_end: BeforeEnd | None, deadline: float | None, hard: bool
    ) -> Delivery:
        """Make attempt after attempt, each to the recipients that are still deferred.

        Once a recipient has the message, nothing that happens to a later attempt may hide that: after an error the
        others stay deferred, and a cancellation becomes DeliveryInDoubt with the `delivery` so far.
        """
        began, attempt, rest = self._clock(), 0, message
        done: Delivery | None = None
        timer = None
        if self._emitter is not None:
            timer = MessageTimer(self._emitter, message.envelope, message.content, self._given_clock)
        with timer or nullcontext():
            try:
                while True:
                    attempt += 1
                    failure: SMTPError | None = None
                    try:
                        left = None if deadline is None else deadline - (self._clock() - began)
                        attempt_once = partial(self._deliver, rest, timer=timer)
                        delivery = await with_deadline(left, hard, before_end, attempt_once)
                        done = delivery if done is None else merge_deliveries(done, delivery)
                        deferred = _deferred(done)
                        again = deferred is not None
                        why: object = next((reply for reply in done.replies if not reply.positive), None)
                        rest = Message(deferred, message.content) if deferred is not None else message
                    except DeliveryInDoubt as doubt:
                        if done is not None:
                            doubt.delivery = merge_deliveries(done, doubt.delivery) if doubt.delivery else done
                        raise
                    except SMTPError as error:
                        late = isinstance(error, DeadlineExceeded)
                        why = failure = DeadlineExceeded(deadline or 0.0) if late else error
                        again = failure.retryable
                    age = self._clock() - began
                    may = again and not message.content.is_consumed
                    delay = retry.delay_after(attempt, age, self._random) if may else None
                    if delay is None or (deadline is not None and age + delay >= deadline):
                        if done is None:
                            assert failure is not None
                            raise failure
                        return timer.record_delivery(done) if timer is not None else done
                    _report_retry(timer, why)
                    await asyncio.sleep(delay)
            except asyncio.CancelledError as cancelled:
                if done is None or Outcome.ACCEPTED not in done.outcomes:
                    raise
                raise DeliveryInDoubt(rest.envelope, "the sender gave up waiting", done) from cancelled

    def send_all(
        self, messages: Iterable[Message | ParsedMessage] | AsyncIterable[Message | ParsedMessage]
    ) -> AsyncGenerator[Delivery]:
        """Send many messages; yield their deliveries in the order of completion, each with its `message`.

            async for delivery in pool.send_all(messages):
                print(delivery.message, delivery.accepted)

        At most `sessions * depth` messages are taken from the iterable and not yet yielded, so it may be endless.
        A refusal is a delivery as any other. An error for one message loses nothing of the others: each message that
        was taken is either yielded, or in the `failures` of the MessagesFailed at the end. After an error for which
        no session can be opened (ConnectFailed, a refused login) no further message is taken.

        Closing the iterator early (`aclosing`, or a `break` under it) leaves nothing running: messages that are
        unanswered are cancelled as `send` is, so those past the point of no return may be delivered. If the task is
        cancelled, MessagesFailed names those, and those that were accepted and not yielded; where there are none,
        CancelledError is raised.

        Raises:
            TypeError: at once, for what cannot be iterated; that of an element which is no message is in `failures`.
            MessagesFailed: at the end. And what the iterable raises, when the others are yielded.
        """
        if (
            not isinstance(messages, Iterable | AsyncIterable)
            or isinstance(messages, str | bytes | Mapping)
            or hasattr(messages, "get_content_type")  # an EmailMessage is an iterable of its field names
        ):
            raise TypeError(f"messages must be an iterable of messages, not {type(messages).__name__}")
        return send_all(self.send, messages, self._max_messages, self._owner)

    async def _deliver(
        self, message: Message, before_end: BeforeEnd | None, timer: MessageTimer | None = None
    ) -> Delivery:
        seen = self._connector.failures
        again = False
        if self._suspend_detector.was_suspended():
            self._slots.abort_idle()
        self._in_hand += 1
        self._idle.clear()
        try:
            while True:
                await self._enter(timer, first=again)
                slot = self._slots.take(self._clock())
                try:
                    return await self._submit(slot, message, before_end, seen, timer, moved=again)
                except NoRoom as reason:
                    again = True
                    _report_retry(timer, reason)
                finally:
                    self._slots.release(slot)
                    self._capacity.release()
        finally:
            self._in_hand -= 1
            if not self._in_hand:
                self._idle.set()

    async def _enter(self, timer: MessageTimer | None, *, first: bool) -> None:
        """Take a place: wait until some session may be given one message more."""
        if not self._capacity.full or (self._wait is None and timer is None):
            await self._capacity.acquire(first=first)
            return
        if timer is not None:
            timer.mark_queued()
        try:
            async with asyncio.timeout(self._wait):
                await self._capacity.acquire(first=first)
        except TimeoutError:
            raise PoolTimeout(self._wait or 0.0) from None
        finally:
            if timer is not None:
                timer.mark_dequeued()

    async def _submit(
        self,
        slot: Slot,
        message: Message,
        before_end: BeforeEnd | None,
        seen: int,
        timer: MessageTimer | None,
        *,
        moved: bool,
    ) -> Delivery:
        deferrals, pauses, time = 0, 0, self._clock
        while True:
            restart_deadline(before_end)
            self._connector.check()
            session, fresh = slot.session, False
            if session is None or not session.check_usable(time()) or not session.check_messages_left(message.envelope):
                session, fresh = await self._session_for(slot, seen)
                self._connector.check()  # it may have been stopped meanwhile
            session.take(message.envelope)
            if fresh:
                self._slots.watch()
            # No `await` may come between this reply and the caller: a campaign marks the next message of the session
            # only after it has recorded this one, so that a crash leaves at most one row in doubt for each session.
            try:
                delivery = await session.session.transact(message.envelope, message.content, before_end=before_end)
            except ConnectionLost as error:
                pipelined = session.session.pipelined
                if fresh and not message.content.is_consumed and self._quirks.first_broken(pipelined=pipelined):
                    self._slots.retire_pipelined()
                    _report_retry(timer, error)
                    continue
                # A fresh one ends the loop: so each broken connection gives up at most one message.
                if fresh or message.content.is_consumed:
                    self._connector.backoff.failed(time())
                    raise
                _report_retry(timer, error)
                continue
            except DeliveryInDoubt:
                self._quirks.first_answered(str(self.relay), pipelined=session.session.pipelined)  # as a whole envelope
                raise
            except ReplyTimeout as error:
                if not (self._quirks.loses_commands and session.session.pipelined):
                    raise
                self._slots.retire_pipelined()  # they would lose commands too; the next ones write one at a time
                _report_retry(timer, error)
                continue
            finally:
                session.release()
            if not session.proved and delivery.mail.positive:
                session.proved = True
                self._connector.backoff.reset()
                self._quirks.first_answered(str(self.relay), pipelined=session.session.pipelined)
            if delivery.content_replies and delivery.content_replies[0].positive:  # nearly every message
                self._limits.accepted()
                return delivery
            refusal = _deferral(delivery)
            if refusal is None or message.content.is_consumed:
                if delivery.mail.positive:
                    self._limits.accepted()
                return delivery
            # Nobody has the message. Was it the relay's last word about it, or about this session?
            too_many = means_too_many(refusal)
            if too_many or (fresh and refusal.code == SERVICE_CLOSING and not (moved and delivery.mail.positive)):
                if self._slots.has_others(slot):
                    session.retire()
                    self._limits.lower(slot, refusal)
                if too_many and self._limits.lowered and pauses < MAX_PAUSES:  # the others are being closed
                    _report_retry(timer, refusal)
                    await asyncio.sleep(PAUSE * 2**pauses)
                    pauses += 1
                    continue
            if fresh or deferrals == self._depth or not _is_about_session(refusal, delivery, session):
                return delivery
            deferrals += refusal.code != SERVICE_CLOSING
            session.retire()
            _report_retry(timer, refusal)

    async def _session_for(self, slot: Slot, seen: int) -> tuple[PooledSession, bool]:
        """Return a session for the slot, and whether it was opened for this message, which came after `seen` errors."""
        async with slot.opening:
            if slot.session is not None:
                if slot.session.check_usable(self._clock()):
                    return slot.session, False  # opened while we waited for the lock
                await slot.session.wait_closed()  # there are never more connections than slots
            slot.session = PooledSession(await self._open(slot, seen), self._session_limits, self._clock)
            return slot.session, True

    async def _open(self, slot: Slot, seen: int) -> Session:
        if slot.barred:  # while we waited for the lock
            raise NoRoom("there was no room for this session")
        try:
            return await self._connector.open(seen)
        except SMTPError as error:
            others = self._slots.has_others(slot)
            if others and means_no_room(error):
                self._limits.lower(slot, error)
            self._connector.backoff.failed(self._clock())
            if not others:
                self._connector.all_failed(error)
            raise

    def stop(self) -> None:
        """Begin no further message: those of which nothing is written get LocalProtocolError, later ones as well.

        Nothing of them was delivered. Messages that have begun are answered: `drain` waits for that, and `aclose`
        follows.
        """
        self._owner.check_thread()
        self._connector.stop()
        self._capacity.fail_waiting(closed)
        self._slots.fail_waiting()

    async def drain(self, seconds: float | None = None) -> bool:
        """Wait until every `send` has returned, and return True. Cancelling it changes nothing.

        After so many `seconds` it closes the pool as `aclose` does and returns False: what is past the point of no
        return is in doubt, of the others nothing is delivered, and each sender gets its error.
        """
        check_number("seconds", seconds, int, float, None, zero=True)
        self._owner.check()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            await self.aclose()
            await self._idle.wait()
            return False
        return True

    async def aclose(self) -> None:
        """Take no more messages, say QUIT on every session and close; unanswered messages are aborted.

        Call `drain` first to let them be answered. It takes two seconds at the most, whatever the relay does.
        Cancelling it closes at once, and raises CancelledError as `Session.aclose` does.
        """
        self._owner.check()
        with defer_during_error():
            try:
                await self._connector.aclose()
            except asyncio.CancelledError:
                self._slots.abort()
                raise
            finally:
                await self._slots.aclose()


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _deferred(delivery: Delivery) -> Envelope | None:
    """Return the envelope for another attempt; None where nobody is deferred, or some cannot have it without others."""
    if delivery.envelope.all_or_nothing and set(delivery.outcomes) != {Outcome.DEFERRED}:
        return None
    return delivery.deferred


def _report_retry(timer: MessageTimer | None, why: object) -> None:
    if timer is not None:
        timer.mark_retried(why)


def _deferral(delivery: Delivery) -> Reply | None:
    """Return the 4xx that deferred every recipient; None if there is another outcome."""
    replies = delivery.replies
    if not all(400 <= reply.code < 500 for reply in replies):
        return None
    return next((reply for reply in replies if reply.code == SERVICE_CLOSING or means_too_many(reply)), replies[0])


def _is_about_session(refusal: Reply, delivery: Delivery, session: PooledSession) -> bool:
    """Return whether a refusal on a session that took messages is about it, not the message: it is used up.

    Some relays take so many messages a session, do not say how many, and answer every later MAIL with 4xx:
    OpenSMTPD, after a hundred, with "452 4.5.3 Too many messages sent".
    """
    return refusal.code == SERVICE_CLOSING or (session.proved and not delivery.mail.positive)
