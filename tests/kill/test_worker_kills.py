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
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.interop.postgres import Postgres, missing, running
from tests.interop.requiring import required
from tests.kill.judging import PAUSE, copies, judge
from tests.kill.processes import Campaign, OracleProcess, kill, oracle, wait_for

KILLS = int(os.environ.get("ASYNCSMTP_WORKER_KILLS", "10"))
LEASE = 3.0
SESSIONS = 10
pytestmark = [pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(300 + 30 * KILLS)]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    required(missing())
    with running() as postgres:
        yield postgres


@pytest.fixture
def postgres(server: Postgres) -> Postgres:
    server.start_again()
    server.clear()
    return server


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
                with_group(process, signal.SIGCONT)
            kill(process)


def with_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it has ended by itself
        os.killpg(process.pid, number)


@contextmanager
def loaded(
    tmp_path: Path, postgres: Postgres, rows: int, *options: str, **settings: object
) -> Iterator[tuple[Workers, OracleProcess]]:
    with oracle(tmp_path / "oracle", *options) as server:
        campaign = Campaign(
            tmp_path / "campaign",
            rows,
            server.port,
            sessions=SESSIONS,
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
        with_group(one, signal.SIGKILL)
        assert other.wait(90) == 1, workers.campaign.complaints
        judge(workers.campaign, server, workers=True)
        counts = workers.campaign.counts()
        assert counts["pending"] == counts["sending"] == counts["deferred"] == 0
        assert counts["in doubt"] <= SESSIONS
        assert set(copies(server).values()) == {1}


def judge_all(workers: Workers, server: OracleProcess, *, fenced: int = 0, in_doubt: int | None = None) -> None:
    """Nobody is lost, nobody got two, nobody is pending, and each answer is on its row, by its token."""
    judge(workers.campaign, server, workers=True)
    counts = workers.campaign.counts()
    assert counts["pending"] == counts["sending"] == counts["deferred"] == 0, counts
    assert counts["in doubt"] <= (SESSIONS * fenced if in_doubt is None else in_doubt), counts
    assert set(copies(server).values()) == {1}


def number_fenced(postgres: Postgres) -> int:
    ((number,),) = postgres.execute("SELECT count(*) FROM asyncsmtp.worker WHERE gone = 2")
    assert isinstance(number, int)
    return number


def pids_of_senders(postgres: Postgres) -> set[int]:
    """Return the processes that have a batch."""
    owners = postgres.execute(
        "SELECT DISTINCT owner FROM asyncsmtp.worker JOIN asyncsmtp.batch USING (campaign_id, run) WHERE gone = 0"
    )
    return {int(str(owner).split()[1]) for (owner,) in owners}


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
        judge_all(workers, server)


def test_a_killed_workers_rows_are_taken_over_within_one_and_a_half_leases(tmp_path: Path, postgres: Postgres) -> None:
    with loaded(tmp_path, postgres, 900, "--pause", "0.2") as (workers, server):
        first, _ = workers.start(number=2)
        wait_for(is_working(server), 60)
        time.sleep(LEASE)  # the other one is there for longer than its lease
        with_group(first, signal.SIGKILL)
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
        judge_all(workers, server)


def test_cancel_ends_all_and_the_rest_stays_pending_until_a_start(tmp_path: Path, postgres: Postgres) -> None:
    with loaded(tmp_path, postgres, 3000, "--pause", PAUSE) as (workers, server):
        processes = workers.start(number=2)
        wait_for(is_working(server), 60)
        workers.control("cancel")
        assert [process.wait(30) for process in processes] == [75, 75]
        assert workers.campaign.counts()["pending"] > 0
        workers.control("start")
        (last,) = workers.start()
        assert last.wait(90) == 1
        judge_all(workers, server)


def test_a_zombie_twice(tmp_path: Path, postgres: Postgres) -> None:
    """A is frozen, B takes over, A wakes; B is killed, C finishes."""
    with loaded(tmp_path, postgres, 1500, "--pause", "0.05") as (workers, server):
        (a,) = workers.start()
        wait_for(is_working(server), 60)
        with_group(a, signal.SIGSTOP)
        (b,) = workers.start()
        wait_for(lambda: number_fenced(postgres) == 1, 10 * LEASE)
        wait_for(is_working(server), 60)
        with_group(a, signal.SIGCONT)
        time.sleep(0.5)
        with_group(b, signal.SIGKILL)
        (c,) = workers.start()
        assert [a.wait(90), c.wait(90)] == [1, 1]
        judge_all(workers, server, fenced=2)


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
        judge_all(workers, server, in_doubt=0)
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
        judge_all(workers, server)


def test_several_processes_of_one_command_end_with_it(tmp_path: Path, postgres: Postgres) -> None:
    with loaded(tmp_path, postgres, 2000, "--pause", PAUSE) as (workers, server):
        (parent,) = workers.start("--processes", "3")
        wait_for(lambda: postgres.execute("SELECT count(*) FROM asyncsmtp.worker WHERE gone = 0") == [(3,)], 60)
        wait_for(is_working(server), 60)
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(30) == 143
        assert postgres.execute("SELECT count(*) FROM asyncsmtp.worker WHERE gone = 1") == [(3,)]
        (again,) = workers.start("--processes", "2")
        assert again.wait(90) == 1
        judge_all(workers, server)


def test_chaos(tmp_path: Path, postgres: Postgres) -> None:
    """Workers are killed and frozen for two or three leases, the database is killed: nothing is lost or sent twice."""
    chance = random.Random(16)
    is_long = KILLS >= 100
    freezes, crashes = (KILLS * 3 // 10, max(1, KILLS // 20))
    pause = "0.1" if is_long else "0.2"  # so that it lasts
    with loaded(tmp_path, postgres, 100_000 if is_long else 5000, "--pause", pause) as (workers, server):
        alive = workers.start(number=4)
        todo = [*["kill"] * KILLS, *["freeze"] * freezes, *["crash"] * crashes]
        chance.shuffle(todo)
        frozen: list[tuple[float, subprocess.Popen[bytes]]] = []
        done: Counter[str] = Counter()
        while todo or frozen:
            for item in [item for item in frozen if item[0] <= time.monotonic()]:
                with_group(item[1], signal.SIGCONT)
                frozen.remove(item)
            still = {process for _, process in frozen}
            alive = [process for process in alive if process.poll() is None]
            alive += workers.start(number=4 - len(alive))
            sending = pids_of_senders(postgres)
            candidates = [process for process in alive if process not in still and process.pid in sending]
            if postgres.execute("SELECT count(*) FROM asyncsmtp.batch WHERE NOT done") == [(0,)]:
                break
            time.sleep(chance.uniform(0.1, 0.6))
            candidates = [process for process in candidates if process.poll() is None]
            if not todo or not candidates or len(still) > 2:
                continue
            action, victim = todo.pop(), chance.choice(candidates)
            done[action] += 1
            if action == "kill":
                assert kill(victim)
            elif action == "freeze":
                with_group(victim, signal.SIGSTOP)
                frozen.append((time.monotonic() + chance.uniform(2, 3) * LEASE, victim))
            else:
                postgres.kill(all_at_once=chance.random() < 0.5)
                time.sleep(chance.uniform(0.0, 1.0))
                postgres.start()
        for _, process in frozen:
            with_group(process, signal.SIGCONT)
        (last,) = workers.start()
        assert last.wait(600 if is_long else 120) == 1, workers.campaign.complaints[-3000:]
        for process in alive:
            process.wait(120)
        print(done, number_fenced(postgres), workers.campaign.counts())
        assert done["kill"] >= KILLS * 0.8, done
        assert number_fenced(postgres) >= done["kill"] - 4  # the last ones may have had nothing that anybody waits for
        judge_all(workers, server, fenced=number_fenced(postgres))
