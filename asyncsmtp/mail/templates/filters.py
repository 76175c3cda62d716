"""Filters that mails need and Jinja2 has not: dates and amounts, from the text of a cell, the same on every machine."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal, InvalidOperation

from asyncsmtp.protocol.replies import safe_text

__all__ = ["FILTERS", "date_", "money"]

_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_FORMATS = ("%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%Y/%m/%d")
_MOST_DIGITS = 30


def date_(value: object, form: str = "%d %B %Y") -> str:
    """A date in another form: `{{ since|date("%d.%m.%Y") }}`, `{{ since|date }}` for 1 March 2026.

    The cell is ISO 8601, with a time or without, or day.month.year, day/month/year, year/month/day. The form has
    %Y %y %m %d %H %M %B %b %A %a and %%; names are English, since a campaign is the same on every machine.

    Raises:
        ValueError: it is no date, or the form has another letter.
    """
    moment = _moment(str(value).strip())
    said = {
        "%": "%", "Y": f"{moment.year:04}", "y": f"{moment.year % 100:02}", "m": f"{moment.month:02}",
        "d": f"{moment.day:02}", "H": f"{moment.hour:02}", "M": f"{moment.minute:02}", "B": _MONTHS[moment.month - 1],
        "b": _MONTHS[moment.month - 1][:3], "A": _DAYS[moment.weekday()], "a": _DAYS[moment.weekday()][:3],
    }  # fmt: skip
    first, *parts = form.replace("%%", "%\0").split("%")
    text = first
    for part in parts:
        letter = "%" if part[:1] == "\0" else part[:1]
        if letter not in said:
            raise ValueError(f"the form of a date has no %{safe_text(letter, 5)}: use %Y %m %d %H %M %B %b %A %a")
        text += said[letter] + part[1:]
    return text


def money(value: object, places: int = 2, point: str = ".", thousands: str = ",") -> str:
    """An amount: `{{ price|money }}` for 1,234.50; `{{ price|money(2, ",", ".") }} €` for 1.234,50 €.

    Raises:
        ValueError: it is no number; a decimal point is a point, whatever is written.
    """
    text = str(value).strip()
    try:
        number = Decimal(text)
        if not number.is_finite() or len(text) > _MOST_DIGITS or abs(number.adjusted()) > _MOST_DIGITS:
            raise InvalidOperation
    except InvalidOperation:
        raise ValueError(f"“{safe_text(text, 40)}” is no amount: write it as 1234.50") from None
    whole = f"{number:,.{min(max(places, 0), 10)}f}"
    return whole.translate({ord(","): thousands, ord("."): point})


def _moment(text: str) -> datetime:
    for form in _FORMATS:
        try:
            return datetime.strptime(text, form)
        except ValueError:
            pass
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"“{safe_text(text, 40)}” is no date: write it as {date(2026, 3, 1).isoformat()}") from None


FILTERS = {"date": date_, "money": money}
