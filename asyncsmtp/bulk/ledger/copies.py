"""Copies in a ledger: everyone in Cc and Bcc of a row has a row of their own, with a state and a Message-ID of its own.

A copy is a message of its own on its way: the same content as the one to the recipient in To, in an envelope with one
recipient. So whatever holds for a row holds for a copy: it is marked before the end of its content and settled by its
own reply, is tried again by itself, and is in doubt by itself.

The stored Message-ID of a copy is no header field: it makes the token of the return path and names the outcome. The
header has the Message-ID of the message to the one in To, as in any message with Cc, so that answers belong to one
conversation. `recipient.vars` of a copy is an array: kind, address in To, that Message-ID, and the cells of the row.
`recipient.dedupe` is the number, the key of the address in To, and that of its own, with tabs between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import merge
from itertools import islice

from asyncsmtp.bulk.ledger.interfaces import COPIES_PER_ROW, FIRST_COPY, Claim, Entry, RowState, find_file_row
from asyncsmtp.bulk.ledger.queries import ENTRY_BATCHES, Queries, Script
from asyncsmtp.bulk.ledger.transitions import COPY_BATCH, RefusedRow, find_number
from asyncsmtp.bulk.recipients.recipient import CopyRecipient, Recipient, address_key
from asyncsmtp.protocol.envelope import Mailbox

__all__ = ["find_cursors", "find_keys", "find_listed", "join_keys", "read_claims", "read_entries", "split_keys"]

_Found = tuple[Claim | RefusedRow, RowState]


def join_keys(number: int, to: Mailbox, mailbox: Mailbox) -> str:
    """Return the key of a copy: no other row has it, and it tells the keys of both addresses."""
    return f"{number}\t{address_key(to)}\t{address_key(mailbox)}"


def find_key(recipient: Recipient) -> str:
    """Return the key of a row or a copy, as the ledger has it."""
    if isinstance(recipient, CopyRecipient):
        return join_keys(recipient.row, recipient.to, recipient.mailbox)
    return address_key(recipient.mailbox)


def find_keys(found: Iterable[tuple[Claim, RowState]]) -> dict[int, tuple[RowState, str]]:
    """Return state and key of rows that were read to be sent, as `find_listed` takes them."""
    return {claim.recipient.row: (state, find_key(claim.recipient)) for claim, state in found}


def split_keys(key: str) -> tuple[str, ...]:
    """Return the keys of the addresses by which a row may be suppressed: of a copy, that in To and its own."""
    return tuple(key.split("\t")[1:]) if "\t" in key else (key,)


def _place(number: int) -> tuple[int, int]:
    """Return what sorts a copy behind its row, and before the next one."""
    return find_file_row(number), number


def read_claims(queries: Queries, after: int, after_copy: int, limit: int) -> Script[list[_Found]]:
    """Return the next rows that the run may send, each followed by its copies; arguments as of `Queries.read_claims`.

    Args:
        after_copy: the last copy that was read.
    """
    rows = yield from queries.read_claims(after, limit)
    copies = yield from queries.read_claims(after_copy, limit, copies=True)
    return list(islice(merge(rows, copies, key=lambda found: _place(find_number(found[0]))), limit))


def find_cursors(found: Sequence[_Found], last_row: int, last_copy: int) -> tuple[int, int]:
    """Return the last row and the last copy that were read."""
    for number in (find_number(row) for row, _ in found):
        if number > FIRST_COPY:
            last_copy = max(last_copy, number)
        else:
            last_row = max(last_row, number)
    return last_row, last_copy


def read_entries(queries: Queries, first: int, states: frozenset[RowState]) -> Script[list[Entry]]:
    """Return rows and their copies, in file order; arguments as of `Queries.read_entries`."""
    rows = yield from queries.read_entries(first, states)
    begin = COPY_BATCH + first * COPIES_PER_ROW  # a batch of rows has so many batches of copies
    copies = yield from queries.read_entries(begin, states, batches=ENTRY_BATCHES * COPIES_PER_ROW)
    return sorted([*rows, *copies], key=lambda entry: (entry.row, entry.copy))


def find_listed(
    rows: Mapping[int, tuple[RowState, str]], find_reasons: Callable[[set[str]], Mapping[str, str]]
) -> dict[int, tuple[RowState, str]]:
    """Return the rows to suppress, with state and reason: a copy also where the one in To is on a list.

    Without the message to that one a copy would tell of something that was not sent.

    Args:
        rows: state and key, as of `split_keys`.
    """
    reasons = find_reasons({key for _, keys in rows.values() for key in split_keys(keys)})
    listed: dict[int, tuple[RowState, str]] = {}
    for row, (state, keys) in rows.items():
        *to, own = split_keys(keys)
        if own in reasons:
            listed[row] = (state, reasons[own])
        elif to and to[0] in reasons:
            listed[row] = (state, f"the recipient in To of row {find_file_row(row)}")
    return listed
