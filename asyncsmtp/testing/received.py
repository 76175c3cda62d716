"""Messages and logins that a relay received, a Maildir to store messages in, and their rendering as text."""

from __future__ import annotations

import json
import mmap
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import compat32, default
from functools import cached_property, partial
from itertools import count
from pathlib import Path

from asyncsmtp.protocol.replies import safe_text

__all__ = ["AuthAttempt", "MailTransaction", "Maildir", "MessageNotAccepted", "Received", "StoredMail", "render"]


@dataclass(frozen=True, slots=True)
class Received:
    """One message that the relay accepted.

    Attributes:
        reverse_path: the address in MAIL FROM; "" is the null reverse-path.
        forward_paths: the addresses of the accepted RCPT commands, in order.
        content: header section and body, dot-stuffing undone, otherwise byte for byte.
        tls: true if it came over TLS.
        user: the user who had logged in, or None.
        parameters: of MAIL; keywords in upper case.
        rcpt_parameters: of each RCPT, in the order of the forward-paths.
        connection: the number of the connection, from 1.
        chunked: true if it came by BDAT.
    """

    reverse_path: str
    forward_paths: tuple[str, ...]
    content: bytes
    tls: bool = False
    user: str | None = None
    parameters: Mapping[str, str | None] = field(default_factory=dict)
    rcpt_parameters: tuple[Mapping[str, str | None], ...] = ()
    connection: int = 1
    chunked: bool = False

    @property
    def email(self) -> EmailMessage:
        """The content as parsed by the standard library, for assertions on headers and parts."""
        return BytesParser(policy=default).parsebytes(self.content)


@dataclass(frozen=True, slots=True)
class AuthAttempt:
    """One AUTH command and its result.

    Attributes:
        mechanism: in upper case.
        responses: the client's answers, base64 decoded, the initial response included.
        user: the user name that it gave, if it came to that.
        accepted: true if the relay replied 235.
    """

    mechanism: str
    responses: tuple[bytes, ...]
    user: str | None
    accepted: bool


class MessageNotAccepted(Exception):
    """An exception that refuses a message with this reply, such as "452 4.3.1 disk full"."""

    def __init__(self, reply: str) -> None:
        super().__init__(reply)
        self.reply = reply


@dataclass(frozen=True, slots=True)
class MailTransaction:
    """The SMTP transaction in which a mail came.

    Attributes:
        connection: its number, from 1 for each relay.
        tls: true if it came over TLS.
        user: the user who had logged in, or None.
        chunked: true if it came by BDAT.
        parameters: of MAIL. rcpt_parameters: of each RCPT that was accepted.
        dialogue: commands and replies as `C: …` and `S: …` lines, each command before its replies: the opening of the
            connection, then the transaction. Content is `C: .`, and what proves who somebody is is `***`.
    """

    connection: int
    tls: bool
    user: str | None
    chunked: bool
    parameters: Mapping[str, str | None]
    rcpt_parameters: tuple[Mapping[str, str | None], ...]
    dialogue: tuple[str, ...]


_SEQUENCE = count(1)
TRANSACTIONS, OLD_TRANSACTIONS = "transactions.jsonl", "transactions.old.jsonl"
MAX_TRANSACTIONS = 64 * 1024 * 1024  # bytes of each of these two files


class Maildir:
    """A folder with `tmp`, `new` and `cur`, created if missing, readable by its owner only.

    Each mail is the content byte for byte, CRLF included, below the lines that final delivery adds: `Return-Path`
    (RFC 5321 §4.4) and a `Delivered-To` for each forward-path. Files of other programs are left alone. The transactions
    are in a file beside `new`, where mail programs look for folders only.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)  # it may contain everyone's mail, and their tokens
        for folder in ("tmp", "new", "cur"):
            (self.path / folder).mkdir(mode=0o700, exist_ok=True)
        self._tmp = os.fspath(self.path / "tmp")
        self._new = os.fspath(self.path / "new")
        self._host = os.uname().nodename.replace("/", "_").replace(":", "_") or "localhost"

    def add(self, message: Received) -> str:
        """Write one mail; return the name of its file. Names sort in the order of arrival, and end with .eml.

        Raises:
            OSError: it could not be written; nothing is left of it.
        """
        now = time.time_ns() // 1000
        name = f"{now // 1_000_000}.M{now % 1_000_000:06}P{os.getpid()}Q{next(_SEQUENCE):09}.{self._host}.eml"
        written = f"{self._tmp}/{name}"
        try:
            with open(written, "xb", buffering=0, opener=partial(os.open, mode=0o600)) as file:
                rest = memoryview(_delivery_lines(message) + message.content)
                while rest:
                    rest = rest[file.write(rest) :]
            os.rename(written, f"{self._new}/{name}")
        except OSError:
            Path(written).unlink(missing_ok=True)
            raise
        return name

    def add_transaction(self, name: str, transaction: MailTransaction) -> None:
        """Keep the transaction of a mail that was added; of very many, the newest are kept.

        Raises:
            OSError: it could not be written.
        """
        values = {name: getattr(transaction, name) for name in MailTransaction.__slots__}  # asdict() copies, slowly
        record = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
        file = os.open(self.path / TRANSACTIONS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            # The line end comes first, so that a line that could not be written to its end spoils no other.
            os.write(file, f"\n{name} {record}".encode("utf-8", "backslashreplace"))
            size = os.lseek(file, 0, os.SEEK_CUR)
        finally:
            os.close(file)
        if size > MAX_TRANSACTIONS:
            os.replace(self.path / TRANSACTIONS, self.path / OLD_TRANSACTIONS)

    def mails(self) -> Iterator[StoredMail]:
        """Return each mail in `new` and `cur`, in the order of arrival; files are read on access."""
        found = [entry for folder in ("new", "cur") for entry in os.scandir(self.path / folder) if entry.is_file()]
        return (StoredMail(Path(entry.path)) for entry in sorted(found, key=lambda entry: entry.name))

    def __len__(self) -> int:
        """Return the number of mails."""
        return sum(1 for folder in ("new", "cur") for _ in os.scandir(self.path / folder))


def read_transaction(maildir: Path, name: str) -> MailTransaction | None:
    """Return the transaction of a mail; None if it was not kept."""
    for file in (TRANSACTIONS, OLD_TRANSACTIONS):
        with _mapped(maildir / file) as content:
            begin, end = _find_line(content, name)
            record = content[begin:end]
        if record:
            try:
                values = json.loads(record)
                values["rcpt_parameters"], values["dialogue"] = (
                    tuple(values["rcpt_parameters"]),
                    tuple(values["dialogue"]),
                )
                return MailTransaction(**values)
            except (ValueError, TypeError, KeyError):  # the disk was full, or another version wrote it
                return None
    return None


def remove_transactions(maildir: Path, names: Iterable[str] | None = None) -> None:
    """Remove the transactions of these mails; None: of all."""
    for file in (TRANSACTIONS, OLD_TRANSACTIONS):
        if names is None:
            with suppress(OSError):
                os.truncate(maildir / file, 0)
            continue
        with _mapped(maildir / file, write=True) as content:
            for name in names:
                begin, end = _find_line(content, name)
                content[begin:end] = b" " * (end - begin)


@contextmanager
def _mapped(path: Path, *, write: bool = False) -> Iterator[mmap.mmap | bytearray]:
    """Map a file into memory until the block ends; one that is empty or cannot be read is b""."""
    try:
        with path.open("r+b" if write else "rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_WRITE if write else mmap.ACCESS_READ)
    except (OSError, ValueError):
        yield bytearray()
        return
    with content:
        yield content


def _find_line(content: mmap.mmap | bytearray, name: str) -> tuple[int, int]:
    """Return where the record of a mail begins and ends; twice the same if there is none."""
    start = b"\n" + name.partition(":")[0].encode("utf-8", "surrogateescape") + b" "  # flags are behind a colon
    found = content.rfind(start)
    if found < 0:
        return 0, 0
    end = content.find(b"\n", found + 1)
    return found + len(start), end if end >= 0 else len(content)


def _delivery_lines(message: Received) -> bytes:
    lines = [f"Return-Path: <{message.reverse_path}>", *(f"Delivered-To: {path}" for path in message.forward_paths), ""]
    return "\r\n".join(lines).encode("utf-8")


@dataclass(frozen=True)
class StoredMail:
    """One mail in a Maildir."""

    path: Path

    @cached_property
    def octets(self) -> bytes:
        """The file, with the lines that delivery added."""
        return self.path.read_bytes()

    @cached_property
    def message(self) -> EmailMessage:
        """The mail as parsed by the standard library."""
        return BytesParser(policy=default).parsebytes(self.octets)

    @property
    def reverse_path(self) -> str:
        """The address for delivery failures; "" is the null reverse-path."""
        return self._delivery("Return-Path")[0].strip("<>")

    @property
    def forward_paths(self) -> tuple[str, ...]:
        """The recipients that it was delivered to."""
        return tuple(self._delivery("Delivered-To"))

    @property
    def transaction(self) -> MailTransaction | None:
        """The SMTP transaction in which it came; None if a `Sandbox` did not keep it."""
        return read_transaction(self.path.parent.parent, self.path.name)

    @property
    def text(self) -> str:
        """The text of its text/plain body, of its text/html body if there is no other, or ""."""
        body = self.message.get_body(("plain", "html"))
        return "" if body is None else str(body.get_content())

    def _delivery(self, field: str) -> list[str]:
        """Return the values of the lines at the top, up to the first that delivery did not add."""
        found = []
        for line in self.octets.split(b"\r\n\r\n", 1)[0].split(b"\r\n"):
            name, _, value = line.decode("utf-8", "backslashreplace").partition(": ")
            if name not in ("Return-Path", "Delivered-To"):
                break
            if name == field:
                found.append(value)
        return found or [""]


HEADERS = ("From", "To", "Cc", "Subject", "Date", "Message-ID")
MAX_WIDTH = 512  # characters of one line
MAX_TEXT_LINES = 200


def render(mail: StoredMail) -> str:
    """Return headers, envelope, the tree of parts with types and sizes, and the text.

    Nothing in it moves the cursor, colors the screen or reverses the writing: unprintable characters are escaped.
    """
    return "\n".join([*_headers(mail), "", *_tree(mail.message), "", *_text(mail)]).rstrip() + "\n"


def _headers(mail: StoredMail) -> Iterator[str]:
    for name in HEADERS:
        if (value := read_header(mail.message, name)) is not None:
            yield f"{name + ':':<12}{_escape(value)}"
    envelope = f"<{mail.reverse_path}> to {', '.join(mail.forward_paths)}"
    yield f"{'Envelope:':<12}{_escape(envelope)}"


def read_header(message: EmailMessage, name: str) -> str | None:
    """Return the decoded value, or the raw one if the standard library fails to parse it."""
    try:
        value = message[name]
    except Exception:  # its parser of structured fields raises various exceptions for hostile ones
        raw = dict(message.raw_items()).get(name, "")
        value = compat32.header_fetch_parse(name, raw)
    return None if value is None else str(value)


def _tree(part: EmailMessage, first: str = "", rest: str = "") -> Iterator[str]:
    yield first + _describe(part)
    parts = [inner for inner in part.iter_parts() if isinstance(inner, EmailMessage)] if part.is_multipart() else []
    for number, inner in enumerate(parts, start=1):
        last = number == len(parts)
        yield from _tree(inner, f"{rest}{'└─ ' if last else '├─ '}", f"{rest}{'   ' if last else '│  '}")


def _describe(part: EmailMessage) -> str:
    """Return type, size, disposition, name and Content-ID, if present."""
    words = [part.get_content_type()]
    if not part.is_multipart():
        payload = part.get_payload(decode=True)
        words.append(f"{len(payload) if isinstance(payload, bytes) else 0:,} bytes")
    words += filter(None, (part.get_content_disposition(), part.get_filename(), read_header(part, "Content-ID")))
    return _escape(", ".join(words))


def _text(mail: StoredMail) -> Iterator[str]:
    try:
        lines = mail.text.expandtabs().splitlines()
    except (LookupError, ValueError) as error:  # an unknown charset, a broken encoding
        lines = [f"(the text cannot be read: {error})"]
    yield from map(_escape, lines[:MAX_TEXT_LINES])
    if len(lines) > MAX_TEXT_LINES:
        yield f"… and {len(lines) - MAX_TEXT_LINES:,} more lines"


def _escape(text: str) -> str:
    return safe_text(text, MAX_WIDTH)
