"""Changes as statements: which rows they touch, and what can be saved of those that failed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncsmtp.bulk.keeping.change import Change
from asyncsmtp.bulk.ledger import Settlement
from asyncsmtp.bulk.sqlite.changes import salvage, write
from asyncsmtp.bulk.sqlite.load import Load
from asyncsmtp.bulk.sqlite.schema import open_ledger
from asyncsmtp.bulk.states import State
from tests.bulk.ledgers import recipient

RUN, NOW = 7, 1_800_000_000_000_000


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A ledger of 1200 rows, over three batches."""
    connection = open_ledger(tmp_path / "news.ledger")
    load = Load("news", {}, "example.org", NOW)
    load.begin(connection)
    load.take(connection, [recipient(row) for row in range(1, 1201)])
    load.finish(connection)
    yield connection
    connection.close()


def mark(row: int) -> Change:
    return Change(row, State.PENDING, State.SENDING, 1)


def settle(row: int, state: State) -> Change:
    return Change(row, State.SENDING, state, 0, Settlement(row, state, 250, "2.0.0", "Ok", "relay.example:587"))


def found(connection: sqlite3.Connection) -> dict[int, State]:
    """The rows that are not pending."""
    return {row: State(state) for row, state in connection.execute("SELECT seq, state FROM delivery WHERE state > 0")}


@pytest.mark.parametrize("number", [1, 2, 3, 255, 256, 257, 1200])
def test_every_row_is_changed_and_no_other(connection: sqlite3.Connection, number: int) -> None:
    """Statements come in few sizes; what fills one up touches nothing."""
    rows = range(1201 - number, 1201)
    write(connection, [mark(row) for row in rows], RUN, NOW)
    assert found(connection) == dict.fromkeys(rows, State.SENDING)


def test_a_change_finds_its_row_by_the_key(connection: sqlite3.Connection) -> None:
    """A look at every row for each commit would make the cost grow with the campaign."""
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    write(connection, [mark(row) for row in range(1, 101)], RUN, NOW)
    connection.set_trace_callback(None)
    (update,) = statements
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {update}")]
    assert "SEARCH delivery USING PRIMARY KEY (campaign_id=? AND batch_no=? AND seq=?)" in plan


def test_of_what_failed_the_outcomes_are_saved_and_the_marks_are_not(connection: sqlite3.Connection) -> None:
    """BL-08: row 1 was in flight; row 2 was refused before its mark was durable; row 3 was only marked."""
    write(connection, [mark(1)], RUN, NOW)
    lost = mark(3)
    failed = [settle(1, State.ACCEPTED), mark(2), settle(2, State.REJECTED), lost]
    left = salvage(connection, failed, RUN, NOW)
    assert found(connection) == {1: State.ACCEPTED, 2: State.REJECTED}
    assert [change.settlement for change in left] == [None, None]
    assert lost in left


def test_what_does_not_apply_is_left(connection: sqlite3.Connection) -> None:
    """An outcome is written or reported, one of the two."""
    stray = settle(1, State.ACCEPTED)
    assert salvage(connection, [stray], RUN, NOW) == [stray]
    assert found(connection) == {}
