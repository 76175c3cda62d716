"""Events of sessions and pools, the emitter that passes them to a callback, and the trace of the dialogue.

    def count(event: Event) -> None:
        match event:
            case MessageEnded(result=result, seconds=seconds):
                messages[result] += 1

    async with Pool(relay, on_event=count) as pool: ...

The callback is called at once, in the task that the event is about, and must not block the event loop. If it raises,
the exception is logged once and the task continues. No event holds a secret or content.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from inspect import iscoroutine, iscoroutinefunction
from time import monotonic
from typing import Protocol, Self, TypeAlias, TypeVar, cast

from asyncsmtp.errors import DeliveryInDoubt, Refused, SMTPError
from asyncsmtp.protocol.content import AnyContent
from asyncsmtp.protocol.delivery import Delivery, Outcome
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.replies import safe_text

__all__ = [
    "Direction",
    "Event",
    "EventEmitter",
    "GuardedLogger",
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
    "Trace",
    "guard_callback",
    "with_debug_log",
]

MAX_LOGGED_LINES = 32  # of one reply in the log; the reply to EHLO has about a dozen


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """A session that is ready to send; `seconds` is the time for connecting, TLS and login.

    Attributes:
        tls: the TLS version, such as "TLSv1.3"; None in cleartext.
        verified: the server was authenticated.
    """

    host: str
    seconds: float
    tls: str | None = None
    verified: bool = False


@dataclass(frozen=True, slots=True)
class SessionFailed:
    """A session that did not open: the connection, TLS handshake, greeting or login failed."""

    host: str
    seconds: float
    error: BaseException

    @property
    def code(self) -> int | None:
        """The reply code of the refusal; None if there was no reply."""
        return _code(self.error)


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """An open session that has ended after `seconds`.

    Attributes:
        messages: the number of messages it was given.
        error: the reason if it broke; None after QUIT.
    """

    host: str
    seconds: float
    messages: int
    error: SMTPError | None = None


@dataclass(frozen=True, slots=True)
class MessageQueued:
    """A message that begins to wait because every session is busy; a `MessageDequeued` always follows."""

    host: str


@dataclass(frozen=True, slots=True)
class MessageDequeued:
    """A message that no longer waits: it has a session, or it gave up."""

    host: str
    seconds: float


@dataclass(frozen=True, slots=True)
class MessageRetried:
    """A message that is sent again at once on another session; the first attempt delivered nothing."""

    host: str
    why: str


@dataclass(frozen=True, slots=True)
class MessageEnded:
    """The end of one call of `send`: one event for each message, however often it was tried.

    Attributes:
        delivery: the relay's replies; None if there is an error instead.
        error: the exception that `send` raised, including CancelledError.
        recipients: the number of recipients.
        octets: the size of the content in bytes; None for a stream of unknown size.
        seconds: the time from the call to its end.
        waited: the part of it in which every session was busy.
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
        """One outcome for each recipient; empty if the message failed before it was delivered to anyone."""
        if self.delivery is not None:
            return self.delivery.outcomes
        if isinstance(self.error, DeliveryInDoubt) and (known := self.error.delivery) is not None:
            doubtful = self.error.envelope.forward_paths
            outcomes = zip(known.envelope.forward_paths, known.outcomes, strict=True)
            return tuple(Outcome.IN_DOUBT if path in doubtful else outcome for path, outcome in outcomes)
        return (Outcome.IN_DOUBT,) * self.recipients if self.in_doubt else ()

    @property
    def in_doubt(self) -> bool:
        """True if the relay may have the message but did not confirm it."""
        return isinstance(self.error, SMTPError) and self.error.in_doubt

    @property
    def result(self) -> str:
        """One word for counters: the outcome that all recipients share, or "mixed".

        "cancelled" or "failed" if the message was not delivered for another reason.
        """
        outcomes = set(self.outcomes)
        if outcomes:
            return outcomes.pop().value if len(outcomes) == 1 else "mixed"
        return "cancelled" if isinstance(self.error, asyncio.CancelledError) else "failed"

    @property
    def code(self) -> int | None:
        """The code of the first reply that refused something; None if nothing was refused."""
        if self.delivery is None:
            return _code(self.error)
        return next((reply.code for reply in self.delivery.replies if not reply.positive), None)


@dataclass(frozen=True, slots=True)
class PoolResized:
    """A change of the maximum number of sessions of a pool.

    Attributes:
        why: the reason for fewer sessions; None if there is one more.
    """

    host: str
    sessions: int
    why: str | None = None


SessionEvent: TypeAlias = SessionOpened | SessionFailed | SessionClosed
MessageEvent: TypeAlias = MessageQueued | MessageDequeued | MessageRetried | MessageEnded
Event: TypeAlias = SessionEvent | MessageEvent | PoolResized


class OnEvent(Protocol):
    """A callback for events, called in the task that the event is about; it must not block or be a coroutine."""

    def __call__(self, event: Event, /) -> None: ...


def _code(error: BaseException | None) -> int | None:
    return error.reply.code if isinstance(error, Refused) else None


_Callback = TypeVar("_Callback", bound=Callable[..., None])


def guard_callback(parameter: str, callback: _Callback) -> _Callback:
    """Return a callback that logs the first exception of `callback` and raises none: it must not change an outcome.

    Raises:
        TypeError: `callback` is not a function, or is an async one, which would never run.
    """
    if not callable(callback) or any(map(iscoroutinefunction, (callback, type(callback).__call__))):
        raise TypeError(f"{parameter} must be a function that is not async, not {type(callback).__name__}")
    logged = False

    def guarded(*args: object, **kwargs: object) -> None:
        nonlocal logged
        try:
            returned = cast(object, callback(*args, **kwargs))
            if returned is not None and iscoroutine(returned):
                returned.close()
                raise TypeError(f"{parameter} returned a coroutine, which nothing awaits: start a task for it")
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # also a CancelledError of its own: in a task it would pass for one of the task
            if not logged:
                logged = True
                event_logger.exception(
                    "the %s callback raised at %s: fix it; further exceptions are not logged",
                    parameter,
                    type(args[0]).__name__,
                )

    return cast(_Callback, guarded)


class GuardedLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose handlers and filters may raise: that is printed, as logging does, and changes no outcome."""

    def log(self, level: int, msg: object, *args: object, **kwargs: object) -> None:
        """Log; every other method calls this one."""
        try:
            self.logger.log(level, msg, *args, stacklevel=2, **kwargs)  # type: ignore[arg-type]
        except Exception:
            if logging.raiseExceptions:
                traceback.print_exc()


logger = GuardedLogger(logging.getLogger("asyncsmtp.session"))
event_logger = GuardedLogger(logging.getLogger("asyncsmtp.events"))


class EventEmitter:
    """An emitter that passes events to a callback and survives its exceptions."""

    __slots__ = ("emit", "host")

    def __init__(self, on_event: OnEvent, host: object) -> None:
        self.host = str(host)
        self.emit = guard_callback("on_event", on_event)


class MessageTimer:
    """A context manager that measures one message, from the call of `send` to its end, and emits its events.

    If it is left with an exception, that is the result of the message.

    Args:
        clock: seconds; `time.monotonic` if omitted, since uvloop's time is in whole milliseconds.
    """

    __slots__ = ("_began", "_clock", "_delivery", "_emitter", "_octets", "_recipients", "_waited", "_waits_since")

    def __init__(
        self, emitter: EventEmitter, envelope: Envelope, content: AnyContent, clock: Callable[[], float] | None = None
    ) -> None:
        self._emitter = emitter
        self._clock = clock or monotonic
        self._recipients = len(envelope.forward_paths)
        self._octets = content.size
        self._began = self._clock()
        self._delivery: Delivery | None = None
        self._waits_since = 0.0
        self._waited = 0.0

    def mark_queued(self) -> None:
        """Note that the message begins to wait for a session."""
        self._waits_since = self._clock()
        self._emitter.emit(MessageQueued(self._emitter.host))

    def mark_dequeued(self) -> None:
        """Note that the message no longer waits."""
        seconds = self._clock() - self._waits_since
        self._waited += seconds
        self._emitter.emit(MessageDequeued(self._emitter.host, seconds))

    def mark_retried(self, why: object) -> None:
        """Note that the message is sent again at once."""
        self._emitter.emit(MessageRetried(self._emitter.host, str(why)))

    def record_delivery(self, delivery: Delivery) -> Delivery:
        """Store the relay's replies, and return them."""
        self._delivery = delivery
        return delivery

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Emit `MessageEnded` with the delivery or the exception."""
        emitter, delivery = self._emitter, self._delivery if error is None else None
        host = emitter.host if delivery is None else delivery.host
        seconds = self._clock() - self._began
        emitter.emit(MessageEnded(host, delivery, error, self._recipients, self._octets, seconds, self._waited))


class Direction(StrEnum):
    """The sender of a line, marked as in the RFC's examples; EVENT for what neither side sent."""

    CLIENT = "C"
    SERVER = "S"
    EVENT = "="


class Trace(Protocol):
    """A callback that receives each line of the dialogue as it happens.

    Args:
        side: the sender; EVENT for what neither side sent (a handshake, a failure).
        text: one or more lines. Lines from the server may hold anything: print them with `safe_text`.
        tls: the line was sent under TLS.
        refused: the line is a negative reply, or a failure.
    """

    def __call__(self, side: Direction, text: str, *, tls: bool, refused: bool) -> None: ...


def with_debug_log(trace: Trace | None) -> Trace:
    """Return a trace that also logs each line at DEBUG."""

    def both(side: Direction, text: str, *, tls: bool, refused: bool) -> None:
        lines = text.split("\n")
        for line in lines[:MAX_LOGGED_LINES]:
            logger.debug("%s: %s", side.value, safe_text(line, 512))
        if len(lines) > MAX_LOGGED_LINES:
            logger.debug("%s: … %d more lines", side.value, len(lines) - MAX_LOGGED_LINES)
        if trace is not None:
            trace(side, text, tls=tls, refused=refused)

    return both
