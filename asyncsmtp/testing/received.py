"""What a relay in a test was given: messages, and attempts to log in."""

from __future__ import annotations

import email.message
import email.policy
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import compat32, default
from functools import cached_property
from itertools import count
from pathlib import Path

from asyncsmtp.protocol.replies import safe_text

__all__ = ["AuthAttempt", "Maildir", "MessageNotAccepted", "Received", "StoredMail", "render"]


@dataclass(frozen=True, slots=True)
class Received:
    """One message the relay accepted.

    Attributes:
        reverse_path: the address in MAIL FROM; "" is the null reverse-path.
        forward_paths: the addresses of the RCPT commands that were accepted, in order.
        content: header section and body, transparency undone, octet for octet otherwise.
        tls: whether it came over TLS.
        user: who had logged in, or None.
        parameters: those of MAIL; keywords in upper case.
        recipient_parameters: those of each RCPT, in the order of the forward-paths.
        connection: the relay's connection it came by, from 1.
        chunked: whether by BDAT.
    """

    reverse_path: str
    forward_paths: tuple[str, ...]
    content: bytes
    tls: bool = False
    user: str | None = None
    parameters: Mapping[str, str | None] = field(default_factory=dict)
    recipient_parameters: tuple[Mapping[str, str | None], ...] = ()
    connection: int = 1
    chunked: bool = False

    @property
    def email(self) -> email.message.EmailMessage:
        """The content as the standard library reads it, for assertions on headers and parts."""
        return BytesParser(policy=email.policy.default).parsebytes(self.content)


@dataclass(frozen=True, slots=True)
class AuthAttempt:
    """One AUTH command and how it ended.

    Attributes:
        mechanism: in upper case.
        responses: what the client answered, base64 undone, the initial response included.
        user: the user name it claimed, when it came so far.
        accepted: whether the relay answered 235.
    """

    mechanism: str
    responses: tuple[bytes, ...]
    user: str | None
    accepted: bool


class MessageNotAccepted(Exception):
    """Raised by what is given a message: it is not taken, and this reply says so ("452 4.3.1 disk full")."""

    def __init__(self, reply: str) -> None:
        super().__init__(reply)
        self.reply = reply


_IN_THIS_PROCESS = count(1)


class Maildir:
    """A folder with `tmp`, `new` and `cur`, made if it is not there, for the eyes of its owner.

    Each mail is the content octet for octet, CRLF included, below the lines that final delivery adds:
    `Return-Path` (RFC 5321 §4.4) and a `Delivered-To` for each forward-path. Files of other programs are left alone.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)  # it may hold everyone's mail, and their tokens
        for folder in ("tmp", "new", "cur"):
            (self.path / folder).mkdir(mode=0o700, exist_ok=True)
        self._tmp = os.fspath(self.path / "tmp")
        self._new = os.fspath(self.path / "new")
        self._host = os.uname().nodename.replace("/", "_").replace(":", "_") or "localhost"

    def keep(self, message: Received) -> str:
        """Write one mail; return the name of its file. Names sort in the order of arrival.

        Raises:
            OSError: it could not be written, and nothing is left of it.
        """
        now = time.time_ns() // 1000
        name = f"{now // 1_000_000}.M{now % 1_000_000:06}P{os.getpid()}Q{next(_IN_THIS_PROCESS):09}.{self._host}"
        written = f"{self._tmp}/{name}"
        try:
            with open(written, "xb", buffering=0, opener=_for_the_owner) as file:
                _write_all(file.fileno(), _delivery_lines(message) + message.content)
            os.rename(written, f"{self._new}/{name}")
        except OSError:
            Path(written).unlink(missing_ok=True)
            raise
        return name

    def mails(self) -> Iterator[StoredMail]:
        """Each mail that is in `new` or `cur`, in the order of arrival; read when it is asked for something."""
        found = [entry for folder in ("new", "cur") for entry in os.scandir(self.path / folder) if entry.is_file()]
        return (StoredMail(Path(entry.path)) for entry in sorted(found, key=lambda entry: entry.name))

    def __len__(self) -> int:
        """How many mails there are."""
        return sum(1 for folder in ("new", "cur") for _ in os.scandir(self.path / folder))


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write_all(file: int, octets: bytes) -> None:
    rest = memoryview(octets)
    while rest:
        rest = rest[os.write(file, rest) :]


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
        """The mail as the standard library reads it."""
        return BytesParser(policy=default).parsebytes(self.octets)

    @property
    def reverse_path(self) -> str:
        """Where notifications of failure go; "" is the null reverse-path."""
        return self._delivery("Return-Path")[0].strip("<>")

    @property
    def forward_paths(self) -> tuple[str, ...]:
        """Who it was delivered to."""
        return tuple(self._delivery("Delivered-To"))

    @property
    def text(self) -> str:
        """The text of its text/plain body, of its text/html body when there is no other, or ""."""
        body = self.message.get_body(("plain", "html"))
        return "" if body is None else str(body.get_content())

    def _delivery(self, field: str) -> list[str]:
        """The values of the lines on top, up to the first that delivery did not add."""
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
    """Headers, envelope, the tree of parts with types and sizes, and the text.

    Nothing in it moves the cursor, colours the screen or reverses the writing: what does not print is escaped.
    """
    return "\n".join([*_headers(mail), "", *_tree(mail.message), "", *_text(mail)]).rstrip() + "\n"


def _headers(mail: StoredMail) -> Iterator[str]:
    for name in HEADERS:
        if (value := _header(mail.message, name)) is not None:
            yield f"{name + ':':<12}{_safe(value)}"
    envelope = f"<{mail.reverse_path}> to {', '.join(mail.forward_paths)}"
    yield f"{'Envelope:':<12}{_safe(envelope)}"


def _header(message: EmailMessage, name: str) -> str | None:
    """The decoded value, or as it stands when the standard library stumbles over it."""
    try:
        value = message[name]
    except Exception:  # its parser of structured fields raises this and that on hostile ones
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
    """Type, size, disposition, name and Content-ID, as far as there are any."""
    words = [part.get_content_type()]
    if not part.is_multipart():
        payload = part.get_payload(decode=True)
        words.append(f"{len(payload) if isinstance(payload, bytes) else 0:,} octets")
    words += filter(None, (part.get_content_disposition(), part.get_filename(), _header(part, "Content-ID")))
    return _safe(", ".join(words))


def _text(mail: StoredMail) -> Iterator[str]:
    try:
        lines = mail.text.expandtabs().splitlines()
    except (LookupError, ValueError) as error:  # an unknown charset, a broken encoding
        lines = [f"(the text cannot be read: {error})"]
    yield from map(_safe, lines[:MAX_TEXT_LINES])
    if len(lines) > MAX_TEXT_LINES:
        yield f"… and {len(lines) - MAX_TEXT_LINES:,} lines more"


def _safe(text: str) -> str:
    return safe_text(text, MAX_WIDTH)
