"""Metrics for Prometheus: what they say, what reading them may cost, and the dashboard that shows them."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from asyncsmtp.bulk.campaign import Campaign
from asyncsmtp.bulk.ledger.interfaces import RowState
from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.bulk.ledger.postgres.worker_session import CampaignState
from asyncsmtp.bulk.workers import metrics as module
from asyncsmtp.bulk.workers.control import CampaignFigures
from asyncsmtp.bulk.workers.metrics import CampaignMetrics, ProcessMetrics, WorkerMetrics, parse_address, serve_metrics
from asyncsmtp.bulk.workers.work import Worker
from asyncsmtp.errors import InvalidArgument, LedgerError
from asyncsmtp.testing import ScriptedRelay
from tests.interop.postgres import Postgres

DASHBOARD = Path(__file__).parents[3] / "examples" / "deploy" / "grafana-dashboard.json"
NOWHERE = Database("postgresql://127.0.0.1:1/none", "news")
FIGURES = CampaignFigures(
    CampaignState.RUNNING,
    dict.fromkeys(RowState, 0) | {RowState.ACCEPTED: 7, RowState.IN_DOUBT: 1},
    {"here": 2, "left": 0, "fenced": 1},
    {"free": 3, "taken": 2, "done": 4},
    0.5,
    60.0,
)

Samples = Mapping[tuple[str, str], float]


def scrape(port: int) -> Samples:
    """Read an endpoint as Prometheus does: the name and the label besides the campaign -> value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    return {
        (sample.name, " ".join(value for name, value in sample.labels.items() if name != "campaign")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Reading:
    """Stands for reading the ledger."""

    def __init__(self, *, seconds: float = 0.0, fails: bool = False) -> None:
        self.seconds, self.fails, self.number = seconds, fails, 0

    async def __call__(self, database: Database) -> CampaignFigures:
        self.number += 1
        await asyncio.sleep(self.seconds)
        if self.fails:
            raise LedgerError("it is away")
        return FIGURES


@contextmanager
def endpoint(reading: Reading) -> Iterator[tuple[int, WorkerMetrics]]:
    metrics = WorkerMetrics()
    with serve_metrics("127.0.0.1", 0, metrics.registry, CampaignMetrics(NOWHERE, reading)) as port:
        yield port, metrics


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:9464", "127.0.0.1", 9464), ("[::1]:80", "::1", 80), ("localhost:0", "localhost", 0)],
)
def test_an_address_is_a_host_and_a_port(text: str, host: str, port: int) -> None:
    assert parse_address(text) == (host, port)


@pytest.mark.parametrize(
    "text",
    ["", "9464", ":9464", "localhost", "::1:9464", "a:b", "a:70000", "http://a:1", "a:1/x", "a:-1", ":0", "x\n:1"],
)
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"is not an address and a port: give one such as 127\.0\.0\.1:9464"):
        parse_address(text)


def test_the_figures_of_the_ledger_and_of_the_process_are_served() -> None:
    with endpoint(Reading()) as (port, metrics):
        metrics.on_commit(0.004)
        metrics.on_reap(3)
        metrics.on_fenced()
        metrics.on_rate_wait(0.25)
        seen = scrape(port)
    assert seen["asyncsmtp_database_up", ""] == 1
    assert seen["asyncsmtp_campaign_state", "running"] == 1
    assert seen["asyncsmtp_campaign_state", "paused"] == 0
    assert seen["asyncsmtp_campaign_rows", "accepted"] == 7
    assert seen["asyncsmtp_campaign_rows", "pending"] == 0
    assert seen["asyncsmtp_campaign_workers", "fenced"] == 1
    assert {name: seen["asyncsmtp_campaign_batches", name] for name in ("free", "taken", "done")} == FIGURES.batches
    assert seen["asyncsmtp_campaign_seconds_since_commit", ""] == 0.5
    assert seen["asyncsmtp_campaign_oldest_doubt_seconds", ""] == 60
    assert seen["asyncsmtp_worker_commit_seconds_bucket", "0.005"] == 1
    assert seen["asyncsmtp_worker_reaped_total", ""] == 1
    assert seen["asyncsmtp_worker_reaped_rows_total", ""] == 3
    assert seen["asyncsmtp_worker_fenced_total", ""] == 1
    assert (seen["asyncsmtp_worker_rate_waits_total", ""], seen["asyncsmtp_worker_rate_wait_seconds_total", ""]) == (
        1,
        0.25,
    )


def test_the_ledger_is_read_for_a_scrape_and_not_for_each() -> None:
    reading = Reading()
    with endpoint(reading) as (port, _):
        assert reading.number == 0
        threads = [threading.Thread(target=scrape, args=(port,)) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert reading.number == 1


def test_a_ledger_that_takes_long_is_read_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of ten million rows: counting them all the time would be the most that the database does."""
    monkeypatch.setattr(module, "READ_INTERVAL", 0.01)
    reading = Reading(seconds=0.2)
    campaign = CampaignMetrics(NOWHERE, reading)
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        list(campaign.collect())
    assert reading.number == 1  # a twentieth of the time: the second one comes after four seconds


@pytest.mark.parametrize("reading", [Reading(fails=True), Reading(seconds=60)], ids=["fails", "hangs"])
def test_a_ledger_that_is_away_leaves_the_figures_of_the_process(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read before is not served as if it were so now."""
    monkeypatch.setattr(module, "READ_TIMEOUT", 0.2)
    with endpoint(reading) as (port, metrics):
        metrics.on_fenced()
        seen = scrape(port)
    assert seen["asyncsmtp_database_up", ""] == 0
    assert seen["asyncsmtp_worker_fenced_total", ""] == 1
    assert [name for name, _ in seen if name.startswith("asyncsmtp_campaign")] == []


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(InvalidArgument, match=f"metrics cannot be served at 127.0.0.1 port {port} .address already"),
            serve_metrics("127.0.0.1", port, WorkerMetrics().registry, CampaignMetrics(NOWHERE)),
        ):
            pytest.fail("it must not begin")


def test_an_address_of_another_machine_is_refused() -> None:
    with (
        pytest.raises(InvalidArgument, match=r"cannot be served at 192\.0\.2\.1 port 9464"),
        serve_metrics("192.0.2.1", 9464, WorkerMetrics().registry, CampaignMetrics(NOWHERE)),
    ):
        pytest.fail("it must not begin")


def test_the_extra_is_named_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "asyncsmtp.bulk.workers.metrics")
    with pytest.raises(ImportError, match=re.escape("pip install 'asyncsmtp[metrics]'")):
        __import__("asyncsmtp.bulk.workers.metrics")


async def test_a_worker_is_measured_over_a_real_ledger(postgres: Postgres, tmp_path: Path) -> None:
    """Rows that wait for a rate, outcomes, commits; and the ledger's own count of them."""
    (tmp_path / "people.csv").write_text("email\n" + "".join(f"a{row}@example.org\n" for row in range(40)))
    async with ScriptedRelay() as relay:
        campaign = Campaign(
            recipients=tmp_path / "people.csv",
            name="news",
            from_="news@example.org",
            subject="News",
            text="News.",
            relay=f"smtp://127.0.0.1:{relay.port}?security=none",
            ledger=postgres.url,
            rate="40/s",
            folder=tmp_path,
        )
        await campaign.load()
        metrics = WorkerMetrics()
        await Worker(campaign.config, until_idle=True, watch=metrics.on_outcome, observer=metrics).run()
    with serve_metrics("127.0.0.1", 0, metrics.registry, CampaignMetrics(Database(postgres.url, "news"))) as port:
        seen = await asyncio.to_thread(scrape, port)
    assert seen["asyncsmtp_campaign_rows", "accepted"] == seen["asyncsmtp_worker_outcomes_total", "accepted"] == 40
    assert seen["asyncsmtp_campaign_batches", "done"] == 1
    assert seen["asyncsmtp_campaign_workers", "left"] == 1
    assert 0 <= seen["asyncsmtp_campaign_seconds_since_commit", ""] < 60
    assert seen["asyncsmtp_campaign_oldest_doubt_seconds", ""] == 0
    assert seen["asyncsmtp_worker_commit_seconds_count", ""] >= 5
    assert seen["asyncsmtp_worker_rate_waits_total", ""] >= 20
    assert 0.5 < seen["asyncsmtp_worker_rate_wait_seconds_total", ""] < 60


def exported(tmp_path: Path) -> set[str]:
    """Return the names of all samples."""
    metrics, processes = WorkerMetrics(), ProcessMetrics(tmp_path)
    collectors = (metrics.registry, processes.registry, CampaignMetrics(NOWHERE, Reading()))
    families = [family for each in collectors for family in each.collect()]
    names = {sample.name for family in families for sample in family.samples}
    names |= {f"{family.name}_total" for family in families if family.type == "counter"}
    return {name for name in names if not name.endswith("_created")}


def test_the_dashboard_shows_what_is_exported(tmp_path: Path) -> None:
    """Each name in it is one that is served, and each that is served is in it."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    used = {name for each in expressions for name in re.findall(r"asyncsmtp_\w+", each)}
    names = exported(tmp_path)
    assert used <= names
    parts = {"asyncsmtp_worker_commit_seconds_count", "asyncsmtp_worker_commit_seconds_sum"}
    assert names - used - parts == set()
    assert all(panel["title"] and panel["gridPos"] for panel in dashboard["panels"])
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
