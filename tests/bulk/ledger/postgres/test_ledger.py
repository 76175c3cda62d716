"""The ledger in PostgreSQL: the conformance suite."""

from __future__ import annotations

import pytest

from asyncsmtp.bulk.ledger.interfaces import RowState
from tests.bulk.ledger.copies_conformance import CopiesConformance
from tests.bulk.ledger.ledger_conformance import Home, LedgerConformance
from tests.bulk.ledger.ledgers import readers, states
from tests.bulk.ledger.postgres.homes import Cluster
from tests.interop.postgres import Postgres


@pytest.fixture
def home(postgres: Postgres) -> Cluster:
    return Cluster(postgres)


class TestPostgresLedger(LedgerConformance):
    """All of the suite, except that a database may have several campaigns."""

    async def test_another_campaigns_ledger_is_refused(self, home: Home) -> None:
        async with home.open() as ledger, home.open(name="offers") as other:
            await ledger.load(readers(3))
            assert not other.loaded
            await other.load(readers(2))
            assert (await ledger.counts()).total == 3
            assert len(await ledger.claim(10)) == 3
            assert (await other.counts()).total == 2
            (claim, _) = await other.claim(10)
            await other.mark(claim)
            assert await states(ledger) == dict.fromkeys((1, 2, 3), RowState.PENDING)


class TestCopies(CopiesConformance):
    """All of the suite about Cc and Bcc."""
