"""Jinja2 kept out of the way while a library that knows nothing of it works on the text around."""

from __future__ import annotations

import re

__all__ = ["Protected"]

_TAG = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_RAW = re.compile(r"\{%-?\s*raw\s*-?%\}.*?\{%-?\s*endraw\s*-?%\}", re.DOTALL)


class Protected:
    """A source with a word in place of each of its tags, and the way back.

    A word is of letters and digits that occur nowhere in the source, so it passes through text, URLs and attributes.

    Attributes:
        text: the source with words for tags.
    """

    def __init__(self, source: str, *, statements_as_comments: bool = False) -> None:
        """Take a source.

        Args:
            statements_as_comments: `{% … %}` between the tags of HTML becomes a comment, which may stand where text
                may not: between two rows of a table.
        """
        self._word = "jinja"
        while self._word in source.lower():
            self._word += "x"
        self._tags: list[str] = []
        self._comments = statements_as_comments
        text = _RAW.sub(lambda found: self._keep(found[0]), source)
        self.text = _TAG.sub(lambda found: self._hide(text, found), text)

    def restored(self, text: str) -> str:
        """What was made of `text`, with the tags where their words are; a word that is gone is gone with its tag."""
        return re.sub(
            rf"<!--{self._word}(\d+)z-->|{self._word}(\d+)z", lambda found: self._tags[int(found[1] or found[2])], text
        )

    def lost(self, text: str) -> str | None:
        """The first tag whose word is no longer in `text`, or there twice; None: all are there once."""
        for number, tag in enumerate(self._tags):
            if len(re.findall(rf"{self._word}{number}z", text)) != 1:
                return tag
        return None

    def is_only_statements(self, text: str) -> bool:
        """Whether `text` has nothing but words of statements and white space."""
        words = text.split()
        found = [re.fullmatch(rf"{self._word}(\d+)z", word) for word in words]
        return bool(words) and all(
            one is not None and self._tags[int(one[1])].startswith(("{%", "{#")) for one in found
        )

    def _hide(self, source: str, found: re.Match[str]) -> str:
        word = self._keep(found[0])
        if not self._comments or found[0].startswith("{{"):
            return word
        before = source[: found.start()]
        inside = before.rfind("<") > before.rfind(">")  # of a tag, where no comment can be
        return word if inside else f"<!--{word}-->"

    def _keep(self, tag: str) -> str:
        self._tags.append(tag)
        return f"{self._word}{len(self._tags) - 1}z"
