"""Suppression lists: addresses that no campaign mails.

A list is a database of its own, or a text file with one address a line. Entries are compared by the key of a mailbox,
so `Ann@EXAMPLE.com` and `Ann@example.com` are the same; `@example.com` stands for all addresses of the domain.
"""

from __future__ import annotations

import csv
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from asyncsmtp.bulk.recipients.csv_format import escape_apostrophe, format_record, unescape_formula
from asyncsmtp.errors import RecipientError, SuppressionError, check_type
from asyncsmtp.protocol.envelope import Mailbox
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Suppressed", "SuppressionList", "format_line", "is_text_list", "parse_key", "read_text_list"]

APPLICATION_ID = 0x61535550  # "aSUP"
TEXT_SUFFIXES = frozenset({".txt", ".csv", ".list"})
BUSY_TIMEOUT = 10.0  # seconds to wait for other processes
_MAX_REASON = 200  # characters
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_TABLE = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS suppression (
  key TEXT PRIMARY KEY,                    -- of a mailbox, or @domain
  address TEXT NOT NULL, reason TEXT NOT NULL, at_us BIGINT NOT NULL) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
COMMIT"""


@dataclass(frozen=True, slots=True)
class Suppressed:
    """One entry of a list.

    Attributes:
        address: as given; `@example.com` for a whole domain.
        reason: why it is suppressed; "" if unknown.
    """

    address: str
    reason: str = ""


def parse_key(address: str) -> str:
    """Return the key by which an entry is compared. Raises RecipientError: neither an address nor an @domain."""
    text = address.strip()
    if text.startswith("@"):
        return "@" + Mailbox.parse(f"x{text}").key.rpartition("@")[2]
    return Mailbox.parse(text).key


def is_text_list(path: Path) -> bool:
    """Return whether a list is a text file, by its name."""
    return path.suffix.lower() in TEXT_SUFFIXES


def read_text_list(path: Path) -> Iterator[Suppressed]:
    """Yield the entries of a text file: one address a line, or a CSV of address and reason.

    Each line is parsed by itself: a quote that is not closed on its line is an error, since it could hide the entries
    behind it. Empty lines, lines that begin with # and a first line without an @ are ignored. An apostrophe that keeps
    a spreadsheet from evaluating an address, as `asyncsmtp results` writes it, is removed.

    Raises:
        SuppressionError: the file cannot be read, or a line is not an entry; the message has the line.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line, text in enumerate(file, 1):
                if (entry := _parse_line(f"{path}, line {line}", text.rstrip("\n"), first=line == 1)) is not None:
                    yield entry
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or safe_text(str(error), 100)
        raise SuppressionError(
            f"the suppression list {path} cannot be read: {why}: correct its name or its text"
        ) from error


def format_line(entry: Suppressed) -> str:
    """Return the line of a text file that `read_text_list` reads as this entry, without its line end."""
    like_comment = entry.address.startswith("#")
    return format_record((escape_apostrophe(entry.address), escape_apostrophe(entry.reason)), quoted=like_comment)


def _parse_line(where: str, text: str, *, first: bool) -> Suppressed | None:
    """Return the entry of one line; None if it has none."""
    if text.lstrip().startswith("#"):
        return None
    try:
        cells = next(csv.reader((text,), strict=True))
        address, reason = (unescape_formula(cell.strip()).strip() for cell in (*cells, "", "")[:2])
        if not address or (first and "@" not in address):
            return None
        parse_key(address)
    except RecipientError as error:
        raise SuppressionError(f"{where}: {error.reason}: correct the line") from None
    except csv.Error as error:
        raise SuppressionError(f"{where}: {_explain(error)}") from None
    return Suppressed(address, safe_text(reason, _MAX_REASON))


def _explain(error: csv.Error) -> str:
    if "unexpected end" in str(error):
        return "a quote is opened and not closed: close it on its line, or write a quote in the text twice"
    if "expected after" in str(error):
        return "text follows a closing quote: write a quote inside quotes twice"
    return f"{error}: shorten the line"


class SuppressionList:
    """A list in a database; any number of processes may use it at once. Every method blocks.

    Raises:
        SuppressionError: by any method: the file is not such a list or cannot be used; nothing was changed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        check_type("path", path, str, os.PathLike)
        self.path = Path(path)

    def create(self) -> None:
        """Create an empty list if there is none, with access for its owner only."""
        if not self.path.exists():
            try:
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
            except FileExistsError:
                pass
            except OSError as error:
                raise SuppressionError(f"{self.path} cannot be created: {error.strerror}: choose another") from error
        with self._connection() as connection:
            connection.executescript(_TABLE)

    def add(self, entries: Iterable[Suppressed], at: datetime | None = None) -> int:
        """Add entries; return the number of new ones. Existing entries keep their reason.

        Args:
            at: the time to record; None: now.
        Raises:
            RecipientError: an entry is not an address; nothing was added.
        """
        entries = tuple(entries)
        for entry in entries:
            check_type("entries", entry, Suppressed)
        us = ((at or datetime.now(UTC)).astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)
        rows = [
            (parse_key(entry.address), entry.address.strip(), safe_text(entry.reason.strip(), _MAX_REASON), us)
            for entry in entries
        ]
        return self._change("INSERT INTO suppression VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)

    def remove(self, addresses: Iterable[str]) -> int:
        """Remove entries; return the number removed. Raises RecipientError: one is not an address."""
        if isinstance(addresses, str):  # also an iterable of strings
            check_type("addresses", addresses, list)
        return self._change("DELETE FROM suppression WHERE key = ?", [(parse_key(address),) for address in addresses])

    def check(self) -> None:
        """Raise SuppressionError unless it is a list that can be read."""
        if not self.path.exists():
            raise SuppressionError(f"there is no suppression list {self.path}: make it: asyncsmtp suppress {self.path}")
        with self._connection() as connection:
            connection.execute("SELECT key FROM suppression LIMIT 1").fetchall()

    def entries(self) -> list[Suppressed]:
        """Return all entries, by key."""
        self.check()
        with self._connection() as connection:
            found = connection.execute("SELECT address, reason FROM suppression ORDER BY key").fetchall()
        return [Suppressed(address, reason) for address, reason in found]

    def reasons(self, keys: Iterable[str]) -> dict[str, str]:
        """Return the reason of each of these keys, as from `parse_key`, that is listed."""
        find = "SELECT key, reason FROM suppression WHERE key IN (SELECT value FROM json_each(?))"
        with self._connection() as connection:
            return dict(connection.execute(find, (json.dumps(list(keys)),)).fetchall())

    def _change(self, statement: str, rows: Sequence[tuple[object, ...]]) -> int:
        self.create()
        with self._connection() as connection:
            before = connection.total_changes
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(statement, rows)
            connection.execute("COMMIT")
            return connection.total_changes - before

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            uri = f"{self.path.absolute().as_uri()}?mode=rw"
            with closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_TIMEOUT)) as connection:
                connection.execute("PRAGMA trusted_schema = OFF")
                (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                (application,) = connection.execute("PRAGMA application_id").fetchone()
                if tables and application != APPLICATION_ID:
                    why = f"{self.path} is a database, but not a suppression list: choose another name"
                    raise SuppressionError(why)
                yield connection
        except sqlite3.Error as error:
            why = f"the suppression list {self.path} cannot be used: {error}: repair or remove it"
            raise SuppressionError(why) from error
