"""Differences since the campaign began are named, so that they can be undone."""

from __future__ import annotations

import pytest

from asyncsmtp.bulk.ledger.loading import list_changes

BEGAN = {"message.html": "a", "people.csv": "b", "logo.png": "c", "subject": "d"}


def test_the_order_does_not_matter() -> None:
    assert list_changes(BEGAN, dict(reversed(BEGAN.items()))) == ""


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({**BEGAN, "message.html": "x"}, "message.html changed"),
        ({**BEGAN, "terms.pdf": "x"}, "terms.pdf was added"),
        ({"message.html": "a", "people.csv": "b", "logo.png": "c"}, "subject was taken away"),
        ({}, "logo.png was taken away, message.html was taken away, people.csv was taken away and 1 more"),
        ({**BEGAN, "\x1b[31m": "x"}, r"\x1b[31m was added"),
    ],
)
def test_changes_are_named(now: dict[str, str], said: str) -> None:
    assert list_changes(BEGAN, now) == said
