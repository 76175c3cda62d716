"""Several processes on one campaign, and one that is frozen: one sends, the others go away, and nothing goes twice."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from statistics import median

import pytest

from tests.kill.judging import PAUSE, SESSIONS, copies, judge
from tests.kill.processes import Campaign, OracleProcess, kill, oracle

pytestmark = [pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(900)]

ROUNDS = int(os.environ.get("ASYNCSMTP_RIVALS", "3"))  # the long form is 50
LONG = 20
RIVALS = 5
FEW = 50  # rows
FROZEN = 1.0  # seconds


def reap(processes: list[subprocess.Popen[bytes]]) -> dict[int, float]:
    """Wait for each; return by its place when it ended, in seconds from now."""
    began, ended = time.monotonic(), {}
    while len(ended) < len(processes):
        for place, process in enumerate(processes):
            if place not in ended and process.poll() is not None:
                ended[place] = time.monotonic() - began
        time.sleep(0.002)
    return ended


def test_of_five_that_start_at_once_one_sends(tmp_path: Path) -> None:
    """BL-11: four end with 75 while the one sends, which takes seconds; nobody gets two, and nobody is missing.

    In the long form, which wants a quiet machine, within a second of their start: as a rule, for a test is no clock.
    """
    slowest = []
    for number in range(ROUNDS):
        with oracle(tmp_path / str(number), "--pause", "0.1") as server:
            campaign = Campaign(tmp_path / f"campaign{number}", FEW, server.port, sessions=2)
            processes = [campaign.start() for _ in range(RIVALS)]
            try:
                ended = reap(processes)
            finally:
                for process in processes:
                    kill(process)
            codes = [process.returncode for process in processes]
            assert sorted(codes) == [1, 75, 75, 75, 75], campaign.complaints  # some are rejected: 1
            sender = codes.index(1)
            slowest.append(max(at for place, at in ended.items() if place != sender))
            assert slowest[-1] < ended[sender]
            judge(campaign, server)
            assert set(copies(server).values()) == {1}
    assert ROUNDS < LONG or median(slowest) <= 1.0, slowest


def wait_until_it_sends(server: OracleProcess, process: subprocess.Popen[bytes], verdicts: int = 20) -> None:
    while len(server.verdicts()) < verdicts:
        assert process.poll() is None
        time.sleep(0.002)


def test_one_that_is_frozen_keeps_its_campaign(tmp_path: Path) -> None:
    """BL-17: by SIGSTOP, as a machine that pauses: it holds its lock, so another sends nothing, however long it takes.

    On one machine there is no lease that ends: the lock goes with the process.
    """
    with oracle(tmp_path / "0", "--pause", PAUSE) as server:
        campaign = Campaign(tmp_path / "campaign", 400, server.port, sessions=SESSIONS)
        process = campaign.start()
        try:
            wait_until_it_sends(server, process)
            os.killpg(process.pid, signal.SIGSTOP)
            time.sleep(0.2)  # what the relay had received
            before = len(server.verdicts())
            end = time.monotonic() + FROZEN
            while time.monotonic() < end:
                assert campaign.finish() == 75
            assert len(server.verdicts()) == before
            os.killpg(process.pid, signal.SIGCONT)
            assert process.wait(60) == 1
        finally:
            kill(process)
        judge(campaign, server)
        assert set(copies(server).values()) == {1}


def test_one_that_is_killed_while_it_is_frozen_leaves_doubts_and_no_second_copy(tmp_path: Path) -> None:
    """BL-19: what it had sent without receiving the reply is in doubt for the next process, never pending."""
    with oracle(tmp_path / "0", "--pause", PAUSE) as server:
        campaign = Campaign(tmp_path / "campaign", 400, server.port, sessions=SESSIONS)
        process = campaign.start()
        wait_until_it_sends(server, process)
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(0.3)  # the relay takes what was sent, and answers nobody
        kill(process)
        marked = campaign.counts()["sending"]
        assert marked <= SESSIONS
        assert campaign.finish() == 1
        assert campaign.counts()["in doubt"] == marked
        judge(campaign, server)
        assert set(copies(server).values()) == {1}
