"""Which reports of what came back a row has had: read again, one says nothing of a message that was sent since."""

from __future__ import annotations

from asyncsmtp.bulk.bounces.dsn import Bounce

__all__ = ["is_known", "memory_of", "remembered"]

_MOST = 16  # reports of one row


def memory_of(row: int) -> str:
    """Under which name the ledger remembers them."""
    return f"bounce {row}"


def is_known(memory: str | None, bounce: Bounce) -> bool:
    """Whether the row has had this report; one without a name is new."""
    return bounce.report != "" and bounce.report in (memory or "").split()


def remembered(memory: str | None, bounce: Bounce) -> str:
    """What to remember from now on."""
    return " ".join([*(memory or "").split(), bounce.report][-_MOST:])
