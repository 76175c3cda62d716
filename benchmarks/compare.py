"""Compare the CPU cost of this checkout with another one: `python -m benchmarks.compare PATH [--pairs 9]`.

Both run in turns (A B, B A, A B …), each in a process of its own, with the same interpreter and sink. The output
is the median of the ratios, pair by pair, of CPU seconds per message: below 1 this checkout is cheaper.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median

from benchmarks import campaigns
from benchmarks.measure import compiled, run
from benchmarks.sink import sink

__all__ = ["main"]

HERE = Path(__file__).parent.parent
COMPOSE = """
import sys, time
from datetime import UTC, datetime
from random import Random
import asyncsmtp
signed, number = sys.argv[1] == "signed", int(sys.argv[2])
paragraph = "<p style='color:#333'>Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod.</p>\\n"
html = "<h1>Hello {{ name }}</h1>\\n" + paragraph * 40 + "<p>{{ city }}</p>\\n<img src='cid:logo'>\\n"
text = "Hello {{ name }},\\n" + "Lorem ipsum dolor sit amet, consectetur adipiscing elit.\\n" * 60
image = asyncsmtp.Attachment("logo.png", Random(1).randbytes(20_000))
template = asyncsmtp.Template(
    "News <news@example.com>", "News for {{ name }}", text=text, html=html, inline={"logo": image}
)
pem = open(sys.argv[3], "rb").read()
load = getattr(asyncsmtp.DkimKey, "from_pem", None) or asyncsmtp.DkimKey.of_pem
signer = asyncsmtp.Signer(load("example.com", "s1", pem)) if signed else None
composer, to = template.compile(["name", "city"], signer=signer), asyncsmtp.Mailbox.parse("bob@x.example")
date = datetime(2025, 11, 3, 9, 0, tzinfo=UTC)
def make(n):
    composer.compose(to, {"name": f"Bob {n}", "city": "Wien"}, message_id=f"{n}@example.com", date=date)
for n in range(50): make(n)
used = time.process_time()
for n in range(number): make(n)
print(0.0, time.process_time() - used)
"""


def main() -> None:
    """Print a line for each benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("other", type=Path, help="a checkout of another version")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="asyncsmtp-compare-") as name, sink() as port:
        for work, cost in _benchmarks(Path(name), port).items():
            if options.only and work.split(":")[0] not in options.only:
                continue
            _compare(work, cost, options.other.resolve(), options.pairs)


def _compare(work: str, cost: Callable[[Path], float], other: Path, pairs: int) -> None:
    """Measure in turns and print the medians and the median ratio."""
    cost(HERE), cost(other)  # compiles, and warms the disk
    found = []
    for pair in range(pairs):
        order = (HERE, other) if pair % 2 == 0 else (other, HERE)
        costs = {tree: cost(tree) for tree in order}
        found.append((costs[HERE], costs[other]))
    mine, theirs = (median(column) * 1e6 for column in zip(*found, strict=True))
    ratios = sorted(here / there for here, there in found)
    print(
        f"{work}: {mine:,.1f} and {theirs:,.1f} µs CPU a message, ratio {median(ratios):.3f}"
        f" ({ratios[0]:.3f} to {ratios[-1]:.3f})",
        flush=True,
    )


def _benchmarks(folder: Path, port: int) -> dict[str, Callable[[Path], float]]:
    """Each returns CPU seconds per message for a checkout."""
    key, numbers = _key(folder), count()

    def send(sessions: int, waiting: int, messages: int) -> Callable[[Path], float]:
        words = ["-m", "benchmarks.sending", "asyncsmtp", *map(str, (port, messages, sessions, waiting))]
        return lambda tree: _printed(tree, words) / messages

    def compose(kind: str, messages: int) -> Callable[[Path], float]:
        return lambda tree: _printed(tree, ["-c", COMPOSE, kind, str(messages), str(key)]) / messages

    def bulk(tree: Path) -> float:
        rows = 20_000
        campaign = campaigns.write(folder / str(next(numbers)), rows, port, sessions=20, octets=8_000)
        command = ["env", f"PYTHONPATH={tree}", sys.executable, "-m", "asyncsmtp", "bulk", str(campaign), "--yes"]
        spent = run(command, folder / "log")
        assert spent.code == 0, (folder / "log").read_text()
        shutil.rmtree(campaign.parent)
        return spent.cpu / rows

    return {
        "row 1: one session, 8 messages waiting": send(1, 8, 8_000),
        "row 2: ten sessions": send(10, 2, 20_000),
        "row 6: compose": compose("plain", 8_000),
        "row 7: compose and sign": compose("signed", 1_000),
        "row 8: the whole command, 20,000 rows": bulk,
    }


def _printed(tree: Path, words: list[str]) -> float:
    """Run a program that prints wall and CPU seconds; return the latter."""
    environment = {**compiled(), "PYTHONPATH": str(tree)}
    output = subprocess.run(
        [sys.executable, *words], cwd=tree, env=environment, check=True, capture_output=True, text=True
    ).stdout
    return float(output.split()[1])


def _key(folder: Path) -> Path:
    """Write an RSA key of 2048 bits."""
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    )
    path = folder / "dkim.pem"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    with open(descriptor, "wb") as file:
        file.write(pem)
    return path


if __name__ == "__main__":
    main()
