"""Tells an observer of events; nobody is called where nobody asked.

A session and a pool hold a `Witness` or None, and ask once a message whether there is one.

def count(event: Event) -> None:
        match event:
            case MessageEnded(result=result, seconds=seconds):
                messages[result] += 1

    async with Pool(relay, on_event=count) as pool: ...

The callback is called at once, in the task that is concerned, and must not block: it is counted with the time
of the loop. One that raises is said so in the log, once, and disturbs nothing. No event has a secret or content.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from time import monotonic
from types import TracebackType
from typing import Protocol, Self, TypeAlias

from asyncsmtp.errors import Refused, SMTPError
from asyncsmtp.protocol.content import AnyContent
from asyncsmtp.protocol.delivery import Delivery, Outcome
from asyncsmtp.protocol.envelope import Envelope

__all__ = [
    "Event",
    "EventEmitter",
    "MessageDequeued",
    "MessageEnded",
    "MessageQueued",
    "MessageRetried",
    "MessageTimer",
    "OnEvent",
    "PoolResized",
    "SessionClosed",
    "SessionFailed",
    "SessionOpened",
]


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """A session may send; `seconds` is how long connecting, TLS and login took.

    Attributes:
        tls: its version, such as "TLSv1.3"; None in clear. verified: whether it proved who the relay is.
    """

    host: str
    seconds: float
    tls: str | None = None
    verified: bool = False


@dataclass(frozen=True, slots=True)
class SessionFailed:
    """No session came to be: the connection, the handshake, the greeting or the login failed."""

    host: str
    seconds: float
    error: BaseException

    @property
    def code(self) -> int | None:
        """What the relay said; None where it said nothing."""
        return _code(self.error)


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """A session that was open has ended, `seconds` after that.

    Attributes:
        messages: how many it was given.
        error: what broke it; None after a QUIT.
    """

    host: str
    seconds: float
    messages: int
    error: SMTPError | None = None


@dataclass(frozen=True, slots=True)
class MessageQueued:
    """Every session has its hands full: a message begins to wait. `MessageDequeued` follows in any case."""

    host: str


@dataclass(frozen=True, slots=True)
class MessageDequeued:
    """A message has waited long enough: for a session, or it gave up."""

    host: str
    seconds: float


@dataclass(frozen=True, slots=True)
class MessageRetried:
    """A message is sent again at once, on another session: what ended the first try delivered nothing."""

    host: str
    why: str


@dataclass(frozen=True, slots=True)
class MessageEnded:
    """One call of `send` has come to its end: one for each message, however often it was tried.

    Attributes:
        delivery: the relay's answers; None where there is an error instead.
        error: what `send` raised, a CancelledError too.
        recipients, octets: of the message; None of a stream whose size nobody knows.
        seconds: from the call to its end. waited: those of them in which every session had its hands full.
    """

    host: str
    delivery: Delivery | None
    error: BaseException | None
    recipients: int
    octets: int | None
    seconds: float
    waited: float = 0.0

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """One for each recipient; none where the message failed before it was delivered to anyone."""
        if self.delivery is not None:
            return self.delivery.outcomes
        return (Outcome.IN_DOUBT,) * self.recipients if self.in_doubt else ()

    @property
    def in_doubt(self) -> bool:
        """Whether the relay may have it, and did not say so."""
        return isinstance(self.error, SMTPError) and self.error.in_doubt

    @property
    def result(self) -> str:
        """One word for counters: that of the outcome where all recipients share it, else "mixed"; "cancelled" or
        "failed" where the message was not delivered for another reason.
        """
        outcomes = set(self.outcomes)
        if outcomes:
            return outcomes.pop().value if len(outcomes) == 1 else "mixed"
        return "cancelled" if isinstance(self.error, asyncio.CancelledError) else "failed"

    @property
    def code(self) -> int | None:
        """The first reply that refused something of it; None where nothing was refused."""
        if self.delivery is None:
            return _code(self.error)
        return next((reply.code for reply in self.delivery.replies if not reply.positive), None)


@dataclass(frozen=True, slots=True)
class PoolResized:
    """A pool may have so many sessions from now on; `why` it became fewer, None where it is one more."""

    host: str
    sessions: int
    why: str | None = None


Event: TypeAlias = (
    SessionOpened
    | SessionFailed
    | SessionClosed
    | MessageQueued
    | MessageDequeued
    | MessageRetried
    | MessageEnded
    | PoolResized
)


class OnEvent(Protocol):
    """An observer: called with each event, in the task it concerns; it must not block, and may not be a coroutine."""

    def __call__(self, event: Event, /) -> None: ...


def _code(error: BaseException | None) -> int | None:
    return error.reply.code if isinstance(error, Refused) else None


logger = logging.getLogger("asyncsmtp.events")


class EventEmitter:
    """Calls the observer, and bears with it."""

    __slots__ = ("_on_event", "_said", "host")

    def __init__(self, on_event: OnEvent, host: str) -> None:
        self.host = host
        self._on_event = on_event
        self._said = False

    @classmethod
    def of(cls, on_event: OnEvent | None, host: object) -> EventEmitter | None:
        """One, where somebody wants to know."""
        return None if on_event is None else cls(on_event, str(host))

    def tell(self, event: Event) -> None:
        """Call it; what it raises is logged the first time, and ends nothing."""
        try:
            self._on_event(event)
        except Exception:
            if not self._said:
                self._said = True
                logger.exception("the observer raised at %s: correct it; this is said once", type(event).__name__)


class MessageTimer:
    """Keeps the time of one message, from the call of `send` to its end.

    A context manager: left with an error, that is how the message ended.
    """

    __slots__ = ("_began", "_delivery", "_octets", "_recipients", "_waited", "_waits_since", "_witness")

    def __init__(self, witness: EventEmitter, envelope: Envelope, content: AnyContent) -> None:
        self._witness = witness
        self._recipients = len(envelope.forward_paths)
        self._octets = content.size
        self._began = monotonic()
        self._delivery: Delivery | None = None
        self._waits_since = 0.0
        self._waited = 0.0

    def waits(self) -> None:
        """Every session has its hands full."""
        self._waits_since = monotonic()
        self._witness.tell(MessageQueued(self._witness.host))

    def waited(self) -> None:
        """Not any more."""
        seconds = monotonic() - self._waits_since
        self._waited += seconds
        self._witness.tell(MessageDequeued(self._witness.host, seconds))

    def retried(self, why: object) -> None:
        """It is sent again at once."""
        self._witness.tell(MessageRetried(self._witness.host, str(why)))

    def got(self, delivery: Delivery) -> Delivery:
        """The relay has answered; return its answers."""
        self._delivery = delivery
        return delivery

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """The sender has its result."""
        witness, delivery = self._witness, self._delivery if error is None else None
        host = witness.host if delivery is None else delivery.host
        seconds = monotonic() - self._began
        witness.tell(MessageEnded(host, delivery, error, self._recipients, self._octets, seconds, self._waited))
