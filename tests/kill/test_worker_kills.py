"""Many workers over one ledger in PostgreSQL: kills and freezes of workers, kills of the database.

The long form, 100,000 rows with at least 100 kills, 30 freezes and 5 kills of the database:
`ASYNCSMTP_WORKER_KILLS=100 pytest tests/kill/test_worker_kills.py -k chaos`.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.interop.postgres import Postgres
from tests.kill.judging import LEASE, PAUSE, WORKER_SESSIONS, judge_workers, number_fenced, torment_workers
from tests.kill.processes import Campaign, OracleProcess, kill, oracle, signal_group, wait_for

KILLS = int(os.environ.get("ASYNCSMTP_WORKER_KILLS", "10"))
pytestmark = [pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(300 + 30 * KILLS)]


class Workers:
    """The workers of a campaign, each a process group of its own; all are killed on the way out."""

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *options: str, number: int = 1, lease: float = LEASE) -> list[subprocess.Popen[bytes]]:
        command = [*self.campaign._command("work", "--until-idle", "--lease", f"{lease:g}s", *options)]
        begun = []
        for _ in range(number):
            with (self.campaign.folder / "stderr").open("ab") as stderr:
                begun.append(
                    subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=stderr,
                        start_new_session=True,
                    )
                )
        self.processes += begun
        return begun

    def control(self, action: str, *options: str) -> str:
        words = [sys.executable, "-m", "asyncsmtp", "campaign", action, str(self.campaign.folder / "campaign.toml")]
        done = subprocess.run([*words, *options], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                signal_group(process, signal.SIGCONT)
            kill(process)


@contextmanager
def loaded(
    tmp_path: Path, postgres: Postgres, rows: int, *options: str, **settings: object
) -> Iterator[tuple[Workers, OracleProcess]]:
    with oracle(tmp_path / "oracle", *options) as server:
        campaign = Campaign(
            tmp_path / "campaign",
            rows,
            server.port,
            sessions=WORKER_SESSIONS,
            ledger=postgres.url,
            **settings,  # type: ignore[arg-type]
        )
        workers = Workers(campaign)
        try:
            workers.control("load")
            yield workers, server
        except AssertionError:
            print(campaign.complaints[-6000:])
            raise
        finally:
            workers.end()


def accepted(server: OracleProcess) -> int:
    return server.log.read_bytes().count(b"accepted ")


def test_two_workers_send_a_campaign_and_one_may_be_killed(tmp_path: Path, postgres: Postgres) -> None:
    with loaded(tmp_path, postgres, 3000, "--pause", PAUSE) as (workers, server):
        (tmp_path / "campaign" / "people.csv").rename(tmp_path / "people.csv")  # no worker needs it
        one, other = workers.start(number=2)
        wait_for(lambda: accepted(server) > 300, 60)
        signal_group(one, signal.SIGKILL)
        assert other.wait(90) == 1, workers.campaign.complaints
        judge_workers(workers.campaign, server, fenced=1)


def is_working(server: OracleProcess, more: int = 30) -> Callable[[], bool]:
    aim = accepted(server) + more
    return lambda: accepted(server) >= aim


def test_sigterm_leaves_no_doubt_and_others_have_the_rows_within_a_second(tmp_path: Path, postgres: Postgres) -> None:
    with loaded(tmp_path, postgres, 3000, "--pause", PAUSE) as (workers, server):
        first, *others = workers.start(number=2, lease=60)
        wait_for(is_working(server), 60)
        first.send_signal(signal.SIGTERM)
        assert first.wait(30) == 143
        assert postgres.execute(
            "SELECT count(*) FROM asyncsmtp.batch AS b JOIN asyncsmtp.worker AS w USING (run) WHERE w.gone <> 0"
        ) == [(0,)]
        for worker in others:
            assert worker.wait(90) == 1
        judge_workers(workers.campaign, server)


def test_a_killed_workers_rows_are_taken_over_within_one_and_a_half_leases(tmp_path: Path, postgres: Postgres) -> None:
    with loaded(tmp_path, postgres, 900, "--pause", "0.2") as (workers, server):
        first, _ = workers.start(number=2)
        wait_for(is_working(server), 60)
        time.sleep(LEASE)  # the other one is there for longer than its lease
        signal_group(first, signal.SIGKILL)
        taken = wait_for(lambda: number_fenced(postgres) == 1, 3 * LEASE)
        assert taken <= 1.5 * LEASE
        ((held,),) = postgres.execute(
            "SELECT count(*) FROM asyncsmtp.batch WHERE run = (SELECT run FROM asyncsmtp.worker WHERE gone = 2)"
        )
        assert held == 0


def test_pause_stops_all_within_a_second_and_resume_goes_on(tmp_path: Path, postgres: Postgres) -> None:
    with loaded(tmp_path, postgres, 3000, "--pause", PAUSE) as (workers, server):
        processes = workers.start(number=3)
        wait_for(is_working(server), 60)
        workers.control("pause")
        time.sleep(1)
        before = accepted(server)
        time.sleep(2)
        assert accepted(server) == before
        assert workers.campaign.counts()["sending"] == 0
        workers.control("resume")
        assert [process.wait(90) for process in processes] == [1, 1, 1]
        judge_workers(workers.campaign, server)


def test_cancel_ends_all_and_the_rest_stays_pending_until_a_start(tmp_path: Path, postgres: Postgres) -> None:
    with loaded(tmp_path, postgres, 3000, "--pause", PAUSE) as (workers, server):
        processes = workers.start(number=2)
        wait_for(is_working(server), 60)
        workers.control("cancel")
        assert [process.wait(30) for process in processes] == [2, 2]
        assert workers.campaign.counts()["pending"] > 0
        workers.control("start")
        (last,) = workers.start()
        assert last.wait(90) == 1
        judge_workers(workers.campaign, server)


def test_a_zombie_twice(tmp_path: Path, postgres: Postgres) -> None:
    """A is frozen, B takes over, A wakes; B is killed, C finishes."""
    with loaded(tmp_path, postgres, 1500, "--pause", "0.05") as (workers, server):
        (a,) = workers.start()
        wait_for(is_working(server), 60)
        signal_group(a, signal.SIGSTOP)
        (b,) = workers.start()
        wait_for(lambda: number_fenced(postgres) == 1, 10 * LEASE)
        wait_for(is_working(server), 60)
        signal_group(a, signal.SIGCONT)
        time.sleep(0.5)
        signal_group(b, signal.SIGKILL)
        (c,) = workers.start()
        assert [a.wait(90), c.wait(90)] == [1, 1]
        judge_workers(workers.campaign, server, fenced=2)


def test_a_database_that_is_away_for_two_leases_fences_nobody(tmp_path: Path, postgres: Postgres) -> None:
    with loaded(tmp_path, postgres, 3000, "--pause", PAUSE) as (workers, server):
        processes = workers.start(number=3)
        wait_for(is_working(server, 200), 60)
        postgres.kill()
        try:
            time.sleep(2 * LEASE)
        finally:
            postgres.start()
        assert [process.wait(90) for process in processes] == [1, 1, 1]
        assert number_fenced(postgres) == 0
        judge_workers(workers.campaign, server, in_doubt=0)
        assert "is away" in workers.campaign.complaints


def test_workers_wait_for_a_database_that_is_away_at_the_start(tmp_path: Path, postgres: Postgres) -> None:
    with loaded(tmp_path, postgres, 300) as (workers, server):
        postgres.kill()
        try:
            processes = workers.start(number=2)
            wait_for(lambda: workers.campaign.complaints.count("this worker waits for it") >= 2, 60)
        finally:
            postgres.start()
        assert [process.wait(60) for process in processes] == [1, 1]
        judge_workers(workers.campaign, server)


@pytest.mark.parametrize("to_all", [False, True], ids=["parent", "all"])
def test_several_processes_of_one_command_end_with_it(tmp_path: Path, postgres: Postgres, to_all: bool) -> None:
    """No row is in doubt, also where a service manager sends the signal to all, and the parent passes it on."""
    with loaded(tmp_path, postgres, 2000, "--pause", PAUSE) as (workers, server):
        (parent,) = workers.start("--processes", "3")
        wait_for(lambda: postgres.execute("SELECT count(*) FROM asyncsmtp.worker WHERE gone = 0") == [(3,)], 60)
        wait_for(is_working(server), 60)
        if to_all:
            signal_group(parent, signal.SIGTERM)
        else:
            parent.send_signal(signal.SIGTERM)
        assert parent.wait(30) == 143
        assert postgres.execute("SELECT count(*) FROM asyncsmtp.worker WHERE gone = 1") == [(3,)]
        (again,) = workers.start("--processes", "2")
        assert again.wait(90) == 1
        judge_workers(workers.campaign, server)


def test_chaos(tmp_path: Path, postgres: Postgres) -> None:
    """Workers are killed and frozen for two or three leases, the database is killed: nothing is lost or sent twice."""
    is_long = KILLS >= 100
    pause = "0.1" if is_long else "0.2"  # so that it lasts
    with loaded(tmp_path, postgres, 100_000 if is_long else 5000, "--pause", pause) as (workers, server):
        done, alive = torment_workers(postgres, random.Random(16), lambda: workers.start()[0], KILLS)
        (last,) = workers.start()
        assert last.wait(600 if is_long else 120) == 1, workers.campaign.complaints[-3000:]
        for process in alive:
            process.wait(120)
        fenced = number_fenced(postgres)
        print(dict(done), "fenced:", fenced, workers.campaign.counts())
        assert done["kill"] >= KILLS * 0.8, done
        assert fenced >= done["kill"] - 4  # the last ones may have had nothing that anybody waits for
        judge_workers(workers.campaign, server, fenced=fenced)
