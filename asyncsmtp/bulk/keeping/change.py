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
    """The values of one change, in the order of the statements' columns; 0 and "" where there is nothing to say.

    Plain numbers and texts: a driver looks for an adapter for anything else, be it None, a bool or a State, which
    costs ten times as much, with the interpreter's lock held.
    """

    seq: int
    old: int
    new: int
    tried: int = 0
    doubt: int = 0
    code: int = 0
    status: str = ""
    reply: str = ""
    host: str = ""
    due: int = 0
    put_off: int = 0


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
        old, new = int(self.before if before is None else before), int(self.after)
        said, tried = self.settlement, int(self.tried)
        if said is None:
            return Written(self.row, old, new, tried, due=self.due or 0, put_off=int(self.due is not None))
        reply, host = safe_text(said.reply, _REPLY), safe_text(said.host, _REPLY)
        doubt = int(self.after is State.IN_DOUBT)
        due = 0 if said.due_at is None else microseconds(said.due_at)
        return Written(self.row, old, new, tried, doubt, said.code or 0, said.status or "", reply, host, due)


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
