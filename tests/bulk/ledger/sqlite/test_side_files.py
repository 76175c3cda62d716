"""Files beside a ledger are its own: no link leads to another file, which would be emptied, filled or removed."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from asyncsmtp.bulk.ledger.sqlite.ledger_file import DISK_RESERVE_BYTES, DiskReserve, LedgerLock
from asyncsmtp.errors import LedgerBusy, LedgerError
from tests.bulk.ledger.ledgers import readers
from tests.bulk.ledger.sqlite.test_ledger import Folder

PRECIOUS = "what somebody wrote\n" * 10


@pytest.fixture
def home(tmp_path: Path) -> Folder:
    (tmp_path / "run").mkdir()
    (tmp_path / "victim").write_text(PRECIOUS, encoding="utf-8")
    return Folder(tmp_path / "run")


def link_to(victim: Path, path: Path) -> None:
    path.symlink_to(victim)


def dangling(victim: Path, path: Path) -> None:
    path.symlink_to(victim.with_name("not there yet"))


def hard_link(victim: Path, path: Path) -> None:
    os.link(victim, path)


def pipe(victim: Path, path: Path) -> None:
    os.mkfifo(path)


def folder(victim: Path, path: Path) -> None:
    path.mkdir()


KINDS = [link_to, dangling, hard_link, pipe, folder]


@pytest.mark.parametrize("make", KINDS)
async def test_a_lock_that_is_another_file_is_refused(home: Folder, make: Callable[[Path, Path], None]) -> None:
    """FT-59: a link, a FIFO, a folder: nothing is emptied, created or waited for."""
    victim = home.path.parent.with_name("victim")
    make(victim, home.path.with_name("news.ledger.lock"))
    with pytest.raises(LedgerError, match=r"news\.ledger\.lock (is|cannot)"):
        async with home.open():
            pass
    assert victim.read_text(encoding="utf-8") == PRECIOUS
    assert sorted(path.name for path in home.path.parent.parent.iterdir()) == ["run", "victim"]
    assert not home.path.exists()


@pytest.mark.parametrize("make", KINDS[:-1])
async def test_a_reserve_that_is_another_file_is_replaced(home: Folder, make: Callable[[Path, Path], None]) -> None:
    """FT-59: the link is removed, and what it led to is neither padded nor removed."""
    victim = home.path.parent.with_name("victim")
    reserve = home.path.with_name("news.ledger.ballast")
    make(victim, reserve)
    async with home.open() as ledger:
        await ledger.load(readers(1))
        assert stat.S_ISREG(reserve.lstat().st_mode)
        assert (reserve.stat().st_size, reserve.stat().st_nlink) == (DISK_RESERVE_BYTES, 1)
    assert victim.read_text(encoding="utf-8") == PRECIOUS
    assert not reserve.exists()
    assert sorted(path.name for path in home.path.parent.parent.iterdir()) == ["run", "victim"]


async def test_a_folder_in_the_place_of_the_reserve_is_named(home: Folder) -> None:
    """FT-59: it is no full disk."""
    home.path.with_name("news.ledger.ballast").mkdir()
    with pytest.raises(LedgerError, match=r"news\.ledger\.ballast beside it cannot be replaced \(.*\): remove it"):
        async with home.open():
            pass
    LedgerLock.acquire(home.path.with_name("news.ledger.lock")).release()


def test_a_reserve_left_by_a_kill_is_made_anew(tmp_path: Path) -> None:
    """FT-59: half a reserve is none."""
    path = tmp_path / "x.ballast"
    path.write_bytes(b"half")
    DiskReserve(path).allocate()
    assert path.stat().st_size == DISK_RESERVE_BYTES


async def test_a_link_to_a_ledger_is_the_ledger(home: Folder) -> None:
    """FT-59: its lock is beside the file itself, so that nobody runs it twice by two names."""
    other = Folder(home.path.parent)
    other.path = home.path.with_name("also.ledger")
    other.path.symlink_to(home.path)
    async with home.open() as ledger:
        await ledger.load(readers(1))
        with pytest.raises(LedgerBusy):
            async with other.open():
                pass
    async with other.open() as ledger:
        assert ledger.loaded
    assert not home.path.with_name("also.ledger.lock").exists()


async def test_half_a_ledger_that_is_a_link_is_not_followed(home: Folder) -> None:
    """FT-59: `.new`, under which a ledger is created, and SQLite's files beside it."""
    victim = home.path.parent.with_name("victim")
    for suffix in ("", "-journal", "-wal", "-shm"):
        home.path.with_name(f"news.ledger.new{suffix}").symlink_to(victim)
    async with home.open() as ledger:
        await ledger.load(readers(1))
    assert victim.read_text(encoding="utf-8") == PRECIOUS


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
async def test_a_log_that_is_a_link_changes_nothing(home: Folder, suffix: str) -> None:
    """FT-59: SQLite's own files."""
    async with home.open() as ledger:
        await ledger.load(readers(1))
    victim = home.path.parent.with_name("victim")
    home.path.with_name(f"news.ledger{suffix}").symlink_to(victim)
    try:
        async with home.open() as ledger:
            await ledger.counts()
    except LedgerError:
        pass
    assert victim.exists(), sqlite3.sqlite_version
    assert victim.read_text(encoding="utf-8") == PRECIOUS
