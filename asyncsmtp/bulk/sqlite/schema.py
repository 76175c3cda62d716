"""The ledger's file: its tables, how it is opened, and how we know it is ours and whole.

The tables are those a shared database would have: rows are in batches, each with the run that wrote it
last (`epoch`), times are UTC microseconds. One file holds one campaign.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from asyncsmtp.bulk.sqlite.failures import ledger_error
from asyncsmtp.errors import LedgerError

__all__ = ["CAMPAIGN", "connect", "open_ledger"]

APPLICATION_ID = 0x61534D54  # "aSMT"
VERSION = 2
CAMPAIGN = 1  # the id of the campaign in its file
BUSY_SECONDS = 5.0  # how long one statement waits for a program that locks the file
_PRAGMAS = ("trusted_schema = OFF", "cell_size_check = ON")
_PRAGMAS_TO_WRITE = ("synchronous = FULL", "cache_size = -16000")
_OLDEST = (3, 33, 0)  # UPDATE … FROM

_TABLES = """
CREATE TABLE campaign (
  id BIGINT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  secret TEXT NOT NULL,                    -- key of the Message-IDs
  created_us BIGINT NOT NULL,
  run INTEGER NOT NULL,                    -- how often it was opened to be sent
  config TEXT NOT NULL);                   -- JSON: what the fingerprint is made of
CREATE TABLE recipient (                   -- never changed after the load
  campaign_id BIGINT NOT NULL, batch_no INTEGER NOT NULL, seq BIGINT NOT NULL,
  address TEXT,                            -- NULL: the row of the file holds none
  dedupe TEXT,                             -- NULL: not to be mailed
  message_id TEXT,
  vars TEXT NOT NULL,                      -- JSON: column -> cell
  PRIMARY KEY (campaign_id, batch_no, seq),
  UNIQUE (campaign_id, dedupe)) WITHOUT ROWID;
CREATE TABLE delivery (                    -- hot and narrow: two updates a message
  campaign_id BIGINT NOT NULL, batch_no INTEGER NOT NULL, seq BIGINT NOT NULL,
  state SMALLINT NOT NULL DEFAULT 0 CHECK (state BETWEEN 0 AND 6),
  epoch INTEGER NOT NULL DEFAULT 0,        -- the run that wrote it last
  attempts SMALLINT NOT NULL DEFAULT 0, doubts SMALLINT NOT NULL DEFAULT 0,
  code SMALLINT, status TEXT, reply TEXT, host TEXT,
  next_us BIGINT, first_us BIGINT, updated_us BIGINT,
  PRIMARY KEY (campaign_id, batch_no, seq)) WITHOUT ROWID;
CREATE TABLE suppression (address TEXT PRIMARY KEY, reason TEXT, at_us BIGINT) WITHOUT ROWID;
"""

_STEPS: Mapping[int, str] = {
    2: """
CREATE INDEX due ON delivery (campaign_id, next_us) WHERE next_us IS NOT NULL;  -- few
CREATE TABLE memory (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;  -- what a run leaves for the next
"""
}
"""What each version added to the one before; version 1 is `_TABLES`."""


def connect(path: Path, *, write: bool = True) -> sqlite3.Connection:
    """Open a file that is there; transactions are the caller's, and any one thread may use it at a time."""
    if sqlite3.sqlite_version_info < _OLDEST:
        raise LedgerError(f"this Python has SQLite {sqlite3.sqlite_version}; the ledger needs 3.33 or newer")
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={'rw' if write else 'ro'}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_SECONDS,
    )
    try:
        for pragma in (*_PRAGMAS, *(_PRAGMAS_TO_WRITE if write else ())):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def open_ledger(path: Path, *, write: bool = True) -> sqlite3.Connection:
    """Open the ledger at `path`; where there is none, and `write`, make one first.

    Raises:
        LedgerError: it is not one, not whole, of a newer asyncsmtp, or cannot be read; nothing was changed.
    """
    try:
        if write and not path.exists():
            _create(path)
        connection = connect(path, write=write)
        try:
            _check(path, connection, whole=write)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise ledger_error(path, error) from error
    except OSError as error:
        raise LedgerError(f"{path} cannot be made: {error.strerror}: choose another place for the ledger") from error
    return connection


def _create(path: Path) -> None:
    """Make an empty ledger beside `path` and put it there whole, so that a half one is never found."""
    new = path.with_name(f"{path.name}.new")
    for suffix in ("", "-journal", "-wal", "-shm"):
        new.with_name(f"{new.name}{suffix}").unlink(missing_ok=True)
    os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    connection = connect(new)
    try:
        connection.executescript(
            f"BEGIN; {_TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1; COMMIT;"
        )
        _upgrade(connection, 1)
        # Only now: what a log had would stay behind under its old name if closing could not copy it into the file.
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()
    new.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check(path: Path, connection: sqlite3.Connection, *, whole: bool) -> None:
    """Whether it is a ledger, of a version we know, and where `whole` is asked, undamaged."""
    if path.stat().st_size == 0:
        raise LedgerError(f"{path} is empty, so it is no ledger any more: restore it, or remove it to begin anew")
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise LedgerError(f"{path} is a database, but not a ledger of asyncsmtp: choose another name for the ledger")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise LedgerError(f"{path} was made by a newer asyncsmtp (schema {version}, this one knows {VERSION}): upgrade")
    if not whole:
        return
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise LedgerError(f"{path} is damaged ({verdict}): restore a copy; nothing was sent or changed")
    _upgrade(connection, version)
    path.chmod(0o600)


def _upgrade(connection: sqlite3.Connection, version: int) -> None:
    """Take a ledger of an older asyncsmtp step by step to the present tables; each step is whole or was not done."""
    for step in range(version + 1, VERSION + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {_STEPS[step]} PRAGMA user_version = {step}; COMMIT;")
