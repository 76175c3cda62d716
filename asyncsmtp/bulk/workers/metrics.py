"""Metrics of workers for Prometheus: what a process has done itself, and what the ledger knows of the whole campaign.

    metrics = WorkerMetrics()
    with serve_metrics("127.0.0.1", 9464, metrics.registry, CampaignMetrics(database)):
        await Worker(config, observer=metrics, watch=metrics.on_outcome).run()

The endpoint is served by threads of `prometheus_client`, and the figures of the ledger are read there, on a connection
of their own: nothing of it runs on the event loop that sends. They are read when they are asked for, at most once in
some seconds, and less often where reading takes long; an endpoint that nobody reads costs nothing.

*Several processes.* Each writes its own figures to files in a folder, as `prometheus_client` does where
PROMETHEUS_MULTIPROC_DIR names one; their parent adds them up (`ProcessMetrics`) and serves one endpoint for the host.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from asyncsmtp.bulk.ledger.interfaces import Claim, RowState, Settlement
from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.bulk.ledger.postgres.worker_session import CampaignState, WorkerObserver
from asyncsmtp.bulk.workers.control import CampaignFigures, read_figures
from asyncsmtp.client.config.hostport import parse_host_port
from asyncsmtp.errors import InvalidArgument, LedgerError, MissingDependency
from asyncsmtp.protocol.replies import safe_text

try:
    from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
    from prometheus_client.metrics_core import GaugeMetricFamily, Metric
    from prometheus_client.multiprocess import MultiProcessCollector
    from prometheus_client.registry import Collector
except ImportError:
    raise MissingDependency("serving metrics", "asyncsmtp[metrics]") from None

__all__ = ["CampaignMetrics", "ProcessMetrics", "WorkerMetrics", "parse_address", "serve_metrics"]

READ_INTERVAL = 5.0  # seconds from one reading of the ledger to the next, at least
READ_SHARE = 0.05  # of the time, at most, that is spent reading it
READ_TIMEOUT = 3.0  # seconds; a scrape gets no figures of a ledger that takes longer
COMMIT_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


def parse_address(text: str) -> tuple[str, int]:
    """Parse `127.0.0.1:9464`, `[::1]:9464` or `name:9464`; port 0 is any free one.

    Raises:
        InvalidArgument: it is not a host and a port.
    """
    try:
        host, port = parse_host_port(f"{text[:-1]}1" if text.endswith(":0") else text)
    except InvalidArgument:
        host, port = "", None
    if not host or port is None:
        raise InvalidArgument(f"“{safe_text(text, 60)}” is not an address and a port: give one such as 127.0.0.1:9464")
    return host, 0 if text.endswith(":0") else port


class WorkerMetrics(WorkerObserver):
    """The counters of the workers of this process, since it started.

    Attributes:
        registry: that has the figures.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._outcomes = Counter(
            "asyncsmtp_worker_outcomes", "Outcomes of rows, by their new state.", ["state"], registry=registry
        )
        self._commits = Histogram(
            "asyncsmtp_worker_commit_seconds",
            "Duration of transactions of the ledger, outages included.",
            buckets=COMMIT_BUCKETS,
            registry=registry,
        )
        self._reaped = Counter(
            "asyncsmtp_worker_reaped", "Workers that this one fenced, since their leases had passed.", registry=registry
        )
        self._reaped_rows = Counter(
            "asyncsmtp_worker_reaped_rows", "Rows that are in doubt since then.", registry=registry
        )
        self._fenced = Counter(
            "asyncsmtp_worker_fenced", "Times that another worker fenced this one.", registry=registry
        )
        self._waits = Counter("asyncsmtp_worker_rate_waits", "Messages that had to wait for a rate.", registry=registry)
        self._wait_seconds = Counter(
            "asyncsmtp_worker_rate_wait_seconds", "Seconds that messages had to wait for rates.", registry=registry
        )

    def on_outcome(self, claim: Claim, settlement: Settlement) -> None:
        """Count an outcome."""
        self._outcomes.labels(str(settlement.state)).inc()

    def on_commit(self, seconds: float) -> None:
        self._commits.observe(seconds)

    def on_reap(self, rows: int) -> None:
        self._reaped.inc()
        self._reaped_rows.inc(rows)

    def on_fenced(self) -> None:
        self._fenced.inc()

    def on_rate_wait(self, seconds: float) -> None:
        self._waits.inc()
        self._wait_seconds.inc(seconds)


class CampaignMetrics(Collector):
    """The gauges of a campaign, read from its ledger, for all its workers; any thread may collect them.

    Where the ledger cannot be read, `asyncsmtp_database_up` is 0 and the other figures are left out.
    """

    def __init__(
        self, database: Database, read: Callable[[Database], Awaitable[CampaignFigures]] = read_figures
    ) -> None:
        self._database = database
        self._read = read
        self._one_at_a_time = threading.Lock()
        self._figures: CampaignFigures | None = None
        self._seconds = 0.0
        self._next = 0.0

    def collect(self) -> Iterator[Metric]:
        """Yield the figures, read anew where the last ones are some seconds old."""
        with self._one_at_a_time:
            if time.monotonic() >= self._next:
                self._refresh()
            figures, seconds = self._figures, self._seconds
        yield self._gauge("asyncsmtp_database_up", "Whether the ledger could be read.", float(figures is not None))
        yield self._gauge("asyncsmtp_database_read_seconds", "Duration of reading these figures.", seconds)
        if figures is None:
            return
        state = {str(each): float(each is figures.state) for each in CampaignState}
        yield self._gauges("asyncsmtp_campaign_state", "State of the campaign: one of these is 1.", "state", state)
        rows = {str(each): float(figures.rows[each]) for each in RowState}
        yield self._gauges("asyncsmtp_campaign_rows", "Rows by state.", "state", rows)
        workers = {name: float(number) for name, number in figures.workers.items()}
        yield self._gauges(
            "asyncsmtp_campaign_workers", "Workers that are here, left, or were fenced.", "state", workers
        )
        batches = {name: float(number) for name, number in figures.batches.items()}
        yield self._gauges("asyncsmtp_campaign_batches", "Batches that are free, taken, or done.", "state", batches)
        if figures.idle is not None:
            yield self._gauge(
                "asyncsmtp_campaign_seconds_since_commit", "Seconds since the last commit of any worker.", figures.idle
            )
        yield self._gauge(
            "asyncsmtp_campaign_oldest_doubt_seconds",
            "Age of the oldest row in doubt; 0 where there is none.",
            figures.oldest_doubt or 0.0,
        )

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: to register it must not read the ledger."""
        return iter(())

    def _refresh(self) -> None:
        began = time.monotonic()
        try:
            self._figures = asyncio.run(self._read_within_time())  # in this thread: the loop that sends is another's
        except (LedgerError, TimeoutError):
            self._figures = None
        ended = time.monotonic()
        self._seconds = ended - began
        self._next = ended + max(READ_INTERVAL, self._seconds / READ_SHARE)

    async def _read_within_time(self) -> CampaignFigures:
        async with asyncio.timeout(READ_TIMEOUT):
            return await self._read(self._database)

    def _gauge(self, name: str, about: str, value: float) -> Metric:
        gauge = GaugeMetricFamily(name, about, labels=["campaign"])
        gauge.add_metric([self._database.campaign], value)
        return gauge

    def _gauges(self, name: str, about: str, label: str, values: dict[str, float]) -> Metric:
        gauge = GaugeMetricFamily(name, about, labels=["campaign", label])
        for each, value in values.items():
            gauge.add_metric([self._database.campaign, each], value)
        return gauge


class ProcessMetrics:
    """The counters of the workers of several processes, added up by their parent.

    Args:
        folder: where they write their figures.
    Attributes:
        registry: that has the figures.
    """

    def __init__(self, folder: Path) -> None:
        self.registry = CollectorRegistry()
        MultiProcessCollector(self.registry, path=str(folder))  # type: ignore[no-untyped-call]
        self._restarts = Counter(
            "asyncsmtp_worker_restarts", "Workers started again after a kill.", registry=self.registry
        )

    def on_restart(self) -> None:
        """Count a worker that was killed."""
        self._restarts.inc()


@contextmanager
def serve_metrics(host: str, port: int, registry: CollectorRegistry, campaign: CampaignMetrics) -> Iterator[int]:
    """Serve what a registry has, and the figures of the campaign, until the block ends; yield the port.

    Raises:
        InvalidArgument: the address cannot be used.
    """
    registry.register(campaign)
    try:
        server, thread = start_http_server(port, host, registry)
    except (OSError, OverflowError) as error:
        reason = (getattr(error, "strerror", "") or str(error)).lower()
        raise InvalidArgument(
            f"metrics cannot be served at {safe_text(host, 60)} port {port} ({safe_text(reason, 60)}): end the process"
            " that is there, or give another address"
        ) from error
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
