"""A received mail for a terminal: what is foreign is made harmless, what is long is cut."""

from __future__ import annotations

from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import compat32

from asyncsmtp.protocol.replies import safe_text
from asyncsmtp.testing.maildir import Mail

__all__ = ["render"]

HEADERS = ("From", "To", "Cc", "Subject", "Date", "Message-ID")
MAX_WIDTH = 512  # characters of one line
MAX_TEXT_LINES = 200


def render(mail: Mail) -> str:
    """Headers, envelope, the tree of parts with types and sizes, and the text.

    Nothing in it moves the cursor, colours the screen or reverses the writing: what does not print is escaped.
    """
    return "\n".join([*_headers(mail), "", *_tree(mail.message), "", *_text(mail)]).rstrip() + "\n"


def _headers(mail: Mail) -> Iterator[str]:
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


def _text(mail: Mail) -> Iterator[str]:
    try:
        lines = mail.text.expandtabs().splitlines()
    except (LookupError, ValueError) as error:  # an unknown charset, a broken encoding
        lines = [f"(the text cannot be read: {error})"]
    yield from map(_safe, lines[:MAX_TEXT_LINES])
    if len(lines) > MAX_TEXT_LINES:
        yield f"… and {len(lines) - MAX_TEXT_LINES:,} lines more"


def _safe(text: str) -> str:
    return safe_text(text, MAX_WIDTH)
