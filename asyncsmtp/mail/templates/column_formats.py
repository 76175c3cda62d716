"""Dates and amounts by the whole column: one order, or one decimal mark, that fits every cell.

`3/4/2026` is 3 April or 4 March, and `1.234` a thousand or one and a bit: one cell does not tell, the column usually
does. So a column that `|date`, `|money` or `|number` is applied to is read once before anything is sent. The one order
of day and month, or the one decimal mark, that fits every cell holds for all. If none does, or several do, that is an
error, and `input=` in the template decides. Nothing is guessed; an empty cell stays empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from jinja2 import nodes

from asyncsmtp.errors import TemplateError
from asyncsmtp.mail.templates.amounts import AmountReading, format_money, parse_number, read_amount
from asyncsmtp.mail.templates.dates import (
    CENTURY_ADVICE,
    DateReading,
    advise_input,
    describe_moments,
    find_month,
    format_date,
    is_day_of_month,
    load_languages,
    read_date,
)
from asyncsmtp.protocol.replies import safe_text

__all__ = ["ColumnFormats", "FormattedColumns", "bind_filters"]

_MAX_WORDINGS = 200  # of the dates of one column: seven days times twelve months, and more
COLUMN_FILTERS: Mapping[str, Callable[..., Any]] = {"date": format_date, "money": format_money, "number": parse_number}


@dataclass(frozen=True, slots=True)
class FilterUse:
    """One place in a template where a filter is applied to a column.

    Attributes:
        input: the `input=` that it has; None without one. `has_input` is True also if it is only known for each row.
        is_conditional: it may not be reached in every row.
    """

    filter: str
    column: str
    file: str
    line: int
    input: object = None
    has_input: bool = False
    is_conditional: bool = False


@dataclass(slots=True)
class _Evidence:
    """Evidence of the cells of one column, for orders of which one must hold.

    Attributes:
        left: the orders that fit every cell so far.
        excluded: the first row and cell that each of the other orders does not fit.
        differing: the first row and cell that is another value in each two orders.
        conflict: the first row and cell that none of the orders left fits.
    """

    left: frozenset[str] | None = None
    excluded: dict[str, tuple[int, str]] = field(default_factory=dict)
    differing: dict[frozenset[str], tuple[int, str]] = field(default_factory=dict)
    conflict: tuple[int, str] | None = None

    def add(self, row: int, cell: str, values: Mapping[str, object], orders: Iterable[str]) -> None:
        known = frozenset(orders) if self.left is None else self.left
        if self.conflict is not None:
            return
        if not (fitting := known & values.keys()):
            self.conflict = row, cell
            return
        for order in known - fitting:
            self.excluded.setdefault(order, (row, cell))
        self.left = fitting
        if len(fitting) > 1:
            first, *others = sorted(fitting)
            for order in others:
                if values[order] != values[first]:
                    self.differing.setdefault(frozenset({first, order}), (row, cell))

    def example(self) -> tuple[int, str] | None:
        """Return a row and cell that the orders left read differently."""
        left = self.left or frozenset()
        return next((shown for pair, shown in self.differing.items() if pair <= left), None)


class _ColumnReader:
    """The cells of a column, as they are read, for one filter."""

    def __init__(self, use: FilterUse) -> None:
        self.use = use
        self.groups: dict[str, _Evidence] = {}
        self.wordings: dict[tuple[str, ...], tuple[int, str, int]] = {}  # with a row, its cell and the latest day
        self.disputed: dict[tuple[str, str], tuple[int, str]] = {}
        self.currencies: dict[str, tuple[int, str]] = {}

    def add(self, row: int, cell: str) -> bool:
        """Take a cell; return False if it is neither empty nor what the filter takes."""
        if not cell or cell.isspace():
            return True
        return self._add_date(row, cell) if self.use.filter == "date" else self._add_amount(row, cell)

    def _add_date(self, row: int, cell: str) -> bool:
        found = read_date(cell)
        if found is None:
            return False
        if found.wording:
            if found.wording not in self.wordings and len(self.wordings) == _MAX_WORDINGS:
                return False
            first = self.wordings.get(found.wording, (row, cell, 0))
            day = found.numbers[0]
            self.wordings[found.wording] = (row, cell, day) if day > first[2] else first
        elif found.group and "" not in found.moments:
            evidence = self.groups.setdefault(found.group, _Evidence())
            evidence.add(row, cell, found.moments, ("dmy", "mdy", "ymd"))
        for order in found.disputed:
            self.disputed.setdefault((found.group, order), (row, cell))
        return True

    def _add_amount(self, row: int, cell: str) -> bool:
        found = read_amount(cell)
        if found is None:
            return False
        numbers, currency = found
        if currency:
            self.currencies.setdefault(currency, (row, cell))
        self.groups.setdefault("", _Evidence()).add(row, cell, numbers, (".", ","))
        return True

    def settle(self) -> DateReading | AmountReading:
        """Return how the column is read. Raises TemplateError: the cells contradict each other, or do not tell."""
        orders: dict[str, str] = {}
        for group, evidence in self.groups.items():
            orders[group] = self._choose(group, evidence)
        if self.use.filter != "date":
            if len(self.currencies) > 1:
                (_, (row, cell)), (_, (other, another)) = list(self.currencies.items())[:2]
                raise self._error(
                    f"row {row} has {_quote(cell)} and row {other} {_quote(another)}, which are of two currencies",
                    "give each currency a column of its own",
                )
            return AmountReading(orders.get("", ""))
        for (group, order), (row, cell) in self.disputed.items():
            if orders.get(group, "") == order:
                raise self._error(f"the century of {_quote(cell)} in row {row} is not known", CENTURY_ADVICE)
        return DateReading(orders, self.find_months() if self.wordings else {})

    def _choose(self, group: str, evidence: _Evidence) -> str:
        left = evidence.left or frozenset()
        if evidence.conflict is not None:
            row, cell = evidence.conflict
            firsts = [evidence.excluded[order] for order in evidence.excluded if order != "ymd"] or [(row, cell)]
            other, another = firsts[0]
            raise self._error(
                f"row {other} has {_quote(another)} and row {row} {_quote(cell)}: no order of "
                + ("day and month" if self.use.filter == "date" else "point and comma")
                + " fits both",
                f"correct one of them, or say how they are written: {self._advice(another)}",
            )
        if group == "." and "dmy" in left:
            return "dmy"
        if len(left) > 1 and (shown := evidence.example()) is not None:
            row, cell = shown
            raise self._error(
                f"no cell shows {self._question()}: {_quote(cell)} in row {row} may be {self._meanings(cell, left)}",
                f"say which: {self._advice(cell)}",
            )
        return min(left)

    def _question(self) -> str:
        return "which is the day and which the month" if self.use.filter == "date" else "which is the decimal mark"

    def _meanings(self, cell: str, left: frozenset[str]) -> str:
        if self.use.filter == "date":
            found = read_date(cell)
            return describe_moments(
                {order: each for order, each in found.moments.items() if order in left} if found else {}
            )
        numbers = read_amount(cell)
        return " or ".join(f"{number:,}" for number in dict.fromkeys(numbers[0].values())) if numbers else ""

    def _advice(self, cell: str) -> str:
        if self.use.filter == "date":
            return f"{advise_input(cell)} or {advise_input(cell, 'dmy')}"
        return f'{self.use.filter}(input="1,234.50") or {self.use.filter}(input="1.234,50")'

    def find_months(self) -> dict[tuple[str, ...], int]:
        row, cell, _ = next(iter(self.wordings.values()))
        try:
            languages = load_languages()
        except ImportError:
            raise self._error(
                f"row {row} has {_quote(cell)}, whose month is not an English name",
                "for the names of other languages: pip install 'asyncsmtp[dates]'",
            ) from None
        found: list[dict[tuple[str, ...], int]] = []
        for months, others in languages:
            made = {words: month for words in self.wordings if (month := find_month(words, months, others))}
            if len(made) == len(self.wordings) and made not in found:
                found.append(made)
        if len(found) != 1:
            why = "may be of two languages" if found else "is not a date that is known in any one language"
            if not found:
                row, cell, _ = self._first_unknown(languages)
            raise self._error(f"{_quote(cell)} in row {row} {why}", "write the months as numbers, such as 2026-03-01")
        for words, month in found[0].items():
            row, cell, day = self.wordings[words]
            if not is_day_of_month(day, month):
                raise self._error(f"{_quote(cell)} in row {row} is not a date", "correct the cell")
        return found[0]

    def _first_unknown(self, languages: Iterable[tuple[Mapping[str, int], frozenset[str]]]) -> tuple[int, str, int]:
        """Return the first cell whose words the language that knows most of them does not know."""
        known: set[tuple[str, ...]] = set()
        for months, others in languages:
            here = {words for words in self.wordings if find_month(words, months, others)}
            known = max(known, here, key=len)
        return next(shown for words, shown in self.wordings.items() if words not in known)

    def _error(self, what: str, advice: str) -> TemplateError:
        return make_column_error(self.use, what, advice)


def make_column_error(use: FilterUse, what: str, advice: str) -> TemplateError:
    """Return the error about a column that a filter cannot take."""
    column = safe_text(use.column, 60)
    return TemplateError(f"|{use.filter} of the column “{column}”: {what}: {advice}", use.file, use.line, use.column)


def _quote(cell: str) -> str:
    return f"“{safe_text(cell, 40)}”"


class FormattedColumns(Protocol):
    """The columns of the recipients, by their names in templates, and the dates and amounts among them."""

    names: Mapping[str, str]
    formats: ColumnFormats | None

    def __contains__(self, column: object) -> bool: ...


class ColumnFormats:
    """The dates and amounts in the columns of a campaign: where templates use them, and how their cells are read.

    Give `add_row` every row, then call `settle`. Until then each cell stands for itself: one that may be two dates or
    two amounts is an error of its row.
    """

    def __init__(self) -> None:
        self._uses: dict[FilterUse, None] = {}
        self._readings: dict[tuple[bool, str], DateReading | AmountReading] = {}
        self._readers: dict[tuple[bool, str], _ColumnReader] = {}

    def __bool__(self) -> bool:
        return bool(self._uses)

    def add_use(self, use: FilterUse) -> None:
        """Note that a template applies a filter to a column."""
        self._uses[use] = None

    def bind(self, filter_: str, column: str) -> Callable[..., Any]:
        """Return the filter for the cells of one column."""
        function, key, readings = COLUMN_FILTERS[filter_], (filter_ == "date", column), self._readings

        def apply(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs, reading=readings.get(key))

        return apply

    def add_row(self, row: int, cells: Mapping[str, str]) -> bool:
        """Take the cells of a row; return False if only composing it tells whether it has an error.

        Raises:
            TemplateError: a cell is not what a filter takes that every row comes to.
        """
        invalid: dict[tuple[bool, str], bool] = {}
        is_certain = True
        for use in self._uses:
            cell, key = cells.get(use.column, ""), (use.filter == "date", use.column)
            if use.has_input:
                why = _try_input(use, cell)
            else:
                if key not in invalid:
                    if key not in self._readers:
                        self._readers[key] = _ColumnReader(use)
                    invalid[key] = not self._readers[key].add(row, cell)
                why = f"{_quote(cell)} is not {_KINDS[key[0]]}" if invalid[key] else ""
            if why and not use.is_conditional:
                raise make_column_error(use, f"row {row}: {why}", f"correct the cell{_suggest_condition(use)}")
            is_certain = is_certain and not why
        return is_certain

    def settle(self) -> None:
        """Decide how each column is read; it may take a second, for names of months in other languages.

        Raises:
            TemplateError: its cells contradict each other or do not tell; with the rows and what to write.
        """
        for key, reader in self._readers.items():
            self._readings[key] = reader.settle()

    def check_row(self, row: int, cells: Mapping[str, str]) -> bool:
        """Check a row of a further file by what was settled; return as `add_row` does.

        Raises:
            TemplateError: a cell is not to be read as those of the first file.
        """
        is_certain = True
        for use in self._uses:
            cell = cells.get(use.column, "")
            try:
                self.bind(use.filter, use.column)(cell, **({"input": use.input} if use.has_input else {}))
            except ValueError as error:
                if not use.is_conditional:
                    raise make_column_error(use, f"row {row}: {error}", "write it as in the first file") from None
                is_certain = False
        return is_certain


_KINDS = {True: "a date", False: "an amount"}


def _try_input(use: FilterUse, cell: str) -> str:
    """Return why a cell is not of the form that the template gives; "" if it is."""
    if use.input is None:  # it differs from row to row
        return ""
    try:
        COLUMN_FILTERS[use.filter](cell, input=use.input)
    except ValueError as error:
        return str(error)
    return ""


def _suggest_condition(use: FilterUse) -> str:
    return f", or leave it out in the template: {{% if … %}} around |{use.filter}"


# Where templates use them.

_TRANSPARENT = frozenset({"trim", "default", "d", "string", "e", "escape"})  # filters that leave a cell what it is
_CONDITIONAL = (nodes.For, nodes.Macro, nodes.CallBlock, nodes.And, nodes.Or)


def bind_filters(
    tree: nodes.Template,
    file: str,
    columns: FormattedColumns | None,
    add_filter: Callable[[str, Callable[..., Any]], None],
) -> None:
    """Make the filters of a template known, each for the column that it is applied to."""
    for name, function in COLUMN_FILTERS.items():
        add_filter(name, function)
    if columns is None:
        return
    if columns.formats is None:
        columns.formats = ColumnFormats()
    stored = {name.name for name in tree.find_all(nodes.Name) if name.ctx in ("store", "param")}
    for filter_, is_conditional in _find_filters(tree, is_conditional=False):
        column = _find_column(filter_.node, columns, stored)
        if column is None:
            continue
        given = _find_input(filter_)
        value = None if given is None else _constant(given)
        use = FilterUse(filter_.name, column, file, filter_.lineno, value, given is not None, is_conditional)
        columns.formats.add_use(use)
        if given is None:
            bound = f" {filter_.name} {column}"  # a name that no template can write
            add_filter(bound, columns.formats.bind(filter_.name, column))
            filter_.name = bound


def _find_filters(node: nodes.Node, *, is_conditional: bool) -> Iterator[tuple[nodes.Filter, bool]]:
    """Yield the filters for dates and amounts, and whether there may be rows that do not come to them."""
    if isinstance(node, nodes.Filter) and node.name in COLUMN_FILTERS and node.node is not None:
        yield node, is_conditional
    for name, value in node.iter_fields():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, nodes.Node):
                is_branch = isinstance(node, nodes.If | nodes.CondExpr) and name != "test"
                inner = is_conditional or is_branch or isinstance(node, _CONDITIONAL)
                yield from _find_filters(each, is_conditional=inner)


def _find_column(node: nodes.Node | None, columns: FormattedColumns, stored: set[str]) -> str | None:
    """Return the column of an expression: `name`, `row["Name"]`, `each.name` in a loop over rows; None for others."""
    while isinstance(node, nodes.Filter) and node.name in _TRANSPARENT:
        node = node.node
    if isinstance(node, nodes.Name):
        return None if node.name in stored else columns.names.get(node.name)
    if isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name):
        return node.attr if node.attr in columns else None
    if isinstance(node, nodes.Getitem) and isinstance(node.node, nodes.Name) and isinstance(node.arg, nodes.Const):
        return str(node.arg.value) if node.arg.value in columns else None
    return None


def _find_input(filter_: nodes.Filter) -> nodes.Expr | None:
    """Return the `input=` of a filter, by name or by place."""
    place = 1 if filter_.name == "date" else 3 if filter_.name == "money" else 0
    named = [each.value for each in filter_.kwargs if each.key == "input"]
    return (named + filter_.args[place : place + 1] + [None])[0]


def _constant(value: nodes.Expr) -> object:
    """Return the value of a constant, a list as a tuple; None for what differs from row to row."""
    try:
        found = value.as_const()
    except nodes.Impossible:
        return None
    return tuple(found) if isinstance(found, list) else found
