"""What a run counts besides its outcomes: bytes, reply times, and what it waited for."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from asyncsmtp.bulk.interfaces import LimitTotals, RelayTotals, RunTotals
from asyncsmtp.bulk.ledger.interfaces import Claim, Settlement
from asyncsmtp.bulk.rate_limit.rate import Rate
from asyncsmtp.bulk.rate_limit.rate_policy import RatePolicy
from asyncsmtp.bulk.running import scheduler
from asyncsmtp.bulk.running.runner import Run
from asyncsmtp.bulk.running.schedule import Schedule, Window
from asyncsmtp.client.session.pending_message import BeforeEnd
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.protocol.replies import Reply
from tests.bulk.ledger.ledgers import readers
from tests.bulk.ledger.sqlite.test_ledger import Folder
from tests.bulk.running.test_runner import Plain
from tests.bulk.running.test_scheduler import Wall, ledger_of, rates
from tests.bulk.running.test_storms import LATER, YES, Saying

NO = Reply(550, (b"5.1.1 unknown",))
TOO_FAST = Reply(421, (b"4.7.0 too many messages",))


async def totals_of(tmp_path: Path, domains: list[str], **settings: object) -> RunTotals:
    """Run a campaign, and return what its ledger has of the totals then."""
    async with ledger_of(tmp_path, domains) as ledger:
        await Run(Plain(), ledger, Saying(YES), **settings).run()  # type: ignore[arg-type]
        return (await ledger.statistics()).totals


async def test_bytes_and_messages_are_those_that_were_accepted(tmp_path: Path) -> None:
    """A refused message is no byte that a relay took; what two runs counted is added up."""
    composed: list[Message] = []

    class Weighing(Plain):
        def compose(self, *arguments: object, **more: object) -> Message:
            composed.append(super().compose(*arguments, **more))  # type: ignore[arg-type]
            return composed[-1]

    async with ledger_of(tmp_path, ["a.example"] * 7) as ledger:
        await Run(Weighing(), ledger, Saying(NO, LATER, YES), limit=3, concurrency=1).run()
        await Run(Weighing(), ledger, Saying(YES), limit=4, concurrency=1).run()
        found = (await ledger.statistics()).totals
    accepted = composed[2:]
    assert (found.runs, found.messages) == (2, len(accepted))
    assert found.size == sum(message.content.size or 0 for message in accepted)


async def test_reply_times_are_of_every_attempt(tmp_path: Path) -> None:
    """Also of one that was refused after its content; a relay that is slow at it is seen."""

    class Slow(Saying):
        async def send(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery:
            delivery = await super().send(message, before_end=before_end)
            await asyncio.sleep(0.12)
            return delivery

    async with ledger_of(tmp_path, ["a.example"] * 3) as ledger:
        await Run(Plain(), ledger, Slow(YES, NO, YES), concurrency=1).run()
        (relay,) = (await ledger.statistics()).totals.relays.values()
    assert sum(relay.reply_times.values()) == 3
    assert min(relay.reply_times) >= 120


def test_long_reply_times_keep_two_digits() -> None:
    """However many replies there are, the number of different times is small."""
    relay = RelayTotals()
    for ms in range(0, 70_000, 7):
        relay.record_reply(ms / 1000)
    assert len(relay.reply_times) <= 400
    assert {99, 120, 9900, 69_000} - relay.reply_times.keys() <= {99}
    assert sum(relay.reply_times.values()) == 10_000


async def test_a_rate_holds_messages_back(tmp_path: Path) -> None:
    """By its name as it is written, with how often and how long."""
    found = await totals_of(tmp_path, ["a.example"] * 30, rate_policy=RatePolicy(Rate.parse_all("100/s, 500/min")))
    assert [*found.limits] == ["rate 500/min"], "the slower of the two"
    limit = found.limits["rate 500/min"]
    assert 20 <= limit.held <= 30
    assert 2 <= limit.seconds <= found.seconds + 0.01


async def test_the_rate_of_a_domain_is_counted_for_its_rows(tmp_path: Path) -> None:
    """Rows of other domains pass; the run waits only at the end."""
    policy = RatePolicy(domains=rates(slow="4/s"))
    found = await totals_of(tmp_path, ["slow.example"] * 5 + ["b.example"] * 20, rate_policy=policy)
    assert [*found.limits] == ["rate 4/s to slow.example"]
    assert found.limits["rate 4/s to slow.example"].held >= 3
    assert found.limits["rate 4/s to slow.example"].seconds > 0.3


async def test_a_quota_that_ends_the_run(tmp_path: Path) -> None:
    """Without `wait` nothing is waited for, and the report can say what ended each run."""
    for _ in range(2):
        found = await totals_of(
            tmp_path, ["a.example"] * 8, rate_policy=RatePolicy(Rate.parse_all("3/day")), concurrency=1
        )
    assert found.limits == {"rate 3/day": LimitTotals(2, 0.0, 2)}
    assert (found.runs, found.messages) == (2, 3)


async def test_a_closed_window_is_waited_for(tmp_path: Path) -> None:
    """The clock of the test goes on while the run sleeps."""
    wall = Wall()
    seconds = [0.0]

    async def sleep(span: float, stopped: asyncio.Event) -> None:
        wall.now += timedelta(seconds=span)
        seconds[0] += span

    window = Window.parse("13:00-14:00 UTC")
    async with ledger_of(tmp_path, ["a.example"] * 2, wall) as ledger:
        run = Run(
            Plain(),
            ledger,
            Saying(YES),
            schedule=Schedule((window,)),
            wait=True,
            clock=wall,
            monotonic=lambda: seconds[0],
            sleep=sleep,
        )
        await run.run()
        found = (await ledger.statistics()).totals
    assert found.limits == {"window": LimitTotals(1, 3600.0, 0)}


async def test_slowdowns_by_replies_are_counted(tmp_path: Path) -> None:
    """The relay closes with "too fast", once for two messages: the run goes slower, and messages wait for that."""
    async with ledger_of(tmp_path, ["a.example"] * 30) as ledger:
        policy = RatePolicy()
        await Run(Plain(), ledger, Saying(YES, TOO_FAST, TOO_FAST, YES), rate_policy=policy, concurrency=1).run()
        found = (await ledger.statistics()).totals
    ((what, (times, lowest)),) = found.slowed.items()
    assert (what, times) == ("all", 1)
    assert lowest > 0
    assert found.limits["too fast"].held > 0


async def test_a_killed_run_has_most_of_its_totals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are written with each batch that is claimed, and not with each row."""
    monkeypatch.setattr(scheduler, "TOTALS_INTERVAL", 0.0)
    monkeypatch.setattr(scheduler, "BATCH", 10)
    home = Folder(tmp_path)

    def watch(claim: Claim, settlement: Settlement) -> None:
        if settlement.row == 35:
            home.crash()

    async with home.open() as ledger:
        await ledger.load(readers(60))
        clock = lambda: datetime.fromtimestamp(home.now / 1e6, UTC)  # noqa: E731
        await Run(Plain(), ledger, Saying(YES), concurrency=1, watch=watch, clock=clock).run()
    async with home.open() as ledger:
        found = (await ledger.statistics()).totals
    assert found.runs == 1
    assert 20 <= found.messages <= 35


async def test_a_run_that_sends_nothing_leaves_nothing(tmp_path: Path) -> None:
    """A timer that starts one each minute does not fill the ledger."""
    for _ in range(3):
        found = await totals_of(tmp_path, ["a.example"] * 2)
    assert found.runs == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"seconds": "x"}', '{"seconds": 1, "relays": [], "limits": 3}'])
async def test_totals_that_cannot_be_read_are_left_out(tmp_path: Path, text: str) -> None:
    """Of a later version, perhaps; the report is made all the same."""
    async with ledger_of(tmp_path, ["a.example"]) as ledger:
        await ledger.write_value("run 1", text)
        assert (await ledger.statistics()).totals == RunTotals()


def test_totals_are_read_as_they_were_written() -> None:
    """And adding them to nothing changes nothing."""
    totals = RunTotals(
        1, 2.5, {"a:25": RelayTotals(3, 900, {7: 2, 120: 1})}, {"rate 1/s": LimitTotals(1, 0.5, 1)}, {"all": (2, 1.5)}
    )
    again = RunTotals.from_json(totals.to_json())
    assert again == totals
    total = RunTotals()
    total.add(again)
    total.add(again)
    assert (total.runs, total.size, total.relays["a:25"].reply_times) == (2, 1800, {7: 4, 120: 2})
    assert total.limits["rate 1/s"] == LimitTotals(2, 1.0, 2)
    assert total.slowed == {"all": (4, 1.5)}
