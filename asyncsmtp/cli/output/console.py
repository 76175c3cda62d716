"""Console: results on stdout, everything for people on stderr, questions, and the dialogue of `-v`.

Nothing that is printed harms a terminal. A closed stdout or stderr (`| head`) never ends a run, and a character that
the locale cannot write is escaped rather than fatal.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

import click

from asyncsmtp.cli.output.error_messages import CommandError
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.client.events.types import Direction
    from asyncsmtp.protocol.content import Content

__all__ = [
    "TranscriptPrinter",
    "configure_streams",
    "confirm",
    "is_interactive",
    "is_terminal",
    "pluralize",
    "print_info",
    "print_result",
]

MAX_LINE = 512  # characters shown of one line of the dialogue
YES = frozenset({"y", "yes"})


def configure_streams() -> None:
    """Let both streams escape what their encoding lacks; call it once, before anything is printed."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_info(text: str = "", end: str = "\n") -> None:
    """Print for people, on stderr. Every line is made harmless; failing to print never fails the caller."""
    try:
        _write(sys.stderr, _escape(text), end)
    except OSError:  # a full disk behind 2> must not end a run either
        _discard_output(sys.stderr)


def print_result(text: str, *, harmless: bool = True) -> bool:
    """Print a result on stdout; return whether someone still reads.

    Args:
        harmless: pass False for a machine's format that has escaped its data itself (JSON, CSV).
    Raises:
        OSError: stdout cannot be written for a reason other than a reader who left (a full disk).
    """
    try:
        return _write(sys.stdout, _escape(text) if harmless else text, "\n")
    except OSError as error:
        _discard_output(sys.stdout)
        if error.errno not in (errno.EPIPE, errno.EIO):
            raise
        return False


def is_interactive() -> bool:
    """Return whether a person can be asked: stdin and stderr are a terminal."""
    return all(stream is not None and not stream.closed and stream.isatty() for stream in (sys.stdin, sys.stderr))


def is_terminal() -> bool:
    """Return whether stdout is a terminal, which acts on control characters."""
    return sys.stdout is not None and not sys.stdout.closed and sys.stdout.isatty()


def pluralize(number: int, what: str, several: str = "") -> str:
    """Return `1 row` or `1,000 rows`; `several` is the plural where an s is not enough."""
    return f"{number:,} {what if number == 1 else several or f'{what}s'}"


def _escape(text: str) -> str:
    return "\n".join(map(safe_text, text.split("\n")))


def _write(stream: TextIO | None, text: str, end: str) -> bool:
    if stream is None or stream.closed:
        return False
    stream.write(text + end)
    stream.flush()
    return True


def _discard_output(stream: TextIO) -> None:
    """Point a broken stream at nothing, so that neither the next line nor the interpreter's exit complains."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, stream.fileno())
    os.close(nothing)


# Questions.


async def confirm(question: str, otherwise: str) -> None:
    """Return when a person says yes; anything else is a no.

    The loop reads the answer. A blocking prompt would miss Ctrl-C now and then: the system may give the
    signal to another thread, and the main one reads on.

    Args:
        otherwise: what would have happened, for the sentence where nobody can be asked.
    Raises:
        CommandError: there is no terminal. Abort: the answer was no. Ctrl-C cancels it.
    """
    if not is_interactive():
        raise CommandError(f"{otherwise}; and there is no terminal to ask at", "add --yes when that is meant")
    print_info(f"{question} [y/N]", end=" ")
    if (await _read_line()).strip().lower() not in YES:
        raise click.Abort


async def _read_line() -> str:
    """Return what a person types, up to Enter; "" at the end of the input."""
    import asyncio  # late: `asyncsmtp --help` needs none of it

    loop, descriptor = asyncio.get_running_loop(), sys.stdin.fileno()
    typed: asyncio.Future[bytes] = loop.create_future()

    def read() -> None:
        if not typed.done():
            typed.set_result(os.read(descriptor, 4096))  # a terminal gives a line at a time

    loop.add_reader(descriptor, read)
    try:
        return (await typed).decode("utf-8", "replace")
    finally:
        loop.remove_reader(descriptor)


# The dialogue, in the marks of swaks:
#
#   ===  an event                      <-   the relay, in clear      <~   the relay, under TLS
#    ->  we, in clear                   ~>  we, under TLS            <**  the relay refuses


class TranscriptPrinter:
    """A trace that prints each line at once; `Session(relay, trace=…)` calls it.

    Of the content, which the trace leaves out, the header section is shown and the body is cut.
    """

    def __init__(self, write: Callable[[str], object], content: Content | None = None) -> None:
        self._write = write
        self._content = content

    def __call__(self, side: Direction, text: str, *, tls: bool, refused: bool) -> None:
        """Print a text, each of its lines with its mark."""
        mark = _mark(side.value, tls=tls, refused=refused)
        if side.value == "C" and text == "." and self._content is not None:
            for line in _content_lines(self._content):
                self._write(f"{mark} {line}")
        for line in text.split("\n"):
            self._write(f"{mark} {safe_text(line, MAX_LINE)}")


def _mark(side: str, *, tls: bool, refused: bool) -> str:
    if side == "S":
        return "<**" if refused else "<~ " if tls else "<- "
    return (" ~>" if tls else " ->") if side == "C" else "==="


def _content_lines(content: Content) -> list[str]:
    """Return the lines of the header section, the empty line, and how much body there is."""
    head, _, body = bytes(content).partition(b"\r\n\r\n")
    lines = [safe_text(line.decode("utf-8", "backslashreplace"), MAX_LINE) for line in head.split(b"\r\n")]
    return [*lines, "", f"[{len(body):,} bytes of body]"]
