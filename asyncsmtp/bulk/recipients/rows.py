"""One record, judged: a Recipient to mail, or a Problem that says why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, KeysView, Mapping, Sequence
from dataclasses import dataclass, field

from asyncsmtp.bulk.csvfile.addresses import mailbox_in, oddity_of
from asyncsmtp.bulk.csvfile.records import Record
from asyncsmtp.bulk.recipients.selection import Selection
from asyncsmtp.errors import RecipientError
from asyncsmtp.protocol.envelope import Mailbox
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Fields", "Judge", "Problem", "Recipient", "Rules"]


class Fields(Mapping[str, str]):
    """Column -> cell of one row, immutable; `dict(fields)` is what JSON takes.

    Rows share the table of columns: a row costs a tuple of its cells.
    """

    __slots__ = ("_cells", "_columns")

    def __init__(self, columns: dict[str, int], cells: tuple[str, ...]) -> None:
        """`columns` maps each name to its place in `cells`; it is shared, not copied."""
        self._columns = columns
        self._cells = cells

    def __getitem__(self, column: str) -> str:
        return self._cells[self._columns[column]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __contains__(self, column: object) -> bool:
        return column in self._columns

    def keys(self) -> KeysView[str]:
        return self._columns.keys()

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells in the order of the columns."""
        return self._cells

    def __repr__(self) -> str:
        return f"Fields({dict(self)!r})"


@dataclass(frozen=True, slots=True)
class Recipient:
    """One row to mail.

    Attributes:
        row: counts the file's records from 1, header and empty lines excluded.
        line: the physical line on which the row begins, from 1; 0 when it did not come from a file.
        remark: what a person should know of this row although it is mailed.
    """

    row: int
    mailbox: Mailbox
    fields: Mapping[str, str] = field(hash=False)
    line: int = field(default=0, compare=False)
    remark: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Problem:
    """One row that is not mailed, and why.

    Attributes:
        fields: its cells as far as they could be read, for whoever is to correct them.
        left_out: nothing is wrong with it, it is none of this campaign's.
    """

    row: int
    line: int
    reason: str
    fields: Mapping[str, str] = field(default_factory=dict, hash=False, compare=False)
    left_out: bool = False

    def __str__(self) -> str:
        return f"row {self.row} (line {self.line}): {self.reason}"


@dataclass(frozen=True, slots=True)
class Rules:
    """What a row must have beside an address.

    Attributes:
        needed: the columns that are used; a row may be too short for the others. None: all of them.
        one_line: the columns that stand in a header field, where a line break cannot.
        checks: further ones, called for each row in turn; each returns why the row cannot be mailed, or "".
        selection: which rows the campaign is for; None: all.
    """

    needed: frozenset[str] | None = None
    one_line: frozenset[str] = frozenset()
    checks: tuple[Callable[[Recipient], str], ...] = ()
    selection: Selection | None = None


class Judge:
    """Turns records into recipients and problems by the columns of one file."""

    def __init__(self, columns: Sequence[str], email: str, rules: Rules) -> None:
        self._columns = tuple(columns)
        self._places = {name: place for place, name in enumerate(columns)}
        self._email = self._places[email]
        self._rules = rules
        self._one_line = [self._places[name] for name in self._columns if name in rules.one_line]

    def judge(self, record: Record) -> Recipient | Problem:
        """Say what becomes of one record."""
        row, line, cells, fault = record
        if fault:
            return Problem(row, line, fault, self._as_read(cells))
        remark = ""
        try:
            if len(cells) != len(self._columns):
                remark = self._even_out(cells)
            if (selection := self._rules.selection) is not None:  # before the address: it may be what is asked about
                fields = Fields(self._places, tuple(cells))
                if why := selection.left_out(row, fields):
                    return Problem(row, line, why, fields, left_out=True)
            address = cells[self._email]
            if not address or address.isspace():
                raise RecipientError(self._blank(cells))
            mailbox = mailbox_in(address)
            if not address.isascii():
                remark = remark or oddity_of(address)
            for place in self._one_line:
                if "\n" in cells[place] or "\r" in cells[place]:
                    raise RecipientError(f"{self._shown(place)} stands in a header and holds a line break: take it out")
        except RecipientError as error:
            return Problem(row, line, error.reason, self._as_read(cells))
        recipient = Recipient(row, mailbox, Fields(self._places, tuple(cells)), line, remark)
        for check in self._rules.checks:
            if reason := check(recipient):
                return Problem(row, line, reason, recipient.fields)
        return recipient

    def _as_read(self, cells: Sequence[str]) -> Fields:
        """The cells under their columns; those without a column are left out."""
        width = len(self._columns)
        return Fields(self._places, (*cells[:width], *[""] * (width - len(cells))))

    def _even_out(self, cells: list[str]) -> str:
        """Give `cells` the length of the header; return what is to be remarked."""
        have, width = len(cells), len(self._columns)
        counted = f"has {have} {'cell' if have == 1 else 'cells'} where the header has {width}"
        if have > width:
            if "".join(cells[width:]).strip():
                raise RecipientError(f"{counted}: put quotes round a cell that holds the delimiter")
            del cells[width:]
            return ""
        missing = self._columns[have:]
        needed = [name for name in missing if self._rules.needed is None or name in self._rules.needed]
        if self._email >= have or needed:
            if not "".join(cells).strip():
                raise RecipientError(self._blank(cells))
            first = self._shown(self._email if self._email >= have else self._places[needed[0]])
            raise RecipientError(f"{counted}: {first} is missing")
        cells.extend([""] * len(missing))
        return f"{counted}; what is missing is not used"

    def _blank(self, cells: Sequence[str]) -> str:
        if not "".join(cells).strip():
            return "every cell is blank: delete the row"
        return f"{self._shown(self._email)} is blank: fill in the address, or delete the row"

    def _shown(self, place: int) -> str:
        return f"“{safe_text(self._columns[place], 60)}”"
