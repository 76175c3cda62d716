"""The slots of a pool and their sessions: opened with back-off, chosen for each message, and retired.

A session that has done enough takes no more messages, waits for the replies that are due, says QUIT and closes: it
*retires*. Its slot is free only then, so that no relay sees more connections than the pool may have.

A relay that accepts connections and closes them at once would otherwise be asked as fast as the machine can.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

from asyncsmtp.client.config.login_config import CredentialsProvider
from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.connection.smtp_connection import Hosts
from asyncsmtp.client.connection.transport import OpenConnection
from asyncsmtp.client.event_loop import count_cancellations, defer_cancellation, wait_for_tasks
from asyncsmtp.client.events.types import EventEmitter, Trace
from asyncsmtp.client.session.send_pipeline import ServerQuirks
from asyncsmtp.client.session.session import Session, count_transactions
from asyncsmtp.errors import AuthenticationRefused, LocalProtocolError, SMTPError
from asyncsmtp.protocol.envelope import Envelope

__all__ = ["Backoff", "Connector", "PooledSession", "SessionLimits", "Slot", "Slots", "SuspendDetector", "closed"]

FIRST_DELAY = 0.01  # seconds after one failure; twice as many after each further one …
MAX_DELAY = 5.0  # … up to this


class Backoff:
    """The delay before the next connection, from failures that follow each other; time is passed in."""

    __slots__ = ("_failed_at", "_failures", "_not_before", "_tried_at")

    def __init__(self) -> None:
        self._failures = 0
        self._failed_at = self._tried_at = self._not_before = float("-inf")

    def started(self, now: float) -> None:
        """Note that a connection is begun."""
        self._tried_at = now

    def failed(self, now: float) -> None:
        """Note that it failed, or broke before it was of any use; of concurrent failures only the first counts."""
        if self._tried_at < self._failed_at:
            return
        self._failed_at = now
        self._not_before = now + min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(self._failures, 16))
        self._failures += 1

    def reset(self) -> None:
        """Note that the relay accepted the envelope of a message."""
        self._failures = 0
        self._not_before = float("-inf")

    def delay(self, now: float) -> float:
        """Return the seconds to wait before the next attempt."""
        return max(0.0, self._not_before - now)


class Connector:
    """Opens sessions that share credentials, host failures and quirks.

    Attributes:
        failures: how often the first session could not be opened, so far.
        backoff: when to try again after failures; the pool reports them.
    """

    def __init__(
        self,
        relay: Relay,
        quirks: ServerQuirks,
        trace: Trace | None,
        emitter: EventEmitter | None,
        clock: Callable[[], float],
        open_connection: OpenConnection,
    ) -> None:
        self._relay = relay
        self._quirks = quirks
        self._trace = trace
        self._emitter = emitter
        self._clock = clock
        self._open_connection = open_connection
        self._credentials = CredentialsProvider(relay.login, relay.timeouts.auth, clock) if relay.login else None
        self._hosts = Hosts(relay, clock)
        self._connecting: set[asyncio.Task[None]] = set()
        self._first = asyncio.Lock()
        self._opened_one = False
        self._last_failure: SMTPError | None = None
        self._refused: AuthenticationRefused | None = None
        self._closing = False
        self.failures = 0
        self.backoff = Backoff()

    async def open(self, seen: int) -> Session:
        """Open a session for a message that came after `seen` failures; a later failure is raised for it too."""
        if not self._opened_one:
            async with self._first:
                if not self._opened_one:
                    return await self._open_first(seen)
        return await self._open()

    async def _open_first(self, seen: int) -> Session:
        if self._last_failure is not None and self.failures > seen:
            raise self._last_failure
        try:
            session = await self._open()
        except SMTPError as error:
            self.failures += 1
            self._last_failure = error
            raise
        self._opened_one = True
        return session

    def all_failed(self, error: SMTPError) -> None:
        """Fail all who wait: no session is open, and none could be opened; the next one is the first again."""
        if self._opened_one:
            self._opened_one = False
            self.failures += 1
            self._last_failure = error

    async def _open(self) -> Session:
        """Connect in a task of the connector's own: `aclose` can end it without cancelling the sender.

        So there are two reasons for a CancelledError here. If the sender is cancelled, it goes on; if only the task
        was, the pool is closing, and the sender must get a reason that it can handle.
        """
        if self._refused is not None:
            raise self._refused
        self.check()
        session = Session(
            self._relay,
            trace=self._trace,
            quirks=self._quirks,
            credentials=self._credentials,
            hosts=self._hosts,
            emitter=self._emitter,
            clock=self._clock,
            open_connection=self._open_connection,
        )
        before = count_cancellations()
        opening = asyncio.get_running_loop().create_task(self._connect_after_delay(session))
        self._connecting.add(opening)
        try:
            await wait_for_tasks((opening,), opening.cancel)
            opening.result()
        except asyncio.CancelledError as error:
            session.abort()  # it may have been opened in the loop step in which its message was given up
            if opening.cancelled() or (failure := opening.exception()) is None:
                if self._closing and count_cancellations() <= before:
                    raise closed() from None
                raise
            defer_cancellation(before, error)
            raise failure from None
        finally:
            self._connecting.discard(opening)
            if not opening.cancelled() and isinstance(refused := opening.exception(), AuthenticationRefused):
                self._refused = refused
        return session

    async def _connect_after_delay(self, session: Session) -> None:
        if delay := self.backoff.delay(self._clock()):
            await asyncio.sleep(delay)
        self.backoff.started(self._clock())
        await session.connect()

    def check(self) -> None:
        """Raise if the pool is closed."""
        if self._closing:
            raise closed()

    def stop(self) -> None:
        """Open no more sessions, and cancel what is being opened; who waits for one gets an error."""
        self._closing = True
        for task in self._connecting:
            task.cancel()

    async def aclose(self) -> None:
        """Stop, and wait until nothing is being opened any more."""
        self.stop()
        await wait_for_tasks(tuple(self._connecting), self.stop)


def closed() -> SMTPError:
    """Return the error of a message that the pool does not take any more."""
    return LocalProtocolError("the pool is closed")


NEVER = UNLIMITED = float("inf")
MAX_SUSPENSION = 30.0  # seconds of sleep after which an idle session is not trusted
_BOOT_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", None)


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Limits after which a session is replaced.

    Attributes:
        messages: that it takes; None for as many as the relay's LIMITS MAILMAX allows (RFC 9422 §4).
        idle: seconds without a message. A relay waits five minutes at least (RFC 5321 §4.5.3.2.7); many do not.
        age: seconds since it was opened.
    """

    messages: int | None = None
    idle: float = 60.0
    age: float = 300.0


class PooledSession:
    """One session of a pool, with its use so far.

    Attributes:
        proved: whether the relay has accepted a MAIL on it.
    """

    def __init__(self, session: Session, limits: SessionLimits, clock: Callable[[], float]) -> None:
        self._relay_limits = session.extensions.limits
        announced = self._relay_limits.mail_max if self._relay_limits is not None else None
        self.session = session
        self.proved = False
        self._messages_left = self._max_messages = min(limits.messages or UNLIMITED, announced or UNLIMITED)
        self._limits = limits
        self._clock = clock
        self._idle_since = clock()
        self._expires_at = self._idle_since + limits.age
        self._unanswered = 0
        self._quiet = asyncio.Event()
        self._retiring: asyncio.Task[None] | None = None

    @property
    def usable(self) -> bool:
        """True if it may take a message."""
        return self._retiring is None and self.session.usable

    @property
    def connected(self) -> bool:
        """True if it holds a connection, be it only to say QUIT."""
        return self.session.usable if self._retiring is None else not self._retiring.done()

    @property
    def busy(self) -> bool:
        """True if a message on it is unanswered."""
        return self._unanswered > 0

    @property
    def retiring(self) -> bool:
        """True if it takes no more messages, and says QUIT or will."""
        return self._retiring is not None

    def ends_at(self, now: float) -> float:
        """Return when it will have been idle, or open, for too long, if it is given nothing more from `now` on."""
        return min(self._expires_at, (now if self._unanswered else self._idle_since) + self._limits.idle)

    def check_usable(self, now: float) -> bool:
        """Return whether it may take a message; begin to retire it where its time is over."""
        if not self.usable:
            return False
        if now < self.ends_at(now):
            return True
        self.retire()
        return False

    def check_messages_left(self, envelope: Envelope) -> bool:
        """Return whether it may take all parts of a message; else begin to retire it. A new one always may."""
        needed = count_transactions(envelope, self._relay_limits)
        if needed <= self._messages_left or self._messages_left == self._max_messages:
            return True
        self.retire()
        return False

    def take(self, envelope: Envelope) -> None:
        """Count one message more; `release` follows when it is answered."""
        self._unanswered += 1
        self._messages_left -= count_transactions(envelope, self._relay_limits)
        if self._messages_left <= 0:
            self.retire()

    def release(self) -> None:
        """Note that a sender has its result, or left."""
        self._unanswered -= 1
        if not self._unanswered:
            self._idle_since = self._clock()
            if self._retiring is not None:
                self._quiet.set()

    def retire(self) -> None:
        """Take no more messages; say QUIT when all are answered. `wait_closed` and `aclose` await that task."""
        if self._retiring is None:
            if not self._unanswered:
                self._quiet.set()
            self._retiring = asyncio.get_running_loop().create_task(self._retire())

    async def _retire(self) -> None:
        await self._quiet.wait()
        await self.session.aclose()

    async def wait_closed(self) -> None:
        """Return when its connection has ended. Cancelling it changes nothing."""
        if self._retiring is not None:
            await asyncio.wait((self._retiring,))
        else:
            await self.session.wait_closed()  # its last message may still be unanswered
            await self.session.aclose()

    async def aclose(self) -> None:
        """Say QUIT and close; unanswered messages are aborted."""
        if self._retiring is None:
            await self.session.aclose()
            return
        if self._unanswered:
            self.session.abort()
        await wait_for_tasks((self._retiring,), self.session.abort)


class Slot:
    """A place for one session, with the number of messages given to it.

    Attributes:
        barred: no session may be opened here now: the relay, or this process, takes no more.
    """

    __slots__ = ("barred", "load", "opening", "session")

    def __init__(self) -> None:
        self.session: PooledSession | None = None
        self.load = 0
        self.barred = False
        self.opening = asyncio.Lock()

    def check_usable(self, now: float) -> bool:
        """Return whether its session may take a message."""
        return self.session is not None and self.session.check_usable(now)

    @property
    def occupied(self) -> bool:
        """True if it has a connection, or is about to."""
        return self.opening.locked() or (self.session is not None and self.session.connected)


_load = attrgetter("load")


class Slots:
    """All slots; those without a message are a stack, so that sessions nobody needs grow idle and end.

    Barred ones are neither in `_open` nor on the stack.
    """

    def __init__(self, number: int, clock: Callable[[], float]) -> None:
        self._all = tuple(Slot() for _ in range(number))
        self._open = self._all
        self._free = list(reversed(self._all))
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None

    @property
    def sessions(self) -> list[PooledSession]:
        """Those of the slots that have one."""
        return [slot.session for slot in self._all if slot.session is not None]

    @property
    def load(self) -> int:
        """Number of messages given to them."""
        return sum(map(_load, self._all))

    def take(self, now: float) -> Slot:
        """Give one message more to the open session idle for the shortest time, else to an empty slot, else to the
        least loaded.
        """
        slot = self._choose(now)
        slot.load += 1
        return slot

    def _choose(self, now: float) -> Slot:
        free = self._free
        if not free:
            return min(self._open, key=_load)
        for place in range(len(free) - 1, -1, -1):
            if free[place].check_usable(now):
                return free.pop(place)
        empty = [slot for slot in free if slot.session is None or not slot.session.retiring]
        slot = (empty or free)[-1]
        free.remove(slot)
        return slot

    def release(self, slot: Slot) -> None:
        """Note that a message is answered."""
        slot.load -= 1
        if not slot.load and not slot.barred:
            self._free.append(slot)

    def has_others(self, slot: Slot) -> bool:
        """Return whether another slot is occupied."""
        return any(other is not slot and other.occupied for other in self._open)

    def bar(self, slot: Slot) -> int:
        """Let no session be opened in this slot, nor in any that has none now.

        Returns how many slots are left; at least one, where there are `others`.
        """
        for other in self._open:
            other.barred = other is slot or not other.occupied
        self._free = [other for other in self._free if not other.barred]
        return self._update_open()

    def unbar(self) -> None:
        """Allow one session more; its slot is the last to be taken."""
        slot = min((slot for slot in self._all if slot.barred), key=_load)
        slot.barred = False
        if not slot.load:
            self._free.insert(0, slot)
        self._update_open()

    def _update_open(self) -> int:
        self._open = tuple(slot for slot in self._all if not slot.barred)
        return len(self._open)

    def retire_pipelined(self) -> None:
        """Retire every session that writes commands in groups."""
        for session in self.sessions:
            if session.usable and session.session.pipelined:
                session.retire()

    def abort(self) -> None:
        """Abort every session."""
        for session in self.sessions:
            session.session.abort()

    def fail_waiting(self) -> None:
        """End each message of which nothing is written."""
        for session in self.sessions:
            session.session.fail_waiting(closed())

    def abort_idle(self) -> None:
        """Abort every session without an unanswered message."""
        for session in self.sessions:
            if session.usable and not session.busy:
                session.session.abort()

    def watch(self) -> None:
        """Retire sessions when their time is over, though no message comes; called when one was opened."""
        if self._timer is None:
            self._retire_expired()

    def _retire_expired(self) -> None:
        now = self._clock()
        ends = min((session.ends_at(now) for session in self.sessions if session.check_usable(now)), default=NEVER)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(ends - now, self._retire_expired) if ends < NEVER else None

    async def aclose(self) -> None:
        """Close every session; unanswered messages are aborted."""
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        closing = [loop.create_task(session.aclose()) for session in self.sessions]
        await wait_for_tasks(closing, self.abort)
        for task in closing:
            task.result()  # a bug is not hidden


def _boot_time() -> float:
    """Return the seconds since the machine was started, with sleep; without such a clock, sleep is not detected."""
    return time.monotonic() if _BOOT_CLOCK is None else time.clock_gettime(_BOOT_CLOCK)


class SuspendDetector:
    """A comparison of a clock that stops while the machine sleeps, as the event loop's does, with one that goes on.

    The loop's timeouts stand still during sleep: a session that was idle for an hour of sleep would count as fresh,
    though the other end has closed it, unnoticed.
    """

    def __init__(
        self, boot_time: Callable[[], float] = _boot_time, awake: Callable[[], float] = time.monotonic
    ) -> None:
        self._boot_time = boot_time
        self._awake = awake
        self._asleep = boot_time() - awake()

    def was_suspended(self) -> bool:
        """Return whether the machine has slept for more than MAX_SUSPENSION since the last call."""
        asleep = self._boot_time() - self._awake()
        gap, self._asleep = asleep - self._asleep, asleep
        return gap > MAX_SUSPENSION
