"""Opening a ledger: only a whole ledger, on this machine, by one process, readable by its owner alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from asyncsmtp.bulk.ledger.interfaces import RowState
from asyncsmtp.bulk.ledger.sqlite import ledger_file
from asyncsmtp.bulk.ledger.sqlite.ledger_file import VERSION, LedgerLock
from asyncsmtp.bulk.ledger.sqlite.store import SqliteLedger
from asyncsmtp.errors import LedgerBusy, LedgerError
from tests.bulk.ledger.ledgers import accepted, batches, claim_all, entries, readers, recipient
from tests.bulk.ledger.sqlite.test_ledger import Folder

VICTIM = (sys.executable, "-m", "tests.bulk.ledger.sqlite.ledger_victim")
ROOT = Path(__file__).parents[4]


@pytest.fixture
def home(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


async def written(home: Folder, rows: int = 50) -> bytes:
    """Return the bytes of a closed ledger."""
    async with home.open() as ledger:
        await ledger.load(readers(rows))
        for claim in await ledger.claim(rows // 2):
            await ledger.mark(claim)
            ledger.settle(accepted(claim))
    return home.path.read_bytes()


async def refused(home: Folder) -> str:
    """Return the reason why it cannot be opened to be written; it must be unchanged."""
    before = home.path.read_bytes()
    with pytest.raises(LedgerError) as caught:
        async with home.open():
            pass
    assert home.path.read_bytes() == before
    LedgerLock.acquire(home.path.with_name(f"{home.path.name}.lock")).release()  # it is free again
    return str(caught.value)


@pytest.mark.slow
async def test_one_of_five_processes_gets_it(tmp_path: Path) -> None:
    """BL-11: started at once; the others end within a second and name the process that has it."""
    path = tmp_path / "news.ledger"
    async with await SqliteLedger.open(path, name="news", from_domain="example.org") as ledger:
        await ledger.load(readers(1))
    processes = [
        await asyncio.create_subprocess_exec(
            *VICTIM, "hold", str(path), "0", stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
        )
        for _ in range(5)
    ]
    said: list[str] = []
    for process in processes:
        assert process.stdout is not None
        said.append((await process.stdout.readline()).decode())
    await asyncio.gather(*(process.communicate(b"") for process in processes))
    winner = said.index("mine\n")
    assert sorted(line.split()[0] for line in said) == ["busy"] * 4 + ["mine"]
    for line in said[:winner] + said[winner + 1 :]:
        assert f"another process (pid {processes[winner].pid}) has news.ledger open: wait until it ends" in line


async def test_a_second_opening_is_refused_at_once(home: Folder) -> None:
    """BL-11: in one process as well, since two writers are two writers."""
    async with home.open():
        started = time.monotonic()
        with pytest.raises(LedgerBusy, match=f"open already in this process .pid {os.getpid()}."):
            async with home.open():
                pass
        assert time.monotonic() - started < 1


async def test_a_cancelled_opening_releases_the_lock(home: Folder) -> None:
    """Ctrl-C while a large ledger is checked."""
    opening = asyncio.create_task(SqliteLedger.open(home.path, name="news", from_domain="example.org"))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    async with asyncio.timeout(5):
        while True:
            with contextlib.suppress(LedgerBusy):
                async with home.open():
                    return


async def test_only_the_owner_may_read(home: Folder) -> None:
    """BL-24: addresses and replies are private, in every file while it is open."""
    os.umask(0o022)
    async with home.open() as ledger:
        await ledger.load(readers(1))
        files = list(home.path.parent.iterdir())
        assert len(files) == 5
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    home.path.chmod(0o644)
    async with home.open():
        assert stat.S_IMODE(home.path.stat().st_mode) == 0o600


async def test_only_the_ledger_and_its_lock_are_left(home: Folder) -> None:
    await written(home)
    assert sorted(file.name for file in home.path.parent.iterdir()) == ["news.ledger", "news.ledger.lock"]


async def test_a_foreign_database_is_refused(home: Folder) -> None:
    """BL-13: somebody's address book has the same name."""
    connection = sqlite3.connect(home.path)
    connection.execute("CREATE TABLE people (name)")
    connection.close()
    assert "is a database, but not a ledger of asyncsmtp: choose another name" in await refused(home)


@pytest.mark.parametrize("octets", [b"email,name\nada@example.org,Ada\n", b"x" * 5000])
async def test_a_file_of_another_kind_is_refused(home: Folder, octets: bytes) -> None:
    home.path.write_bytes(octets)
    assert "it is not a ledger, or it is damaged" in await refused(home)


async def test_what_is_durable_is_synchronised(home: Folder) -> None:
    """BL-03: FULL: in WAL mode NORMAL would lose the last commits with the power, and they would be sent again."""
    async with home.open() as ledger:
        settings = await ledger._store.call(
            lambda connection: [
                connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")
            ]
        )
    assert settings == [2, "wal"]


async def test_a_newer_ledger_is_refused(home: Folder) -> None:
    """BL-13: an older asyncsmtp does not know what its rows mean."""
    await written(home)
    connection = sqlite3.connect(home.path)
    connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    assert f"made by a newer asyncsmtp (schema {VERSION + 1}, this one knows {VERSION}): upgrade" in await refused(home)


async def test_a_ledger_of_the_first_schema_is_upgraded(home: Folder) -> None:
    """An upgrade in the middle of a campaign loses nobody; also one that was killed between two of its steps."""
    await written(home)
    connection = sqlite3.connect(home.path)
    connection.executescript("DROP INDEX due; DROP TABLE memory; PRAGMA user_version = 1")
    connection.close()
    async with await SqliteLedger.read(home.path) as reader:
        before = await reader.counts()
        assert await reader.next_due() is not None
        assert await reader.halted_rows() == frozenset()  # FT-31: there is no table for them yet
    async with home.open() as ledger:
        assert await ledger.counts() == before
    connection = sqlite3.connect(home.path)
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    assert connection.execute("SELECT name FROM memory").fetchall() == [("keys",)]
    connection.close()


async def test_a_ledger_written_by_version_0_1_resumes(home: Folder) -> None:
    """Killed with row 4 past its mark. It has a table that newer ledgers do not have, and that was never used."""
    with contextlib.closing(sqlite3.connect(home.path)) as connection:
        connection.executescript(Path(__file__).with_name("ledger-0.1.sql").read_text("utf-8"))
        connection.execute("PRAGMA journal_mode = WAL")
    home.now = 1_800_000_000_000_000
    async with await SqliteLedger.read(home.path) as reader:
        assert reader.name == "news"
        assert (await reader.counts())[RowState.SENDING] == 1
    async with home.open(fingerprint={"message.html": "1"}) as ledger:
        assert ledger.created_at == datetime(2027, 1, 15, 8, tzinfo=UTC)
        assert (ledger.recovery.found, ledger.recovery.held) == (1, 1)
        found = {entry.row: entry for entry in await entries(ledger)}
        assert {row: str(entry.state) for row, entry in found.items()} == {
            1: "accepted",
            2: "rejected",
            3: "deferred",
            4: "in doubt",
            5: "deferred",
            6: "pending",
            7: "pending",
            8: "pending",
            9: "suppressed",
            10: "rejected",
        }
        assert (found[1].code, found[1].status, found[1].host) == (250, "2.0.0", "relay.example:587")
        assert found[9].reply == "duplicate of row 1"
        assert await ledger.read_value("pace") == "{}"
        assert [(claim.recipient.row, claim.attempt) for claim in await claim_all(ledger)] == [(5, 2), (7, 1), (8, 1)]
        home.now += 1_800_000_000  # half an hour: row 6 is due
        assert [(claim.recipient.row, claim.attempt) for claim in await claim_all(ledger)] == [(6, 1)]
        counts = await ledger.add(batches([recipient(1, "reader2@EXAMPLE.net"), recipient(2, "new@example.net")]))
        assert (counts.total, counts[RowState.SUPPRESSED]) == (12, 2)
        (claim,) = await claim_all(ledger)
        await ledger.mark(claim)
        ledger.settle(accepted(claim))
        assert claim.message_id.endswith("@example.org")


async def test_a_new_ledger_has_only_tables_that_are_used(home: Folder) -> None:
    await written(home)
    with contextlib.closing(sqlite3.connect(home.path)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
    assert [name for (name,) in tables] == ["campaign", "delivery", "memory", "recipient"]


async def test_an_empty_file_is_not_a_new_campaign(home: Folder) -> None:
    """A ledger that lost its contents must not lead to everyone being mailed again."""
    await written(home)
    home.path.write_bytes(b"")
    assert "is empty, so it is no ledger any more" in await refused(home)


async def test_a_truncated_ledger_is_refused(home: Folder) -> None:
    """BL-13: cut at each multiple of 512 bytes."""
    whole = await written(home)
    for length in range(512, len(whole), 512):
        home.path.write_bytes(whole[:length])
        why = await refused(home)
        assert "damaged" in why


@pytest.mark.slow
async def test_flipped_bits_raise_only_ledger_errors(home: Folder) -> None:
    """BL-13: damage that a check can see is refused; other damage is only another text or number."""
    whole = await written(home, 20)
    for place_ in range(0, len(whole), 397):
        octets = bytearray(whole)
        octets[place_] ^= 0x41
        home.path.write_bytes(octets)
        with contextlib.suppress(LedgerError):
            async with home.open() as ledger:
                await ledger.claim(100)
                await entries(ledger)
        for leftover in home.path.parent.glob("*-*"):
            leftover.unlink()


async def test_a_network_file_system_is_refused(home: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """BL-13: WAL needs memory that all processes with the file open share."""
    mounts = home.path.parent / "mounts"
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {home.path.parent.resolve()} nfs4 rw 0 0\n")
    monkeypatch.setattr(ledger_file, "MOUNTS", mounts)
    with pytest.raises(LedgerError, match=r"on a network file system \(nfs4\).*put it on a local disk"):
        async with home.open():
            pass
    assert list(home.path.parent.iterdir()) == [mounts]


async def test_a_missing_folder_is_reported(home: Folder) -> None:
    home.path = home.path.parent / "gone" / "news.ledger"
    with pytest.raises(LedgerError, match="cannot be created: No such file"):
        async with home.open():
            pass


async def test_half_a_ledger_is_replaced(home: Folder) -> None:
    """A crash before the tables were there: the file gets its name when it is whole."""
    home.path.with_name("news.ledger.new").write_bytes(b"half")
    home.path.with_name("news.ledger.new-wal").write_bytes(b"half")
    async with home.open() as ledger:
        assert (await ledger.load(readers(1)))[RowState.PENDING] == 1


async def test_special_characters_in_a_name_are_quoted(home: Folder) -> None:
    """SQLite is given a URI, in which ?, # and % have a meaning."""
    home.path = home.path.parent / "50% off? #1 ü.ledger"
    await written(home)
    assert home.path.exists()
    shutil.copy(home.path, home.path.parent / "copy.ledger")
    async with await SqliteLedger.read(home.path.parent / "copy.ledger") as reader:
        assert (await reader.counts()).total == 50


async def test_the_ledger_has_the_cells_of_the_file_and_no_more(home: Folder) -> None:
    """BL-24: rows, addresses and replies; no bodies pass through here."""
    async with home.open() as ledger:
        await ledger.load(batches([recipient(1, note="line one\nline two \U0001f600")]))
        (entry,) = await entries(ledger)
        assert dict(entry.fields) == {
            "email": "reader1@example.net",
            "name": "Reader 1",
            "note": "line one\nline two \U0001f600",
        }


async def test_a_process_that_has_not_written_its_pid_has_the_ledger_too(home: Folder) -> None:
    """It may have begun a moment ago."""
    path = home.path.with_name("news.ledger.lock")
    lock = LedgerLock.acquire(path)
    os.truncate(path, 0)
    with pytest.raises(LedgerBusy, match=r"^another process has news\.ledger open: wait until it ends"):
        LedgerLock.acquire(path)
    lock.release()
