"""A run over several processes through many kills, of the run's own and of those that send.

`ASYNCSMTP_KILLS=40 pytest tests/kill/test_processes.py`
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from tests.kill.judging import LINE, PAUSE, ROWS, SESSIONS, copies, judge
from tests.kill.processes import Campaign, OracleProcess, kill, list_children, oracle
from tests.kill.test_mutants import mutate

KILLS = int(os.environ.get("ASYNCSMTP_KILLS", "6"))  # for each of the tests; the long form is 40
pytestmark = [pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(120 + 10 * KILLS)]

PROCESSES = ("--processes", "3")


def wait_for_children(parent: int, *, gone: bool = False) -> list[int]:
    """Wait until the children of a process are there, or all of them gone; return them."""
    end = time.monotonic() + 20
    while bool(found := list_children(parent)) is gone:
        assert time.monotonic() < end, found
        time.sleep(0.01)
    return found


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_for_death(pids: list[int]) -> float:
    """Return the seconds until none of these processes is there."""
    began = time.monotonic()
    while any(map(is_alive, pids)):
        assert time.monotonic() - began < 20, pids
        time.sleep(0.005)
    return time.monotonic() - began


@pytest.mark.parametrize("in_doubt", ["hold", "resend"])
def test_the_death_of_the_run_ends_those_that_send(tmp_path: Path, in_doubt: str) -> None:
    """BL-01: SIGKILL to the run alone: one doubt a session at the most, nobody missing, nobody with two in silence."""
    chance, kills, campaigns = random.Random(in_doubt), 0, count()
    while kills < KILLS:
        folder = tmp_path / str(next(campaigns))
        with oracle(folder, "--pause", PAUSE) as server:
            campaign = Campaign(folder / "campaign", ROWS, server.port, sessions=SESSIONS, in_doubt=in_doubt)
            while kills < KILLS:
                process = campaign.start(options=PROCESSES)
                try:
                    if chance.random() < 0.25:  # anywhere: start-up, recovery, the very first octets
                        time.sleep(chance.uniform(0.0, 1.5))
                    else:  # while it sends
                        server.wait_for_more(chance.randrange(1, 70 * LINE), while_alive=process)
                        time.sleep(chance.uniform(0.0, 0.01))
                    children = list_children(process.pid)
                finally:
                    was_alive = kill(process)
                wait_for_death(children)
                if not was_alive:
                    break
                kills += 1
                assert campaign.counts()["sending"] <= SESSIONS
            campaign.finish()
            judge(campaign, server)
            twice = {recipient for recipient, number in copies(server).items() if number > 1}
            doubted = {str(entry["email"]) for entry in campaign.results() if entry["doubts"]}
            assert twice <= (doubted if in_doubt == "resend" else set())
            assert max(copies(server).values()) <= 2


def _kill_one(parent: int, chance: random.Random) -> bool:
    """Kill one of the processes that send for a run; return whether there was one."""
    children = list_children(parent)
    if not children:
        return False
    with suppress(ProcessLookupError):
        os.kill(chance.choice(children), signal.SIGKILL)  # SIGTERM is for the run
    return True


def test_the_run_outlives_those_that_send(tmp_path: Path) -> None:
    """BL-01: what was under way in a process that ends is in doubt, and what was not begun is sent by another one."""
    chance, kills, campaigns = random.Random(40), 0, count()
    while kills < KILLS:
        folder = tmp_path / str(next(campaigns))
        with oracle(folder, "--pause", PAUSE) as server:
            campaign = Campaign(folder / "campaign", ROWS, server.port, sessions=SESSIONS)
            here = _torment_children(campaign, server, chance, KILLS - kills)
            kills += here
            code = campaign.finish()
            assert code == 1, campaign.complaints  # some are rejected, some in doubt
            judge(campaign, server)
            counts = campaign.counts()
            assert counts["pending"] == counts["sending"] == 0
            assert counts["in doubt"] <= here * SESSIONS
            assert set(copies(server).values()) == {1}
            assert "Traceback" not in campaign.complaints


def _torment_children(campaign: Campaign, server: OracleProcess, chance: random.Random, kills: int) -> int:
    """Run the command to its end, and kill up to two of its three children; return how many were killed."""
    done = 0
    process = campaign.start(options=PROCESSES)
    try:
        wait_for_children(process.pid)
        while done < min(kills, 2):
            server.wait_for_more(chance.randrange(1, 40 * LINE), while_alive=process)
            time.sleep(chance.uniform(0.0, 0.01))
            if process.poll() is not None or not _kill_one(process.pid, chance):
                break
            done += 1
        process.wait(timeout=60)
    finally:
        kill(process)
    return done


def test_a_content_that_ends_before_its_mark_is_found_out(tmp_path: Path) -> None:
    """These kills can fail: somebody gets two where a process may end a content that is not marked yet."""
    right = """\
        if mark.done():
            self._allow_end(child, number, sending, mark)
        else:
            mark.add_done_callback(lambda done: self._allow_end(child, number, sending, done))
"""
    wrong = "        self._allow_end(child, number, sending, None)\n"
    home, chance = mutate(tmp_path / "home", "bulk/running/process_pool.py", right, wrong), random.Random(3)
    for number in range(8):
        with oracle(tmp_path / str(number), "--pause", PAUSE) as server:
            campaign = Campaign(tmp_path / f"campaign{number}", ROWS, server.port, sessions=SESSIONS, home=home)
            for _ in range(4):
                process = campaign.start(options=PROCESSES)
                try:
                    server.wait_for_more(chance.randrange(1, 60 * LINE), while_alive=process)
                    time.sleep(chance.uniform(0.0, 0.01))
                    children = list_children(process.pid)
                finally:
                    kill(process)
                wait_for_death(children)
            campaign.finish()
            if max(copies(server).values()) > 1:
                return
    pytest.fail("nobody got two")
