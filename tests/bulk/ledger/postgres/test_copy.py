"""Recipients are loaded by COPY: whatever stands in a cell, and whoever is there already."""

from __future__ import annotations

import pytest

from asyncsmtp.bulk.ledger.interfaces import RowState
from asyncsmtp.bulk.ledger.postgres import store
from tests.bulk.ledger.ledgers import batches, entries, recipient, states
from tests.bulk.ledger.postgres.homes import Cluster
from tests.interop.postgres import Postgres

CELLS = [
    "plain",
    "",
    "\\N",
    "\\.",
    "\\",
    "a\\b\tc\nd\re",
    "\\t\\n\\\\",
    '"quoted", ' + "'both'",
    "zwölf Boxkämpfer \N{BOXING GLOVE}",
    "\x01\x1f\x7f\u2028",
    "%s %(name)s :name",
]


async def test_every_cell_comes_back(postgres: Postgres) -> None:
    """No character is taken for a delimiter, an escape, or the end of the data."""
    async with Cluster(postgres).open() as ledger:
        await ledger.load(batches([recipient(row, note=cell) for row, cell in enumerate(CELLS, 1)], size=3))
        found = [entry.fields["note"] for entry in await entries(ledger)]
    assert found == CELLS


async def test_no_address_is_changed(postgres: Postgres) -> None:
    """Backslashes and quotes of local parts, letters of any script."""
    addresses = ['"a.\\\\b"@example.org', "jörg@example.org", "a'b@example.org", "%s@example.org"]
    async with Cluster(postgres).open() as ledger:
        await ledger.load(batches([recipient(row, address) for row, address in enumerate(addresses, 1)]))
        assert [entry.address for entry in await entries(ledger)] == addresses


@pytest.mark.parametrize("size", [1, 2, 5, 500])
async def test_duplicates_are_found_in_every_batch(postgres: Postgres, size: int) -> None:
    """More batches with one than COPY is tried for, then some without."""
    number = 3 * store.MAX_CONFLICTS
    rows = [recipient(row, f"reader{row % number}@example.net") for row in range(1, 3 * number + 1)]
    rows += [recipient(len(rows) + row, f"new{row}@example.net") for row in range(1, 11)]
    async with Cluster(postgres).open() as ledger:
        counts = await ledger.load(batches(rows, size=size))
        found = await states(ledger)
        replies = {entry.row: entry.reply for entry in await entries(ledger, RowState.SUPPRESSED)}
    assert (counts[RowState.PENDING], counts[RowState.SUPPRESSED]) == (number + 10, 2 * number)
    assert [row for row, state in found.items() if state is RowState.SUPPRESSED] == [*range(number + 1, 3 * number + 1)]
    assert replies[number + 1] == "duplicate of row 1"
    assert replies[3 * number] == f"duplicate of row {number}"


async def test_further_recipients_may_be_there_already(postgres: Postgres) -> None:
    async with Cluster(postgres).open() as ledger:
        await ledger.load(batches([recipient(row) for row in range(1, 11)]))
        counts = await ledger.add(batches([recipient(row) for row in range(8, 13)], size=2))
    assert (counts[RowState.PENDING], counts[RowState.SUPPRESSED]) == (12, 3)
