"""What a message in a mailbox for bounces says, and which messages of ours it may be about: two questions.

Mail systems agree on little that a report has, but nearly all of them return something of the message: its return path,
to which they send the report, or its Message-ID. Both have a token of 130 bits that only the ledger knows. So wherever
the token stands in a report, it names the row; the report needs not be understood for that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice

from asyncsmtp.bulk.bounces.dsn import Bounce, parse_feedback, parse_parts
from asyncsmtp.bulk.bounces.free_text import parse_text
from asyncsmtp.bulk.bounces.mime_parser import MAX_DSN_BYTES, Part, walk_parts
from asyncsmtp.bulk.recipients.recipient import address_key
from asyncsmtp.errors import RecipientError
from asyncsmtp.mail.list_unsubscribe import ReturnPath
from asyncsmtp.protocol.envelope import Mailbox

__all__ = ["Report", "read_report"]

MAX_TOKENS = 50  # of a report; a report that somebody made up may have thousands

# 26 characters of base 32. They may be in quoted-printable that nobody declared (`=2B`), or in a URL (`%2B`).
_TOKEN = re.compile(r"(?:(?<![a-z0-9])|(?<=[=%][0-9a-f]{2}))[a-z2-7]{26}(?![a-z0-9])", re.IGNORECASE)
_RECIPIENT_FIELDS = (
    "delivered-to",
    "x-original-to",
    "envelope-to",
    "x-envelope-to",
    "x-rcpt-to",
    "to",
    "cc",
    "resent-to",
    "apparently-to",
)
_FOR = re.compile(r"\bfor +<?([^<>\s;]{1,320}@)")  # of Received


@dataclass(frozen=True, slots=True)
class Report:
    """A message that was read.

    Attributes:
        bounces: what it says, by recipient; nothing if it is no report, or is not understood.
        tokens: of the messages that it may be about, in lower case; the ledger tells which of them are its own.
    """

    bounces: tuple[Bounce, ...]
    tokens: tuple[str, ...]

    @property
    def failures(self) -> dict[str, Bounce]:
        """The failure or complaint for each of the tokens; one that shows that the recipient is gone wins."""
        found = [bounce for bounce in self.bounces if bounce.failed or bounce.complaint]
        if not found:
            return {}
        worst = next((bounce for bounce in found if bounce.permanent), found[0])
        return dict.fromkeys(self.tokens, worst)

    @property
    def failures_by_address(self) -> dict[str, Bounce]:
        """The recipients that are gone or complained, by `address_key`; nothing where a token names the message.

        Anybody can write such a report, and it may be about a message of somebody else. That a message was refused for
        another reason than its recipient therefore says nothing about ours.
        """
        found: dict[str, Bounce] = {}
        if not self.tokens:
            for bounce in self.bounces:
                if (bounce.permanent or bounce.complaint) and (key := _parse_key(bounce.recipient)):
                    found.setdefault(key, bounce)
        return found


def read_report(data: bytes, path: ReturnPath | None = None) -> Report:
    """Read a message.

    Never raises, and takes a fraction of a second, whatever the message is.

    Args:
        path: the return path of the campaign; None: unknown.
    """
    parts = list(walk_parts(data))
    name = sha256(data).hexdigest()[:32]
    bounces = tuple(parse_feedback(parts, name))
    if not bounces and not any(part.content_type == "message/feedback-report" for part in parts):
        bounces = tuple(parse_parts(parts, name)) or tuple(parse_text(data, parts, name))
    return Report(bounces, tuple(_find_tokens(data, parts, path)))


def _find_tokens(data: bytes, parts: list[Part], path: ReturnPath | None) -> list[str]:
    """Return the tokens in the fields of the report that say to whom it was sent; else those anywhere in it.

    That is In-Reply-To, References, the message or the part of it that came back, and the text.
    """
    for texts in (_recipients(parts[0]), _everything(data, parts)):
        tokens = dict.fromkeys(islice(_scan(texts, path), MAX_TOKENS))
        if tokens:
            return list(tokens)
    return []


def _scan(texts: Iterator[str], path: ReturnPath | None) -> Iterator[str]:
    for text in texts:
        if path is not None:
            yield from path.find_tokens(text)
        for found in _TOKEN.finditer(text):
            yield found[0].lower()


def _recipients(report: Part) -> Iterator[str]:
    for name in _RECIPIENT_FIELDS:
        yield from report.fields.get(name, ())
    for value in report.fields.get("received", ()):
        yield from _FOR.findall(value)


def _everything(data: bytes, parts: list[Part]) -> Iterator[str]:
    yield data[:MAX_DSN_BYTES].decode("utf-8", "replace")
    for part in parts:
        if part.get("content-transfer-encoding").strip().lower() in ("quoted-printable", "base64"):
            yield part.text()


def _parse_key(address: str) -> str:
    try:
        return address_key(Mailbox.parse(address))
    except RecipientError:
        return ""
