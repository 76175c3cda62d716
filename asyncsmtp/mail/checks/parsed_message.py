"""Parsed messages, as a provider's filter sees them: header, parts, and the visible content of the HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from html.parser import HTMLParser

from asyncsmtp.mail.attachment import detect_type
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.content import Content

__all__ = ["Findings", "HtmlParser", "ParsedMessage", "is_relative_url", "parse_message"]

_HIDDEN = frozenset({"style", "script", "title"})  # the elements of a head that have text
_LOADED = ("src", "background", "poster")
_CSS_URL = re.compile(r"""url\(\s*(?:"([^"]*)"|'([^']*)'|([^"'()\s]+))""", re.IGNORECASE)
_HANDLER = re.compile(r"on[a-z]+")
_DATA = "application/ld+json"  # data for the provider, in an element called script
_ABSOLUTE_URL = re.compile(r"(?!file:)[a-z][a-z0-9+.-]+:|#", re.IGNORECASE)  # a single letter is a drive: C:\logo.png


def is_relative_url(url: str) -> bool:
    """Return whether a URL works only beside the original page; `file:` works on one machine only."""
    return bool(url) and not _ABSOLUTE_URL.match(url)


class HtmlParser(HTMLParser):
    """The text of an HTML part, and what it refers to.

    Attributes:
        text: the visible text, white space collapsed.
        images: the `src` and `alt` of each image; `alt` is None if it is missing.
        links: the targets of `href`.
        loaded: the URLs of content that is shown with the text, including those in styles.
        active: scripts, such as `<script>` and `onclick=`.
        forms: the number of forms.
    """

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.images: list[tuple[str, str | None]] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.active: list[str] = []
        self.forms = 0
        self._text: list[str] = []
        self._hidden = ""  # the open element that is not shown
        with suppress(AssertionError):  # html.parser's for `<![x`, which is no HTML: what comes before it was read
            self.feed(source)
            self.close()

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._text).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._hidden:
            return
        # Of two attributes with one name, the first counts.
        found = {name: (value or "").strip() for name, value in reversed(attrs)}
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
    """Yield the URLs of `a.png 1x, b.png 2x`; a comma inside the first word of a candidate belongs to its URL."""
    begins = True
    for word in srcset.split():
        if not begins:
            _, comma, word = word.partition(",")
            begins = bool(comma)
        if begins and (url := word.strip(",")):
            yield url
            begins = word.endswith(",")


_RELIABLE_TYPES = frozenset({"application/pdf", "image/png", "image/jpeg", "image/gif", "application/x-msdownload"})

Findings = Iterator[tuple[str, str]]  # of a rule: (sentence, advice)


@dataclass(frozen=True, slots=True)
class ParsedMessage:
    """The parts and properties of one message that the rules look at.

    Attributes:
        size: bytes of the whole message.
        eight_bit: it has a byte above 127.
        html: the HTML part; an empty one if there is none.
        html_size: bytes of the HTML part before it was encoded.
        author: the domain in From, in lower case.
        return_path: the domain of the reverse-path, in lower case; "" for the null reverse-path.
        signatures: the domain of each DKIM signature, and the names of the fields that it covers, in lower case.
        files: the names of all parts other than text and HTML.
        mismatched_files: those whose content is of another type than declared: (name, declared type, detected type).
    """

    message: EmailMessage
    size: int
    eight_bit: bool
    text: str | None
    html: HtmlParser
    html_size: int
    author: str
    return_path: str
    signatures: tuple[tuple[str, frozenset[str]], ...]
    files: tuple[str, ...]
    mismatched_files: tuple[tuple[str, str, str], ...]


def parse_message(message: Message) -> ParsedMessage:
    """Parse a composed message."""
    content = message.content
    assert isinstance(content, Content), "a composer makes Content only"
    parsed = message_from_bytes(bytes(content), policy=policy.default)
    assert isinstance(parsed, EmailMessage)
    text, html = parsed.get_body(("plain",)), parsed.get_body(("html",))
    # Not iter_attachments, which treats the part that S/MIME signs as one.
    others = [part for part in parsed.walk() if part is not text and part is not html]
    source = "" if html is None else str(html.get_content())
    reverse = message.envelope.reverse_path
    return ParsedMessage(
        parsed,
        content.size,
        content.eight_bit,
        None if text is None else str(text.get_content()),
        HtmlParser(source),
        len(source.encode("utf-8", "replace")),
        str(parsed["From"]).rpartition("@")[2].strip(" >").lower(),
        "" if reverse is None else reverse.domain.lower(),
        tuple(_parse_signature(str(value)) for value in parsed.get_all("DKIM-Signature", [])),
        tuple(name for part in others if (name := part.get_filename())),
        tuple(_find_mismatched(others)),
    )


def _find_mismatched(parts: Iterable[EmailMessage]) -> Iterator[tuple[str, str, str]]:
    for part in parts:
        octets = part.get_payload(decode=True)
        found = detect_type(octets) if isinstance(octets, bytes) else None
        if found in _RELIABLE_TYPES and found != (declared := part.get_content_type()):
            yield part.get_filename() or "", declared, found


def _parse_signature(value: str) -> tuple[str, frozenset[str]]:
    parted = (tag.partition("=") for tag in value.split(";"))
    tags = {name.strip(): "".join(rest.split()) for name, _, rest in parted}
    return tags.get("d", "").lower(), frozenset(tags.get("h", "").lower().split(":"))
