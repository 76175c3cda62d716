"""File of a ledger: where it may be, its lock, its disk reserve, its tables, and its errors.

The tables are those of a shared database: rows are in batches, each with the run that wrote it last (`epoch`), and
times are UTC microseconds. One file holds one campaign.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import sqlite3
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Self

from asyncsmtp.bulk.ledger.interfaces import Counts, RowState
from asyncsmtp.bulk.ledger.transitions import DELIVERY_COLUMNS, RECIPIENT_COLUMNS, from_microseconds
from asyncsmtp.errors import LedgerBusy, LedgerError

try:
    import fcntl
except ImportError:  # Windows, where lists and templates can be read, and there is no ledger: see `require_locks`
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "CAMPAIGN",
    "DISK_RESERVE_BYTES",
    "IN_USE",
    "JOURNAL_PRAGMAS",
    "VERSION",
    "DiskReserve",
    "LedgerLock",
    "Stamp",
    "check_log",
    "check_stamp",
    "connect",
    "create_folder",
    "filesystem_type",
    "has_log",
    "is_busy",
    "is_empty_lock",
    "is_full",
    "ledger_error",
    "open_file",
    "read_end",
    "read_modified",
    "refuse_network",
    "remember_end",
    "require_locks",
    "sync_folder",
    "transaction",
    "write_anew",
]

APPLICATION_ID = 0x61534D54  # "aSMT"
VERSION = 3
TABLES_VERSION = 2  # the version from which on the tables are the same
CAMPAIGN = 1  # id of the campaign in its file
IN_USE = "in use"  # name of a stored value, which is there from the load or the start of a run to the end of the run
CLOSED = "closed"  # name of a stored value: how the last run left a large ledger, see `remember_end`
MIN_TRUSTED_ROWS = 20_000  # a smaller ledger is checked and counted each time it is opened, in 25 ms
BUSY_TIMEOUT = 5.0  # seconds that one statement waits for a program that locks the file
_PRAGMAS = ("trusted_schema = OFF", "cell_size_check = ON")
# On macOS fsync leaves data in the cache of the disk; fullfsync is F_FULLFSYNC there, and nothing elsewhere.
_FULL_SYNC = ("fullfsync = ON", "checkpoint_fullfsync = ON")
_PRAGMAS_TO_WRITE = ("synchronous = FULL", "cache_size = -16000", *_FULL_SYNC)
JOURNAL_PRAGMAS = ("synchronous = EXTRA", *_FULL_SYNC)
"""For databases with a rollback journal. Removing the journal is the commit; only EXTRA syncs the folder after that.

With FULL, a power cut a moment after the commit may bring the journal back, and the next process rolls back what was
confirmed (https://www.sqlite.org/pragma.html#pragma_synchronous).
"""
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

Version 3 has the keys of `address_key`, and it is set with them, see `Queries.refuse_older`.

Older ledgers also have a table `suppression`, which was never used.
"""

_NETWORK = re.compile(
    r"(?:fuse\.)?(?:nfs[34]?|cifs|smb[23]?|smbfs|9p|afs|ceph|glusterfs|lustre|gpfs|beegfs|ocfs2|gfs2|ncpfs|coda"
    r"|davfs2?|sshfs|rclone|s3fs|gcsfuse|vboxsf|vmhgfs|vmhgfs-fuse|prl_fs)"
)


def require_locks() -> None:
    """Raise LedgerError on a system without file locks: two processes with one ledger would mail people twice."""
    if fcntl is None:
        raise LedgerError(
            "a ledger file needs the locks of fcntl, which this system does not have: "
            "on Windows, use the Windows Subsystem for Linux"
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
        """Reserve the space; it is written, since a hole would reserve nothing. Raises OSError: see `strerror`.

        What is there already, be it a link to another file, is removed and not followed.
        """
        self._path.unlink(missing_ok=True)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with open(os.open(self._path, flags, 0o600), "wb") as file:
                file.write(os.urandom(DISK_RESERVE_BYTES))
                file.flush()
                _sync(file.fileno())
        except OSError:
            self.free()
            raise

    def free(self) -> None:
        """Remove the file, if that can be done."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


class Stamp(NamedTuple):
    """The times that a lock file keeps of the ledger beside it, in microseconds since 1970, UTC.

    Attributes:
        created_us: time of the load, as in the ledger.
        written_us: a time that no row of the ledger is older than: see `LedgerLock.advance`.
    """

    created_us: int
    written_us: int


class LedgerLock:
    """A lock that one process holds from `acquire` to `release`; the system releases it when a process dies.

    The lock is on a file beside the ledger. Opening and closing the ledger itself a second time would drop the POSIX
    locks that SQLite holds on it (https://www.sqlite.org/howtocorrupt.html §2.2). The lock file is never removed: two
    processes could then hold a lock each, on two files of the same name.

    The file also keeps a stamp of the ledger. A ledger that is gone, or that lost its latest transactions with its
    write-ahead log, looks like one that has not begun, or not come so far: everybody would be mailed again.

    Attributes:
        stamp: of the ledger; None: no recipients were loaded, or asyncsmtp 0.1 had it last.
    """

    # The file has the pid in `_PID_SIZE` bytes, then the stamp. asyncsmtp 0.1 wrote the pid and a line end, and emptied
    # the file at the end. The stamp is written after each commit, without fsync: that survives a process that is
    # killed. After a power cut it may be older than the ledger, which is harmless; it is never newer, since the commit
    # was durable before.

    def __init__(self, path: Path, descriptor: int, stamp: Stamp | None) -> None:
        self.path = path
        self.stamp = stamp
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, path: Path) -> Self:
        """Acquire the lock at once, or not at all.

        Raises:
            LedgerBusy: another process holds it; the message has its pid.
            LedgerError: the file cannot be created, or is not a lock file; nothing was changed.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise LedgerError(f"{path} is a symbolic link, not a lock file: remove it") from error
            advice = "the ledger needs a folder that you may write to"
            raise LedgerError(f"{path} cannot be created: {error.strerror}: {advice}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            stamp = _read_stamp(path, descriptor)
            os.pwrite(descriptor, b"%-*d\n" % (_PID_SIZE - 1, os.getpid()), 0)
            if stamp is None:
                os.ftruncate(descriptor, _PID_SIZE)
        except BlockingIOError as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise LedgerBusy(_busy(path, holder)) from error
        except OSError as error:
            os.close(descriptor)
            raise LedgerError(f"{path} cannot be locked: {error.strerror}: put the ledger on a local disk") from error
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor, stamp)

    def write_stamp(self, stamp: Stamp | None) -> None:
        """Write the stamp of the ledger, or remove it, durably. Raises OSError."""
        self.stamp = stamp
        if stamp is None:
            os.ftruncate(self._descriptor, _PID_SIZE)
        else:
            os.pwrite(self._descriptor, _STAMP_FORM % stamp, _PID_SIZE)
        _sync(self._descriptor)
        sync_folder(self.path.parent)

    def advance(self, us: int) -> None:
        """Record that the ledger has a row of this time, durably, or of a later one."""
        if self.stamp is not None and us > self.stamp.written_us:
            self.stamp = Stamp(self.stamp.created_us, us)
            with contextlib.suppress(OSError):  # what was committed is committed
                os.pwrite(self._descriptor, _STAMP_FORM % self.stamp, _PID_SIZE)

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):  # the pid is for people
                os.pwrite(self._descriptor, b"%-*s\n" % (_PID_SIZE - 1, b""), 0)
            os.close(self._descriptor)
            self._descriptor = -1


_PID_SIZE = 32  # bytes
_STAMP_FORM = b"%020d %020d\n"
_LOCK_FILE = re.compile(rb"[0-9]{0,20}\s*(?:([0-9]{20}) ([0-9]{20})\n)?")


def _read_stamp(path: Path, descriptor: int) -> Stamp | None:
    """Return the stamp of a lock file. Raises LedgerError: it is another file, perhaps by a link."""
    found = None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        found = _LOCK_FILE.fullmatch(os.pread(descriptor, 4 * _PID_SIZE, 0))
    if found is None:
        raise LedgerError(f"{path} is not a lock file of asyncsmtp: remove it, or choose another name for the ledger")
    return Stamp(int(found[1]), int(found[2])) if found[1] else None


def is_empty_lock(path: Path) -> bool:
    """Return whether there is a lock file without room for a stamp, as asyncsmtp 0.1 or a person leaves it."""
    try:
        return path.lstat().st_size < _PID_SIZE
    except OSError:
        return False


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


def check_stamp(path: Path, stamp: Stamp | None, created_us: int | None, written_us: int) -> None:
    """Check that the ledger is the one that the stamp is of, and has its latest transactions.

    Args:
        created_us: time of the load in the ledger; None: it is gone, or has no recipients.
        written_us: time of its latest row; 0: there is none.
    Raises:
        LedgerError: it is not; the message says what to do.
    """
    if stamp is None or (created_us == stamp.created_us and written_us >= stamp.written_us):
        return
    lock, loaded = f"{path.name}.lock", _show_time(stamp.created_us)
    if created_us is None:
        why = f"{path} {'has no recipients' if path.exists() else 'is gone'}, but its campaign was loaded at {loaded}"
        advice = f"restore it with {path.name}-wal, or remove {lock} to begin the campaign anew"
        if path.with_name(f"{path.name}.rescued").exists():
            advice = f"rename {path.name}.rescued to {path.name}"
        raise LedgerError(f"{why}: {advice}")
    if created_us != stamp.created_us:
        why = f"{path} is another ledger than the one that was here, which was loaded at {loaded}"
        raise LedgerError(f"{why}: put that back, or remove {lock} to use this one")
    raise LedgerError(
        f"{path} lacks its latest outcomes, up to {_show_time(stamp.written_us)}: restore {path.name}-wal, or the whole"
        f" ledger; if that is lost, remove {lock} to send to everybody who is pending here, some for the second time"
    )


def check_log(path: Path, connection: sqlite3.Connection, *, has_log: bool) -> None:
    """Check that a ledger without a stamp was not copied without its write-ahead log.

    Args:
        has_log: whether there was one before the ledger was opened.
    Raises:
        LedgerError: it was in use when it was copied, or when its process was killed, and has no log.
    """
    if has_log or not connection.execute("SELECT 1 FROM memory WHERE name = ?", (IN_USE,)).fetchone():
        return
    raise LedgerError(
        f"{path} was copied during a run, or its run was killed, and {path.name}-wal, which has the latest outcomes, is"
        f" missing: copy that as well; if it is lost, make an empty file {path.name}.lock to send to everybody who is"
        " pending here, some for the second time"
    )


def has_log(path: Path) -> bool:
    """Return whether the ledger has a write-ahead log with something in it."""
    try:
        return path.with_name(f"{path.name}-wal").stat().st_size > 0
    except OSError:
        return False


def _show_time(us: int) -> str:
    return f"{from_microseconds(us):%Y-%m-%d %H:%M:%S} UTC"


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


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit the statements of the block as one transaction, or none of them."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def write_anew(connection: sqlite3.Connection) -> bool:
    """Write a file anew, without the bytes of what was removed, and empty its write-ahead log.

    Free pages, and free parts of pages, have what was there before. Returns whether the log is empty: a process that
    reads the file may need it a little longer, and whoever closes the file last removes it.
    """
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("VACUUM")
    (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


# To check a million rows, and to count them, takes a second of the processor. So a run that ends well leaves the counts
# in the ledger, with a time that it gives the file as the time of its last change: whatever is written to the file
# later, by whichever program, changes that time. The next run checks and counts the rows if the time is another one,
# if the last run was killed, or if there is a write-ahead log.


def read_modified(path: Path) -> int:
    """Return the time of the last change of a ledger in nanoseconds; 0 if there is none, or it is not to be trusted."""
    try:
        return 0 if has_log(path) else path.stat().st_mtime_ns
    except OSError:
        return 0


def remember_end(connection: sqlite3.Connection, run: int, counts: Counts) -> int:
    """Remember how a run left a large ledger; return the time for `os.utime` when the file is closed, or 0."""
    if counts.total < MIN_TRUSTED_ROWS:
        return 0
    modified = time.time_ns()
    saved = {"run": run, "modified": modified, "counts": {str(int(state)): number for state, number in counts.items()}}
    connection.execute("INSERT OR REPLACE INTO memory VALUES (?, ?)", (CLOSED, json.dumps(saved)))
    return modified


def read_end(connection: sqlite3.Connection, modified: int) -> Counts | None:
    """Return the counts that the last run left; None if it was killed, or the file was changed since.

    Args:
        modified: of the file, before it was opened; 0: it is not to be trusted.
    """
    if not modified:
        return None
    try:
        found = dict(connection.execute("SELECT name, value FROM memory WHERE name IN (?, ?)", (CLOSED, IN_USE)))
        runs = connection.execute("SELECT run FROM campaign").fetchall()
        if IN_USE in found or CLOSED not in found:
            return None
        saved = json.loads(found[CLOSED])
        if saved["modified"] != modified or runs != [(saved["run"],)]:
            return None
        return Counts({RowState(int(state)): int(number) for state, number in saved["counts"].items()})
    except (sqlite3.Error, ValueError, KeyError, TypeError, AttributeError):  # the check says what is wrong
        return None


def open_file(path: Path, *, write: bool = True, modified: int = 0) -> sqlite3.Connection:
    """Open the ledger at `path`; with `write`, create it first if there is none.

    Args:
        modified: of the file, see `read_end`.
    Raises:
        LedgerError: it is not a ledger, is damaged, is of a newer asyncsmtp, or cannot be read; nothing was changed.
    """
    try:
        if write and not path.exists():
            _create(path)
        connection = connect(path, write=write)
        try:
            _check(path, connection, write=write, modified=modified)
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
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def create_folder(folder: Path) -> None:
    """Create a folder with those above it, durably; those that are there stay as they are. Raises OSError."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)


def _sync(descriptor: int) -> None:
    """Write a file or a folder through to the disk."""
    if full_sync := getattr(fcntl, "F_FULLFSYNC", None):  # macOS
        with contextlib.suppress(OSError):  # not every file system has it
            fcntl.fcntl(descriptor, full_sync)
            return
    os.fsync(descriptor)


def _check(path: Path, connection: sqlite3.Connection, *, write: bool, modified: int) -> None:
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
    if read_end(connection, modified) is None:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise LedgerError(f"{path} is damaged ({verdict}): restore a copy; nothing was sent or changed")
    _upgrade(connection, version)
    path.chmod(0o600)


def _upgrade(connection: sqlite3.Connection, version: int) -> None:
    """Upgrade a ledger of an older asyncsmtp step by step; each step is one transaction."""
    for step in range(version + 1, TABLES_VERSION + 1):
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
