"""An error of the database in the middle of recovery, a load or a decision leaves nothing behind (FT-83)."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from asyncsmtp.bulk.bounces.dsn import Bounce
from asyncsmtp.bulk.ledger.interfaces import Decision, InDoubt, RowState
from asyncsmtp.bulk.ledger.sqlite.ledger_file import LedgerLock
from asyncsmtp.bulk.ledger.sqlite.store import SqliteLedger
from asyncsmtp.errors import LedgerError
from tests.bulk.ledger.ledgers import batches, claim_all, in_doubt, readers, recipient, rejected, states
from tests.bulk.ledger.sqlite.test_ledger import Folder

ROWS = 12


@pytest.fixture
def home(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def fail_at(path: Path, event: str, condition: str) -> None:
    """Have the database itself fail at one row."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            f"CREATE TRIGGER broken BEFORE {event} ON delivery WHEN {condition}"
            " BEGIN SELECT RAISE(FAIL, 'the page is broken'); END"
        )


def repair(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER broken")


def check_nothing_is_left(path: Path) -> None:
    """The lock is free, the reserve is gone, and no transaction is open."""
    LedgerLock.acquire(path.with_name(f"{path.name}.lock")).release()
    assert not path.with_name(f"{path.name}.ballast").exists()
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("ROLLBACK")


async def leave_sending(home: Folder) -> None:
    """End a process with all rows past their mark."""
    async with home.open() as ledger:
        await ledger.load(readers(ROWS))
        for claim in await claim_all(ledger):
            await ledger.mark(claim)
        home.crash()
    home.path.with_name("news.ledger.lock").touch()  # the tests write to the file, and so remove its log


def stored(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT seq, state, doubts, reply FROM delivery ORDER BY seq").fetchall()
        return [*rows, *connection.execute("SELECT run FROM campaign").fetchall()]


@pytest.mark.parametrize("row", [1, 7, ROWS])
@pytest.mark.parametrize(
    ("policy", "condition"),
    [(InDoubt.HOLD, "NEW.state = 5 AND NEW.seq = {}"), (InDoubt.RESEND, "NEW.state = 0 AND NEW.seq = {}")],
)
async def test_an_error_during_recovery_changes_nothing(
    home: Folder, policy: InDoubt, condition: str, row: int
) -> None:
    """FT-83: neither half a recovery nor a reserve or a lock stays; the next opening recovers all."""
    await leave_sending(home)
    fail_at(home.path, "UPDATE", condition.format(row))
    before = stored(home.path)
    for _ in range(2):
        with pytest.raises(LedgerError, match="the page is broken"):
            async with home.open(in_doubt=policy):
                pass
        check_nothing_is_left(home.path)
        assert stored(home.path) == before
    repair(home.path)
    async with home.open(in_doubt=policy) as ledger:
        assert ledger.recovery.found == ROWS


async def test_an_unexpected_error_during_recovery_changes_nothing(
    home: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FT-83: a bug, or Ctrl-C in the wrong moment, is no other case."""
    await leave_sending(home)
    before = stored(home.path)
    for error in (ZeroDivisionError(), MemoryError()):

        def broken(*_: object, error: BaseException = error) -> None:
            raise error

        with monkeypatch.context() as patched:
            patched.setattr("asyncsmtp.bulk.ledger.queries.Queries.count_rows", broken)
            with pytest.raises(type(error)):
                await home.open().__aenter__()
        check_nothing_is_left(home.path)
    assert [row[:2] for row in stored(home.path)[:ROWS]] == [(row, RowState.IN_DOUBT) for row in range(1, ROWS + 1)]
    assert len(before) == ROWS + 1


Change = Callable[[SqliteLedger], Awaitable[object]]


async def resend_all(ledger: SqliteLedger) -> object:
    return await ledger.resolve(Decision.RESEND, None, (RowState.IN_DOUBT, RowState.REJECTED))


async def skip_some(ledger: SqliteLedger) -> object:
    return await ledger.resolve(Decision.SKIP, range(1, 11))


async def record_bounces(ledger: SqliteLedger) -> object:
    ids = [entry.message_id.partition("@")[0] async for entry in ledger.entries()]
    return await ledger.record_bounces({each: Bounce("", True, "5.1.1", "nobody here", each, ()) for each in ids})


async def add(ledger: SqliteLedger) -> object:
    return await ledger.add(batches([recipient(row, f"new{row}@example.org") for row in range(1, 9)]))


@pytest.mark.parametrize(
    ("change", "event", "condition"),
    [
        (resend_all, "UPDATE", "NEW.seq = 7"),
        (skip_some, "UPDATE", "NEW.seq = 7"),
        (record_bounces, "UPDATE", "NEW.seq = 7"),
        (add, "INSERT", f"NEW.seq = {ROWS + 5}"),
    ],
)
async def test_an_error_half_way_changes_nothing(home: Folder, change: Change, event: str, condition: str) -> None:
    """FT-83: the rows before the bad one are as they were, no transaction stays open, and the ledger has failed."""
    async with home.open() as ledger:
        await ledger.load(readers(ROWS))
        for claim in await claim_all(ledger):
            await ledger.mark(claim)
            ledger.settle(rejected(claim) if claim.recipient.row == 2 else in_doubt(claim))
    fail_at(home.path, event, condition)
    before = stored(home.path)
    async with home.open() as ledger:
        with pytest.raises(LedgerError, match="the page is broken"):
            await change(ledger)
        with closing(sqlite3.connect(home.path, isolation_level=None, timeout=0)) as connection:
            connection.execute("BEGIN IMMEDIATE")  # another program need not wait for this one's end
            connection.execute("ROLLBACK")
        with pytest.raises(LedgerError):
            await ledger.claim(1)
    check_nothing_is_left(home.path)
    assert stored(home.path)[:-1] == before[:-1]
    repair(home.path)
    async with home.open() as ledger:
        await change(ledger)
        assert await states(ledger) != {row: RowState(state) for row, state, *_ in before[:-1]}  # type: ignore[arg-type]


async def test_a_caller_s_error_half_way_changes_nothing(home: Folder) -> None:
    """FT-83: recipients that cannot be read to their end; the ledger can still be used."""

    async def broken() -> object:
        async for batch in readers(600):
            yield batch
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    async with home.open() as ledger:
        for load in (ledger.load, ledger.load):
            with pytest.raises(UnicodeDecodeError):
                await load(broken())  # type: ignore[arg-type]
            with closing(sqlite3.connect(home.path, isolation_level=None, timeout=0)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
        await ledger.load(readers(3))
        assert (await ledger.counts()).total == 3
        with pytest.raises(UnicodeDecodeError):
            await ledger.add(broken())  # type: ignore[arg-type]
        assert (await ledger.counts()).total == 3
        assert len(await ledger.claim(10)) == 3
        assert datetime.now(UTC) > ledger.created_at or ledger.created_at
    check_nothing_is_left(home.path)
