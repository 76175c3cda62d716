"""P5: a ledger against a model of it, through crashes (invariants I1 to I5 of delivery).

The model is a list of what was said. After a crash the file must be the outcome of some beginning of that list,
and one that is long enough: whatever was acknowledged is in it.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from asyncsmtp.bulk.ledger.interfaces import Claim, Counts, Decision, InDoubt, RowState, Settlement
from asyncsmtp.bulk.ledger.sqlite.store import SqliteLedger
from tests.bulk.ledger.ledgers import entries, readers
from tests.bulk.ledger.sqlite.test_ledger import Folder

ROWS = 8


@dataclass(frozen=True)
class Row:
    """The expected contents of one row."""

    state: RowState = RowState.PENDING
    attempts: int = 0
    doubts: int = 0
    run: int = 0


T = TypeVar("T")
Rows = dict[int, Row]


class LedgerMachine(RuleBasedStateMachine):
    """Everything that a run may do with its rows, in any order, with crashes in between."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        self.folder = Path(tempfile.mkdtemp())
        self.home = Folder(self.folder)
        self.run_no = 1
        self.history: list[Rows] = []  # since everything was last durable
        self.sure = 0  # the history up to here must survive
        self.hand: dict[int, Claim] = {}
        self.idle: set[int] = set()  # released in this run
        self.copies = 0

    @property
    def rows(self) -> Rows:
        return self.history[-1]

    def says(self, row: int, **changes: object) -> None:
        changed = replace(self.rows[row], run=self.run_no, **changes)  # type: ignore[arg-type]
        self.history.append({**self.rows, row: changed})

    def settled(self) -> None:
        """Note that everything so far is durable."""
        self.sure = len(self.history) - 1

    def open(self, policy: InDoubt) -> SqliteLedger:
        return self.loop.run_until_complete(self.stack.enter_async_context(self.home.open(in_doubt=policy)))

    @initialize()
    def load(self) -> None:
        self.ledger = self.open(InDoubt.HOLD)
        self.loop.run_until_complete(self.ledger.load(readers(ROWS)))
        self.history = [{row: Row() for row in range(1, ROWS + 1)}]

    @rule(limit=st.integers(1, ROWS))
    def claim(self, limit: int) -> None:
        claims = self.loop.run_until_complete(self.ledger.claim(limit))
        free = [
            row
            for row, known in self.rows.items()
            if row not in self.hand
            and (known.state is RowState.PENDING or (known.state is RowState.DEFERRED and known.run < self.run_no))
        ]
        rows = [claim.recipient.row for claim in claims]
        assert rows == sorted(rows)
        assert set(rows) <= set(free)
        assert bool(rows) == bool(free)
        for claim in claims:
            assert claim.attempt == self.rows[claim.recipient.row].attempts + 1
            self.hand[claim.recipient.row] = claim
            self.idle.discard(claim.recipient.row)

    def pick(self, which: int, *states: RowState) -> int | None:
        """Return one of the claimed rows; what is drawn must not depend on what survived a crash."""
        rows = [row for row in sorted(self.hand) if self.rows[row].state in states]
        return rows[which % len(rows)] if rows else None

    @rule(which=st.integers(0, ROWS - 1), wait=st.booleans())
    def mark(self, which: int, wait: bool) -> None:
        row = self.pick(which, RowState.PENDING, RowState.DEFERRED)
        if row is None:
            return
        done = self.in_loop(lambda: self.ledger.mark(self.hand[row]))
        self.says(row, state=RowState.SENDING, attempts=self.rows[row].attempts + 1)
        if wait:
            self.loop.run_until_complete(done)
            self.settled()

    @rule(
        which=st.integers(0, ROWS - 1),
        after=st.sampled_from([RowState.ACCEPTED, RowState.DEFERRED, RowState.REJECTED, RowState.IN_DOUBT]),
    )
    def settle_what_was_marked(self, which: int, after: RowState) -> None:
        row = self.pick(which, RowState.SENDING)
        if row is None:
            return
        self.in_loop(lambda: self.ledger.settle(Settlement(row, after, 250)))
        self.says(row, state=after, doubts=self.rows[row].doubts + (after is RowState.IN_DOUBT))
        del self.hand[row]

    @rule(
        which=st.integers(0, ROWS - 1),
        after=st.sampled_from([RowState.DEFERRED, RowState.REJECTED]),
        answered=st.booleans(),
    )
    def settle_before_the_mark(self, which: int, after: RowState, answered: bool) -> None:
        row = self.pick(which, RowState.PENDING, RowState.DEFERRED)
        if row is None:
            return
        self.in_loop(lambda: self.ledger.settle(Settlement(row, after, 550 if answered else None)))
        tried = answered or after is RowState.DEFERRED
        self.says(row, state=after, attempts=self.rows[row].attempts + tried)
        del self.hand[row]

    @rule(which=st.integers(0, ROWS - 1), tried=st.booleans())
    def give_back(self, which: int, tried: bool) -> None:
        row = self.pick(which, RowState.PENDING, RowState.DEFERRED, RowState.SENDING)
        if row is None:
            return
        claim, before = self.hand.pop(row), self.rows[row]
        self.idle.add(row)
        self.in_loop(lambda: self.ledger.release(claim, tried=tried))
        if before.state is RowState.SENDING:
            self.says(row, state=RowState.PENDING, attempts=before.attempts - (not tried))
        elif tried:
            self.says(row, attempts=before.attempts + 1)
            self.given_back_deferred(row, before)

    def given_back_deferred(self, row: int, before: Row) -> None:
        """A deferred row that was tried and released may still be tried by this run."""
        if before.state is RowState.DEFERRED:
            self.history[-1][row] = replace(self.rows[row], run=self.run_no - 1)

    @rule()
    def flush(self) -> None:
        self.loop.run_until_complete(self.ledger.flush())
        self.settled()

    @rule(
        decision=st.sampled_from(Decision),
        state=st.sampled_from([RowState.IN_DOUBT, RowState.REJECTED, RowState.DEFERRED]),
    )
    def resolve(self, decision: Decision, state: RowState) -> None:
        number = self.loop.run_until_complete(self.ledger.resolve(decision, states=[state]))
        changed = [row for row, known in self.rows.items() if known.state is state and row not in self.hand]
        if decision is Decision.SKIP and state is RowState.REJECTED:
            changed = []
        elif state is RowState.DEFERRED:  # released in this run: it may be tried, and is still claimed
            changed = [row for row in changed if row not in self.idle]
        assert number == len(changed)
        for row in changed:
            self.says(row, state=RowState.PENDING if decision is Decision.RESEND else RowState.REJECTED)
        self.settled()

    @rule(policy=st.sampled_from(InDoubt), orderly=st.booleans())
    def reopen(self, policy: InDoubt, orderly: bool) -> None:
        if orderly:
            self.settled()
        else:
            self.crash()
        self.loop.run_until_complete(self.stack.aclose())
        if not orderly:
            self.survived()
        self.run_no += 1
        self.ledger = self.open(policy)
        self.recover(policy)

    def crash(self) -> None:
        self.copies += 1
        copy = self.folder / str(self.copies)
        copy.mkdir()
        for suffix in ("", "-wal"):
            shutil.copy(f"{self.home.path}{suffix}", copy)
        self.home.path = copy / self.home.path.name

    def survived(self) -> None:
        """Find the beginning of the history that is in the file, and go on from there."""
        found = self.loop.run_until_complete(self.look())
        for length in range(len(self.history) - 1, self.sure - 1, -1):
            said = {row: (known.state, known.attempts, known.doubts) for row, known in self.history[length].items()}
            if said == found:
                self.history = [self.history[length]]
                self.sure = 0
                return
        raise AssertionError(f"{found} is no beginning of what was said and acknowledged")

    async def look(self) -> dict[int, tuple[RowState, int, int]]:
        async with await SqliteLedger.read(self.home.path) as reader:
            return {entry.row: (entry.state, entry.attempts, entry.doubts) for entry in await entries(reader)}

    def recover(self, policy: InDoubt) -> None:
        self.hand.clear()
        self.idle.clear()
        for row, known in self.rows.items():
            if known.state is RowState.SENDING:
                self.says(row, state=RowState.IN_DOUBT, doubts=known.doubts + 1)
        for row, known in self.rows.items():
            if policy is InDoubt.RESEND and known.state is RowState.IN_DOUBT and known.doubts <= 1:
                self.says(row, state=RowState.PENDING)
        self.settled()

    @invariant()
    def what_is_flushed_is_what_was_said(self) -> None:
        if self.history and self.sure == len(self.history) - 1:
            self.loop.run_until_complete(self.ledger.flush())
            found = {entry.row: entry for entry in self.loop.run_until_complete(entries(self.ledger))}
            assert {row: entry.state for row, entry in found.items()} == {
                row: known.state for row, known in self.rows.items()
            }
            counts: dict[RowState, int] = {}
            for known in self.rows.values():
                counts[known.state] = counts.get(known.state, 0) + 1
            assert self.loop.run_until_complete(self.ledger.counts()) == Counts(counts)

    def in_loop(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return self.loop.run_until_complete(call())

    def teardown(self) -> None:
        self.loop.run_until_complete(self.stack.aclose())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        shutil.rmtree(self.folder)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
