"""A large ledger that was closed well is opened without reading its rows; any other one is checked and counted."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from asyncsmtp.bulk.ledger.interfaces import Counts, InDoubt, RowState
from asyncsmtp.bulk.ledger.sqlite import ledger_file, store
from asyncsmtp.bulk.ledger.sqlite.ledger_file import MIN_TRUSTED_ROWS
from asyncsmtp.bulk.ledger.sqlite.store import SqliteLedger
from asyncsmtp.errors import LedgerError
from tests.bulk.ledger.copies_conformance import CopiesConformance
from tests.bulk.ledger.ledger_conformance import LedgerConformance
from tests.bulk.ledger.ledgers import accepted, in_doubt, readers
from tests.bulk.ledger.sqlite.test_ledger import Folder

COUNT = "SELECT state, count(*) FROM delivery GROUP BY state"


@pytest.fixture
def home(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> list[Counts]:
    """Trust ledgers of any size; what was trusted must be what a count of the rows finds."""
    found: list[Counts] = []
    read_end = ledger_file.read_end

    def read(connection: sqlite3.Connection, modified: int) -> Counts | None:
        counts = read_end(connection, modified)
        if counts is not None:
            numbers = {RowState(state): number for state, number in connection.execute(COUNT)}
            assert counts == Counts(numbers)
            assert connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
            found.append(counts)
        return counts

    monkeypatch.setattr(ledger_file, "MIN_TRUSTED_ROWS", 0)
    monkeypatch.setattr(store, "read_end", read)
    return found


@pytest.mark.usefixtures("trusted")
class TestTrustedLedger(LedgerConformance):
    """All of the suite, with each ledger that was closed trusted when it is opened again."""


@pytest.mark.usefixtures("trusted")
class TestTrustedCopies(CopiesConformance):
    """All of the suite about Cc and Bcc, in the same way."""


async def run_once(home: Folder, *, policy: InDoubt = InDoubt.HOLD) -> None:
    """A run that leaves one row accepted, one in doubt, the others pending."""
    async with home.open(in_doubt=policy) as ledger:
        if not ledger.loaded:
            await ledger.load(readers(10))
        first, second = await ledger.claim(2)
        for claim, settlement in ((first, accepted(first)), (second, in_doubt(second))):
            await ledger.mark(claim)
            ledger.settle(settlement)


async def test_a_ledger_that_was_closed_is_trusted(home: Folder, trusted: list[Counts]) -> None:
    """Run after run."""
    for number in range(1, 4):
        await run_once(home)
        async with home.open() as ledger:
            assert ledger.recovery.held == number
            counts = await ledger.counts()
        assert (counts[RowState.ACCEPTED], counts[RowState.IN_DOUBT]) == (number, number)
        assert trusted[-1] == counts
    assert len(trusted) == 5


async def test_rows_in_doubt_are_sent_again_where_the_policy_says_so(home: Folder, trusted: list[Counts]) -> None:
    await run_once(home)
    async with home.open(in_doubt=InDoubt.RESEND) as ledger:
        assert (ledger.recovery.resent, ledger.recovery.held) == (1, 0)
        assert (await ledger.counts())[RowState.PENDING] == 9
    assert trusted


async def test_a_killed_run_is_not_trusted(home: Folder, trusted: list[Counts]) -> None:
    """Its rows are counted, and what was under way is in doubt, though the run before it ended well."""
    await run_once(home)
    async with home.open() as ledger:
        await ledger.mark((await ledger.claim(1))[0])
        home.crash()
    trusted.clear()
    async with home.open() as ledger:
        assert ledger.recovery.found == 1
    assert not trusted


@pytest.mark.parametrize("how", ["by a statement", "as bytes", "copied", "restored"])
async def test_a_file_that_was_written_since_is_not_trusted(home: Folder, trusted: list[Counts], how: str) -> None:
    """A person with a database browser, a disk that was repaired, a copy: its time is another one."""
    await run_once(home)
    expected = 8
    if how == "by a statement":
        with closing(sqlite3.connect(home.path)) as connection, connection:
            connection.execute("UPDATE delivery SET state = 6 WHERE seq = 9")
        expected = 7
    elif how == "as bytes":
        home.path.write_bytes(home.path.read_bytes())
    else:
        shutil.copy(home.path, home.path.with_name("copy"))
        home.path.with_name("copy").replace(home.path)
    async with home.open() as ledger:
        assert (await ledger.counts())[RowState.PENDING] == expected
    assert not trusted
    async with home.open():
        assert trusted  # that one was closed well


async def test_a_ledger_that_is_read_while_it_is_closed_is_counted_right(home: Folder, trusted: list[Counts]) -> None:
    """Its log may stay, and then the file alone does not have everything."""
    await run_once(home)
    trusted.clear()
    async with await SqliteLedger.read(home.path) as reader:
        await reader.counts()
        await run_once(home)
        trusted.clear()
        assert (await reader.counts())[RowState.ACCEPTED] == 2
    async with home.open() as ledger:
        assert (await ledger.counts())[RowState.ACCEPTED] == 2


async def test_damage_is_found(home: Folder, trusted: list[Counts]) -> None:
    """Also in a file of the same size, a moment after it was closed."""
    await run_once(home)
    octets = bytearray(home.path.read_bytes())
    octets[4096 * 2 : 4096 * 3] = bytes(4096)
    home.path.write_bytes(octets)
    with pytest.raises(LedgerError, match="damaged"):
        async with home.open():
            pass
    assert not trusted


async def test_the_run_of_another_program_is_not_trusted(home: Folder, trusted: list[Counts]) -> None:
    """An older asyncsmtp leaves no counts; those of the run before it are not its."""
    await run_once(home)
    with closing(sqlite3.connect(home.path)) as connection, connection:
        connection.execute("UPDATE campaign SET run = run + 1")
        connection.execute("UPDATE delivery SET state = 6 WHERE seq = 9")
        (saved,) = connection.execute("SELECT json_extract(value, '$.modified') FROM memory WHERE name = 'closed'")
    os.utime(home.path, ns=(saved[0], saved[0]))
    async with home.open() as ledger:
        assert (await ledger.counts())[RowState.PENDING] == 7
    assert not trusted


@pytest.mark.parametrize("value", ["", "[]", "{}", '{"run": 1}', '{"run": 2, "modified": 1, "counts": 3}'])
async def test_a_value_that_cannot_be_read_is_not_trusted(home: Folder, trusted: list[Counts], value: str) -> None:
    await run_once(home)
    with closing(sqlite3.connect(home.path)) as connection, connection:
        connection.execute("UPDATE memory SET value = ? WHERE name = 'closed'", (value,))
    os.utime(home.path, ns=(1, 1))
    async with home.open() as ledger:
        assert (await ledger.counts())[RowState.PENDING] == 8
    assert not trusted


async def test_a_small_ledger_is_checked_each_time(home: Folder) -> None:
    await run_once(home)
    with closing(sqlite3.connect(home.path)) as connection:
        assert connection.execute("SELECT value FROM memory WHERE name = 'closed'").fetchall() == []


@pytest.mark.slow
async def test_a_large_ledger_is_opened_in_no_time(home: Folder) -> None:
    """In a tenth of the time that its check takes, whatever the machine does besides."""
    async with home.open() as ledger:
        await ledger.load(readers(3 * MIN_TRUSTED_ROWS))
    times = []
    for is_trusted in (True, False):
        if not is_trusted:
            os.utime(home.path)
        began = time.process_time()
        async with home.open() as ledger:
            times.append(time.process_time() - began)
            assert (await ledger.counts())[RowState.PENDING] == 3 * MIN_TRUSTED_ROWS
    assert times[0] <= times[1] / 3
