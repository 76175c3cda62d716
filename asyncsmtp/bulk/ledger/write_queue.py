"""Queue of what is to be written to a ledger: transitions, and calls between them, in the order they were made.

Also `Store`, the database behind it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from asyncsmtp.bulk.ledger.interfaces import Settlement
from asyncsmtp.bulk.ledger.queries import Queries, Script
from asyncsmtp.bulk.ledger.transitions import Transition
from asyncsmtp.errors import LedgerError

__all__ = ["Call", "Store", "WriteQueue", "reject", "resolve", "select_transitions"]

MAX_SETTLE_DELAY = 0.05  # seconds that a settlement may wait for a mark whose commit it can share

_T = TypeVar("_T")


@dataclass(slots=True)
class Call:
    """Work that needs the connection for itself, between two commits; `done` gets its result."""

    function: Callable[..., Any]
    done: asyncio.Future[Any]


class WriteQueue:
    """Queue that is filled on the event loop and emptied in turns by one writer: another thread, or a task.

    A turn takes whatever was queued during the last one, and each run of transitions in it is one commit. That is the
    group commit: nobody waits for a timer, and the cost of a commit is shared by as many rows as came while the last
    one was under way. A mark wakes the writer at once, since a session waits for it. A settlement does not: nobody
    waits for it, and the next mark takes it along. Only if none comes does a timer wake the writer.

    The writer may be another thread. It calls only what is listed below; `deque.append` and `deque.popleft` are atomic,
    and the event loop removes no item before the writer has failed.

    Args:
        place: the ledger's, for messages.
        wake: wakes the writer; called on the event loop.
        on_durable: called on the loop with the transitions of each commit.
    Attributes:
        failure: the error that ended the writer, or None. failed: a future that raises it.
        closing: whether nothing more is accepted; the writer ends when the queue is empty.
    """

    def __init__(
        self, place: object, wake: Callable[[], None], on_durable: Callable[[Sequence[Transition]], None]
    ) -> None:
        self.on_durable = on_durable
        self._place = place
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._items: deque[Transition | Call] = deque()
        self._current: list[Transition | Call] = []
        self._unwritten: list[Transition] = []  # after a failure
        self._timer: asyncio.TimerHandle | None = None
        self.failure: LedgerError | None = None
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self.closing = False

    # Called on the event loop.

    def put(self, transition: Transition, *, urgent: bool) -> None:
        """Queue a transition; an urgent one is committed at once, others within `MAX_SETTLE_DELAY`."""
        if self.failure is not None:
            self._unwritten.append(transition)
        self._check()
        self._items.append(transition)
        if urgent:
            self._wake()
        elif self._timer is None:
            self._timer = self._loop.call_later(MAX_SETTLE_DELAY, self._on_timer)

    def call(self, function: Callable[..., Any]) -> asyncio.Future[Any]:
        """Queue a call of a function; return the future of its result. Raises LedgerError: the writer has failed."""
        self._check()
        done: asyncio.Future[Any] = self._loop.create_future()
        self._items.append(Call(function, done))
        self._wake()
        return done

    def close(self) -> None:
        """Accept nothing more; a second call does nothing."""
        self.closing = True
        if self._timer is not None:
            self._timer.cancel()
        self._wake()

    @property
    def unsettled(self) -> Sequence[Settlement]:
        """After a failure: the outcomes that are not in the ledger, oldest first."""
        return tuple(transition.settlement for transition in self._unwritten if transition.settlement is not None)

    def report_durable(self, transitions: Sequence[Transition]) -> None:
        """Resolve the futures of transitions that are durable."""
        for transition in transitions:
            if transition.done is not None:
                resolve(transition.done, None)
        self.on_durable(transitions)

    def fail(self, failure: LedgerError, unwritten: Iterable[Transition], items: Iterable[Transition | Call]) -> None:
        """End the queue: everyone who waits for `items`, or for what was queued since, gets `failure`."""
        late = self.drain()
        self.failure = failure
        self._unwritten = [*unwritten, *select_transitions(late)]
        for waiter in (*(item.done for item in (*items, *late)), self.failed):
            if waiter is not None:
                reject(waiter, failure)

    def list_unwritten(self) -> list[Transition]:
        """Return the transitions that a last attempt may write after a failure; `report_salvaged` has its result."""
        return [*self._unwritten]

    def report_salvaged(self, attempted: Sequence[Transition], remaining: Sequence[Transition]) -> None:
        """Keep only `remaining` of the attempted transitions; others may have come meanwhile."""
        self._unwritten[: len(attempted)] = remaining

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self.closing:
            raise LedgerError(f"{self._place} is closed already: this is a bug")

    def _on_timer(self) -> None:
        self._timer = None
        if self._items:
            self._wake()

    # Called by the writer.

    def __len__(self) -> int:
        return len(self._items)

    def turn(self) -> Iterator[Call | list[Transition]]:
        """Yield what is queued now: calls, and the transitions between them. Later ones are the next turn's."""
        left = len(self._items)
        while left:
            first = self._items.popleft()
            self._current.append(first)
            if isinstance(first, Transition):
                transitions = [first]
                while len(transitions) < left and isinstance(following := self._items[0], Transition):
                    transitions.append(following)
                    self._current.append(self._items.popleft())
                yield transitions
            else:
                yield first
            left -= len(self._current)
            self._current.clear()

    def drain(self) -> list[Transition | Call]:
        """Remove and return everything that is not done, the current items first."""
        items = [*self._current]
        self._current.clear()
        while self._items:
            items.append(self._items.popleft())
        return items


def select_transitions(items: Iterable[Transition | Call]) -> list[Transition]:
    """Return the transitions among `items`."""
    return [item for item in items if isinstance(item, Transition)]


def resolve(future: asyncio.Future[_T], result: _T) -> None:
    """Set the result, unless the waiter was cancelled."""
    if not future.done():
        future.set_result(result)


def reject(future: asyncio.Future[Any], error: BaseException) -> None:
    """Set the error; no warning is logged if nobody awaits the future."""
    if not future.done():
        future.set_exception(error)
        future.exception()


class Store(Protocol):
    """A database that runs scripts and writes transitions, in the order in which both were queued."""

    @property
    def queries(self) -> Queries: ...
    @property
    def queue(self) -> WriteQueue: ...

    async def read(self, script: Callable[[], Script[_T]]) -> _T:
        """Run a script that changes nothing; it may be run again, on another connection."""

    async def write(self, script: Callable[[], Script[_T]]) -> _T:
        """Run a script as one transaction, durable exactly once; if this is cancelled, it still runs."""

    async def step(self, script: Callable[[], Script[_T]]) -> _T:
        """Run one step of a transaction that the script itself begins or ends; it is never run again."""

    async def rollback(self) -> None:
        """Roll back the transaction that a step began, if there still is one."""

    async def clean(self) -> bool:
        """Write the tables anew, without the bytes of what was removed; return whether none is left in the file."""

    async def aclose(self) -> None:
        """Write what is queued, and close the connection; a second call does nothing."""
