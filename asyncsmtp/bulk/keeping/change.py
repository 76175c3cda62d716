"""What a run says of a row: from one state to another, and what is written with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from asyncsmtp.bulk.keeping.times import microseconds
from asyncsmtp.bulk.ledger import Settlement
from asyncsmtp.bulk.states import State
from asyncsmtp.protocol.replies import safe_text

__all__ = ["BATCH", "Change", "Written", "groups"]

BATCH = 500  # rows of one batch_no
_MOST = 256  # rows of one statement
_REPLY = 512  # characters


class Written(NamedTuple):
    """The values of one change, in the order of the statements' columns."""

    seq: int
    old: int
    new: int
    tried: int
    doubt: int
    code: int | None
    status: str | None
    reply: str | None
    host: str | None
    due: int | None
    put_off: bool


@dataclass(slots=True)
class Change:
    """One row goes from one state to another.

    Attributes:
        before: the state that the row must have; anything else is a bug.
        tried: what it adds to the attempts.
        settlement: what came of it; None for a mark, for one taken back, and for a row that is put off.
        due: of one that is put off: until when, microseconds since 1970.
        done: resolved when the change is durable.
    """

    row: int
    before: State
    after: State
    tried: int = 0
    settlement: Settlement | None = None
    due: int | None = None
    done: asyncio.Future[None] | None = None

    def values(self, before: State | None = None) -> Written:
        """What is written; `before` where the row has another state than it was to have."""
        old = self.before if before is None else before
        said, tried = self.settlement, int(self.tried)
        if said is None:
            put_off = self.due is not None
            return Written(self.row, old, self.after, tried, 0, None, None, None, None, self.due, put_off)
        reply, host = safe_text(said.reply, _REPLY), safe_text(said.host, _REPLY)
        doubt = int(self.after is State.IN_DOUBT)
        due = None if said.due_at is None else microseconds(said.due_at)
        return Written(self.row, old, self.after, tried, doubt, said.code, said.status, reply, host, due, False)


def groups(changes: Sequence[Change]) -> Iterator[list[Change]]:
    """Cut where a row comes a second time, or a statement would be too long: within a group the order is free."""
    group: list[Change] = []
    rows: set[int] = set()
    for change in changes:
        if change.row in rows or len(group) == _MOST:
            yield group
            group, rows = [], set()
        group.append(change)
        rows.add(change.row)
    yield group
