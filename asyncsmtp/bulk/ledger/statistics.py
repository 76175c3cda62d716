"""Figures of a whole campaign, counted by the database: outcomes over time, by domain and by reply, and reply times.

`read_statistics` is a script as those of `Queries`. It reads one snapshot, so that the figures agree with each other
while the campaign runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import NamedTuple, TypeVar

from asyncsmtp.bulk.interfaces import TOTALS_NAME, RunTotals
from asyncsmtp.bulk.ledger.interfaces import (
    COPIES_PER_ROW,
    FIRST_COPY,
    Counts,
    Refusal,
    RowState,
    Statistics,
    find_file_row,
)
from asyncsmtp.bulk.ledger.queries import Queries, Script, Statement
from asyncsmtp.bulk.ledger.transitions import COPY_BATCH, from_microseconds, reply_words, to_entry

__all__ = ["MAX_DOMAINS", "MAX_IN_DOUBT", "MAX_REFUSALS", "TOTALS", "read_statistics"]

_K = TypeVar("_K", int, str)

MAX_SLICES = 120  # of time
MAX_DOMAINS = 40  # largest domains that are listed
MAX_REFUSALS = 50  # most frequent refusals that are listed
MAX_KINDS = 2000  # different refusals that are counted; a relay that words each one differently is cut there
MAX_IN_DOUBT = 100  # rows in doubt that are listed
BLOCK = 100  # batches whose refusals are read at once

_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)  # seconds of a slice
_STATE_COUNTS = ", ".join(f"count(*) FILTER (WHERE d.state = {state:d})" for state in RowState)
_TRIED = "FROM delivery AS d WHERE campaign_id = :campaign AND attempts > 0"
_BY_HOST = f"""
SELECT coalesce(host, ''), attempts, min(CASE WHEN attempts > 0 THEN first_us END),
  max(CASE WHEN attempts > 0 THEN updated_us END), {_STATE_COUNTS}
FROM delivery AS d WHERE campaign_id = :campaign GROUP BY 1, 2 ORDER BY 1, 2"""  # noqa: S608
_SLICES = f"SELECT (updated_us - :start) / :step, {_STATE_COUNTS} {_TRIED} AND updated_us >= :start GROUP BY 1"
# The mark is written before the content is sent, the outcome after the reply; a second attempt has another mark.
_REPLY_TIMES = f"""
SELECT (updated_us - first_us) / 1000, count(*) {_TRIED}
AND attempts = 1 AND doubts = 0 AND state = {RowState.ACCEPTED:d} GROUP BY 1 ORDER BY 1"""
_DOMAINS = f"""
SELECT {{domain}}, count(*), count(*) OVER (), {_STATE_COUNTS}
FROM delivery AS d {{join}} recipient USING (campaign_id, batch_no, seq)
WHERE d.campaign_id = :campaign AND address IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {MAX_DOMAINS}"""  # noqa: S608
_REFUSED = f"""
SELECT state, coalesce(code, 0), coalesce(status, ''), coalesce(reply, ''), coalesce(host, ''), count(*), min(seq)
FROM delivery WHERE campaign_id = :campaign AND batch_no >= :first AND batch_no < :end
AND state IN ({RowState.DEFERRED:d}, {RowState.REJECTED:d}, {RowState.IN_DOUBT:d}, {RowState.SUPPRESSED:d})
GROUP BY 1, 2, 3, 4, 5"""  # noqa: S608
_IN_DOUBT = f"""
SELECT d.seq, coalesce(address, ''), coalesce(message_id, ''), state, attempts, doubts, code, status,
  coalesce(reply, ''), coalesce(host, ''), first_us, updated_us, next_us,
  CASE WHEN d.seq > {FIRST_COPY} THEN vars ELSE '{{{{}}}}' END
FROM (SELECT * FROM delivery WHERE campaign_id = :campaign AND state = {RowState.IN_DOUBT:d}
  ORDER BY batch_no, seq LIMIT {MAX_IN_DOUBT}) AS d {{join}} recipient USING (campaign_id, batch_no, seq)
ORDER BY d.batch_no, d.seq"""  # noqa: S608

TOTALS = f"SELECT name, value FROM memory WHERE {{of_campaign}} substr(name, 1, {len(TOTALS_NAME)}) = '{TOTALS_NAME}'"  # noqa: S608


def read_statistics(queries: Queries, batches: int, *, has_copies: bool = False) -> Script[Statistics]:
    """Return the figures of a campaign.

    Args:
        batches: number of batches of rows of the file. has_copies: whether there are copies as well.
    """
    yield _statement(queries, queries.BEGIN_SNAPSHOT)
    rows = yield _statement(queries, _BY_HOST)
    groups = [_Group(host, attempts, first, last, numbers) for host, attempts, first, last, *numbers in rows]
    first_us = min((group.first_us for group in groups if group.first_us is not None), default=None)
    last_us = max((group.last_us for group in groups if group.last_us is not None), default=None)
    period, over_time = _choose_period(first_us, last_us), {}
    if first_us is not None:
        us = period // timedelta(microseconds=1)
        start = first_us // us * us
        for number, *numbers in sorted((yield _statement(queries, _SLICES, start=start, step=us))):
            over_time[from_microseconds(start + number * us)] = _counts([numbers])
    domains = yield _statement(queries, _DOMAINS)
    reply_times = [(max(0, ms), number) for ms, number in (yield _statement(queries, _REPLY_TIMES))]
    blocks = [(first, first + BLOCK) for first in range(0, batches, BLOCK)]
    if has_copies:  # so many of their batches belong to one of the file's
        blocks += [(COPY_BATCH + first * COPIES_PER_ROW, COPY_BATCH + end * COPIES_PER_ROW) for first, end in blocks]
    refusals = yield from _read_refusals(queries, blocks)
    in_doubt = [*map(to_entry, (yield _statement(queries, _IN_DOUBT)))]
    totals = RunTotals()
    has_values = yield _statement(queries, "{find_values}")
    for _, text in (yield _statement(queries, TOTALS)) if has_values else ():
        with suppress(ValueError):  # of a later version, perhaps
            totals.add(RunTotals.from_json(text))
    yield _statement(queries, "ROLLBACK")
    return Statistics(
        counts=_counts(group.numbers for group in groups),
        first_at=None if first_us is None else from_microseconds(first_us),
        last_at=None if last_us is None else from_microseconds(last_us),
        attempts=sum(group.attempts * sum(group.numbers) for group in groups),
        period=period,
        over_time=over_time,
        by_attempts=_count_by(groups, lambda group: group.attempts),
        by_relay=_count_by(groups, lambda group: group.host),
        by_domain={str(domain): _counts([numbers]) for domain, _, _, *numbers in domains},
        domains=domains[0][2] if domains else 0,
        reply_times=reply_times,
        refusals=refusals[:MAX_REFUSALS],
        kinds=len(refusals),
        in_doubt=in_doubt,
        totals=totals,
    )


def _read_refusals(queries: Queries, blocks: Iterable[tuple[int, int]]) -> Script[list[Refusal]]:
    """Return all kinds of refusals in blocks of batches, the most frequent first."""
    firsts: dict[tuple[int, int, str, str], Refusal] = {}
    numbers = Counter[tuple[int, int, str, str]]()
    for first, end in blocks:
        rows = yield _statement(queries, _REFUSED, first=first, end=end)
        for state, code, status, reply, host, number, row in sorted(rows, key=lambda columns: columns[6]):
            kind = state, code, status, reply_words(reply)
            if kind not in firsts:
                if len(firsts) == MAX_KINDS:
                    continue
                firsts[kind] = Refusal(RowState(state), code, status, reply, host, 0, find_file_row(row))
            numbers[kind] += number
    refusals = [replace(each, number=numbers[kind]) for kind, each in firsts.items()]
    return sorted(refusals, key=lambda each: (-each.number, each.row))


def _choose_period(first_us: int | None, last_us: int | None) -> timedelta:
    """Return the shortest length of a slice with which there are at most `MAX_SLICES`."""
    span = ((last_us or 0) - (first_us or 0)) / 1e6
    days = -(-int(span) // (86400 * MAX_SLICES)) or 1
    return timedelta(seconds=next((step for step in _STEPS if span / step < MAX_SLICES - 1), days * 86400))


class _Group(NamedTuple):
    """Rows with the same relay and the same number of attempts; `numbers` of them are in each state."""

    host: str
    attempts: int
    first_us: int | None
    last_us: int | None
    numbers: Sequence[int]


def _count_by(groups: Iterable[_Group], key: Callable[[_Group], _K]) -> dict[_K, Counts]:
    """Return the counts of the groups by a key; those whose key is 0 or "" are left out."""
    found: dict[_K, list[Sequence[int]]] = {}
    for group in groups:
        if key(group):
            found.setdefault(key(group), []).append(group.numbers)
    return {each: _counts(numbers) for each, numbers in found.items()}


def _counts(numbers: Iterable[Sequence[int]]) -> Counts:
    """Return the sum of such numbers, each in the order of the states."""
    sums = [sum(column) for column in zip(*numbers, strict=True)]
    return Counts(dict(zip(RowState, sums, strict=True)) if sums else None)


def _statement(queries: Queries, template: str, **values: object) -> Statement:
    return Statement(queries.render(template), values)
