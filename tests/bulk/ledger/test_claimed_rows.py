"""Claimed rows: the transitions that a row may make, and no others."""

from __future__ import annotations

import itertools

import pytest

from asyncsmtp.bulk.ledger.interfaces import ALLOWED_TRANSITIONS, Claim, RowState
from asyncsmtp.bulk.ledger.transitions import ClaimedRows
from asyncsmtp.errors import LedgerError
from tests.bulk.ledger.ledgers import recipient


def claim(row: int) -> Claim:
    return Claim(recipient(row), f"id{row}@example.org", 1)


def claimed(*numbers: int, state: RowState = RowState.PENDING) -> ClaimedRows:
    rows = ClaimedRows()
    rows.claim((claim(number), state) for number in numbers)
    return rows


IMPOSSIBLE = [
    (before, after)
    for before, after in itertools.product(ALLOWED_TRANSITIONS, RowState)
    if after not in ALLOWED_TRANSITIONS[before]
]


@pytest.mark.parametrize(("before", "after"), IMPOSSIBLE, ids=lambda state: str(state))
def test_a_transition_that_is_not_in_the_table_is_a_bug(before: RowState, after: RowState) -> None:
    """T0 to T10 and nothing else."""
    rows = claimed(1, state=RowState.PENDING if before is RowState.SENDING else before)
    if before is RowState.SENDING:
        rows.advance(1, RowState.SENDING)
    with pytest.raises(LedgerError, match=f"row 1 cannot go from {before} to {after}: this is a bug"):
        rows.advance(1, after)


def test_only_a_marked_row_becomes_accepted_or_in_doubt() -> None:
    """Invariants I1 and I2, as the table has them."""
    for after in (RowState.ACCEPTED, RowState.IN_DOUBT):
        assert [before for before in ALLOWED_TRANSITIONS if after in ALLOWED_TRANSITIONS[before]] == [RowState.SENDING]


def test_a_row_is_claimed_once() -> None:
    rows = claimed(1, 2)
    assert [one.recipient.row for one in rows.claim((claim(row), RowState.PENDING) for row in (2, 3))] == [3]


def test_released_rows_are_claimed_in_file_order() -> None:
    rows = claimed(1, 2, 3)
    for row in (3, 1, 2):
        rows.release(row, tried=False)
    assert [one.recipient.row for one in rows.claim_released(2)] == [1, 2]
    assert [one.recipient.row for one in rows.claim_released(2)] == [3]


def test_a_released_row_cannot_change() -> None:
    """Until it is claimed again."""
    rows = claimed(1)
    rows.release(1, tried=False)
    for step in (
        lambda: rows.release(1, tried=False),
        lambda: rows.advance(1, RowState.SENDING),
        lambda: rows.advance(2, RowState.SENDING),
    ):
        with pytest.raises(LedgerError, match="is not claimed"):
            step()
