"""Paths as people write them, in a campaign file and in options."""

from __future__ import annotations

from pathlib import Path

from asyncsmtp.protocol.replies import safe_text

__all__ = ["place"]


def place(path: str | Path, folder: Path, key: str = "") -> Path:
    """The place of a file: `~` and `~user` are homes, and what is relative starts from `folder`.

    Args:
        key: of a section; it is told what is wrong with it.
    Raises:
        ValueError: there can be no such file, with what to write.
    """
    shown = f"{key}: “{safe_text(str(path), 120)}”".removeprefix(": ")
    if "\0" in str(path):
        raise ValueError(f"{shown} holds a NUL character, which is in no path: take it out")
    try:
        return folder / Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"{shown} begins with a home that is not known here: write the path in full") from None
