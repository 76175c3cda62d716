"""Events as OpenTelemetry's metrics and spans, read back from its own SDK."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from asyncsmtp.client.events.otel import Telemetry
from asyncsmtp.client.sending import send
from asyncsmtp.errors import ConnectFailed, DeliveryInDoubt
from asyncsmtp.testing import DEFAULT_REPLY, NO_REPLY, Fin, ScriptedRelay, Stage, Wait
from tests.client.support import message, pooling, relay_of

pytestmark = pytest.mark.usefixtures("nothing_leaks")


@dataclass
class Kit:
    """An observer, and what has become of what it was told."""

    reader: InMemoryMetricReader = field(default_factory=InMemoryMetricReader)
    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)

    def __post_init__(self) -> None:
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.telemetry = Telemetry(meters=self.meters, tracers=self.tracers)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def points(self) -> dict[str, dict[tuple[object, ...], float]]:
        """By instrument and attributes but the address: the value, or how many were recorded."""
        data = self.reader.get_metrics_data()
        found: dict[str, dict[tuple[object, ...], float]] = {}
        for metric in (m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics):
            for point in metric.data.data_points:
                key = tuple(value for name, value in sorted(point.attributes.items()) if name != "server.address")
                found.setdefault(metric.name, {})[key] = getattr(point, "value", getattr(point, "count", None))
        return found


@pytest.fixture
def kit() -> Iterator[Kit]:
    made = Kit()
    yield made
    made.meters.shutdown()
    made.tracers.shutdown()


async def test_messages_sessions_and_recipients_are_counted(kit: Kit) -> None:
    script = {Stage.RCPT: {3: "550 5.1.1 no"}, Stage.END_OF_DATA: {5: (NO_REPLY, Fin())}}
    pool = {"sessions": 1, "depth": 1, "on_event": kit.telemetry}
    async with pooling(script, pool=pool) as (_, made):  # type: ignore[arg-type]
        results = await asyncio.gather(*(made.send(message(n)) for n in range(8)), return_exceptions=True)
        assert sum(isinstance(result, DeliveryInDoubt) for result in results) == 1
        assert kit.points()["smtp.client.sessions"] == {(): 1}
    points = kit.points()
    assert points["smtp.client.sessions"] == {(): 0}
    assert points["smtp.client.messages.waiting"] == {(): 0}
    assert points["smtp.client.message.wait"] == {(): 7}
    assert points["smtp.client.message.duration"] == {(550, "rejected"): 1, ("accepted",): 6, ("in doubt",): 1}
    assert points["smtp.client.recipients"] == {("rejected",): 1, ("accepted",): 6, ("in doubt",): 1}
    assert points["smtp.client.session.duration"] == {(): 1, ("ConnectionLost",): 1}
    assert points["smtp.client.message.size"] == {("rejected",): 1, ("accepted",): 6, ("in doubt",): 1}


async def test_a_pool_that_shrinks_and_a_session_that_fails_are_counted(kit: Kit) -> None:
    def crowded(_: object) -> str | None:
        return "421 4.7.0 too many" if server.open_connections > 2 else None

    pool = {"sessions": 3, "depth": 1, "on_event": kit.telemetry}
    async with pooling({Stage.GREETING: crowded, Stage.END_OF_DATA: (Wait(0.01), DEFAULT_REPLY)}, pool=pool) as (
        server,
        made,
    ):
        await asyncio.gather(*(made.send(message(n)) for n in range(9)))
        left = made.counts.allowed
    assert left < 3
    points = kit.points()
    assert points["smtp.client.session.limit"] == {(): left}
    assert points["smtp.client.session.failures"] == {("Refused", 421): 3 - left}
    assert points["smtp.client.message.retries"] == {(): 3 - left}


async def test_a_message_is_a_span_below_the_caller_s(kit: Kit, server: ScriptedRelay) -> None:
    with kit.tracers.get_tracer("test").start_as_current_span("order") as order:
        await send(message(), relay=relay_of(server), on_event=kit.telemetry)
    sent, above = kit.spans
    assert above.name == "order"
    assert (sent.name, sent.kind, sent.status.status_code) == ("send", SpanKind.CLIENT, StatusCode.UNSET)
    assert sent.parent is not None
    assert sent.parent.span_id == order.get_span_context().span_id
    assert sent.attributes is not None
    assert sent.attributes["smtp.result"] == "accepted"
    assert sent.attributes["server.address"] == str(relay_of(server))
    assert above.start_time <= sent.start_time + 1e6 < sent.end_time + 1e6  # type: ignore[operator]


async def test_a_message_that_failed_is_a_span_with_an_error(kit: Kit) -> None:
    script = {Stage.DATA: "554 5.6.0 no", Stage.GREETING: {2: Fin()}}
    async with pooling(script, pool={"sessions": 1, "messages": 1, "on_event": kit.telemetry}) as (_, pool):  # type: ignore[arg-type]
        await pool.send(message())
        with pytest.raises(ConnectFailed):
            await pool.send(message())
    refused, failed = kit.spans
    assert refused.attributes is not None
    assert failed.attributes is not None
    assert (refused.status.status_code, refused.attributes["smtp.reply.code"]) == (StatusCode.ERROR, 554)
    assert (failed.status.description, failed.attributes["error.type"]) == ("failed", "ConnectFailed")


async def test_without_a_set_up_sdk_it_does_nothing(server: ScriptedRelay) -> None:
    """The API's own providers take everything and keep nothing."""
    assert (await send(message(), relay=relay_of(server), on_event=Telemetry())).accepted


def test_without_the_extra_it_says_what_to_install() -> None:
    lacking = "import sys; sys.modules['opentelemetry'] = None; import asyncsmtp.client.events.otel"
    done = subprocess.run([sys.executable, "-c", lacking], capture_output=True, text=True, check=False)
    assert done.stderr.strip().endswith("ImportError: OpenTelemetry is not installed: pip install 'asyncsmtp[otel]'")
