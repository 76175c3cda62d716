"""A ledger that lost a file, or its place, is noticed: nobody is mailed again in silence."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from asyncsmtp.bulk.ledger.interfaces import RowState
from asyncsmtp.bulk.ledger.sqlite.ledger_file import LedgerLock, Stamp
from asyncsmtp.bulk.ledger.sqlite.store import SqliteLedger
from asyncsmtp.errors import LedgerError, LedgerMismatch
from tests.bulk.ledger.ledgers import accepted, claim_all, readers, states
from tests.bulk.ledger.sqlite.test_ledger import Folder
from tests.bulk.ledger.sqlite.test_ledger_opening import ROOT, VICTIM

ROWS = 20
FILES = ("news.ledger", "news.ledger-wal", "news.ledger.lock")


@pytest.fixture
def home(tmp_path: Path) -> Folder:
    (tmp_path / "run").mkdir()
    return Folder(tmp_path / "run")


@asynccontextmanager
async def running(home: Folder) -> AsyncIterator[SqliteLedger]:
    """A ledger in the middle of a run: loaded, and half of its rows accepted."""
    async with home.open() as ledger:
        await ledger.load(readers(ROWS))
        home.now += 1_000_000
        for claim in await ledger.claim(ROWS // 2):
            await ledger.mark(claim)
            ledger.settle(accepted(claim))
        await ledger.flush()
        yield ledger


def copy(home: Folder, *names: str) -> Folder:
    """Return a folder that has these files of a ledger, as they are on the disk now."""
    place = home.path.parent.with_name("copy")
    place.mkdir()
    for name in names:
        shutil.copy(home.path.with_name(name), place)
    return Folder(place)


async def accepted_rows(home: Folder) -> int:
    async with home.open() as ledger:
        return (await ledger.counts())[RowState.ACCEPTED]


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (FILES[:1], "news.ledger-wal, which has the latest outcomes, is missing: copy that as well"),
        ((FILES[0], FILES[2]), "lacks its latest outcomes, up to .* UTC: restore news.ledger-wal"),
        (FILES[1:], "is gone, but its campaign was loaded at .* UTC: restore it"),
        (FILES[2:], "is gone, but its campaign was loaded at .* UTC: restore it"),
    ],
    ids=["the ledger alone", "without its log", "without the ledger", "the lock alone"],
)
async def test_a_ledger_without_all_its_files_is_refused(home: Folder, names: tuple[str, ...], why: str) -> None:
    """FT-55: copied during a run, or what is left when its process was killed and a file is lost."""
    async with running(home):
        place = copy(home, *names)
    found = sorted(path.name for path in place.path.parent.iterdir())
    for _ in range(2):  # it stays so until a person decides
        with pytest.raises(LedgerError, match=why):
            await accepted_rows(place)
    assert {path.name for path in place.path.parent.iterdir()} == {*found, FILES[2]}  # nothing was begun


@pytest.mark.parametrize("names", [FILES, FILES[:2]], ids=["all", "without the lock"])
async def test_a_whole_copy_resumes(home: Folder, names: tuple[str, ...]) -> None:
    """FT-55: the log is what matters; the lock file need not be there."""
    async with running(home):
        place = copy(home, *names)
    assert await accepted_rows(place) == ROWS // 2
    assert await accepted_rows(place) == ROWS // 2


async def test_a_copy_that_was_refused_for_another_reason_resumes(home: Folder) -> None:
    """FT-55: with its log and without its lock: the first opening, which is refused, writes the log into the file."""
    async with running(home):
        place = copy(home, *FILES[:2])
    with pytest.raises(LedgerMismatch):
        async with place.open(name="other"):
            pass
    assert not place.path.with_name(FILES[1]).exists()
    assert await accepted_rows(place) == ROWS // 2


async def test_a_copy_of_the_file_alone_has_the_recipients(home: Folder) -> None:
    """FT-55: they are not only in the log, so that no copy looks like a campaign that has not begun."""
    async with running(home):
        place = copy(home, FILES[0])
    with contextlib.closing(sqlite3.connect(place.path)) as connection:
        assert connection.execute("SELECT count(*) FROM recipient").fetchone() == (ROWS,)
        assert connection.execute("SELECT count(*) FROM campaign").fetchone() == (1,)


async def test_another_program_may_have_written_the_log_into_the_file(home: Folder) -> None:
    """FT-55: a database browser that is closed after a kill leaves no log, and nothing is lost."""
    async with running(home):
        place = copy(home, *FILES)
    with contextlib.closing(sqlite3.connect(place.path)) as connection:
        connection.execute("SELECT count(*) FROM delivery").fetchone()
    assert not place.path.with_name(FILES[1]).exists()
    assert await accepted_rows(place) == ROWS // 2


async def test_an_older_copy_is_refused_until_a_person_decides(home: Folder) -> None:
    """FT-55: a backup of yesterday does not know who was mailed today."""
    async with home.open() as ledger:
        await ledger.load(readers(ROWS))
    backup = home.path.read_bytes()
    async with home.open() as ledger:
        home.now += 1_000_000
        (claim,) = await ledger.claim(1)
        await ledger.mark(claim)
        ledger.settle(accepted(claim))
    home.path.write_bytes(backup)
    with pytest.raises(LedgerError, match=r"remove news\.ledger\.lock to send to everybody who is pending here"):
        await accepted_rows(home)
    home.path.with_name(FILES[2]).unlink()
    assert await accepted_rows(home) == 0


async def test_the_ledger_of_another_load_is_refused(home: Folder) -> None:
    """FT-55: of the same name and campaign, but not the one that was here."""
    async with running(home):
        pass
    other = Folder(home.path.parent.with_name("other"))
    other.path.parent.mkdir()
    other.now += 7
    async with running(other):
        pass
    shutil.copy(other.path, home.path)
    with pytest.raises(LedgerError, match="is another ledger than the one that was here"):
        await accepted_rows(home)


async def test_the_advice_for_a_lost_log_works(home: Folder) -> None:
    """FT-55: `make an empty file news.ledger.lock`: the person knows that some may be mailed twice."""
    async with running(home):
        place = copy(home, FILES[0])
    with pytest.raises(LedgerError, match=r"make an empty file .*news\.ledger\.lock"):
        await accepted_rows(place)
    place.path.with_name(FILES[2]).write_bytes(b"")
    assert await accepted_rows(place) == 0


async def test_a_ledger_that_was_never_loaded_may_be_removed(home: Folder) -> None:
    """FT-55: there is nothing to lose."""
    async with home.open():
        pass
    home.path.unlink()
    async with running(home):
        pass


async def test_a_load_that_was_undone_may_be_followed_by_another(home: Folder) -> None:
    """FT-55: the recipients changed before anything was sent; the stamp of the first load is gone with it."""
    async with home.open(fingerprint={"people.csv": "one"}) as ledger:
        await ledger.load(readers(ROWS))
    for _ in range(2):
        home.now += 5
        async with home.open(fingerprint={"people.csv": "two"}) as ledger:
            assert not ledger.loaded
    async with home.open(fingerprint={"people.csv": "two"}) as ledger:
        await ledger.load(readers(ROWS - 1))
    async with home.open(fingerprint={"people.csv": "two"}) as ledger:
        assert (await ledger.counts()).total == ROWS - 1


@pytest.mark.parametrize("left", [b"", b"4711\n", b"4711"])
async def test_a_lock_file_of_the_first_version_is_none_of_a_stamp(home: Folder, left: bytes) -> None:
    """FT-55: asyncsmtp 0.1 emptied it, or was killed; its ledgers resume."""
    async with running(home):
        pass
    home.path.with_name(FILES[2]).write_bytes(left)
    assert await accepted_rows(home) == ROWS // 2
    lock = LedgerLock.acquire(home.path.with_name(FILES[2]))
    assert lock.stamp is not None
    lock.release()


def test_a_stamp_survives_the_process(tmp_path: Path) -> None:
    """FT-55: it never goes back, and is there for the next one."""
    lock = LedgerLock.acquire(tmp_path / "x.lock")
    lock.write_stamp(Stamp(5, 7))
    lock.advance(9)
    lock.advance(8)
    lock.release()
    again = LedgerLock.acquire(tmp_path / "x.lock")
    assert again.stamp == Stamp(5, 9)
    again.write_stamp(None)
    again.release()
    last = LedgerLock.acquire(tmp_path / "x.lock")
    assert last.stamp is None
    last.release()


def remove(path: Path) -> None:
    path.unlink()


def rename(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replace(path: Path) -> None:
    shutil.copy(path, path.with_name("new"))
    path.with_name("new").replace(path)


def remove_log(path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


@pytest.mark.parametrize("change", [remove, rename, replace, remove_log])
async def test_a_ledger_that_is_removed_during_a_run_ends_it(home: Folder, change: Callable[[Path], None]) -> None:
    """FT-55: before the next message passes the point of no return; what it held is kept, late replies too."""
    async with running(home) as ledger:
        claims = await claim_all(ledger)
        await ledger.mark(claims[0])
        await ledger.mark(claims[1])
        change(home.path)
        ledger.settle(accepted(claims[0]))
        with pytest.raises(LedgerError, match="was removed or replaced during the run: all that it held is in"):
            await ledger.mark(claims[2])
        with pytest.raises(LedgerError):
            ledger.settle(accepted(claims[1]))
    assert ledger.unsettled == ()
    rescued = home.path.with_name("news.ledger.rescued")
    assert rescued.stat().st_mode & 0o777 == 0o600
    home.path.with_name(FILES[1]).unlink(missing_ok=True)
    rescued.replace(home.path)
    async with home.open() as ledger:
        found = await states(ledger)
    assert [row for row, state in found.items() if state is RowState.ACCEPTED] == list(range(1, ROWS // 2 + 3))
    assert found[claims[2].recipient.row] is RowState.PENDING


async def test_a_removed_ledger_does_not_begin_anew(home: Folder) -> None:
    """FT-55: the next command says what to do; it is not run against an empty ledger."""
    async with running(home) as ledger:
        (claim,) = await ledger.claim(1)
        home.path.unlink()
        with pytest.raises(LedgerError):
            await ledger.mark(claim)
    with pytest.raises(LedgerError, match=r"is gone, .*: rename news\.ledger\.rescued to news\.ledger"):
        await accepted_rows(home)


@pytest.mark.parametrize("lost", ["news.ledger-wal", "news.ledger"])
def test_a_process_that_was_killed_leaves_a_stamp(tmp_path: Path, lost: str) -> None:
    """FT-55: SIGKILL, then a file is lost, then the same program again."""
    path = tmp_path / "news.ledger"
    command = (*VICTIM, "run", str(path), "2000")
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        for _ in range(200):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    path.with_name(lost).unlink()
    ended = subprocess.run(command, capture_output=True, cwd=ROOT, check=False, text=True, env={**os.environ})
    assert ended.returncode
    assert "LedgerError" in ended.stderr
    assert "restore" in ended.stderr
