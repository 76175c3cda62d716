"""What is printed: results on stdout, everything for people on stderr, nothing that harms a terminal.

A closed stdout or stderr (`| head`) never ends a run, and a character that the locale cannot write
is escaped rather than fatal.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TextIO

from asyncsmtp.protocol.replies import safe_text

__all__ = ["interactive", "many", "on_terminal", "out", "prepare", "say"]


def prepare() -> None:
    """Let both streams escape what their encoding lacks. Call it once, before anything is printed."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str = "", end: str = "\n") -> None:
    """Print for people, on stderr. Every line is made harmless; failing to print never fails the caller."""
    try:
        _write(sys.stderr, _harmless(text), end)
    except OSError:  # a full disk behind 2> must not end a run either
        _deafen(sys.stderr)


def out(text: str, *, harmless: bool = True) -> bool:
    """Print a result on stdout; tell whether someone still reads.

    Args:
        harmless: pass False for a machine's format that has escaped its data itself (JSON, CSV).
    Raises:
        OSError: stdout cannot be written for a reason other than a reader who left (a full disk).
    """
    try:
        return _write(sys.stdout, _harmless(text) if harmless else text, "\n")
    except OSError as error:
        _deafen(sys.stdout)
        if error.errno not in (errno.EPIPE, errno.EIO):
            raise
        return False


def interactive() -> bool:
    """Whether a person can be asked: both ends of the conversation are a terminal."""
    return all(stream is not None and not stream.closed and stream.isatty() for stream in (sys.stdin, sys.stderr))


def on_terminal() -> bool:
    """Whether what `out` prints is read by a terminal, which acts on control characters."""
    return sys.stdout is not None and not sys.stdout.closed and sys.stdout.isatty()


def many(number: int, what: str, several: str = "") -> str:
    """`1 row`, `1,000 rows`; `several` is the plural where an s is not enough."""
    return f"{number:,} {what if number == 1 else several or f'{what}s'}"


def _harmless(text: str) -> str:
    return "\n".join(map(safe_text, text.split("\n")))


def _write(stream: TextIO | None, text: str, end: str) -> bool:
    if stream is None or stream.closed:
        return False
    stream.write(text + end)
    stream.flush()
    return True


def _deafen(stream: TextIO) -> None:
    """Point a broken stream at nothing, so that neither the next line nor the interpreter's exit complains."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, stream.fileno())
    os.close(nothing)
