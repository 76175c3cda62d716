"""Delivery status notifications (RFC 3464, RFC 6533): parse them, and read them from files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from asyncsmtp.errors import InvalidArgument
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from email.message import Message

__all__ = ["MAX_DSN_BYTES", "Bounce", "parse_dsn", "read_mail_files"]

MAX_DSN_BYTES = 2 * 1024 * 1024  # of a report that are parsed; the original message may follow
_MAX_DIAGNOSTIC = 300  # characters
_STATUS = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})")
_ID = re.compile(r"<([^<>@\s]{1,200}@[^<>@\s]{1,200})>")
_TO = ("Delivered-To", "X-Original-To", "Envelope-To", "To")


@dataclass(frozen=True, slots=True)
class Bounce:
    """The report of a mail system on one recipient.

    Attributes:
        recipient: the final recipient, as in the report; "" if there is none.
        failed: whether delivery failed permanently; False for a delay or a success.
        status: the enhanced status code, such as "5.1.1"; "" if there is none.
        words: the diagnostic of the mail system, without control characters.
        message_id: of the reported message, without angle brackets; "" if the report does not have it.
        sent_to: the addresses that the report was sent to: one of them may be a return path of ours.
        report: an identifier of the report, by its content.
    """

    recipient: str
    failed: bool
    status: str
    words: str
    message_id: str
    sent_to: tuple[str, ...]
    report: str = field(default="", compare=False)

    @property
    def permanent(self) -> bool:
        """True if no later message will arrive there either: the address should be suppressed."""
        return self.failed and self.status.startswith("5.1.")


def parse_dsn(data: bytes) -> Iterator[Bounce]:
    """Yield the bounces of a message, by recipient; nothing if it is not a delivery status notification.

    Never raises: anybody can write to a mailbox for bounces.
    """
    try:
        report = _parse(data[:MAX_DSN_BYTES])
        status = next((part for part in report.walk() if part.get_content_type() in _STATUSES), None)
        if status is None:
            return
        message_id, to, name = _message_id(report), tuple(_addresses(report)), sha256(data).hexdigest()[:32]
        for fields in _blocks(status):
            if bounce := _bounce(fields, message_id, to, name):
                yield bounce
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return  # a message made to be misread


_STATUSES = frozenset({"message/delivery-status", "message/global-delivery-status"})
_HEADERS = frozenset({"text/rfc822-headers", "message/global-headers"})


def _parse(data: bytes) -> Message:
    from email import message_from_bytes, policy  # late: ledgers import Bounce, and few commands parse mail

    return message_from_bytes(data, policy=policy.compat32)


def _blocks(status: Message) -> Iterator[Message]:
    """Yield the groups of fields of a status: the first is about the message, each further one about a recipient."""
    payload = status.get_payload()
    if isinstance(payload, list):
        yield from (part for part in payload if not isinstance(part, str))


def _bounce(fields: Message, message_id: str, to: tuple[str, ...], report: str) -> Bounce | None:
    action = str(fields.get("Action", "")).strip().lower()
    if not action:
        return None
    found = _STATUS.search(str(fields.get("Status", ""))) or _STATUS.search(str(fields.get("Diagnostic-Code", "")))
    words = " ".join(str(fields.get("Diagnostic-Code", "")).partition(";")[2].split())
    final = str(fields.get("Final-Recipient", "") or fields.get("Original-Recipient", "")).partition(";")[2].strip()
    return Bounce(
        safe_text(final, 320),
        action == "failed",
        found[0] if found else "",
        safe_text(words or action, _MAX_DIAGNOSTIC),
        message_id,
        to,
        report,
    )


def _message_id(report: Message) -> str:
    """Return the Message-ID of the message that the report returns, whole or its header only."""
    for part in report.walk():
        if part is report:
            continue
        if part.get_content_type() in _HEADERS:
            payload = part.get_payload(decode=True)
            part = _parse(payload if isinstance(payload, bytes) else b"")
        if found := _ID.search(str(part.get("Message-ID", ""))):
            return found[1]
    return ""


def _addresses(report: Message) -> Iterator[str]:
    for name in _TO:
        for value in report.get_all(name, []):
            yield from re.findall(r"[^\s<>,;]{1,64}@[^\s<>,;]{1,255}", str(value))[:20]


def read_mail_files(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """Yield the first `MAX_DSN_BYTES` of each message of a Maildir, an mbox file, or a folder of messages; blocks.

    Nothing is marked, moved or removed.

    Raises:
        InvalidArgument: the path does not exist, or cannot be read.
    """
    path = Path(path)
    try:
        if path.is_dir():
            folders = [path / name for name in ("new", "cur") if (path / name).is_dir()] or [path]
            for folder in folders:
                for entry in sorted(folder.iterdir()):
                    if entry.is_file() and not entry.name.startswith("."):
                        with entry.open("rb") as file:
                            yield file.read(MAX_DSN_BYTES)
        else:
            yield from _read_mbox(path)
    except OSError as error:
        why = f"{str(error.strerror or error).lower()}: name a Maildir, an mbox file or a folder of messages"
        raise InvalidArgument(f"{path} cannot be read: {why}") from error


def _read_mbox(path: Path) -> Iterator[bytes]:
    """Yield the messages of an mbox file, separated by `From ` lines (RFC 4155); a file without one is one message."""
    with path.open("rb") as file:
        kept: list[bytes] = []
        size, empty = 0, True  # whether the line before is empty, or missing
        for line in file:
            if line.startswith(b"From ") and empty:
                if kept:
                    yield b"".join(kept)
                kept, size, empty = [], 0, False
                continue
            empty = line in (b"\n", b"\r\n")
            if size < MAX_DSN_BYTES:
                kept.append(line[1:] if line.lstrip(b">").startswith(b"From ") and line.startswith(b">") else line)
                size += len(line)
        if kept:
            yield b"".join(kept)
