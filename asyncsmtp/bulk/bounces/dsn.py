"""Delivery status notifications (RFC 3464, RFC 6533) and complaints (RFC 5965): parse them, and read them from files.

Anybody can write to a mailbox for bounces: `mime_parser.walk_parts` has the limits of what is read.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from asyncsmtp.bulk.bounces.fault import effective_status, is_gone, is_recipient_fault
from asyncsmtp.bulk.bounces.mime_parser import HEADERS, MAX_DSN_BYTES, MAX_VALUE, Part, walk_parts
from asyncsmtp.errors import InvalidArgument
from asyncsmtp.protocol.replies import safe_text

__all__ = [
    "MAX_DSN_BYTES",
    "Bounce",
    "find_addresses",
    "find_message_id",
    "parse_dsn",
    "parse_feedback",
    "parse_parts",
    "read_mail_files",
]

MAX_RECIPIENTS = 1000  # of a report
_MAX_DIAGNOSTIC = 300  # characters
_MAX_TEXT = 16 * 1024  # characters of the human-readable part
_ID = re.compile(r"<([^<>@\s]{1,200}@[^<>@\s]{1,200})>")
_MAILBOX = re.compile(r"[^\s<>,;]{1,64}@[^\s<>,;]{1,255}")
_TO = ("delivered-to", "x-original-to", "envelope-to", "to")


@dataclass(frozen=True, slots=True)
class Bounce:
    """The report of a mail system on one recipient.

    Attributes:
        recipient: the address that the message was for: the original one, or else the final one; "" if there is none.
        failed: whether delivery failed permanently; False for a delay or a success.
        status: the enhanced status code, such as "5.1.1"; "" if there is none. A more exact one in the diagnostic wins.
        words: the diagnostic of the mail system, without control characters.
        message_id: of the reported message, without angle brackets; "" if the report does not have it.
        sent_to: the addresses that the report was sent to: one of them may be a return path of ours.
        report: an identifier of the report, by its content.
        complaint: True: the message arrived, and its recipient complained about it (RFC 5965).
    """

    recipient: str
    failed: bool
    status: str
    words: str
    message_id: str
    sent_to: tuple[str, ...]
    report: str = field(default="", compare=False)
    complaint: bool = False

    @property
    def permanent(self) -> bool:
        """True if no later message will arrive there either, and that is not the sender's fault: suppress it."""
        return self.failed and is_recipient_fault(self.status, self.words)


def parse_dsn(data: bytes) -> Iterator[Bounce]:
    """Yield the bounces of a message, by recipient; nothing if it is not a delivery status notification.

    Never raises, and takes a fraction of a second, whatever the message is.
    """
    yield from parse_parts(list(walk_parts(data)), sha256(data).hexdigest()[:32])


def parse_parts(parts: list[Part], name: str) -> Iterator[Bounce]:
    """Yield the bounces of a message as `parse_dsn` does, from its parts and the identifier of the report."""
    status = next((part for part in parts if part.content_type in _STATUSES), None)
    if status is None:
        return
    message_id, to = find_message_id(parts), tuple(find_addresses(parts[0]))
    blocks = [block for block in _blocks(status.text()) if "action" in block or "status" in block]
    explained = _explanation(parts) if len(blocks) == 1 else ""
    for block in blocks:
        yield _bounce(block, explained, message_id, to, name)


_STATUSES = frozenset({"message/delivery-status", "message/global-delivery-status"})

_COMPLAINTS = frozenset({"abuse", "fraud", "opt-out", "opt-out-list"})  # not `not-spam`, `auth-failure`, `virus`
_COMPLAINED = ("original-rcpt-to", "removal-recipient", "x-hmxmroriginalrecipient")


def parse_feedback(parts: list[Part], name: str) -> Iterator[Bounce]:
    """Yield the complaints of a feedback report, by recipient; nothing if it is no such report.

    The address is "" where the provider removed it: the message that it returns has to name the row. Microsoft sends
    the message only, with the recipient in a field of its own.
    """
    feedback = next((part for part in parts if part.content_type == "message/feedback-report"), None)
    if feedback is not None:
        fields = Part(feedback.text().lstrip("\n").encode() + b"\n\n")
        kind = fields.get("feedback-type").strip().lower()
        if kind not in _COMPLAINTS:
            return
    else:
        returned = next((part for part in parts[1:] if _COMPLAINED[-1] in part.fields), None)
        if returned is None or not parts[0].get("from").lower().strip("<> ").endswith("staff@hotmail.com"):
            return
        fields, kind = returned, "abuse"
    found = [address for field in _COMPLAINED for value in fields.fields.get(field, ()) for address in _split(value)]
    message_id, to = find_message_id(parts), tuple(find_addresses(parts[0]))
    for recipient in [*dict.fromkeys(found)][:MAX_RECIPIENTS] or [""]:
        words = f"complaint: {safe_text(kind, 40)}"
        yield Bounce(safe_text(recipient, 320), False, "", words, message_id, to, name, complaint=True)


def _split(value: str) -> list[str]:
    return [found.strip("<>") for found in _MAILBOX.findall(value)]


_FIELD = re.compile(r"(action|status|[a-z]\w*-[\w-]+)\s*:(.*)", re.IGNORECASE)  # "in reply to: 550" is no field
_RECIPIENT_FIELDS = frozenset({"original-recipient", "final-recipient"})


def _blocks(text: str) -> Iterator[dict[str, str]]:
    """Yield the groups of fields of a status: the first is about the message, each further one about a recipient.

    Lenient: a line that begins with no name of a field goes on with the one before, although its fold was lost; and a
    second recipient begins a group, although no blank line is before it.
    """
    block: dict[str, str] = {}
    last, number = "", 0
    for line in [*text.split("\n"), ""]:
        field = _FIELD.match(line)
        name = field[1].lower() if field else ""
        is_next = name in _RECIPIENT_FIELDS and (
            name in block or (bool(_RECIPIENT_FIELDS & block.keys()) and bool({"action", "status"} & block.keys()))
        )
        if block and (is_next or not line.strip()):
            yield block
            block, last, number = {}, "", number + 1
            if number > MAX_RECIPIENTS:
                return
        if field is not None:
            last = name
            block.setdefault(name, field[2].strip()[:MAX_VALUE])
        elif last and line.strip() and len(block[last]) < MAX_VALUE:
            block[last] = f"{block[last]} {line.strip()}"[:MAX_VALUE]


_FAILED = frozenset({"failed", "failure", "fail", "error", "expired", "undeliverable"})
_TYPE = re.compile(r"\s*(?:[\w.+-]*\s*;)?\s*")  # such as `smtp;`, `rfc822;`
_COMMENT = re.compile(r"\([^()]*\)")


def _strip_type(value: str) -> str:
    found = _TYPE.match(value)
    return value[found.end() :] if found else value


def _bounce(block: dict[str, str], explained: str, message_id: str, to: tuple[str, ...], report: str) -> Bounce:
    status, given = block.get("status", ""), block.get("diagnostic-code", "")
    action = " ".join(_COMMENT.sub(" ", block.get("action", "")).lower().split())
    words = " ".join(_strip_type(given).split())
    # The field of the code may have words too: `5.0.0 (recipient reached disk quota)`, `553 message too large`.
    remark = " ".join(re.sub(r"[245]\.\d{1,3}\.\d{1,3}|[()]", " ", status).split())
    words = words or remark or explained
    code = effective_status(status, words)
    failed = action.partition(" ")[0] in _FAILED if action else code.startswith("5")
    return Bounce(
        safe_text(_recipient(block), 320),
        failed,
        code,
        safe_text(words or action, _MAX_DIAGNOSTIC),
        message_id,
        to,
        report,
    )


def _recipient(block: dict[str, str]) -> str:
    """Return the original recipient, where it is an address: the final one may be in X.400, or behind a forwarder."""
    values = [_strip_type(block.get(name, "")).strip("<> \t") for name in ("original-recipient", "final-recipient")]
    return values[0] if "@" in values[0] and not values[0].startswith("/") else values[1] or values[0]


def _explanation(parts: list[Part]) -> str:
    """Return the line of the text for people that says why, where a report on one recipient has no Diagnostic-Code."""
    text = next((part.text()[:_MAX_TEXT] for part in parts[1:] if part.content_type == "text/plain"), "")
    for line in text.split("\n"):
        if re.search(r"(?<!\d)5[0-5]\d[ -]|(?<![\d.])5\.\d\.\d{1,3}(?!\.?\d)", line) or is_gone(line[:MAX_VALUE]):
            return " ".join(line.split())[:MAX_VALUE]
    return ""


def find_message_id(parts: list[Part]) -> str:
    """Return the Message-ID of the message that the report returns, whole or its header only."""
    for part in parts[1:]:
        if part.content_type in HEADERS:
            part = Part(part.text().encode())
        if found := _ID.search(part.get("message-id")):
            return found[1]
    return ""


def find_addresses(report: Part) -> Iterator[str]:
    """Yield the addresses that a report was sent to."""
    for name in _TO:
        for value in report.fields.get(name, [])[:20]:
            yield from _MAILBOX.findall(value)[:20]


_LINE_BYTES = 64 * 1024  # of a line of an mbox file that are read at once


def read_mail_files(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """Yield the first `MAX_DSN_BYTES` of each message of a Maildir, an mbox file, or a folder of messages; blocks.

    Nothing is marked, moved or removed. In a folder, only regular files are read.

    Raises:
        InvalidArgument: the path does not exist, is neither a folder nor a regular file, or cannot be read.
    """
    path = Path(path)
    try:
        if path.is_dir():
            folders = [path / name for name in ("new", "cur") if (path / name).is_dir()] or [path]
            for folder in folders:
                for entry in sorted(folder.iterdir()):
                    if not entry.name.startswith(".") and (file := _open_entry(entry)) is not None:
                        with file:
                            yield file.read(MAX_DSN_BYTES)
            return
        file = _open(path)
        if file is None:
            raise InvalidArgument(f"{path} is not a regular file: name a Maildir, an mbox file or a folder of messages")
        with file:
            yield from _read_mbox(file)
    except OSError as error:
        why = f"{str(error.strerror or error).lower()}: name a Maildir, an mbox file or a folder of messages"
        raise InvalidArgument(f"{path} cannot be read: {why}") from error


def _open_entry(path: Path) -> BinaryIO | None:
    """Open a file of a folder; None also if there is nothing behind its name: a mail program may have moved it."""
    try:
        return _open(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):  # ENXIO: a socket
            return None
        raise


def _open(path: Path) -> BinaryIO | None:
    """Open a regular file; None if it is something else, such as a FIFO, for whose writer nobody waits."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return open(descriptor, "rb")


def _read_mbox(file: BinaryIO) -> Iterator[bytes]:
    """Yield the messages of an mbox file, separated by `From ` lines (RFC 4155); a file without one is one message."""
    kept: list[bytes] = []
    size, empty, whole = 0, True, True  # whether the line before is empty, or missing; whether this begins a line
    while line := file.readline(_LINE_BYTES):
        if whole and empty and line.startswith(b"From "):
            if kept:
                yield b"".join(kept)
            kept, size, empty, whole = [], 0, False, line.endswith(b"\n")
            continue
        empty = whole and line in (b"\n", b"\r\n")
        if size < MAX_DSN_BYTES:
            quoted = whole and line.startswith(b">") and line.lstrip(b">").startswith(b"From ")
            kept.append(line[1:] if quoted else line)
            size += len(line)
        whole = line.endswith(b"\n")
    if kept:
        yield b"".join(kept)
