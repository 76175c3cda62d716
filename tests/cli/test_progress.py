"""A plain line where nobody watches, a bar on a terminal; data is never markup."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import subprocess
import sys
import termios

import pytest
from rich.console import ConsoleDimensions

from asyncsmtp.cli.output.run_stats import RunStats, _bar, notify_if_slow, show_progress
from asyncsmtp.protocol.delivery import Outcome


async def test_a_plain_line_is_printed_every_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    """A log file gets lines, not a thousand pictures of a bar."""
    printed = ""
    async with show_progress(RunStats(5), line_interval=0.001):
        async with asyncio.timeout(5):
            while printed.count("\n") < 2:
                await asyncio.sleep(0.001)
                printed += capsys.readouterr().err
    assert printed.splitlines()[0].startswith("0 of 5 · ")
    assert "\x1b" not in printed


BAR = """
import asyncio
from asyncsmtp.cli.output import run_stats as progress
from asyncsmtp.cli.output.run_stats import RunStats
from asyncsmtp.protocol.delivery import Outcome

async def main():
    meter = RunStats(4)
    progress.BAR_INTERVAL = 0.001
    async with progress.show_progress(meter):
        for _ in range(3):
            meter.count(Outcome.ACCEPTED)
        await asyncio.sleep(0.3)

asyncio.run(main())
"""


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_on_a_terminal_it_is_a_bar(columns: int) -> None:
    """FT-73: drawn on stderr, in a real (pseudo-)terminal, with bar, per cent and counts."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"TERM": "xterm"}
    with subprocess.Popen([sys.executable, "-c", BAR], stderr=theirs, env=environment):
        os.close(theirs)
        drawn = b""
        try:
            while octets := os.read(ours, 65536):
                drawn += octets
        except OSError:  # the other end is gone: all was read
            pass
    os.close(ours)
    text = drawn.decode()
    assert "75 %" in text
    assert "█" in text
    assert "3 accepted" in text


def test_a_terminal_that_is_made_narrower_keeps_no_torn_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """FT-73: the terminal wraps what is there; all lines of that are erased before the next picture."""
    printed, width = io.StringIO(), 100
    printed.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", printed)
    monkeypatch.setattr("rich.console.Console.size", property(lambda _: ConsoleDimensions(width, 24)))
    monkeypatch.setenv("TERM", "xterm")
    meter = RunStats(100)
    for _ in range(50):
        meter.count(Outcome.ACCEPTED)
    _, draw, finish = _bar(meter)
    draw()
    first = len(meter.format_bar(width))
    printed.seek(0), printed.truncate()
    width = 30
    draw()
    assert printed.getvalue().count("\x1b[1A") == (first - 1) // width == 2
    printed.seek(0), printed.truncate()
    draw()
    assert "\x1b[1A" not in printed.getvalue()
    finish()


async def test_a_slow_step_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """A million rows are read in silence only if that is quick."""
    with notify_if_slow("reading", seconds=0):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    with notify_if_slow("quick", seconds=60):
        pass
    assert capsys.readouterr().err == "reading …\n"
