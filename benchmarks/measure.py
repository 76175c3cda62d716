"""Taking turns, medians, processes and their cost."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

__all__ = ["Cost", "Row", "Spent", "compiled", "in_turn", "middle", "run"]


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a number of messages: wall and CPU seconds."""

    messages: int
    wall: float
    cpu: float

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.wall

    @property
    def each(self) -> float:
        """CPU seconds a message."""
        return self.cpu / self.messages


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a figure of ours beside the peer's, and whether it reaches its target."""

    work: str
    ours: str
    peer: str
    ratio: str
    target: str
    reached: bool


@dataclass(frozen=True, slots=True)
class Spent:
    """The cost of one process: its exit code, seconds, and the most memory it held, in bytes."""

    code: int
    wall: float
    cpu: float
    peak: int


async def in_turn(
    ours: Callable[[], Awaitable[Cost]], peer: Callable[[], Awaitable[Cost]], turns: int = 5
) -> tuple[Cost, Cost]:
    """Measure A B A B …; the median cost a message of each, so that a busy moment hits both."""
    pairs = [(await ours(), await peer()) for _ in range(turns)]
    return middle([pair[0] for pair in pairs]), middle([pair[1] for pair in pairs])


def middle(costs: list[Cost]) -> Cost:
    """The median of wall and of CPU seconds, each for itself."""
    return Cost(costs[0].messages, median(cost.wall for cost in costs), median(cost.cpu for cost in costs))


def run(command: list[str], log: Path) -> Spent:
    """Run a process to its end and look at what it used.

    The peak is read from the kernel while it runs: `ru_maxrss` would count the parent before the exec too.
    """
    began, peak = time.perf_counter(), 0
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=compiled()) as process:
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            peak = max(peak, _high_water(process.pid))
            time.sleep(0.005)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    return Spent(process.returncode, wall, usage.ru_utime + usage.ru_stime, peak)


@cache
def compiled() -> dict[str, str]:
    """The environment, with a folder for compiled modules: as it is once a program has run or been installed."""
    folder = tempfile.mkdtemp(prefix="compiled-")
    atexit.register(shutil.rmtree, folder)
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": folder}


def _high_water(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0  # it has just ended
