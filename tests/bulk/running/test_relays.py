"""Several relays: shares by weight, a rate each, failover before anything is said and never once a content ended."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from asyncsmtp.bulk.pace.rates import Rate
from asyncsmtp.bulk.running.campaign import Run
from asyncsmtp.bulk.running.relays import LONGEST_REST, REST, Relays, Share
from asyncsmtp.bulk.states import State
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.session.place import BeforeEnd
from asyncsmtp.errors import BadArgument, ConnectFailed, DeliveryInDoubt, SMTPError
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.testing import UNSAID, Fin, ScriptedRelay, Stage
from tests.bulk.ledgers import states
from tests.bulk.running.test_campaign import Plain, campaign
from tests.bulk.running.test_storms import YES
from tests.client.support import message, relay_of


class Station:
    """A pool that accepts, or raises what it is told to."""

    def __init__(self, error: SMTPError | None = None) -> None:
        self.error = error
        self.taken = 0
        self.asked = 0

    async def send(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery:
        self.asked += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.taken += 1
        return Delivery(message.envelope, YES, (YES,), (YES,))


async def test_each_takes_its_share_and_in_turns() -> None:
    pools = [Station(), Station(), Station()]
    relays = Relays([Share(pools[0], 5), Share(pools[1], 3), Share(pools[2], 2)])
    for number in range(1, 101):
        await relays.send(message())
        if not number % 10:
            assert [pool.taken for pool in pools] == [number // 2, number * 3 // 10, number // 5]


async def test_one_that_cannot_be_reached_rests_and_another_takes_its_messages() -> None:
    """And is tried again: after five seconds, then after ten, and never later than five minutes."""
    now = 100.0
    pools = [Station(ConnectFailed("gone")), Station()]
    relays = Relays([Share(pools[0]), Share(pools[1])], clock=lambda: now)
    for _ in range(20):
        await relays.send(message())
    assert (pools[0].asked, pools[1].taken) == (1, 20)
    rest = REST
    for _ in range(10):
        now += rest
        rest = min(2 * rest, LONGEST_REST)
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
    pools = [Station(ConnectFailed("one")), Station(ConnectFailed("two"))]
    with pytest.raises(ConnectFailed):
        await Relays(map(Share, pools)).send(message())
    assert [pool.asked for pool in pools] == [1, 1]


async def test_what_is_in_doubt_does_not_go_to_another() -> None:
    """A row past the point of no return never fails over."""
    envelope = message().envelope
    pools = [Station(DeliveryInDoubt(envelope)), Station()]
    with pytest.raises(DeliveryInDoubt):
        await Relays(map(Share, pools)).send(message())
    assert pools[1].asked == 0


async def test_a_rate_is_one_relay_s_and_holds_up_no_other() -> None:
    now = 1000.0
    slow, fast = Station(), Station()
    relays = Relays([Share(slow, 10, Rate.parse_all("1/min")), Share(fast)], clock=lambda: now, wall=lambda: now)
    for _ in range(50):
        await relays.send(message())
    assert (slow.taken, fast.taken) == (1, 49)
    now += 60
    await relays.send(message())
    await relays.send(message())
    assert slow.taken == 2


def test_what_would_take_nothing_is_refused() -> None:
    with pytest.raises(BadArgument, match="there is no relay"):
        Relays([])
    with pytest.raises(BadArgument, match="takes nothing: give one above 0"):
        Share(Station(), 0)


async def test_a_campaign_through_two_relays_one_of_which_dies(tmp_path: Path) -> None:
    """Over loopback: nobody is missing, nobody has two, and what was in doubt is so."""
    async with (
        ScriptedRelay() as one,
        ScriptedRelay({Stage.DOT: {20: (UNSAID, Fin())}}) as two,
        campaign(tmp_path, 200) as ledger,
        Pool(relay_of(one), sessions=2) as first,
        Pool(relay_of(two), sessions=2) as second,
    ):
        await Run(Plain(), ledger, Relays([Share(first), Share(second, 3)]), concurrency=10).go()
        found = Counter((await states(ledger)).values())
    assert found == {State.ACCEPTED: 199, State.IN_DOUBT: 1}
    took = [*one.received, *two.received]
    assert len({each.forward_paths for each in took}) == len(took) == 200
    assert len(two.received) > 2 * len(one.received)
