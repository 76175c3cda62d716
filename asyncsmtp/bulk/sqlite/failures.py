"""What SQLite says when it fails, as a sentence with what to do next."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from asyncsmtp.errors import LedgerError

__all__ = ["is_busy", "is_full", "ledger_error"]

_AGAIN = "then run the same command again; rows that were on their way are then in doubt"

_ADVICE = {
    sqlite3.SQLITE_FULL: f"the disk is full: free at least 16 MiB there, {_AGAIN}",
    sqlite3.SQLITE_IOERR: f"the disk failed, and what it says now cannot be trusted: mend it, {_AGAIN}",
    sqlite3.SQLITE_BUSY: f"another program keeps the file locked: end it (a backup, a database browser), {_AGAIN}",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: restore a copy, or keep it aside and ask for its rows by `results`",
    sqlite3.SQLITE_NOTADB: "it is not a ledger, or it is damaged: choose another name, or restore a copy",
    sqlite3.SQLITE_READONLY: "it cannot be written: correct the rights of the file and its folder",
    sqlite3.SQLITE_PERM: "it cannot be used: correct the rights of the file and its folder",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: correct its name, or the rights of the file and its folder",
}


def _primary(error: sqlite3.Error) -> int:
    """The primary result code (https://www.sqlite.org/rescode.html); 0 for an error of the module's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_full(error: BaseException) -> bool:
    """Whether the disk, or the quota, has no room left."""
    return isinstance(error, sqlite3.Error) and _primary(error) == sqlite3.SQLITE_FULL


def is_busy(error: sqlite3.Error) -> bool:
    """Whether somebody else has the file locked."""
    return _primary(error) == sqlite3.SQLITE_BUSY


def ledger_error(path: Path, error: BaseException) -> LedgerError:
    """The error that ends the campaign, made from what SQLite reported; the caller sets the cause."""
    if isinstance(error, LedgerError):
        return error
    if not isinstance(error, sqlite3.Error):
        return LedgerError(f"{path}: writing the ledger failed unexpectedly ({error!r}): this is a bug, report it")
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    advice = _ADVICE.get(_primary(error), "the ledger cannot be used")
    return LedgerError(f"{path}: {advice} ({name}: {error})")
