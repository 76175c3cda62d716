"""Conditions around the attributes of a tag, which whatever writes HTML anew may put in another order."""

from __future__ import annotations

from html import unescape

from asyncsmtp.mail.converting.markup import Attribute, Kind, Token, attributes, tokens
from asyncsmtp.mail.converting.protecting import Protected

__all__ = ["first_moved"]


def first_moved(protected: Protected, made: str) -> int | None:
    """The first statement around attributes that in the HTML `made` is around others, or around their changed values.

    A `style` may have changed that stands before it, or is new and stands last.
    """
    becomes = dict(_with_statements(protected, made))
    for number, tag in _with_statements(protected, protected.text):
        names = [each.name for each in attributes(tag)]
        if number not in becomes or len(set(names)) < len(names):
            return number
        written = list(attributes(becomes[number]))
        if (
            _two_styles(protected, [each.name for each in written])
            or [each.name for each in written[: len(names)]] != names
        ):
            return number
        first = next(n for n, name in enumerate(names) if protected.numbers(name))
        if _values(list(attributes(tag))[first:]) != _values(written[first : len(names)]):
            return number
    return None


def _with_statements(protected: Protected, html: str) -> list[tuple[int, Token]]:
    """The tags with statements among their attributes, each by the first of these."""
    return [
        (min(found), token)
        for token in tokens(html)
        if token.kind is Kind.TAG
        and (
            found := [
                number
                for each in attributes(token)
                for number in protected.numbers(each.name)
                if protected.is_statement(number)
            ]
        )
    ]


def _two_styles(protected: Protected, names: list[str]) -> bool:
    """Whether a style is beside one whose name follows a statement without a space: only the first would count."""
    return "style" in names and any(protected.word.sub("", name) == "style" != name for name in names)


def _values(written: list[Attribute]) -> list[str]:
    return [unescape(each.value or "") for each in written]
