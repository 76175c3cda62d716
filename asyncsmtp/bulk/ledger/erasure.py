"""Erasure of personal data in a ledger: of one person, or of everybody when the retention has passed.

Rows stay, with their state, code and times, so that all counts are what they were. What goes is the address, its key,
the Message-ID (whoever has the campaign's secret could test addresses with it), the cells, and the relay's words, which
often repeat the address. A row that was still to be sent never is; one in doubt is given up, since nobody can look for
its message any more.

The scripts are part of one transaction each, as those of `queries`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

from asyncsmtp.bulk.interfaces import RunTotals
from asyncsmtp.bulk.ledger import STORED
from asyncsmtp.bulk.ledger.interfaces import FIRST_COPY, RowState
from asyncsmtp.bulk.ledger.queries import ENTRY_BATCHES, Queries, Script, Statement
from asyncsmtp.bulk.ledger.statistics import TOTALS
from asyncsmtp.bulk.ledger.suppression_list import ERASED, erase_text, hash_key
from asyncsmtp.bulk.ledger.transitions import EXPIRED, FORGOTTEN, RETENTION, UNCLEAN, batch_number, from_microseconds
from asyncsmtp.bulk.recipients.recipient import address_key
from asyncsmtp.errors import LedgerError, RecipientError
from asyncsmtp.protocol.envelope import Mailbox

__all__ = ["ErasedRows", "erase_all", "erase_person", "is_expired", "is_person", "mentions", "read_forgotten"]

UNSENT = frozenset({RowState.PENDING, RowState.DEFERRED})

_READ = """
SELECT d.seq, d.state, r.address, coalesce(d.reply, ''), r.vars
FROM delivery AS d {join} recipient AS r USING (campaign_id, batch_no, seq)
WHERE d.campaign_id = :campaign AND d.batch_no >= :first AND d.batch_no < :end
AND r.batch_no >= :first AND r.batch_no < :end ORDER BY d.seq"""
_ROW = "WHERE campaign_id = :campaign AND batch_no = :batch AND seq = :row"
_ERASE_RECIPIENT = f"UPDATE recipient SET address = NULL, dedupe = NULL, message_id = NULL, vars = :vars {_ROW}"  # noqa: S608
_ERASE_DELIVERY = f"UPDATE delivery SET state = :after, reply = :reply, epoch = :run {_ROW}"  # noqa: S608
_END_DELIVERY = f"""
UPDATE delivery SET state = :after, reply = :reply, code = NULL, status = NULL, host = NULL, next_us = NULL,
epoch = :run {_ROW}"""  # noqa: S608
_WRITE_REPLY = f"UPDATE delivery SET reply = :reply {_ROW}"  # noqa: S608
_WRITE_VARS = f"UPDATE recipient SET vars = :vars {_ROW}"  # noqa: S608
_LAST_CHANGE = """
SELECT max(updated_us), sum(CASE WHEN state IN (0, 1, 3) THEN 1 ELSE 0 END) FROM delivery
WHERE campaign_id = :campaign"""
_OUTCOMES = 500  # that are read at once


@dataclass(frozen=True, slots=True)
class ErasedRows:
    """Erased rows of one ledger, or those that would be erased.

    Attributes:
        rows: the rows of the person, by the state that each had.
        mentions: rows of others in whose cells or replies the address was.
        kept: further such rows that are still to be sent: their messages would change.
        is_clean: whether the bytes are gone from the file; a process that reads it may hold them for a while.
    """

    rows: Counter[RowState] = field(default_factory=Counter)
    mentions: int = 0
    kept: int = 0
    is_clean: bool = True

    def __bool__(self) -> bool:
        return bool(self.rows or self.mentions)


def is_person(address: str | None, key: str) -> bool:
    """Return whether an address, as a row has it, has this key."""
    if not address or (address.isascii() and '"' not in address):  # nearly all
        return bool(address) and str(address).lower() == key
    try:
        return address_key(Mailbox.parse(address)) == key
    except RecipientError:
        return False


def mentions(text: str, key: str) -> bool:
    """Return whether a text, or one in JSON, has the address with this key."""
    lower = text.lower()
    return key in lower or json.dumps(key)[1:-1].lower() in lower


def after_erasure(state: RowState) -> tuple[RowState, str]:
    """Return state and reply of a row whose personal data is gone."""
    if state in UNSENT:
        return RowState.SUPPRESSED, f"{ERASED} before it was sent"
    if state in (RowState.IN_DOUBT, RowState.SENDING):
        return RowState.REJECTED, f"{ERASED} while it was in doubt"
    return state, ERASED


def erase_person(queries: Queries, key: str) -> Script[tuple[ErasedRows, Counter[tuple[RowState, RowState]]]]:
    """Erase the person whose address has this key; return what was erased, and how many rows changed their state."""
    states, moves, rows = Counter[RowState](), Counter[tuple[RowState, RowState]](), list[int]()
    changed = kept = 0
    for block in (yield from _list_blocks(queries)):
        for row, number, address, reply, cells in (yield from _read_block(queries, *block)):
            state, values = RowState(number), {"batch": batch_number(row), "row": row}
            of_person = is_person(address, key)
            if of_person or (row > FIRST_COPY and is_person(json.loads(cells)[1], key)):
                # Of a copy of the message to this person as well: it has the same cells, and names both in its key.
                yield from _erase_row(queries, row, state, cells)
                moves[state, after_erasure(state)[0]] += 1
                if of_person:
                    states[state] += 1
                    rows.append(row)
                else:
                    changed += 1
                continue
            in_reply, in_cells = mentions(reply, key), mentions(cells, key)
            if in_cells and state in UNSENT:
                kept += 1
                in_cells = False
            if in_cells:
                yield Statement(queries.render(_WRITE_VARS), {**values, "vars": _erase_cells(cells, key)})
            if in_reply:
                yield Statement(queries.render(_WRITE_REPLY), {**values, "reply": erase_text(reply, key)})
            changed += in_cells or in_reply
    found = ErasedRows(states, changed, kept)
    if found:
        yield from _erase_values(queries, frozenset(rows), key)
        known = yield from read_forgotten(queries)
        if rows:
            forgotten = json.dumps({**known, hash_key(key): rows[0]})
            yield from queries.write_value(FORGOTTEN, forgotten)
        yield from queries.write_value(UNCLEAN, "1")
    return found, moves


def erase_all(queries: Queries, now_us: int) -> Script[Counter[tuple[RowState, RowState]]]:
    """Erase everybody; return how many rows changed their state. For a campaign of which nothing is to be sent."""
    moves = Counter[tuple[RowState, RowState]]()
    for block in (yield from _list_blocks(queries)):
        for row, number, address, _, cells in (yield from _read_block(queries, *block)):
            if address is not None or cells != "{}":
                state = RowState(number)
                yield from _erase_row(queries, row, state, cells)
                moves[state, after_erasure(state)[0]] += 1
    yield from _erase_values(queries, None, "")
    for name, text in (yield Statement(queries.render(TOTALS), {})):
        with suppress(ValueError):  # of a later version, perhaps
            yield from queries.write_value(name, replace(RunTotals.from_json(text), slowed={}).to_json())  # domains
    yield from queries.remove_outcomes([FORGOTTEN])  # nothing is loaded any more
    yield from queries.write_value(EXPIRED, str(now_us))
    yield from queries.write_value(UNCLEAN, "1")
    return moves


def read_forgotten(queries: Queries) -> Script[Mapping[str, int]]:
    """Return the hashes of the keys that were erased, each with its row."""
    try:
        saved = json.loads((yield from queries.read_value(FORGOTTEN)) or "{}")
        return {str(each): int(row) for each, row in saved.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise LedgerError("the ledger's list of forgotten addresses is damaged: restore a copy of it") from error


def is_expired(queries: Queries, retention: float | None, now: datetime) -> Script[bool]:
    """Return whether addresses are there that should have been erased by `now`; see `BaseReader.is_expired`."""
    if retention == STORED:
        stored = yield from queries.read_value(RETENTION)
        retention = None if stored is None else float(stored)
    if retention is None or (yield from queries.read_value(EXPIRED)) is not None:
        return False
    ((last_us, unsent),) = yield Statement(queries.render(_LAST_CHANGE), {})
    return not unsent and last_us is not None and (now - from_microseconds(last_us)).total_seconds() >= retention


def _list_blocks(queries: Queries) -> Script[list[tuple[int, int]]]:
    """Return the first batch and the end of each block to read, of rows and of copies."""
    blocks = [(first, first + ENTRY_BATCHES) for first in (yield from queries.list_key_blocks())]
    return [*blocks, *((batch, batch + 1) for batch in (yield from queries.list_batches(copies=True)))]


def _read_block(queries: Queries, first: int, end: int) -> Script[list[tuple[int, int, str | None, str, str]]]:
    values = {"first": first, "end": end}
    rows: list[tuple[int, int, str | None, str, str]] = yield Statement(queries.render(_READ), values)
    return rows


def _erase_row(queries: Queries, row: int, state: RowState, cells: str) -> Script[None]:
    values = {"batch": batch_number(row), "row": row}
    after, reply = after_erasure(state)
    left = "{}" if row <= FIRST_COPY else json.dumps([json.loads(cells)[0], "", "", {}])
    yield Statement(queries.render(_ERASE_RECIPIENT), {**values, "vars": left})
    template = _ERASE_DELIVERY if after is state else _END_DELIVERY
    yield Statement(queries.render(template), {**values, "after": int(after), "reply": reply})


def _erase_values(queries: Queries, rows: Collection[int] | None, key: str) -> Script[None]:
    """Erase a person, or with `rows` None everybody, in outcomes that were not posted yet; these are still posted."""
    last = ""
    while outcomes := (yield from queries.read_outcomes(last, _OUTCOMES)):
        for name, text in outcomes:
            try:
                outcome = json.loads(text)
                is_theirs = rows is None or (outcome["row"] in rows and "kind" not in outcome)  # no copy's
            except (ValueError, KeyError, TypeError):  # of another program
                continue
            if is_theirs:
                outcome |= {"id": f"{outcome['row']}/{outcome.get('attempt')}", "email": "", "message_id": ""}
                yield from queries.write_value(name, json.dumps(outcome | {"reply": ERASED}) + "\n")
            elif mentions(text, key):
                yield from queries.write_value(name, erase_text(text, key))
        last = outcomes[-1][0]
    if rows:
        yield from queries.remove_outcomes([f"bounce {row}" for row in rows])


def _erase_cells(cells: str, key: str) -> str:
    def erase(cell: object) -> object:
        """Erase a cell, or the rows of a mailbox that has several, which are lists of cells."""
        return [*map(erase, cell)] if isinstance(cell, list) else erase_text(str(cell), key)

    loaded = json.loads(cells)
    kind, *others, found = loaded if isinstance(loaded, list) else ("", loaded)
    erased = {column: erase(cell) for column, cell in found.items()}
    return json.dumps([kind, *others, erased] if kind else erased)
