"""Every number of a report is a count of what the ledger has of each row, whatever happened to it, in both ledgers."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree

import pytest

from asyncsmtp.bulk.bounces.dsn import Bounce
from asyncsmtp.bulk.interfaces import TOTALS_NAME, RunTotals
from asyncsmtp.bulk.ledger.interfaces import Claim, Decision, Entry, RowState, Settlement
from asyncsmtp.bulk.recipients.recipient import Problem, RecipientWithCopies
from asyncsmtp.protocol.envelope import Mailbox
from asyncsmtp.web.charts import BOTTOM, HEIGHT, TOP
from asyncsmtp.web.report import render_report
from tests.bulk.ledger.ledgers import Row, accepted, claim_all, deferred, entries, in_doubt, recipient, rejected
from tests.bulk.ledger.postgres.homes import Cluster
from tests.bulk.ledger.sqlite.test_ledger import Folder

RELAYS = ("one.example:587", "two.example:25")
DOMAINS = ("example.net", "Big.example", "small.example", "x.example")
LOCAL = ("r", "r", "r", '"a@b.example ')  # the last one has an @ in quotes
REASONS = ("5.1.1 no such user {}", "5.7.1 blocked, see https://x.example/{}", "4.2.2 mailbox of {} is full")
TRIED = (RowState.ACCEPTED, RowState.DEFERRED, RowState.REJECTED, RowState.IN_DOUBT)


@dataclass
class Section:
    """A part of the page: the rows of its tables, and its drawings."""

    rows: list[list[str]] = field(default_factory=list)
    svgs: list[str] = field(default_factory=list)


class Sections(HTMLParser):
    """The parts of a report by the name of their heading, and its tiles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: dict[str, Section] = {}
        self.tiles = {state: number(n) for state, n in re.findall(r"<dt>([^<]+)</dt><dd>([\d,]+)</dd>", html)}
        self._now = Section()
        self._in_cell = False
        for part in re.findall(r'<section aria-labelledby="(\w+)">(.*?)</section>', html, re.DOTALL):
            self._now = self.found[part[0]] = Section(svgs=re.findall(r"<svg.*?</svg>", part[1], re.DOTALL))
            self.feed(re.sub(r"<svg.*?</svg>", "", part[1], flags=re.DOTALL))

    def __getitem__(self, name: str) -> Section:
        return self.found.get(name) or Section()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self._now.rows.append([])
        if tag in ("td", "th"):
            self._now.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self._now.rows[-1][-1] += data.strip()


def number(text: str) -> int:
    return int(text.replace(",", ""))


def counted(rows: Sequence[Sequence[str]]) -> dict[str, Counter[str]]:
    """Return the numbers of a table by the name of the row and that of the column; those that are 0 are left out."""
    if not rows:
        return {}
    (_, *names), *others = rows
    found = {}
    for name, *cells in others:
        numbers = zip(names, cells, strict=True)
        found[name] = Counter({state: number(n) for state, n in numbers if state and number(n or "0")})
    return found


def by(found: Iterable[tuple[str, Entry]]) -> dict[str, Counter[str]]:
    numbers: dict[str, Counter[str]] = {}
    for key, entry in found:
        numbers.setdefault(key, Counter())[str(entry.state)] += 1
    return numbers


def drawn(svg: str) -> list[tuple[str, str, float, float]]:
    """Return title, class, width and height of each rectangle."""
    found = []
    for each in ElementTree.fromstring(svg).iter("rect"):
        (title,) = each.iter("title")
        found.append(
            (title.text or "", each.get("class", ""), float(each.get("width", 0)), float(each.get("height", 0)))
        )
    return found


# A campaign of which everything may have happened.


def make_rows(random: Random) -> list[Row]:
    """Return rows of which some have copies, some name a mailbox again, and some cannot be mailed."""
    rows: list[Row] = []
    has_copies = random.random() < 0.6
    for place in range(1, random.randint(8, 50)):
        address = f"{random.choice(LOCAL)}{random.randint(1, 60)}{{}}@{random.choice(DOMAINS)}"
        address = address.format('"' if address[0] == '"' else "")
        plain = recipient(place, address)
        kind = random.random()
        if kind < 0.1:
            rows.append(Problem(place, place + 1, "the e-mail address is empty"))
        elif has_copies:
            copies = [
                (each, Mailbox.parse(f"{each}{place}@y.example")) for each in random.sample(("cc", "bcc"), kind < 0.3)
            ]
            rows.append(RecipientWithCopies(plain.row, plain.mailbox, plain.fields, copies=tuple(copies)))
        else:
            rows.append(plain)
    return rows


async def in_batches(rows: Sequence[Row]) -> AsyncIterator[Sequence[Row]]:
    yield rows


def choose(random: Random, claim: Claim) -> Settlement | None:
    """Return an outcome of one of the relays; None: it is given back."""
    kind = random.random()
    if kind < 0.5:
        return accepted(claim)._replace(host=random.choice(RELAYS))
    if kind < 0.65:
        return deferred(claim)._replace(host=random.choice(RELAYS))
    if kind < 0.8:
        words = random.choice(REASONS).format(random.randint(1, 9))
        return rejected(claim)._replace(host=random.choice(RELAYS), reply=words, status=words[:5])
    return in_doubt(claim) if kind < 0.92 else None


async def run(home: Any, random: Random, totals: list[RunTotals]) -> None:
    """Run once: each row gets an outcome, is given back, or is left past its mark; then a person decides."""
    async with home.open() as ledger:
        counts, claims = RunTotals(1, 5.0), await claim_all(ledger)
        random.shuffle(claims)
        for claim in claims:
            home.now += random.randint(1, 40_000_000)
            if random.random() < 0.05:
                ledger.release(claim)
                continue
            await ledger.mark(claim)
            if random.random() < 0.04:
                continue  # SENDING: the process ends here
            home.now += random.choice((900, 14_000, 300_000, 3_000_000))
            settlement = choose(random, claim)
            if settlement is None:
                ledger.release(claim)
                continue
            ledger.settle(settlement)
            await ledger.flush()
            if settlement.state is RowState.ACCEPTED:
                relay = counts.relay(settlement.host)
                relay.messages, relay.size = relay.messages + 1, relay.size + 1000 + claim.recipient.row % 1000
        totals.append(counts)
        await ledger.write_value(f"{TOTALS_NAME}{len(totals)}", counts.to_json())
    async with home.open() as ledger:
        doubts = [entry.number for entry in await entries(ledger, RowState.IN_DOUBT)]
        for number_ in random.sample(doubts, len(doubts) // 3):
            await ledger.resolve(random.choice(list(Decision)), [number_])
        sent = [entry for entry in await entries(ledger, RowState.ACCEPTED) if not entry.copy]
        for entry in random.sample(sent, min(2, len(sent))):
            token = entry.message_id.partition("@")[0]
            bounce = Bounce(entry.address, True, "5.1.1", "the mailbox is gone", "", (), f"report {entry.number}")
            await ledger.record_bounces({token: bounce})


@pytest.fixture(params=["sqlite", "postgres"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return Folder(tmp_path) if request.param == "sqlite" else Cluster(request.getfixturevalue("postgres"))


@pytest.mark.parametrize("seed", range(6))
async def test_each_number_is_counted_from_the_rows(home: Any, seed: int) -> None:
    """With doubts, deferred rows that were accepted later, copies, bounces, two relays, and decisions of a person."""
    random, totals = Random(seed), list[RunTotals]()
    async with home.open() as ledger:
        await ledger.load(in_batches(make_rows(random)))
    for _ in range(random.randint(1, 3)):
        await run(home, random, totals)
    async with home.open() as ledger:
        rows, statistics, status = await entries(ledger), await ledger.statistics(), await ledger.counts()
    page = Sections(html := render_report("news", "x", statistics))

    names = {"still to send": "pending"}
    shown = {names.get(state, state): n for state, n in page.tiles.items() if n}
    assert shown == Counter(str(entry.state) for entry in rows) == {str(state): n for state, n in status.items() if n}
    check_tables(page, rows)
    check_times(page, rows)
    check_refusals(page, rows)
    check_bars(page)
    messages = sum(each.messages for each in totals)
    if messages:
        assert f"in {messages:,} accepted message" in html
    assert statistics.totals.size == sum(each.size for each in totals)


def check_tables(page: Sections, rows: Sequence[Entry]) -> None:
    """By domain, relay and attempts; a table of one line is left out."""
    domains = by((entry.address.rpartition("@")[2].lower(), entry) for entry in rows if entry.address)
    assert counted(page["domains"].rows) == domains
    for section, expected in (
        ("relays", by((entry.host, entry) for entry in rows if entry.host)),
        ("attempts", by((str(entry.attempts), entry) for entry in rows if entry.attempts)),
    ):
        assert counted(page[section].rows) == (expected if len(expected) > 1 else {})


def check_times(page: Sections, rows: Sequence[Entry]) -> None:
    """The slices of time hold every row that was tried, in the chart as in the table."""
    tried = [entry for entry in rows if entry.attempts]
    table = counted(page["time"].rows)
    assert sum(table.values(), Counter()) == Counter(str(each.state) for each in tried if each.state in TRIED)
    starts = [datetime.fromisoformat(name).astimezone() for name in table]
    for entry in tried:
        assert entry.last_at is not None
        assert any(timedelta() <= entry.last_at - start for start in starts)
    (chart,) = page["time"].svgs or [""]
    if chart:
        check_columns(chart, [n for numbers in table.values() for n in numbers.values()])
        kinds = Counter[str]()
        for title, kind, *_ in drawn(chart):
            kinds[kind.replace("-", " ")] += number(title.rpartition(": ")[2].split()[0])
        assert kinds == sum(table.values(), Counter())
    quick = [entry for entry in rows if entry.state is RowState.ACCEPTED and (entry.attempts, entry.doubts) == (1, 0)]
    bins = {name: number(n) for name, n in (row for row in page["replies"].rows if len(row) == 2) if name[0] in "<≥"}
    assert sum(bins.values()) == len(quick)
    if bins:
        spans = [(each.last_at - each.first_at).total_seconds() for each in quick if each.last_at and each.first_at]
        first, last = (seconds(name) for name in (min(bins, key=seconds), max(bins, key=seconds)))
        assert min(spans) < first
        assert max(spans) < last
        check_columns(page["replies"].svgs[0], [n for n in bins.values() if n])


def seconds(name: str) -> float:
    """Return the end of a span such as `< 50 ms`."""
    value, unit = name[2:].split()
    return float("inf") if name[0] == "≥" else float(value.replace(",", "")) / (1000 if unit == "ms" else 1)


def check_columns(chart: str, numbers: Sequence[int]) -> None:
    """The rectangles have the numbers of the table as titles, and heights as these."""
    found = [(number(title.rpartition(": ")[2].split()[0]), height) for title, _, _, height in drawn(chart)]
    assert sorted(n for n, _ in found) == sorted(numbers)
    unit = max(height / n for n, height in found)
    for n, height in found:
        assert height == pytest.approx(max(n * unit, 0.75), abs=0.02)
    assert max(height for _, height in found) <= HEIGHT - BOTTOM - TOP + 0.01


def check_refusals(page: Sections, rows: Sequence[Entry]) -> None:
    """Those that were not accepted, each in one line; and the rows in doubt."""
    refused = [entry for entry in rows if entry.state in (*TRIED[1:], RowState.SUPPRESSED)]
    lines = [row for row in page["refusals"].rows if row[0] != "recipients"]
    listed = Counter[str]()
    for n, state, *_ in lines:
        listed[state] += number(n)
    assert listed == Counter(str(entry.state) for entry in refused)
    doubts = [row for row in page["doubt"].rows if row[0] != "row"]
    assert sorted((number(row), address, f"{words}") for row, address, words, _ in doubts) == sorted(
        (entry.row, entry.address, f"<{entry.message_id}>") for entry in rows if entry.state is RowState.IN_DOUBT
    )


def check_bars(page: Sections) -> None:
    """Of the totals, and of each line of the tables: parts as long as the shares of the numbers beside them."""
    (total,) = page["totals"].svgs
    check_bar(total, {name: n for name, n in page.tiles.items() if n})
    for section in ("domains", "relays", "attempts"):
        for svg, numbers in zip(page[section].svgs, counted(page[section].rows).values(), strict=True):
            check_bar(svg, dict(numbers))


def check_bar(svg: str, numbers: dict[str, int]) -> None:
    found, total = drawn(svg), sum(numbers.values())
    titles = dict(title.split(": ") for title, *_ in found)
    assert {name.replace("pending", "still to send"): number(n) for name, n in titles.items()} == {
        name.replace("pending", "still to send"): n for name, n in numbers.items()
    }
    for title, _, width, _ in found:
        assert width == pytest.approx(max(100 * number(title.rpartition(": ")[2]) / total, 0.2), abs=0.02)


def test_the_checks_see_a_wrong_number() -> None:
    """A chart with another number, or another height, than its table is found."""
    chart = '<svg><rect class="accepted" width="1" height="10"><title>a: 10 accepted</title></rect></svg>'
    check_columns(chart, [10])
    for numbers in ([9], [10, 1], []):
        with pytest.raises(AssertionError):
            check_columns(chart, numbers)
    two = chart.replace("</svg>", '<rect class="b" width="1" height="9"><title>b: 10 b</title></rect></svg>')
    with pytest.raises(AssertionError):
        check_columns(two, [10, 10])
    with pytest.raises(AssertionError):
        check_bar('<svg><rect width="50" height="10"><title>a: 10</title></rect></svg>', {"a": 10})


async def test_a_ledger_reads_the_same_while_rows_are_written(home: Any) -> None:
    """The figures are of one moment: they add up also while a run settles rows."""
    async with home.open() as ledger:
        await ledger.load(in_batches([recipient(n) for n in range(1, 200)]))

        async def send() -> None:
            for claim in await claim_all(ledger):
                await ledger.mark(claim)
                ledger.settle(accepted(claim))

        sending = asyncio.create_task(send())
        while not sending.done():
            found = await ledger.statistics()
            assert found.counts.total == 199 == sum(each.total for each in found.by_domain.values())
            assert sum(each.total for each in found.over_time.values()) == found.attempts
        await sending
