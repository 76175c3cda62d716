"""Jinja2 kept out of the way while a library that knows nothing of it works on the text around."""

from __future__ import annotations

import re

from asyncsmtp.mail.converting.markup import Kind, attributes, tokens

__all__ = ["TAG", "Protected"]

_STRING = r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'"""
_RAW_BEGINS, _RAW_ENDS = r"\{%[-+]?\s*raw\s*-?%\}", r"\{%[-+]?\s*endraw\s*[-+]?%\}"
_RAW = re.compile(rf"({_RAW_BEGINS})(.*?)({_RAW_ENDS})", re.DOTALL)
_RAW_BEGIN = re.compile(_RAW_BEGINS)
TAG = re.compile(
    rf"{_RAW_BEGINS}.*?{_RAW_ENDS}"
    r"|\{\#.*?\#\}"
    rf"|\{{\{{(?:{_STRING}|(?!\}}\}}).)*+\}}\}}"
    rf"|\{{%(?:{_STRING}|(?!%\}}).)*+%\}}",
    re.DOTALL,
)
_BRACE = re.compile(r"\{(?=[{%#]|\Z)")
_SHOWN_BRACE = '{{ "{" }}'
_FIXED = frozenset({"div", "li", "table", "td", "th"})


class Protected:
    """A source with a word in place of each of its tags, and the way back.

    A word is of letters and digits that occur nowhere in the source, so it passes through text, URLs and attributes.

    Attributes:
        text: the source with words for tags.
        word: the pattern of a word; its group is the number.
        tags: what they stand for, by the numbers in them.
    """

    def __init__(self, source: str, *, statements_as_comments: bool = False) -> None:
        """Take a source.

        Args:
            statements_as_comments: `{% … %}` between the tags of HTML becomes a comment, which may stand where text
                may not: between two rows of a table.
        """
        self.stem = "jinja"
        while self.stem in source.lower():
            self.stem += "x"
        self.tags: list[str] = []
        self._lines: list[int] = []
        self._bare: set[int] = set()  # attributes without a value: what writes HTML gives them an empty one
        self._comments: set[int] = set()
        self.word = re.compile(rf"{self.stem}(\d+)z")
        self._literal: set[int] = set()  # between `raw` and `endraw`
        self.text = TAG.sub(lambda found: self._hidden(found[0], found), source)
        if statements_as_comments:
            self.text = self._with_comments()

    def restored(self, text: str) -> str:
        """What was made of `text`, with the tags where their words are; a word that is gone is gone with its tag.

        Braces that are no tag, but written as `&#123;` perhaps, stay as they are shown.
        """
        pieces, done, is_raw = [], 0, False
        for found in re.finditer(rf'<!--{self.stem}(\d+)z-->|{self.stem}(\d+)z(="")?', text):
            between = text[done : found.start()]
            number = int(found[1] or found[2])
            pieces.append(between if is_raw else _BRACE.sub(_SHOWN_BRACE, between))
            pieces.append(self.tags[number] + ("" if number in self._bare else found[3] or ""))
            if number not in self._literal:
                is_raw = _RAW_BEGIN.fullmatch(self.tags[number]) is not None
            done = found.end()
        return "".join(pieces) + _BRACE.sub(_SHOWN_BRACE, text[done:])

    def lost(self, text: str) -> int | None:
        """The first tag that is not in HTML made of `text` where it was and as it was; None: all are."""
        made, there = self._skeleton(text), self._skeleton(self.text)
        if made != there:
            same = next((n for n, pair in enumerate(zip(made, there, strict=False)) if pair[0] != pair[1]), 0)
            numbers = [item for item in [*there[same:], *there[::-1]] if isinstance(item, int)]
            return numbers[0] if numbers else None
        changed = (number for number in sorted(self._comments) if f"<!--{self.stem}{number}z-->" not in text)
        return next(changed, None)

    def line(self, number: int) -> int:
        """The line of the source, from 1, on which a tag begins."""
        return self._lines[number]

    def numbers(self, text: str) -> list[int]:
        """The tags whose words are in `text`, in order."""
        return [int(number) for number in self.word.findall(text)]

    def is_statement(self, number: int) -> bool:
        """Whether a tag is a condition, a loop and the like; not an expression or a comment, and none that is raw."""
        return self.tags[number].startswith("{%") and number not in self._literal

    def is_only_statements(self, text: str) -> bool:
        """Whether `text` has nothing but words of statements and white space."""
        words = text.split()
        found = [self.word.fullmatch(word) for word in words]
        return bool(words) and all(one is not None and self.tags[int(one[1])].startswith(("{%", "{#")) for one in found)

    def _hidden(self, tag: str, where: re.Match[str]) -> str:
        """A word for a tag; for what is raw, which is HTML all the same, one for each end and each tag between."""
        if (raw := _RAW.fullmatch(tag)) is None:
            return self._hide(tag, where)
        opening, before = self._hide(raw[1], where), len(self.tags)
        between = TAG.sub(lambda found: self._hide(found[0], where), raw[2])
        self._literal.update(range(before, len(self.tags)))
        return opening + between + self._hide(raw[3], where)

    def _hide(self, tag: str, where: re.Match[str]) -> str:
        self.tags.append(tag)
        self._lines.append(where.string.count("\n", 0, where.start()) + 1)
        return f"{self.stem}{len(self.tags) - 1}z"

    def _skeleton(self, html: str) -> list[int | str]:
        """The words, and the elements between them that no parser adds, doubles or moves unless it moves a word."""
        items: list[int | str] = []
        for token in tokens(html):
            numbers = self.numbers(token.text)
            items += sorted(numbers) if token.kind is Kind.TAG else numbers  # the order in a tag is another question
            if token.name in _FIXED and token.kind is Kind.TAG and not token.closing:
                items.append(token.name)
        return items

    def _with_comments(self) -> str:
        pieces = []
        for token in tokens(self.text):
            if token.kind is Kind.TAG:
                bare = (self.numbers(each.name) for each in attributes(token) if each.value is None)
                self._bare.update(numbers[-1] for numbers in bare if numbers)
            pieces.append(self.word.sub(self._comment, token.text) if token.kind is Kind.TEXT else token.text)
        return "".join(pieces)

    def _comment(self, word: re.Match[str]) -> str:
        number = int(word[1])
        if self.tags[number].startswith("{{"):
            return word[0]
        self._comments.add(number)
        return f"<!--{word[0]}-->"
