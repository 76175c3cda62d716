"""A plain line where nobody watches, a bar on a terminal; data is never markup."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys

import pytest

from asyncsmtp.cli.output.run_stats import RunStats, notify_if_slow, show_progress


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


def test_on_a_terminal_it_is_a_bar() -> None:
    """Drawn on stderr, in a real (pseudo-)terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", BAR], stderr=theirs, env=os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    ):
        os.close(theirs)
        drawn = b""
        try:
            while octets := os.read(ours, 65536):
                drawn += octets
        except OSError:  # the other end is gone: all was read
            pass
    os.close(ours)
    text = drawn.decode()
    assert "75%" in text
    assert "3 of 4" in text
    assert "3 accepted" in text


async def test_a_slow_step_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """A million rows are read in silence only if that is quick."""
    with notify_if_slow("reading", seconds=0):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    with notify_if_slow("quick", seconds=60):
        pass
    assert capsys.readouterr().err == "reading …\n"
