"""Amounts in cells, as people write them: `1,234.50`, `1.234,50`, `1 234,50`, `$60.00`, `60 €`, `(5.00)`, `5-`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from asyncsmtp.protocol.replies import safe_text

__all__ = ["AmountReading", "format_money", "parse_number", "read_amount"]

_MAX_DIGITS = 30
_MAX_LENGTH = 100  # characters of a cell that can be an amount


def format_money(
    value: object,
    places: int = 2,
    point: str = ".",
    thousands: str = ",",
    input: str | None = None,  # noqa: A002 - the name in templates
    *,
    reading: AmountReading | None = None,
) -> str:
    """Return an amount: `{{ price|money }}` gives 1,234.50; `{{ price|money(2, ",", ".") }} €` gives 1.234,50 €.

    Args:
        input: how the cell writes numbers: `"1.234,50"`, or its decimal mark, `","`.
        reading: how amounts of the cell's column are read.
    Raises:
        ValueError: the cell is not an amount, or may be two.
    """
    number = parse_number(value, input, reading=reading)
    if isinstance(number, str):
        return number
    whole = f"{number:,.{min(max(places, 0), 10)}f}"
    return whole.translate({ord(","): thousands, ord("."): point})


def parse_number(value: object, input: str | None = None, *, reading: AmountReading | None = None) -> Decimal | str:  # noqa: A002 - the name in templates
    """Return a cell as a number to calculate with: `{{ (price|number * 2)|money }}`; "" for an empty cell.

    Raises:
        ValueError: the cell is not a number, or may be two.
    """
    if isinstance(value, int | float | Decimal):
        return _check_size(str(value), Decimal(str(value)))
    text = value if type(value) is str else str(value)
    if not text or text.isspace():
        return ""
    return (AmountReading(_decimal_mark(input)) if input is not None else reading or _ONE_AMOUNT).parse(text)


_SIGN_AND_UNIT = re.compile(
    r"(?P<open>\()?\s*(?P<sign>[+-])?\s*(?P<before>[^\W\d_]{0,4}\.?[^\w\s.,()+'’%-]?)\s*(?P<sign2>[+-])?\s*"
    r"(?P<number>[\d.][\d.,\s'’]*?)(?P<dash>[.,]-{1,2})?\s*(?P<sign4>-)?\s*"
    r"(?P<after>[^\W\d_]{0,4}\.?[^\w\s.,()+'’%-]?)\s*(?P<sign3>-)?\s*(?P<close>\))?"
)
_EXPONENT = re.compile(r"[+-]?\d{1,20}(?:\.\d{1,20})?[eE][+-]?\d{1,3}")
_BY_POINT = re.compile(r"(?:\d+|\d{1,3}(?:,\d{2,3})*,\d{3}|\d{1,3}(?: \d{3})+|\d{1,3}(?:'\d{3})+)?(?:\.\d*)?")
_BY_COMMA = re.compile(r"(?:\d+|\d{1,3}(?:\.\d{3})+|\d{1,3}(?: \d{3})+|\d{1,3}(?:'\d{3})+)?(?:,\d*)?")


def read_amount(cell: str) -> tuple[dict[str, Decimal], str] | None:
    """Return the number by the decimal mark that it would have, and its currency; None if it is no amount."""
    text = " ".join(cell.replace("−", "-").replace("–", "-").replace("—", "-").split())
    if len(text) > _MAX_LENGTH:
        return None
    if _EXPONENT.fullmatch(text):
        amount = Decimal(text)
        return (dict.fromkeys(".,", amount), "") if abs(amount.adjusted()) <= _MAX_DIGITS else None
    found = _SIGN_AND_UNIT.fullmatch(text)
    if found is None or bool(found["open"]) != bool(found["close"]):
        return None
    signs = [each for each in (found["sign"], found["sign2"], found["sign3"], found["sign4"], found["open"]) if each]
    units = {each.casefold().rstrip(".") for each in (found["before"], found["after"]) if each}
    number = found["number"].rstrip(".,") if found["dash"] else found["number"].strip()
    number = number.replace("’", "'")
    if len(signs) > 1 or len(units) > 1 or not any(letter.isdigit() for letter in number):
        return None
    made: dict[str, Decimal] = {}
    for point, pattern, thousands in ((".", _BY_POINT, ","), (",", _BY_COMMA, ".")):
        if not pattern.fullmatch(number) or re.match(rf"0+[{thousands} ']\d{{3}}", number):
            continue  # no group of thousands begins with 0
        plain = number.translate({ord(each): None for each in f"{thousands} '"}).replace(point, ".")
        try:
            amount = _check_size(plain, Decimal(plain))
            # a multiplication would round to the 28 digits of the context
            made[point] = amount.copy_negate() if signs and signs[0] in "-(" else amount
        except (ValueError, InvalidOperation):
            return None
    return (made, next(iter(units), "")) if made else None


def _check_size(text: str, number: Decimal) -> Decimal:
    if not number.is_finite() or len(text) > _MAX_DIGITS or abs(number.adjusted()) > _MAX_DIGITS:
        raise _not_an_amount(text)
    return number


def _not_an_amount(cell: str) -> ValueError:
    return ValueError(f"“{safe_text(cell, 40)}” is not an amount: write it as 1234.50")


def _decimal_mark(example: object) -> str:
    """Return the decimal mark of `input=`: the mark itself, or that of an example."""
    text = example if isinstance(example, str) else ""
    if text in (".", ","):
        return text
    marks = [each for each in text if each in ".,"]
    if not marks or marks.count(marks[-1]) > 1:
        raise ValueError('input= must be a number as the cells have it, such as "1.234,50", or the decimal mark')
    return marks[-1]


@dataclass(slots=True)
class AmountReading:
    """Reading of the amounts of one column, by their decimal mark; "" if it is not known."""

    point: str = ""

    def parse(self, cell: str) -> Decimal:
        """Return the number. Raises ValueError: the cell is not an amount, or may be two."""
        found = read_amount(cell)
        if found is None or (self.point and self.point not in found[0]):
            raise _not_an_amount(cell)
        numbers = found[0]
        if self.point:
            return numbers[self.point]
        if len(set(numbers.values())) > 1:
            shown = " or ".join(f"{number:,}" for number in dict.fromkeys(numbers.values()))
            raise ValueError(
                f'“{safe_text(cell, 40)}” may be {shown}: say which: money(input="1.234,50") or money(input="1,234.50")'
            )
        return next(iter(numbers.values()))


_ONE_AMOUNT = AmountReading()
