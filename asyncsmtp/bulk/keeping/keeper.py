"""What a ledger does that does not hang on where its rows are kept."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Self

from asyncsmtp.bulk.bounces.dsn import Bounce
from asyncsmtp.bulk.keeping.columns import CampaignRow
from asyncsmtp.bulk.keeping.hand import Hand
from asyncsmtp.bulk.keeping.queue import Queue
from asyncsmtp.bulk.keeping.steps import Steps, Tally
from asyncsmtp.bulk.keeping.times import when
from asyncsmtp.bulk.ledger import Claim, Decision, Recovery, Settlement
from asyncsmtp.bulk.states import Counts, State
from asyncsmtp.errors import LedgerError

__all__ = ["Keeper"]


class Keeper(ABC):
    """The half of a `Ledger` that is the same for a file and for a database.

    Args:
        place: where the rows are, for messages. name: the campaign's.
        campaign: None where its rows are still to be loaded.
        tally: is kept in step with what is written.
    """

    def __init__(
        self,
        place: object,
        name: str,
        *,
        recovery: Recovery,
        campaign: CampaignRow | None,
        tally: Tally,
        queue: Queue,
    ) -> None:
        self.name = name
        self.recovery = recovery
        self.failed = queue.failed
        self._place = place
        self._campaign = campaign
        self._tally = tally
        self._queue = queue
        self._hand = Hand()
        self._steps = Steps(queue, self._hand)

    @property
    def loaded(self) -> bool:
        """Whether the campaign's rows are in it."""
        return self._campaign is not None

    @property
    def created_at(self) -> datetime:
        """When they were loaded, UTC; the same in every run."""
        return when(self._ready().created_us)

    @property
    def unsettled(self) -> Sequence[Settlement]:
        """After a failure: the outcomes that are not in the ledger, oldest first."""
        return self._queue.unsettled

    def mark(self, claim: Claim) -> asyncio.Future[None]:
        """Say that the end of this row's content is about to be written; done when that is durable."""
        return self._steps.mark(claim)

    def settle(self, settlement: Settlement) -> None:
        """Write what became of a row in hand; durable before any mark made later, soon in any case."""
        self._steps.settle(settlement)

    def give_back(self, claim: Claim, *, tried: bool = False) -> None:
        """A row in hand is pending again, and may be claimed again in this run; see `Ledger.give_back`."""
        self._steps.give_back(claim, tried=tried)

    def put_off(self, claim: Claim, until: datetime) -> None:
        """A row in hand that was not tried is to come at another time, in this run or in a later one."""
        self._steps.put_off(claim, until)

    async def counts(self) -> Counts:
        """How many rows are in each state, durably."""
        return self._tally.counts

    @abstractmethod
    async def aclose(self) -> None:
        """Write what waits, and let go of the rows; a second time does nothing. Rows in hand stay as they are.

        Raises:
            LedgerError: writing failed just now; `unsettled` has the outcomes.
        """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _ready(self) -> CampaignRow:
        if self._queue.failure is not None:
            raise self._queue.failure
        if self._campaign is None:
            raise LedgerError(f"{self._place} holds no recipients yet: load them first")
        return self._campaign

    def _to_be_loaded(self) -> None:
        if self._campaign is not None:
            raise LedgerError(f"{self._place} holds its recipients already: this is a bug")

    def _decided(self, decision: Decision, left: Counter[State]) -> int:
        """So many rows left each of these states by a person's decision; return how many in all."""
        after = State.PENDING if decision == Decision.RESEND else State.REJECTED
        for before, number in left.items():
            self._tally.move(before, after, number)
        self._hand.rewind()
        return left.total()

    def _came_back(self, changed: Iterable[tuple[State, str, Bounce]]) -> Sequence[tuple[str, Bounce]]:
        """Rows whose messages came back left these states."""
        told = []
        for before, address, bounce in changed:
            self._tally.move(before, State.REJECTED, 1)
            told.append((address, bounce))
        return told
