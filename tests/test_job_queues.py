"""The examples of job queues: procrastinate in the ledger's database, and Celery on a real broker."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.interop.postfix import free_ports
from tests.interop.postgres import Postgres
from tests.interop.requiring import required
from tests.kill.judging import PAUSE, copies, judge
from tests.kill.processes import Campaign, OracleProcess, kill, left, oracle, wait_for

EXAMPLES = Path(__file__).parent.parent / "examples"
NAME, ROWS, SESSIONS = "campaign/campaign.toml", 2500, 5
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@contextmanager
def example(folder: Path, postgres: Postgres, **variables: str) -> Iterator[tuple[Campaign, OracleProcess, Example]]:
    with oracle(folder / "oracle", "--pause", PAUSE) as server:
        campaign = Campaign(folder / "campaign", ROWS, server.port, sessions=SESSIONS, ledger=postgres.url)
        running = Example(folder, {"ASYNCSMTP_LEDGER": postgres.url, "CAMPAIGNS": str(folder), **variables})
        try:
            yield campaign, server, running
        except AssertionError:
            print((folder / "log").read_text()[-6000:] if (folder / "log").exists() else "")
            raise
        finally:
            for process in running.processes:
                kill(process)


class Example:
    """Runs commands with an example in the path, and its environment."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = {**os.environ, **variables, "PYTHONPATH": str(EXAMPLES)}
        self.processes: list[subprocess.Popen[bytes]] = []

    def run(self, *words: str, typed: str = "") -> str:
        command = [sys.executable, *words]
        done = subprocess.run(
            command,
            env=self.environment,
            cwd=self.folder,
            input=typed,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *words],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process


def test_the_example_of_procrastinate(tmp_path: Path, postgres: Postgres) -> None:
    """The commands of its docstring."""
    clean = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"
    postgres.execute(clean)
    with example(tmp_path, postgres) as (campaign, server, running):
        command = ("-m", "procrastinate", "--app=procrastinate_app.app")
        running.run(*command, "schema", "--apply")
        assert running.run(str(EXAMPLES / "procrastinate_app.py"), NAME) == f"{ROWS} pending\n"
        worker = running.start(*command, "worker", "--concurrency=2", "--shutdown-graceful-timeout=1")
        wait_for(lambda: not left(postgres), 100)
        judge(campaign, server)
        shown = running.run(*command, "shell", typed="list_jobs\n")
        assert "asyncsmtp.work on asyncsmtp - [succeeded]" in shown
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
        assert (
            running.run(str(EXAMPLES / "procrastinate_app.py"), NAME)
            == f"{ROWS * 9 // 10} accepted, {ROWS // 10} rejected\n"
        )
    postgres.execute(clean)


@pytest.fixture
def redis() -> Iterator[str]:
    """A Redis of the test's own, on a free port; its URL."""
    program = shutil.which("redis-server")
    required(None if program else "there is no Redis (Debian: redis-server)")
    assert program is not None
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="asyncsmtp-redis-") as folder:
        command = [
            program,
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            folder,
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as server:
            try:
                yield f"redis://127.0.0.1:{port}/0"
            finally:
                server.kill()


@pytest.mark.interop
@pytest.mark.kill
def test_the_example_of_celery(tmp_path: Path, postgres: Postgres, redis: str) -> None:
    """A worker is killed in the middle, and another one goes on; a task too many does nothing."""
    variables = {"BROKER": redis, "ROWS": "1000", "LEASE": "3"}
    with example(tmp_path, postgres, **variables) as (campaign, server, running):
        assert running.run(str(EXAMPLES / "celery_app.py"), NAME) == f"{ROWS} pending\n"
        (tmp_path / "campaign" / "people.csv").rename(tmp_path / "people.csv")  # no task needs it
        command = ("-m", "celery", "--app=celery_app", "worker", "--concurrency=1", "--loglevel=INFO")
        one = running.start(*command, "--hostname=one@localhost")
        running.start(*command, "--hostname=two@localhost")
        wait_for(lambda: len(server.verdicts()) > 300, 100)
        assert kill(one)
        wait_for(lambda: not left(postgres), 100)
        judge(campaign, server)
        counts = campaign.counts()
        assert counts["pending"] == counts["sending"] == counts["deferred"] == 0
        assert counts["in doubt"] <= SESSIONS
        assert set(copies(server).values()) == {1}
        before = len(server.verdicts())
        (tmp_path / "people.csv").rename(tmp_path / "campaign" / "people.csv")
        running.run("-c", f"import celery_app; celery_app.work.delay({NAME!r}).id and None")  # a task too many
        wait_for(lambda: (tmp_path / "log").read_text().count("succeeded in") >= 3, 100)
        assert len(server.verdicts()) == before
