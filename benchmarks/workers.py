"""Workers over one ledger in PostgreSQL: CPU, commits and statements a message, and a rate that they have together.

    python -m benchmarks.workers [--rows 20000] [--workers 1 4] [--sessions 10]
    python -m benchmarks.workers --rate 200 --seconds 20

The first form sends a campaign once with each number of workers, and prints for each: messages a second, CPU of the
workers a message without their start, of the server, and its commits and statements a message. The second form sends
with three workers for some seconds, and prints the mean rate and that of the worst second at the relay.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.interop.postgres import Postgres
from tests.kill.processes import Campaign, oracle


def start_workers(campaign: Campaign, number: int) -> list[subprocess.Popen[bytes]]:
    """Start so many workers."""
    command = campaign._command("work", "--until-idle")
    return [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(number)]


def wait_for_cpu(processes: list[subprocess.Popen[bytes]]) -> float:
    """Wait for their end; return the CPU seconds of all of them."""
    used = 0.0
    for process in processes:
        _, _, usage = os.wait4(process.pid, 0)
        used += usage.ru_utime + usage.ru_stime
    return used


def server_cpu(postgres: Postgres) -> float:
    """Return the CPU seconds of the server and its children, those that have ended included."""
    pid, ticks = postgres._process.pid, os.sysconf("SC_CLK_TCK")
    used = 0
    for each in (pid, *Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        used += sum(map(int, fields[11:15] if each == pid else fields[11:13]))
    return used / ticks


def count_statements(postgres: Postgres) -> int:
    """Return the number of statements that the server has logged."""
    return len(re.findall(r"LOG:  (?:statement|execute)", postgres.log))


def load(folder: Path, postgres: Postgres, rows: int, port: int, sessions: int, limits: str = "") -> Campaign:
    """Load a campaign."""
    postgres.clear()
    campaign = Campaign(folder, rows, port, sessions=sessions, ledger=postgres.url)
    file = folder / "campaign.toml"
    file.write_text(file.read_text().replace("[limits]\n", f"[limits]\n{limits}"))
    words = [sys.executable, "-m", "asyncsmtp", "campaign", "load", str(file)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return campaign


def measure(postgres: Postgres, number: int, rows: int, sessions: int, *, log: bool) -> None:
    """Send a campaign with so many workers, and print the figures."""
    with tempfile.TemporaryDirectory() as name, oracle(Path(name) / "oracle") as relay:
        small = load(Path(name) / "small", postgres, 10, relay.port, sessions)
        start = wait_for_cpu(start_workers(small, number))
        campaign = load(Path(name) / "campaign", postgres, rows, relay.port, sessions)
        if log:
            postgres.execute("ALTER SYSTEM SET log_statement = 'all'")
            postgres.execute("SELECT pg_reload_conf()")
            time.sleep(1)
        find = "SELECT xact_commit FROM pg_stat_database WHERE datname = 'postgres'"
        (before,), statements, server = postgres.execute(find)[0], count_statements(postgres), server_cpu(postgres)
        began = time.monotonic()
        processes = start_workers(campaign, number)
        used = wait_for_cpu(processes) - start
        seconds = time.monotonic() - began
        time.sleep(1.5)  # the server's counters are late
        (after,) = postgres.execute(find)[0]
        assert isinstance(before, int)
        assert isinstance(after, int)
        line = f"{number} workers: {rows / seconds:7,.0f}/s, {used / rows * 1e6:5.0f} µs a message"
        line += (
            f", server {(server_cpu(postgres) - server) / rows * 1e6:5.0f} µs, {(after - before) / rows:.3f} commits"
        )
        if log:
            line += f", {(count_statements(postgres) - statements) / rows:.3f} statements"
            postgres.execute("ALTER SYSTEM RESET log_statement")
            postgres.execute("SELECT pg_reload_conf()")
        print(line, flush=True)


def measure_rate(postgres: Postgres, rate: int, seconds: int, number: int = 3) -> None:
    """Send at a rate with some workers, and print what the relay saw."""
    with tempfile.TemporaryDirectory() as name, oracle(Path(name) / "oracle") as relay:
        limits = f'rate = "{rate}/s"\n'
        campaign = load(Path(name) / "campaign", postgres, rate * (seconds + 5), relay.port, 10, limits)
        processes = start_workers(campaign, number)
        size, times = 0, list[float]()
        try:
            began = 0.0
            while not began or time.monotonic() - began < seconds:
                time.sleep(0.002)
                lines = relay.log.read_bytes()[size:].count(b"\n")
                if lines:
                    began = began or time.monotonic()
                    times += [time.monotonic()] * lines
                    size = relay.log.stat().st_size
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(60)
        worst = max(
            sum(begin <= at < begin + 1 for at in times[place : place + 3 * rate]) for place, begin in enumerate(times)
        )
        mean = len(times) / (times[-1] - times[0])
        print(f"{number} workers at {rate}/s: mean {mean:.2f}/s ({mean / rate - 1:+.2%}), worst second {worst}")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--statements", action="store_true")
    parser.add_argument("--rate", type=int)
    parser.add_argument("--seconds", type=int, default=20)
    options = parser.parse_args()
    postgres = Postgres()
    try:
        if options.rate:
            measure_rate(postgres, options.rate, options.seconds)
            return
        for number in options.workers:
            measure(postgres, number, options.rows, options.sessions, log=options.statements)
    finally:
        postgres.stop()


if __name__ == "__main__":
    main()
