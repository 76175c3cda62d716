"""Results of a campaign, as a program gets them: the end of a run, the outcome of a row, the counts of the states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from asyncsmtp.bulk.ledger.interfaces import Claim, RowState, Settlement
from asyncsmtp.errors import ConfigError, check_type

__all__ = [
    "CampaignResult",
    "ExitReason",
    "RowOutcome",
    "StateCounts",
    "count_by_word",
    "find_states",
    "make_row_outcome",
]


class ExitReason(StrEnum):
    """The reason why a run ended. What ends it otherwise is raised."""

    COMPLETE = "complete"  # every row has its final outcome, or is in doubt
    LIMIT = "limit"  # the run's `limit` is reached
    WAITING = "waiting"  # rows are left for later: `resumes_at`
    STOPPED = "stopped"  # `stop` was called, or the loop over the outcomes was left


@dataclass(frozen=True, slots=True)
class CampaignResult:
    """State of a campaign after a run.

    Attributes:
        counts: rows of the whole campaign by state, such as "accepted", "rejected" or "in doubt"; each state is there.
        resumes_at: from when on the first of the rows that are left may be tried, UTC; None: at once, or none is left.
    """

    counts: Mapping[str, int]
    exit_reason: ExitReason
    resumes_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RowOutcome:
    """Outcome of one row, as it was queued for the ledger: durable up to 50 ms and a commit later.

    Attributes:
        row: counts the records of the recipients from 1.
        fields: its cells by column.
        state: ACCEPTED, DEFERRED, REJECTED or IN_DOUBT.
        code, status: of the relay's reply, such as 550 and "5.1.1"; None where no relay decided.
        reply: the relay's words, or the reason.
        attempt: counts from 1.
        message_id: without angle brackets.
    """

    row: int
    address: str
    fields: Mapping[str, str]
    state: RowState
    code: int | None
    status: str | None
    reply: str
    host: str
    attempt: int
    message_id: str


def find_states(value: str | RowState | Iterable[str | RowState]) -> list[RowState]:
    """Return the states that a program names, one or several, as words or values.

    Raises:
        ConfigError: there is no such state. TypeError: it is neither.
    """
    if isinstance(value, str) or not isinstance(value, Iterable):
        value = [value]
    return [_find_state(each) for each in value]


def _find_state(value: object) -> RowState:
    if isinstance(value, RowState):
        return value
    check_type("states=", value, str, RowState)
    found = next((state for state in RowState if str(value).replace("_", " ") == str(state)), None)
    if found is None:
        raise ConfigError(f"there is no state {value!r}", f"the states are {', '.join(map(str, RowState))}")
    return found


class StateCounts(dict[str, int]):
    """Rows by the word of their state; `counts["in_doubt"]` and `counts[RowState.IN_DOUBT]` are found as well."""

    def __missing__(self, key: object) -> int:
        try:
            return self[str(_find_state(key))]
        except (ConfigError, TypeError):
            raise KeyError(key) from None


def count_by_word(counts: Mapping[RowState, int]) -> dict[str, int]:
    """Return counts by the words of the states."""
    return StateCounts({str(state): number for state, number in counts.items()})


def make_row_outcome(claim: Claim, settlement: Settlement) -> RowOutcome:
    """Return the outcome of a claimed row as one value."""
    return RowOutcome(
        row=settlement.row,
        address=str(claim.recipient.mailbox),
        fields=claim.recipient.fields,
        state=settlement.state,
        code=settlement.code,
        status=settlement.status,
        reply=settlement.reply,
        host=settlement.host,
        attempt=claim.attempt,
        message_id=claim.message_id,
    )
