"""What waits to be written in a ledger: changes, and calls between them, in the order in which they were said."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from asyncsmtp.bulk.keeping.change import Change
from asyncsmtp.bulk.ledger import Settlement
from asyncsmtp.errors import LedgerError

__all__ = ["Call", "Queue", "changes_of", "refuse", "resolve"]

RIDE = 0.05  # seconds that a settlement may wait for a mark to ride with

_T = TypeVar("_T")


class Call(Protocol):
    """Something that wants the connection for itself, between two commits."""

    @property
    def done(self) -> asyncio.Future[Any]:
        """Resolved with what came of it."""


class Queue:
    """Filled on the event loop, emptied by one worker in turns: another thread, or a task.

    Args:
        place: the ledger's, for messages.
        hurry: wakes the worker.
        written: called on the loop with the changes of each commit.
    Attributes:
        failure: what ended the worker, if anything did. failed: raises it.
        closing: whether nothing more is taken; the worker ends when all is done.
    """

    def __init__(self, place: object, hurry: Callable[[], None], written: Callable[[Sequence[Change]], None]) -> None:
        self._place = place
        self._hurry = hurry
        self._written = written
        self._loop = asyncio.get_running_loop()
        self._items: deque[Change | Call] = deque()
        self._doing: list[Change | Call] = []
        self._left: list[Change] = []  # after a failure: what was not written
        self._ride: asyncio.TimerHandle | None = None
        self.failure: LedgerError | None = None
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self.closing = False

    # What the event loop calls.

    def put(self, change: Change, *, urgent: bool) -> None:
        """Queue a change; an urgent one is committed at once, another one `RIDE` later at the latest."""
        if self.failure is not None:
            self._left.append(change)
        self._check()
        self._items.append(change)
        if urgent:
            self._hurry()
        elif self._ride is None:
            self._ride = self._loop.call_later(RIDE, self._ride_over)

    def call(self, call: Call) -> None:
        """Queue a call; whoever made it waits for `call.done`. Raises LedgerError: the worker has failed."""
        self._check()
        self._items.append(call)
        self._hurry()

    def close(self) -> None:
        """Take nothing more; a second time does nothing."""
        self.closing = True
        if self._ride is not None:
            self._ride.cancel()
        self._hurry()

    @property
    def unsettled(self) -> Sequence[Settlement]:
        """After a failure: the outcomes that are not in the ledger, oldest first."""
        return tuple(change.settlement for change in self._left if change.settlement is not None)

    def durable(self, changes: Sequence[Change]) -> None:
        """These are written: tell whoever waits."""
        for change in changes:
            if change.done is not None:
                resolve(change.done, None)
        self._written(changes)

    def fail(self, failure: LedgerError, left: Iterable[Change], items: Iterable[Change | Call]) -> None:
        """The worker has ended: tell whoever waits, for the `items` that it had and for what came since."""
        late = self.drain()
        self.failure = failure
        self._left = [*left, *changes_of(late)]
        for waiter in (*(item.done for item in (*items, *late)), self.failed):
            if waiter is not None:
                refuse(waiter, failure)

    def unwritten(self) -> list[Change]:
        """After a failure: what a last attempt may write; `salvaged` says what came of it."""
        return [*self._left]

    def salvaged(self, tried: Sequence[Change], left: Sequence[Change]) -> None:
        """Of the unwritten only these are left; others may have come meanwhile."""
        self._left[: len(tried)] = left

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self.closing:
            raise LedgerError(f"{self._place} is closed already: this is a bug")

    def _ride_over(self) -> None:
        self._ride = None
        if self._items:
            self._hurry()

    # What the worker calls.

    def __len__(self) -> int:
        return len(self._items)

    def turn(self) -> Iterator[Call | list[Change]]:
        """What is queued now: calls, and the changes between them; what comes meanwhile is the next turn's."""
        left = len(self._items)
        while left:
            first = self._items.popleft()
            self._doing.append(first)
            if isinstance(first, Change):
                changes = [first]
                while len(changes) < left and isinstance(following := self._items[0], Change):
                    changes.append(following)
                    self._doing.append(self._items.popleft())
                yield changes
            else:
                yield first
            left -= len(self._doing)
            self._doing.clear()

    def drain(self) -> list[Change | Call]:
        """Take out everything that is not done, what was being done first."""
        items = [*self._doing]
        self._doing.clear()
        while self._items:
            items.append(self._items.popleft())
        return items


def changes_of(items: Iterable[Change | Call]) -> list[Change]:
    """The changes among them."""
    return [item for item in items if isinstance(item, Change)]


def resolve(future: asyncio.Future[_T], result: _T) -> None:
    """Tell whoever waits, if he still does."""
    if not future.done():
        future.set_result(result)


def refuse(future: asyncio.Future[Any], error: Exception) -> None:
    """Tell whoever waits what went wrong; where nobody does, that is no fault."""
    if not future.done():
        future.set_exception(error)
        future.exception()
