"""Where reports come in: a Maildir, an mbox file, or files with one message each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from asyncsmtp.bulk.bounces.report import MOST_OCTETS
from asyncsmtp.errors import InvalidArgument

__all__ = ["messages_in"]


def messages_in(place: Path) -> Iterator[bytes]:
    """The octets of each message, as far as a report is looked at; blocks. Nothing is marked, moved or removed.

    Raises:
        InvalidArgument: there is no such place, or it cannot be read.
    """
    try:
        if place.is_dir():
            folders = [place / name for name in ("new", "cur") if (place / name).is_dir()] or [place]
            for folder in folders:
                for path in sorted(folder.iterdir()):
                    if path.is_file() and not path.name.startswith("."):
                        with path.open("rb") as file:
                            yield file.read(MOST_OCTETS)
        else:
            yield from _mbox(place)
    except OSError as error:
        why = str(error.strerror or error).lower()
        raise InvalidArgument(
            f"{place} cannot be read: {why}: name a Maildir, an mbox file or a folder of messages"
        ) from error


def _mbox(path: Path) -> Iterator[bytes]:
    """The messages of an mbox file, `From ` lines between them (RFC 4155); a file without one is one message."""
    with path.open("rb") as file:
        kept: list[bytes] = []
        size, empty = 0, True  # whether the line before is empty, or there is none
        for line in file:
            if line.startswith(b"From ") and empty:
                if kept:
                    yield b"".join(kept)
                kept, size, empty = [], 0, False
                continue
            empty = line in (b"\n", b"\r\n")
            if size < MOST_OCTETS:
                kept.append(line[1:] if line.lstrip(b">").startswith(b"From ") and line.startswith(b">") else line)
                size += len(line)
        if kept:
            yield b"".join(kept)
