"""Ctrl-C and SIGTERM while a campaign runs: the first drains, the second cuts, the third ends at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.exits import Exit

__all__ = ["Interruption", "interruptible"]

SIGNALS = {
    signal.SIGINT: Exit.INTERRUPTED,
    signal.SIGTERM: Exit.TERMINATED,
    signal.SIGHUP: Exit.TERMINATED,
}


class Interruption:
    """What signals have asked for so far.

    Attributes:
        exit: the exit code of the first one; None while there was none.
    """

    def __init__(self, drain: Callable[[], object], cut: Callable[[], object], doing: str) -> None:
        self.exit: Exit | None = None
        self._steps = iter(
            (
                (doing, drain),
                ("breaking off; what was sent without an answer is in doubt. Once more ends at once", cut),
            )
        )

    def signal(self, number: signal.Signals) -> None:
        """Take the next step."""
        if self.exit is None:
            self.exit = SIGNALS[number]
        step = next(self._steps, None)
        if step is None:
            _show_cursor()
            os._exit(self.exit)
        console.say(f"{'Ctrl-C' if number is signal.SIGINT else number.name}: {step[0]}")
        step[1]()


def _show_cursor() -> None:
    """A bar hides it, and has no time left to bring it back (ECMA-48: DECTCEM)."""
    if os.isatty(2):
        os.write(2, b"\x1b[?25h")


@contextmanager
def interruptible(
    drain: Callable[[], object],
    cut: Callable[[], object],
    doing: str = "finishing what is under way; once more to break it off",
) -> Iterator[Interruption]:
    """Handle the signals on the running loop until the block ends; `doing` is said at the first."""
    interruption, loop = Interruption(drain, cut, doing), asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, interruption.signal, number)
    try:
        yield interruption
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
