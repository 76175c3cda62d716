"""The rows of a campaign in a temporary database, as the preview lists them: searched, paged, problems first.

A million rows need not fit into memory: SQLite keeps them in a file of its own without a name, which is gone with the
process.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from weakref import finalize

from asyncsmtp.bulk.recipients.file import FIRST, SEND
from asyncsmtp.bulk.recipients.recipient import GroupedRow, Problem, Recipient, RowFields, address_key
from asyncsmtp.mail.mime import GroupedFields
from asyncsmtp.protocol.envelope import Mailbox
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.ledger.loading import SuppressionLookup

__all__ = ["IndexedRow", "RowIndex", "RowMark", "RowPage", "RowQuery"]

PAGE_SIZE = 100  # rows of one page
MAX_SHOWN = 120  # characters of what the list shows of a row
MAX_SEARCHED = 4000  # characters of a row that are searched
_BATCH = 500  # rows that are written at once: about four milliseconds

_SCHEMA = (
    """CREATE TABLE entry (row INTEGER PRIMARY KEY, line INTEGER, rank INTEGER, mark TEXT, reason TEXT, key TEXT,
        local TEXT, domain TEXT, cells TEXT, searched TEXT)""",
    "CREATE INDEX by_rank ON entry (rank, row)",
    "CREATE INDEX by_key ON entry (key, row) WHERE key IS NOT NULL",
)
# A row whose message cannot be composed comes without its cells, which an earlier reading has left here.
_WRITE = """
    INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (row) DO UPDATE SET line = excluded.line, rank = excluded.rank, mark = excluded.mark,
        reason = excluded.reason, key = excluded.key, local = coalesce(excluded.local, local),
        domain = coalesce(excluded.domain, domain), cells = coalesce(excluded.cells, cells),
        searched = coalesce(excluded.searched, searched)
"""
_MARK_DUPLICATES = """
    UPDATE entry SET mark = ?, rank = ?, reason = 'names the mailbox of row ' || first || ' again, and is left out'
    FROM (SELECT row AS later, (SELECT min(row) FROM entry AS one WHERE one.key = entry.key) AS first FROM entry
          WHERE row BETWEEN ? AND ? AND key IS NOT NULL)
    WHERE row = later AND first < later
"""
_ORDERS = {"problems": ("rank, row", "(rank, row)", 2), "file": ("row", "(row)", 1)}
_COLUMNS = "row, line, mark, reason, local, domain, cells"


class RowMark(StrEnum):
    """The mark of a row in the list, known before its message is looked at."""

    NONE = ""
    PROBLEM = "cannot be mailed"
    SUPPRESSED = "suppressed"
    DUPLICATE = "duplicate"
    REMARK = "remark"
    LEFT_OUT = "left out"


_RANKS = {RowMark.PROBLEM: 0, RowMark.SUPPRESSED: 1, RowMark.DUPLICATE: 1, RowMark.REMARK: 1}
_LAST = 2


@dataclass(frozen=True, slots=True)
class RowQuery:
    """A query for some of the rows, and their order.

    Attributes:
        words: all of them occur in a cell or the reason, or are the number of the row.
        order: `problems`: those with a problem first; `file`: as the file has them.
        offset: rows before the first one that is listed; None: the page that has the selected row.
    """

    words: str = ""
    order: str = "problems"
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class IndexedRow:
    """One row.

    Attributes:
        mark, reason: what there is to know of it.
        address: its mailbox, or the beginning of its cells if it has none.
        detail: the reason, or the other cells.
        recipient: whom its message goes to; None if it has no valid address.
    """

    row: int
    line: int
    mark: RowMark
    reason: str
    address: str
    detail: str
    recipient: Recipient | None


@dataclass(frozen=True, slots=True)
class RowPage:
    """A page of the list.

    Attributes:
        offset: rows before the first one. total: rows that the query finds, of `all_rows`.
        problems: rows that cannot be mailed, of all.
        selected: the chosen row; None if it has not been read, or does not exist.
        previous, following: the rows beside it in the order of the list.
    """

    rows: Sequence[IndexedRow] = ()
    offset: int = 0
    total: int = 0
    all_rows: int = 0
    problems: int = 0
    selected: IndexedRow | None = None
    previous: int | None = None
    following: int | None = None


class RowIndex:
    """The rows of one file of recipients, with what the last reading found. Use it in one thread.

    Args:
        duplicates: what several rows of a mailbox get, as of a `RecipientFile`.
    """

    def __init__(self, duplicates: str = FIRST) -> None:
        self._duplicates = duplicates
        self._columns: dict[str, int] = {}
        self._waiting: list[Recipient | Problem] = []
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        finalize(self, self._database.close)  # a file without a name, which nobody else has
        for statement in ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", *_SCHEMA):
            self._database.execute(statement)

    def add(self, row: Recipient | Problem, lists: SuppressionLookup | None = None) -> bool:
        """Add a row, or what is known of it by now; return whether rows were written, which happens 500 at a time."""
        self._waiting.append(row)
        if len(self._waiting) < _BATCH:
            return False
        self.flush(lists)
        return True

    def flush(self, lists: SuppressionLookup | None = None) -> None:
        """Write the rows that were added.

        Args:
            lists: whose addresses get nothing.
        Raises:
            SuppressionError: a list cannot be used. OSError: there is no space for the rows.
        """
        rows, self._waiting = self._waiting, []
        if not rows:
            return
        keys = {row.row: address_key(row.mailbox) for row in rows if isinstance(row, Recipient)}
        suppressed = lists.reasons({*keys.values()}) if lists else {}
        numbers = [row.row for row in rows]
        try:
            self._database.execute("BEGIN")
            self._database.executemany(_WRITE, [self._make_entry(row, keys.get(row.row), suppressed) for row in rows])
            if self._duplicates == FIRST:
                mark = RowMark.DUPLICATE
                self._database.execute(_MARK_DUPLICATES, (mark, _RANKS[mark], min(numbers), max(numbers)))
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            raise OSError(f"the rows cannot be kept in a temporary file: {error}") from error

    def _make_entry(
        self, row: Recipient | Problem, key: str | None, suppressed: Mapping[str, str]
    ) -> tuple[object, ...]:
        mark, reason = _describe(row, key, suppressed)
        fields = row.fields
        local = domain = cells = searched = None
        if isinstance(row, Recipient):
            self._columns = self._columns or {name: place for place, name in enumerate(fields)}
            local, domain = row.mailbox.local, row.mailbox.domain
        if fields:
            own = [*fields.values()]
            grouped = [[*each.values()] for each in fields.rows] if isinstance(fields, GroupedFields) else []
            cells = json.dumps([own, *grouped])
            searched = "\n".join([*own, reason])[:MAX_SEARCHED].casefold()
        rank = _RANKS.get(mark, _LAST)
        return row.row, row.line, rank, mark, reason, key, local, domain, cells, searched

    def find(self, row: int) -> IndexedRow | None:
        """Return a row; None if it has not been read, or does not exist."""
        found = self._select(_COLUMNS, "row = ?", [row])
        return self._make_row(*found[0]) if found else None

    def find_first(self) -> int | None:
        """Return the first row that gets a message; None if there is none yet."""
        marks = [RowMark.NONE, RowMark.REMARK]
        found = self._select("row", "mark IN (?, ?) AND local IS NOT NULL", marks, "ORDER BY row LIMIT 1")
        return found[0][0] if found else None

    def count(self) -> int:
        """Return the number of rows."""
        ((number,),) = self._select("count(*)")
        return int(number)

    def read_page(self, query: RowQuery, row: int | None) -> RowPage:
        """Return a page of the list, with the chosen row and its neighbours."""
        order, place, width = _ORDERS.get(query.order, _ORDERS["problems"])
        where, values = _condition(query.words)
        all_rows = self.count()
        ((total,),) = self._select("count(*)", where, values) if values else ((all_rows,),)
        ((problems,),) = self._select("count(*)", "rank = 0")
        selected = None if row is None else self.find(row)
        previous = following = None
        offset = query.offset
        if selected is not None:
            here = [*values, *(_RANKS.get(selected.mark, _LAST), selected.row)[-width:]]
            marks = f"({', '.join('?' * width)})"
            before, after = (f"{where} AND {place} {sign} {marks}" for sign in "<>")
            backwards = ", ".join(f"{name} DESC" for name in order.split(", "))
            earlier = self._select("row", before, here, f"ORDER BY {backwards} LIMIT 1")
            later = self._select("row", after, here, f"ORDER BY {order} LIMIT 1")
            previous, following = (found[0][0] if found else None for found in (earlier, later))
            if offset is None:
                ((rows_before,),) = self._select("count(*)", before, here)
                offset = rows_before // PAGE_SIZE * PAGE_SIZE
        offset = min(offset or 0, max(0, (total - 1) // PAGE_SIZE * PAGE_SIZE))
        rows = self._select(_COLUMNS, where, [*values, PAGE_SIZE, offset], f"ORDER BY {order} LIMIT ? OFFSET ?")
        made = [self._make_row(*each) for each in rows]
        return RowPage(made, offset, total, all_rows, problems, selected, previous, following)

    def close(self) -> None:
        """Remove the database."""
        self._database.close()

    def _select(
        self, what: str, where: str = "1", values: Sequence[object] = (), rest: str = ""
    ) -> list[tuple[Any, ...]]:
        """Return rows of the table; the parts of the query are ours, and what somebody typed is in the values."""
        return self._database.execute(f"SELECT {what} FROM entry WHERE {where} {rest}", values).fetchall()  # noqa: S608

    def _make_row(
        self, row: int, line: int, mark: str, reason: str, local: str | None, domain: str | None, cells: str | None
    ) -> IndexedRow:
        own, *rows = json.loads(cells) if cells else [[]]
        recipient = None
        if local is not None and domain is not None:
            mailbox = Mailbox(local, domain)
            fields: Mapping[str, str] = RowFields(self._columns, tuple(own))
            if rows:
                fields = GroupedFields(fields, [dict(zip(self._columns, each, strict=True)) for each in rows])
            remark = reason if mark == RowMark.REMARK else ""
            recipient = Recipient(row, mailbox, fields, line, remark, self._duplicates == SEND)
        filled = [cell for cell in own if cell and not cell.isspace()]
        if recipient is None:
            address, others = filled[0] if filled else "", filled[1:]
        else:
            address = recipient.mailbox.address
            others = [cell for cell in filled if cell != address]
        shown = safe_text(address, MAX_SHOWN), safe_text(reason or " · ".join(others), MAX_SHOWN)
        return IndexedRow(row, line, RowMark(mark), reason, *shown, recipient)


def _describe(row: Recipient | Problem, key: str | None, suppressed: Mapping[str, str]) -> tuple[RowMark, str]:
    """Return what there is to know of a row, and why."""
    if isinstance(row, GroupedRow):
        return RowMark.DUPLICATE, row.reason
    if isinstance(row, Problem):
        return (RowMark.LEFT_OUT if row.left_out else RowMark.PROBLEM), row.reason
    if key is not None and key in suppressed:
        why = safe_text(suppressed[key], MAX_SHOWN)
        return RowMark.SUPPRESSED, f"is on a suppression list, and gets nothing{f': {why}' if why else ''}"
    return (RowMark.REMARK, f"{row.remark}; will be mailed anyway") if row.remark else (RowMark.NONE, "")


def _condition(words: str) -> tuple[str, list[object]]:
    """Return a condition that all words meet: within the cells and the reason, or as the number of the row."""
    parts: list[str] = []
    values: list[object] = []
    for word in words.casefold().split()[:10]:
        number = int(word) if word.isascii() and word.isdigit() and len(word) < 12 else -1
        parts.append("(instr(searched, ?) OR row = ?)")
        values += [word, number]
    return " AND ".join(parts) or "1", values
