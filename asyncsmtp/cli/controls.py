"""Controls of a run: Ctrl-C and other signals, keys on a terminal, and the event loop.

The first signal drains, the second aborts, the third ends the process at once.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import ExitCode

if TYPE_CHECKING:
    from asyncsmtp.bulk.running.runner import Run
    from asyncsmtp.cli.output.run_stats import RunStats

__all__ = ["HELP", "SIGNALS", "Interruption", "Keyboard", "handle_signals", "read_keys", "run_on_fast_loop"]

HELP = "keys: p pauses, c goes on, - slower, + faster, q finishes what is under way"
RATE_STEP = 1.25  # by which a key changes the rate
MIN_RATE = 0.01  # messages a second
REPEAT_INTERVAL = 2.0  # seconds within which SIGTERM and SIGHUP are one request, however often they come

SIGNALS = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED, signal.SIGHUP: ExitCode.TERMINATED}
_restore_keys: list[Callable[[], object]] = []  # while keys are read
T = TypeVar("T")


def run_on_fast_loop(main: Coroutine[object, object, T]) -> T:
    """Run as `asyncio.run` does, on uvloop where it is installed. For what sends much: to load uvloop takes a while."""
    try:
        import uvloop
    except ImportError:  # no extra, or no such thing on this system
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


class Interruption:
    """Signals so far, and the steps they take.

    Each Ctrl-C is a person's. SIGTERM and SIGHUP come twice at one end: a service manager sends them to all processes
    and the parent passes them on, and a terminal that closes does so too.

    Attributes:
        exit: the exit code of the first one; None while there was none.
    """

    def __init__(self, drain: Callable[[], object], abort: Callable[[], object], doing: str) -> None:
        self.exit: ExitCode | None = None
        self._began_at = 0.0
        breaking_off = "aborting; what was sent without a reply will be in doubt. Press Ctrl-C again to exit at once"
        self._steps = iter(((doing, drain), (breaking_off, abort)))

    def signal(self, number: signal.Signals) -> None:
        """Take the next step."""
        if self.exit is None:
            self.exit, self._began_at = SIGNALS[number], time.monotonic()
        elif number is not signal.SIGINT and time.monotonic() - self._began_at < REPEAT_INTERVAL:
            return
        step = next(self._steps, None)
        if step is None:
            for restore in (_show_cursor, *_restore_keys):
                restore()
            os._exit(self.exit)
        console.print_info(f"{'Ctrl-C' if number is signal.SIGINT else number.name}: {step[0]}")
        step[1]()


def _show_cursor() -> None:
    """Show the cursor: a bar hides it, and has no time left to bring it back (ECMA-48: DECTCEM)."""
    if os.isatty(2):
        os.write(2, b"\x1b[?25h")


@contextmanager
def handle_signals(
    drain: Callable[[], object],
    abort: Callable[[], object],
    doing: str = "finishing what is under way; once more to break it off",
) -> Iterator[Interruption]:
    """Handle the signals on the running loop until the block ends; `doing` is printed at the first."""
    interruption, loop = Interruption(drain, abort, doing), asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, interruption.signal, number)
    try:
        yield interruption
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


class Keyboard:
    """Keys that control a run; what each did is printed."""

    def __init__(self, run: Run, stats: RunStats, drain: Callable[[], object]) -> None:
        self._run = run
        self._stats = stats
        self._drain = drain
        self._rate: float | None = None
        self._keys: Mapping[str, Callable[[], str]] = {
            "p": self._pause,
            "c": self._go_on,
            "-": lambda: self._change(1 / RATE_STEP),
            "+": lambda: self._change(RATE_STEP),
            "q": self._finish,
            "?": lambda: HELP,
        }

    def press(self, key: str) -> bool:
        """Do what a key is for; return whether it is one of the keys."""
        if (act := self._keys.get(key)) is not None:
            console.print_info(act())
        return act is not None

    def _pause(self) -> str:
        self._run.pause()
        return "paused; messages in progress are finished; c continues"

    def _go_on(self) -> str:
        self._run.resume()
        return "continuing"

    def _finish(self) -> str:
        self._drain()
        return "finishing what is under way; the same command goes on with the rest"

    def _change(self, factor: float) -> str:
        """Change the rate from what it is now; a rate that was given stays as well."""
        from asyncsmtp.bulk.rate_limit.rate import Rate

        self._rate = max(MIN_RATE, (self._rate or self._stats.rate or 1.0) * factor)
        self._run.limit(Rate(self._rate, 1.0))
        return f"{self._rate:.3g} messages a second at the most"


@contextmanager
def read_keys(keyboard: Keyboard) -> Iterator[None]:
    """Read keys until the block ends, where there is a terminal to type at; it is as it was afterwards.

    Only in the foreground: the system stops a process that touches the terminal from the background. And only keys: a
    line that was typed ahead, for the shell, is left to the shell. So nothing is read if input waits already, one byte
    is read at a time, and the first that is not one of the keys ends the reading.
    """
    if not console.is_interactive() or sys.platform == "win32" or not _in_foreground() or _has_input():
        yield
        return
    import termios
    import tty

    loop, descriptor = asyncio.get_running_loop(), sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def read() -> None:
        typed = os.read(descriptor, 1) if _in_foreground() else b""
        if not typed:  # the end of the input, or somebody else's
            loop.remove_reader(descriptor)
        elif not keyboard.press(typed.decode("ascii", "replace")) and typed not in (b"\n", b" "):
            loop.remove_reader(descriptor)
            if not _has_input():  # it would come behind what waits there
                _return_to_input(descriptor, typed)
            restore()
            console.print_info("that is not one of the keys: what is typed from now on is left to the shell")

    def restore(when: int = termios.TCSANOW) -> None:
        with suppress(termios.error):  # the terminal is gone
            if _in_foreground():
                termios.tcsetattr(descriptor, when, before)

    _restore_keys.append(restore)
    tty.setcbreak(descriptor, termios.TCSANOW)  # keys as they come; Ctrl-C stays a signal; no input is thrown away
    loop.add_reader(descriptor, read)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        _restore_keys.remove(restore)
        restore(termios.TCSADRAIN)


def _has_input() -> bool:
    """Return whether input waits: bytes while keys are read, else a line that was typed before."""
    return bool(select.select([sys.stdin], [], [], 0)[0])


def _return_to_input(descriptor: int, typed: bytes) -> None:
    """Put a byte back into the terminal's input, where the system allows that (Linux 6.2 and newer do not)."""
    import fcntl
    import termios

    with suppress(OSError):
        fcntl.ioctl(descriptor, termios.TIOCSTI, typed)


def _in_foreground() -> bool:
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:
        return False
