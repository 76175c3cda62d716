"""The steps of the rows in hand, each as a change to be written: the same rules whatever keeps the rows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

from asyncsmtp.bulk.keeping.change import Change
from asyncsmtp.bulk.keeping.hand import Hand
from asyncsmtp.bulk.keeping.queue import Queue
from asyncsmtp.bulk.keeping.times import microseconds
from asyncsmtp.bulk.ledger import Claim, Settlement
from asyncsmtp.bulk.states import Counts, State

__all__ = ["Steps", "Tally"]


class Steps:
    """Takes rows from state to state: `Ledger.mark`, `settle`, `give_back` and `put_off`."""

    def __init__(self, queue: Queue, hand: Hand) -> None:
        self._queue = queue
        self._hand = hand

    def mark(self, claim: Claim) -> asyncio.Future[None]:
        """Say that the end of this row's content is about to be written; done when that is durable."""
        row = claim.recipient.row
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        change = Change(row, self._hand.advance(row, State.SENDING), State.SENDING, 1, done=done)
        self._queue.put(change, urgent=True)
        return done

    def settle(self, settlement: Settlement) -> None:
        """Write what became of a row in hand; durable before any mark made later."""
        row, after = settlement.row, settlement.state
        before = self._hand.advance(row, after)
        self._hand.drop(row)
        tried = before is not State.SENDING and (settlement.code is not None or after is State.DEFERRED)
        self._queue.put(Change(row, before, after, tried, settlement), urgent=False)

    def give_back(self, claim: Claim, *, tried: bool) -> None:
        """A row in hand is pending again, and may be claimed again in this run.

        A mark that is durable already is taken back. That is safe here and nowhere else: this process knows
        that it did not write the end of the content, so there is no point of no return to be in doubt about
        (delivery invariants I4 and I5); if it dies before this is durable, the row is found SENDING, and held.
        """
        if self._queue.failure is not None:
            return
        row = claim.recipient.row
        before = self._hand.give_back(row, tried=tried)
        marked = before is State.SENDING
        if marked or tried:
            after = State.PENDING if marked else before
            self._queue.put(Change(row, before, after, tried - marked), urgent=False)

    def put_off(self, claim: Claim, until: datetime) -> None:
        """A row in hand that was not tried is to come at another time, in this run or in a later one."""
        row = claim.recipient.row
        state = self._hand.put_off(row)
        self._queue.put(Change(row, state, state, due=microseconds(until)), urgent=False)


class Tally:
    """How many rows are in each state: counted once, and kept in step with what is written."""

    def __init__(self, counts: Counts) -> None:
        self._numbers = dict(counts)

    @property
    def counts(self) -> Counts:
        """As it stands."""
        return Counts(self._numbers)

    def reset(self, counts: Counts) -> None:
        """It was counted anew."""
        self._numbers = dict(counts)

    def written(self, changes: Sequence[Change]) -> None:
        """These are durable."""
        for change in changes:
            self.move(change.before, change.after, 1)

    def move(self, before: State, after: State, number: int) -> None:
        """So many rows went from one state to another."""
        self._numbers[before] -= number
        self._numbers[after] += number
