"""Recipients and problems: validation of a record and its address, the key of an address, the filter of rows."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, KeysView, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from asyncsmtp.bulk.recipients.csv_format import Record
from asyncsmtp.errors import InvalidArgument, RecipientError
from asyncsmtp.protocol.envelope import Mailbox
from asyncsmtp.protocol.replies import safe_text

__all__ = [
    "BELOW_TABLE",
    "CopyRecipient",
    "GroupedRow",
    "NamedMailbox",
    "Problem",
    "Recipient",
    "RecipientWithCopies",
    "RowFields",
    "RowFilter",
    "RowRules",
    "RowValidator",
    "address_key",
    "find_mixed_scripts",
    "may_be_footer",
    "parse_address_cell",
]


class RowFilter:
    """A filter of rows by a condition and an offset.

    The condition is a Jinja2 expression, in its sandbox: `country == "AT" and plan != "free"`, `"@example.com" in
    email`, `age|int >= 18`. Every cell is text.

    Args:
        where: the condition; None: every row.
        offset: the number of rows at the beginning that are left out.
        aliases: further names of columns.
    """

    def __init__(
        self,
        columns: Sequence[str],
        where: str | None = None,
        offset: int = 0,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        """Raises InvalidArgument: the condition is not valid, or names an unknown column."""
        # Late, as Jinja2 below: ledgers import recipients, and many commands need no template.
        from asyncsmtp.mail.templates.variables import Columns

        self._columns = Columns(columns, aliases)
        self._offset = offset
        self._where = where
        self.used_columns: frozenset[str] = frozenset()  # that the condition names
        self._condition = None if where is None else self._compile(where)

    def __bool__(self) -> bool:
        return self._condition is not None or self._offset > 0

    def for_added_file(self) -> RowFilter:
        """Return the filter for the rows of an added file: the same condition, and no offset."""
        another = copy(self)
        another._offset = 0
        return another

    def left_out(self, row: int, fields: Mapping[str, str]) -> str:
        """Return why a row is left out; "" if it is not. Raises InvalidArgument: the condition fails on this row."""
        if row <= self._offset:
            return f"left out: before row {self._offset + 1}"
        if self._condition is None:
            return ""
        named = {name: fields[column] for name, column in self._columns.names.items() if column in fields}
        try:
            result = bool(self._condition(**named, row=dict(fields)))  # of what is undefined, bool() fails
        except Exception as error:  # an expression may raise anything
            raise InvalidArgument(f"where= fails on row {row}: {safe_text(str(error), 200)}: correct it") from error
        return "" if result else f"left out: not {safe_text(str(self._where), 200)}"

    def _compile(self, where: str) -> Callable[..., object]:
        from jinja2 import StrictUndefined, TemplateSyntaxError, meta
        from jinja2.nodes import Template
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
        try:
            parsed: Template = environment.parse("{{" + where + "}}")
            condition = environment.compile_expression(where, undefined_to_none=False)
            names = sorted(meta.find_undeclared_variables(parsed))
        except TemplateSyntaxError as error:
            raise InvalidArgument(f"where= is not a valid condition: {safe_text(str(error.message), 200)}") from None
        except (RecursionError, MemoryError, SyntaxError):  # of Jinja2, of the interpreter's parser and its compiler
            raise InvalidArgument("where= is nested too deeply: write a shorter condition") from None
        except ValueError:  # of the interpreter: more than 4,300 digits
            raise InvalidArgument("where= has a number that is too long: write a shorter one") from None
        for name in names:
            if name not in self._columns.names and name != "row":
                advice = self._columns.advice(name)
                raise InvalidArgument(f"where=: there is no column “{safe_text(name, 60)}”; {advice}")
        every = "row" in names
        self.used_columns = frozenset(self._columns.names[name] for name in names if name in self._columns.names)
        self.used_columns |= frozenset(self._columns.names.values()) if every else frozenset()
        return condition


_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_SURROUNDING = " \t\u00a0"  # left round a copied address by spreadsheets and web pages; never a line break
_DOTS_IN_QUOTES = re.compile(r'"[A-Za-z0-9_+-][A-Za-z0-9._+-]*"')
_SPELLED_AT = re.compile(r"[(\[{<]\s*(?:at|a|ät)\s*[)\]}>]|\s(?:at|ät)\s|[_-]at[_-]", re.IGNORECASE)
_SPELLED_DOT = re.compile(r"[(\[{<]\s*(?:dot|punkt|point)\s*[)\]}>]", re.IGNORECASE)
_SIMILAR_SCRIPTS = frozenset({"ARMENIAN", "CHEROKEE", "CYRILLIC", "GREEK", "LATIN"})  # have letters that look the same


class RowFields(Mapping[str, str]):
    """An immutable mapping of column to cell of one row; JSON takes `dict(fields)`.

    Rows share the table of columns: a row costs a tuple of its cells.
    """

    __slots__ = ("_cells", "_columns")

    def __init__(self, columns: dict[str, int], cells: tuple[str, ...]) -> None:
        """Take the cells; `columns` maps each name to its index in `cells` and is shared, not copied."""
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
        return f"RowFields({dict(self)!r})"


class NamedMailbox(NamedTuple):
    """An address of a cell, with the name that stands beside it; "" for none."""

    mailbox: Mailbox
    name: str


@dataclass(frozen=True, slots=True)
class Recipient:
    """One row to mail.

    Attributes:
        row: the number of the record in the file, from 1, header and empty lines excluded.
        line: the physical line on which the row begins, from 1; 0 if it did not come from a file.
        remark: a sentence for a person to look at, although the row is mailed.
        separate: it gets a message of its own, whoever has its mailbox too.
        repaired: the cell of the address as the file has it, if it was repaired.
        addresses: of that cell, if there are several; each but the first is a further row, behind the file's last.
    """

    row: int
    mailbox: Mailbox
    fields: Mapping[str, str] = field(hash=False)
    line: int = field(default=0, compare=False)
    remark: str = field(default="", compare=False)
    separate: bool = field(default=False, compare=False)
    repaired: str = field(default="", compare=False)
    addresses: tuple[NamedMailbox, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class RecipientWithCopies(Recipient):
    """One row of a campaign with Cc or Bcc, or with a sender that differs from row to row.

    Attributes:
        copies: `cc` or `bcc`, and the mailbox, of everyone who gets a copy of its message.
        author: the mailbox in From.
    """

    copies: tuple[tuple[str, Mailbox], ...] = ()
    author: Mailbox | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyRecipient(Recipient):
    """Somebody in Cc or Bcc of a row, as the ledger has them; `row` is their number there, see `find_file_row`.

    Attributes:
        kind: `cc` or `bcc`.
        to: the mailbox in To.
        message_id: of the message to that one, without angle brackets; the copy has the same.
    """

    kind: str
    to: Mailbox
    message_id: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One row that is not mailed, with the reason.

    Attributes:
        fields: its cells as far as they could be read.
        left_out: it is valid, but not part of this campaign.
        repaired, addresses: as of a `Recipient`; other addresses of the cell may be mailed.
    """

    row: int
    line: int
    reason: str
    fields: Mapping[str, str] = field(default_factory=dict, hash=False, compare=False)
    left_out: bool = False
    repaired: str = field(default="", compare=False)
    addresses: tuple[NamedMailbox, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return f"row {self.row} (line {self.line}): {self.reason}"


@dataclass(frozen=True, slots=True)
class GroupedRow(Problem):
    """One row that has no message of its own: it is in the message to its mailbox.

    Attributes:
        first: the row that has the message, and its outcome.
        address: as this row has it.
    """

    first: int = 0
    address: str = ""


@dataclass(frozen=True, slots=True)
class RowRules:
    """Requirements of a row beside a valid address.

    Attributes:
        needed: the columns that are used; a row may lack the others at its end. None: all of them.
        one_line: the columns that stand in a header field, where no line break can stand.
        checks: further checks, called in turn; each returns the reason why the row cannot be mailed, or "".
        row_filter: the rows that the campaign is for; None: all.
        expand: returns a row with its copies; raises RecipientError if it cannot be mailed. None: there are no copies.
    """

    needed: frozenset[str] | None = None
    one_line: frozenset[str] = frozenset()
    checks: tuple[Callable[[Recipient], str], ...] = ()
    row_filter: RowFilter | None = None
    expand: Callable[[Recipient], Recipient] | None = None


class RowValidator:
    """A validator of the records of one file, with its columns and rules.

    Args:
        separate: each row gets a message of its own.
        trim: take blanks off both ends of each cell.
        repair: return the addresses in a cell that is not one; None repairs none.
        name_column: the column for the name beside an address; it may be one behind the `columns`, which no file has.
    """

    def __init__(
        self,
        columns: Sequence[str],
        email: str,
        rules: RowRules,
        *,
        separate: bool = False,
        trim: bool = False,
        repair: Callable[[str], list[NamedMailbox]] | None = None,
        name_column: str = "",
    ) -> None:
        self._columns = tuple(columns)
        self._places = {name: place for place, name in enumerate(columns)}
        if name_column:
            self._places.setdefault(name_column, len(columns))
        self._name = self._places.get(name_column, 0)
        self._repair = repair
        self._email = self._places[email]
        self._separate = separate
        self._trim = trim
        self._rules = rules
        self._one_line = [self._places[name] for name in self._columns if name in rules.one_line]
        self._has_short_rows = False

    def validate(self, record: Record) -> Recipient | Problem:
        """Return the recipient of one record, or the problem with it."""
        row, line, cells, fault = record
        if fault:
            return Problem(row, line, fault, self._as_read(cells))
        if self._trim:
            cells = [cell.strip() for cell in cells]
        remark = ""
        try:
            if len(cells) != len(self._columns):
                remark = self._adjust_length(cells)
        except RecipientError as error:
            return Problem(row, line, error.reason, self._as_read(cells))
        if self._repair is None:
            return self._check(row, line, cells, remark)
        repaired, addresses = self._repair_address(cells, self._repair)
        return replace(self._check(row, line, cells, remark), repaired=repaired, addresses=addresses)

    def _check(self, row: int, line: int, cells: list[str], remark: str) -> Recipient | Problem:
        """Return the recipient of a row that has as many cells as the header."""
        try:
            if (row_filter := self._rules.row_filter) is not None:  # before the address: the condition may be about it
                fields = RowFields(self._places, tuple(cells))
                if why := row_filter.left_out(row, fields):
                    return Problem(row, line, why, fields, left_out=True)
            address = cells[self._email]
            if not address or address.isspace():
                raise RecipientError(self._blank(cells))
            mailbox = parse_address_cell(address)
            if not address.isascii():
                remark = remark or find_mixed_scripts(address)
            if ".." in address or ".@" in address or '."' in address:
                remark = remark or _describe_dots(mailbox)
            for place in self._one_line:
                if "\n" in cells[place] or "\r" in cells[place]:
                    raise RecipientError(f"{self._column(place)} stands in a header and has a line break: remove it")
        except RecipientError as error:
            return Problem(row, line, error.reason, self._as_read(cells))
        fields = RowFields(self._places, tuple(cells))
        recipient = Recipient(row, mailbox, fields, line, remark, self._separate)
        for check in self._rules.checks:
            if reason := check(recipient):
                return Problem(row, line, reason, recipient.fields)
        if self._rules.expand is None:
            return recipient
        try:
            return self._rules.expand(recipient)
        except RecipientError as error:
            return Problem(row, line, error.reason, recipient.fields)

    def validate_further(self, row: Recipient | Problem, number: int) -> Iterator[Recipient | Problem]:
        """Yield a row for each address of a cell but the first, from `number` on."""
        cells = list(row.fields.values())
        own = "" if cells[self._name] == row.addresses[0].name else cells[self._name]
        for number, (mailbox, name) in enumerate(row.addresses[1:], number):  # noqa: B020
            cells[self._email], cells[self._name] = mailbox.address, own or name
            yield self._check(number, row.line, list(cells), "")

    def _repair_address(
        self, cells: list[str], repair: Callable[[str], list[NamedMailbox]]
    ) -> tuple[str, tuple[NamedMailbox, ...]]:
        """Repair the cell of the address in place, and add the name, unless the row has one in that column.

        Returns the cell as it was, "" if it is right or cannot be repaired; and its addresses if there are several.
        """
        if self._name == len(cells):
            cells.append("")
        address = cells[self._email]
        try:
            parse_address_cell(address)
        except RecipientError:
            try:
                found = repair(address)
            except RecipientError:
                return "", ()  # the reason is given where every cell is parsed
            cells[self._email] = found[0].mailbox.address
            cells[self._name] = cells[self._name] or found[0].name
            return address, tuple(found) if len(found) > 1 else ()
        return "", ()

    def _as_read(self, cells: Sequence[str]) -> RowFields:
        """Return the cells by column, without those beyond the header."""
        width = len(self._places)
        return RowFields(self._places, (*cells[:width], *[""] * (width - len(cells))))

    def _adjust_length(self, cells: list[str]) -> str:
        """Give `cells` the length of the header; return a remark, or ""."""
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
            first = self._column(self._email if self._email >= have else self._places[needed[0]])
            raise RecipientError(f"{counted}: {first} is missing")
        cells.extend([""] * len(missing))
        if self._has_short_rows:  # spreadsheets leave out the delimiters at the end of many rows
            return ""
        self._has_short_rows = True
        return f"{counted}; the missing ones are not used, nor are those of further rows that are too short"

    def _blank(self, cells: Sequence[str]) -> str:
        if not "".join(cells).strip():
            return "every cell is blank: delete the row"
        return f"{self._column(self._email)} is blank: fill in the address, or delete the row"

    def _column(self, place: int) -> str:
        return f"“{safe_text(self._columns[place], 60)}”"


# Words at the beginning of a row below a table that is no recipient.
_FOOTER = re.compile(
    r"\W*(?:(?:sub|grand )?totals?|sum|summe|gesamt|insgesamt|anzahl|total général|somme|totale|suma|razem|count|"
    r"exported|generated|created|printed|erstellt|exportiert|confidential|"
    r"(?:page|seite) [0-9]+|(?:stand|source|quelle)(?= *:))\b|\s*©",
    re.IGNORECASE,
)
BELOW_TABLE = "left out: it is below the table and has no address"


def may_be_footer(record: Record, width: int, blank_line: int) -> bool:
    """Return whether a record without an address may be a footer: a total, a date of export.

    Args:
        width: the number of columns. blank_line: the line of the last blank row; a footer often follows one.
    """
    filled = [cell for cell in record.cells if cell and not cell.isspace()]
    if record.fault or any("@" in cell for cell in filled) or len(filled) > max(2, width // 2):
        return False
    is_apart = blank_line == record.line - 1 and len(filled) <= max(1, width // 2)
    return is_apart or bool(filled and _FOOTER.match(filled[0]))


def parse_address_cell(cell: str) -> Mailbox:
    """Parse the one address in `cell`; surrounding spaces are ignored.

    Raises:
        RecipientError: the cell has anything else. Nothing is guessed or cut off, so the address mailed is the one in
            the cell. Quoted local parts are refused unless only their dots need the quotes, as in old addresses of
            Japanese carriers: others can smuggle parameters into a command.
    """
    text = cell.strip(_SURROUNDING)
    try:
        mailbox = Mailbox.parse(text)
    except RecipientError as error:
        raise RecipientError(_explain(text) or error.reason) from None
    if mailbox.local[0] == '"' and not _DOTS_IN_QUOTES.fullmatch(mailbox.local):
        raise RecipientError(f"{_quote(text)} has a quoted local part, which is not accepted from a file")
    if not mailbox.domain:
        raise RecipientError(f"{_quote(text)} has no domain: write name@domain")
    return mailbox


def address_key(mailbox: Mailbox) -> str:
    """Return the key by which duplicates and suppression lists compare addresses: equal for what one person has.

    The whole address casefolded, in NFC, with the domain in A-labels and without needless quotes. RFC 5321 §2.4 lets
    a server tell `Bob@` from `bob@`, and `Mailbox.key` does; but who unsubscribed as `bob@` is the person in the row
    `Bob@`. The key is only compared, never mailed to.
    """
    local, domain = mailbox.local, mailbox.domain
    if local[0] == '"' and (unquoted := _QUOTED_PAIR.sub(r"\1", local[1:-1])):  # RFC 5321 §4.1.2: `"bob"` is `bob`
        local = unquoted
    if local.isascii():  # nearly all, and six times as fast
        return f"{local}@{domain}".lower()
    # Unicode, definition D145, with NFC for NFD at its end: a canonical caseless match.
    local = unicodedata.normalize("NFC", unicodedata.normalize("NFD", local).casefold())
    return f"{local}@{domain.lower()}"


def find_mixed_scripts(cell: str) -> str:
    """Return a remark on a domain label that mixes alphabets, or "".

    Such a label looks like another one: “exаmple” with a Cyrillic “а”.
    """
    for label in cell.rpartition("@")[2].split("."):
        if not label.isascii():
            scripts = {unicodedata.name(letter, "").partition(" ")[0] for letter in label if letter.isalpha()}
            if len(alike := sorted(scripts & _SIMILAR_SCRIPTS)) > 1:
                return f"the domain of {_quote(cell)} mixes {' and '.join(map(str.title, alike))} letters: is it meant?"
    return ""


def _describe_dots(mailbox: Mailbox) -> str:
    """Return a remark on a local part that ends with a dot or has two in a row, as some Japanese carriers allowed."""
    what = "two dots in a row" if ".." in mailbox.local else "a dot before the @"
    return f"{_quote(mailbox.address)} has {what}, which few servers accept: is it meant?"


def _explain(text: str) -> str:
    """Explain a frequent mistake; return "" where the parser's own error is better."""
    if "\n" in text or "\r" in text:
        return f"{_quote(text)} has a line break: keep one address alone in the cell"
    if "<" in text or ">" in text:
        return f"{_quote(text)} has more than the address: keep what is between < and >, the name in its own column"
    if text.count("@") > 1 and any(mark in text for mark in ",; \t"):
        return f"{_quote(text)} has more than one address: give each a row of its own"
    if ("@" not in text and _SPELLED_AT.search(text)) or _SPELLED_DOT.search(text):
        return f"{_quote(text)} spells out its @ or dots: write the address as it is, name@domain"
    if text.lower().startswith("mailto:"):
        return f"{_quote(text)} begins with “mailto:”: keep only the address"
    return ""


def _quote(text: str) -> str:
    return f"“{safe_text(text, 80)}”"
