"""Differences since the campaign began are named, so that they can be undone."""

from __future__ import annotations

import pytest

from asyncsmtp.bulk.ledger.loading import check_fingerprint
from asyncsmtp.errors import LedgerMismatch

BEGAN = {"message.html": "a", "people.csv": "b", "logo.png": "c", "subject": "d"}


def test_the_order_does_not_matter() -> None:
    check_fingerprint("news", BEGAN, dict(reversed(BEGAN.items())))


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({**BEGAN, "message.html": "x"}, "message.html changed since"),
        ({**BEGAN, "terms.pdf": "x"}, "terms.pdf was added since"),
        ({"message.html": "a", "people.csv": "b", "logo.png": "c"}, "subject was taken away since"),
        ({}, "logo.png was taken away, message.html was taken away, people.csv was taken away and 1 more since"),
        ({**BEGAN, "\x1b[31m": "x"}, r"\x1b[31m was added since"),
    ],
)
def test_changes_are_named(now: dict[str, str], said: str) -> None:
    with pytest.raises(LedgerMismatch) as caught:
        check_fingerprint("news", BEGAN, now)
    assert str(caught.value).startswith(f"{said} the campaign “news” began: put it back")
