"""Where the rows of a campaign stand, what may follow what, and how many are where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntEnum

from asyncsmtp.protocol.delivery import Outcome

__all__ = ["FOLLOWS", "Counts", "State"]


class State(IntEnum):
    """Where one row stands; the numbers are those in the file. `str(state)` is the word for people."""

    PENDING = 0
    SENDING = 1  # marked: its content may be past the point of no return
    ACCEPTED = 2
    DEFERRED = 3
    REJECTED = 4
    IN_DOUBT = 5
    SUPPRESSED = 6

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")

    @classmethod
    def of(cls, outcome: Outcome) -> State:
        """The state of a row whose transaction ended so."""
        return cls[outcome.name]


FOLLOWS: Mapping[State, frozenset[State]] = {
    State.PENDING: frozenset({State.SENDING, State.DEFERRED, State.REJECTED}),
    State.DEFERRED: frozenset({State.SENDING, State.DEFERRED, State.REJECTED}),
    State.SENDING: frozenset({State.ACCEPTED, State.DEFERRED, State.REJECTED, State.IN_DOUBT, State.PENDING}),
}
"""What a run may make of a row it has in hand. Out of IN_DOUBT lead only recovery's policy and a person's decision.

SENDING -> PENDING is `give_back`: only the process that made the mark can know that the end of the
content was never written. Nobody else may, so recovery never takes this way.
"""


class Counts(Mapping[State, int]):
    """How many rows are in each state; every state is there."""

    __slots__ = ("_numbers",)

    def __init__(self, numbers: Mapping[State, int] | None = None) -> None:
        given = numbers or {}
        self._numbers = {state: given.get(state, 0) for state in State}

    def __getitem__(self, state: State) -> int:
        return self._numbers[state]

    def __iter__(self) -> Iterator[State]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def total(self) -> int:
        """All the rows of the file."""
        return sum(self._numbers.values())

    def __repr__(self) -> str:
        return f"Counts({', '.join(f'{state}: {n}' for state, n in self._numbers.items() if n)})"
