"""Grouping of the rows of one mailbox, which may be far apart in the file, in memory that does not depend on it.

The file is read up to three times: for the keys that come more than once, in eight bytes a row; for the cells of these
rows, into a temporary database on the disk; and for the rows themselves. The first row of a mailbox then has them all.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Self

from asyncsmtp.bulk.recipients.recipient import GroupedRow, Problem, Recipient, RecipientWithCopies, address_key
from asyncsmtp.errors import RecipientError
from asyncsmtp.mail.mime import GroupedFields

__all__ = ["MAX_ROWS", "RowGroups", "find_repeated"]

MAX_ROWS = 1000  # of one mailbox
_BUCKETS = 256  # of hashes, so that little is counted at a time
Batches = AsyncGenerator[Sequence[Recipient | Problem]]

_TABLE = "CREATE TABLE member (key TEXT, row INTEGER, cells TEXT)"
_INDEX = (
    "CREATE INDEX by_key ON member (key, row)",
    "CREATE TABLE mailbox (key TEXT PRIMARY KEY, first INTEGER, number INTEGER) WITHOUT ROWID",
    "INSERT INTO mailbox SELECT key, min(row), count(*) FROM member GROUP BY key HAVING count(*) > 1",
)
_FIND = "SELECT mailbox.key, first, number FROM json_each(?) AS j CROSS JOIN mailbox ON mailbox.key = j.value"
_CELLS = "SELECT row, cells FROM member WHERE key = ? ORDER BY row"


async def find_repeated(batches: Batches) -> Sequence[int]:
    """Return the hashes of the keys that several rows have, sorted; of two keys with one hash it has it as well."""
    buckets = [array("q") for _ in range(_BUCKETS)]
    async with aclosing(batches):
        async for batch in batches:
            for row in batch:
                if isinstance(row, Recipient):
                    hashed = hash(address_key(row.mailbox))
                    buckets[hashed % _BUCKETS].append(hashed)
    return await asyncio.to_thread(_select_repeated, buckets)


def _select_repeated(buckets: Sequence[array[int]]) -> Sequence[int]:
    found = array("q")
    for hashes in buckets:
        if len(set(hashes)) < len(hashes):
            found.extend(hashed for hashed, number in Counter(hashes).items() if number > 1)
    return array("q", sorted(found))


class RowGroups:
    """The rows of mailboxes that have several, in a temporary database; it is removed when the block ends.

    Args:
        repeated: what `find_repeated` returned.
        expand: returns a row with its copies and its sender, as of `RowRules`; None: there are none.
    """

    def __init__(self, repeated: Sequence[int], expand: Callable[[Recipient], Recipient] | None = None) -> None:
        self._repeated = repeated
        self._expand = expand
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await asyncio.to_thread(self._connection.close)

    async def read(self, batches: Batches) -> None:
        """Store the cells of all rows that belong to a group.

        Raises:
            RecipientError: there is no space for it.
        """
        await self._run([_TABLE, "BEGIN"])
        async with aclosing(batches):
            async for batch in batches:
                if keys := self._find_keys(batch):
                    await asyncio.to_thread(self._insert, batch, keys)
        await self._run([*_INDEX, "COMMIT"])

    async def group(self, batch: Sequence[Recipient | Problem]) -> Sequence[Recipient | Problem]:
        """Return the rows of a batch: the first of a mailbox with all its rows, each later one as a GroupedRow."""
        keys = self._find_keys(batch)
        return await asyncio.to_thread(self._group, batch, keys) if keys else batch

    def _find_keys(self, batch: Sequence[Recipient | Problem]) -> dict[int, str]:
        """Return the key of each row that may belong to a group, by the row."""
        keys = {row.row: address_key(row.mailbox) for row in batch if isinstance(row, Recipient)}
        return {row: key for row, key in keys.items() if self._is_repeated(hash(key))}

    def _is_repeated(self, hashed: int) -> bool:
        place = bisect_left(self._repeated, hashed)
        return place < len(self._repeated) and self._repeated[place] == hashed

    async def _run(self, statements: Sequence[str]) -> None:
        def run() -> None:
            with _as_recipient_error():
                for statement in statements:
                    self._connection.execute(statement)

        await asyncio.to_thread(run)

    def _insert(self, batch: Sequence[Recipient | Problem], keys: Mapping[int, str]) -> None:
        members = [(keys[row.row], row.row, json.dumps([*row.fields.values()])) for row in batch if row.row in keys]
        with _as_recipient_error():
            self._connection.executemany("INSERT INTO member VALUES (?, ?, ?)", members)

    def _group(self, batch: Sequence[Recipient | Problem], keys: Mapping[int, str]) -> Sequence[Recipient | Problem]:
        found = self._connection.execute(_FIND, (json.dumps([*{*keys.values()}]),))
        mailboxes = {key: (first, number) for key, first, number in found}
        return [
            self._place(row, key, *mailboxes[key])
            if isinstance(row, Recipient) and (key := keys.get(row.row, "")) in mailboxes
            else row
            for row in batch
        ]

    def _place(self, row: Recipient, key: str, first: int, number: int) -> Recipient | Problem:
        if row.row != first:
            place = (row.row, row.line, f"in the message of row {first}", row.fields, True, row.repaired)
            return GroupedRow(*place, first=first, address=row.mailbox.address)
        if number > MAX_ROWS:
            why = (
                f"{number:,} rows have this mailbox, and a message can have {MAX_ROWS:,}: is the address column right?"
            )
            return Problem(row.row, row.line, why, row.fields)
        found = self._connection.execute(_CELLS, (key,)).fetchall()
        rows = [dict(zip(row.fields, json.loads(cells), strict=True)) for _, cells in found]
        grouped = replace(row, fields=GroupedFields(row.fields, rows))
        if self._expand is None:
            return grouped
        try:
            return self._expand_group(grouped, {number: cells for (number, _), cells in zip(found, rows, strict=True)})
        except RecipientError as error:
            return Problem(row.row, row.line, error.reason, row.fields)

    def _expand_group(self, first: Recipient, rows: Mapping[int, Mapping[str, str]]) -> Recipient:
        """Return the first row of a mailbox with the copies and the sender of the message that has all rows.

        A template that names a column has the cell of the first row, one that goes through `rows` has all: both may be,
        if nobody is left out, and nobody gets what is not theirs, because another row comes first.

        Raises:
            RecipientError: they would be others if another row came first.
        """
        assert self._expand is not None
        expanded = self._expand(first)
        wanted = _find_others(expanded)
        for number, cells in rows.items():
            if _find_others(self._expand(replace(first, fields=cells))) == wanted:
                continue  # by its own cells
            if _find_others(self._expand(replace(first, fields=GroupedFields(cells, [*rows.values()])))) != wanted:
                why = f"the message has row {number} too, whose addresses in From, Cc or Bcc are others"
                raise RecipientError(f'{why}: make them the same, or set duplicates to "send"')
        return expanded


def _find_others(row: Recipient) -> object:
    """Return the sender of a message and who gets copies of it, to be compared."""
    assert isinstance(row, RecipientWithCopies)
    return row.author, {(kind, address_key(mailbox)) for kind, mailbox in row.copies}


@contextmanager
def _as_recipient_error() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        why = f"the rows of one mailbox cannot be put together on the disk: {error}"
        raise RecipientError(f"{why}: make space in the folder for temporary files, or set SQLITE_TMPDIR") from error
