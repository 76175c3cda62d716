"""A Maildir: one file a mail, written in `tmp`, then moved to `new`, so that a reader never sees half of one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from functools import cached_property
from itertools import count
from pathlib import Path

from asyncsmtp.testing.received import Received

__all__ = ["Mail", "Maildir"]

_IN_THIS_PROCESS = count(1)


class Maildir:
    """A folder with `tmp`, `new` and `cur`, made if it is not there, for the eyes of its owner.

    Each mail is the content octet for octet, CRLF included, below the lines that final delivery adds:
    `Return-Path` (RFC 5321 §4.4) and a `Delivered-To` for each forward-path. Files of other programs are left alone.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)  # it may hold everyone's mail, and their tokens
        for folder in ("tmp", "new", "cur"):
            (self.path / folder).mkdir(mode=0o700, exist_ok=True)
        self._tmp = os.fspath(self.path / "tmp")
        self._new = os.fspath(self.path / "new")
        self._host = os.uname().nodename.replace("/", "_").replace(":", "_") or "localhost"

    def keep(self, message: Received) -> str:
        """Write one mail; return the name of its file. Names sort in the order of arrival.

        Raises:
            OSError: it could not be written, and nothing is left of it.
        """
        now = time.time_ns() // 1000
        name = f"{now // 1_000_000}.M{now % 1_000_000:06}P{os.getpid()}Q{next(_IN_THIS_PROCESS):09}.{self._host}"
        written = f"{self._tmp}/{name}"
        try:
            with open(written, "xb", buffering=0, opener=_for_the_owner) as file:
                _write_all(file.fileno(), _delivery_lines(message) + message.content)
            os.rename(written, f"{self._new}/{name}")
        except OSError:
            Path(written).unlink(missing_ok=True)
            raise
        return name

    def mails(self) -> Iterator[Mail]:
        """Each mail that is in `new` or `cur`, in the order of arrival; read when it is asked for something."""
        found = [entry for folder in ("new", "cur") for entry in os.scandir(self.path / folder) if entry.is_file()]
        return (Mail(Path(entry.path)) for entry in sorted(found, key=lambda entry: entry.name))

    def __len__(self) -> int:
        """How many mails there are."""
        return sum(1 for folder in ("new", "cur") for _ in os.scandir(self.path / folder))


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write_all(file: int, octets: bytes) -> None:
    rest = memoryview(octets)
    while rest:
        rest = rest[os.write(file, rest) :]


def _delivery_lines(message: Received) -> bytes:
    lines = [f"Return-Path: <{message.reverse_path}>", *(f"Delivered-To: {path}" for path in message.forward_paths), ""]
    return "\r\n".join(lines).encode("utf-8")


@dataclass(frozen=True)
class Mail:
    """One mail in a Maildir."""

    path: Path

    @cached_property
    def octets(self) -> bytes:
        """The file, with the lines that delivery added."""
        return self.path.read_bytes()

    @cached_property
    def message(self) -> EmailMessage:
        """The mail as the standard library reads it."""
        return BytesParser(policy=default).parsebytes(self.octets)

    @property
    def reverse_path(self) -> str:
        """Where notifications of failure go; "" is the null reverse-path."""
        return self._delivery("Return-Path")[0].strip("<>")

    @property
    def forward_paths(self) -> tuple[str, ...]:
        """Who it was delivered to."""
        return tuple(self._delivery("Delivered-To"))

    @property
    def text(self) -> str:
        """The text of its text/plain body, of its text/html body when there is no other, or ""."""
        body = self.message.get_body(("plain", "html"))
        return "" if body is None else str(body.get_content())

    def _delivery(self, field: str) -> list[str]:
        """The values of the lines on top, up to the first that delivery did not add."""
        found = []
        for line in self.octets.split(b"\r\n\r\n", 1)[0].split(b"\r\n"):
            name, _, value = line.decode("utf-8", "backslashreplace").partition(": ")
            if name not in ("Return-Path", "Delivered-To"):
                break
            if name == field:
                found.append(value)
        return found or [""]
