"""A finished message as a provider's filter sees it: its header, its parts, and what the HTML shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from html.parser import HTMLParser

from asyncsmtp.mail.contenttype import type_by_content
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.content import Content

__all__ = ["Html", "Seen", "see"]

_CERTAIN = frozenset({"application/pdf", "image/png", "image/jpeg", "image/gif", "application/x-msdownload"})
_HIDDEN = frozenset({"style", "script", "head", "title"})


class Html(HTMLParser):
    """What of an HTML part can be read, and what it refers to.

    Attributes:
        text: the visible text, white space squeezed.
        images: the `src` of each image, and its `alt`; None where it has none.
        links: what `href` and `action` point to.
    """

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.images: list[tuple[str, str | None]] = []
        self.links: list[str] = []
        self._text: list[str] = []
        self._hidden = 0
        self.feed(source)
        self.close()

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._text).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "img":
            self.images.append(((found.get("src") or "").strip(), found.get("alt")))
        self.links += [(found[name] or "").strip() for name in ("href", "action") if name in found]
        self._hidden += tag in _HIDDEN

    def handle_endtag(self, tag: str) -> None:
        self._hidden = max(0, self._hidden - (tag in _HIDDEN))

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._text.append(data)


@dataclass(frozen=True, slots=True)
class Seen:
    """One message, taken apart.

    Attributes:
        size: octets of the whole. eight_bit: whether one of them is above 127.
        html_size: octets of the HTML part before it was encoded.
        author: the domain in From. reverse: that of the reverse-path; both in lower case.
        signed: of each DKIM signature its domain, and the names of the fields it covers, in lower case.
        files: the names of the attachments.
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
        tuple(part.get_filename() or "" for part in parsed.iter_attachments()),
        tuple(_disguised(parsed)),
    )


def _disguised(parsed: EmailMessage) -> Iterator[tuple[str, str, str]]:
    for part in parsed.iter_attachments():
        octets = part.get_payload(decode=True)
        found = type_by_content(octets) if isinstance(octets, bytes) else None
        if found in _CERTAIN and found != (said := part.get_content_type()):
            yield part.get_filename() or "", said, found


def _signature(value: str) -> tuple[str, frozenset[str]]:
    parted = (tag.partition("=") for tag in value.split(";"))
    tags = {name.strip(): "".join(rest.split()) for name, _, rest in parted}
    return tags.get("d", "").lower(), frozenset(tags.get("h", "").lower().split(":"))
