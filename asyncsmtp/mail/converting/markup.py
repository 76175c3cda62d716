"""Where HTML is what: tags, comments, the text between them; as much of its grammar as tells them apart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

__all__ = ["Attribute", "Kind", "Token", "attributes", "tokens"]

_TOKEN = re.compile(
    r"""(?P<comment><!--(?:-?>|.*?(?:--!?>|\Z)))
    |<(?P<closing>/?)(?P<name>[a-z][^\s/>]*)(?:=\s*(?:"[^"]*"|'[^']*')|[^>])*+>
    |<[!?/][^>]*>""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_UNCLOSED = re.compile(r"<!--.*(?P<name>(?!))?", re.DOTALL)  # what may come where no tag ends any more
_ATTRIBUTE = re.compile(
    r"""(?P<name>[^\s/>=][^\s/>=]*)(?:\s*=\s*(?:"(?P<d>[^"]*)"|'(?P<s>[^']*)'|(?P<u>[^\s>"']+)))?"""
)
_NO_MARKUP_IN = frozenset({"iframe", "noembed", "noframes", "script", "style", "textarea", "title", "xmp"})


class Kind(Enum):
    """What a piece of HTML is."""

    TEXT = "text between tags"
    TAG = "a tag, opening or closing"
    RAW = "what is in an element without markup: a title, a style sheet"
    COMMENT = "a comment, a conditional one too; a doctype"


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of HTML as it is written; a tag with the name of its element in small letters."""

    kind: Kind
    text: str
    start: int
    name: str = ""
    closing: bool = False


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of a tag; `start` and `end` are those of the value in the tag, None when it has none."""

    name: str
    value: str | None
    start: int
    end: int
    quoted: bool


def tokens(html: str) -> Iterator[Token]:
    """All of the HTML in pieces, in order; joined they are what was given."""
    position, last = 0, html.rfind(">")
    while (found := (_TOKEN if position <= last else _UNCLOSED).search(html, position)) is not None:
        if found.start() > position:
            yield Token(Kind.TEXT, html[position : found.start()], position)
        position = found.end()
        if found["name"] is None:
            yield Token(Kind.COMMENT, found[0], found.start())
            continue
        name = found["name"].lower()
        yield Token(Kind.TAG, found[0], found.start(), name, bool(found["closing"]))
        if name in _NO_MARKUP_IN and not found["closing"]:
            end = re.compile(rf"</{re.escape(name)}(?=[\s/>])|\Z", re.IGNORECASE).search(html, position)
            if end is not None and end.start() > position:
                yield Token(Kind.RAW, html[position : end.start()], position, name)
                position = end.start()
    if position < len(html):
        yield Token(Kind.TEXT, html[position:], position)


def attributes(tag: Token) -> Iterator[Attribute]:
    """The attributes of a tag, in order, by names in small letters."""
    begin = 1 + tag.closing + len(tag.name)
    for found in _ATTRIBUTE.finditer(tag.text, begin, len(tag.text) - 1):
        group = next((key for key in ("d", "s", "u") if found[key] is not None), None)
        start, end = found.span(group) if group else (found.end(), found.end())
        yield Attribute(found["name"].lower(), found[group] if group else None, start, end, group in ("d", "s"))
