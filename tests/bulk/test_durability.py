"""What was confirmed survives a power cut: the folder is synchronised after a journal is removed (FT-65).

The commit of a database with a rollback journal is the removal of the journal. A power cut before the folder is written
brings the journal back, and the next process rolls back what was confirmed.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncsmtp.bulk.ledger.sqlite import ledger_file
from asyncsmtp.bulk.ledger.sqlite.ledger_file import create_folder
from asyncsmtp.bulk.rate_limit.rate import Rate
from asyncsmtp.bulk.rate_limit.shared_store import SharedRateStore
from asyncsmtp.bulk.suppression import Suppressed, SuppressionList

STRACE = shutil.which("strace")
ADD = """
from asyncsmtp.bulk.suppression import Suppressed, SuppressionList
SuppressionList({path!r}).add([Suppressed("ann@example.org")])"""
REMOVE = """
from asyncsmtp.bulk.suppression import SuppressionList
SuppressionList({path!r}).remove(["bob@example.org"])"""
RESERVE = """
from asyncsmtp.bulk.rate_limit.rate import Rate
from asyncsmtp.bulk.rate_limit.shared_store import SharedRateStore
store = SharedRateStore({path!r}, "a", Rate.parse_all("400/day"))
print(len(store.reserve(5).times))"""


def calls_of(program: str, log: Path) -> list[str]:
    """Run a program under strace; return its system calls that name files, or write them to the disk."""
    assert STRACE is not None
    trace = "trace=open,openat,unlink,unlinkat,mkdir,mkdirat,rename,fsync,fdatasync,pwrite64"
    subprocess.run([STRACE, "-f", "-y", "-o", log, "-e", trace, sys.executable, "-c", program], check=True)
    return [line.split(maxsplit=1)[1] for line in log.read_text(encoding="utf-8").splitlines()]


def synced_after(calls: list[str], event: re.Pattern[str], folder: Path) -> bool:
    """Return whether the folder is synchronised after the last call that matches `event`."""
    last = max(number for number, call in enumerate(calls) if event.search(call))
    sync = re.compile(rf"f(data)?sync\([0-9]+<{re.escape(str(folder))}>\) += 0")
    return any(sync.search(call) for call in calls[last:])


@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
@pytest.mark.parametrize(
    ("program", "name"),
    [(ADD, "new.db"), (ADD, "old.db"), (REMOVE, "old.db"), (RESERVE, "a/b/rates.db")],
    ids=["a new list", "an entry", "a removed entry", "shared rates in new folders"],
)
def test_a_commit_ends_with_a_sync_of_its_folder(tmp_path: Path, program: str, name: str) -> None:
    """FT-65: by its system calls: the journal is removed, then the folder is written."""
    home = tmp_path / "lists"
    home.mkdir()
    SuppressionList(home / "old.db").add([Suppressed("bob@example.org")])
    calls = calls_of(program.format(path=str(home / name)), tmp_path / "log")
    path = home / name
    assert synced_after(calls, re.compile(rf'unlink.*"{re.escape(str(path))}-journal"'), path.parent)


@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
def test_new_folders_are_durable_before_the_file_in_them(tmp_path: Path) -> None:
    """FT-65: of `rates.db`, each new folder's name is written to the folder above it."""
    program = RESERVE.format(path=str(tmp_path / "state/asyncsmtp/rates.db"))
    calls = calls_of(program, tmp_path / "log")
    for folder in (tmp_path / "state", tmp_path / "state/asyncsmtp"):
        assert synced_after(calls, re.compile(rf'mkdir.*"{re.escape(str(folder))}"'), folder.parent)


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """What each connection that writes has set at its end: synchronous, fullfsync, checkpoint_fullfsync."""
    found: list[tuple[int, int, int]] = []

    class Connection(sqlite3.Connection):
        def close(self) -> None:
            pragmas = ("synchronous", "fullfsync", "checkpoint_fullfsync")
            one, two, three = (self.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas)
            found.append((one, two, three))
            super().close()

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **named: connect(*given, **named, factory=Connection))
    return found


def test_what_is_confirmed_is_durable_on_every_system(tmp_path: Path, settings: list[tuple[int, int, int]]) -> None:
    """FT-65, FT-67: EXTRA where there is a journal, and F_FULLFSYNC where a system has it."""
    SuppressionList(tmp_path / "gone.db").add([Suppressed("ann@example.org")])
    SharedRateStore(tmp_path / "rates.db", "a", Rate.parse_all("1/day")).reserve(1)
    assert {*settings} == {(3, 1, 1)}
    settings.clear()
    ledger_file.open_file(tmp_path / "x.ledger").close()
    assert {*settings} == {(2, 1, 1)}


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FT-65: only what is new is synchronised, from the top down or not: each name once."""
    synced: list[Path] = []
    monkeypatch.setattr(ledger_file, "sync_folder", synced.append)
    create_folder(tmp_path / "a/b")
    assert sorted(synced) == [tmp_path, tmp_path / "a"]
    create_folder(tmp_path / "a/b")
    assert len(synced) == 2


def test_where_the_system_can_the_disk_is_flushed_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FT-67: F_FULLFSYNC of macOS, and fsync where a file system refuses it."""
    asked: list[int] = []
    answers: Iterator[int | OSError] = iter([0, OSError()])

    def call(descriptor: int, command: int) -> int:
        asked.append(command)
        if isinstance(answer := next(answers), OSError):
            raise answer
        return answer

    fsynced: list[int] = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", call)
    monkeypatch.setattr(os, "fsync", fsynced.append)
    ledger_file.sync_folder(tmp_path)
    assert (asked, len(fsynced)) == ([51], 0)
    ledger_file.sync_folder(tmp_path)
    assert (asked, len(fsynced)) == ([51, 51], 1)
