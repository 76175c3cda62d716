"""Exit codes: what a command's end means to a script (those of sysexits.h where they fit)."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Exit"]


class Exit(IntEnum):
    """The table of the documentation; every command ends with one of these."""

    ACCEPTED = 0  # every recipient was accepted, or the command had nothing else to do
    SOME_FAILED = 1  # some were rejected or are in doubt
    USAGE = 2  # an option, a file or the pre-flight: nothing was sent
    UNREACHABLE = 69  # the relay: no connection, no greeting, no TLS
    BUG = 70  # ours
    LEDGER = 74  # the ledger or the disk
    RUN_AGAIN = 75  # some were deferred, or another process has the ledger
    AUTHENTICATION = 77  # the relay refused the credentials, or they would have travelled in clear
    INTERRUPTED = 130  # Ctrl-C; the same command goes on
    TERMINATED = 143  # SIGTERM or SIGHUP; the same command goes on
