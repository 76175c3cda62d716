"""Spans of time as people type them: `90s`, `5m`, `4h`, `1h30m`, `4d`."""

from __future__ import annotations

import re
from datetime import timedelta

__all__ = ["seconds", "spelled"]

_PARTS = re.compile(r"(?:([0-9]{1,6})d)?(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,6}(?:\.[0-9]{1,3})?)s)?")


def seconds(value: object) -> float:
    """Take a span; raises ValueError with what it must be."""
    text = value.replace(" ", "").lower() if isinstance(value, str) else ""
    found = _PARTS.fullmatch(text) if text else None
    if found is None:
        raise ValueError('must be a span of time in quotes, such as "90s", "5m", "1h30m" or "4d"')
    days, hours, minutes, rest = (float(part or 0) for part in found.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=rest).total_seconds()


def spelled(span: float) -> str:
    """A number of seconds for people, in its two largest units: `4 min`, `1 h 30 min`, `2 d 4 h`."""
    left = max(0, round(span))
    words = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number:
            words.append(f"{number} {unit}")
    return " ".join(words[:2]) or "0 s"
