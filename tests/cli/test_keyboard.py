"""Keys while a campaign runs: each does what it says, and the terminal is as it was afterwards."""

from __future__ import annotations

import os
import pty
import sys
import termios
import time
from pathlib import Path

import pytest

from asyncsmtp.bulk.rate_limit.rate import Rate
from asyncsmtp.cli.controls import HELP, Keyboard
from asyncsmtp.cli.output.run_stats import RunStats
from asyncsmtp.testing import ScriptedRelay
from tests.cli.serving import serving
from tests.cli.test_bulk import relay_at


class Noting:
    """A run that writes down what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def pause(self) -> None:
        self.asked.append("pause")

    def resume(self) -> None:
        self.asked.append("resume")

    def limit(self, rate: Rate) -> None:
        self.asked.append(round(rate.count, 3))


def test_each_key_does_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    run, drained = Noting(), []
    keyboard = Keyboard(run, RunStats(10), lambda: drained.append(1))  # type: ignore[arg-type]
    for key in "pc--+q?x\x1b":
        keyboard.press(key)
    assert run.asked == ["pause", "resume", 0.8, 0.64, 0.8]
    assert drained == [1]
    said = capsys.readouterr().err
    assert said.endswith(HELP + "\n")
    assert "0.64 messages a second at the most" in said


def test_in_the_background_the_terminal_is_left_alone(campaign: Path) -> None:
    """`asyncsmtp bulk … &`: who changes a terminal from the background is stopped, and nobody is mailed."""
    with serving(ScriptedRelay()) as relay:
        pid, terminal = pty.fork()
        if not pid:
            command = f"{sys.executable} -m asyncsmtp bulk {campaign} {' '.join(relay_at(relay))!r} --yes & wait $!"
            command = command.replace("'--relay ", "--relay '")
            os.execv("/bin/bash", ["bash", "-mc", command])
        drawn = b""
        try:
            while octets := os.read(terminal, 65536):
                drawn += octets
        except OSError:
            pass
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0, drawn
    assert len(relay.received) == 3


def test_q_finishes_and_the_terminal_is_as_it_was(campaign: Path) -> None:
    """On a terminal of its own: paused at first, so that nothing is over before the key comes."""
    with serving(ScriptedRelay()) as relay:
        pid, terminal = pty.fork()
        if not pid:
            words = ["-m", "asyncsmtp", "bulk", str(campaign), *relay_at(relay), "--yes", "--start-at", "23:59"]
            os.execv(sys.executable, [sys.executable, *words])
        drawn, deadline = b"", time.monotonic() + 30
        before = termios.tcgetattr(terminal)
        while b"finishing what is under way" not in drawn and time.monotonic() < deadline:
            os.write(terminal, b"?" if b"keys: " not in drawn else b"q")
            time.sleep(0.05)
            drawn += os.read(terminal, 65536)
        try:
            while octets := os.read(terminal, 65536):
                drawn += octets
        except OSError:
            pass
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) in (0, 75), drawn
    assert b"3 pending" in drawn
    assert before
    assert relay.received == []


THRICE = """
import asyncio, os, signal
from asyncsmtp.cli.controls import handle_signals, read_keys

async def main():
    with handle_signals(lambda: None, lambda: None), read_keys(None):
        print("reading", flush=True)
        for _ in range(3):
            await asyncio.sleep(0.3)
            os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(30)

asyncio.run(main())
"""


def test_after_the_third_signal_the_terminal_is_as_it_was() -> None:
    """BL-16: the shell that follows shows what is typed, and takes whole lines."""
    pid, terminal = pty.fork()
    if not pid:
        os.execv(sys.executable, [sys.executable, "-c", THRICE])
    before, during, drawn = termios.tcgetattr(terminal), None, b""
    try:
        while data := os.read(terminal, 65536):
            drawn += data
            during = during or (b"reading" in drawn and termios.tcgetattr(terminal)) or None
    except OSError:
        pass
    _, status = os.waitpid(pid, 0)
    after = termios.tcgetattr(terminal)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130, drawn
    assert during is not None
    assert before[3] & termios.ICANON
    assert not during[3] & termios.ICANON
    assert after == before
