"""File of a ledger: where it may be, its lock, its disk reserve, its tables, and its errors.

The tables are those of a shared database: rows are in batches, each with the run that wrote it last (`epoch`), and
times are UTC microseconds. One file holds one campaign.
"""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from asyncsmtp.bulk.ledger.queries import DELIVERY_COLUMNS, RECIPIENT_COLUMNS
from asyncsmtp.errors import LedgerBusy, LedgerError

__all__ = [
    "CAMPAIGN",
    "DISK_RESERVE_BYTES",
    "VERSION",
    "DiskReserve",
    "LedgerLock",
    "connect",
    "filesystem_type",
    "is_busy",
    "is_full",
    "ledger_error",
    "open_file",
    "refuse_network",
]

APPLICATION_ID = 0x61534D54  # "aSMT"
VERSION = 2
CAMPAIGN = 1  # id of the campaign in its file
BUSY_TIMEOUT = 5.0  # seconds that one statement waits for a program that locks the file
_PRAGMAS = ("trusted_schema = OFF", "cell_size_check = ON")
_PRAGMAS_TO_WRITE = ("synchronous = FULL", "cache_size = -16000")
_OLDEST = (3, 33, 0)  # UPDATE … FROM
DISK_RESERVE_BYTES = 1 << 20  # bytes
MOUNTS = Path("/proc/self/mounts")

_TABLES = f"""
CREATE TABLE campaign (
  id BIGINT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  secret TEXT NOT NULL,                    -- key of the Message-IDs
  created_us BIGINT NOT NULL,
  run INTEGER NOT NULL,                    -- number of runs
  config TEXT NOT NULL);                   -- JSON: what the fingerprint is made of
CREATE TABLE recipient {RECIPIENT_COLUMNS} WITHOUT ROWID;
CREATE TABLE delivery {DELIVERY_COLUMNS} WITHOUT ROWID;
"""

_STEPS: Mapping[int, str] = {
    2: """
CREATE INDEX due ON delivery (campaign_id, next_us) WHERE next_us IS NOT NULL;  -- few
CREATE TABLE memory (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;  -- values stored for the next run
"""
}
"""Tables that each version added to the one before; version 1 is `_TABLES`.

Older ledgers also have a table `suppression`, which was never used.
"""

_NETWORK = re.compile(
    r"(?:fuse\.)?(?:nfs[34]?|cifs|smb[23]?|smbfs|9p|afs|ceph|glusterfs|lustre|gpfs|beegfs|ocfs2|gfs2|ncpfs|coda"
    r"|davfs2?|sshfs|rclone|s3fs|gcsfuse|vboxsf|vmhgfs|vmhgfs-fuse|prl_fs)"
)


def filesystem_type(folder: Path, mounts: str) -> str:
    """Return the type of the file system that holds `folder`, by a table of mounts; "" if the table has none.

    Args:
        folder: absolute, without symbolic links.
        mounts: as in /proc/mounts: device, place, type; later lines hide earlier ones.
    """
    best, kind = -1, ""
    for line in mounts.splitlines():
        _, place, found = line.split(" ")[:3]
        place = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), place)
        if folder.is_relative_to(place) and len(place) >= best:
            best, kind = len(place), found
    return kind


def refuse_network(path: Path) -> None:
    """Refuse a network file system: its locks and its shared memory are not those of one machine.

    Raises:
        LedgerError: it is one; the message has its type. Without a table of mounts nothing is refused.
    """
    try:
        mounts = MOUNTS.read_text("utf-8", "surrogateescape")
    except OSError:
        return
    kind = filesystem_type(path.parent.resolve(), mounts)
    if _NETWORK.fullmatch(kind):
        advice = "put it on a local disk"
        raise LedgerError(f"{path} is on a network file system ({kind}), where a ledger is not safe: {advice}")


class DiskReserve:
    """A file that reserves disk space; removed when the disk is full, so that the last outcomes can be written."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def allocate(self) -> None:
        """Reserve the space; it is written, since a hole would reserve nothing. Raises OSError: the disk is full."""
        try:
            with open(self._path, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                file.write(os.urandom(DISK_RESERVE_BYTES - file.tell()))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            self.free()
            raise

    def free(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)


class LedgerLock:
    """A lock that one process holds from `acquire` to `release`; the system releases it when a process dies.

    The lock is on a file beside the ledger. Opening and closing the ledger itself a second time would drop the POSIX
    locks that SQLite holds on it (https://www.sqlite.org/howtocorrupt.html §2.2). The lock file is never removed: two
    processes could then hold a lock each, on two files of the same name.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, path: Path) -> Self:
        """Acquire the lock at once, or not at all.

        Raises:
            LedgerBusy: another process holds it; the message has its pid.
            LedgerError: the file cannot be created.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            advice = "the ledger needs a folder that you may write to"
            raise LedgerError(f"{path} cannot be created: {error.strerror}: {advice}") from error
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
        """Release the lock; a second call does nothing."""
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1


def _holder(descriptor: int) -> str:
    """Return the pid in the file; a process that has just acquired the lock may not have written it yet."""
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
    return f"{who} has {ledger} open: wait until it ends, or stop it, then run the same command again"


def connect(path: Path, *, write: bool = True) -> sqlite3.Connection:
    """Open an existing file. The caller begins transactions; one thread at a time may use the connection."""
    if sqlite3.sqlite_version_info < _OLDEST:
        raise LedgerError(f"this Python has SQLite {sqlite3.sqlite_version}; the ledger needs 3.33 or newer")
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={'rw' if write else 'ro'}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_TIMEOUT,
    )
    try:
        for pragma in (*_PRAGMAS, *(_PRAGMAS_TO_WRITE if write else ())):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def open_file(path: Path, *, write: bool = True) -> sqlite3.Connection:
    """Open the ledger at `path`; with `write`, create it first if there is none.

    Raises:
        LedgerError: it is not a ledger, is damaged, is of a newer asyncsmtp, or cannot be read; nothing was changed.
    """
    try:
        if write and not path.exists():
            _create(path)
        connection = connect(path, write=write)
        try:
            _check(path, connection, write=write)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise ledger_error(path, error) from error
    except OSError as error:
        raise LedgerError(f"{path} cannot be created: {error.strerror}: choose another place for the ledger") from error
    return connection


def _create(path: Path) -> None:
    """Create an empty ledger under another name, and rename it when it is complete: half a ledger is never found."""
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
        # Only now: a write-ahead log would stay behind under the old name if closing could not copy it into the file.
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


def _check(path: Path, connection: sqlite3.Connection, *, write: bool) -> None:
    """Check that it is a ledger of a known version; with `write` also that it is undamaged, and upgrade it."""
    if path.stat().st_size == 0:
        raise LedgerError(f"{path} is empty, so it is no ledger any more: restore it, or remove it to begin anew")
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise LedgerError(f"{path} is a database, but not a ledger of asyncsmtp: choose another name for the ledger")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise LedgerError(f"{path} was made by a newer asyncsmtp (schema {version}, this one knows {VERSION}): upgrade")
    if not write:
        return
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise LedgerError(f"{path} is damaged ({verdict}): restore a copy; nothing was sent or changed")
    _upgrade(connection, version)
    path.chmod(0o600)


def _upgrade(connection: sqlite3.Connection, version: int) -> None:
    """Upgrade a ledger of an older asyncsmtp step by step; each step is one transaction."""
    for step in range(version + 1, VERSION + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {_STEPS[step]} PRAGMA user_version = {step}; COMMIT;")


_AGAIN = "then run the same command again; rows that were being sent are then in doubt"

_ADVICE = {
    sqlite3.SQLITE_FULL: f"the disk is full: free at least 16 MiB there, {_AGAIN}",
    sqlite3.SQLITE_IOERR: f"the disk failed, and what it reports now cannot be trusted: repair it, {_AGAIN}",
    sqlite3.SQLITE_BUSY: f"another program keeps the file locked: end it (a backup, a database browser), {_AGAIN}",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: restore a copy, or keep it aside and read its rows with `results`",
    sqlite3.SQLITE_NOTADB: "it is not a ledger, or it is damaged: choose another name, or restore a copy",
    sqlite3.SQLITE_READONLY: "it cannot be written: correct the permissions of the file and its folder",
    sqlite3.SQLITE_PERM: "it cannot be used: correct the permissions of the file and its folder",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: correct its name, or the permissions of the file and its folder",
}


def _primary(error: sqlite3.Error) -> int:
    """Return the primary result code (https://www.sqlite.org/rescode.html); 0 for an error of the module itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_full(error: BaseException) -> bool:
    """Return whether the disk, or the quota, has no space left."""
    return isinstance(error, sqlite3.Error) and _primary(error) == sqlite3.SQLITE_FULL


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether another process has the file locked."""
    return _primary(error) == sqlite3.SQLITE_BUSY


def ledger_error(path: Path, error: BaseException) -> LedgerError:
    """Return the error that ends the campaign, made from what SQLite reported; the caller sets the cause."""
    if isinstance(error, LedgerError):
        return error
    if not isinstance(error, sqlite3.Error):
        return LedgerError(f"{path}: writing the ledger failed unexpectedly ({error!r}): this is a bug, report it")
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    advice = _ADVICE.get(_primary(error), "the ledger cannot be used")
    return LedgerError(f"{path}: {advice} ({name}: {error})")
