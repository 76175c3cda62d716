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
    assert [keyboard.press(key) for key in "pc--+q?x\x1b"] == [True] * 7 + [False] * 2
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
    """FT-70: on a terminal of its own: it waits at first, so that nothing is over before the key comes; then 75."""
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
    assert os.waitstatus_to_exitcode(status) == 75, drawn
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


READS = """
import asyncio, sys
from asyncsmtp.cli.controls import read_keys

class Keys:
    def press(self, key):
        print("key", key, flush=True)
        return key == "p"

async def main():
    with read_keys(Keys()):
        print("reading", flush=True)
        await asyncio.sleep({seconds})

asyncio.run(main())
print("rest", sys.stdin.readline().strip(), flush=True)
"""


def typed_at(program: str, moments: list[tuple[bytes, bytes]], before: bytes = b"") -> str:
    """Run a program at a terminal; type each text when the first one was printed."""
    pid, terminal = pty.fork()
    if not pid:
        os.execv(sys.executable, [sys.executable, "-c", f"import time; time.sleep({0.5 if before else 0}){program}"])
    os.write(terminal, before)
    drawn = b""
    try:
        while data := os.read(terminal, 65536):
            drawn += data
            while moments and moments[0][0] in drawn:
                os.write(terminal, moments.pop(0)[1])
    except OSError:
        pass
    os.waitpid(pid, 0)
    os.close(terminal)
    return drawn.decode()


def test_a_line_that_was_typed_ahead_is_left_to_the_shell() -> None:
    """FT-75: `pwd` and Enter before the run began: no key is read, and nothing is thrown away."""
    drawn = typed_at(READS.format(seconds=0.2), [], before=b"pwd\n")
    assert "key" not in drawn
    assert "rest pwd" in drawn


def test_what_is_no_key_ends_the_reading_of_keys() -> None:
    """FT-75: a line that is typed while the run goes on is there afterwards, but for its first letter at the most."""
    drawn = typed_at(READS.format(seconds=1), [(b"reading", b"p"), (b"key p", b"l"), (b"key l", b"s -l\n")])
    assert drawn.count("key p") == drawn.count("key l") == 1
    assert "left to the shell" in drawn
    assert "rest ls -l" in drawn or "rest s -l" in drawn
