"""The rows one process has in hand, and where each stands: in memory, as recovery needs no trace of it."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from asyncsmtp.bulk.ledger import Claim
from asyncsmtp.bulk.states import FOLLOWS, State
from asyncsmtp.errors import LedgerError

__all__ = ["Hand"]


@dataclass(slots=True)
class _Held:
    claim: Claim
    state: State
    idle: bool = False  # given back, and not claimed again


class Hand:
    """Which rows are in hand. Every step that a row cannot take is an error: it would be a bug of ours.

    Attributes:
        last: the last row that was read from the file in its order; the next ones come behind it.
    """

    def __init__(self) -> None:
        self.last = 0
        self._rows: dict[int, _Held] = {}
        self._idle: list[int] = []  # a heap

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, found: Iterable[tuple[Claim, State]], limit: int | None = None) -> list[Claim]:
        """Take rows from the file in hand, `limit` at most; those that are already are passed over."""
        new = ((claim, state) for claim, state in found if claim.recipient.row not in self._rows)
        claims = []
        for claim, state in islice(new, limit):
            self._rows[claim.recipient.row] = _Held(claim, state)
            claims.append(claim)
        return claims

    def again(self, limit: int) -> list[Claim]:
        """Take rows in hand again that were given back, in the order of the file."""
        claims: list[Claim] = []
        while self._idle and len(claims) < limit:
            held = self._rows[heapq.heappop(self._idle)]
            held.idle = False
            claims.append(held.claim)
        return claims

    def rewind(self) -> None:
        """Read the file from its beginning: rows behind us may be pending again."""
        self.last = 0

    def advance(self, row: int, after: State) -> State:
        """A row goes to `after`; return the state it had.

        Raises:
            LedgerError: it is not in hand, or cannot go there.
        """
        held = self._rows.get(row)
        if held is None or held.idle:
            raise LedgerError(f"row {row} is not in hand: this is a bug")
        before = held.state
        if after not in FOLLOWS[before]:
            raise LedgerError(f"row {row} cannot go from {before} to {after}: this is a bug")
        held.state = after
        return before

    def drop(self, row: int) -> None:
        """A row is settled."""
        del self._rows[row]

    def put_off(self, row: int) -> State:
        """A row leaves the hand as it came; return its state.

        Raises:
            LedgerError: it is not in hand, or it was marked.
        """
        held = self._rows.get(row)
        if held is None or held.idle or held.state not in (State.PENDING, State.DEFERRED):
            raise LedgerError(f"row {row} cannot be put off: this is a bug")
        del self._rows[row]
        return held.state

    def give_back(self, row: int, *, tried: bool) -> State:
        """A row may be claimed again; return the state it had."""
        held = self._rows.get(row)
        if held is None or held.idle:
            raise LedgerError(f"row {row} is not in hand: this is a bug")
        before = held.state
        if before is State.SENDING:
            held.state = State.PENDING
        if tried:
            held.claim = held.claim._replace(attempt=held.claim.attempt + 1)
        held.idle = True
        heapq.heappush(self._idle, row)
        return before
