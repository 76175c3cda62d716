"""Numbers in a ledger, which tell copies from rows of the file."""

from __future__ import annotations

import pytest

from asyncsmtp.bulk.ledger.interfaces import COPIES_PER_ROW, FIRST_COPY, find_file_row, list_numbers, number_copy
from asyncsmtp.bulk.ledger.transitions import BATCH_SIZE, COPY_BATCH, OUTCOME_NAME, batch_number
from asyncsmtp.mail.templates.address_lists import MAX_COPIES

LAST = 10**9  # rows of a file


@pytest.mark.parametrize("number", [1, 2, 17, 500, 501, 10**9])
def test_a_number_tells_its_row(number: int) -> None:
    """No table is needed for it; the numbers of two rows are apart."""
    assert {*map(find_file_row, list_numbers(number))} == {number}
    assert number_copy(number, COPIES_PER_ROW) < number_copy(number + 1, 1)


def test_the_numbers_fit() -> None:
    """In a batch number of 32 bits, in the name of an outcome, and a row may have as many copies as are allowed."""
    assert MAX_COPIES <= COPIES_PER_ROW
    assert LAST < FIRST_COPY
    last = number_copy(LAST, COPIES_PER_ROW)
    assert batch_number(last) < 2**31 - 1
    assert len(OUTCOME_NAME % (0, last)) == len(OUTCOME_NAME % (0, 1))


def test_a_batch_of_rows_has_whole_batches_of_copies() -> None:
    """So the results can be read in the order of the file."""
    for batch in (0, 1, 2000):
        first, last = batch * BATCH_SIZE + 1, (batch + 1) * BATCH_SIZE
        assert batch_number(number_copy(first, 1)) == COPY_BATCH + batch * COPIES_PER_ROW
        assert batch_number(number_copy(last, COPIES_PER_ROW)) == COPY_BATCH + (batch + 1) * COPIES_PER_ROW - 1
