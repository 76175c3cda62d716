"""A claim costs the database as little at the end of 200,000 rows as at their beginning."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from asyncsmtp.bulk.ledger.interfaces import RowState
from asyncsmtp.bulk.ledger.postgres.store import PostgresQueries
from asyncsmtp.bulk.ledger.queries import Script, Statement
from tests.bulk.ledger.ledgers import readers
from tests.bulk.ledger.postgres.homes import Cluster
from tests.interop.postgres import Postgres

ROWS = 200_000
BATCH = 500
PLACES = {"start": 0, "middle": ROWS // 2, "end": ROWS - 2000}
MAX_ROWS = 3 * BATCH  # that one step of the plan may handle for a claim of 500: those that it skips are few
MAX_MILLISECONDS = 20.0

FILL = f"""
INSERT INTO recipient SELECT 1, (n - 1) / {BATCH}, n, 'reader' || n || '@example.net', 'reader' || n || '@example.net',
  md5(n::text) || '@example.org', '{{"email": "x"}}' FROM generate_series(11, {ROWS}) AS n;
INSERT INTO delivery (campaign_id, batch_no, seq)
  SELECT 1, (n - 1) / {BATCH}, n FROM generate_series(11, {ROWS}) AS n;"""


@pytest.fixture
async def database(postgres: Postgres) -> Postgres:
    """A campaign of 200,000 rows, all pending, in a database that holds another one of the same size."""
    async with Cluster(postgres).open() as ledger:
        await ledger.load(readers(10))
    postgres.execute(f"SET search_path = asyncsmtp; {FILL}")
    postgres.execute(
        "SET search_path = asyncsmtp; INSERT INTO recipient SELECT 2, batch_no, seq, address, dedupe,"
        " message_id, vars FROM recipient; INSERT INTO delivery SELECT 2, batch_no, seq FROM delivery"
    )
    return postgres


def steps(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from steps(part)


def explain(database: Postgres, script: Script[object]) -> tuple[float, int, int]:
    """Run the first statement of a script; return its milliseconds, the rows of its largest step, and of its result."""
    statement = next(script)
    assert isinstance(statement, Statement)
    values = {"campaign": 1, "run": 1, "now": 1_900_000_000_000_000, **statement.values}
    with psycopg.connect(database.url, options="-c search_path=asyncsmtp") as connection:
        found = []
        for _ in range(3):  # another process may have the processor at the moment
            row = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement.sql}", values).fetchone()
            assert row is not None
            (whole,) = row[0] if not isinstance(row[0], str) else json.loads(row[0])
            found.append(whole)
    best = min(found, key=lambda each: each["Execution Time"])
    largest = max(
        (step["Actual Rows"] + step.get("Rows Removed by Filter", 0)) * step["Actual Loops"]
        for step in steps(best["Plan"])
    )
    return best["Execution Time"], int(largest), int(best["Plan"]["Actual Rows"])


SCRIPTS: dict[str, Callable[[PostgresQueries, int], Script[Any]]] = {
    "pending": lambda queries, after: queries.read_claims(after, BATCH),
    "to be looked up": lambda queries, after: queries.read_unsent(after),
    "due": lambda queries, after: queries.read_due(BATCH),
}


@pytest.mark.slow
async def test_a_claim_reads_the_rows_that_it_returns(database: Postgres) -> None:
    """FT-64: at the start, in the middle and at the end, without statistics and with; by the clock of the server."""
    for is_analyzed in (False, True):  # a load ends with it, but another program may have written the rows
        for name, after in PLACES.items():
            time, largest, result = explain(database, SCRIPTS["pending"](PostgresQueries(1), after))
            assert result == BATCH
            assert largest <= MAX_ROWS, name
            assert time <= MAX_MILLISECONDS, (name, time)
            print(f"claim({BATCH}) at the {name}: {time:.1f} ms")
            if is_analyzed:
                _, largest, result = explain(database, SCRIPTS["to be looked up"](PostgresQueries(1), after))
                assert result == min(5000, ROWS - after)
                assert largest <= result + MAX_ROWS, name
        database.execute("ANALYZE asyncsmtp.recipient, asyncsmtp.delivery")


@pytest.mark.slow
async def test_rows_that_are_settled_are_passed_by_once(database: Postgres) -> None:
    """FT-64: half of the campaign is accepted, and the statistics know it or not."""
    accept = f"UPDATE asyncsmtp.delivery SET state = {RowState.ACCEPTED:d} WHERE campaign_id = 1 AND mod(seq, 2) = 0"
    database.execute("ANALYZE asyncsmtp.recipient, asyncsmtp.delivery")
    for statement in (accept, "ANALYZE asyncsmtp.delivery"):
        database.execute(statement)
        time, largest, result = explain(database, SCRIPTS["pending"](PostgresQueries(1), ROWS // 2))
        assert result == BATCH
        assert largest <= MAX_ROWS
        assert time <= MAX_MILLISECONDS


@pytest.mark.slow
async def test_rows_that_are_due_are_found_by_their_time(database: Postgres) -> None:
    """FT-64: the first 500 of 20,000 deferred rows."""
    database.execute(
        f"UPDATE asyncsmtp.delivery SET state = {RowState.DEFERRED:d}, next_us = 1800000000000000 + seq"
        " WHERE campaign_id = 1 AND mod(seq, 10) = 0"
    )
    database.execute("ANALYZE asyncsmtp.delivery")
    time, largest, result = explain(database, SCRIPTS["due"](PostgresQueries(1), 0))
    assert result == BATCH
    assert largest <= MAX_ROWS
    assert time <= MAX_MILLISECONDS


def test_every_limit_over_a_join_is_in_a_subselect() -> None:
    """FT-64: a query that is added later is held to it as well."""
    from asyncsmtp.bulk.ledger import queries

    texts = [text for text in vars(queries).values() if isinstance(text, str) and "LIMIT" in text and "{join}" in text]
    assert len(texts) >= 3
    for text in texts:
        assert not re.search(r"LIMIT[^)]*\Z", text), text
