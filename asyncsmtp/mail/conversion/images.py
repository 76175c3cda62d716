"""Images that HTML refers to by a relative path: they are attached to the message and shown by `cid:`.

A mail has no folder in which a program could look such a path up. The tokenizer for HTML is here too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from html import unescape
from urllib.parse import unquote

from asyncsmtp.mail.templates.environment import DELIMITERS, Delimiters

__all__ = ["ImagePaths", "TokenKind", "blank_tags", "hide_tags", "parse_attributes", "parse_tokens", "restore_tags"]

_STRING = r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'"""
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//|/|#", re.IGNORECASE)  # a scheme, a host, a root, a place in the page
_NOT_IN_CID = re.compile(r"[^A-Za-z0-9._+-]+")
_HIDDEN = "\ufffc{}\ufffc"  # the replacement for an object that is not text; a source that has it keeps its images

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


class ImagePaths:
    """The relative paths of images in the HTML of one message, each with its `cid:` name.

    Two paths never share a name. Paths that contain a template tag, and URLs, are left alone.

    Args:
        delimiters: the marks of template tags.
    """

    def __init__(self, delimiters: Delimiters = DELIMITERS) -> None:
        self._delimiters = delimiters
        self._names: dict[str, str] = {}

    @property
    def paths(self) -> Mapping[str, str]:
        """The path by the `cid:` name."""
        return {name: path for path, name in self._names.items()}

    def replace(self, html: str, *, add: bool = True) -> str:
        """Return the HTML with `cid:` URLs in place of the paths of its images.

        Args:
            html: HTML, or the source of a template of HTML.
            add: False replaces only the paths that were found before.
        """
        if "<img" not in html.lower():
            return html
        text, tags = hide_tags(html, self._delimiters)
        return restore_tags("".join(self._replaced(token, add) for token in parse_tokens(text)), tags)

    def _replaced(self, token: HtmlToken, add: bool) -> str:
        source = _find_source(token)
        path = "" if source is None else unquote(unescape(source.value or "").strip()).removeprefix("./")
        if source is None or not path or _ELSEWHERE.match(path) or "\ufffc" in path:
            return token.text
        if path not in self._names:
            if not add:
                return token.text
            self._names[path] = self._new_name(path)
        value = f"cid:{self._names[path]}" if source.quoted else f'"cid:{self._names[path]}"'
        return token.text[: source.start] + value + token.text[source.end :]

    def _new_name(self, path: str) -> str:
        name = _NOT_IN_CID.sub("-", path).strip("-") or "image"
        while name in self._names.values():
            name += "-"
        return name


@cache
def _compile_tags(delimiters: Delimiters) -> re.Pattern[str]:
    """Return a pattern for template tags; between `raw` and `endraw` is text: only the two tags are hidden."""
    (value, value_end), (statement, statement_end), (comment, comment_end) = (
        (re.escape(start), re.escape(end))
        for start, end in (delimiters.value, delimiters.statement, delimiters.comment)
    )
    return re.compile(
        rf"{statement}[-+]?\s*raw\s*-?{statement_end}(?P<raw>.*?){statement}[-+]?\s*endraw\s*[-+]?{statement_end}"
        rf"|{comment}.*?{comment_end}"
        rf"|{value}(?:{_STRING}|(?!{value_end}).)*+{value_end}"
        rf"|{statement}(?:{_STRING}|(?!{statement_end}).)*+{statement_end}",
        re.DOTALL,
    )


def hide_tags(source: str, delimiters: Delimiters = DELIMITERS) -> tuple[str, list[str]]:
    """Return the source of a template with a mark for each tag, and the tags in order.

    Text between `raw` and `endraw` stays, except for what looks like a tag in it.
    """
    tags: list[str] = []
    tag = _compile_tags(delimiters)

    def hide(found: re.Match[str]) -> str:
        if (raw := found["raw"]) is None:
            tags.append(found[0])
            return _HIDDEN.format(len(tags) - 1)
        begin, end = found.start("raw") - found.start(), found.end("raw") - found.start()
        tags.append(found[0][:begin])
        opening = _HIDDEN.format(len(tags) - 1)
        inner = tag.sub(hide, raw)
        tags.append(found[0][end:])
        return opening + inner + _HIDDEN.format(len(tags) - 1)

    if "\ufffc" in source:
        return source, tags
    return tag.sub(hide, source), tags


def blank_tags(source: str, delimiters: Delimiters = DELIMITERS) -> str:
    """Return the source of a template with blanks in place of its tags and of raw text; lines keep their numbers."""
    return _compile_tags(delimiters).sub(lambda found: re.sub(r"[^\n]", " ", found[0]), source)


def restore_tags(text: str, tags: list[str]) -> str:
    """Put the tags back where `hide_tags` took them from."""
    return re.sub("\ufffc(\\d+)\ufffc", lambda found: tags[int(found[1])], text) if tags else text


class TokenKind(Enum):
    """Kinds of pieces of HTML."""

    TEXT = "text between tags"
    TAG = "a tag, opening or closing"
    RAW = "the content of an element without markup: a title, a style sheet"
    COMMENT = "a comment, a conditional one too; a doctype"


@dataclass(frozen=True, slots=True)
class HtmlToken:
    """A piece of HTML as it is written; a tag with the name of its element in small letters."""

    kind: TokenKind
    text: str
    start: int
    name: str = ""
    closing: bool = False


@dataclass(frozen=True, slots=True)
class HtmlAttribute:
    """An attribute of a tag; `start` and `end` are the bounds of its value in the tag. `value` is None without one."""

    name: str
    value: str | None
    start: int
    end: int
    quoted: bool


def parse_tokens(html: str) -> Iterator[HtmlToken]:
    """Yield the pieces of HTML in order; joined they are the HTML."""
    position, last = 0, html.rfind(">")
    while (found := (_TOKEN if position <= last else _UNCLOSED).search(html, position)) is not None:
        if found.start() > position:
            yield HtmlToken(TokenKind.TEXT, html[position : found.start()], position)
        position = found.end()
        if found["name"] is None:
            yield HtmlToken(TokenKind.COMMENT, found[0], found.start())
            continue
        name = found["name"].lower()
        yield HtmlToken(TokenKind.TAG, found[0], found.start(), name, bool(found["closing"]))
        if name in _NO_MARKUP_IN and not found["closing"]:
            end = re.compile(rf"</{re.escape(name)}(?=[\s/>])|\Z", re.IGNORECASE).search(html, position)
            if end is not None and end.start() > position:
                yield HtmlToken(TokenKind.RAW, html[position : end.start()], position, name)
                position = end.start()
    if position < len(html):
        yield HtmlToken(TokenKind.TEXT, html[position:], position)


def parse_attributes(tag: HtmlToken) -> Iterator[HtmlAttribute]:
    """Yield the attributes of a tag in order, with names in small letters."""
    begin = 1 + tag.closing + len(tag.name)
    for found in _ATTRIBUTE.finditer(tag.text, begin, len(tag.text) - 1):
        group = next((key for key in ("d", "s", "u") if found[key] is not None), None)
        start, end = found.span(group) if group else (found.end(), found.end())
        yield HtmlAttribute(found["name"].lower(), found[group] if group else None, start, end, group in ("d", "s"))


def _find_source(token: HtmlToken) -> HtmlAttribute | None:
    """Return the `src` attribute of an image."""
    if token.kind is not TokenKind.TAG or token.name != "img" or token.closing:
        return None
    return next((each for each in parse_attributes(token) if each.name == "src" and each.value), None)
