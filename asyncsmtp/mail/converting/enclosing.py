"""Whether a condition still holds in a text what it held in the HTML the text was made of.

Texts are told apart by words, one for each: made into text like the rest, they show where everything went.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise

from asyncsmtp.errors import TemplateError
from asyncsmtp.mail.converting.markup import Kind, Token, attributes, tokens
from asyncsmtp.mail.converting.protecting import Protected

__all__ = ["check_enclosed"]

_KEYWORD = re.compile(r"\{%[-+]?\s*(\w+)")
_OPEN = frozenset({"autoescape", "block", "call", "filter", "for", "if", "macro", "raw", "with"})
_BETWEEN = frozenset({"elif", "else"})
_SHOWN = frozenset({"alt", "href", "title"})
_ADVICE = 'write it inside a paragraph, a cell or an item, or write a text of your own: text = "message.txt"'


def check_enclosed(protected: Protected, html: str, made: Callable[[str], str], file: str) -> None:
    """Hold what the statements enclose in HTML against what they enclose in the text made of it.

    A statement may go where all that it encloses goes: in a style sheet, a class, a comment.

    Args:
        html: what is made into text, with words for tags.
        made: makes it.
    Raises:
        TemplateError: a statement that is lost, or that encloses something else.
    """
    if not any(map(protected.is_statement, range(len(protected.tags)))):
        return
    marked = _Marked(protected, html)
    before, after = _Order(marked.items(marked.html)), _Order(marked.items(made(marked.html)))
    for block in _blocks(protected):
        words = [f"{protected.stem}{number}z" for number in block]
        gone = len(words) > 1 and not any(word in after.at for word in words)
        if gone and not any(item in after.at for item in before.between(words[0], words[-1])):
            continue
        kept = all(after.count[word] == 1 for word in words) and _same(before, after, words)
        if not kept:
            tag = protected.tags[block[0]]
            why = "stands where a text made of HTML would lose it, or show its text elsewhere"
            raise TemplateError(f"{tag} {why}: {_ADVICE}", file, protected.line(block[0]))
    for token in tokens(html):
        if token.kind is Kind.TAG and (number := _hides(token, protected)) is not None:
            why = "decides what is displayed, which a text made of HTML does not follow"
            raise TemplateError(f"{protected.tags[number]} {why}: {_ADVICE}", file, protected.line(number))


class _Marked:
    """HTML in which each text is a word, as each tag of Jinja2 is."""

    def __init__(self, protected: Protected, html: str) -> None:
        self._word = re.compile(rf"({protected.word.pattern.replace('(', '(?:')})")
        self._item = re.compile(rf"{protected.stem}p?\d+z")
        self._mark = f"{protected.stem}p{{}}z"
        self._count = 0
        self.html = "".join(map(self._token, tokens(html)))

    def items(self, text: str) -> list[str]:
        return self._item.findall(text)

    def _token(self, token: Token) -> str:
        if token.kind is Kind.TEXT:
            return self._text(token.text)
        if token.kind is not Kind.TAG:
            return token.text
        pieces, done = [], 0
        for each in attributes(token):
            if each.name in _SHOWN and each.value:
                pieces += [token.text[done : each.start], self._text(each.value)]
                done = each.end
        return "".join(pieces) + token.text[done:]

    def _text(self, text: str) -> str:
        return "".join(
            piece if index % 2 or not piece.strip() else self._marked(piece)
            for index, piece in enumerate(self._word.split(text))
        )

    def _marked(self, piece: str) -> str:
        """A word of its own for a text, and the white space around it."""
        self._count += 1
        return piece.replace(piece.strip(), self._mark.format(self._count), 1)


def _blocks(protected: Protected) -> Iterator[list[int]]:
    """The numbers of the tags that belong together: `if`, `else`, `endif`; one number of what is nothing but itself."""
    opened: list[list[int]] = []
    for number in filter(protected.is_statement, range(len(protected.tags))):
        found = _KEYWORD.match(protected.tags[number])
        keyword = found[1] if found else ""
        if keyword in _OPEN or (keyword == "set" and "=" not in protected.tags[number]):
            opened.append([number])
        elif keyword in _BETWEEN and opened:
            opened[-1].append(number)
        elif keyword.startswith("end") and opened:
            yield [*opened.pop(), number]
        else:
            yield [number]


class _Order:
    """Words in the order in which they stand somewhere."""

    def __init__(self, items: list[str]) -> None:
        self.items = items
        self.count = Counter(items)
        self.at = {item: index for index, item in reversed(list(enumerate(items)))}

    def between(self, first: str | None, last: str) -> list[str]:
        """What stands from one word, or from the beginning, to another."""
        begin = 0 if first is None else self.at.get(first, len(self.items))
        return self.items[begin : self.at.get(last, 0)]


def _same(before: _Order, after: _Order, words: list[str]) -> bool:
    """Whether between each two of the words, or before the only one, stands the same, as far as it is there at all."""
    spans: list[tuple[str | None, str]] = list(pairwise(words)) if len(words) > 1 else [(None, words[0])]
    return all(
        {item for item in before.between(one, two) if item in after.at} == set(after.between(one, two))
        for one, two in spans
    )


def _hides(tag: Token, protected: Protected) -> int | None:
    """The first tag of Jinja2 in a style that may or may not display the element."""
    styles = (each.value for each in attributes(tag) if each.name == "style" and each.value)
    return next((number for style in styles if "display" in style for number in protected.numbers(style)), None)
