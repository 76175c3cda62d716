"""Bounces in a ledger: which rows they are about, and what becomes of those.

The token of a return path names one recipient. A Message-ID, which a message and its copies share, names the row of the
file: the address that failed tells which of its recipients it is. An address alone may be in Cc of many rows, and a
report is about one message.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import NamedTuple

from asyncsmtp.bulk.bounces.dsn import Bounce
from asyncsmtp.bulk.ledger.copies import split_keys
from asyncsmtp.bulk.ledger.interfaces import BouncedRow, RowState, find_file_row, list_numbers
from asyncsmtp.bulk.ledger.queries import THIS_ROW, TIMED, Queries, Script
from asyncsmtp.bulk.ledger.transitions import MAX_REPLY, batch_number, plain_key
from asyncsmtp.bulk.recipients.recipient import address_key
from asyncsmtp.errors import RecipientError
from asyncsmtp.protocol.envelope import Mailbox
from asyncsmtp.protocol.replies import safe_text

__all__ = ["find_bounced", "record_bounces"]

MAX_REPORTS = 16  # bounce reports remembered for one row
_CAME_BACK = "came back: "  # how the reply of a row begins that bounced
_BOUNCEABLE = frozenset({RowState.ACCEPTED, RowState.IN_DOUBT})

_MAILED = """
SELECT r.message_id, r.address, r.dedupe, d.seq, d.state, coalesce(d.reply, '')
FROM delivery AS d {join} recipient AS r USING (campaign_id, batch_no, seq)
WHERE d.campaign_id = :campaign AND d.batch_no = :batch AND r.message_id IS NOT NULL ORDER BY d.seq"""
_BOUNCE = f"""
UPDATE delivery SET state = {RowState.REJECTED:d}, code = NULL, status = :status, reply = :reply, epoch = :run, {TIMED}
WHERE {THIS_ROW}"""  # noqa: S608


class _MailedRow(NamedTuple):
    """One row that is to be mailed, or was; `key` is that of its address, or of a copy as `join_keys` makes it."""

    message_id: str
    address: str
    key: str
    row: int
    state: int
    reply: str

    @property
    def token(self) -> str:
        return self.message_id.partition("@")[0]

    @property
    def may_bounce(self) -> bool:
        return self.state in _BOUNCEABLE or self.state == RowState.REJECTED

    @property
    def came_back(self) -> bool:
        """True if it is rejected because of a bounce, and has not been sent again since."""
        return self.state == RowState.REJECTED and self.reply.startswith(_CAME_BACK)


class _Match(NamedTuple):
    """A recipient that a bounce may be about, and the token or key it was found by."""

    token: str
    row: _MailedRow
    bounce: Bounce


def record_bounces(
    queries: Queries, bounces: Mapping[str, Bounce], *, has_copies: bool = False
) -> Script[list[tuple[RowState, str, Bounce]]]:
    """Make accepted and doubtful rows REJECTED whose messages bounced; return the old state and address of each.

    A report that the row has had is not applied again, also after a person had the row sent once more: both messages
    have the same Message-ID, and an old report says nothing about the new one. For the same reason a further report on
    a row that is REJECTED already is remembered, and so is a complaint, which changes no row.

    Args:
        bounces: by the part of the Message-ID before the @, by the token of the return path, or by `address_key`.
        has_copies: whether the campaign has copies.
    """
    matches, by_address = yield from _match(queries, bounces, has_copies=has_copies)
    for copies in by_address.values():
        sent = [match for match in copies if match.row.may_bounce]
        for match in sent:
            if match.bounce.report in (yield from _read_reports(queries, match.row.row)):
                break
        else:  # the first that has not bounced yet
            matches += [match for match in sent if match.row.state != RowState.REJECTED][:1]
    changed: list[tuple[RowState, str, Bounce]] = []
    for _, row, bounce in matches:
        if row.may_bounce and (yield from _record(queries, row, bounce)):
            changed.append((RowState(row.state), row.address, bounce))
    return changed


def find_bounced(
    queries: Queries, bounces: Mapping[str, Bounce], *, has_copies: bool = False
) -> Script[list[BouncedRow]]:
    """Return the rows in whose record one of these bounces is, by this or by an earlier `record_bounces`."""
    matches, by_address = yield from _match(queries, bounces, has_copies=has_copies)
    found: list[BouncedRow] = []
    for token, row, bounce in chain(matches, *by_address.values()):
        if bounce.report in (yield from _read_reports(queries, row.row)):
            found.append(BouncedRow(token, row.address, bounce, row.came_back))
    return found


def _match(
    queries: Queries, bounces: Mapping[str, Bounce], *, has_copies: bool
) -> Script[tuple[list[_Match], dict[str, list[_Match]]]]:
    """Return the recipients that bounces name, and for addresses that are in Cc or Bcc alone their copies."""
    matches: list[_Match] = []
    by_address: dict[str, list[_Match]] = {}
    taken: set[str] = set()
    for batch in (yield from queries.list_batches()):
        for row in (yield from _read_mailed(queries, batch)):
            if (bounce := bounces.get(row.token)) is not None:
                about = (yield from _find_copy(queries, row, bounce)) if has_copies else row
                matches.append(_Match(row.token, about, bounce))
            elif (bounce := bounces.get(row.key)) is not None:
                matches.append(_Match(row.key, row, bounce))
                taken.add(row.key)
    for batch in (yield from queries.list_batches(copies=True)) if has_copies else ():
        for row in (yield from _read_mailed(queries, batch)):
            key = split_keys(row.key)[-1]
            if (bounce := bounces.get(row.token)) is not None:
                matches.append(_Match(row.token, row, bounce))
            elif key not in taken and (bounce := bounces.get(key)) is not None:
                by_address.setdefault(key, []).append(_Match(key, row, bounce))
    return matches, by_address


def _find_copy(queries: Queries, row: _MailedRow, bounce: Bounce) -> Script[_MailedRow]:
    """Return the copy of a row whose address a bounce is about; the row itself, if it is about none of them."""
    try:
        failed = address_key(Mailbox.parse(bounce.recipient))
    except RecipientError:  # none, or something else
        return row
    if failed != row.key:
        for batch in sorted({*map(batch_number, list_numbers(row.row)[1:])}):
            for copy in (yield from _read_mailed(queries, batch)):
                if find_file_row(copy.row) == row.row and split_keys(copy.key)[-1] == failed:
                    return copy
    return row


def _record(queries: Queries, row: _MailedRow, bounce: Bounce) -> Script[bool]:
    """Apply a bounce to a row, unless it has had it; return whether its state changed."""
    reports = yield from _read_reports(queries, row.row)
    if bounce.report and bounce.report in reports:
        return False
    yield from queries.write_value(f"bounce {row.row}", " ".join([*reports, bounce.report][-MAX_REPORTS:]))
    if row.state not in _BOUNCEABLE or not bounce.failed:
        return False
    values = {"batch": batch_number(row.row), "row": row.row, "state": row.state, "status": bounce.status or None}
    reply = safe_text(f"{_CAME_BACK}{bounce.words}", MAX_REPLY)
    yield queries.statement(_BOUNCE, reply=reply, **values)
    return True


def _read_mailed(queries: Queries, batch: int) -> Script[list[_MailedRow]]:
    rows = yield queries.statement(_MAILED, batch=batch)
    return [_MailedRow(message_id, address, plain_key(key), *more) for message_id, address, key, *more in rows]


def _read_reports(queries: Queries, row: int) -> Script[list[str]]:
    """Return the identifiers of the bounce reports that a row has had."""
    value = yield from queries.read_value(f"bounce {row}")
    return [] if value is None else value.split(" ")
