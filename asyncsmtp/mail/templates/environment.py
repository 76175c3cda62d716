"""The sandboxed Jinja2 environment of templates: no code, no files, limits on the size of results.

Templates come from people who write mails, cells from anybody. Cells are values and are never compiled. Jinja2's
sandbox keeps templates away from Python's internals; it has no limits on size, so filters, methods and operators that
make long results from short input are removed or checked first.
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

from asyncsmtp.mail.headers import DAYS, MONTHS
from asyncsmtp.protocol.replies import safe_text

__all__ = ["FILTERS", "MAX_OUTPUT", "TemplateEnvironment", "TemplateLoader", "format_date", "format_money"]

_FORMATS = ("%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%Y/%m/%d")
_MAX_DIGITS = 30


def format_date(value: object, form: str = "%d %B %Y") -> str:
    """Return a date in another form: `{{ since|date("%d.%m.%Y") }}`; `{{ since|date }}` gives 1 March 2026.

    The cell is ISO 8601, with or without a time, or day.month.year, day/month/year, year/month/day. The form may hold
    %Y %y %m %d %H %M %B %b %A %a and %%; names are English, since a campaign is the same on every machine.

    Raises:
        ValueError: the cell is not a date, or the form has another letter.
    """
    moment = _parse_date(str(value).strip())
    month, day = MONTHS[moment.month - 1], DAYS[moment.weekday()]
    parts_by_letter = {
        "%": "%", "Y": f"{moment.year:04}", "y": f"{moment.year % 100:02}", "m": f"{moment.month:02}",
        "d": f"{moment.day:02}", "H": f"{moment.hour:02}", "M": f"{moment.minute:02}",
        "B": month, "b": month[:3], "A": day, "a": day[:3],
    }  # fmt: skip
    first, *parts = form.replace("%%", "%\0").split("%")
    text = first
    for part in parts:
        letter = "%" if part[:1] == "\0" else part[:1]
        if letter not in parts_by_letter:
            why = f"the form of a date does not support %{safe_text(letter, 5)}"
            raise ValueError(f"{why}: use %Y %m %d %H %M %B %b %A %a")
        text += parts_by_letter[letter] + part[1:]
    return text


def format_money(value: object, places: int = 2, point: str = ".", thousands: str = ",") -> str:
    """Return an amount: `{{ price|money }}` gives 1,234.50; `{{ price|money(2, ",", ".") }} €` gives 1.234,50 €.

    Raises:
        ValueError: the cell is not a number with a decimal point.
    """
    text = str(value).strip()
    try:
        number = Decimal(text)
        if not number.is_finite() or len(text) > _MAX_DIGITS or abs(number.adjusted()) > _MAX_DIGITS:
            raise InvalidOperation
    except InvalidOperation:
        raise ValueError(f"“{safe_text(text, 40)}” is not an amount: write it as 1234.50") from None
    whole = f"{number:,.{min(max(places, 0), 10)}f}"
    return whole.translate({ord(","): thousands, ord("."): point})


def _parse_date(text: str) -> datetime:
    for form in _FORMATS:
        try:
            return datetime.strptime(text, form)
        except ValueError:
            pass
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"“{safe_text(text, 40)}” is not a date: write it as {date(2026, 3, 1).isoformat()}") from None


FILTERS = {"date": format_date, "money": format_money}

MAX_OUTPUT = 10 << 20  # characters of one part
MAX_VALUE = 1 << 20  # characters or items of the result of an operator
MAX_BITS = 256  # of a number that is the result of an operator

TemplateLoader = Callable[[str], str]

# They make long results from short input, differ from run to run, or reach attributes.
_REMOVED_FILTERS = ("attr", "batch", "center", "format", "indent", "pprint", "random", "slice", "tojson", "xmlattr")
_FORBIDDEN_METHODS = frozenset(
    {"center", "expandtabs", "format", "format_map", "join", "ljust", "replace", "rjust", "translate", "zfill"}
)


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """The Jinja2 environment of the templates of one campaign.

    Args:
        autoescape: True for HTML.
        load: returns the source of an included file by its path below the template's folder; raises OSError or KeyError
            if there is none. It must not leave the folder, not by a link either.
    """

    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def __init__(self, *, autoescape: bool, load: TemplateLoader | None = None) -> None:
        super().__init__(
            autoescape=autoescape,
            undefined=StrictUndefined,
            keep_trailing_newline=True,
            loader=load and _confined_loader(load),
        )
        for name in _REMOVED_FILTERS:
            self.filters.pop(name, None)
        self.filters |= {"join": _join, "replace": _replace, **FILTERS}
        self.globals.clear()

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        is_forbidden = isinstance(obj, str | bytes) and attr in _FORBIDDEN_METHODS
        return not is_forbidden and super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """Return a value that raises an error with advice when it is used."""
        filter_ = f": write |{attribute}" if attribute in self.filters else ""
        return self.undefined(f"“.{attribute}” is not available in a template{filter_}", exc=SecurityError)

    def wrap_str_format(self, value: Any) -> None:
        """Return no formatter: a format width makes gigabytes of nothing."""

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _check_operands(operator, left, right)
        return super().call_binop(context, operator, left, right)


def _size(value: object) -> int:
    return len(value) if isinstance(value, str | bytes | list | tuple) else 0


def _check_operands(operator: str, left: object, right: object) -> None:
    """Refuse an operation whose result could be far longer than its operands."""
    numbers = (left, right) if isinstance(left, int) and isinstance(right, int) else None
    if operator == "*":
        for value, times in ((left, right), (right, left)):
            if isinstance(times, int) and _size(value) * times > MAX_VALUE:
                raise SecurityError("this multiplication makes a text that is too long for a mail")
        if numbers and numbers[0].bit_length() + numbers[1].bit_length() > MAX_BITS:
            raise SecurityError("this multiplication makes a number that is too long for a mail")
    elif operator == "**" and numbers and numbers[0].bit_length() * abs(numbers[1]) > MAX_BITS:
        raise SecurityError("this power makes a number that is too long for a mail")
    elif operator == "%" and isinstance(left, str | bytes):
        raise SecurityError("% between texts is not available: write the value into the text")
    elif operator == "+" and _size(left) + _size(right) > MAX_VALUE:
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


def _confined_loader(load: TemplateLoader) -> BaseLoader:
    def source(path: str) -> str:
        parts = split_template_path(path)  # refuses `..`
        if path.startswith("/") or "\\" in path or "\0" in path:
            raise TemplateNotFound(path)
        try:
            return load("/".join(parts))
        except (OSError, LookupError, ValueError) as error:
            raise TemplateNotFound(path) from error

    return FunctionLoader(source)
