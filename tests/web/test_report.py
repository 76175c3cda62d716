"""The report: its numbers, what it shows of foreign text, and its size."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest

from asyncsmtp.bulk.interfaces import LimitTotals, RelayTotals, RunTotals
from asyncsmtp.bulk.ledger.interfaces import Counts, Entry, Refusal, RowState, Statistics
from asyncsmtp.bulk.ledger.statistics import MAX_DOMAINS, MAX_IN_DOUBT, MAX_REFUSALS
from asyncsmtp.web.report import GENERATOR, MAX_LIMITS, Step, render_report

START = datetime(2026, 9, 1, 12, tzinfo=UTC)
COUNTS = {RowState.ACCEPTED: 90, RowState.REJECTED: 7, RowState.IN_DOUBT: 1, RowState.PENDING: 1200}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title><svg onload=alert(1)>",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% include 'report.html' %}",
    "\x1b[31m\u202ered\r\nBcc: x@example.org",
)


def statistics(
    numbers: Mapping[RowState, int] = COUNTS,
    *,
    refusals: tuple[Refusal, ...] = (),
    in_doubt: tuple[Entry, ...] = (),
    domains: tuple[str, ...] = ("example.org",),
    relays: tuple[str, ...] = ("mx.example:587",),
    all_domains: int | None = None,
    hours: int = 1,
) -> Statistics:
    counts = Counts(numbers)
    return Statistics(
        counts=counts,
        first_at=START,
        last_at=START + timedelta(hours=hours),
        attempts=99,
        period=timedelta(minutes=1),
        over_time={
            START: Counts({RowState.ACCEPTED: 90}),
            START + timedelta(minutes=2): Counts({RowState.REJECTED: 8}),
        },
        by_attempts={1: Counts({RowState.ACCEPTED: 90}), 2: Counts({RowState.REJECTED: 8})},
        by_relay=dict.fromkeys(relays, Counts({RowState.ACCEPTED: 45})),
        by_domain=dict.fromkeys(domains, counts),
        domains=len(domains) if all_domains is None else all_domains,
        reply_times=[(3, 10), (40, 70), (2500, 10)],
        refusals=refusals,
        kinds=len(refusals),
        in_doubt=in_doubt,
    )


def doubt(row: int, address: str = "ann@example.org", reply: str = "no reply") -> Entry:
    return Entry(row, address, f"{row}@x", RowState.IN_DOUBT, 1, 1, None, None, reply, "", START, START, {})


class Page(HTMLParser):
    """The elements of a page, with the text of its tables."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._ignored = False
        self._in_cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self._ignored = tag in ("style", "title")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._ignored = False
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if not self._ignored:
            self.text += data
            if self._in_cell:
                self.rows[-1][-1] += data.strip()

    def find_row(self, first: str) -> list[str]:
        (found,) = [row for row in self.rows if row and row[0] == first]
        return found


def test_the_totals_are_those_of_the_ledger() -> None:
    page = Page(render_report("news", "news.ledger", statistics()))
    assert "1,298 recipients" in page.text
    tiles = re.findall(r"([a-z ]+)([\d,]+)\n", page.text.replace("\n\n", "\n"))
    assert tiles[:4] == [("accepted", "90"), ("rejected", "7"), ("in doubt", "1"), ("still to send", "1,200")]


def test_a_chart_and_its_table_say_the_same() -> None:
    """Each part of a column has its number as a title; together they are the numbers of the table."""
    html = render_report("news", "news.ledger", statistics())
    page = Page(html)
    charted = [int(number) for number in re.findall(r"<title>\d\d:\d\d:\d\d: (\d+) ", html)]
    tabled = [int(cell) for row in page.rows if row and re.match(r"2026-09-01 \d\d:", row[0]) for cell in row[1:]]
    assert sorted(charted) == sorted(filter(None, tabled)) == [8, 90]


def test_slices_in_which_nothing_happened_have_their_place() -> None:
    """The scale of time is even: three minutes, of which the second is empty."""
    html = render_report("news", "news.ledger", statistics())
    first, second = (
        float(x) for x in re.findall(r'<rect class="(?:accepted|rejected)" x="([\d.]+)" y="\d\d', html)[:2]
    )
    assert second - first == pytest.approx(2 * (960 - 56) / 3, abs=0.1)


def test_reply_times_by_share() -> None:
    """Half of them within 40 ms, all within 2.5 s; those that a run counted are beside them, by relay."""
    totals = RunTotals(1, 9.0, {"b": RelayTotals(3, 900, {7: 1, 3: 98, 5: 1})})
    page = Page(render_report("news", "news.ledger", replace(statistics(), totals=totals)))
    assert page.find_row("replies") == ["replies", "number", "50%", "90%", "99%", "all"]
    found = page.find_row("accepted at the first attempt")
    assert found[1:] == ["90", "40 ms", "2.5 s", "2.5 s", "2.5 s"]
    assert page.find_row("all replies of b")[1:] == ["100", "3 ms", "3 ms", "5 ms", "7 ms"]
    assert page.find_row("< 50 ms")[1] == "70"


def test_replies_that_only_a_run_counted() -> None:
    """Nobody was accepted at the first attempt: there is no chart, and the table has the others."""
    totals = RunTotals(1, 9.0, {"b": RelayTotals(3, 900, {7: 3})})
    html = render_report("news", "news.ledger", replace(statistics(), totals=totals, reply_times=[]))
    assert Page(html).find_row("all replies of b")[1:] == ["3", "7 ms", "7 ms", "7 ms", "7 ms"]
    assert "Chart of reply times" not in html


def test_duration_and_bytes() -> None:
    """As the runs counted them, and what they did not count is said."""
    totals = RunTotals(2, 100.0, {"b": RelayTotals(50, 4_000_000), "c": RelayTotals(40, 400_000)})
    text = Page(render_report("news", "x", replace(statistics(), totals=totals))).text
    assert "1 h from the first attempt to the last outcome" in text
    assert "2 runs, 1 min 40 s together · 4.4 MB in 90 accepted messages." in text
    once = replace(statistics(), totals=replace(totals, runs=1))
    assert (
        "1 run, 1 min 40 s together · 4.4 MB in 90 accepted messages, 44 KB a second."
        in Page(render_report("news", "x", once)).text
    )
    assert "was not counted" not in text
    totals.relays["b"].messages = 43
    text = Page(render_report("news", "x", replace(statistics(), totals=totals))).text
    assert "83 accepted messages" in text
    assert "Of 7 more the size was not counted" in text


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0 bytes"), (999, "999 bytes"), (999_700, "1 MB"), (1_234_567_890, "1.23 GB")]
)
def test_sizes(size: int, shown: str) -> None:
    """In units of 1000, with three digits."""
    totals = RunTotals(1, 0.5, {"b": RelayTotals(1, size)})
    text = Page(render_report("news", "x", replace(statistics(), totals=totals))).text
    assert f"{shown} in 1 accepted message." in text


def test_the_limits_that_held() -> None:
    """The one that was waited for longest first; a name that no version knows is shown as it is."""
    limits = {"rate 30/s": LimitTotals(9, 3.25, 0), "window": LimitTotals(1, 7200.0, 2), "<b>": LimitTotals(0, 0.0, 0)}
    totals = RunTotals(3, 9.0, {}, limits, {"all": (3, 1.5), "slow.example": (1, 12.0)})
    page = Page(render_report("news", "x", replace(statistics(), totals=totals)))
    places = [page.rows.index(page.find_row(name)) for name in ("the hours in which may be sent (window)", "rate 30/s")]
    assert places == sorted(places)
    assert page.find_row("rate 30/s")[1:] == ["9", "4 s", "0"]
    assert page.find_row("the hours in which may be sent (window)")[1:] == ["1", "2 h", "2"]
    assert page.find_row("<b>")[1:] == ["0", "0.0 s", "0"]
    assert page.find_row("all recipients")[1:] == ["3", "1.5 a second"]
    assert page.find_row("slow.example")[1:] == ["1", "12 a second"]


def test_more_limits_than_are_listed() -> None:
    """A campaign with a limit for each of a thousand domains has a short report."""
    limits = {f"rate 1/s to d{n}.example": LimitTotals(n, float(n)) for n in range(1000)}
    page = Page(render_report("news", "x", replace(statistics(), totals=RunTotals(1, 9.0, {}, limits))))
    assert page.find_row("rate 1/s to d999.example")
    assert f"and {1000 - MAX_LIMITS:,} more limits" in page.text


def test_what_is_left_with_its_command() -> None:
    steps = [Step("decide about those in doubt:", "asyncsmtp resolve a.toml"), Step("nothing else")]
    html = render_report("news", "news.ledger", statistics(), steps=steps)
    assert '<code class="command">asyncsmtp resolve a.toml</code>' in html
    assert html.count('class="command"') == 1


def totals_named(name: str) -> RunTotals:
    """Return totals with a relay, a limit and a domain of this name."""
    return RunTotals(1, 2.0, {name: RelayTotals(1, 1, {1: 1})}, {name: LimitTotals()}, {name: (1, 1.0)})


@pytest.mark.parametrize("text", HOSTILE)
def test_foreign_text_is_text(text: str) -> None:
    """Names, replies, hosts, addresses and advice: nothing of them becomes an element, an attribute or a link."""
    refusal = Refusal(RowState.REJECTED, 550, "5.1.1", text, text, 7, 1)
    found = statistics(
        refusals=(refusal,), in_doubt=(doubt(1, text, text),), domains=(text, "b.example"), relays=(text, "other")
    )
    plain = statistics(
        refusals=(refusal,), in_doubt=(doubt(1),), domains=("a.example", "b.example"), relays=("one", "other")
    )
    found = replace(found, totals=totals_named(text))
    plain = replace(plain, totals=totals_named("other"))
    page = Page(render_report(text, text, found, explain=lambda each: text, steps=[Step(text, text)]))
    clean = Page(render_report("a", "b", plain, explain=lambda each: "c", steps=[Step("d", "e")]))
    assert page.tags == clean.tags
    assert not {"script", "img", "iframe", "a", "form", "object"} & {*page.tags}
    assert [name for name, _ in page.attributes] == [name for name, _ in clean.attributes]
    assert not [value for _, value in page.attributes if "\x1b" in value or "\u202e" in value]
    assert "\x1b" not in page.text
    assert "\u202e" not in page.text
    assert "49" not in page.text.replace("{{ 7 * 7 }}", "")


def test_the_file_loads_nothing() -> None:
    """No script, and a policy that forbids what a defect might add."""
    html = render_report("news", "news.ledger", statistics())
    assert GENERATOR in html.encode()[:2048]
    assert "default-src 'none'" in html
    assert [value for name, value in Page(html).attributes if name in ("src", "href")] == ["data:,"]
    assert not re.search(r"@import|url\(", html)


def test_a_browser_reads_it_again_only_while_the_campaign_runs() -> None:
    assert 'http-equiv="refresh" content="2"' in render_report("news", "news.ledger", statistics(), refresh=2)
    assert 'http-equiv="refresh"' not in render_report("news", "news.ledger", statistics())


def test_the_largest_report_stays_small() -> None:
    """Every list is cut: 500 KB at most, and what is left out is counted."""
    long = "x" * 512
    found = statistics(
        {RowState.REJECTED: 1_000_000, RowState.IN_DOUBT: 5000},
        refusals=tuple(Refusal(RowState.REJECTED, 550, "5.7.1", long, long, 9, row) for row in range(MAX_REFUSALS)),
        in_doubt=tuple(doubt(row, f"{long}@example.org", long) for row in range(MAX_IN_DOUBT)),
        domains=tuple(f"{number}.{long}" for number in range(MAX_DOMAINS)),
        all_domains=90_000,
    )
    html = render_report("news", "news.ledger", found, explain=lambda refusal: long)
    assert len(html) <= 500_000
    page = Page(html)
    assert f"{1_005_000 - 9 * MAX_REFUSALS:,} more with other replies" in page.text
    assert f"{5000 - MAX_IN_DOUBT:,} more" in page.text
    assert "The largest of 90,000 domains" in page.text


def test_others_are_what_is_not_listed() -> None:
    """The rows of a table add up to the totals."""
    numbers = {RowState.ACCEPTED: 10, RowState.REJECTED: 4}
    found = statistics(numbers, domains=("example.org",), all_domains=3)
    part = {"example.org": Counts({RowState.ACCEPTED: 7, RowState.REJECTED: 1})}
    page = Page(render_report("news", "x", replace(found, by_domain=part)))
    assert page.find_row("all others")[-2:] == ["3", "3"]


def test_before_the_first_message() -> None:
    """Nothing was tried: no chart, no table, and no number that is none."""
    empty = Statistics(
        Counts({RowState.PENDING: 3}), None, None, 0, timedelta(seconds=1), {}, {}, {}, {}, 0, [], (), 0, ()
    )
    page = Page(render_report("news", "news.ledger", empty))
    assert "Nothing was sent yet" in page.text
    assert "3 recipients" in page.text
    assert "table" not in page.tags
