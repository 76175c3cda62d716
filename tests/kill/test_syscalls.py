"""Killed at the edge of a system call, or told by one that it failed: the ledger is right either way."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kill.judging import copies, judge
from tests.kill.processes import Campaign, OracleProcess, kill, oracle

TIMES = int(os.environ.get("ASYNCSMTP_KILLS", "3"))  # for each call; the long form is 200
ROWS, SESSIONS = 60, 4
STRACE = shutil.which("strace")

pytestmark = [
    pytest.mark.kill,
    pytest.mark.slow,
    pytest.mark.timeout(120 + 15 * TIMES),
    pytest.mark.skipif(STRACE is None, reason="strace is not installed"),
]

CALLS = ["sendto", "recvfrom", "pwrite64", "fdatasync", "epoll_wait"]
# sendto is not among them: it also wakes the event loop from the ledger's thread, and that socket never breaks
FAULTS = {  # an error that a call gives, and the exit codes it may lead to; 0 and 1 where it came too late to matter
    "fdatasync:error=EIO": {0, 1, 74},
    "pwrite64:error=ENOSPC": {0, 1, 74},
    "pwrite64:error=EIO": {0, 1, 74},
    "connect:error=ENETUNREACH": {0, 1, 69, 75},
}


def injecting(fault: str, when: int) -> list[str]:
    """strace, which does it at that call and each time is counted for each thread."""
    assert STRACE is not None
    call = fault.partition(":")[0]
    return [STRACE, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={fault}:when={when}"]


@pytest.fixture
def campaign(tmp_path: Path) -> Callable[[OracleProcess, int], Campaign]:
    def make(server: OracleProcess, number: int) -> Campaign:
        return Campaign(tmp_path / f"campaign{number}", ROWS, server.port, sessions=SESSIONS)

    return make


@pytest.mark.parametrize("call", CALLS)
def test_killed_at_a_call(tmp_path: Path, campaign: Callable[..., Campaign], call: str) -> None:
    """BL-02: no call is a moment at which something is lost or sent twice."""
    chance = random.Random(call)
    for number in range(TIMES):
        with oracle(tmp_path / str(number), "--pause", "0.002") as server:
            ours = campaign(server, number)
            process = ours.start(*injecting(f"{call}:signal=KILL", chance.randrange(1, 2 * ROWS)))
            process.wait(timeout=60)
            kill(process)
            assert ours.finish() == 1  # a tenth is rejected, and some may be in doubt
            judge(ours, server)
            assert set(copies(server).values()) == {1}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_call_that_fails_loses_nothing(tmp_path: Path, campaign: Callable[..., Campaign], fault: str) -> None:
    """BL-08, BL-09: a documented exit code, no traceback, and the same command goes on."""
    chance = random.Random(fault)
    for number in range(TIMES):
        with oracle(tmp_path / str(number), "--pause", "0.002") as server:
            ours = campaign(server, number)
            code = ours.start(*injecting(fault, chance.randrange(1, 50))).wait(timeout=60)
            assert code in FAULTS[fault], ours.complaints
            assert "Traceback" not in ours.complaints
            ours.finish()
            assert ours.finish() == 1, ours.complaints  # once more, where the first could not be reached
            judge(ours, server)
            assert set(copies(server).values()) == {1}
