"""Suppression lists: addresses that no campaign mails.

A list is a database of its own, or a text file with one address a line. Entries are compared by `address_key`, so
`Ann@EXAMPLE.com` and `ann@example.com` are the same; `@example.com` stands for all addresses of the domain. An entry
`sha256:…` is the SHA-256 of the key of an address that was removed: it still matches that address.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import shlex
import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from asyncsmtp.bulk.ledger.sqlite.ledger_file import JOURNAL_PRAGMAS, sync_folder, transaction
from asyncsmtp.bulk.recipients.csv_format import escape_apostrophe, escape_formula, format_record, unescape_formula
from asyncsmtp.bulk.recipients.recipient import address_key
from asyncsmtp.bulk.recipients.text_encoding import detect_encoding
from asyncsmtp.errors import RecipientError, SuppressionError, check_type
from asyncsmtp.protocol.envelope import Mailbox
from asyncsmtp.protocol.replies import safe_text

__all__ = [
    "Suppressed",
    "SuppressionList",
    "erase_from_text_list",
    "export_entries",
    "format_line",
    "hash_key",
    "import_entries",
    "is_text_list",
    "parse_key",
    "read_text_list",
]

APPLICATION_ID = 0x61535550  # "aSUP"
TEXT_SUFFIXES = frozenset({".txt", ".csv", ".list"})
BUSY_TIMEOUT = 10.0  # seconds to wait for other processes
_PRAGMAS = ("trusted_schema = OFF", *JOURNAL_PRAGMAS)
_MAX_REASON = 200  # characters
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

VERSION = 2  # has hashes; it is set with the first one, so that an older program refuses a list that it cannot match
TABLE_VERSION = 1  # the version from which on the table is the same
# Entries are compared by `address_key`. `key`, in which case matters, stays as it was: a campaign of an older asyncsmtp
# that still runs finds by it whom it found before.
_TABLE = """
CREATE TABLE IF NOT EXISTS suppression (
  key TEXT PRIMARY KEY,                    -- of a mailbox, or @domain
  address TEXT NOT NULL, reason TEXT NOT NULL, at_us BIGINT NOT NULL, address_key TEXT) WITHOUT ROWID"""
_INDEX = "CREATE INDEX IF NOT EXISTS by_address_key ON suppression (address_key)"
_FORMAT = (f"PRAGMA application_id = {APPLICATION_ID}", f"PRAGMA user_version = {TABLE_VERSION}")
_SET_VERSION = f"PRAGMA user_version = {VERSION}"
_INSERT = """
INSERT INTO suppression (key, address, reason, at_us, address_key)
SELECT :key, :address, :reason, :at_us, :address_key
WHERE NOT EXISTS (SELECT 1 FROM suppression WHERE address_key IN (:address_key, :hash))"""
_FIND = """
SELECT address_key, reason FROM suppression WHERE address_key IN (SELECT value FROM json_each(?)) ORDER BY at_us DESC"""
HASH_PREFIX = "sha256:"
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_HAS_HASHES = "SELECT 1 FROM suppression WHERE address_key > 'sha256:' AND address_key < 'sha256;' LIMIT 1"
_READ_ENTRY = "SELECT key, reason FROM suppression WHERE address_key = ?"
_READ_NAMED = "SELECT key, reason FROM suppression WHERE address_key <> ? AND instr(lower(reason), ?)"
_ERASE = """
UPDATE OR REPLACE suppression SET key = :hash, address = :hash, address_key = :hash, reason = :reason
WHERE key = :key"""
ERASED = "forgotten"  # in place of an address in other text


@dataclass(frozen=True, slots=True)
class Suppressed:
    """One entry of a list.

    Attributes:
        address: as given; `@example.com` for a whole domain; `sha256:…` of a person whose data was removed.
        reason: why it is suppressed; "" if unknown.
    """

    address: str
    reason: str = ""


def parse_key(address: str) -> str:
    """Return the key by which an entry is compared. Raises RecipientError: no address, @domain or hash."""
    if is_hash(address):
        return address.strip().lower()
    mailbox = _parse(address)
    return address_key(mailbox) if mailbox.local else f"@{mailbox.domain.lower()}"


def _parse(address: str) -> Mailbox:
    """Parse an entry; a domain has no local part."""
    text = unicodedata.normalize("NFC", address.strip())  # only so can a domain be written in A-labels
    return Mailbox("", Mailbox.parse(f"x{text}").domain) if text.startswith("@") else Mailbox.parse(text)


def hash_key(key: str) -> str:
    """Return what stands for the key of an address whose owner's data was removed.

    Whoever has the hash can find out by trying whether it is that of a given address, which is what it is for. It has
    no secret key: that would be stored beside it, and lists could not be exported and merged.
    """
    return HASH_PREFIX + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def is_hash(address: str) -> bool:
    """Return whether an entry is a hash of a key."""
    return _HASH.fullmatch(address.strip().lower()) is not None


def erase_text(text: str, key: str) -> str:
    """Return a text without the address that has this key, in either case."""
    return re.sub(re.escape(key), ERASED, text, flags=re.IGNORECASE)


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
    """Return the line of a text file that `read_text_list` reads as this entry, without its line end.

    What a spreadsheet would evaluate gets an apostrophe, except a domain: `@example.com` calls no function.
    """
    like_comment = entry.address.startswith("#")
    escape = escape_apostrophe if entry.address.startswith("@") else escape_formula
    return format_record((escape(entry.address), escape_formula(entry.reason)), quoted=like_comment)


def _parse_line(where: str, text: str, *, first: bool) -> Suppressed | None:
    """Return the entry of one line; None if it has none."""
    if text.lstrip().startswith("#"):
        return None
    try:
        cells = next(csv.reader((text,), strict=True))
        address, reason = (unescape_formula(cell.strip()).strip() for cell in (*cells, "", "")[:2])
        if not address or (first and "@" not in address and not is_hash(address)):
            return None
        parse_key(address)
    except RecipientError as error:
        raise SuppressionError(f"{where}: {error.reason}: correct the line") from None
    except csv.Error as error:
        raise SuppressionError(f"{where}: {_explain(error)}") from None
    return Suppressed(address, safe_text(reason, _MAX_REASON))


def erase_from_text_list(path: Path, address: str, *, dry_run: bool = False) -> int:
    """Replace the entries of an address by its hash; every other line stays as it is. Return their number.

    The new file takes the place of the old one as a whole, with its permissions.

    Raises:
        SuppressionError: the file cannot be read or written, or a line is not an entry. RecipientError: no address.
    """
    key = parse_key(address)
    list(read_text_list(path))  # every line is one
    try:
        data = path.read_bytes()
        lines, number = data.splitlines(keepends=True), 0
        for place, line in enumerate(lines):
            text = line.decode("utf-8-sig")
            entry = _parse_line("", text.rstrip("\r\n"), first=place == 0)
            if entry is None or (parse_key(entry.address) != key and key not in entry.reason.lower()):
                continue
            is_theirs = parse_key(entry.address) == key
            number += is_theirs
            start = "\ufeff" if not place and data.startswith(b"\xef\xbb\xbf") else ""
            erased = Suppressed(hash_key(key) if is_theirs else entry.address, erase_text(entry.reason, key))
            lines[place] = f"{start}{format_line(erased)}\n".encode()
        if not dry_run and (new := b"".join(lines)) != data:
            _replace_file(path, new)
    except OSError as error:
        raise SuppressionError(f"{path} cannot be written: {error.strerror}: correct its permissions") from error
    return number


def _replace_file(path: Path, data: bytes) -> None:
    """Write a file anew, durably, and with the permissions that it has. Raises OSError; then it is as it was."""
    path = path.resolve()  # a link stays one
    new = path.with_name(f".{path.name}.{os.getpid()}.part")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, path.stat().st_mode & 0o777)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
        sync_folder(path.parent)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _explain(error: csv.Error) -> str:
    if "unexpected end" in str(error):
        return "a quote is opened and not closed: close it on its line, or write a quote in the text twice"
    if "expected after" in str(error):
        return "text follows a closing quote: write a quote inside quotes twice"
    return f"{error}: shorten the line"


MAX_IMPORT = 128 * 1024 * 1024  # bytes of a file to import
_SAMPLE = 1000  # lines by which its delimiter is chosen
_DELIMITERS = (",", ";", "\t", "|")
_REMARK = re.compile(r"^[ \t]*#.*$", re.MULTILINE)
_ADDRESS_NAMES = (re.compile(r"e-?mail|e-?mail[ _-]address|address"), re.compile(r".*(?:e-?mail|address|adresse).*"))
_REASON_NAMES = (re.compile(r"reason"), re.compile(r"reply"))


def import_entries(path: Path) -> tuple[list[Suppressed], list[int]]:
    """Read a file that another program wrote, or `asyncsmtp results`; return its entries, and the lines without one.

    Any delimiter, a UTF-8 or UTF-16 encoding or that of a spreadsheet, the address in any column: the one whose name
    says so, else the first that has an address. A column `reason` or `reply` says why; without a header it is the
    second. Lines that begin with # are ignored.

    Raises:
        SuppressionError: the file cannot be read, or there is an @ in a line without an address: somebody would get
            mail who must not. The message has the line.
    """
    text = _read_import(path)
    first, _, rest = text.partition("\n")
    named = re.fullmatch(r"sep=(.)\s*", first)
    delimiter = named[1] if named else _find_delimiter(text)
    found: list[Suppressed] = []
    left_out: list[int] = []
    columns: tuple[int | None, int | None] | None = None
    try:
        reader = csv.reader(io.StringIO("\n" + rest if named else text, newline=""), delimiter=delimiter, strict=True)
        for record in reader:
            cells = [unescape_formula(cell.strip()).strip() for cell in record]
            address = _find_address(cells, columns[0] if columns else None)
            if address:
                columns = columns or (None, 1 if _extract(cells[0]) else None)
                reason = cells[columns[1]] if columns[1] is not None and columns[1] < len(cells) else ""
                found.append(Suppressed(address, safe_text(reason, _MAX_REASON)))
            if any("@" in cell and (not address or "\n" in cell) for cell in cells):
                raise SuppressionError(
                    f"{path}, line {reader.line_num}: there is an @, but no address: correct the line"
                )
            if not address and any(cells):
                left_out += [reader.line_num] if columns else []
                columns = columns or (_find_column(cells, _ADDRESS_NAMES), _find_column(cells, _REASON_NAMES))
    except csv.Error as error:
        raise SuppressionError(f"{path}, line {reader.line_num}: {_explain(error)}") from None
    return found, left_out


def _read_import(path: Path) -> str:
    """Return the text of a file, without its remarks."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_IMPORT + 1)
        if len(data) > MAX_IMPORT:
            raise SuppressionError(f"{path} has more than {MAX_IMPORT // 2**20} MiB: import it in parts")
        encoding = detect_encoding(data, whole=True)
        # Addresses are ASCII in every other encoding; only a reason may be spelled wrongly, which nobody is sent.
        text = data.decode(encoding) if encoding else data.decode("cp1252", "replace")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or safe_text(str(error), 100)
        raise SuppressionError(f"{path} cannot be read: {why}: correct its name or its text") from error
    if "\0" in text:
        raise SuppressionError(f"{path} is no text: save it as CSV, in UTF-8")
    return _REMARK.sub("", text.removeprefix("\ufeff"))


def _find_delimiter(text: str) -> str:
    """Return the delimiter with which the most lines have an address, the most frequent one first."""
    lines = text.split("\n", _SAMPLE)[:_SAMPLE]
    with_address = {
        each: sum(any(_extract(cell.strip().strip('"')) for cell in line.split(each)) for line in lines)
        for each in _DELIMITERS
    }
    return max(_DELIMITERS, key=lambda each: (with_address[each], sum(each in line for line in lines)))


def _find_address(cells: Sequence[str], column: int | None) -> str:
    if column is not None and column < len(cells) and (address := _extract(cells[column])):
        return address
    return next(filter(None, map(_extract, cells)), "")


def _find_column(names: Sequence[str], wanted: Sequence[re.Pattern[str]]) -> int | None:
    """Return the number of the first column with such a name; None if none has."""
    places = (place for pattern in wanted for place, name in enumerate(names) if pattern.fullmatch(name.lower()))
    return next(places, None)


def _extract(cell: str) -> str:
    """Return the address in a cell, which may be `Ann <ann@example.com>` or `mailto:ann@example.com`; "" if none is."""
    if is_hash(cell):
        return cell.strip().lower()
    if "@" not in cell:
        return ""
    text = cell.removeprefix("mailto:")
    if text.endswith(">"):
        text = text.rpartition("<")[2].removesuffix(">")
    try:
        parse_key(text)
    except RecipientError:
        return ""
    return text.strip()


def export_entries(entries: Iterable[Suppressed], path: Path) -> None:
    """Write entries to a file that `read_text_list` and `import_entries` read; an older export is replaced.

    Raises:
        SuppressionError: it cannot be written, or the file there is something else.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if path.exists():
            with path.open("rb") as file:
                if not file.read(len(_EXPORT_HEADER) + 1).startswith(_EXPORT_HEADER.encode()):
                    raise SuppressionError(f"{path} is not an exported list: choose another name, or remove it")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with open(descriptor, "w", encoding="utf-8", newline="") as written:
                for line in (_EXPORT_HEADER, *map(format_line, entries)):
                    written.write(f"{line}\n")
                written.flush()
                os.fsync(written.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise SuppressionError(f"{path} cannot be written: {error.strerror}: choose another place") from error


_EXPORT_HEADER = "address,reason"


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
        with self._connection() as connection, transaction(connection):
            version = self._read_version(connection)
            for statement in (_TABLE, _INDEX, *(_FORMAT if version < TABLE_VERSION else ())):
                connection.execute(statement)

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
        rows = []
        for entry in entries:
            address = entry.address.strip()
            reason = safe_text(entry.reason.strip(), _MAX_REASON)
            key = parse_key(address)
            hashed = is_hash(address)
            keys = {"key": key if hashed else _parse(address).key, "address_key": key, "hash": hash_key(key)}
            rows.append({**keys, "address": key if hashed else address, "reason": reason, "at_us": us})
        return self._change(_INSERT, rows, has_hashes=any(is_hash(entry.address) for entry in entries))

    def remove(self, addresses: Iterable[str]) -> int:
        """Remove entries; return the number removed. Raises RecipientError: one is not an address."""
        if isinstance(addresses, str):  # also an iterable of strings
            check_type("addresses", addresses, list)
        keys = [parse_key(address) for address in addresses]
        return self._change(
            "DELETE FROM suppression WHERE address_key IN (?, ?)", [(key, hash_key(key)) for key in keys]
        )

    def check(self) -> None:
        """Raise SuppressionError unless it is a list that can be read."""
        if not self.path.exists():
            if "@" in self.path.name:
                put = shlex.join(["asyncsmtp", "suppress", "suppressed.db", self.path.name, "--create"])
                raise SuppressionError(f"a suppression list is a file, and {self.path.name} is an address: {put}")
            create = shlex.join(["asyncsmtp", "suppress", str(self.path), "--create"])
            raise SuppressionError(
                f"there is no suppression list {self.path}: correct its name, or create it: {create}"
            )
        with self._connection() as connection:
            connection.execute("SELECT key FROM suppression LIMIT 1").fetchall()

    def entries(self) -> list[Suppressed]:
        """Return all entries, by their keys."""
        self.check()
        with self._connection() as connection:
            found = connection.execute("SELECT address, reason FROM suppression ORDER BY key").fetchall()
        return [Suppressed(address, reason) for address, reason in found]

    def reasons(self, keys: Iterable[str]) -> dict[str, str]:
        """Return the reason of each of these keys, as from `parse_key`, that is listed."""
        keys = list(keys)
        with self._connection() as connection:
            found = dict(connection.execute(_FIND, (json.dumps(keys),)).fetchall())
            if connection.execute(_HAS_HASHES).fetchone():
                hashes = {hash_key(key): key for key in keys if key not in found}
                listed = connection.execute(_FIND, (json.dumps([*hashes]),)).fetchall()
                found |= {hashes[each]: reason for each, reason in listed}
            return found

    def erase(self, address: str, *, dry_run: bool = False) -> int:
        """Replace the entry of an address by its hash; return the number of entries that have the address.

        The address stays suppressed. Afterwards the file has no trace of it: it is written anew.

        Args:
            dry_run: only count.
        Raises:
            RecipientError: it is not an address.
        """
        key = parse_key(address)
        if key.startswith("@") or is_hash(address):
            raise RecipientError(f"“{safe_text(address, 60)}” is no address of a person: give one")
        self.check()
        with self._connection() as connection:
            found = connection.execute(_READ_ENTRY, (key,)).fetchall()
            named = connection.execute(_READ_NAMED, (key, key)).fetchall()  # in the reasons of others
            if dry_run or not (found or named):
                return len(found)
            connection.execute("PRAGMA secure_delete = ON")
            with transaction(connection):
                for stored, reason in named:
                    values = {"key": stored, "reason": erase_text(reason, key)}
                    connection.execute("UPDATE suppression SET reason = :reason WHERE key = :key", values)
                if found:
                    connection.execute(_SET_VERSION)
                for place, (stored, reason) in enumerate(found):
                    if place:  # a list of an older asyncsmtp may have two spellings
                        connection.execute("DELETE FROM suppression WHERE key = ?", (stored,))
                        continue
                    values = {"hash": hash_key(key), "key": stored, "reason": erase_text(reason, key)}
                    connection.execute(_ERASE, values)
            connection.execute("VACUUM")
            return len(found)

    def _change(
        self, statement: str, rows: Sequence[tuple[object, ...] | dict[str, object]], *, has_hashes: bool = False
    ) -> int:
        self.create()
        with self._connection() as connection:
            before = connection.total_changes
            with transaction(connection):
                connection.executemany(statement, rows)
                if has_hashes:
                    connection.execute(_SET_VERSION)
            return connection.total_changes - before

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            uri = f"{self.path.absolute().as_uri()}?mode=rw"
            with closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_TIMEOUT)) as connection:
                for pragma in _PRAGMAS:
                    connection.execute(f"PRAGMA {pragma}")
                (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                (application,) = connection.execute("PRAGMA application_id").fetchone()
                if tables and application != APPLICATION_ID:
                    why = f"{self.path} is a database, but not a suppression list: choose another name"
                    raise SuppressionError(why)
                if tables:
                    self._upgrade(connection)
                yield connection
        except sqlite3.Error as error:
            why = f"the suppression list {self.path} cannot be used: {error}: repair or remove it"
            raise SuppressionError(why) from error

    def _upgrade(self, connection: sqlite3.Connection) -> None:
        """Give the entries of an older list their `address_key`."""
        if self._read_version(connection) >= TABLE_VERSION:
            return
        try:
            with transaction(connection):
                if self._read_version(connection) >= TABLE_VERSION:  # another process was faster
                    return
                connection.execute("ALTER TABLE suppression ADD COLUMN address_key TEXT")
                keys = [(_upgrade_key(key), key) for (key,) in connection.execute("SELECT key FROM suppression")]
                connection.executemany("UPDATE suppression SET address_key = ? WHERE key = ?", keys)
                for statement in (_INDEX, *_FORMAT):
                    connection.execute(statement)
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_READONLY:
                raise
            command = f"asyncsmtp suppress {self.path}"
            why = f"{self.path} is of an older asyncsmtp, and cannot be written to be upgraded"
            raise SuppressionError(f"{why}: run this once as its owner: {command}") from error

    def _read_version(self, connection: sqlite3.Connection) -> int:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise SuppressionError(f"{self.path} is of a newer asyncsmtp (schema {version}): upgrade asyncsmtp")
        return int(version)


def _upgrade_key(key: str) -> str:
    try:
        return parse_key(key)
    except RecipientError:  # it was an address to an older asyncsmtp, and can be none in a row of today
        return key
