"""Several relays: shares by weight, a rate each, failover before anything is said and never once a content ended."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from asyncsmtp.bulk.ledger.interfaces import RowState
from asyncsmtp.bulk.rate_limit.rate import Rate
from asyncsmtp.bulk.running import balancer, scheduler
from asyncsmtp.bulk.running.balancer import MAX_SUSPENSION, MIN_SUSPENSION, RelayBalancer, WeightedRelay
from asyncsmtp.bulk.running.runner import Run
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.session.pending_message import BeforeEnd
from asyncsmtp.errors import (
    ConnectFailed,
    ConnectionLost,
    DeliveryInDoubt,
    InvalidArgument,
    RemoteProtocolError,
    ReplyTimeout,
    SMTPError,
    StartTlsInjection,
)
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.testing import NO_REPLY, Fin, ScriptedRelay, Stage
from tests.bulk.ledger.ledgers import states
from tests.bulk.running.test_runner import Plain, campaign
from tests.bulk.running.test_storms import YES
from tests.client.support import message, relay_of

HOURLY = Rate.parse_all("1/h")


class FakePool:
    """A pool that accepts, or raises what it is told to: `times` times, or always."""

    def __init__(self, error: SMTPError | None = None, times: int | None = None) -> None:
        self.error = error
        self.times = times
        self.taken = 0
        self.asked = 0

    async def send(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery:
        self.asked += 1
        fails = self.times is None or self.asked <= self.times
        await asyncio.sleep(0)
        if self.error is not None and fails:
            raise self.error
        if before_end is not None:
            await before_end()
        self.taken += 1
        return Delivery(message.envelope, YES, (YES,), (YES,))


async def test_each_takes_its_share_and_in_turns() -> None:
    pools = [FakePool(), FakePool(), FakePool()]
    relays = RelayBalancer([WeightedRelay(pools[0], 5), WeightedRelay(pools[1], 3), WeightedRelay(pools[2], 2)])
    for number in range(1, 101):
        await relays.send(message())
        if not number % 10:
            assert [pool.taken for pool in pools] == [number // 2, number * 3 // 10, number // 5]


async def test_one_that_cannot_be_reached_rests_and_another_takes_its_messages() -> None:
    """And is tried again: after five seconds, then after ten, and never later than five minutes."""
    now = 100.0
    pools = [FakePool(ConnectFailed("gone")), FakePool()]
    relays = RelayBalancer([WeightedRelay(pools[0]), WeightedRelay(pools[1])], clock=lambda: now)
    for _ in range(20):
        await relays.send(message())
    assert (pools[0].asked, pools[1].taken) == (1, 20)
    rest = MIN_SUSPENSION
    for _ in range(10):
        now += rest
        rest = min(2 * rest, MAX_SUSPENSION)
        asked = pools[0].asked
        for _ in range(6):
            await relays.send(message())
        assert pools[0].asked == asked + 1
    pools[0].error = None
    now += rest
    for _ in range(10):
        await relays.send(message())
    assert pools[0].taken == 5
    assert sum(pool.taken for pool in pools) == 20 + 60 + 10


async def test_when_none_can_be_reached_the_last_one_s_error_is_raised() -> None:
    pools = [FakePool(ConnectFailed("one")), FakePool(ConnectFailed("two"))]
    with pytest.raises(ConnectFailed):
        await RelayBalancer(map(WeightedRelay, pools)).send(message())
    assert [pool.asked for pool in pools] == [1, 1]


async def test_what_is_in_doubt_does_not_go_to_another() -> None:
    """A row past the point of no return never fails over."""
    envelope = message().envelope
    pools = [FakePool(DeliveryInDoubt(envelope)), FakePool()]
    with pytest.raises(DeliveryInDoubt):
        await RelayBalancer(map(WeightedRelay, pools)).send(message())
    assert pools[1].asked == 0


async def test_a_rate_is_one_relay_s_and_holds_up_no_other() -> None:
    now = 1000.0
    slow, fast = FakePool(), FakePool()
    relays = RelayBalancer(
        [WeightedRelay(slow, 10, Rate.parse_all("1/min")), WeightedRelay(fast)], clock=lambda: now, wall=lambda: now
    )
    for _ in range(50):
        await relays.send(message())
    assert (slow.taken, fast.taken) == (1, 49)
    now += 60
    await relays.send(message())
    await relays.send(message())
    assert slow.taken == 2


def test_what_would_take_nothing_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="there is no relay"):
        RelayBalancer([])
    with pytest.raises(InvalidArgument, match="takes nothing: give one above 0"):
        WeightedRelay(FakePool(), 0)


async def test_a_campaign_through_two_relays_one_of_which_dies(tmp_path: Path) -> None:
    """Over loopback: nobody is missing, nobody has two, and what was in doubt is so."""
    async with (
        ScriptedRelay() as one,
        ScriptedRelay({Stage.END_OF_DATA: {20: (NO_REPLY, Fin())}}) as two,
        campaign(tmp_path, 200) as ledger,
        Pool(relay_of(one), sessions=2) as first,
        Pool(relay_of(two), sessions=2) as second,
    ):
        await Run(
            Plain(), ledger, RelayBalancer([WeightedRelay(first), WeightedRelay(second, 3)]), concurrency=10
        ).run()
        found = Counter((await states(ledger)).values())
    assert found == {RowState.ACCEPTED: 199, RowState.IN_DOUBT: 1}
    took = [*one.received, *two.received]
    assert len({each.forward_paths for each in took}) == len(took) == 200
    assert len(two.received) > 2 * len(one.received)


async def in_time(going: Coroutine[object, object, None]) -> None:
    """Await what must not hang."""
    async with asyncio.timeout(5):
        await going


async def test_a_run_ends_where_the_rate_of_its_only_relay_does(tmp_path: Path) -> None:
    """As with the run's own rates: it says when it would have gone on."""
    pool = FakePool()
    async with campaign(tmp_path, 6) as ledger:
        run = Run(Plain(), ledger, RelayBalancer([WeightedRelay(pool, rates=Rate.parse_all("2/h"))]))
        await in_time(run.run())
        found = Counter((await states(ledger)).values())
    assert found == {RowState.ACCEPTED: 2, RowState.PENDING: 4}
    assert run.resumes_at is not None
    assert timedelta(minutes=59) < run.resumes_at - datetime.now(UTC) < timedelta(minutes=62)


async def test_a_run_that_waits_for_a_relay_s_rate_is_stopped_at_once(tmp_path: Path) -> None:
    pool, first = FakePool(), asyncio.Event()
    async with campaign(tmp_path, 6) as ledger:
        through = RelayBalancer([WeightedRelay(pool, rates=HOURLY)])
        run = Run(Plain(), ledger, through, wait=True, watch=lambda *outcome: first.set())
        task = asyncio.create_task(run.run())
        await first.wait()
        await asyncio.sleep(0.05)
        assert not task.done()
        run.stop()
        async with asyncio.timeout(1):
            await task
        assert Counter((await states(ledger)).values()) == {RowState.ACCEPTED: 1, RowState.PENDING: 5}


async def test_a_run_waits_a_moment_for_an_even_rate(tmp_path: Path) -> None:
    pool = FakePool()
    async with campaign(tmp_path, 20) as ledger:
        run = Run(Plain(), ledger, RelayBalancer([WeightedRelay(pool, rates=Rate.parse_all("100/s"))]))
        await in_time(run.run())
    assert pool.taken == 20
    assert run.resumes_at is None


@pytest.mark.parametrize("limit", [None, 4])
async def test_a_run_goes_on_with_a_relay_that_has_rested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    """Nobody waits for the hour of the other one; a row that came back is no further attempt of the limit."""
    monkeypatch.setattr(balancer, "MIN_SUSPENSION", 0.05)
    pools = [FakePool(), FakePool(ConnectFailed("down"), times=1)]
    async with campaign(tmp_path, 4) as ledger:
        run = Run(
            Plain(),
            ledger,
            RelayBalancer([WeightedRelay(pools[0], rates=HOURLY), WeightedRelay(pools[1])]),
            limit=limit,
        )
        await in_time(run.run())
    assert [pool.taken for pool in pools] == [1, 3]
    assert run.resumes_at is None


async def test_a_run_ends_when_one_relay_is_used_up_and_the_other_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows that were on their way are pending again."""
    monkeypatch.setattr(balancer, "MIN_SUSPENSION", 0.02)
    monkeypatch.setattr(scheduler, "MAX_HOLD", 0.1)
    pools = [FakePool(), FakePool(ConnectFailed("down"))]
    async with campaign(tmp_path, 3) as ledger:
        run = Run(Plain(), ledger, RelayBalancer([WeightedRelay(pools[0], rates=HOURLY), WeightedRelay(pools[1])]))
        await in_time(run.run())
        found = Counter((await states(ledger)).values())
    assert found == {RowState.ACCEPTED: 1, RowState.PENDING: 2}
    assert run.resumes_at is not None
    assert run.resumes_at - datetime.now(UTC) < timedelta(seconds=1)
    assert pools[1].asked < 12


async def test_a_message_begun_before_goes_through_a_relay_that_has_rested(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside a run it is waited for, and no longer than that."""
    monkeypatch.setattr(balancer, "MIN_SUSPENSION", 0.05)
    pools = [FakePool(), FakePool(ConnectFailed("down"), times=1)]
    through = RelayBalancer([WeightedRelay(pools[0], rates=HOURLY), WeightedRelay(pools[1])])
    async with asyncio.timeout(5):
        await asyncio.gather(*(through.send(message()) for _ in range(4)))
    assert [pool.taken for pool in pools] == [1, 3]


async def test_two_that_are_gone_end_the_run_though_one_has_a_rate(tmp_path: Path) -> None:
    """The one that was tried has used up its rate by that, which is no reason to wait for it."""
    pools = [FakePool(ConnectFailed("one")), FakePool(ConnectFailed("two"))]
    through = RelayBalancer([WeightedRelay(pools[0], rates=HOURLY), WeightedRelay(pools[1])])
    async with campaign(tmp_path, 1) as ledger:
        with pytest.raises(ConnectFailed):
            await in_time(Run(Plain(), ledger, through).run())
    assert [pool.asked for pool in pools] == [1, 1]


async def test_a_relay_that_rests_is_tried_before_a_message_is_given_up() -> None:
    """The last resort, though the one that failed just now has used up its rate by that."""
    now = 100.0
    pools = [FakePool(), FakePool(ConnectFailed("two"))]
    shares = [WeightedRelay(pools[0], rates=Rate.parse_all("3/h")), WeightedRelay(pools[1])]
    through = RelayBalancer(shares, clock=lambda: now, wall=lambda: now)
    await through.send(message())
    await through.send(message())
    assert [pool.taken for pool in pools] == [2, 0]
    pools[0].error, pools[1].error = ConnectFailed("one"), None
    await through.send(message())
    assert [pool.taken for pool in pools] == [2, 1]


async def test_what_broke_is_counted_though_the_row_came_back(tmp_path: Path) -> None:
    """A row that breaks every connection is deferred after three of them, whatever the rate."""
    pool = FakePool(ConnectionLost("lost"), times=3)
    async with campaign(tmp_path, 2) as ledger:
        run = Run(Plain(), ledger, RelayBalancer([WeightedRelay(pool, rates=Rate.parse_all("20/s"))]), concurrency=1)
        await in_time(run.run())
        assert await states(ledger) == {1: RowState.DEFERRED, 2: RowState.ACCEPTED}


async def test_a_dead_relay_is_told_of_by_name_once_and_when_it_works_again() -> None:
    """FT-32: how long it rests and why; `failures` has it for as long as it lasts."""
    now, said = 100.0, list[str]()
    pools = [FakePool(ConnectFailed("cannot connect")), FakePool()]
    named = [WeightedRelay(pool, name=name) for pool, name in zip(pools, ("one.example:25", "two:25"), strict=True)]
    relays = RelayBalancer(named, warn=said.append, clock=lambda: now)
    assert relays.failures == {}
    for _ in range(6):
        await relays.send(message())
    (failed,) = said
    assert failed.startswith("the relay one.example:25 cannot be used; its messages go through the others, and it is")
    assert failed.endswith("tried again in 5 s: cannot connect")
    assert relays.failures == {"one.example:25": pools[0].error}
    pools[0].error = None
    now += MIN_SUSPENSION
    for _ in range(6):
        await relays.send(message())
    assert said[1:] == ["the relay one.example:25 can be used again"]
    assert relays.failures == {}


@pytest.mark.parametrize("error", [ConnectionLost("hung up"), ReplyTimeout(None, 1.0), RemoteProtocolError("what?")])
async def test_a_relay_that_breaks_at_every_message_is_dead_as_well(error: SMTPError) -> None:
    """FT-32: after three in a row; until then it may be the message."""
    pools = [FakePool(error), FakePool()]
    relays = RelayBalancer([WeightedRelay(pool, name=f"r{n}") for n, pool in enumerate(pools)], warn=lambda _: None)
    failed = 0
    for _ in range(20):
        try:
            await relays.send(message())
        except type(error):
            failed += 1
    assert (failed, pools[0].asked, pools[1].taken) == (2, 3, 18)
    assert relays.failures == {"r0": error}


async def test_an_attack_on_tls_is_no_moment_of_weakness() -> None:
    """FT-32: it is raised each time, and never hidden by another relay."""
    pools = [FakePool(StartTlsInjection("plaintext")), FakePool()]
    relays = RelayBalancer(map(WeightedRelay, pools))
    for _ in range(10):
        with pytest.raises(StartTlsInjection):
            await relays.send(message())
        await relays.send(message())
