"""Entries of a ledger as JSON and as CSV."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING

from asyncsmtp.bulk.recipients.csv_writer import escape_formula, format_record
from asyncsmtp.cli.output.failures import Failed

if TYPE_CHECKING:
    from asyncsmtp.bulk.ledger import Claim, Entry, Settlement

__all__ = [
    "COLUMNS",
    "OUTCOME",
    "beside",
    "csv_line",
    "failed_cells",
    "json_line",
    "of_entry",
    "of_settlement",
    "reason_of",
]

OUTCOME = ("state", "code", "status", "reply", "host", "attempts", "first_at", "last_at")
COLUMNS = ("row", "email", *OUTCOME[:6], "doubts", "message_id", *OUTCOME[6:])


def of_entry(entry: Entry) -> dict[str, object]:
    """What is known of one row, by the names of COLUMNS; times are UTC, `last_at` is when it was last written."""
    return {
        "row": entry.row,
        "email": entry.address,
        "state": str(entry.state),
        "code": entry.code,
        "status": entry.status,
        "reply": entry.reply,
        "host": entry.host,
        "attempts": entry.attempts,
        "doubts": entry.doubts,
        "message_id": entry.message_id,
        "first_at": _time(entry.first_at),
        "last_at": _time(entry.last_at),
    }


def beside(columns: Collection[str]) -> list[str]:
    """The names of OUTCOME beside the columns of a file; one that the file has as well gets a number."""
    found: list[str] = []
    for name in OUTCOME:
        free = (f"{name}_{number}" if number > 1 else name for number in count(1))
        found.append(next(each for each in free if each not in columns))
    return found


def failed_cells(entry: Entry, columns: Mapping[str, None]) -> list[object]:
    """One row that failed: its own cells under these columns, empty where it has none, then those of OUTCOME.

    Raises:
        Failed: it has a column that is not among them: rows of another file came while the ledger was read.
    """
    if not entry.fields.keys() <= columns.keys():
        raise Failed("rows with other columns were added while the results were read", "run the same command again")
    known = of_entry(entry)
    return [*(entry.fields.get(name) for name in columns), *(known[name] for name in OUTCOME)]


def of_settlement(claim: Claim, settlement: Settlement) -> dict[str, object]:
    """One outcome as it is recorded, by the same names as far as they apply."""
    return {
        "row": settlement.row,
        "email": str(claim.recipient.mailbox),
        "state": str(settlement.state),
        "code": settlement.code,
        "status": settlement.status,
        "reply": settlement.reply,
        "host": settlement.host,
        "attempts": claim.attempt,
        "message_id": claim.message_id,
    }


def reason_of(entry: Entry | Settlement) -> str:
    """Why: the relay's words with their code and the relay's name, or our own words."""
    words = f"{entry.code or ''} {entry.reply}".strip()
    return f"{words} ({entry.host})" if entry.host and entry.code else words


def json_line(record: Mapping[str, object]) -> str:
    """One line of NDJSON: ASCII, so that nothing in it acts on a terminal or breaks in a locale."""
    return json.dumps(record, ensure_ascii=True)


def csv_line(cells: Iterable[object]) -> str:
    """One record of CSV (RFC 4180) without its line end; no cell begins a formula.

    A cell that a spreadsheet would calculate gets an apostrophe before it, an address such as `=x@example.org` as
    well; it is taken off again where such a file is read as recipients. JSON has neither.
    """
    return format_record(escape_formula("" if cell is None else str(cell)) for cell in cells)


def _time(time: datetime | None) -> str | None:
    return time.isoformat(timespec="milliseconds") if time else None
