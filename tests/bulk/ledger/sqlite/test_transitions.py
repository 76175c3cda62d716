"""Transitions as statements: the rows that they change, and those that are salvaged after a failure."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncsmtp.bulk.ledger.interfaces import RowState, Settlement
from asyncsmtp.bulk.ledger.loading import Loader
from asyncsmtp.bulk.ledger.sqlite.ledger_file import open_file
from asyncsmtp.bulk.ledger.sqlite.store import SqliteQueries
from asyncsmtp.bulk.ledger.sqlite.writer import run_script, salvage_transitions, write_transitions
from asyncsmtp.bulk.ledger.transitions import Transition
from tests.bulk.ledger.ledgers import recipient

RUN, NOW = 7, 1_800_000_000_000_000


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A ledger of 1200 rows, over three batches."""
    connection = open_file(tmp_path / "news.ledger")
    queries = SqliteQueries(1)
    loader = Loader(queries, "news", {}, "example.org")
    for step in (queries.begin(), loader.insert([recipient(row) for row in range(1, 1201)]), loader.finish()):
        run_script(connection, step, {"campaign": 1, "now": NOW})
    yield connection
    connection.close()


def mark(row: int) -> Transition:
    return Transition(row, RowState.PENDING, RowState.SENDING, 1)


def settle(row: int, state: RowState) -> Transition:
    return Transition(row, RowState.SENDING, state, 0, Settlement(row, state, 250, "2.0.0", "Ok", "relay.example:587"))


def found(connection: sqlite3.Connection) -> dict[int, RowState]:
    """The rows that are not pending."""
    return {
        row: RowState(state) for row, state in connection.execute("SELECT seq, state FROM delivery WHERE state > 0")
    }


@pytest.mark.parametrize("number", [1, 2, 3, 255, 256, 257, 1200])
def test_only_these_rows_are_changed(connection: sqlite3.Connection, number: int) -> None:
    """Statements have few sizes; the rows that fill one up match nothing."""
    rows = range(1201 - number, 1201)
    write_transitions(connection, [mark(row) for row in rows], RUN, NOW)
    assert found(connection) == dict.fromkeys(rows, RowState.SENDING)


def test_a_transition_finds_its_row_by_the_key(connection: sqlite3.Connection) -> None:
    """A scan for each commit would make its cost grow with the campaign."""
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    write_transitions(connection, [mark(row) for row in range(1, 101)], RUN, NOW)
    connection.set_trace_callback(None)
    (update,) = statements
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {update}")]
    assert "SEARCH delivery USING PRIMARY KEY (campaign_id=? AND batch_no=? AND seq=?)" in plan


def test_salvage_writes_outcomes_and_no_marks(connection: sqlite3.Connection) -> None:
    """BL-08: row 1 was in flight; row 2 was refused before its mark was durable; row 3 was only marked."""
    write_transitions(connection, [mark(1)], RUN, NOW)
    lost = mark(3)
    failed = [settle(1, RowState.ACCEPTED), mark(2), settle(2, RowState.REJECTED), lost]
    left = salvage_transitions(connection, failed, RUN, NOW)
    assert found(connection) == {1: RowState.ACCEPTED, 2: RowState.REJECTED}
    assert [change.settlement for change in left] == [None, None]
    assert lost in left


def test_an_outcome_that_does_not_apply_remains(connection: sqlite3.Connection) -> None:
    """An outcome is written or reported, one of the two."""
    stray = settle(1, RowState.ACCEPTED)
    assert salvage_transitions(connection, [stray], RUN, NOW) == [stray]
    assert found(connection) == {}
