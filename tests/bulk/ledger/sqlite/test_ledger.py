"""The SQLite ledger: the conformance suite, and reading."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from asyncsmtp.bulk.ledger.interfaces import InDoubt, RowState
from asyncsmtp.bulk.ledger.sqlite.store import SqliteLedger
from asyncsmtp.errors import LedgerError
from tests.bulk.ledger.copies_conformance import CopiesConformance
from tests.bulk.ledger.ledger_conformance import LedgerConformance
from tests.bulk.ledger.ledgers import accepted, entries, readers, states


class Folder:
    """A ledger in a folder; after a crash, a copy of what is on the disk."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "news.ledger"
        self.now = 1_800_000_000_000_000

    @asynccontextmanager
    async def open(
        self,
        *,
        in_doubt: InDoubt = InDoubt.HOLD,
        fingerprint: dict[str, str] | None = None,
        name: str = "news",
        suppressions: Sequence[Path] = (),
    ) -> AsyncIterator[SqliteLedger]:
        async with await SqliteLedger.open(
            self.path,
            name=name,
            from_domain="example.org",
            fingerprint=fingerprint,
            in_doubt=in_doubt,
            suppressions=suppressions,
            clock=lambda: self.now,
        ) as ledger:
            yield ledger

    def crash(self) -> None:
        copy = self.path.parent / "after"
        copy.mkdir()
        for file in (self.path, self.path.with_name(f"{self.path.name}-wal")):
            shutil.copy(file, copy)
        self.path = copy / self.path.name


@pytest.fixture
def home(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


class TestSqliteLedger(LedgerConformance):
    """All of the suite."""


class TestCopies(CopiesConformance):
    """All of the suite about Cc and Bcc."""


async def test_a_running_campaign_can_be_read(home: Folder) -> None:
    """`status` and `results` while `bulk` is sending: no lock, no recovery."""
    async with home.open() as ledger:
        await ledger.load(readers(3))
        first, second, _ = await ledger.claim(3)
        await ledger.mark(first)
        ledger.settle(accepted(first))
        await ledger.mark(second)
        async with await SqliteLedger.read(home.path) as reader:
            assert reader.name == "news"
            assert reader.created_at == ledger.created_at
            assert (await reader.counts())[RowState.SENDING] == 1
            assert await states(reader) == {1: RowState.ACCEPTED, 2: RowState.SENDING, 3: RowState.PENDING}
            assert [entry.row for entry in await entries(reader, RowState.ACCEPTED, RowState.PENDING)] == [1, 3]
        ledger.settle(accepted(second))


async def test_a_killed_campaign_can_be_read(home: Folder) -> None:
    """Reading recovers nothing."""
    async with home.open() as ledger:
        await ledger.load(readers(1))
        await ledger.mark((await ledger.claim(1))[0])
        home.crash()
    async with await SqliteLedger.read(home.path) as reader:
        assert await states(reader) == {1: RowState.SENDING}
    async with home.open() as ledger:
        assert ledger.recovery.found == 1


async def test_there_must_be_a_campaign_to_read(home: Folder) -> None:
    with pytest.raises(LedgerError, match="there is no ledger"):
        await SqliteLedger.read(home.path)
    async with home.open():
        with pytest.raises(LedgerError, match="holds no campaign yet"):
            await SqliteLedger.read(home.path)


async def test_entries_of_many_rows_come_in_order(home: Folder) -> None:
    """They are read in parts; rows change meanwhile."""
    async with home.open() as ledger:
        await ledger.load(readers(5000))
        claims = await ledger.claim(5000)
        seen = []
        async for entry in ledger.entries():
            seen.append(entry.row)
            if entry.row == 10:
                await ledger.mark(claims[4999])
        assert seen == list(range(1, 5001))
        assert [entry.row for entry in await entries(ledger, RowState.SENDING)] == [5000]


async def test_two_campaigns_have_their_own_message_ids(tmp_path: Path) -> None:
    """Each has a key of its own: a Message-ID cannot be derived from an address, nor the other way round."""
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        async with Folder(folder).open() as ledger:
            await ledger.load(readers(1))
            found += [claim.message_id for claim in await ledger.claim(1)]
    assert len(set(found)) == 2
