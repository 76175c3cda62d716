"""Which rows name a mailbox that an earlier row named, in twelve octets a row."""

from __future__ import annotations

from array import array
from heapq import nsmallest

__all__ = ["Duplicates"]

_BUCKETS = 256


class Duplicates:
    """Remembers a 64-bit hash and the row of each key, by the last octet of the hash.

    A million keys as text in a set are 110 MB, here they are 12 MB. Two keys with one hash would be
    counted as a duplicate: among a million keys the chance is 1 in 37 million. The count is for a
    person to read before anything is sent; who is mailed is decided by the ledger, on the keys themselves.
    """

    def __init__(self) -> None:
        self._hashes = [array("q") for _ in range(_BUCKETS)]
        self._rows = [array("I") for _ in range(_BUCKETS)]

    def add(self, row: int, key: str) -> None:
        """Remember one row; rows come in their order."""
        hashed = hash(key)
        self._hashes[hashed % _BUCKETS].append(hashed)
        self._rows[hashed % _BUCKETS].append(row)

    def count(self, first: int) -> tuple[int, tuple[tuple[int, int], ...]]:
        """How many rows repeat an earlier one; and of the first few, in order, the row and the one it repeats."""
        total = 0
        pairs: list[tuple[int, int]] = []
        for hashes, rows in zip(self._hashes, self._rows, strict=True):
            if len(set(hashes)) == len(hashes):
                continue
            met: dict[int, int] = {}
            found = [
                (row, earlier)
                for hashed, row in zip(hashes, rows, strict=True)
                if (earlier := met.setdefault(hashed, row)) != row
            ]
            total += len(found)
            pairs = nsmallest(first, pairs + found)
        return total, tuple(pairs)
