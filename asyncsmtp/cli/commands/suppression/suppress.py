"""`asyncsmtp suppress`: who must get nothing, whatever the campaign."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncsmtp.cli.options import option
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode

if TYPE_CHECKING:
    from asyncsmtp.bulk.ledger.suppression_list import Suppressed

__all__ = ["command"]

_EPILOG = """\b
A campaign obeys the lists that it names: suppression = "suppressed.db" under
[campaign], or --suppression. A file of text (.txt, .csv) can be one as well.

\b
Examples:
  asyncsmtp suppress suppressed.db ann@example.com @example.net --reason unsubscribed
  asyncsmtp suppress suppressed.db --export suppressed.csv
"""


@click.command("suppress", epilog=_EPILOG)
@click.argument("list_", metavar="LIST", type=click.Path(path_type=Path))
@click.argument("addresses", metavar="[ADDRESS]...", nargs=-1)
@option("--reason", metavar="TEXT", default="", help="Why; the results show it.")
@option(
    "--import", "file", type=click.Path(path_type=Path), metavar="FILE", help="Add a file: addresses in any column."
)
@option("--export", "to", type=click.Path(path_type=Path), metavar="FILE", help="Write the list to a file, as CSV.")
@option("--remove", is_flag=True, help="Take the addresses out again.")
@option("--create", is_flag=True, help="Make the list, empty, if there is none.")
@option("--json", "as_json", is_flag=True, help="NDJSON instead of CSV.")
def command(
    list_: Path,
    addresses: tuple[str, ...],
    reason: str,
    file: Path | None,
    to: Path | None,
    remove: bool,
    create: bool,
    as_json: bool,
) -> ExitCode:
    """Add to a suppression list, or print it.

    An address such as @example.com stands for everybody there. A campaign that
    is running obeys it from its next rows on.
    """
    from asyncsmtp.bulk.ledger.suppression_list import (
        Suppressed,
        SuppressionList,
        export_entries,
        import_entries,
        is_text_list,
    )

    if is_text_list(list_):
        advice = "edit it with a text editor, or name a list such as suppressed.db"
        raise CommandError(f"{list_} is a file of text", advice)
    given = [_entry(address, reason) for address in addresses]
    if file is not None:
        found, left_out = import_entries(file)
        given += [Suppressed(entry.address, entry.reason or reason) for entry in found]
        if left_out:
            lines = ", ".join(map(str, left_out[:10])) + (", …" if len(left_out) > 10 else "")
            console.print_info(f"{console.pluralize(len(left_out), 'line')} of {file} without an address: {lines}")
        if not found:
            raise CommandError(f"{file} has no address", "name a file with addresses, one a line or in a column")
    kept = SuppressionList(list_)
    if to is not None and to.resolve() == list_.resolve():
        raise CommandError("--export: that is the list itself", "name another file")
    if remove:
        if not given:
            raise CommandError("--remove: nobody was named", "name the addresses to take out")
        kept.check()
        number = kept.remove(entry.address for entry in given)
        console.print_info(f"{console.pluralize(number, 'entry', 'entries')} removed from {list_}")
    elif given:
        number = kept.add(given)
        entries = console.pluralize(number, "entry", "entries")
        console.print_info(f"{entries} added to {list_}, {len(given) - number:,} there before")
    elif create:
        kept.create()
        console.print_info(f"{list_}: {console.pluralize(len(kept.entries()), 'entry', 'entries')}")
    elif to is None:
        _print(kept.entries(), as_json=as_json)
    if to is not None:
        entries_ = kept.entries()
        export_entries(entries_, to)
        console.print_info(f"{console.pluralize(len(entries_), 'entry', 'entries')} written to {to}")
    return ExitCode.ACCEPTED


def _entry(address: str, reason: str) -> Suppressed:
    """Make an entry of an argument. Raises CommandError: it is not an address."""
    from asyncsmtp.bulk.ledger.suppression_list import Suppressed, parse_key
    from asyncsmtp.errors import RecipientError

    try:
        parse_key(address)
    except RecipientError as error:
        raise CommandError(error.reason, "correct the address, then run the same command again") from None
    return Suppressed(address, reason)


def _print(entries: list[Suppressed], *, as_json: bool) -> None:
    from asyncsmtp.bulk.ledger.suppression_list import format_line
    from asyncsmtp.cli.output.formats import format_json_line

    harmless = not as_json and console.is_terminal()
    if not as_json:
        console.print_result("address,reason")
    for entry in entries:
        record = {"address": entry.address, "reason": entry.reason}
        if not console.print_result(format_json_line(record) if as_json else format_line(entry), harmless=harmless):
            return
