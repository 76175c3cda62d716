"""Whether what is to be sent is still what the campaign began with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from asyncsmtp.errors import LedgerMismatch
from asyncsmtp.protocol.replies import safe_text

__all__ = ["refuse_changes"]

_SHOWN = 3


def refuse_changes(campaign: str, began: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Compare two fingerprints, each a mapping from a name people know ("message.html") to a digest.

    Raises:
        LedgerMismatch: some differ; the message names them.
    """
    changes = list(_changes(began, now))
    if not changes:
        return
    more = len(changes) - _SHOWN
    shown = ", ".join(changes[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
    raise LedgerMismatch(
        f"{shown} since the campaign “{safe_text(campaign, 80)}” began: put it back and run again to finish the"
        " campaign, or begin a new one under another name"
    )


def _changes(began: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(began.keys() | now.keys()):
        if name not in now:
            yield f"{safe_text(name, 80)} was taken away"
        elif name not in began:
            yield f"{safe_text(name, 80)} was added"
        elif began[name] != now[name]:
            yield f"{safe_text(name, 80)} changed"
