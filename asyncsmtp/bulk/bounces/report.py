"""A delivery status notification: what a mail system says became of a message later on (RFC 3464, RFC 6533)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import Message
from hashlib import sha256

from asyncsmtp.bulk.bounces.bounce import Bounce
from asyncsmtp.protocol.replies import safe_text

__all__ = ["MOST_OCTETS", "read_report"]

MOST_OCTETS = 2 * 1024 * 1024  # of a report that are looked at; the original may follow
_MOST_WORDS = 300  # characters of a diagnostic
_STATUS = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})")
_ID = re.compile(r"<([^<>@\s]{1,200}@[^<>@\s]{1,200})>")
_TO = ("Delivered-To", "X-Original-To", "Envelope-To", "To")


def read_report(octets: bytes) -> Iterator[Bounce]:
    """What a message says became of another one, recipient by recipient; nothing when it is no report.

    Never fails: whoever wants to can write to a mailbox for bounces.
    """
    try:
        report = message_from_bytes(octets[:MOST_OCTETS], policy=policy.compat32)
        status = next((part for part in report.walk() if part.get_content_type() in _STATUSES), None)
        if status is None:
            return
        about, to, name = _about(report), tuple(_addresses(report)), sha256(octets).hexdigest()[:32]
        for fields in _blocks(status):
            if bounce := _bounce(fields, about, to, name):
                yield bounce
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return  # a message that is made to be misread


_STATUSES = frozenset({"message/delivery-status", "message/global-delivery-status"})
_HEADERS = frozenset({"text/rfc822-headers", "message/global-headers"})


def _blocks(status: Message) -> Iterator[Message]:
    """The groups of fields of a status: the first is about the message, each further one about a recipient."""
    payload = status.get_payload()
    if isinstance(payload, list):
        yield from (part for part in payload if isinstance(part, Message))


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
        safe_text(words or action, _MOST_WORDS),
        message_id,
        to,
        report,
    )


def _about(report: Message) -> str:
    """The Message-ID of the message that the report returns, whole or its header only."""
    for part in report.walk():
        if part is report:
            continue
        if part.get_content_type() in _HEADERS:
            payload = part.get_payload(decode=True)
            part = message_from_bytes(payload if isinstance(payload, bytes) else b"", policy=policy.compat32)
        if found := _ID.search(str(part.get("Message-ID", ""))):
            return found[1]
    return ""


def _addresses(report: Message) -> Iterator[str]:
    for name in _TO:
        for value in report.get_all(name, []):
            yield from re.findall(r"[^\s<>,;]{1,64}@[^\s<>,;]{1,255}", str(value))[:20]
