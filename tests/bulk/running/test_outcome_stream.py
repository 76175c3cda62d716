"""A campaign inside an application: its outcomes one by one, bounded, and left or cancelled at any time."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing
from pathlib import Path

import pytest

from asyncsmtp.bulk.ledger.interfaces import Claim, RowState, Settlement
from asyncsmtp.bulk.running.runner import Run, outcomes
from asyncsmtp.client.retry import Retry
from asyncsmtp.errors import CampaignHalted
from asyncsmtp.protocol.replies import Reply
from tests.bulk.ledger.ledgers import states
from tests.bulk.running.test_runner import Gated, Plain, campaign
from tests.bulk.running.test_storms import BLOCKED, LATER, YES, Saying

NO = Reply(550, (b"5.1.1 no such user",))


async def test_every_outcome_is_given_when_it_is_recorded(tmp_path: Path) -> None:
    async with campaign(tmp_path, 200) as ledger:
        told = {}
        async with aclosing(outcomes(Run(Plain(), ledger, Saying(NO, LATER, YES), concurrency=7))) as given:
            async for claim, settlement in given:
                told[claim.recipient.row] = settlement.state
        assert told == await states(ledger)
    assert Counter(told.values()) == {RowState.REJECTED: 1, RowState.DEFERRED: 1, RowState.ACCEPTED: 198}


async def test_a_row_tried_again_comes_each_time(tmp_path: Path) -> None:
    run = None
    async with campaign(tmp_path, 1) as ledger:
        run = Run(Plain(), ledger, Saying(LATER, LATER, YES), retry=Retry(delay=0.01, max_delay=0.01), wait=True)
        async with aclosing(outcomes(run)) as given:
            told = [(claim.attempt, settlement.state) async for claim, settlement in given]
    assert told == [(1, RowState.DEFERRED), (2, RowState.DEFERRED), (3, RowState.ACCEPTED)]


async def test_a_slow_consumer_slows_the_run(tmp_path: Path) -> None:
    """Bounded memory: what waits to be taken, and one outcome of each message in flight, is all that is ahead."""
    pool = Saying(YES)
    async with campaign(tmp_path, 300) as ledger:
        async with aclosing(outcomes(Run(Plain(), ledger, pool, concurrency=4), ahead=3)) as given:
            taken = 0
            async for _ in given:
                taken += 1
                for _ in range(20):
                    await asyncio.sleep(0)
                assert pool.said <= taken + 3 + 2 * 4
        assert taken == 300


async def test_leaving_early_loses_no_outcome(tmp_path: Path) -> None:
    """What is in flight is answered and recorded; nothing new is begun."""
    pool = Saying(YES)
    async with campaign(tmp_path, 300) as ledger:
        async with aclosing(outcomes(Run(Plain(), ledger, pool, concurrency=10), ahead=2)) as given:
            async for _ in given:
                break
        found = Counter((await states(ledger)).values())
    assert found[RowState.ACCEPTED] == pool.said < 300
    assert set(found) == {RowState.ACCEPTED, RowState.PENDING}


async def test_cancelling_aborts_what_is_in_flight(tmp_path: Path) -> None:
    """As `run` does: the rows past their mark keep it, and the next run finds them in doubt."""
    pool = Gated()
    heard = asyncio.Event()

    async def hear() -> None:
        async with aclosing(outcomes(Run(Plain(), ledger, pool, concurrency=5))) as given:
            async for _ in given:
                heard.set()

    async with campaign(tmp_path, 20) as ledger:
        task = asyncio.create_task(hear())
        await heard.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == 1
        found = Counter((await states(ledger)).values())
    assert found[RowState.ACCEPTED] == 1
    assert found[RowState.ACCEPTED] + found[RowState.PENDING] + found[RowState.SENDING] == 20


@pytest.mark.parametrize("early", [False, True])
async def test_what_ends_the_run_is_raised_after_the_last_outcome(tmp_path: Path, early: bool) -> None:
    """Also to who leaves: a campaign that is halted must not look as if it had gone well."""
    taken = 0

    async def hear(run: Run) -> None:
        nonlocal taken
        async with aclosing(outcomes(run)) as given:
            async for _ in given:
                taken += 1
                if early:
                    await halted.wait()  # with what it had ahead
                    break

    async with campaign(tmp_path, 100) as ledger:
        pool, halted = Saying(BLOCKED), asyncio.Event()

        def watch(claim: Claim, settlement: Settlement) -> None:
            if pool.said == 20:
                halted.set()

        run = Run(Plain(), ledger, pool, concurrency=1, watch=watch)
        with pytest.raises(CampaignHalted):
            await hear(run)
    assert taken == (1 if early else 20)


async def test_several_campaigns_share_a_loop_and_a_pool(tmp_path: Path) -> None:
    pool = Saying(YES)

    async def one(name: str) -> int:
        folder = tmp_path / name
        folder.mkdir()
        async with (
            campaign(folder, 50) as ledger,
            aclosing(outcomes(Run(Plain(), ledger, pool, concurrency=3))) as given,
        ):
            return len([outcome async for outcome in given])

    assert await asyncio.gather(*map(one, "abc")) == [50, 50, 50]
    assert pool.said == 150
