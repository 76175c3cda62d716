"""Console: results on stdout, everything for people on stderr, questions, and the dialogue of `-v`.

Nothing that is printed harms a terminal. A closed stdout or stderr (`| head`) never ends a run, and a character that
the locale cannot write is escaped rather than fatal.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from asyncsmtp.cli.output.error_messages import CommandError
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.client.events.types import Direction
    from asyncsmtp.protocol.content import Content

__all__ = [
    "YES",
    "TranscriptPrinter",
    "configure_info",
    "configure_streams",
    "confirm",
    "count_columns",
    "has_colors",
    "is_interactive",
    "is_quiet",
    "is_terminal",
    "pluralize",
    "print_info",
    "print_log",
    "print_result",
    "print_steps",
    "print_styled",
    "print_warning",
    "stamp_lines",
]

MAX_LINE = 512  # characters shown of one line of the dialogue
YES = frozenset({"y", "yes"})


# What stands for the punctuation of this command where an encoding lacks it, as that of LANG=C does.
_PLAIN = {
    "·": "-",
    "×": "x",
    "…": "...",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
    "–": "-",
    "—": "-",
    "█": "#",
    "░": ".",
}


def configure_streams() -> None:
    """Let both streams replace what their encoding lacks; call it once, before anything is opened or printed.

    A descriptor that was closed (`<&-`) gets /dev/null: else the next file or socket would have its number, and
    uvloop aborts the process when that is closed.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    codecs.register_error("asyncsmtp", _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="asyncsmtp")


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return plain punctuation for a character, or its escape: an error handler of `codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    text = "".join(_PLAIN.get(each) or each.encode("ascii", "backslashreplace").decode("ascii") for each in found)
    return text, error.end


class _InfoOptions:
    """The options of lines for people, which `configure_info` sets."""

    quiet = False
    log: int | None = None  # a descriptor
    stamped = 0  # blocks of `stamp_lines`


def configure_info(*, quiet: bool = False, log_file: Path | None = None) -> None:
    """Set what becomes of the lines for people; without arguments: as at the start.

    Args:
        quiet: on stderr are warnings, errors and questions only.
        log_file: every line is appended to it, with the time; only its owner may read it.
    Raises:
        OSError: the file cannot be opened.
    """
    if _InfoOptions.log is not None:
        os.close(_InfoOptions.log)
        _InfoOptions.log = None
    _InfoOptions.quiet = quiet
    if log_file is not None:
        _InfoOptions.log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def is_quiet() -> bool:
    """Return whether only warnings, errors and questions are printed on stderr."""
    return _InfoOptions.quiet


@contextmanager
def stamp_lines() -> Iterator[None]:
    """Put the time before each line for people until the block ends, unless stderr is a terminal."""
    _InfoOptions.stamped += 1
    try:
        yield
    finally:
        _InfoOptions.stamped -= 1


def print_info(text: str = "", end: str = "\n", *, always: bool = False) -> None:
    """Print for people, on stderr. Every line is made harmless; failing to print never fails the caller.

    Args:
        always: also with --quiet.
    """
    print_log(text)
    if _InfoOptions.quiet and not always:
        return
    text = _escape(text)
    try:
        if _InfoOptions.stamped and sys.stderr is not None and not (sys.stderr.closed or sys.stderr.isatty()):
            text = _stamp(text)
        _write(sys.stderr, text, end)
    except OSError:  # a full disk behind 2> must not end a run either
        _discard_output(sys.stderr)


def has_colors() -> bool:
    """Return whether stderr is a terminal with colors, and nobody asked for none: https://no-color.org."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM", "").lower() in ("", "dumb", "unknown"):
        return False
    return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()


def count_columns() -> int:
    """Return the width of the terminal."""
    return shutil.get_terminal_size().columns


def print_styled(parts: Iterable[tuple[str, str]], *, always: bool = False) -> None:
    """Print a line for people, as `print_info` does, with the color of each of its parts where there are colors."""
    found = [(_escape(text), color) for text, color in parts]
    line = "".join(text for text, _ in found)
    if not line.strip():
        return
    if not has_colors():
        print_info(line, always=always)
        return
    print_log(line)
    if _InfoOptions.quiet and not always:
        return
    from rich.console import Console  # late: `asyncsmtp --help` needs none of it
    from rich.text import Text

    try:
        Console(stderr=True, markup=False, highlight=False, emoji=False).print(Text.assemble(*found), soft_wrap=True)
    except OSError:  # as in `print_info`
        _discard_output(sys.stderr)


def print_warning(text: str) -> None:
    """Print for people what should be known with --quiet, too."""
    print_info(text, always=True)


def print_log(text: str) -> None:
    """Append to the file of --log-file, if there is one; a failure is reported once and stops nothing."""
    if (log := _InfoOptions.log) is None:
        return
    try:
        os.write(log, (_stamp(_escape(text)) + "\n").encode("utf-8", "backslashreplace"))
    except OSError as error:
        _InfoOptions.log = None
        os.close(log)
        print_warning(f"the log file cannot be written ({str(error.strerror).lower()}); the command goes on without it")


def _stamp(text: str) -> str:
    """Put the local time with its offset (RFC 3339) before each line."""
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    return "\n".join(f"{now} {line}" for line in text.split("\n"))


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


def print_steps(steps: Iterable[str], *, always: bool = False) -> None:
    """Print what to do next, on stderr, a line each; a command ends its line, to be copied.

    A step that begins with `or: ` is another way to do the one before.
    """
    for step in steps:
        print_info(f"    {step}" if step.startswith("or: ") else f"  next: {step}", always=always)


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


async def confirm(question: str, otherwise: str, declined: str = "nothing was sent") -> None:
    """Return when a person says yes; anything else is a no.

    The loop reads the answer. A blocking prompt would miss Ctrl-C now and then: the system may give the
    signal to another thread, and the main one reads on.

    Args:
        otherwise: what would have happened, for the sentence where nobody can be asked.
        declined: what follows from a no.
    Raises:
        CommandError: there is no terminal, or the answer was not yes. Ctrl-C cancels it.
    """
    if not is_interactive():
        raise CommandError(f"{otherwise}; and there is no terminal to ask at", "add --yes when that is meant")
    print_info(f"{question} [y/N]", end=" ", always=True)
    if (await _read_line()).strip().lower() not in YES:
        raise CommandError(f"{declined}: the answer was not “y”", "run the same command again when you are ready")


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
