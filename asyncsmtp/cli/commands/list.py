"""`asyncsmtp list`: the campaigns of a folder, and how far each is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.bulk.setup.config import CampaignConfig
from asyncsmtp.cli.command_line import format_command
from asyncsmtp.cli.options import find_campaign_files, json_option, sandbox_option
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode
from asyncsmtp.errors import LedgerEmpty, LedgerError, MissingDependency
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.ledger.interfaces import Counts

__all__ = ["command"]

REHEARSAL = ".sandbox.ledger"
MAX_WIDTH = 40  # columns for a name or a file

_EPILOG = """\b
Campaigns are the files with a section [campaign], and ledgers that belong to
none of them. Exit code 2 if one of the files cannot be used, 74 if a ledger
cannot be read.

\b
Example:
  asyncsmtp list demo
"""


@dataclass(slots=True)
class _Listed:
    """A campaign of the folder: its file, its ledger, and what is known of them.

    Attributes:
        file: the campaign file; None for a ledger that belongs to none.
        counts: the rows by state; None where it has not begun. error: why the file or the ledger cannot be read.
    """

    name: str
    file: Path | None
    ledger: Path | Database | None
    counts: Counts | None = None
    error: str = ""
    code: ExitCode = ExitCode.ACCEPTED


@click.command("list", epilog=_EPILOG)
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path), default=Path())
@sandbox_option
@json_option
def command(folder: Path, sandbox: bool, as_json: bool) -> ExitCode:
    """List the campaigns of a folder, with counts.

    The folder is DIR, or the current one, in which `status`, `results` and
    `resolve` find a campaign with --name. With --json: one object for each
    campaign; its `counts` are null if it has not begun.
    """
    if not folder.is_dir():
        raise CommandError(f"{safe_text(str(folder), 120)} is not a folder", "name a folder with campaign files")
    found = list(_find(folder, sandbox=sandbox))
    asyncio.run(_count(found))
    for each in found:
        if not _print(each, [*map(_columns, found)], as_json=as_json):
            break
    if not found:
        console.print_info(f"there is no campaign in {safe_text(str(folder.absolute()), 120)}")
        console.print_steps([f"make one: {format_command('init', folder / 'demo')}"])
    return max((each.code for each in found), default=ExitCode.ACCEPTED)


def _find(folder: Path, *, sandbox: bool) -> Iterator[_Listed]:
    """Yield the campaign files, then the ledgers that belong to none of them."""
    known: set[Path | Database] = set()
    for path, config in find_campaign_files(folder):
        if isinstance(config, CampaignConfig):
            ledger = config.sandbox_ledger if sandbox else config.ledger_location
            known.add(ledger)
            yield _Listed(config.name, path, ledger)
        else:
            yield _Listed(path.stem, path, None, error=str(config), code=ExitCode.USAGE)
    for path in sorted(folder.glob("*.ledger")):
        if path not in known and path.is_file() and path.name.endswith(REHEARSAL) == sandbox:
            yield _Listed(path.name.removesuffix(REHEARSAL).removesuffix(".ledger"), None, path)


async def _count(found: list[_Listed]) -> None:
    """Read the counts of each ledger; one that cannot be read does not hide the others."""
    from asyncsmtp.bulk.open_campaign import open_reader  # late: `--help` needs none of it

    for each in found:
        if each.ledger is None:
            continue
        try:
            async with await open_reader(each.ledger) as ledger:
                each.counts = await ledger.counts()
        except LedgerEmpty:
            pass
        except (LedgerError, MissingDependency) as error:
            each.error, each.code = str(error), ExitCode.LEDGER


def _columns(each: _Listed) -> tuple[str, str]:
    return safe_text(each.name, MAX_WIDTH), safe_text(str(each.file or each.ledger), MAX_WIDTH)


def _print(each: _Listed, columns: list[tuple[str, str]], *, as_json: bool) -> bool:
    from asyncsmtp.cli.output.formats import format_json_line
    from asyncsmtp.cli.output.run_stats import format_counts

    if as_json:
        record = {"name": each.name, "campaign": each.file and str(each.file)}
        record |= {"ledger": None if each.ledger is None else str(each.ledger), "error": each.error or None}
        counts = each.counts
        numbers = None if counts is None else {str(state): number for state, number in counts.items()}
        return console.print_result(format_json_line({**record, "counts": numbers}), harmless=False)
    widths = [max(map(len, column)) for column in zip(*columns, strict=True)]
    start = "  ".join(text.ljust(width) for text, width in zip(_columns(each), widths, strict=True))
    what = each.error or ("not begun yet" if not each.counts or not each.counts.total else format_counts(each.counts))
    return console.print_result(f"{start}  {safe_text(what, 300)}")
