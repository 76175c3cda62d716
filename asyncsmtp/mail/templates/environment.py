"""Jinja2, locked in: no code, no files, and no result that outgrows a mail.

Templates come from people who write mails, cells from anybody. Cells are values and are never compiled.
Jinja2's sandbox keeps templates away from Python's insides; what it lacks are limits, so whatever makes
much out of little is taken away or measured first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from jinja2 import BaseLoader, FunctionLoader, StrictUndefined, TemplateNotFound, Undefined, pass_eval_context
from jinja2.exceptions import SecurityError
from jinja2.filters import do_join, do_replace
from jinja2.loaders import split_template_path
from jinja2.nodes import EvalContext
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from asyncsmtp.protocol.replies import safe_text

__all__ = ["FILTERS", "MAX_OUTPUT", "Loader", "TemplateEnvironment", "date_", "money"]

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

MAX_OUTPUT = 10 << 20  # characters of one part
MAX_VALUE = 1 << 20  # characters or items of a value that an operator makes
MAX_BITS = 256  # of a number that an operator makes

Loader = Callable[[str], str]

_FILTERS_OUT = (
    *(
        "attr",
        "batch",
        "center",
        "format",
        "indent",
        "pprint",
        "random",
        "slice",
        "tojson",
        "xmlattr",
    ),  # widths, chance
)
_METHODS_OUT = frozenset(
    {"center", "expandtabs", "format", "format_map", "join", "ljust", "replace", "rjust", "translate", "zfill"}
)


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """The environment of all templates of one mailing.

    Args:
        autoescape: True for HTML.
        load: gives the source of an included file by its path below the template's folder; raises
            OSError or KeyError if there is none. It must not leave the folder, not by a link either.
    """

    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def __init__(self, *, autoescape: bool, load: Loader | None = None) -> None:
        super().__init__(
            autoescape=autoescape,
            undefined=StrictUndefined,
            keep_trailing_newline=True,
            loader=_rooted(load) if load else None,
        )
        for name in _FILTERS_OUT:
            self.filters.pop(name, None)
        self.filters |= {"join": _join, "replace": _replace, **FILTERS}
        self.globals.clear()

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return super().is_safe_attribute(obj, attr, value) and not (
            isinstance(obj, str | bytes) and attr in _METHODS_OUT
        )

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """What is not available says so when it is used."""
        filter_ = f": write |{attribute}" if attribute in self.filters else ""
        return self.undefined(f"“.{attribute}” is not available in a template{filter_}", exc=SecurityError)

    def wrap_str_format(self, value: Any) -> None:
        """No formatter is given out: a width makes gigabytes of nothing."""

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _GUARDS[operator](left, right)
        return super().call_binop(context, operator, left, right)


def _size(value: object) -> int:
    return len(value) if isinstance(value, str | bytes | list | tuple) else 0


def _guard_times(left: object, right: object) -> None:
    for value, times in ((left, right), (right, left)):
        if isinstance(times, int) and _size(value) * times > MAX_VALUE:
            raise SecurityError("this multiplication makes a text that is too long for a mail")
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > MAX_BITS:
        raise SecurityError("this multiplication makes a number that is too long for a mail")


def _guard_power(left: object, right: object) -> None:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > MAX_BITS:
        raise SecurityError("this power makes a number that is too long for a mail")


def _guard_percent(left: object, right: object) -> None:
    if isinstance(left, str | bytes):
        raise SecurityError("% between texts is not available: write the value into the text")


def _guard_plus(left: object, right: object) -> None:
    if _size(left) + _size(right) > MAX_VALUE:
        raise SecurityError("this + makes a text that is too long for a mail")


@pass_eval_context
def _replace(context: EvalContext, text: str, old: str, new: str, count: int | None = None) -> str:
    found = str(text).count(str(old))
    if found * len(str(new)) > MAX_VALUE:
        raise SecurityError("this |replace makes a text that is too long for a mail")
    return do_replace(context, text, old, new, count)


@pass_eval_context
def _join(context: EvalContext, values: Iterable[Any], between: str = "", attribute: str | int | None = None) -> str:
    listed = list(values)
    if sum(map(_size, listed)) + len(listed) * len(str(between)) > MAX_VALUE:
        raise SecurityError("this |join makes a text that is too long for a mail")
    joined: str = do_join(context, listed, between, attribute)
    return joined


_GUARDS: dict[str, Callable[[object, object], None]] = {
    "*": _guard_times,
    "**": _guard_power,
    "%": _guard_percent,
    "+": _guard_plus,
}


def _rooted(load: Loader) -> BaseLoader:
    def source(path: str) -> str:
        parts = split_template_path(path)  # refuses `..`
        if path.startswith("/") or "\\" in path or "\0" in path:
            raise TemplateNotFound(path)
        try:
            return load("/".join(parts))
        except (OSError, LookupError, ValueError) as error:
            raise TemplateNotFound(path) from error

    return FunctionLoader(source)
