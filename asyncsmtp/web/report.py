"""The report of a campaign: one HTML file with totals, charts, refusals and what is left, that can be mailed around.

The file loads nothing and has no script. What a relay or a recipients' file says is text in it, whatever it looks like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import TYPE_CHECKING

from asyncsmtp.bulk.ledger.interfaces import Counts, RowState, find_share
from asyncsmtp.protocol.replies import safe_text
from asyncsmtp.web.charts import draw_bar, draw_columns, draw_histogram
from asyncsmtp.web.templates import render_page

if TYPE_CHECKING:
    from markupsafe import Markup

    from asyncsmtp.bulk.interfaces import RunTotals
    from asyncsmtp.bulk.ledger.interfaces import Refusal, Statistics

__all__ = ["GENERATOR", "MAX_LIMITS", "Step", "render_report"]

GENERATOR = b'<meta name="generator" content="asyncsmtp '
"""Text by which a file is known as a report, so that it may be replaced by a newer one."""

_TRIED = (RowState.ACCEPTED, RowState.DEFERRED, RowState.REJECTED, RowState.IN_DOUBT)
_REFUSED = (RowState.DEFERRED, RowState.REJECTED, RowState.IN_DOUBT, RowState.SUPPRESSED)
_LABELS = {state: str(state) for state in RowState} | {RowState.PENDING: "still to send"}
_SHARES = (0.5, 0.9, 0.99, 1.0)
_BIN_EDGES = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000)  # milliseconds
_LIMITS = {  # names of limits in the totals that do not say by themselves what they are
    "too fast": "“too fast” in replies of the relay",
    "provider lookup": "looking up who takes the mail of a domain",
    "relays": "the rates of the relays",
    "shared": "rates shared with other campaigns",
    "warm-up": "the warm-up: messages of a day",
    "window": "the hours in which may be sent (window)",
    "start_at": "the start that was set (start_at)",
    "retry": "next attempts of deferred recipients",
}
MAX_LIMITS = 30  # that are listed
MAX_TEXT = 300  # characters of a reply
MAX_NAME = 120
MAX_COMMAND = 2000


@dataclass(frozen=True, slots=True)
class Step:
    """Something that is left to do, and the command that does it; "" if there is none."""

    text: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class _Limit:
    name: str
    held: int
    waited: str
    ended: int


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    bar: Markup
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Table:
    """Counts by something, with a bar for each."""

    anchor: str
    title: str
    column: str
    note: str
    states: Sequence[str]
    rows: Sequence[_Row]


def render_report(
    name: str,
    place: str,
    statistics: Statistics,
    *,
    steps: Iterable[Step] = (),
    explain: Callable[[Refusal], str] | None = None,
    rehearsal: bool = False,
    refresh: int = 0,
    version: str = "",
    now: datetime | None = None,
) -> str:
    """Return the report as HTML.

    Args:
        name: the campaign's. place: where its ledger is, without a password.
        explain: returns what a provider means by a refusal; "" where it is not known.
        rehearsal: it is about the sandbox.
        refresh: seconds after which a browser reads the file again; 0: never.
        version: of asyncsmtp.
        now: when the report is made; None: the time it is.
    """
    counts = statistics.counts
    tried = [str(state) for state in _TRIED]
    over_time = [(_format_time(start), _by_name(each)) for start, each in statistics.over_time.items()]
    columns = [(time, {state: numbers[state] for state in tried}) for time, numbers in _fill(statistics)]
    bins = _reply_bins(statistics.reply_times)
    refused = sum(counts[state] for state in _REFUSED)
    values: dict[str, object] = {
        "name": safe_text(name, MAX_NAME),
        "place": safe_text(place, MAX_TEXT),
        "rehearsal": rehearsal,
        "refresh": refresh,
        "version": version,
        "made_at": _format_time(now or datetime.now(UTC)),
        "first_at": statistics.first_at and _format_time(statistics.first_at),
        "last_at": statistics.last_at and _format_time(statistics.last_at),
        "duration": _format_span(statistics.duration),
        "total": counts.total,
        "totals": _by_name(counts),
        "states": [str(state) for state in _occurring(counts)],
        "labels": {str(state): label for state, label in _LABELS.items()},
        "bar": draw_bar(_by_name(counts, _occurring(counts)), "Recipients by state"),
        "steps": [Step(safe_text(each.text, MAX_TEXT), safe_text(each.command, MAX_COMMAND)) for each in steps],
        "over_time": over_time,
        "time_chart": draw_columns(columns, f"Outcomes in slices of {_format_span(statistics.period)}"),
        "tried_states": tried,
        "period": _format_span(statistics.period),
        "zone": f"{datetime.now(UTC).astimezone():%Z}",
        "rate": _describe_rate(statistics),
        "refusals": [_describe_refusal(each, explain) for each in statistics.refusals],
        "other_refusals": refused - sum(each.number for each in statistics.refusals),
        "in_doubt": [
            {
                "row": entry.row,
                "address": safe_text(entry.address, MAX_TEXT),
                "message_id": safe_text(entry.message_id, MAX_TEXT),
                "reply": safe_text(entry.reply, MAX_TEXT),
            }
            for entry in statistics.in_doubt
        ],
        "other_in_doubt": counts[RowState.IN_DOUBT] - len(statistics.in_doubt),
        "groups": [*_tables(statistics)],
        "shares": ["all" if share == 1 else f"{share:.0%}" for share in _SHARES],
        "reply_times": [*_describe_shares(statistics)],
        "runs": _describe_runs(statistics),
        "limits": [*_list_limits(statistics.totals)],
        "other_limits": max(0, len(statistics.totals.limits) - MAX_LIMITS),
        "slowed": [*_list_slowed(statistics.totals)],
        "reply_bins": bins,
        "reply_chart": draw_histogram(bins, "Recipients by the time until the relay accepted"),
    }
    return render_page("report", **values)


def _by_name(counts: Counts, states: Iterable[RowState] = RowState) -> dict[str, int]:
    return {str(state): counts[state] for state in states}


def _occurring(counts: Counts) -> list[RowState]:
    """Return the states that occur, and always ACCEPTED; what is good comes first, what is left last."""
    order = (*_TRIED, RowState.SUPPRESSED, RowState.SENDING, RowState.PENDING)
    return [state for state in order if counts[state] or state is RowState.ACCEPTED]


def _fill(statistics: Statistics) -> Iterator[tuple[str, Mapping[str, int]]]:
    """Yield every slice of time, also those in which nothing happened, so that the chart has an even scale."""
    if not statistics.over_time:
        return
    time, last = min(statistics.over_time), max(statistics.over_time)
    same_day = time.astimezone().date() == last.astimezone().date()
    while time <= last:
        name = f"{time.astimezone():%H:%M:%S}" if same_day else f"{time.astimezone():%d %b %H:%M}"
        yield name, _by_name(statistics.over_time.get(time, Counts()))
        time += statistics.period


def _describe_rate(statistics: Statistics) -> str:
    tried, seconds = sum(each.total for each in statistics.over_time.values()), statistics.duration.total_seconds()
    if not tried or seconds < 1:
        return ""
    average = tried / seconds
    highest = max(each.total for each in statistics.over_time.values()) / statistics.period.total_seconds()
    busiest = f", {highest:,.1f} in the busiest slice" if highest > average else ""  # a short run may have none
    return f"{average:,.1f} a second on average{busiest}."


def _describe_refusal(refusal: Refusal, explain: Callable[[Refusal], str] | None) -> dict[str, object]:
    return {
        "number": refusal.number,
        "state": str(refusal.state),
        "code": f"{refusal.code or ''} {refusal.status}".strip(),
        "reply": safe_text(refusal.reply, MAX_TEXT),
        "host": safe_text(refusal.host, MAX_NAME),
        "row": refusal.row,
        "advice": safe_text(explain(refusal), MAX_TEXT) if explain is not None else "",
    }


def _tables(statistics: Statistics) -> Iterator[_Table]:
    """Yield the tables by domain, by relay and by the number of attempts; those of one line say nothing."""
    counts = statistics.counts
    if statistics.by_domain:
        rows = [(safe_text(name, MAX_NAME), each) for name, each in statistics.by_domain.items()]
        left = statistics.domains - len(rows)
        note = f"The largest of {statistics.domains:,} domains." if left else ""
        if left:
            listed = _sum(rows)
            rows.append(("all others", Counts({state: number - listed[state] for state, number in counts.items()})))
        yield _make_table("domains", "By domain", "domain", note, rows)
    if len(statistics.by_relay) > 1:
        note = "By the relay that replied last."
        rows = [(safe_text(name, MAX_NAME), each) for name, each in statistics.by_relay.items()]
        yield _make_table("relays", "By relay", "relay", note, rows)
    if len(statistics.by_attempts) > 1:
        rows = [(f"{number:,}", each) for number, each in statistics.by_attempts.items()]
        yield _make_table("attempts", "By number of attempts", "attempts", "", rows)


def _make_table(anchor: str, title: str, column: str, note: str, rows: Sequence[tuple[str, Counts]]) -> _Table:
    states = [state for state in _occurring(Counts(_sum(rows))) if any(each[state] for _, each in rows)]
    made = [_Row(name, draw_bar(_by_name(each, states), f"{name} by state"), _by_name(each)) for name, each in rows]
    return _Table(anchor, title, column, note, [str(state) for state in states], made)


def _sum(rows: Sequence[tuple[str, Counts]]) -> dict[RowState, int]:
    return {state: sum(each[state] for _, each in rows) for state in RowState}


def _describe_shares(statistics: Statistics) -> Iterator[tuple[str, int, list[str]]]:
    """Yield what replies, how many of them, and the time within which each share of them came."""
    found = [("accepted at the first attempt", statistics.reply_times)] if statistics.reply_times else []
    for host, relay in statistics.totals.relays.items():
        if relay.reply_times:
            found.append((f"all replies of {safe_text(host, MAX_NAME)}", sorted(relay.reply_times.items())))
    for name, times in found:
        shares = [find_share(times, share) for share in _SHARES]
        yield name, sum(number for _, number in times), [_format_milliseconds(ms) for ms in shares if ms is not None]


def _describe_runs(statistics: Statistics) -> str:
    """Return how long was sent, and how much; "" if no run has counted that."""
    totals = statistics.totals
    if not totals.runs:
        return ""
    runs = "1 run" if totals.runs == 1 else f"{totals.runs:,} runs"
    text = f"{runs}, {_format_span(timedelta(seconds=totals.seconds))} together"
    if not totals.messages:
        return f"{text}."
    text += f" · {_format_size(totals.size)} in {totals.messages:,} accepted message{'s' * (totals.messages > 1)}"
    if totals.runs == 1 and totals.seconds >= 1:  # several may have been at the same time
        text += f", {_format_size(totals.size / totals.seconds)} a second"
    lacking = statistics.counts[RowState.ACCEPTED] - totals.messages
    if lacking <= 0:
        return f"{text}."
    return f"{text}. Of {lacking:,} more the size was not counted: their run was killed, or of an earlier version."


def _list_limits(totals: RunTotals) -> Iterator[_Limit]:
    """Yield the limits that held, the one that was waited for longest first."""
    found = sorted(totals.limits.items(), key=lambda each: (-each[1].seconds, -each[1].held, each[0]))
    for name, limit in found[:MAX_LIMITS]:
        waited = _format_span(timedelta(seconds=limit.seconds)) if limit.seconds >= 1 else f"{limit.seconds:.1f} s"
        yield _Limit(_LIMITS.get(name) or safe_text(name, MAX_NAME), limit.held, waited, limit.ended)


def _list_slowed(totals: RunTotals) -> Iterator[tuple[str, int, str]]:
    """Yield to whom a relay's replies made the runs slower, how often, and the lowest rate."""
    for what, (times, lowest) in sorted(totals.slowed.items(), key=lambda each: (-each[1][0], each[0])):
        yield "all recipients" if what == "all" else safe_text(what, MAX_NAME), times, f"{lowest:,.3g} a second"


def _reply_bins(reply_times: Sequence[tuple[int, int]]) -> list[tuple[str, int]]:
    """Return how many replies came in each span of time, from the first to the last that has any."""
    edges = [*_BIN_EDGES, 10**12]
    numbers = [0] * len(edges)
    for milliseconds, number in reply_times:
        numbers[next(place for place, edge in enumerate(edges) if milliseconds < edge)] += number
    names = [f"< {_format_milliseconds(edge)}" for edge in _BIN_EDGES] + [f"≥ {_format_milliseconds(_BIN_EDGES[-1])}"]
    used = [place for place, number in enumerate(numbers) if number]
    return [(names[place], numbers[place]) for place in range(used[0], used[-1] + 1)] if used else []


def _format_milliseconds(milliseconds: int) -> str:
    return f"{milliseconds:,} ms" if milliseconds < 1000 else f"{milliseconds / 1000:,.3g} s"


def _format_size(size: float) -> str:
    """Return a number of bytes in units of 1000, as disks and networks are sold."""
    unit = 0
    while size >= 999.5 and unit < 4:
        size, unit = size / 1000, unit + 1
    return f"{size:,.3g} {('bytes', 'KB', 'MB', 'GB', 'TB')[unit]}"


def _format_span(span: timedelta) -> str:
    """Return a span in its two largest units."""
    left = ceil(span.total_seconds())
    words = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number:
            words.append(f"{number:,} {unit}")
    return " ".join(words[:2]) or "0 s"


def _format_time(time: datetime) -> str:
    """Return a time of this machine's zone."""
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}"
