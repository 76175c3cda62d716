"""The rows in hand: each step a row may take, and no other."""

from __future__ import annotations

import itertools

import pytest

from asyncsmtp.bulk.keeping.hand import Hand
from asyncsmtp.bulk.ledger import Claim
from asyncsmtp.bulk.states import FOLLOWS, State
from asyncsmtp.errors import LedgerError
from tests.bulk.ledgers import recipient


def claim(row: int) -> Claim:
    return Claim(recipient(row), f"id{row}@example.org", 1)


def holding(*rows: int, state: State = State.PENDING) -> Hand:
    hand = Hand()
    hand.take((claim(row), state) for row in rows)
    return hand


IMPOSSIBLE = [(before, after) for before, after in itertools.product(FOLLOWS, State) if after not in FOLLOWS[before]]


@pytest.mark.parametrize(("before", "after"), IMPOSSIBLE, ids=lambda state: str(state))
def test_a_step_that_is_not_in_the_table_is_a_bug(before: State, after: State) -> None:
    """T0 to T10 and nothing else."""
    hand = holding(1, state=State.PENDING if before is State.SENDING else before)
    if before is State.SENDING:
        hand.advance(1, State.SENDING)
    with pytest.raises(LedgerError, match=f"row 1 cannot go from {before} to {after}: this is a bug"):
        hand.advance(1, after)


def test_doubt_and_acceptance_come_only_from_what_was_marked() -> None:
    """I1 and I2, as the table has it."""
    for after in (State.ACCEPTED, State.IN_DOUBT):
        assert [before for before in FOLLOWS if after in FOLLOWS[before]] == [State.SENDING]


def test_a_row_is_in_hand_once() -> None:
    hand = holding(1, 2)
    assert [held.recipient.row for held in hand.take((claim(row), State.PENDING) for row in (2, 3))] == [3]


def test_rows_given_back_come_in_the_order_of_the_file() -> None:
    hand = holding(1, 2, 3)
    for row in (3, 1, 2):
        hand.give_back(row, tried=False)
    assert [held.recipient.row for held in hand.again(2)] == [1, 2]
    assert [held.recipient.row for held in hand.again(2)] == [3]


def test_a_row_given_back_is_nobodys() -> None:
    """Until it is claimed again."""
    hand = holding(1)
    hand.give_back(1, tried=False)
    for step in (
        lambda: hand.give_back(1, tried=False),
        lambda: hand.advance(1, State.SENDING),
        lambda: hand.advance(2, State.SENDING),
    ):
        with pytest.raises(LedgerError, match="is not in hand"):
            step()
