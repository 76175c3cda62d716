"""`asyncsmtp report`: one HTML file about a campaign, to look at in a browser or to mail around."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.cli.options import NamedLedger, ledger_options, open_option, option
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.browser import open_in_browser
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncsmtp.bulk.ledger.interfaces import Refusal, Statistics
    from asyncsmtp.web.report import Step

__all__ = ["command"]

INTERVAL = 2.0  # seconds between two reports with --live
STDOUT = Path("-")
MAX_HEAD = 2048  # bytes in which a report says that it is one

_EPILOG = """\b
Example:
  asyncsmtp report demo/campaign.toml --output report.html
"""


@click.command("report", epilog=_EPILOG)
@ledger_options
@option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Write it to this file, - for stdout; otherwise NAME.report.html beside the ledger, or here for a database.",
)
@open_option
@option("--live", is_flag=True, help="Write it again every 2 seconds, until everyone has an outcome, or Ctrl-C.")
def command(where: NamedLedger, output: Path | None, opens: bool, live: bool) -> ExitCode:
    """Write a report of a campaign as one HTML file.

    Totals, outcomes over time, by domain and by relay, why recipients were not
    accepted, and who is in doubt. The file loads nothing from anywhere, so that
    it can be mailed around and printed. Also while the campaign runs.
    """
    if output == STDOUT:
        if live or opens:
            raise CommandError(f"{'--live' if live else '--open'} needs a file", "name one with --output")
        console.print_result(_render(where, *asyncio.run(_read(where))).rstrip("\n"), harmless=False)
        return ExitCode.ACCEPTED
    path = output or _default_path(where.location)
    _refuse_foreign(path)
    is_open = False
    while True:
        name, statistics = asyncio.run(_read(where))
        going_on = live and _is_unfinished(statistics)
        _write(path, _render(where, name, statistics, refresh=int(INTERVAL) if going_on else 0))
        if not is_open:
            is_open = True
            console.print_result(str(path))
            if opens:
                open_in_browser(path.absolute().as_uri())
        if not going_on:
            return ExitCode.ACCEPTED
        try:
            time.sleep(INTERVAL)
        except KeyboardInterrupt:
            _write(path, _render(where, name, statistics))
            return ExitCode.ACCEPTED


def _default_path(location: Path | Database) -> Path:
    if isinstance(location, Path):
        return location.with_name(f"{location.name.removesuffix('.ledger')}.report.html")
    return Path(f"{location.campaign.replace('/', '_') or 'campaign'}.report.html")


def _refuse_foreign(path: Path) -> None:
    """Refuse to replace a file that is no report."""
    from asyncsmtp.web.report import GENERATOR

    with suppress(FileNotFoundError):
        try:
            with path.open("rb") as file:
                is_ours = GENERATOR in file.read(MAX_HEAD)
        except IsADirectoryError:
            is_ours = False
        except FileNotFoundError:
            raise
        except OSError as error:
            raise CommandError(f"{path} cannot be read: {error.strerror}", "choose another with --output") from error
        if not is_ours:
            raise CommandError(f"{path} is there, and is not a report", "choose another with --output")


async def _read(where: NamedLedger) -> tuple[str, Statistics]:
    from asyncsmtp.bulk.open_campaign import open_reader

    async with await open_reader(where.location, where.name) as ledger:
        return ledger.name, await ledger.statistics()


def _is_unfinished(statistics: Statistics) -> bool:
    from asyncsmtp.bulk.ledger.interfaces import RowState

    return any(statistics.counts[state] for state in (RowState.PENDING, RowState.SENDING, RowState.DEFERRED))


def _render(where: NamedLedger, name: str, statistics: Statistics, *, refresh: int = 0) -> str:
    from asyncsmtp import __version__  # late: it is looked up among the packages that are installed
    from asyncsmtp.web.report import render_report

    def explain(refusal: Refusal) -> str:
        from asyncsmtp.cli.output.provider_advice import explain_reply

        known = explain_reply(f"{refusal.code or ''} {refusal.reply}".strip(), refusal.host, where.provider)
        return str(known or "")

    return render_report(
        name,
        str(where.location),
        statistics,
        steps=_steps(where, statistics),
        explain=explain,
        rehearsal=isinstance(where.location, Path) and where.location.name.endswith(".sandbox.ledger"),
        refresh=refresh,
        version=__version__,
    )


def _steps(where: NamedLedger, statistics: Statistics) -> Iterator[Step]:
    from asyncsmtp.cli.output.run_stats import next_steps
    from asyncsmtp.web.report import Step

    for step in next_steps(statistics.counts, where.reference, where.bulk):
        text, found, command = step.partition(": asyncsmtp ")
        yield Step(f"{text}:", f"asyncsmtp {command}") if found else Step(text)


def _write(path: Path, text: str) -> None:
    """Replace the file as a whole, so that a browser never reads half of it."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            new.write_text(text, encoding="utf-8")
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}", "choose another with --output") from error
