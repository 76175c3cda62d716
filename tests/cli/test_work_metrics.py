"""`work --metrics`: one endpoint a command, also with several processes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cli.ended import Command
from tests.interop.postgres import Postgres
from tests.kill.processes import Campaign, OracleProcess, oracle, wait_for

ROWS = 1500
Figures = Mapping[tuple[str, str], float]


@contextmanager
def loaded(folder: Path, postgres: Postgres, *options: str) -> Iterator[tuple[Campaign, OracleProcess]]:
    with oracle(folder / "oracle", *options) as server:
        campaign = Campaign(folder / "campaign", ROWS, server.port, sessions=4, ledger=postgres.url)
        control(campaign, "load")
        yield campaign, server


def control(campaign: Campaign, action: str) -> None:
    words = [sys.executable, "-m", "asyncsmtp", "campaign", action, str(campaign.folder / "campaign.toml")]
    subprocess.run(words, capture_output=True, check=True, timeout=60)


class Working:
    """`work --metrics` in a process of its own; whatever happens, it and its children are killed at the end."""

    def __init__(self, campaign: Campaign, *options: str) -> None:
        self.process = subprocess.Popen(
            campaign._command("work", "--lease", "2s", "--metrics", "127.0.0.1:0", *options),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.address = ""
        self.printed: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait_for(lambda: bool(self.address) or self.process.poll() is not None)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.printed.append(line)
            if found := re.match(r"metrics: (http://\S+)", line):
                self.address = found[1]

    def scrape(self) -> Figures:
        with urllib.request.urlopen(self.address, timeout=20) as answer:
            text = answer.read().decode()
        return {
            (sample.name, " ".join(value for name, value in sample.labels.items() if name != "campaign")): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def children(self) -> list[int]:
        pid = self.process.pid
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def __enter__(self) -> Working:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)
        self._reader.join(20)
        assert self.process.stderr is not None
        self.process.stderr.close()


def settled(figures: Figures) -> float:
    return sum(value for (name, _), value in figures.items() if name == "asyncsmtp_worker_outcomes_total")


@pytest.mark.slow
def test_one_endpoint_serves_the_figures_of_all_processes(tmp_path: Path, postgres: Postgres) -> None:
    """Those of a process that was killed stay counted; it is started again, and the lost one is fenced by the other."""
    with (
        loaded(tmp_path, postgres, "--pause", "0.05") as (campaign, server),
        Working(campaign, "--processes", "2") as working,
    ):
        wait_for(lambda: len(server.verdicts()) > 100)
        first = working.scrape()
        assert first["asyncsmtp_database_up", ""] == 1
        assert first["asyncsmtp_campaign_state", "running"] == 1
        assert first["asyncsmtp_campaign_batches", "taken"] == 2
        assert first["asyncsmtp_campaign_rows", "pending"] > 0
        control(campaign, "pause")
        wait_for(lambda: campaign.counts()["sending"] == 0 and settled(working.scrape()) == len(server.verdicts()))
        done = settled(working.scrape())
        os.kill(working.children()[0], signal.SIGKILL)
        wait_for(lambda: working.scrape()["asyncsmtp_worker_reaped_total", ""] == 1)
        wait_for(lambda: len(working.children()) == 2)
        figures = working.scrape()
        assert figures["asyncsmtp_worker_restarts_total", ""] == 1
        assert settled(figures) == done
        assert figures["asyncsmtp_worker_commit_seconds_count", ""] > 20
        wait_for(lambda: working.scrape()["asyncsmtp_campaign_workers", "fenced"] == 1)
        wait_for(lambda: working.scrape()["asyncsmtp_campaign_state", "paused"] == 1)
        control(campaign, "resume")
        assert working.process.wait(50) == 1  # the rejected ones
    assert campaign.counts()["accepted"] == ROWS * 9 / 10
    assert re.search(r"worker \d was killed by SIGKILL", "".join(working.printed))


@pytest.mark.slow
def test_a_slow_scrape_does_not_hold_up_what_is_sent(tmp_path: Path, postgres: Postgres) -> None:
    """While the figures are read the tables are locked: the reading waits, and gives up, and the workers go on."""
    with loaded(tmp_path, postgres, "--pause", "0.05") as (campaign, server), Working(campaign) as working:
        wait_for(lambda: len(server.verdicts()) > 50)
        import psycopg

        with psycopg.connect(postgres.url) as connection:
            connection.execute("LOCK TABLE asyncsmtp.suppressed, asyncsmtp.version IN ACCESS EXCLUSIVE MODE")
            before, began = len(server.verdicts()), time.monotonic()
            figures = working.scrape()
            assert time.monotonic() - began >= 2
            assert figures["asyncsmtp_database_up", ""] == 0
            assert figures["asyncsmtp_worker_outcomes_total", "accepted"] > 0
            assert len(server.verdicts()) > before
        working.process.send_signal(signal.SIGTERM)
        assert working.process.wait(40) in (0, 1, 143)


@pytest.mark.parametrize("address", ["9464", "localhost", "nowhere:x"])
def test_an_address_that_is_none_is_refused(command: Command, campaign: Path, address: str) -> None:
    ended = command("work", campaign, "--ledger", "postgresql://127.0.0.1:1/none", "--metrics", address)
    assert ended.code == 2
    assert f"--metrics: “{address}” is not an address and a port: give one such as 127.0.0.1:9464" in ended.sentence


@pytest.mark.parametrize("processes", [(), ("--processes", "2")])
def test_a_port_that_is_taken_is_refused(command: Command, campaign: Path, processes: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = command("work", campaign, "--ledger", "postgresql://127.0.0.1:1/none", "--metrics", address, *processes)
    assert ended.code == 2
    assert "metrics cannot be served at 127.0.0.1 port" in ended.sentence


def test_the_extra_is_named_where_it_is_missing(
    command: Command, campaign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "asyncsmtp.bulk.workers.metrics", raising=False)
    ended = command("work", campaign, "--ledger", "postgresql://127.0.0.1:1/none", "--metrics", "127.0.0.1:0")
    assert ended.code != 0
    assert "serving metrics needs packages that are not installed: pip install 'asyncsmtp[metrics]'" in ended.sentence
