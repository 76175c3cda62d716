"""Files with secrets that a campaign names: nobody but their owner may read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from asyncsmtp.cli.output.failures import Failed
from asyncsmtp.protocol.replies import safe_text

__all__ = ["octets_of"]

MAX_OCTETS = 64 * 1024


def octets_of(path: Path, role: str) -> bytes:
    """The octets of a file that nobody but its owner can read; `role` names what it is for.

    Raises:
        Failed: it cannot be read, others can read it, or it is too large for a key.
    """
    shown = safe_text(str(path))
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            octets = file.read(MAX_OCTETS + 1)
    except OSError as error:
        why = "does not exist" if isinstance(error, FileNotFoundError) else str(error.strerror).lower()
        raise Failed(f"{role}: {shown}: {why}", "correct the name or its rights, then run again") from error
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        raise Failed(f"{role}: other users of this machine can read {shown}", f"chmod 600 {shown}")
    if len(octets) > MAX_OCTETS:
        raise Failed(f"{role}: {shown} is too large for a key", "name the file that holds the key and nothing else")
    return octets
