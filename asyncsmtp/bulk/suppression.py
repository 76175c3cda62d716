"""Who must get nothing, whatever the campaign: a list that campaigns share.

A list is a database of its own, or a file of text with an address a line. Entries are compared by the key of a
mailbox, so `Ann@EXAMPLE.com` and `Ann@example.com` are one; `@example.com` stands for everybody there.
"""

from __future__ import annotations

import csv
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from asyncsmtp.bulk.csvfile.formulas import plain, untamed
from asyncsmtp.bulk.csvfile.writing import record_of
from asyncsmtp.errors import RecipientError, SuppressionError
from asyncsmtp.protocol.envelope import Mailbox
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Suppressed", "SuppressionList", "is_text", "key_of", "read_text", "text_line"]

APPLICATION_ID = 0x61535550  # "aSUP"
TEXT = frozenset({".txt", ".csv", ".list"})
BUSY_SECONDS = 10.0
_REASON = 200  # characters

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
        address: as it was given; `@example.com` for a whole domain.
        reason: why; "" when nobody said.
    """

    address: str
    reason: str = ""


def key_of(address: str) -> str:
    """What an entry is compared by. Raises RecipientError: it is neither an address nor an @domain."""
    text = address.strip()
    if text.startswith("@"):
        return "@" + Mailbox.parse(f"x{text}").key.rpartition("@")[2]
    return Mailbox.parse(text).key


def is_text(path: Path) -> bool:
    """Whether a list is a file of text, by its name."""
    return path.suffix.lower() in TEXT


def read_text(path: Path) -> Iterator[Suppressed]:
    """The entries of a file of text: an address a line, or the first cell of a CSV whose second is the reason.

    Each line stands for itself: a quote that is not closed on it is an error, lest it hide the entries behind it.
    Empty lines, lines that begin with # and a first line without an @ are none. The apostrophe by which a
    spreadsheet, or `asyncsmtp results`, keeps an address from being calculated is no part of it.

    Raises:
        SuppressionError: the file cannot be read, or a line is no entry; it names the line.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line, text in enumerate(file, 1):
                if (entry := _entry(f"{path}, line {line}", text.rstrip("\n"), first=line == 1)) is not None:
                    yield entry
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or safe_text(str(error), 100)
        raise SuppressionError(
            f"the suppression list {path} cannot be read: {why}: correct its name or its text"
        ) from error


def text_line(entry: Suppressed) -> str:
    """The line of a file of text that `read_text` reads as this entry, without its end; addresses stand as they are."""
    remark = entry.address.startswith("#")
    return record_of((plain(entry.address), plain(entry.reason)), quoted=remark)


def _entry(where: str, text: str, *, first: bool) -> Suppressed | None:
    """The entry of one line; None where it has none."""
    if text.lstrip().startswith("#"):
        return None
    try:
        cells = next(csv.reader((text,), strict=True))
        address, reason = (untamed(cell.strip()).strip() for cell in (*cells, "", "")[:2])
        if not address or (first and "@" not in address):
            return None
        key_of(address)
    except RecipientError as error:
        raise SuppressionError(f"{where}: {error.reason}: correct the line") from None
    except csv.Error as error:
        raise SuppressionError(f"{where}: {_explained(error)}") from None
    return Suppressed(address, safe_text(reason, _REASON))


def _explained(error: csv.Error) -> str:
    if "unexpected end" in str(error):
        return "a quote is opened and not closed: close it on its line, or write one that is text twice, within quotes"
    if "expected after" in str(error):
        return "text follows a closing quote: write a quote inside quotes twice"
    return f"{error}: shorten the line"


class SuppressionList:
    """A list in a database; any number of processes may use it at once. Every method blocks.

    Raises:
        SuppressionError: by any method, when the file is no such list or cannot be used; nothing was changed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def create(self) -> None:
        """Make an empty list where there is none; for its owner alone."""
        if not self.path.exists():
            try:
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
            except FileExistsError:
                pass
            except OSError as error:
                raise SuppressionError(f"{self.path} cannot be made: {error.strerror}: choose another place") from error
        with closing(self._open()) as connection:
            try:
                connection.executescript(_TABLE)
            except sqlite3.Error as error:
                raise self._unusable(error) from error

    def add(self, entries: Iterable[Suppressed], at: datetime | None = None) -> int:
        """Suppress; what is there already keeps its reason. Return how many are new.

        Args:
            at: when; None: now.
        Raises:
            RecipientError: an entry is no address; nothing was added.
        """
        us = int((at or datetime.now(UTC)).timestamp() * 1e6)
        rows = [
            (key_of(entry.address), entry.address.strip(), safe_text(entry.reason.strip(), _REASON), us)
            for entry in entries
        ]
        return self._change("INSERT INTO suppression VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)

    def remove(self, addresses: Iterable[str]) -> int:
        """Suppress no longer; return how many were there. Raises RecipientError: one is no address."""
        return self._change("DELETE FROM suppression WHERE key = ?", [(key_of(address),) for address in addresses])

    def check(self) -> None:
        """Whether it is a list that can be read."""
        if not self.path.exists():
            raise SuppressionError(f"there is no suppression list {self.path}: make it: asyncsmtp suppress {self.path}")
        with closing(self._open()) as connection:
            try:
                connection.execute("SELECT key FROM suppression LIMIT 1").fetchall()
            except sqlite3.Error as error:
                raise self._unusable(error) from error

    def entries(self) -> list[Suppressed]:
        """All of them, by key."""
        self.check()
        with closing(self._open()) as connection:
            try:
                found = connection.execute("SELECT address, reason FROM suppression ORDER BY key").fetchall()
            except sqlite3.Error as error:
                raise self._unusable(error) from error
        return [Suppressed(address, reason) for address, reason in found]

    def reasons(self, keys: Iterable[str]) -> dict[str, str]:
        """Of these keys, which `key_of` gives, those that are listed, each with why."""
        find = "SELECT key, reason FROM suppression WHERE key IN (SELECT value FROM json_each(?))"
        with closing(self._open()) as connection:
            try:
                return dict(connection.execute(find, (json.dumps(list(keys)),)).fetchall())
            except sqlite3.Error as error:
                raise self._unusable(error) from error

    def _change(self, statement: str, rows: Sequence[tuple[object, ...]]) -> int:
        self.create()
        with closing(self._open()) as connection:
            before = connection.total_changes
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(statement, rows)
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._unusable(error) from error
            return connection.total_changes - before

    def _open(self) -> sqlite3.Connection:
        try:
            uri = f"{self.path.absolute().as_uri()}?mode=rw"
            connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_SECONDS)
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        try:
            connection.execute("PRAGMA trusted_schema = OFF")
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            (application,) = connection.execute("PRAGMA application_id").fetchone()
        except sqlite3.Error as error:
            connection.close()
            raise self._unusable(error) from error
        if tables and application != APPLICATION_ID:
            connection.close()
            raise SuppressionError(f"{self.path} is a database, but no suppression list: choose another name")
        return connection

    def _unusable(self, error: sqlite3.Error) -> SuppressionError:
        return SuppressionError(f"the suppression list {self.path} cannot be used: {error}: put that right")
