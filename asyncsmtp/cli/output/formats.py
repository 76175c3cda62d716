"""Formats of results: entries of a ledger and outcomes as JSON and as CSV, deliveries as lines."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING

from asyncsmtp.bulk.recipients.csv_format import escape_formula, format_record
from asyncsmtp.bulk.recipients.recipient import RecipientWithCopies
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode
from asyncsmtp.protocol.delivery import Outcome
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.ledger.interfaces import Entry, Settlement
    from asyncsmtp.bulk.recipients.recipient import Recipient
    from asyncsmtp.protocol.delivery import Delivery

__all__ = [
    "COLUMNS",
    "KIND",
    "OUTCOME",
    "DeliveryPrinter",
    "entry_record",
    "failed_row_cells",
    "format_csv_line",
    "format_json_line",
    "format_reason",
    "list_copies",
    "outcome_columns",
]

OUTCOME = ("state", "code", "status", "reply", "host", "attempts", "first_at", "last_at")
KIND = "kind"  # `to`, `cc` or `bcc`; where there are copies
COLUMNS = ("row", "email", *OUTCOME[:6], "doubts", "message_id", *OUTCOME[6:])


def entry_record(entry: Entry, columns: Iterable[str] | None = None) -> dict[str, object]:
    """Return what is known of one recipient, by the names of COLUMNS, and KIND of a copy; times are UTC."""
    made: dict[str, object] = {"email": entry.address, "state": str(entry.state)}
    made |= {name: _time(getattr(entry, name)) for name in ("first_at", "last_at")}
    names = (*COLUMNS, *([KIND] if entry.copy else ())) if columns is None else columns
    return {name: made[name] if name in made else getattr(entry, name) for name in names}


def outcome_columns(columns: Collection[str], names: Iterable[str] = OUTCOME) -> list[str]:
    """Return these names beside the columns of a file; one that the file has as well gets a number."""
    found: list[str] = []
    for name in names:
        free = (f"{name}_{number}" if number > 1 else name for number in count(1))
        found.append(next(each for each in free if each not in columns))
    return found


def failed_row_cells(entry: Entry, columns: Mapping[str, None], outcome: Sequence[str] = OUTCOME) -> list[object]:
    """Return the cells of a row that failed: its own under these columns, empty where it has none, then the outcome's.

    Such a file is read as recipients again. So the cell with the address in To has that of a copy, and the cell that
    named the copy is empty: nobody who has the message gets it once more.

    Raises:
        CommandError: it has a column that is not among them: rows of another file came while the ledger was read.
    """
    if not entry.fields.keys() <= columns.keys():
        raise CommandError(
            "rows with other columns were added while the results were read", "run the same command again"
        )
    cells = [entry.fields.get(name) for name in columns]
    if entry.copy:
        cells = [_readdress(cell or "", entry) for cell in cells]
    return [*cells, *entry_record(entry, outcome).values()]


def _readdress(cell: str, entry: Entry) -> str:
    """Return a cell of a row as that of a copy."""
    text = cell.strip().casefold()
    if text == entry.to.casefold():
        return entry.address
    return "" if entry.address.casefold() in text else cell


def format_reason(entry: Entry | Settlement) -> str:
    """Return the reason: the relay's words with their code and the relay's name, or our own words."""
    words = f"{entry.code or ''} {entry.reply}".strip()
    return f"{words} ({entry.host})" if entry.host and entry.code else words


def list_copies(row: Recipient) -> str:
    """Return who gets a copy of a row's message: `Cc bob@example.org, Bcc archive@example.org`; "" for nobody."""
    copies = row.copies if isinstance(row, RecipientWithCopies) else ()
    return ", ".join(f"{kind.title()} {safe_text(str(mailbox), 80)}" for kind, mailbox in copies)


def format_json_line(record: Mapping[str, object]) -> str:
    """Return one line of NDJSON: ASCII, so that nothing in it acts on a terminal or breaks in a locale."""
    return json.dumps(record, ensure_ascii=True)


def format_csv_line(cells: Iterable[object], delimiter: str = ",") -> str:
    """Return one record of CSV (RFC 4180) without its line end; no cell begins a formula.

    A cell that a spreadsheet would calculate gets an apostrophe before it, an address such as `=x@example.org` as
    well; it is taken off again where such a file is read as recipients. JSON has neither.
    """
    escaped = (escape_formula("" if cell is None else str(cell)) for cell in cells)
    return format_record(escaped, delimiter=delimiter)


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
