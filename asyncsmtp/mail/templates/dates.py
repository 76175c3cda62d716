"""Dates in cells, as people write them: day, month and year in any order, times, names of months, serial numbers.

`3/4/2026` is 3 April or 4 March: what a cell may be is told apart from what it is. `column_formats` decides by the
whole column; a cell by itself has to be certain. Dates with a dot are day.month.year unless the column says otherwise:
no country writes them the other way round.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache

from asyncsmtp.mail.headers import DAYS, MONTHS
from asyncsmtp.protocol.replies import safe_text

__all__ = [
    "CENTURY_ADVICE",
    "CellDate",
    "DateReading",
    "advise_input",
    "describe_moments",
    "find_month",
    "format_date",
    "is_day_of_month",
    "load_languages",
    "read_date",
]

_MAX_LENGTH = 100  # characters of a cell that can be a date or an amount
_TRANSLATED = str.maketrans({"年": "-", "月": "-", "日": " ", "‐": "-", "‑": "-", "–": "-", "−": "-"})
_TIME = (
    r"(?:[\s,T]\s*(?:at\s+)?(?P<hour>\d{1,2})(?:[:.](?P<minute>\d{2})(?:[:.](?P<second>\d{2})(?:[.,]\d{1,9})?)?)?"
    r"\s*(?P<half>[AaPp]\.?\s?[Mm]\.?)?\s*(?:Z|UTC|GMT|[+-]\d{2}:?\d{2})?(?:\s*\([A-Za-z ]{1,40}\))?)?"
)
_NUMERIC = re.compile(rf"(\d{{1,4}})\s?([./-])\s?(\d{{1,2}})\s?\2\s?(\d{{1,4}})\.?{_TIME}\s*")
_COMPACT = re.compile(r"\d{8}")
_SERIAL = re.compile(r"(\d{5})(?:\.(\d{1,20}))?")  # days since 1899-12-30, as spreadsheets count
_WORDED = re.compile(rf"(?=[^:]*[^\W\d_])(?P<date>.*?\d.*?){_TIME}\s*", re.DOTALL)
_NUMBER_OR_WORD = re.compile(r"(\d+)(?:st|nd|rd|th)?(?![^\W_])|([^\W\d_]+)|([\s.,'’/-]+)|(.)", re.IGNORECASE)
_ENGLISH_MONTHS = {
    name[:length].lower(): number for number, name in enumerate(MONTHS, 1) for length in (3, 4, len(name))
}
_ENGLISH_OTHERS = frozenset({*(day.lower() for day in DAYS), *(day[:3].lower() for day in DAYS), "of", "the"}) | {
    "tues", "thur", "thurs", "weds",
}  # fmt: skip
_FIRST_CENTURY_LESS = 30  # two-digit years: spreadsheets take 00-29 for this century, POSIX 00-68: both agree outside
_FIRST_CENTURY_UNDISPUTED = 69


def format_date(
    value: object,
    form: str = "%d %B %Y",
    input: object = None,  # noqa: A002 - the name in templates
    *,
    reading: DateReading | None = None,
) -> str:
    """Return a date in another form: `{{ since|date("%d.%m.%Y") }}`; `{{ since|date }}` gives 1 March 2026.

    The forms may hold %Y %y %m %d %H %M %S %I %p %B %b %A %a and %%; names are English, since a campaign is the same
    on every machine. An empty cell stays empty.

    Args:
        input: the form of the cell, or a list of forms: `date("%d.%m.%Y", input="%m/%d/%Y")`; a time may follow.
            `"excel"` for the serial numbers of a spreadsheet.
        reading: how dates of the cell's column are read.
    Raises:
        ValueError: the cell is not a date or may be two, or a form has another letter.
    """
    text = value if type(value) is str else str(value)
    if not text or text.isspace():
        return ""
    moment = _parse_as(text, input) if input is not None else (reading or _ONE_CELL).parse(text)
    month, day = MONTHS[moment.month - 1], DAYS[moment.weekday()]
    parts_by_letter = {
        "%": "%", "Y": f"{moment.year:04}", "y": f"{moment.year % 100:02}", "m": f"{moment.month:02}",
        "d": f"{moment.day:02}", "H": f"{moment.hour:02}", "M": f"{moment.minute:02}", "S": f"{moment.second:02}",
        "I": f"{(moment.hour - 1) % 12 + 1:02}", "p": "AM" if moment.hour < 12 else "PM",
        "B": month, "b": month[:3], "A": day, "a": day[:3],
    }  # fmt: skip
    first, *parts = form.replace("%%", "%\0").split("%")
    shown = first
    for part in parts:
        letter = "%" if part[:1] == "\0" else part[:1]
        if letter not in parts_by_letter:
            raise _unknown_letter(letter)
        shown += parts_by_letter[letter] + part[1:]
    return shown


@dataclass(frozen=True, slots=True)
class CellDate:
    """Possible moments of a cell, by the order of its parts, `dmy`, `mdy` or `ymd`; `""` for one that is certain.

    Attributes:
        group: cells with the same separator share one order.
        wording: the words of a date whose month is not an English name; `numbers` are its day and year.
        disputed: the orders in which a year has two digits that may be of either century.
    """

    moments: Mapping[str, datetime]
    group: str = ""
    wording: tuple[str, ...] = ()
    numbers: tuple[int, int, tuple[int, int, int]] = (0, 0, (0, 0, 0))
    disputed: frozenset[str] = frozenset()


def read_date(cell: str) -> CellDate | None:
    """Return what a cell may be; None if it is no date."""
    text = cell.strip().translate(_TRANSLATED)
    if len(text) > _MAX_LENGTH:
        return None
    if found := _NUMERIC.fullmatch(text):
        time = _read_time(found)
        return None if time is None else _read_parts((found[1], found[3], found[4]), found[2], time)
    if _COMPACT.fullmatch(text):
        return _read_compact(text)
    if found := _SERIAL.fullmatch(text):
        return CellDate({"": _from_serial(found)})
    if found := _WORDED.fullmatch(text):
        time = _read_time(found)
        return None if time is None else _read_words(found["date"], time)
    try:
        return CellDate({"": datetime.fromisoformat(text).replace(tzinfo=None)})
    except ValueError:
        return None


def _read_time(found: re.Match[str]) -> tuple[int, int, int] | None:
    """Return hour, minute and second; None if they are not a time of day."""
    if found["hour"] is None:
        return 0, 0, 0
    hour, half = int(found["hour"]), (found["half"] or "")[:1].lower()
    if (half and not 1 <= hour <= 12) or not (half or found["minute"]):
        return None
    hour = hour % 12 + 12 * (half == "p") if half else hour
    minute, second = int(found["minute"] or 0), int(found["second"] or 0)
    return (hour, minute, second) if hour < 24 and minute < 60 and second < 61 else None


def _read_parts(parts: tuple[str, str, str], separator: str, time: tuple[int, int, int]) -> CellDate | None:
    first, second, third = parts
    if len(first) == 4:
        orders = {"": (first, second, third)} if len(third) < 3 else {}
    elif len(first) < 3 and len(third) in (2, 4):
        orders = {"dmy": (third, second, first), "mdy": (third, first, second)}
        if len(first) == len(third) == 2:
            orders["ymd"] = (first, second, third)
    else:
        orders = {}
    found, disputed = {}, set()
    for order, (year, month, day) in orders.items():
        number = int(year)
        if len(year) == 2:
            if _FIRST_CENTURY_LESS <= number < _FIRST_CENTURY_UNDISPUTED:
                disputed.add(order)
            number += 2000 if number < _FIRST_CENTURY_LESS else 1900
        if (moment := _make_moment(number, int(month), int(day), time)) is not None:
            found[order] = moment
    if separator in "./" and len(found) > 1:
        found.pop("ymd", None)  # written so in two languages only; with a hyphen it may well be meant
    return CellDate(found, separator, disputed=frozenset(disputed)) if found else None


def _read_compact(text: str) -> CellDate | None:
    orders = {
        "ymd": (text[:4], text[4:6], text[6:]),
        "dmy": (text[4:], text[2:4], text[:2]),
        "mdy": (text[4:], text[:2], text[2:4]),
    }
    found = {
        order: moment
        for order, (year, month, day) in orders.items()
        if 1800 <= int(year) < 2200 and (moment := _make_moment(int(year), int(month), int(day), (0, 0, 0)))
    }
    return CellDate(found, "no separator") if found else None


def _from_serial(found: re.Match[str]) -> datetime:
    seconds = round(float(f"0.{found[2] or 0}") * 86400)
    return datetime(1899, 12, 30) + timedelta(days=int(found[1]), seconds=seconds)


def _read_words(text: str, time: tuple[int, int, int]) -> CellDate | None:
    numbers: list[str] = []
    words: list[str] = []
    month_at = 0  # the numbers before the first word
    for number, word, _, other in _NUMBER_OR_WORD.findall(text):
        if other or (number and len(numbers) == 2):
            return None
        numbers += [number] if number else []
        if word:
            month_at = month_at if words else len(numbers)
            words.append(word.casefold())
    if len(numbers) != 2 or not words or len(words) > 6:
        return None
    if len(numbers[0]) == 4:
        numbers.reverse()
    day, year = int(numbers[0]), int(numbers[1])
    disputed = (
        frozenset({""}) if len(numbers[1]) == 2 and _FIRST_CENTURY_LESS <= year < _FIRST_CENTURY_UNDISPUTED else ()
    )
    if len(numbers[1]) == 2:
        year += 2000 if year < _FIRST_CENTURY_LESS else 1900
    elif len(numbers[1]) != 4:
        return None
    month = find_month(words, _ENGLISH_MONTHS, _ENGLISH_OTHERS)
    if month is None:
        return CellDate({}, wording=tuple(words), numbers=(day, year, time), disputed=frozenset(disputed))
    moment = _make_moment(year, month, day, time)
    return None if moment is None else CellDate({"": moment}, disputed=frozenset(disputed))


def find_month(words: Iterable[str], months: Mapping[str, int], others: frozenset[str]) -> int | None:
    """Return the month that exactly one of the words names, if the others are known as well."""
    rest = [word for word in words if word not in others]
    return months.get(rest[0]) if len(rest) == 1 else None


def _make_moment(year: int, month: int, day: int, time: tuple[int, int, int]) -> datetime | None:
    try:
        return datetime(year, month, day, time[0], time[1], min(time[2], 59))
    except ValueError:
        return None


@dataclass(slots=True)
class DateReading:
    """Reading of the dates of one column.

    Attributes:
        orders: the order of day, month and year by separator.
        months: the month by the words of a date, where they are not English.
    """

    orders: Mapping[str, str] = field(default_factory=dict)
    months: Mapping[tuple[str, ...], int] = field(default_factory=dict)

    def parse(self, cell: str) -> datetime:
        """Return the moment. Raises ValueError: the cell is not a date, or may be two."""
        found = read_date(cell)
        if found is not None and found.wording and found.wording in self.months:
            day, year, time = found.numbers
            moment = _make_moment(year, self.months[found.wording], day, time)
            found = None if moment is None else CellDate({"": moment}, disputed=found.disputed)
        if found is None or not found.moments:
            raise ValueError(
                f"“{safe_text(cell, 40)}” is not a date: write it as 2026-03-01, or say how it is written: {_EXAMPLE}"
            )
        order = self.orders.get(found.group) or _choose_order(found)
        if order is None:
            raise ValueError(
                f"“{safe_text(cell, 40)}” may be {describe_moments(found.moments)}: say which: {advise_input(cell)}"
            )
        if order not in found.moments:
            raise ValueError(f"“{safe_text(cell, 40)}” is not a date of its column, where {_ORDER_NAMES[order]}")
        if order in found.disputed:
            raise ValueError(f"the century of “{safe_text(cell, 40)}” is not known: {CENTURY_ADVICE}")
        return found.moments[order]


_ONE_CELL = DateReading()
_EXAMPLE = 'date("%d.%m.%Y", input="%m/%d/%Y")'
CENTURY_ADVICE = "write the year with four digits, or give input= with %y, which takes 69 to 99 for the last century"
_ORDER_NAMES = {
    "dmy": "the day comes first",
    "mdy": "the month comes first",
    "ymd": "the year comes first",
    ".": "the decimal mark is a point",
    ",": "the decimal mark is a comma",
    "": "dates are written in full",
}


def _choose_order(found: CellDate) -> str | None:
    """Return the order of one cell by itself; None if there are several and they differ."""
    if found.group == "." and "dmy" in found.moments:
        return "dmy"
    moments = found.moments
    return next(iter(moments)) if len(set(moments.values())) == 1 else None


def describe_moments(moments: Mapping[str, datetime]) -> str:
    """Return the days that a cell may mean: `3 April 2026 or 4 March 2026`."""
    shown = dict.fromkeys(f"{each.day} {MONTHS[each.month - 1]} {each.year}" for each in moments.values())
    return " or ".join(shown)


def advise_input(cell: str, order: str = "mdy") -> str:
    """Return a filter that says how a cell is written, by its separator and the length of its year."""
    found = _NUMERIC.fullmatch(cell.strip().translate(_TRANSLATED))
    separator = found[2] if found else "" if _COMPACT.fullmatch(cell.strip()) else "/"
    year = "%y" if found and len(found[1]) < 3 and len(found[4]) == 2 else "%Y"
    letters = separator.join({"d": "%d", "m": "%m", "y": year}[letter] for letter in order)
    return f'date("%d.%m.%Y", input="{letters}")'


# `input=`: the form of the cells.

_LETTERS = {
    "Y": r"(?P<Y>\d{4})", "y": r"(?P<y>\d{2})", "m": r"(?P<m>\d{1,2})", "d": r"(?P<d>\d{1,2})", "%": "%",
    "H": r"(?P<H>\d{1,2})", "I": r"(?P<I>\d{1,2})", "M": r"(?P<M>\d{2})", "S": r"(?P<S>\d{2})(?:[.,]\d{1,9})?",
    "p": r"(?P<p>[AaPp])\.?\s?[Mm]\.?", "B": r"(?P<B>[A-Za-z]{3,9})\.?", "b": r"(?P<b>[A-Za-z]{3,9})\.?",
    "A": r"[^\W\d_]+\.?", "a": r"[^\W\d_]+\.?",
}  # fmt: skip


def _unknown_letter(letter: str) -> ValueError:
    why = f"the form of a date does not support %{safe_text(letter, 5)}"
    return ValueError(f"{why}: use %Y %y %m %d %H %M %S %I %p %B %b %A %a")


@lru_cache(64)
def _compile_form(form: str) -> re.Pattern[str]:
    first, *parts = form.strip().replace("%%", "%\0").split("%")
    made = [re.escape(first)]
    for part in parts:
        letter = "%" if part[:1] == "\0" else part[:1]
        if letter not in _LETTERS or f"(?P<{letter}>" in "".join(made):
            raise _unknown_letter(letter)
        made.append(_LETTERS[letter] + re.escape(part[1:]))
    pattern = re.sub(r"(?:\\\s)+", r"\\s+", "".join(made))
    names = {name for name in "YymdBbHIMS" if f"(?P<{name}>" in pattern}
    if not (names & {"Y", "y"} and names & {"m", "B", "b"} and "d" in names):
        raise ValueError(f"input= “{safe_text(form, 40)}” needs a year, a month and a day, such as “%m/%d/%Y”")
    return re.compile(pattern + ("" if names & set("HIMS") else _TIME) + r"\s*")


def _parse_as(cell: str, forms: object) -> datetime:
    """Return the moment of a cell that is written in one of the forms."""
    listed = forms if isinstance(forms, list | tuple) else (forms,)
    if not listed or not all(isinstance(form, str) for form in listed):
        raise ValueError(f"input= must be the form of the cells, such as in {_EXAMPLE}")
    for form in listed:
        if form == "excel":
            if found := _SERIAL.fullmatch(cell.strip()):
                return _from_serial(found)
        elif (found := _compile_form(form).fullmatch(cell.strip().translate(_TRANSLATED))) and (
            moment := _moment_of_form(found)
        ):
            return moment
    shown = " or ".join(f"“{safe_text(form, 40)}”" for form in listed)
    raise ValueError(f"“{safe_text(cell, 40)}” is not a date of the form {shown}: correct the cell or input=")


def _moment_of_form(found: re.Match[str]) -> datetime | None:
    parts = found.groupdict()
    name = parts.get("B") or parts.get("b")
    month = _ENGLISH_MONTHS.get(name.lower(), 0) if name else int(parts["m"])
    year = int(parts.get("Y") or parts["y"])
    if not parts.get("Y"):
        year += 2000 if year < _FIRST_CENTURY_UNDISPUTED else 1900  # as strptime does
    time: tuple[int, int, int] | None
    if "hour" in parts:
        time = _read_time(found)
    else:
        hour, half = int(parts.get("H") or parts.get("I") or 0), (parts.get("p") or "").lower()
        time = hour % 12 + 12 * (half == "p") if half else hour, int(parts.get("M") or 0), int(parts.get("S") or 0)
    return None if time is None else _make_moment(year, month, int(parts["d"]), time)


def is_day_of_month(day: int, month: int) -> bool:
    """Return whether some year has that day."""
    return _make_moment(2024, month, day, (0, 0, 0)) is not None


@lru_cache(1)
def load_languages() -> list[tuple[Mapping[str, int], frozenset[str]]]:
    """Return the names of the months of each language of CLDR, and the further words of its dates."""
    from babel import Locale, localedata  # late: an extra, and it takes a second

    made: list[tuple[Mapping[str, int], frozenset[str]]] = []
    for name in sorted(localedata.locale_identifiers()):
        if "_" in name or name in ("root", "en"):
            continue
        locale = Locale.parse(name)
        months: dict[str, int] = {}
        others: set[str] = set()
        for widths in locale.months.values():
            for width in ("wide", "abbreviated"):
                for number, text in widths.get(width, {}).items():
                    if words := re.findall(r"[^\W\d_]+", text.casefold()):
                        months.setdefault(words[-1], number)
        for widths in locale.days.values():
            for width in ("wide", "abbreviated", "short"):
                others.update(
                    word
                    for text in widths.get(width, {}).values()
                    for word in re.findall(r"[^\W\d_]+", text.casefold())
                )
        for pattern in locale.date_formats.values():
            others.update(
                word
                for each in re.findall(r"'([^']+)'", pattern.pattern)
                for word in re.findall(r"[^\W\d_]+", each.casefold())
            )
        others -= months.keys()
        made.append((months, frozenset(others)))
    return made
