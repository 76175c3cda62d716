"""Times in a ledger: whole microseconds since 1970, UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["microseconds", "when"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def when(us: int) -> datetime:
    """Microseconds since 1970 as a time in UTC."""
    return _EPOCH + timedelta(microseconds=us)


def microseconds(time: datetime) -> int:
    """The inverse; exact, which a float would not be."""
    return (time - _EPOCH) // _MICROSECOND
