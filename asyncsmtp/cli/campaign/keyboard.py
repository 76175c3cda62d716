"""Keys while a campaign runs on a terminal: pause, go on, slower, faster, finish."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from asyncsmtp.cli.output import console

if TYPE_CHECKING:
    from asyncsmtp.bulk.running.runner import Run
    from asyncsmtp.cli.output.meter import Meter

__all__ = ["HELP", "Keyboard", "played"]

HELP = "keys: p pauses, c goes on, - slower, + faster, q finishes what is under way"
STEP = 1.25  # by which a rate is changed
LEAST = 0.01  # messages a second


class Keyboard:
    """What each key does to a run; what it did is said."""

    def __init__(self, run: Run, meter: Meter, drain: Callable[[], object]) -> None:
        self._run = run
        self._meter = meter
        self._drain = drain
        self._rate: float | None = None
        self._keys: Mapping[str, Callable[[], str]] = {
            "p": self._pause,
            "c": self._go_on,
            "-": lambda: self._change(1 / STEP),
            "+": lambda: self._change(STEP),
            "q": self._finish,
            "?": lambda: HELP,
        }

    def press(self, key: str) -> None:
        """Do what a key is for; others do nothing."""
        if (act := self._keys.get(key)) is not None:
            console.say(act())

    def _pause(self) -> str:
        self._run.pause()
        return "paused: what is under way is finished; c goes on"

    def _go_on(self) -> str:
        self._run.resume()
        return "going on"

    def _finish(self) -> str:
        self._drain()
        return "finishing what is under way; the same command goes on with the rest"

    def _change(self, factor: float) -> str:
        """From the rate that it has now; a rate that was given stays as well."""
        from asyncsmtp.bulk.rate_limit.rate import Rate

        self._rate = max(LEAST, (self._rate or self._meter.rate or 1.0) * factor)
        self._run.limit(Rate(self._rate, 1.0))
        return f"{self._rate:.3g} messages a second at the most"


@contextmanager
def played(keyboard: Keyboard) -> Iterator[None]:
    """Listen to keys until the block ends, where there is a terminal to type at; it is as it was afterwards.

    Only in the foreground: who touches the terminal from the background is stopped by it.
    """
    if not console.interactive() or sys.platform == "win32" or not _in_foreground():
        yield
        return
    import termios
    import tty

    loop, descriptor = asyncio.get_running_loop(), sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def read() -> None:
        typed = os.read(descriptor, 64) if _in_foreground() else b""
        if not typed:  # the end of the input, or somebody else's
            loop.remove_reader(descriptor)
        for key in typed.decode("ascii", "ignore"):
            keyboard.press(key)

    tty.setcbreak(descriptor)  # keys as they come; Ctrl-C stays a signal
    loop.add_reader(descriptor, read)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        if _in_foreground():
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _in_foreground() -> bool:
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:
        return False
