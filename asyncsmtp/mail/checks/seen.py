"""A finished message as a provider's filter sees it: its header, its parts, and what the HTML shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage

from asyncsmtp.mail.checks.html import Html
from asyncsmtp.mail.contenttype import type_by_content
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.content import Content

__all__ = ["Said", "Seen", "see"]

_CERTAIN = frozenset({"application/pdf", "image/png", "image/jpeg", "image/gif", "application/x-msdownload"})

Said = Iterator[tuple[str, str]]  # by a rule: what is so, and what to do about it


@dataclass(frozen=True, slots=True)
class Seen:
    """One message, taken apart.

    Attributes:
        size: octets of the whole. eight_bit: whether one of them is above 127.
        html_size: octets of the HTML part before it was encoded.
        author: the domain in From. reverse: that of the reverse-path; both in lower case.
        signed: of each DKIM signature its domain, and the names of the fields it covers, in lower case.
        files: the names of the parts beside text and HTML, wherever they stand.
        disguised: of those whose octets are another kind of file than they are said to be: name, said, found.
    """

    message: EmailMessage
    size: int
    eight_bit: bool
    text: str | None
    html: Html | None
    html_size: int
    author: str
    reverse: str
    signed: tuple[tuple[str, frozenset[str]], ...]
    files: tuple[str, ...]
    disguised: tuple[tuple[str, str, str], ...]


def see(message: Message) -> Seen:
    """Take a composed message apart."""
    content = message.content
    assert isinstance(content, Content), "a composer makes no other"
    parsed = message_from_bytes(bytes(content), policy=policy.default)
    assert isinstance(parsed, EmailMessage)
    text, html = parsed.get_body(("plain",)), parsed.get_body(("html",))
    # Not iter_attachments: what S/MIME signs is one part to it.
    others = [part for part in parsed.walk() if part is not text and part is not html]
    source = None if html is None else str(html.get_content())
    reverse = message.envelope.reverse_path
    return Seen(
        parsed,
        content.size,
        content.eight_bit,
        None if text is None else str(text.get_content()),
        None if source is None else Html(source),
        0 if source is None else len(source.encode("utf-8", "replace")),
        str(parsed["From"]).rpartition("@")[2].strip(" >").lower(),
        "" if reverse is None else reverse.domain.lower(),
        tuple(_signature(str(value)) for value in parsed.get_all("DKIM-Signature", [])),
        tuple(name for part in others if (name := part.get_filename())),
        tuple(_disguised(others)),
    )


def _disguised(parts: Iterable[EmailMessage]) -> Iterator[tuple[str, str, str]]:
    for part in parts:
        octets = part.get_payload(decode=True)
        found = type_by_content(octets) if isinstance(octets, bytes) else None
        if found in _CERTAIN and found != (said := part.get_content_type()):
            yield part.get_filename() or "", said, found


def _signature(value: str) -> tuple[str, frozenset[str]]:
    parted = (tag.partition("=") for tag in value.split(";"))
    tags = {name.strip(): "".join(rest.split()) for name, _, rest in parted}
    return tags.get("d", "").lower(), frozenset(tags.get("h", "").lower().split(":"))
