"""From the columns of a ledger's tables to what the port speaks of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from asyncsmtp.bulk.keeping.times import when
from asyncsmtp.bulk.ledger import Claim, Entry
from asyncsmtp.bulk.recipients.recipient import Recipient
from asyncsmtp.bulk.states import State
from asyncsmtp.errors import LedgerError
from asyncsmtp.protocol.envelope import Mailbox

__all__ = ["CampaignRow", "campaign_of", "claim_of", "entry_of"]

_STATES = tuple(State)  # by their numbers: a third of what the call costs


@dataclass(frozen=True, slots=True)
class CampaignRow:
    """A campaign whose rows are in its ledger.

    Attributes:
        created_us: microseconds since 1970, UTC.
        run: how often it was opened to be sent.
        parts: what the fingerprint is made of: name -> digest.
        batches: how many batches of rows it has.
    """

    name: str
    created_us: int
    run: int
    parts: Mapping[str, str]
    batches: int


def campaign_of(name: str, created_us: int, run: int, config: str, last: int | None) -> CampaignRow:
    """`last` is the number of its last batch; None where it has no rows."""
    try:
        parts = {str(name): str(digest) for name, digest in json.loads(config)["parts"].items()}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise LedgerError("the ledger's campaign is damaged: restore a copy of it") from error
    return CampaignRow(name, created_us, run, parts, 0 if last is None else last + 1)


def claim_of(
    run: int,
    row: int,
    address: str,
    message_id: str,
    fields: str,
    attempts: int,
    state: int,
    first_us: int | None,
    epoch: int,
) -> tuple[Claim, State]:
    """A row that `run` may send, with its state."""
    try:
        recipient = Recipient(row, Mailbox.parse(address), json.loads(fields))
    except (ValueError, TypeError) as error:  # a RecipientError is a ValueError
        raise _damaged(row) from error
    if first_us is None:
        return Claim(recipient, message_id, attempts + 1), _STATES[state]
    again = epoch == run and state == State.DEFERRED
    return Claim(recipient, message_id, attempts + 1, when(first_us), again), _STATES[state]


def entry_of(
    row: int,
    address: str,
    message_id: str,
    state: int,
    attempts: int,
    doubts: int,
    code: int | None,
    status: str | None,
    reply: str,
    host: str,
    first_us: int | None,
    last_us: int | None,
    next_us: int | None,
    fields: str,
) -> Entry:
    """Everything that is known of a row."""
    first_at = None if first_us is None else when(first_us)
    last_at = None if last_us is None else when(last_us)
    due_at = None if next_us is None else when(next_us)
    try:
        columns = json.loads(fields)
    except (ValueError, TypeError) as error:
        raise _damaged(row) from error
    numbers = (_STATES[state], attempts, doubts, code, status)
    return Entry(row, address, message_id, *numbers, reply, host, first_at, last_at, columns, due_at)


def _damaged(row: int) -> LedgerError:
    return LedgerError(f"row {row} of the ledger is damaged: restore a copy of it")
