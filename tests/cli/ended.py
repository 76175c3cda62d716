"""How a command ended, as the tests of the command read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one line that says what is wrong."""
        lines = [line for line in self.err.splitlines() if line.startswith("asyncsmtp: ")]
        assert len(lines) == 1, self.err
        return lines[0].removeprefix("asyncsmtp: ")


Command = Callable[..., Ended]
