"""Recipients from standard input: kept in a file beside the ledger, since they are read more than once."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from asyncsmtp.cli.output.failures import Failed

__all__ = ["STDIN", "spooled"]

STDIN = "-"
_BLOCK = 1024 * 1024  # octets


def spooled(recipients: Path, folder: Path, name: str) -> Path:
    """The recipients in a file, which for input is one of `folder`, its owner's alone; blocks until all is read.

    Without input, as when a campaign goes on, the file of the last time serves.

    Raises:
        Failed: there is neither input nor such a file, or it cannot be written.
    """
    if recipients.name != STDIN:
        return recipients
    place = folder / f"{name}.recipients.csv"
    new = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        if _copied(new):
            new.replace(place)
        elif not place.exists():
            raise Failed("there are no recipients on standard input", "asyncsmtp bulk … --recipients - < people.csv")
    except OSError as error:
        raise Failed(f"{place} cannot be written: {error.strerror}", "make room, or rights, for it") from error
    finally:
        new.unlink(missing_ok=True)
    return place


def _copied(path: Path) -> bool:
    """Write what there is on standard input; return whether there is anything."""
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return False
    first = sys.stdin.buffer.read(_BLOCK)
    if not first:
        return False
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600), "wb") as file:
        file.write(first)
        while block := sys.stdin.buffer.read(_BLOCK):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return True
