"""How fast and when, from what people type: rates, limits of domains, windows, a start, an end to spread over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from asyncsmtp.errors import InvalidArgument
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.rate_limit.rate import Rate
    from asyncsmtp.bulk.running.schedule import Window

__all__ = ["domain_rates", "moment", "rates", "taken", "windows"]

_T = TypeVar("_T")


def rates(value: object, folder: Path) -> tuple[Rate, ...]:
    """`"30/s, 2000/day"`, or a list of such."""
    from asyncsmtp.bulk.rate_limit.rate import Rate

    return tuple(rate for text in _texts(value, '"30/s"') for rate in taken(Rate.parse_all, text))


def windows(value: object, folder: Path) -> tuple[Window, ...]:
    """`"Mon-Fri 09:00-17:00 Europe/Vienna"`, or a list of such; from a command line separated by semicolons."""
    from asyncsmtp.bulk.running.schedule import Window

    texts = [part for text in _texts(value, '"Mon-Fri 09:00-17:00"') for part in text.split(";")]
    return tuple(taken(Window.parse, text) for text in texts)


def domain_rates(value: object, folder: Path) -> Mapping[str, tuple[Rate, ...]]:
    """The tables of a campaign file below `limits.domain` or `limits.provider`: each has a rate."""
    form = 'must be tables such as [limits.domain."example.com"] or [limits.provider."example.com"] with a rate'
    if not isinstance(value, dict):
        raise ValueError(form)
    found = {}
    for name, table in value.items():
        if not isinstance(table, dict) or set(table) != {"rate"} or "@" in name or not name.isprintable():
            raise ValueError(f"“{safe_text(name, 60)}”: {form}, and nothing else")
        found[name.lower()] = rates(table["rate"], folder)
    return found


def moment(value: object, folder: Path) -> datetime:
    """A date with a time, or a time of today or tomorrow; of this machine's zone unless it has its own."""
    form = 'must be a time such as "2026-12-01 09:00", "2026-12-01T09:00+01:00" or "09:00"'
    try:
        if isinstance(value, str):
            value = time.fromisoformat(value) if "-" not in value[:8] else datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(form) from None
    if isinstance(value, time):
        now = datetime.now().astimezone()
        today = datetime.combine(now.date(), value).astimezone()
        value = today if today > now else datetime.combine(now.date() + timedelta(days=1), value)
    if not isinstance(value, datetime):
        raise ValueError(form)
    return value.astimezone(UTC)


def taken(parse: Callable[[str], _T], text: str) -> _T:
    """What `parse` makes of it, a InvalidArgument told as the ValueError that names the key."""
    try:
        return parse(text)
    except InvalidArgument as error:
        raise ValueError(str(error)) from None


def _texts(value: object, example: str) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return value
    raise ValueError(f"must be a text such as {example}, or a list of such")
