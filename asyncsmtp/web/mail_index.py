"""An index of a Maildir for the list of its mails and the search in them, kept up to date while mails arrive.

A folder is listed again only when it has changed, and a large one that changes all the time only now and then. A mail
is read once for the list, when it is on a page that somebody looks at, and once for the search. What is searched lies
in a temporary database of SQLite, so that a hundred thousand mails need not fit into memory.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
from binascii import Error as InvalidBase64
from binascii import a2b_base64, a2b_qp
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.parser import HeaderParser
from email.policy import compat32
from pathlib import Path
from threading import Lock
from weakref import finalize

from asyncsmtp.protocol.replies import safe_text
from asyncsmtp.testing.received import StoredMail
from asyncsmtp.web.mail_text import MAX_FIELD, decode_text, decode_words, replace_surrogates, strip_tags

__all__ = ["MAX_WORD", "MailIndex", "MailSummary"]

MAX_WORD = 300  # characters of a header field in the list
MAX_SEARCHED = 20_000  # characters of a text that are searched
MAX_READ = 262_144  # bytes of a mail in which its text is looked for
MAX_KEPT = 20_000  # lines of the list that are kept
MAX_DEPTH = 8  # parts inside parts
MAX_PARTS = 1000  # of a part, in which its text is looked for
SCAN_SHARE = 20  # a listing that took a second is not repeated for twenty, unless an exact one is asked for
CLOCK_STEP = 0.05  # seconds in which a folder can change twice without a new time of change

_ARRIVED = re.compile(r"(\d{1,12})\.M(\d{6})")
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_SCHEMA = "CREATE TABLE mail (name TEXT PRIMARY KEY, folder INTEGER NOT NULL, searched TEXT)"
_COUNT = "SELECT count(*) FROM mail WHERE NOT EXISTS (SELECT 1 FROM json_each(?) WHERE NOT instr(searched, value))"
_PAGE = """
    SELECT name, folder FROM mail WHERE NOT EXISTS (SELECT 1 FROM json_each(?) WHERE NOT instr(searched, value))
    ORDER BY name DESC LIMIT ? OFFSET ?
"""
_PARSER = HeaderParser(policy=compat32)


@dataclass(frozen=True, slots=True)
class MailSummary:
    """A line of the list.

    Attributes:
        id: name of the mail's file.
        at: time of arrival, UTC.
        sender: of the header. recipients: of the envelope.
        size: in bytes.
    """

    id: str
    at: datetime
    sender: str
    recipients: tuple[str, ...]
    subject: str
    size: int


class MailIndex:
    """Mails of a Maildir, newest first.

    The methods read files: call them in threads, any number at once.

    Args:
        maildir: its folder.
    """

    def __init__(self, maildir: Path) -> None:
        self._folders = (maildir / "new", maildir / "cur")
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        finalize(self, self._database.close)  # a file without a name, which nobody else has
        self._database.execute(_SCHEMA)
        self._lock = Lock()  # of the database, and of what is known of the folders
        self._known: tuple[set[str], ...] = (set(), set())
        self._changed_at: list[int | None] = [None, None]  # of each folder, when it was listed last
        self._next_scan = 0.0
        self._summaries: dict[str, MailSummary] = {}
        self._last: StoredMail | None = None

    def find(self, name: str) -> StoredMail | None:
        """Return the mail with this name; None if there is no such mail, also for a name that leads elsewhere."""
        with self._lock:
            if name in (os.curdir, os.pardir) or "/" in name or "\0" in name:
                return None
            for folder in self._folders:
                if self._last is not None and self._last.path == folder / name and self._last.path.exists():
                    return self._last  # each view of a mail is a request, and to parse a large one takes seconds
                try:
                    exists = (folder / name).is_file()
                except (OSError, ValueError):  # no file can have such a name
                    return None
                if exists:
                    self._last = StoredMail(folder / name)
                    return self._last
        return None

    def count(self, words: str = "") -> int:
        """Return in how many mails all of these words occur; in a large folder those of the last seconds may miss."""
        with self._lock:
            self._scan(exact=False)
            return self._count(self._prepare_search(words))

    def read_page(self, words: str, offset: int, limit: int) -> tuple[list[MailSummary], int]:
        """Return some of the mails in which all of these words occur, and the number of all such mails."""
        with self._lock:
            self._scan()
            wanted = self._prepare_search(words)
            rows = self._database.execute(_PAGE, (wanted, limit, offset)).fetchall()
            total = self._count(wanted)
        page = (self.summarize(self._folders[folder] / name) for name, folder in rows)
        return [each for each in page if each is not None], total

    def neighbours(self, name: str) -> tuple[str | None, str | None]:
        """Return the names of the mails that came next after this one, and last before it."""
        with self._lock:
            self._scan(exact=False)
            newer = self._database.execute("SELECT min(name) FROM mail WHERE name > ?", (name,)).fetchone()[0]
            older = self._database.execute("SELECT max(name) FROM mail WHERE name < ?", (name,)).fetchone()[0]
        return newer, older

    def delete(self, name: str | None = None) -> int:
        """Delete one mail, or all of them; return how many."""
        with self._lock:
            self._scan()
            query = "SELECT folder, name FROM mail WHERE name = coalesce(?, name)"
            rows = self._database.execute(query, (name,)).fetchall()
            for folder, each in rows:
                (self._folders[folder] / each).unlink(missing_ok=True)
                self._summaries.pop(each, None)
            self._last = None
            self._scan()
        return len(rows)

    def prepare(self, seconds: float) -> bool:
        """Read mails for the search, the newest first, for about this time; tell if some are left."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with self._lock:
                if not self._read_unsearched(20):
                    return False
        return True

    def summarize(self, path: Path) -> MailSummary | None:
        """Return the line of a mail; None if it was deleted meanwhile."""
        name = path.name
        found = self._summaries.get(name)
        if found is None:
            try:
                with path.open("rb") as file:
                    octets, size = file.read(MAX_READ), os.fstat(file.fileno()).st_size
            except OSError:
                return None
            found = _summarize(path, octets, size)
            if len(self._summaries) >= MAX_KEPT:
                self._summaries.clear()
            self._summaries[name] = found
        return found

    def _scan(self, *, exact: bool = True) -> None:
        """List the folders that have changed."""
        if not exact and time.monotonic() < self._next_scan:
            return
        began = time.monotonic()
        for number, folder in enumerate(self._folders):
            try:
                changed_at = folder.stat().st_mtime_ns
                if changed_at == self._changed_at[number]:
                    continue
                names = {name for name in os.listdir(folder) if not name.startswith(".") and _is_text(name)}
            except FileNotFoundError:
                changed_at, names = 0, set()
            settled = time.time_ns() - changed_at > CLOCK_STEP * 1e9
            self._changed_at[number] = changed_at if settled else None
            self._update(number, names)
        self._next_scan = time.monotonic() + SCAN_SHARE * (time.monotonic() - began)

    def _update(self, number: int, names: set[str]) -> None:
        known = self._known[number]
        gone, arrived = known - names, names - known
        with self._transaction():
            query = "DELETE FROM mail WHERE name = ? AND folder = ?"
            self._database.executemany(query, ((each, number) for each in gone))
            self._database.executemany(
                "INSERT INTO mail (name, folder) VALUES (?, ?)"
                " ON CONFLICT (name) DO UPDATE SET folder = excluded.folder",
                ((each, number) for each in arrived),
            )
        known -= gone
        known |= arrived

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Keep all changes, or none: one that stayed open would stop each later one."""
        self._database.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def _count(self, wanted: str) -> int:
        number: int = self._database.execute(_COUNT, (wanted,)).fetchone()[0]
        return number

    def _prepare_search(self, words: str) -> str:
        """Return the words to look for as JSON; if there are any, every mail can be searched."""
        wanted = words.casefold().split()
        while wanted and self._read_unsearched(500):
            pass
        return json.dumps(wanted)

    def _read_unsearched(self, limit: int) -> bool:
        """Read some of the mails that cannot be searched yet; tell if there were any."""
        query = "SELECT name, folder FROM mail WHERE searched IS NULL ORDER BY name DESC LIMIT ?"
        rows = self._database.execute(query, (limit,)).fetchall()
        texts = [(_read_searched(self._folders[folder] / name), name) for name, folder in rows]
        with self._transaction():
            self._database.executemany("UPDATE mail SET searched = ? WHERE name = ?", texts)
        return bool(rows)


def _summarize(path: Path, octets: bytes, size: int) -> MailSummary:
    envelope, fields, _ = _split(octets)
    return MailSummary(
        path.name,
        _arrival(path),
        safe_text(_decode(fields, "From"), MAX_WORD),
        tuple(safe_text(each, MAX_WORD) for each in envelope),
        safe_text(_decode(fields, "Subject"), MAX_WORD),
        size,
    )


def _read_searched(path: Path) -> str:
    """Return what is searched of a mail: sender, recipients, subject and text."""
    try:
        with path.open("rb") as file:
            octets = file.read(MAX_READ)
    except OSError:  # deleted meanwhile
        return ""
    envelope, fields, body = _split(octets)
    known = (_decode(fields, "From"), *envelope, _decode(fields, "Subject"))
    try:
        text = next(_texts(fields, body, "plain"), None)
        if text is None:
            text = strip_tags(next(_texts(fields, body, "html"), "")[: 10 * MAX_SEARCHED])
    except Exception:  # no mail may stop the search in the others
        text = decode_text(body[:MAX_SEARCHED])
    return replace_surrogates("\n".join((*known, text[:MAX_SEARCHED])).casefold())


def _split(octets: bytes) -> tuple[list[str], Message, bytes]:
    """Return the recipients of the envelope, the header fields and the body."""
    head, body = _split_head(octets)
    text = head.decode("utf-8", "replace")
    envelope = []
    for line in text.splitlines():
        name, _, value = line.partition(": ")
        if name not in ("Return-Path", "Delivered-To"):
            break
        if name == "Delivered-To":
            envelope.append(value)
    return envelope or [""], _parse_fields(text), body


def _parse_fields(text: str) -> Message:
    """Return the header fields; those with parameters are cut, since to parse them takes time by the square."""
    fields = _PARSER.parsestr(text)
    for name in ("Content-Type", "Content-Disposition"):
        if len(value := str(fields.get(name, ""))) > MAX_FIELD:
            fields.replace_header(name, value[:MAX_FIELD])
    return fields


def _split_head(octets: bytes) -> tuple[bytes, bytes]:
    parts = _BLANK_LINE.split(octets, 1)
    return parts[0], parts[1] if len(parts) > 1 else b""


def _texts(fields: Message, body: bytes, subtype: str, depth: int = 0) -> Iterator[str]:
    """Yield the texts of this kind in a mail or a part, decoded.

    The parser of the standard library takes ten times as long, since it makes objects of all lines and parts.
    """
    kind = fields.get_content_type()
    if kind.startswith("multipart/") and depth < MAX_DEPTH:
        boundary = (fields.get_boundary() or "").encode("utf-8", "replace")
        for part in body.split(b"--" + boundary, MAX_PARTS)[1:] if boundary else ():
            head, rest = _split_head(part)
            inner = _parse_fields(head.decode("utf-8", "replace").lstrip("\r\n"))
            yield from _texts(inner, rest, subtype, depth + 1)
    elif kind == f"text/{subtype}" and fields.get_content_disposition() != "attachment":
        yield decode_text(_decode_body(fields, body), fields.get_content_charset("utf-8"))


def _decode_body(fields: Message, body: bytes) -> bytes:
    encoding = str(fields.get("Content-Transfer-Encoding", "")).strip().lower()
    if encoding == "quoted-printable":
        return a2b_qp(body)
    if encoding == "base64":
        try:
            return a2b_base64(body[: len(body) // 4 * 4] if len(body) > MAX_READ // 2 else body)
        except InvalidBase64:
            return b""
    return body


def _decode(fields: Message, name: str) -> str:
    """Return a header field, its encoded words decoded; "" if there is none."""
    return decode_words(str(fields.get(name, "")))


def _is_text(name: str) -> bool:
    """Tell if the name of a file is UTF-8; no mail of a sandbox has another, and no address could name it."""
    return replace_surrogates(name) == name


def _arrival(path: Path) -> datetime:
    match = _ARRIVED.match(path.name)
    if match is not None:
        return datetime.fromtimestamp(int(match[1]) + int(match[2]) / 1e6, UTC)
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return datetime.fromtimestamp(0, UTC)
