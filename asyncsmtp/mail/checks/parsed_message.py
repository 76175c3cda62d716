"""A finished message as a provider's filter sees it: its header, its parts, and what the HTML shows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from html.parser import HTMLParser

from asyncsmtp.mail.attachment import type_by_content
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.content import Content

__all__ = ["Findings", "HtmlParser", "ParsedMessage", "is_relative_url", "parse_message"]

_HIDDEN = frozenset({"style", "script", "title"})  # all of a head that has text
_LOADED = ("src", "background", "poster")
_CSS_URL = re.compile(r"""url\(\s*(?:"([^"]*)"|'([^']*)'|([^"'()\s]+))""", re.IGNORECASE)
_HANDLER = re.compile(r"on[a-z]+")
_DATA = "application/ld+json"  # facts for the provider in an element that is called script
_WHOLE = re.compile(r"(?!file:)[a-z][a-z0-9+.-]+:|#", re.IGNORECASE)  # a letter alone is a drive: C:\logo.png


def is_relative_url(url: str) -> bool:
    """Whether a URL says where it leads only to who has the page's folder; so does `file:`, for its machine."""
    return bool(url) and not _WHOLE.match(url)


class HtmlParser(HTMLParser):
    """What of an HTML part can be read, and what it refers to.

    Attributes:
        text: the visible text, white space squeezed.
        images: the `src` of each image, and its `alt`; None where it has none.
        links: what `href` points to.
        loaded: the URLs of what is shown with the text, of styles too.
        active: what would run, such as `<script>` and `onclick=`.
        forms: how many there are.
    """

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.images: list[tuple[str, str | None]] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.active: list[str] = []
        self.forms = 0
        self._text: list[str] = []
        self._hidden = ""  # the element that is open and does not show
        self.feed(source)
        self.close()

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._text).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._hidden:
            return
        found = {name: (value or "").strip() for name, value in reversed(attrs)}  # of two with one name the first holds
        if tag in _HIDDEN:
            self._hidden = tag
        if tag == "img":
            self.images.append((found.get("src", ""), found.get("alt")))
        if tag == "script" and found.get("type", "").lower() != _DATA:
            self.active.append("<script>")
        self.active += [f"{name}=" for name, value in found.items() if value and _HANDLER.fullmatch(name)]
        self.forms += tag == "form"
        self.links += [found["href"]] if "href" in found else []
        if tag != "script":
            self.loaded += _loaded(found)

    def handle_endtag(self, tag: str) -> None:
        if tag == self._hidden:
            self._hidden = ""

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._text.append(data)
        elif self._hidden == "style":
            self.loaded += _in_style(data)


def _loaded(attributes: dict[str, str]) -> Iterator[str]:
    yield from (attributes[name] for name in _LOADED if name in attributes)
    yield from _in_srcset(attributes.get("srcset", ""))
    yield from _in_style(attributes.get("style", ""))


def _in_style(style: str) -> Iterator[str]:
    yield from (double or single or bare for double, single, bare in _CSS_URL.findall(style))


def _in_srcset(srcset: str) -> Iterator[str]:
    """The URLs of `a.png 1x, b.png 2x`; a comma within a word that stands first is the URL's own."""
    begins = True
    for word in srcset.split():
        if not begins:
            _, comma, word = word.partition(",")
            begins = bool(comma)
        if begins and (url := word.strip(",")):
            yield url
            begins = word.endswith(",")


_CERTAIN = frozenset({"application/pdf", "image/png", "image/jpeg", "image/gif", "application/x-msdownload"})

Findings = Iterator[tuple[str, str]]  # by a rule: what is so, and what to do about it


@dataclass(frozen=True, slots=True)
class ParsedMessage:
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
    html: HtmlParser | None
    html_size: int
    author: str
    reverse: str
    signed: tuple[tuple[str, frozenset[str]], ...]
    files: tuple[str, ...]
    disguised: tuple[tuple[str, str, str], ...]


def parse_message(message: Message) -> ParsedMessage:
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
    return ParsedMessage(
        parsed,
        content.size,
        content.eight_bit,
        None if text is None else str(text.get_content()),
        None if source is None else HtmlParser(source),
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
