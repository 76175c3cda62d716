"""Rows that a program passes as recipients, saved to a file: they are read more than once, in constant memory."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from pathlib import Path

from asyncsmtp.bulk.setup.config import Rows
from asyncsmtp.errors import ConfigError, RecipientError

__all__ = ["save_rows"]

_ROWS_PER_WRITE = 500


async def save_rows(rows: Rows) -> Path:
    """Save rows to a temporary file of JSON lines, its owner's alone; the caller removes it.

    Raises:
        TypeError: a row is not a mapping of text to text, numbers, True, False or None.
        RecipientError: there are no rows.
    """
    from tempfile import mkstemp  # late, as aiofiles: `status` and `results` need neither

    import aiofiles

    with _saving():
        descriptor, name = mkstemp(".jsonl", "asyncsmtp-")
    count, lines = 0, []
    try:
        async with aiofiles.open(descriptor, "w", encoding="utf-8") as file:
            async for row in _each(rows):
                count += 1
                lines.append(_json_line(count, row))
                if len(lines) == _ROWS_PER_WRITE:
                    with _saving():
                        await file.write("".join(lines))
                    lines = []
            with _saving():
                await file.write("".join(lines))
                await file.flush()
        if not count:
            raise RecipientError("recipients= has no rows: there is nobody to mail")
    except BaseException:
        os.unlink(name)
        raise
    return Path(name)


@contextmanager
def _saving() -> Iterator[None]:
    """Report a full disk as a ConfigError; what the iterable of a program raises stays as it is."""
    try:
        yield
    except OSError as error:
        why = f"the rows cannot be saved to a temporary file: {str(error.strerror or error).lower()}"
        raise ConfigError(why, "make space for it, or set TMPDIR to another folder") from error


def _json_line(number: int, row: object) -> str:
    if not isinstance(row, Mapping):
        raise TypeError(f"recipients= must yield mappings such as {{'email': 'ann@example.com'}}, not {row!r:.80}")
    for column, cell in row.items():
        if not isinstance(column, str):
            hint = " (csv.DictReader: the row has more cells than the header)" if column is None else ""
            raise TypeError(f"recipients= row {number}: a column is {column!r:.80}: it must be text{hint}")
        if not isinstance(cell, str | int | float | None):
            raise TypeError(f"recipients= row {number}: {column!r} must be text, not {type(cell).__name__}")
        if isinstance(cell, float) and not isfinite(cell):
            raise TypeError(f"recipients= row {number}: {column!r} must be text or a finite number, not {cell}")
    try:
        return json.dumps(dict(row)) + "\n"
    except ValueError as error:  # a number with too many digits
        raise RecipientError(f"recipients= row {number}: {error}") from None


async def _each(rows: Rows) -> AsyncIterator[Mapping[str, object]]:
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
    else:
        for row in rows:
            yield row
