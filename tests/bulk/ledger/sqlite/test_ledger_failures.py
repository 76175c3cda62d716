"""The ledger when the disk, the file or another program fails: it stops, reports it, and loses nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from asyncsmtp.bulk.ledger.interfaces import RowState
from asyncsmtp.bulk.ledger.sqlite import ledger_file, writer
from asyncsmtp.bulk.ledger.sqlite.store import SqliteLedger
from asyncsmtp.errors import LedgerError
from tests.bulk.ledger.ledgers import accepted, claim_all, deferred, entries, readers, states
from tests.bulk.ledger.sqlite.test_ledger import Folder

VICTIM = (sys.executable, "-m", "tests.bulk.ledger.sqlite.ledger_victim")
ROOT = Path(__file__).parents[4]


@pytest.fixture
def home(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def reported(output: str, word: str) -> list[int]:
    """Return the rows in the lines that begin with `word`."""
    return [int(row) for line in output.splitlines() if line.split()[0] == word for row in line.split()[1:]]


async def outcomes(path: Path) -> dict[int, RowState]:
    """Read a ledger that no process has open, before recovery."""
    async with await SqliteLedger.read(path) as reader:
        return await states(reader)


def kill_after(lines: int, path: Path) -> str:
    """Send a thousand rows in another process, kill it when it has printed so many lines, and return its output."""
    with subprocess.Popen([*VICTIM, "run", str(path), "1000"], stdout=subprocess.PIPE, cwd=ROOT) as victim:
        assert victim.stdout is not None
        heard = [victim.stdout.readline() for _ in range(lines)]
        victim.kill()
        heard += victim.stdout.readlines()
    return b"".join(line for line in heard if line.endswith(b"\n")).decode()


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=20, check=False)


class TestKilled:
    @pytest.mark.parametrize("lines", [2, 50, 700, 1900])
    async def test_what_was_acknowledged_is_in_the_file(self, tmp_path: Path, lines: int) -> None:
        """Invariant I1: kill -9 after some acknowledgements; each is found, and at most one more for each sender."""
        path = tmp_path / "news.ledger"
        output = kill_after(lines, path)
        marked, settled = reported(output, "marked"), reported(output, "settled")
        found = await outcomes(path)
        assert len(found) == 1000
        assert {found[row] for row in marked} <= {RowState.SENDING, RowState.ACCEPTED}
        assert {found[row] for row in settled} <= {RowState.ACCEPTED}
        unheard = [row for row, state in found.items() if state is not RowState.PENDING and row not in marked]
        assert len(unheard) <= 20

    async def test_a_killed_process_leaves_no_lock(self, tmp_path: Path) -> None:
        """The system releases the lock with the process; its disk reserve is used again."""
        path = tmp_path / "news.ledger"
        kill_after(1, path)
        async with await SqliteLedger.open(path, name="news", from_domain="example.org") as ledger:
            assert ledger.loaded
        assert sorted(os.listdir(tmp_path)) == ["news.ledger", "news.ledger.lock"]


class TestFullDisk:
    async def test_the_last_outcomes_are_written(self, tmp_path: Path) -> None:
        """BL-08: no mark on a full disk; every queued outcome is written in the space of the disk reserve."""
        disk, kept = tmp_path / "disk", tmp_path / "kept"
        disk.mkdir()
        kept.mkdir()
        self.need_a_small_disk(disk)
        script = (
            f"mount -t tmpfs -o size=4m none {disk} && {sys.executable} -m tests.bulk.ledger.sqlite.ledger_victim"
            f" starve {disk}/news.ledger 3000; status=$?; cp {disk}/news.ledger* {kept};"
            " exit $status"
        )
        done = run("unshare", "-mr", "sh", "-c", script)
        assert done.returncode == 0, done.stderr
        assert "the disk is full: free at least" in done.stdout
        assert "SQLITE_FULL" in done.stdout
        marked = reported(done.stdout, "marked")
        assert reported(done.stdout, "unsettled") == []
        assert reported(done.stdout, "refused") == list(range(41, 61))
        assert reported(done.stdout, "closed") == []
        found = await outcomes(kept / "news.ledger")
        settled = set(range(1, 61)) | set(marked)
        assert {row for row, state in found.items() if state is RowState.ACCEPTED} == settled
        assert RowState.SENDING not in found.values()

    def need_a_small_disk(self, disk: Path) -> None:
        probe = ["unshare", "-mr", "mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)]
        if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True, check=False).returncode:
            pytest.skip("no small disk can be mounted here")

    async def test_outcomes_that_cannot_be_written_are_reported(self, home: Folder) -> None:
        """BL-08: not even the disk reserve helps; the caller has the outcomes, and can print them."""
        async with home.open() as ledger:
            await ledger.load(readers(3000))
            claims = await claim_all(ledger)
            await asyncio.gather(*map(ledger.mark, claims))
            await no_more_pages(ledger)
            for claim in claims:
                ledger.settle(accepted(claim))
            with pytest.raises(LedgerError, match="the disk is full"):
                await ledger.flush()
            assert [settlement.row for settlement in ledger.unsettled] == list(range(1, 3001))

    async def test_a_load_on_a_full_disk_leaves_no_campaign(self, home: Folder) -> None:
        async with home.open() as ledger:
            await no_more_pages(ledger)
            with pytest.raises(LedgerError, match="the disk is full"):
                await ledger.load(readers(3000))
        async with home.open() as ledger:
            assert not ledger.loaded


async def no_more_pages(ledger: SqliteLedger) -> None:
    """Make SQLite report SQLITE_FULL when the file would have to grow."""
    await ledger._store.call(lambda connection: connection.execute("PRAGMA max_page_count = 1").fetchall())


class TestFailingDisk:
    @pytest.mark.parametrize("at", [7, 9, 20])
    async def test_a_failed_sync_is_never_tried_again(self, tmp_path: Path, at: int) -> None:
        """BL-09: one fsync fails, and the next would report success for pages that the system has dropped.

        The first ones are those of opening the file.
        """
        if shutil.which("strace") is None:
            pytest.skip("needs strace")
        path, log = tmp_path / "news.ledger", tmp_path / "calls"
        async with await SqliteLedger.open(path, name="news", from_domain="example.org") as ledger:
            await ledger.load(readers(1000))
        inject = f"inject=fdatasync:error=EIO:when={at}"
        done = run("strace", "-f", "-qq", "-o", str(log), "-e", inject, *VICTIM, "run", str(path), "1000")
        if "ptrace" in done.stderr or "PTRACE" in done.stderr:
            pytest.skip("strace may not trace here")
        assert done.returncode == 0, done.stderr
        assert "the disk failed" in done.stdout
        assert "Traceback" not in done.stderr
        found = await outcomes(path)
        marked = reported(done.stdout, "marked")
        assert {found[row] for row in marked} <= {RowState.SENDING, RowState.ACCEPTED}
        unsettled = reported(done.stdout, "unsettled")
        assert set(unsettled) <= set(marked)


class TestDeadThread:
    async def test_everyone_who_waits_gets_the_error(self, home: Folder) -> None:
        """BL-10: whatever ends the thread, within a second every waiter and every later call has the error."""
        async with home.open() as ledger:
            await ledger.load(readers(10))
            claims = await ledger.claim(10)
            await ledger.mark(claims[0])

            def die(connection: sqlite3.Connection) -> None:
                raise SystemExit

            async with asyncio.timeout(1):
                dying = asyncio.create_task(ledger._store.call(die))
                await asyncio.sleep(0)
                ledger.settle(accepted(claims[0]))
                marks = [ledger.mark(claim) for claim in claims[1:]]
                found = await asyncio.gather(dying, *marks, asyncio.shield(ledger.failed), return_exceptions=True)
            assert all(isinstance(error, LedgerError) for error in found)
            assert len(set(map(id, found))) == 1
            later = [lambda: ledger.mark(claims[0]), lambda: ledger.settle(deferred(claims[5]))]
            for call in later:
                with pytest.raises(LedgerError):
                    call()
            for awaitable in (ledger.claim(1), ledger.flush(), ledger.resolve("skip"), entries(ledger)):
                with pytest.raises(LedgerError):
                    await awaitable
            assert [settlement.row for settlement in ledger.unsettled] == [1, 6]
            ledger.release(claims[7])  # nothing to write, so no error

    async def test_a_row_in_a_wrong_state_ends_the_run(self, home: Folder) -> None:
        """Compare and set: another program wrote to the file. No mark that depended on it is acknowledged."""
        async with home.open() as ledger:
            await ledger.load(readers(3))
            first, second, _ = await ledger.claim(3)
            await ledger.mark(second)
            tamper(home.path, "UPDATE delivery SET state = 2 WHERE seq = 1")
            with pytest.raises(LedgerError, match="row 1 is accepted in the ledger, not pending: this is a bug"):
                await ledger.mark(first)

    async def test_a_failure_while_closing_is_raised(self, home: Folder) -> None:
        """It could not be raised before."""
        closing = home.open()
        ledger = await closing.__aenter__()
        await ledger.load(readers(1))
        (claim,) = await ledger.claim(1)
        tamper(home.path, "DELETE FROM delivery")
        ledger.settle(deferred(claim))
        with pytest.raises(LedgerError, match="row 1 is not there in the ledger, not pending: this is a bug"):
            await closing.__aexit__(None, None, None)
        async with home.open():
            pass  # and the lock is free


class TestLockedFile:
    async def test_a_backup_only_delays(self, home: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
        """BL-12: marks wait, outcomes are kept, and all is written when the backup is done."""
        monkeypatch.setattr(ledger_file, "BUSY_TIMEOUT", 0.02)
        async with home.open() as ledger:
            await ledger.load(readers(2))
            first, second = await ledger.claim(2)
            await ledger.mark(first)
            release, held = threading.Event(), threading.Event()
            backup = asyncio.create_task(asyncio.to_thread(lock_file, home.path, held, release))
            await asyncio.to_thread(held.wait)
            ledger.settle(accepted(first))
            mark = ledger.mark(second)
            done, _ = await asyncio.wait([mark], timeout=0.2)
            assert not done
            release.set()
            await mark
            await backup
            assert await states(ledger) == {1: RowState.ACCEPTED, 2: RowState.SENDING}

    async def test_a_lock_that_stays_ends_the_run(self, home: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
        """A person must end the other program; the outcomes are not lost meanwhile."""
        monkeypatch.setattr(ledger_file, "BUSY_TIMEOUT", 0.02)
        monkeypatch.setattr(writer, "LOCKED_TIMEOUT", 0.1)
        async with home.open() as ledger:
            await ledger.load(readers(1))
            (claim,) = await ledger.claim(1)
            await ledger.mark(claim)
            release, held = threading.Event(), threading.Event()
            browser = asyncio.create_task(asyncio.to_thread(lock_file, home.path, held, release))
            await asyncio.to_thread(held.wait)
            ledger.settle(accepted(claim))
            started = time.monotonic()
            with pytest.raises(LedgerError, match="another program keeps the file locked"):
                await ledger.flush()
            assert time.monotonic() - started < 1
            assert [settlement.row for settlement in ledger.unsettled] == [1]
            release.set()
            await browser


def tamper(path: Path, statement: str) -> None:
    """Write to the file as another program."""
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


def lock_file(path: Path, held: threading.Event, release: threading.Event) -> None:
    """Lock the file, as a backup tool or a database browser does."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    held.set()
    release.wait()
    connection.execute("ROLLBACK")
    connection.close()
