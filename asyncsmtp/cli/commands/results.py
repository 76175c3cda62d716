"""`asyncsmtp results`: the outcome of each recipient, for a spreadsheet or for a program."""

from __future__ import annotations

import asyncio
import codecs
import csv
import locale
import sys
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncsmtp.bulk.recipients.text_encoding import UTF_8, normalize_encoding
from asyncsmtp.cli.options import NamedLedger, ledger_options, load_campaign, option
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode
from asyncsmtp.errors import SMTPError
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.ledger.interfaces import RowOutcomeReader, RowState

__all__ = ["command"]

_EPILOG = """\b
Examples:
  asyncsmtp results demo/campaign.toml --failed > failed.csv
  asyncsmtp results demo/campaign.toml --columns email,name,state
"""


@click.command("results", epilog=_EPILOG)
@ledger_options
@option("--failed", is_flag=True, help="Rows that failed or wait only: their own columns, why, and when.")
@option("--columns", metavar="COLUMN", help="Only these columns, of the recipients or the outcome: email,name,state.")
@option("--json", "as_json", is_flag=True, help="NDJSON instead of CSV.")
def command(where: NamedLedger, failed: bool, columns: str | None, as_json: bool) -> ExitCode:
    """Print every recipient's outcome as CSV or NDJSON.

    In the order of the recipients, and with the delimiter of their file. Cells
    that a spreadsheet would take for a formula begin with an apostrophe, which is
    taken off again where the file is read as recipients; NDJSON has them as they
    are. With several relays, their counts follow on stderr. --columns takes the names of both: where the file has
    a column named like one of the outcome, such as state, that one is state_2.
    """
    chosen = [name.strip() for name in next(csv.reader([columns]), [])] if columns else []
    asyncio.run(_print(where, failed=failed, as_json=as_json, chosen=chosen))
    return ExitCode.ACCEPTED


async def _print(where: NamedLedger, *, failed: bool, as_json: bool, chosen: Sequence[str]) -> None:
    from asyncsmtp.bulk.ledger.interfaces import RowState
    from asyncsmtp.bulk.open_campaign import open_reader
    from asyncsmtp.cli.output import formats
    from asyncsmtp.cli.output.run_stats import relay_lines

    # Not the suppressed ones: who gets nothing on purpose must not be mailed by way of the next file.
    states = (RowState.DEFERRED, RowState.REJECTED, RowState.IN_DOUBT) if failed else None
    harmless = not as_json and console.is_terminal()  # a file gets its cells as they were, a terminal never
    style = _Style() if as_json or harmless else await _find_style(where.campaign)
    begun = False
    async with await open_reader(where.location, where.name) as ledger:
        columns = await _columns(ledger, states) if chosen or (failed and not as_json) else {}
        more = (formats.KIND,) if ledger.has_copies else ()
        every, outcome = (*formats.COLUMNS, *more), (*formats.OUTCOME, *more)
        own_names = formats.outcome_columns(columns, every)
        picked = list(dict.fromkeys(_find_column(name, (*columns, *own_names)) for name in chosen))
        async for entry in ledger.entries_by_row(states):
            if chosen:
                known = dict(zip(own_names, formats.entry_record(entry, every).values(), strict=True)) | dict(
                    entry.fields
                )
                if not begun and not as_json:
                    console.print_result(style.begin(picked), harmless=harmless)
                record = {name: known.get(name) for name in picked}
                line = formats.format_json_line(record) if as_json else style.format(record.values())
            elif as_json:
                fields = {"fields": dict(entry.fields)} if failed else {}
                line = formats.format_json_line(formats.entry_record(entry) | fields)
            else:
                if not begun:
                    names = (*columns, *formats.outcome_columns(columns, outcome)) if failed else every
                    console.print_result(style.begin(names), harmless=harmless)
                if failed:
                    line = style.format(formats.failed_row_cells(entry, columns, outcome))
                else:
                    line = style.format(formats.entry_record(entry, every).values())
            begun = True
            if not console.print_result(line, harmless=harmless):
                return  # nobody reads on
        for line in relay_lines(await ledger.counts_by_relay()):
            console.print_info(f"  {line}")
    if failed and not begun:
        console.print_info("nobody: every row was accepted, is suppressed, or is still to send")


@dataclass(frozen=True, slots=True)
class _Style:
    """Form of CSV that the user's spreadsheet reads as a table: the delimiter, and a byte order mark or none."""

    delimiter: str = ","
    is_marked: bool = False

    def begin(self, names: Iterable[str]) -> str:
        """Return the first line."""
        return ("\ufeff" if self.is_marked else "") + self.format(names)

    def format(self, cells: Iterable[object]) -> str:
        """Return one line."""
        from asyncsmtp.cli.output.formats import format_csv_line

        return format_csv_line(cells, self.delimiter)


async def _find_style(campaign: Path | None) -> _Style:
    """Return the style of the recipients' file, so that the program it was made with opens the results as well.

    A spreadsheet takes UTF-8 without a mark for an older encoding, so the mark is left out only if the recipients' file
    is UTF-8 without one. For a workbook the delimiter is that of the locale: a semicolon where numbers have a comma.
    """
    if campaign is None:
        return _Style()
    from asyncsmtp.bulk.recipients.file import RecipientFile, is_workbook

    config = load_campaign(campaign)
    path = config.recipients
    if not isinstance(path, Path) or not path.is_file():
        return _Style()
    is_utf_8 = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
    if is_workbook(path):
        with suppress(locale.Error):  # one that is not installed
            locale.setlocale(locale.LC_NUMERIC, "")
        return _Style(";" if locale.localeconv()["decimal_point"] == "," else ",", is_utf_8)
    file = RecipientFile(path, delimiter=config.delimiter, encoding=config.encoding, skip_lines=config.skip_lines)
    try:
        header = await file.header()
        beginning = await asyncio.to_thread(_read_beginning, path)
    except (SMTPError, OSError):  # it was changed since; the ledger has the rows
        return _Style()
    is_plain = not header.encoding and normalize_encoding(config.encoding or UTF_8) == UTF_8
    return _Style(header.delimiter, is_utf_8 and (not is_plain or beginning.startswith(codecs.BOM_UTF8)))


def _read_beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)


def _find_column(wanted: str, names: Collection[str]) -> str:
    """Return the column of a name, exactly or except for case. Raises CommandError: there is none."""
    found = [name for name in names if name == wanted] or [
        name for name in names if name.casefold() == wanted.casefold()
    ]
    if found:
        return found[0]
    from asyncsmtp.bulk.setup.config_types import describe_nearest  # late: only an error needs it

    listed = safe_text(", ".join(names), 400)
    what = f"--columns: there is no column “{safe_text(wanted, 60)}”{describe_nearest(wanted, names)}"
    raise CommandError(what, f"name some of {listed}")


async def _columns(ledger: RowOutcomeReader, states: Iterable[RowState] | None) -> dict[str, None]:
    """Return the columns of all files whose rows are in one of the states, in the order of their first appearance."""
    found: dict[str, None] = {}
    async for entry in ledger.entries_by_row(states):
        found |= dict.fromkeys(entry.fields)
    return found
