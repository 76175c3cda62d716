"""A person at a terminal, who runs `asyncsmtp` and types an answer to each question."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["converse"]


def converse(
    folder: Path,
    words: Sequence[object],
    answers: Sequence[tuple[str, str]],
    variables: Mapping[str, str] | None = None,
    timeout: float = 110,
) -> tuple[int, str]:
    """Run `asyncsmtp` with these words on a terminal; type each answer when its question has come.

    Return the exit code and all that was printed. A question that does not come fails the test.
    """
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(folder)
        command = [sys.executable, "-m", "asyncsmtp", *map(str, words)]
        os.execve(sys.executable, command, {**os.environ, **(variables or {})})
    left, printed, seen, deadline = [*answers], "", 0, time.monotonic() + timeout
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:  # it has ended
            break
        if not data:
            break
        printed += data.decode(errors="replace")
        if left and (found := printed.find(left[0][0], seen)) >= 0:
            seen = found + len(left[0][0])
            os.write(terminal, left.pop(0)[1].encode())
    else:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert not left, f"{left[0][0]!r} did not come:\n{printed}"
    return os.waitstatus_to_exitcode(status), printed
