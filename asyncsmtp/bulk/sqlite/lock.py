"""One process at a time: a lock that the system takes away from a process that dies.

The lock is on a file beside the ledger. Opening and closing the ledger itself a second time would drop
the POSIX locks that SQLite holds on it (https://www.sqlite.org/howtocorrupt.html §2.2).
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Self

from asyncsmtp.errors import LedgerBusy, LedgerError

__all__ = ["Lock"]


class Lock:
    """Held from `take` to `release`. The file stays: removing it could give the lock to two."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path) -> Self:
        """Take the lock at once, or not at all.

        Raises:
            LedgerBusy: another process holds it; the message has its pid.
            LedgerError: the file cannot be made.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise LedgerError(
                f"{path} cannot be made: {error.strerror}: the ledger needs a folder that you may write to"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, b"%d\n" % os.getpid())
        except BlockingIOError as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise LedgerBusy(_busy(path, holder)) from error
        except OSError as error:
            os.close(descriptor)
            raise LedgerError(f"{path} cannot be locked: {error.strerror}: put the ledger on a local disk") from error
        return cls(path, descriptor)

    def release(self) -> None:
        """Let others have it; a second time does nothing."""
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1


def _holder(descriptor: int) -> str:
    """The pid in the file; whoever took the lock a moment ago may be about to write it."""
    for _ in range(20):
        if pid := os.pread(descriptor, 20, 0).strip():
            return pid.decode("ascii", "replace")
        time.sleep(0.01)
    return ""


def _busy(path: Path, holder: str) -> str:
    ledger = path.name.removesuffix(".lock")
    if holder == str(os.getpid()):
        return f"{ledger} is open already in this process (pid {holder}): close it first"
    who = f"another process (pid {holder})" if holder.isdecimal() else "another process"
    return f"{who} has {ledger} in hand: wait until it ends, or stop it, then run the same command again"
