"""What a pool is doing, in figures."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PoolCounts"]


@dataclass(frozen=True, slots=True)
class PoolCounts:
    """A pool at one moment.

    Attributes:
        open: sessions that could send now. busy: those that have a message in hand.
        allowed: how many sessions there may be now: fewer than the pool was made for while the relay, or this
            process, has no room for more.
        in_hand: messages whose `send` has not returned. waiting: those of them that wait because every session
            has its hands full.
    """

    open: int
    busy: int
    allowed: int
    in_hand: int
    waiting: int
