"""An HTML part as a reader's program takes it: the text that shows, what is loaded, where its links lead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

__all__ = ["Html", "relative"]

_HIDDEN = frozenset({"style", "script", "title"})  # all of a head that has text
_LOADED = ("src", "background", "poster")
_CSS_URL = re.compile(r"""url\(\s*(?:"([^"]*)"|'([^']*)'|([^"'()\s]+))""", re.IGNORECASE)
_HANDLER = re.compile(r"on[a-z]+")
_DATA = "application/ld+json"  # facts for the provider in an element that is called script
_WHOLE = re.compile(r"(?!file:)[a-z][a-z0-9+.-]+:|#", re.IGNORECASE)  # a letter alone is a drive: C:\logo.png


def relative(url: str) -> bool:
    """Whether a URL says where it leads only to who has the page's folder; so does `file:`, for its machine."""
    return bool(url) and not _WHOLE.match(url)


class Html(HTMLParser):
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
