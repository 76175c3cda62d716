"""`asyncsmtp status --workers`: who is at work on a campaign, once or as a live table."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.bulk.open_campaign import open_reader
from asyncsmtp.bulk.workers.control import WorkersStatus, WorkerStatus, read_workers
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode
from asyncsmtp.cli.output.formats import format_json_line
from asyncsmtp.errors import LedgerError
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from rich.console import RenderableType

    from asyncsmtp.bulk.ledger.interfaces import Counts

__all__ = ["show_workers"]

MAX_GONE = 3  # workers that have left or were fenced, which are shown as well
_COLUMNS = ("run", "worker", "state", "batches", "commits", "last commit", "lease")


@dataclass(frozen=True, slots=True)
class _Picture:
    """Workers and rows of a campaign at one moment, and the rows a second since the last picture."""

    workers: WorkersStatus
    counts: Counts
    rate: float | None

    def heading(self) -> str:
        """Return the state of the campaign, its rows and its batches, as one line."""
        from asyncsmtp.cli.output.run_stats import format_counts

        here = sum(worker.state == "here" for worker in self.workers.workers)
        done, taken = self.workers.batches_done, self.workers.batches_taken
        batches = f"{done:,} of {self.workers.batches:,} batches done, {taken} taken"
        parts = [self.workers.state, console.pluralize(here, "worker"), batches]
        if self.rate is not None:
            parts.append(f"{self.rate:,.0f} rows/s")
        return f"{', '.join(parts)}; {format_counts(self.counts)}"

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield what is shown of each worker."""
        gone = 0
        for worker in self.workers.workers:
            gone += worker.state != "here"
            if worker.state == "here" or gone <= MAX_GONE:
                yield _format_worker(worker)

    def record(self) -> dict[str, object]:
        """Return all of it for a program."""
        return {
            "state": self.workers.state,
            "batches": self.workers.batches,
            "batches_done": self.workers.batches_done,
            "batches_taken": self.workers.batches_taken,
            "rows": {str(state): number for state, number in self.counts.items()},
            "workers": [_record_worker(worker) for worker in self.workers.workers],
        }


def _format_worker(worker: WorkerStatus) -> tuple[str, ...]:
    idle = f"{worker.idle:.1f} s ago" if worker.state == "here" else f"{worker.last_at.astimezone():%H:%M:%S}"
    figures = (f"{worker.batches}", f"{worker.commits:,}", idle, f"{worker.lease:g} s")
    return f"{worker.run}", safe_text(worker.owner, 60), worker.state, *figures


def _record_worker(worker: WorkerStatus) -> Mapping[str, object]:
    names = ("run", "owner", "state", "commits", "batches", "lease")
    times = {
        "idle": round(worker.idle, 3),
        "began_at": worker.began_at.isoformat(timespec="milliseconds"),
        "last_at": worker.last_at.isoformat(timespec="milliseconds"),
    }
    return {name: getattr(worker, name) for name in names} | times


async def show_workers(location: Path | Database, *, watch: float | None, as_json: bool) -> ExitCode:
    """Print who is at work; with `watch`, again after so many seconds, until Ctrl-C."""
    if not isinstance(location, Database):
        raise CommandError(f"{location} is a file, which only one process can use", "leave out --workers")
    picture = await _read(location, None)
    if watch is None:
        _print(picture, as_json=as_json)
        return ExitCode.ACCEPTED
    if not as_json and sys.stdout is not None and sys.stdout.isatty():
        return await _show_live(location, picture, watch)
    while True:
        _print(picture, as_json=as_json)
        await asyncio.sleep(watch)
        picture = await _read(location, picture)


async def _read(location: Database, before: _Picture | None, *, seconds: float = 0.0) -> _Picture:
    workers = await read_workers(location)
    async with await open_reader(location) as reader:
        counts = await reader.counts()
    rate = None
    if before is not None and seconds > 0:
        rate = max(0, _settled(counts) - _settled(before.counts)) / seconds
    return _Picture(workers, counts, rate)


def _settled(counts: Counts) -> int:
    from asyncsmtp.bulk.ledger.interfaces import RowState

    return counts.total - counts[RowState.PENDING] - counts[RowState.SENDING]


def _print(picture: _Picture, *, as_json: bool) -> None:
    if as_json:
        console.print_result(format_json_line(picture.record()))
        return
    console.print_result(picture.heading())
    rows = [_COLUMNS, *picture.rows()]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_COLUMNS))]
    for row in rows:
        console.print_result(
            "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


async def _show_live(location: Database, picture: _Picture, watch: float) -> ExitCode:
    """Draw the table in place; nothing in it is read as markup."""
    from rich.live import Live  # late: only a terminal needs it

    read_at = time.monotonic()
    with Live(_draw(picture), auto_refresh=False) as live:
        live.refresh()
        while True:
            await asyncio.sleep(watch)
            now = time.monotonic()
            try:
                picture = await _read(location, picture, seconds=now - read_at)
                live.update(_draw(picture), refresh=True)
            except LedgerError as error:  # it may be back the next time
                live.update(_draw(picture, safe_text(str(error), 200)), refresh=True)
            read_at = now


def _draw(picture: _Picture, trouble: str = "") -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in _COLUMNS:
        table.add_column(name, justify="right" if name in ("run", "batches", "commits") else "left")
    for row in picture.rows():
        style = "" if row[2] == "here" else "dim"
        table.add_row(*map(Text, row), style=style)
    return Group(Text(picture.heading()), table, *([Text(trouble)] if trouble else []))
