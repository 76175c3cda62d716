"""Tags of Jinja2 between the rows of a table or the items of a list, where what makes a text of HTML reads nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator

from asyncsmtp.errors import TemplateError
from asyncsmtp.mail.converting.markup import Kind, Token, tokens
from asyncsmtp.mail.converting.protecting import Protected

__all__ = ["Rows"]

_CELLS = frozenset({"td", "th"})
_SECTIONS = frozenset({"thead", "tbody", "tfoot"})
_ENDS = {  # what an element ends that was not closed
    "li": frozenset({"li"}),
    **dict.fromkeys(_CELLS, _CELLS | {"caption"}),
    "tr": _CELLS | {"caption", "tr"},
    **dict.fromkeys(_SECTIONS, _CELLS | {"caption", "tr"} | _SECTIONS),
    **dict.fromkeys(("table", "caption", "ul", "ol"), frozenset[str]()),
}
_AROUND = {  # where no text can stand, and what makes a place for it
    **dict.fromkeys(("table", *_SECTIONS), "<tr><td>{}</td></tr>"),
    "tr": "<td>{}</td>",
    **dict.fromkeys(("ul", "ol"), "<li>{}</li>"),
}


class Rows:
    """A protected source with a row, or an item, of its own for each word that stands between others.

    Attributes:
        text: that source.

    Raises:
        TemplateError: a statement stands between the items of a numbered list, whose numbers it would make wrong.
    """

    def __init__(self, protected: Protected, file: str) -> None:
        self._protected = protected
        self._file = file
        self._items: set[int] = set()
        self.text = "".join(
            self._with_rows(token.text, inside) if inside in _AROUND and token.kind is Kind.TEXT else token.text
            for token, inside in _placed(protected.text)
        )

    def taken_out(self, text: str) -> str:
        """The text made of it: a statement that has a line of its own begins the next one instead."""
        words = rf"((?:{self._protected.word.pattern}[^\S\n]*)+)"

        def begun(found: re.Match[str]) -> str:
            numbers = self._protected.numbers(found[0])
            silent = not any(self._protected.tags[number].startswith("{{") for number in numbers)
            whole = silent and (not found[1] or numbers[0] in self._items)
            return "".join(found[2].split()) if whole else found[0]

        begins = re.sub(rf"\A(){words}\n+", begun, text)
        return re.sub(rf"^[^\S\n]*([*+o-] )?{words}\n", begun, begins, flags=re.MULTILINE)

    def _with_rows(self, text: str, inside: str) -> str:
        return self._protected.word.sub(lambda word: self._row(word, inside), text)

    def _row(self, word: re.Match[str], inside: str) -> str:
        number = int(word[1])
        tag = self._protected.tags[number]
        if tag.startswith("{#"):
            return ""
        if inside == "ol" and self._protected.is_statement(number):
            why = f"{tag} between the items of a numbered list has no place in a text made of HTML"
            advice = "write <ul>, or a text of your own"
            raise TemplateError(f"{why}: {advice}", self._file, self._protected.line(number))
        if inside in ("ul", "ol"):
            self._items.add(number)
        return _AROUND[inside].format(word[0])


def _placed(html: str) -> Iterator[tuple[Token, str]]:
    """Each token with the innermost table, row, cell, list or item that it is in."""
    inside: list[str] = []
    for token in tokens(html):
        yield token, inside[-1] if inside else ""
        if token.kind is not Kind.TAG or token.name not in _ENDS:
            continue
        if not token.closing:
            while inside and inside[-1] in _ENDS[token.name]:
                inside.pop()
            inside.append(token.name)
        elif token.name in inside:
            while inside.pop() != token.name:
                pass
