"""An error of the database in the middle of recovery or a decision leaves nothing behind (FT-83)."""

from __future__ import annotations

import pytest

from asyncsmtp.bulk.ledger.interfaces import Decision, InDoubt, RowState
from asyncsmtp.errors import LedgerError
from tests.bulk.ledger.ledgers import claim_all, in_doubt, readers
from tests.bulk.ledger.postgres.homes import Cluster
from tests.interop.postgres import Postgres

ROWS = 12


def fail_at(postgres: Postgres, condition: str) -> None:
    """Have the database itself fail at one row."""
    postgres.execute(
        "CREATE FUNCTION asyncsmtp.fail() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'the page is broken'; END $$"
    )
    postgres.execute(
        f"CREATE TRIGGER broken BEFORE UPDATE ON asyncsmtp.delivery FOR EACH ROW WHEN ({condition})"
        " EXECUTE FUNCTION asyncsmtp.fail()"
    )


def repair(postgres: Postgres) -> None:
    postgres.execute("DROP FUNCTION asyncsmtp.fail() CASCADE")


def stored(postgres: Postgres) -> list[tuple[object, ...]]:
    return postgres.execute("SELECT seq, state, doubts, reply FROM asyncsmtp.delivery ORDER BY seq")


def open_transactions(postgres: Postgres) -> int:
    """Return the number of other sessions that are in a transaction."""
    ((number,),) = postgres.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        " AND state IN ('idle in transaction', 'idle in transaction (aborted)')"
    )
    assert isinstance(number, int)
    return number


@pytest.mark.parametrize(
    ("policy", "condition"),
    [(InDoubt.HOLD, "NEW.state = 5 AND NEW.seq = 7"), (InDoubt.RESEND, "NEW.state = 0 AND NEW.seq = 7")],
)
async def test_an_error_during_recovery_changes_nothing(postgres: Postgres, policy: InDoubt, condition: str) -> None:
    """FT-83: the session is closed, and with it the campaign's lock; the next opening recovers all."""
    home = Cluster(postgres)
    async with home.open() as ledger:
        await ledger.load(readers(ROWS))
        for claim in await claim_all(ledger):
            await ledger.mark(claim)
        home.crash()
    fail_at(postgres, condition)
    before = stored(postgres)
    for _ in range(2):
        with pytest.raises(LedgerError, match="the page is broken"):
            async with home.open(in_doubt=policy):
                pass
        assert stored(postgres) == before
        assert open_transactions(postgres) == 0
    repair(postgres)
    async with home.open(in_doubt=policy) as ledger:
        assert ledger.recovery.found == ROWS


@pytest.mark.parametrize("decision", Decision)
async def test_an_error_half_way_through_a_decision_changes_nothing(postgres: Postgres, decision: Decision) -> None:
    """FT-83: the rows before the bad one are as they were, and no transaction stays open."""
    home = Cluster(postgres)
    async with home.open() as ledger:
        await ledger.load(readers(ROWS))
        for claim in await claim_all(ledger):
            await ledger.mark(claim)
            ledger.settle(in_doubt(claim))
    fail_at(postgres, "NEW.seq = 7")
    before = stored(postgres)
    async with home.open() as ledger:
        with pytest.raises(LedgerError, match="the page is broken"):
            await ledger.resolve(decision)
        assert stored(postgres) == before
        assert open_transactions(postgres) == 0
    repair(postgres)
    async with home.open() as ledger:
        assert await ledger.resolve(decision) == ROWS
        assert (await ledger.counts())[RowState.IN_DOUBT] == 0
