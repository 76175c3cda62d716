"""Recipients whom the relay refused since nobody is there: with `suppress_rejected` they are put on the list."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path

from asyncsmtp.bulk.bounces.fault import effective_status, is_recipient_fault
from asyncsmtp.bulk.ledger.interfaces import Entry, Ledger, LedgerReader, RowState
from asyncsmtp.bulk.ledger.suppression_list import Suppressed, SuppressionList, is_text_list
from asyncsmtp.errors import ConfigError, LedgerError, SuppressionError

__all__ = ["find_list", "suppress_after_run", "suppress_refused"]

BATCH_SIZE = 1000  # entries of one transaction


def find_list(lists: Sequence[Path]) -> Path:
    """Return the list for those whom the relay refuses: the first that is a database. People keep the files of text.

    Raises:
        ConfigError: there is none.
    """
    path = next((path for path in lists if not is_text_list(path)), None)
    if path is None:
        raise ConfigError(
            "suppress_rejected = true needs a suppression list that is no text file",
            'create one (asyncsmtp suppress suppressed.db --create), and name it: suppression = "suppressed.db"',
        )
    return path


async def suppress_after_run(ledger: Ledger, lists: Sequence[Path], warn: Callable[[str], object]) -> None:
    """Do so at the end of a run. What fails is no reason to lose the result of the run: the next one does it."""
    try:
        await ledger.flush()
        await suppress_refused(ledger, lists)
    except (LedgerError, SuppressionError) as error:
        warn(f"suppress_rejected: {error}; the next run does it")


async def suppress_refused(ledger: LedgerReader, lists: Sequence[Path]) -> int:
    """Put those on the list whom the relay refused with 5.1.1 and the like; return how many are new.

    The ledger tells who they are, so an interruption loses none: the next run does the rest. A relay that refuses
    everyone says nothing about them, so rows of a run that was halted for that are left out.

    Raises:
        SuppressionError: the list cannot be used; those before are on it. ConfigError: as `find_list`.
    """
    path = find_list(lists)
    halted = await ledger.halted_rows()
    added, found = 0, list[Suppressed]()
    async with aclosing(ledger.entries((RowState.REJECTED,))) as entries:
        async for entry in entries:
            if entry.number not in halted and (reason := _reason(entry)):
                found.append(Suppressed(entry.address, reason))
            if len(found) >= BATCH_SIZE:
                added += await asyncio.to_thread(SuppressionList(path).add, found)
                found = []
    if found:
        added += await asyncio.to_thread(SuppressionList(path).add, found)
    return added


def _reason(entry: Entry) -> str:
    """Return why the recipient is put on the list; "" where the relay did not refuse it, or not for what it is."""
    if entry.code is None or not entry.host or not entry.address:  # the last of them was removed
        return ""
    status = effective_status(entry.status or "", entry.reply)
    return f"rejected: {status or entry.code}" if is_recipient_fault(status, f"{entry.code} {entry.reply}") else ""
