"""How a run looks while it runs: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING

from asyncsmtp.cli.output import console

if TYPE_CHECKING:
    from asyncsmtp.cli.output.meter import Meter

__all__ = ["patience", "shown"]

BAR_INTERVAL = 0.125  # seconds between two pictures of the bar
LINE_INTERVAL = 5.0  # seconds between two plain lines


@contextmanager
def patience(doing: str, seconds: float = 1.0) -> Iterator[None]:
    """Say what is being done, if the block takes longer than `seconds`."""
    later = asyncio.get_running_loop().call_later(seconds, console.say, f"{doing} …")
    try:
        yield
    finally:
        later.cancel()


@asynccontextmanager
async def shown(meter: Meter, *, line_interval: float = LINE_INTERVAL) -> AsyncIterator[None]:
    """Show `meter` on stderr until the block ends."""
    if sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty():
        interval, draw, finish = _bar(meter)
    else:
        interval, draw, finish = line_interval, lambda: console.say(meter.line()), lambda: None
    ticker = asyncio.get_running_loop().create_task(_tick(interval, draw), name="asyncsmtp: progress")
    try:
        yield
    finally:
        ticker.cancel()
        await asyncio.gather(ticker, return_exceptions=True)
        finish()


async def _tick(interval: float, draw: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(interval)
        draw()


def _bar(meter: Meter) -> tuple[float, Callable[[], None], Callable[[], None]]:
    """A bar of rich, and below it the line; nothing in it is read as markup."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    bar = Progress(
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.description}", markup=False),
        console=Console(stderr=True, markup=False, highlight=False, emoji=False),
        auto_refresh=False,
        transient=True,
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),  # a file gets its results itself
    )
    task = bar.add_task(meter.line(), total=meter.total)
    bar.start()

    def draw() -> None:
        bar.update(task, completed=meter.done, description=meter.line())
        with suppress(OSError):  # the terminal is gone; the run goes on
            bar.refresh()

    def finish() -> None:
        with suppress(OSError):
            bar.stop()

    return BAR_INTERVAL, draw, finish
