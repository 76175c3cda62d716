"""A campaign that the workers of procrastinate send: kills and freezes of them, kills of the database.

The long form, 100,000 rows with at least 100 kills, 30 freezes and 5 kills of the database:
`ASYNCSMTP_WORKER_KILLS=100 pytest tests/kill/test_procrastinate.py -s`.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.interop.postgres import Postgres
from tests.kill.judging import PAUSE, WORKER_SESSIONS, judge_workers, number_fenced, torment_workers
from tests.kill.processes import Campaign, OracleProcess, kill, left, oracle, signal_group, wait_for

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("ASYNCSMTP_WORKER_KILLS", "8"))
IS_LONG = KILLS >= 100
ROWS = 100_000 if IS_LONG else 5000
pytestmark = [pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(300 + 30 * KILLS)]


class Application:
    """Procrastinate's command for an application with one campaign; all its processes are killed on the way out."""

    def __init__(self, campaign: Campaign, postgres: Postgres) -> None:
        self.campaign = campaign
        self._environment = {
            **os.environ,
            "ASYNCSMTP_LEDGER": postgres.url,
            "CAMPAIGNS": str(campaign.folder.parent),
            "PYTHONPATH": str(ROOT),
        }
        self._workers: list[subprocess.Popen[bytes]] = []

    def run(self, *words: str, typed: str = "") -> str:
        done = subprocess.run(
            self._command(*words), env=self._environment, input=typed, capture_output=True, text=True, timeout=90
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def call(self, method: str) -> None:
        """Call a method of the jobs in a process of its own."""
        name = f"{self.campaign.folder.name}/campaign.toml"
        program = (
            "import asyncio; from tests.kill.procrastinate_app import app, jobs\n"
            f"async def main():\n  async with app.open_async(): print(await jobs.{method}({name!r}))\n"
            "asyncio.run(main())"
        )
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, done.stderr

    def start(self) -> subprocess.Popen[bytes]:
        with (self.campaign.folder / "stderr").open("ab") as stderr:
            worker = subprocess.Popen(
                self._command("worker", "--concurrency=1", "--shutdown-graceful-timeout=0.1"),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            )
        self._workers.append(worker)
        return worker

    def end(self) -> None:
        for worker in self._workers:
            if worker.poll() is None:
                signal_group(worker, signal.SIGCONT)
            kill(worker)

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "procrastinate", "--app=tests.kill.procrastinate_app.app", *words]


@contextmanager
def application(folder: Path, postgres: Postgres, *options: str) -> Iterator[tuple[Application, OracleProcess]]:
    postgres.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    with oracle(folder / "oracle", *options) as server:
        campaign = Campaign(folder / "campaign", ROWS, server.port, sessions=WORKER_SESSIONS, ledger=postgres.url)
        made = Application(campaign, postgres)
        try:
            made.run("schema", "--apply")
            made.call("load")
            yield made, server
        except AssertionError:
            print(campaign.complaints[-6000:])
            raise
        finally:
            made.end()
            postgres.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")


def test_chaos(tmp_path: Path, postgres: Postgres) -> None:
    """Workers are killed and frozen, the database is killed; the shell shows the jobs."""

    def enqueue() -> None:  # as a program does that looks after its campaigns; else lost jobs come after a minute
        app.call("enqueue")

    with application(tmp_path, postgres, "--pause", "0.1" if IS_LONG else "0.2") as (app, server):
        done, _ = torment_workers(postgres, random.Random(16), app.start, KILLS, look_after=enqueue)
        app.start()
        end = time.monotonic() + (600 if IS_LONG else 150)
        while left(postgres) and time.monotonic() < end:
            enqueue()
            time.sleep(2)
        fenced = number_fenced(postgres)
        print(dict(done), "fenced:", fenced, app.campaign.counts())
        assert done["kill"] >= KILLS * 0.8, done
        judge_workers(app.campaign, server, fenced=fenced)
        shown = app.run("shell", typed="list_tasks\nlist_jobs\n")
        assert "asyncsmtp.work" in shown
        assert "succeeded" in shown


def test_a_worker_that_is_ended_leaves_nothing_in_doubt(tmp_path: Path, postgres: Postgres) -> None:
    """SIGTERM: its job is there again, and another worker goes on with it."""
    with application(tmp_path, postgres, "--pause", PAUSE) as (app, server):
        first = app.start()
        wait_for(lambda: len(server.verdicts()) > 100, 90)
        first.send_signal(signal.SIGTERM)
        assert first.wait(60) == 0
        assert app.campaign.counts()["in doubt"] == app.campaign.counts()["sending"] == 0
        assert left(postgres)
        app.start()
        wait_for(lambda: not left(postgres), 90)
        judge_workers(app.campaign, server)
        assert len(server.verdicts()) == ROWS
