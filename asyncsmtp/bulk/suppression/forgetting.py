"""Removal of a person's data from ledgers and suppression lists, and of everybody's when its retention has passed."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from asyncsmtp.bulk.ledger import UNTIL_NEXT
from asyncsmtp.bulk.ledger.erasure import UNSENT, ErasedRows, is_person, mentions
from asyncsmtp.bulk.ledger.interfaces import RowState
from asyncsmtp.bulk.ledger.postgres import SCHEMES, Database
from asyncsmtp.bulk.ledger.suppression_list import SuppressionList, erase_from_text_list, is_text_list, parse_key
from asyncsmtp.bulk.open_campaign import open_reader, reopen_ledger
from asyncsmtp.errors import ConfigError, LedgerEmpty, SMTPError, check_type
from asyncsmtp.mail.mime import list_rows
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Forgotten", "erase_expired", "forget"]


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Data removed from one place, or that would be removed.

    Attributes:
        place: the ledger or the list.
        rows: what was removed from a ledger; None for a list.
        entries: entries of a list that are a hash now.
        error: why the place could not be used; None if it could.
    """

    place: Path | Database
    rows: ErasedRows | None = None
    entries: int = 0
    error: SMTPError | None = None

    def __bool__(self) -> bool:
        return bool(self.rows or self.entries)


async def forget(
    address: str,
    *,
    ledgers: Sequence[str | os.PathLike[str] | Database] = (),
    suppression: Sequence[str | os.PathLike[str]] = (),
    dry_run: bool = False,
) -> list[Forgotten]:
    """Remove a person's data; return what was removed from each place, the lists first.

    A row keeps its state, code and times, so that counts stay what they were; its address, cells, Message-ID and reply
    go. Rows that were to be sent are suppressed, those in doubt rejected. An entry of a suppression list becomes the
    SHA-256 of the address, so that the person stays suppressed. A ledger remembers that hash as well: the person is not
    loaded into that campaign again. Whoever has a hash can find out by trying whether it is that of a given address.

    A place that cannot be used does not hold up the others: it has an `error`. A ledger that a run has is such a place
    (LedgerBusy).

    Args:
        ledgers: files, or URLs of PostgreSQL; without a campaign's name all campaigns there.
        suppression: lists, databases or files of text.
        dry_run: change nothing, and count what would be removed; also while a run has a ledger.
    Raises:
        RecipientError: it is not an address.
    """
    check_type("address", address, str)
    key = parse_key(address)
    if "@" not in key or key.startswith("@"):
        raise ConfigError(
            f"“{safe_text(address, 60)}” is not the address of a person", "pass one such as ann@example.com"
        )
    found = []
    for path in map(Path, suppression):
        try:
            number = await asyncio.to_thread(_forget_in_list, path, address, dry_run=dry_run)
            found.append(Forgotten(path, entries=number))
        except SMTPError as error:
            found.append(Forgotten(path, error=error))
    async with aclosing(_list_ledgers(ledgers)) as places:
        async for place in places:
            if not isinstance(place, Forgotten):
                place = await _forget_in_ledger(place, address, key, dry_run=dry_run)
            found.append(place)
    return found


async def erase_expired(
    ledgers: Sequence[tuple[str | os.PathLike[str] | Database, float | None]], *, dry_run: bool = False
) -> list[Forgotten]:
    """Erase everybody in ledgers whose retention has passed; return these, and those that could not be used.

    Args:
        ledgers: each with its retention in seconds, None for no end, or `STORED` for that of its last run.
        dry_run: change nothing; return those whose retention has passed.
    """
    found = []
    for given, retention in ledgers:
        async with aclosing(_list_ledgers([given])) as places:
            async for place in places:
                try:
                    if isinstance(place, Forgotten):
                        found.append(place)
                        continue
                    async with await open_reader(place) as reader:
                        is_due = await reader.is_expired(retention, datetime.now(UTC))
                        counts = await reader.counts()
                    if is_due and not dry_run:
                        async with await reopen_ledger(place, retention=retention):
                            pass
                    if is_due:
                        found.append(Forgotten(place, ErasedRows(Counter(counts))))
                except LedgerEmpty:
                    continue
                except SMTPError as error:
                    found.append(Forgotten(place, error=error))  # type: ignore[arg-type]
    return found


def _forget_in_list(path: Path, address: str, *, dry_run: bool) -> int:
    if is_text_list(path):
        return erase_from_text_list(path, address, dry_run=dry_run)
    return SuppressionList(path).erase(address, dry_run=dry_run)


async def _forget_in_ledger(place: Path | Database, address: str, key: str, *, dry_run: bool) -> Forgotten:
    try:
        if dry_run:
            return Forgotten(place, await _count(place, key))
        async with await reopen_ledger(place, retention=UNTIL_NEXT) as ledger:
            return Forgotten(place, await ledger.forget(address))
    except LedgerEmpty:
        return Forgotten(place, ErasedRows())
    except SMTPError as error:
        return Forgotten(place, error=error)


async def _count(place: Path | Database, key: str) -> ErasedRows:
    states, changed, kept = Counter[RowState](), 0, 0
    async with await open_reader(place) as reader, aclosing(reader.entries()) as entries:
        async for entry in entries:
            if is_person(entry.address, key):
                states[entry.state] += 1
            elif is_person(entry.to, key):  # a copy of the message to this person
                changed += 1
            elif any(mentions(cell, key) for row in list_rows(entry.fields) for cell in row.values()):
                kept += entry.state in UNSENT
                changed += entry.state not in UNSENT
            else:
                changed += mentions(entry.reply, key)
    return ErasedRows(states, changed, kept)


async def _list_ledgers(
    given: Sequence[str | os.PathLike[str] | Database],
) -> AsyncGenerator[Path | Database | Forgotten]:
    """Yield the ledgers; of a database without a campaign's name one for each campaign that it has."""
    for each in given:
        check_type("ledgers", each, str, os.PathLike, Database)
        place = Database.parse(each) if isinstance(each, str) and each.startswith(SCHEMES) else each
        if not isinstance(place, Database):
            yield Path(place)
        elif place.campaign:
            yield place
        else:
            from asyncsmtp.bulk.ledger.postgres.store import list_campaigns  # late: the driver is optional

            try:
                names = await list_campaigns(place.url)
            except SMTPError as error:
                yield Forgotten(place, error=error)
                continue
            for name in names:
                yield Database(place.url, name)
