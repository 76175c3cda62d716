"""Files of sixty megabytes in memory that does not grow with them, whatever is in them.

Two gigabytes are read by `python -m benchmarks.bigfile`, in minutes.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SIZE = 60_000_000
SMALL = 600_000
MAY_GROW = 20_000_000  # a third of the file; what is read at once, and what is kept of a row that goes on, is within

READER = """
import asyncio, sys
from asyncsmtp.bulk.recipients.preflight import run_preflight
from asyncsmtp.bulk.recipients.file import RecipientFile
from asyncsmtp.errors import RecipientError
try:
    report = asyncio.run(run_preflight(RecipientFile(sys.argv[1])))
    print(report.recipients, report.problems)
except RecipientError as error:
    print(error)
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")][0])
"""


@dataclass(frozen=True)
class Read:
    """What a process found, and the most octets that were resident."""

    said: str
    peak: int


def read(path: Path) -> Read:
    done = subprocess.run(
        [sys.executable, "-c", READER, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    *said, peak = done.stdout.splitlines()
    return Read("\n".join(said), int(peak) * 1024)


def rows(size: int) -> bytes:
    """Rows of a kilobyte, each with a mailbox of its own."""
    filler = b"x" * 950
    return b"email,name,note\n" + b"".join(
        b'reader%09d@example.org,"Reader, %d",%b\n' % (n, n, filler) for n in range(size // 1000)
    )


def ragged(size: int) -> bytes:
    """No row is as wide as the header, and each says so."""
    return b"email,name\n" + b"a@example.org,A,B,C\n" * (size // 20)


def unclosed(size: int) -> bytes:
    """A quote that is opened in the first row, and never closed."""
    return b'email,name\na@example.org,"A\n' + b"b@example.org,B\n" * (size // 16)


def one_cell(size: int) -> bytes:
    """A cell as large as the file."""
    return b"email,name\na@example.org," + b"x" * size + b"\n"


def header_only(size: int) -> bytes:
    """A header that does not end."""
    return b"email" + b",c" * (size // 2)


def zeros(size: int) -> bytes:
    """What a disk that was full leaves behind."""
    return b"email,name\na@example.org,A\n" + bytes(size)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], int]:
    """The peak for a small file."""

    @cache
    def peak() -> int:
        path = tmp_path_factory.mktemp("small") / "people.csv"
        path.write_bytes(rows(SMALL))
        return read(path).peak

    return peak


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (rows, "60000 0"),
        (unclosed, "row 1 has a cell of more than 131072 characters"),
        (one_cell, "row 1 runs past 1048576 characters"),
        (header_only, "the header runs past"),
        (zeros, "row 2 runs past 1048576 characters"),
    ],
)
@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(
    tmp_path: Path, small: Callable[[], int], make: Callable[[int], bytes], said: str
) -> None:
    """TF-08, TF-09: read to its end, or refused in one sentence."""
    path = tmp_path / "people.csv"
    path.write_bytes(make(SIZE))
    found = read(path)
    path.unlink()
    assert said in found.said
    assert found.peak - small() < MAY_GROW


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.slow
def test_rows_that_are_all_wrong_are_counted_not_kept(tmp_path: Path, small: Callable[[], int]) -> None:
    """TF-09: a hundred thousand ragged rows."""
    path = tmp_path / "people.csv"
    path.write_bytes(ragged(2_000_000))
    found = read(path)
    assert found.said == "0 100000"
    assert found.peak - small() < MAY_GROW
