"""DuplicateCounter, counted in a few octets a row."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsmtp.bulk.recipients.preflight import DuplicateCounter


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), max_size=60), st.integers(0, 5))
def test_it_counts_what_a_dict_would(numbers: list[int], show: int) -> None:
    """TF-11: the first row of a mailbox is mailed, each later one repeats that row."""
    met: dict[int, int] = {}
    expected = [(row, met[n]) for row, n in enumerate(numbers, 1) if met.setdefault(n, row) != row]
    duplicates = DuplicateCounter()
    for row, number in enumerate(numbers, 1):
        duplicates.add(row, f"bob{number}@example.com")
    assert duplicates.count(show) == (len(expected), tuple(expected[:show]))
