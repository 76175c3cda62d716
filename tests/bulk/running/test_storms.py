"""A run against a relay that refuses everyone, and one that waits for the time of the next attempt."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from asyncsmtp.bulk.ledger.interfaces import Claim, RowState, Settlement
from asyncsmtp.bulk.running.runner import Run
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.retry import Retry
from asyncsmtp.client.session.pending_message import BeforeEnd
from asyncsmtp.errors import CampaignHalted
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.protocol.replies import EnhancedStatus, Reply
from asyncsmtp.testing import Action, ScriptedRelay, Stage, StageContext
from tests.bulk.ledger.ledgers import entries, states
from tests.bulk.running.test_runner import Plain, campaign
from tests.client.support import relay_of

YES = Reply(250, (b"2.0.0 ok",))
BLOCKED = Reply(550, (b"5.7.1 your address is blocked",))
LATER = Reply(451, (b"4.7.1 greylisted",))


class Saying:
    """A pool whose relay says the next of `replies` to each dot, and the last one for ever."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.said = 0

    async def send(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery:
        assert before_end is not None
        await before_end()
        await asyncio.sleep(0)
        reply = self.replies[min(self.said, len(self.replies) - 1)]
        self.said += 1
        return Delivery(message.envelope, YES, (YES,), (reply,), host="relay.example")


async def test_a_relay_that_refuses_the_sender_uses_up_fifty_recipients_at_the_most(tmp_path: Path) -> None:
    """BL-21: the rest is pending, or deferred if it was under way; the next run goes on with all of them."""
    assert BLOCKED.status == EnhancedStatus(5, 7, 1)
    async with campaign(tmp_path, 1000) as ledger:
        with pytest.raises(CampaignHalted, match="20 of the last 20 messages were refused for a reason"):
            await Run(Plain(), ledger, Saying(BLOCKED), concurrency=100).run()
        found = Counter((await states(ledger)).values())
        assert found[RowState.REJECTED] == 20
        assert found[RowState.PENDING] + found[RowState.DEFERRED] == 980
        assert found[RowState.DEFERRED] <= 100


async def test_what_a_storm_left_is_sent_by_the_next_run(tmp_path: Path) -> None:
    """BL-21: nobody is lost when the address is off the list again."""
    async with campaign(tmp_path, 300) as ledger:
        with pytest.raises(CampaignHalted):
            await Run(Plain(), ledger, Saying(BLOCKED), concurrency=50).run()
    from asyncsmtp.bulk.ledger.sqlite.store import SqliteLedger

    async with await SqliteLedger.open(tmp_path / "news.ledger", name="news", from_domain="example.org") as ledger:
        await Run(Plain(), ledger, Saying(YES), concurrency=50).run()
        assert Counter((await states(ledger)).values()) == {RowState.REJECTED: 20, RowState.ACCEPTED: 280}


async def test_a_run_tries_again_what_is_due_while_it_waits(tmp_path: Path) -> None:
    """BL-20: every row is refused twice, each with a delay of its own, and accepted then; the watch hears each time."""
    heard: list[tuple[int, bool, RowState]] = []

    def watch(claim: Claim, settlement: Settlement) -> None:
        heard.append((claim.attempt, claim.is_retry, settlement.state))

    retry = Retry(delay=0.02, max_delay=0.02)
    async with campaign(tmp_path, 3) as ledger:
        await Run(Plain(), ledger, Saying(*[LATER] * 6, YES), retry=retry, wait=True, watch=watch).run()
        assert {entry.attempts for entry in await entries(ledger)} == {3}
        assert await ledger.next_due() is None
    assert Counter(heard) == {
        (1, False, RowState.DEFERRED): 3,
        (2, True, RowState.DEFERRED): 3,
        (3, True, RowState.ACCEPTED): 3,
    }


async def test_a_run_that_does_not_wait_ends_with_the_time_of_the_next_attempt(tmp_path: Path) -> None:
    """BL-20: one attempt a row, however often the relay says later."""
    pool = Saying(LATER)
    before = datetime.now(UTC)
    async with campaign(tmp_path, 30) as ledger:
        await Run(Plain(), ledger, pool, retry=Retry(delay=60)).run()
        due = await ledger.next_due()
    assert pool.said == 30
    assert due is not None
    assert timedelta(seconds=60) <= due - before <= timedelta(seconds=90)


async def test_a_run_that_waits_ends_at_once_when_it_is_stopped(tmp_path: Path) -> None:
    """BL-16: the first Ctrl-C, while nothing is under way."""
    async with campaign(tmp_path, 1) as ledger:
        settled = asyncio.Event()
        run = Run(
            Plain(), ledger, Saying(LATER), retry=Retry(delay=3600), wait=True, watch=lambda *outcome: settled.set()
        )
        task = asyncio.create_task(run.run())
        await settled.wait()
        run.stop()
        async with asyncio.timeout(5):
            await task
        assert (await states(ledger)) == {1: RowState.DEFERRED}


async def test_a_clock_that_jumps_ahead_brings_the_next_attempt_and_one_that_jumps_back_loses_none(
    tmp_path: Path,
) -> None:
    """BL-14: the run looks at its clock again and again, so a day that was set forward is not waited for."""
    from asyncsmtp.bulk.ledger.sqlite.store import SqliteLedger
    from tests.bulk.ledger.ledgers import readers

    now = datetime(2026, 3, 1, tzinfo=UTC)

    def us() -> int:
        return int(now.timestamp() * 1e6)

    def watch(claim: Claim, settlement: Settlement) -> None:
        nonlocal now
        now += timedelta(days=1) if claim.attempt == 1 else timedelta(days=-7)

    place = tmp_path / "news.ledger"
    async with await SqliteLedger.open(place, name="news", from_domain="example.org", clock=us) as ledger:
        await ledger.load(readers(1))
        retry = Retry(delay=3600, attempts=2)
        run = Run(Plain(), ledger, Saying(LATER), retry=retry, wait=True, watch=watch, clock=lambda: now)
        async with asyncio.timeout(10):
            await run.run()
        (entry,) = await entries(ledger)
    assert (entry.state, entry.attempts) == (RowState.REJECTED, 2)
    assert entry.first_at is not None
    assert entry.last_at is not None
    assert entry.first_at <= entry.last_at


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (Stage.MAIL, "432 4.3.2 sender thread limit exceeded"),
        (Stage.RCPT, "451 4.7.0 too many concurrent connections"),
        (Stage.DATA, "421 4.7.0 too many connections"),
    ],
)
async def test_a_relay_with_room_for_three_sessions_takes_everybody(tmp_path: Path, stage: Stage, words: str) -> None:
    """FT-17: 60 rows with ten sessions, none deferred; the pool is lowered."""
    admitted: set[int] = set()

    def crowded(context: StageContext) -> Action | None:
        if len(admitted) < 3:
            admitted.add(context.connection)
        return None if context.connection in admitted else words

    async with (
        campaign(tmp_path, 60) as ledger,
        ScriptedRelay({stage: crowded}) as server,
        Pool(relay_of(server), sessions=10) as pool,
    ):
        await Run(Plain(), ledger, pool).run()
        assert Counter((await states(ledger)).values()) == {RowState.ACCEPTED: 60}
        assert {entry.attempts for entry in await entries(ledger)} == {1}
        assert pool.counts.allowed <= 4
