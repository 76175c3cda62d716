"""OpenTelemetry metrics and spans made from events (extra `otel`, which installs the API package only).

    async with Pool(relay, on_event=Telemetry()) as pool: ...

Without a configured SDK the API does nothing, at little cost.

docs/howto/observing.md lists the instruments. A span `send` stands for each message, below the span that is current
where `send` was called.
"""

from __future__ import annotations

from collections import Counter
from time import time_ns

from asyncsmtp.client.events import types as events
from asyncsmtp.errors import MissingDependency

try:
    from opentelemetry import metrics, trace
except ImportError as error:
    raise MissingDependency("OpenTelemetry", "asyncsmtp[otel]") from error

__all__ = ["Telemetry"]

SCOPE = "asyncsmtp"
Attributes = dict[str, str | int]


class Telemetry:
    """A callback for `on_event=` that counts events; one serves any number of pools and sessions.

    Args:
        meters, tracers: providers of the instruments; None for the global ones.
    """

    def __init__(
        self, *, meters: metrics.MeterProvider | None = None, tracers: trace.TracerProvider | None = None
    ) -> None:
        meter = metrics.get_meter(SCOPE, meter_provider=meters)
        self._tracer = trace.get_tracer(SCOPE, tracer_provider=tracers)
        self._sessions = meter.create_up_down_counter("smtp.client.sessions", "{session}", "open now")
        self._session_time = meter.create_histogram("smtp.client.session.duration", "s", "from open to closed")
        self._failures = meter.create_counter("smtp.client.session.failures", "{session}", "did not come to be")
        self._limit = meter.create_gauge("smtp.client.session.limit", "{session}", "a pool may have now")
        self._waiting = meter.create_up_down_counter("smtp.client.messages.waiting", "{message}", "wait for a session")
        self._time = meter.create_histogram("smtp.client.message.duration", "s", "from the call of send to its end")
        self._wait = meter.create_histogram("smtp.client.message.wait", "s", "until a session was free")
        self._size = meter.create_histogram("smtp.client.message.size", "By", "of the content")
        self._retries = meter.create_counter("smtp.client.message.retries", "{message}", "sent again at once")
        self._recipients = meter.create_counter("smtp.client.recipients", "{recipient}", "by outcome")

    def __call__(self, event: events.Event) -> None:
        """Count one event."""
        where: Attributes = {"server.address": event.host}
        match event:
            case events.MessageEnded():
                self._ended(event, where)
            case events.MessageQueued():
                self._waiting.add(1, where)
            case events.MessageDequeued():
                self._waiting.add(-1, where)
                self._wait.record(event.seconds, where)
            case events.MessageRetried():
                self._retries.add(1, where)
            case events.SessionOpened():
                self._sessions.add(1, where)
            case events.SessionClosed():
                self._sessions.add(-1, where)
                self._session_time.record(event.seconds, where | _failure(event.error))
            case events.SessionFailed():
                self._failures.add(1, where | _failure(event.error) | _code(event.code))
            case events.PoolResized():
                self._limit.set(event.sessions, where)

    def _ended(self, event: events.MessageEnded, where: Attributes) -> None:
        result: Attributes = {**where, "smtp.result": event.result}
        self._time.record(event.seconds, result | _code(event.code))
        if event.octets is not None:
            self._size.record(event.octets, result)
        for outcome, number in Counter(event.outcomes).items():
            self._recipients.add(number, {**where, "smtp.outcome": outcome.value})
        end = time_ns()
        span = self._tracer.start_span(
            "send",
            kind=trace.SpanKind.CLIENT,
            start_time=end - round(event.seconds * 1e9),
            attributes={
                **result,
                **_code(event.code),
                **_failure(event.error),
                "smtp.recipients": event.recipients,
                **({"smtp.size": event.octets} if event.octets is not None else {}),
                "smtp.wait": event.waited,
            },
        )
        if event.result != "accepted":
            span.set_status(trace.StatusCode.ERROR, event.result)
        span.end(end)


def _failure(error: BaseException | None) -> Attributes:
    return {} if error is None else {"error.type": type(error).__name__}


def _code(code: int | None) -> Attributes:
    return {} if code is None else {"smtp.reply.code": code}
