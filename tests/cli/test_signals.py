"""Ctrl-C once drains, twice cuts, three times ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from asyncsmtp.cli import controls
from asyncsmtp.cli.controls import handle_signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
async def test_the_first_drains_and_the_second_cuts(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    """BL-16; the exit code tells which signal came first."""
    monkeypatch.setattr(controls, "REPEAT_INTERVAL", 0.0)
    steps: list[str] = []
    asked = asyncio.Event()

    def take(step: str) -> None:
        steps.append(step)
        asked.set()

    with handle_signals(lambda: take("drain"), lambda: take("cut")) as interruption:
        assert interruption.exit is None
        for _ in range(2):
            asked.clear()
            os.kill(os.getpid(), number)
            async with asyncio.timeout(5):
                await asked.wait()
    assert steps == ["drain", "cut"]
    assert interruption.exit == code
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("numbers", [[signal.SIGTERM] * 3, [signal.SIGHUP] * 2, [signal.SIGTERM, signal.SIGHUP]])
async def test_the_same_end_may_be_told_twice(numbers: list[signal.Signals]) -> None:
    """By a service manager and by the parent, by a terminal that closes; then Ctrl-C is another one."""
    steps: list[str] = []
    cut = asyncio.Event()

    def take_second() -> None:
        steps.append("cut")
        cut.set()

    with handle_signals(lambda: steps.append("drain"), take_second):
        for number in numbers:
            os.kill(os.getpid(), number)
            await asyncio.sleep(0.05)
        assert steps == ["drain"]
        os.kill(os.getpid(), signal.SIGINT)
        async with asyncio.timeout(5):
            await cut.wait()


THRICE = """
import asyncio, os, signal
from asyncsmtp.cli.controls import handle_signals

async def main():
    with handle_signals(lambda: None, lambda: None):
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.05)
        await asyncio.sleep(30)

asyncio.run(main())
"""


def test_the_third_ends_at_once() -> None:
    """BL-16: someone who presses three times does not want to wait."""
    ended = subprocess.run([sys.executable, "-c", THRICE], capture_output=True, timeout=15)
    assert ended.returncode == 130
    assert b"finishing what is under way" in ended.stderr
