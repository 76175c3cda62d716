"""Entries of a ledger as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncsmtp.bulk.ledger import Claim, Entry, Settlement

__all__ = ["COLUMNS", "csv_line", "json_line", "of_entry", "of_settlement", "reason_of"]

COLUMNS = ("row", "email", "state", "code", "status", "reply", "host", "attempts", "doubts", "message_id", "at")

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\0")


def of_entry(entry: Entry) -> dict[str, object]:
    """What is known of one row, by the names of COLUMNS; `at` is when it was last written, UTC."""
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
        "at": entry.last_at.isoformat(timespec="milliseconds") if entry.last_at else None,
    }


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

    A cell that a spreadsheet would calculate gets an apostrophe before it; an address such as
    `=x@example.org` as well, which JSON leaves as it is.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([_tame("" if cell is None else str(cell)) for cell in cells])
    return text.getvalue()


def _tame(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
