"""Rows, and ledgers that hold them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime

from asyncsmtp.bulk.ledger.interfaces import Claim, Entry, Ledger, LedgerReader, RowState, Settlement
from asyncsmtp.bulk.recipients.recipient import Problem, Recipient
from asyncsmtp.protocol.envelope import Mailbox

Row = Recipient | Problem


def recipient(row: int, address: str | None = None, **fields: str) -> Recipient:
    """Return row `row`, for a mailbox of its own unless `address` is given."""
    mailbox = Mailbox.parse(address or f"reader{row}@example.net")
    return Recipient(row, mailbox, {"email": mailbox.address, "name": f"Reader {row}", **fields})


async def batches(rows: Iterable[Row], size: int = 500) -> AsyncIterator[Sequence[Row]]:
    """Yield rows as a recipient file does."""
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def readers(number: int) -> AsyncIterator[Sequence[Row]]:
    """Yield `number` recipients, rows from 1."""
    return batches(map(recipient, range(1, number + 1)))


def accepted(claim: Claim) -> Settlement:
    return settled(claim, RowState.ACCEPTED, 250, "2.0.0", f"2.0.0 Ok: queued as {claim.recipient.row:08X}")


def deferred(claim: Claim, due_at: datetime | None = None) -> Settlement:
    return settled(claim, RowState.DEFERRED, 451, "4.7.1", "4.7.1 Greylisted, come back")._replace(due_at=due_at)


def rejected(claim: Claim) -> Settlement:
    return settled(claim, RowState.REJECTED, 550, "5.1.1", "5.1.1 No such user")


def in_doubt(claim: Claim) -> Settlement:
    return settled(claim, RowState.IN_DOUBT, None, None, "the connection was lost")


def settled(claim: Claim, state: RowState, code: int | None, status: str | None, reply: str) -> Settlement:
    return Settlement(claim.recipient.row, state, code, status, reply, "relay.example:587" if code else "")


async def claim_all(ledger: Ledger) -> list[Claim]:
    """Claim every row that this run may send."""
    claims: list[Claim] = []
    while batch := await ledger.claim(100):
        claims += batch
    return claims


async def entries(ledger: LedgerReader, *states: RowState) -> list[Entry]:
    """Return the entries in some states; in all states if none is named."""
    return [entry async for entry in ledger.entries(states or None)]


async def states(ledger: LedgerReader) -> dict[int, RowState]:
    """Return the state of each row."""
    return {entry.row: entry.state for entry in await entries(ledger)}
