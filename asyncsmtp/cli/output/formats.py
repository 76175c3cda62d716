"""Formats of results: entries of a ledger and outcomes as JSON and as CSV, deliveries as lines."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING

from asyncsmtp.bulk.recipients.csv_format import escape_formula, format_record
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode
from asyncsmtp.protocol.delivery import Outcome

if TYPE_CHECKING:
    from asyncsmtp.bulk.ledger.interfaces import Claim, Entry, Settlement
    from asyncsmtp.protocol.delivery import Delivery

__all__ = [
    "COLUMNS",
    "OUTCOME",
    "DeliveryPrinter",
    "entry_record",
    "failed_row_cells",
    "format_csv_line",
    "format_json_line",
    "format_reason",
    "outcome_columns",
    "settlement_record",
]

OUTCOME = ("state", "code", "status", "reply", "host", "attempts", "first_at", "last_at")
COLUMNS = ("row", "email", *OUTCOME[:6], "doubts", "message_id", *OUTCOME[6:])


def entry_record(entry: Entry) -> dict[str, object]:
    """Return what is known of one row, by the names of COLUMNS; times are UTC."""
    made: dict[str, object] = {"email": entry.address, "state": str(entry.state)}
    made |= {name: _time(getattr(entry, name)) for name in ("first_at", "last_at")}
    return {name: made[name] if name in made else getattr(entry, name) for name in COLUMNS}


def outcome_columns(columns: Collection[str]) -> list[str]:
    """Return the names of OUTCOME beside the columns of a file; one that the file has as well gets a number."""
    found: list[str] = []
    for name in OUTCOME:
        free = (f"{name}_{number}" if number > 1 else name for number in count(1))
        found.append(next(each for each in free if each not in columns))
    return found


def failed_row_cells(entry: Entry, columns: Mapping[str, None]) -> list[object]:
    """Return the cells of a row that failed: its own under these columns, empty where it has none, then OUTCOME's.

    Raises:
        CommandError: it has a column that is not among them: rows of another file came while the ledger was read.
    """
    if not entry.fields.keys() <= columns.keys():
        raise CommandError(
            "rows with other columns were added while the results were read", "run the same command again"
        )
    known = entry_record(entry)
    return [*(entry.fields.get(name) for name in columns), *(known[name] for name in OUTCOME)]


def settlement_record(claim: Claim, settlement: Settlement) -> dict[str, object]:
    """Return one outcome of a run, by the same names as far as they apply."""
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


def format_reason(entry: Entry | Settlement) -> str:
    """Return the reason: the relay's words with their code and the relay's name, or our own words."""
    words = f"{entry.code or ''} {entry.reply}".strip()
    return f"{words} ({entry.host})" if entry.host and entry.code else words


def format_json_line(record: Mapping[str, object]) -> str:
    """Return one line of NDJSON: ASCII, so that nothing in it acts on a terminal or breaks in a locale."""
    return json.dumps(record, ensure_ascii=True)


def format_csv_line(cells: Iterable[object]) -> str:
    """Return one record of CSV (RFC 4180) without its line end; no cell begins a formula.

    A cell that a spreadsheet would calculate gets an apostrophe before it, an address such as `=x@example.org` as
    well; it is taken off again where such a file is read as recipients. JSON has neither.
    """
    return format_record(escape_formula("" if cell is None else str(cell)) for cell in cells)


def _time(time: datetime | None) -> str | None:
    return time.isoformat(timespec="milliseconds") if time else None


class DeliveryPrinter:
    """Printer of deliveries, a line for each recipient, and the exit code that they add up to."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._outcomes: set[Outcome] = set()

    @property
    def exit(self) -> ExitCode:
        """Exit code: 75 where running again helps, else 1 where someone was rejected."""
        if Outcome.DEFERRED in self._outcomes:
            return ExitCode.RUN_AGAIN
        return ExitCode.SOME_FAILED if Outcome.REJECTED in self._outcomes else ExitCode.ACCEPTED

    def add(self, delivery: Delivery, about: str = "") -> None:
        """Print the outcome of each recipient, in the relay's words."""
        for path, outcome, reply in zip(
            delivery.envelope.forward_paths, delivery.outcomes, delivery.replies, strict=True
        ):
            self._outcomes.add(outcome)
            if not self._as_json:
                console.print_result(f"{about}{path}: {outcome} by {delivery.host}: {reply}")
                continue
            facts = {"email": str(path), "state": str(outcome), "code": reply.code, "reply": reply.text}
            status = str(reply.status) if reply.status else None
            tls = delivery.tls
            facts |= {"status": status, "host": delivery.host, "tls": tls.version if tls else None}
            facts |= {"cipher": tls.cipher if tls else None, "verified": tls is not None and tls.verified}
            console.print_result(format_json_line(facts), harmless=False)
