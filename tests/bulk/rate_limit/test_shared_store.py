"""Rates that campaigns share: what several processes take together is never more than one may."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from asyncsmtp.bulk.rate_limit.rate import MAX_CATCH_UP, QUOTA_PARTS, Rate
from asyncsmtp.bulk.rate_limit.shared_store import (
    MAX_AHEAD,
    RESERVATION_TIME,
    Reservation,
    SharedLimiter,
    SharedRateStore,
)
from asyncsmtp.errors import LedgerError

ROOT = Path(__file__).parents[3]
DAY = 86400


class Wall:
    """A clock that is set by hand, in nanoseconds."""

    def __init__(self) -> None:
        self.seconds = 1_700_000_000.0

    def __call__(self) -> int:
        return int(self.seconds * 1e9)


def at_once(path: Path, rates: str, messages: int, processes: int = 2) -> Sequence[dict[str, Any]]:
    """Have processes take at once; return what each got."""
    words = [sys.executable, "-m", "tests.bulk.rate_limit.rate_taker", str(path), rates, str(messages)]
    pipe = subprocess.PIPE
    running = [subprocess.Popen(words, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) for _ in range(processes)]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=30)[0] for process in running]
    assert [process.returncode for process in running] == [0] * processes
    return [json.loads(text) for text in said]


@pytest.mark.slow
def test_two_processes_at_once_take_a_day_s_quota_and_no_more(tmp_path: Path) -> None:
    """Each wants all of it, again and again; one that comes afterwards gets nothing."""
    for turn in range(4):
        path = tmp_path / f"rates{turn}.db"
        first, second = at_once(path, "300/day", 300)
        assert first["taken"] + second["taken"] == 300
    (third,) = at_once(path, "300/day", 300, processes=1)
    assert third["taken"] == 0


def test_the_slots_of_an_even_rate_are_never_two_processes_at_once(tmp_path: Path) -> None:
    """Whatever the processes' speed: of all slots, any two are one spacing apart, but for the slack at a start."""
    got = at_once(tmp_path / "rates.db", "200/s", 60)
    slots = sorted(slot for one in got for slot in one["slots"])
    assert [one["taken"] for one in got] == [60, 60]
    assert len(set(slots)) == len(slots)
    assert min(later - slot for slot, later in pairwise(slots)) >= 5000
    late = int(MAX_CATCH_UP * 1e6)
    for first in range(0, len(slots), 10):  # in no time are there more than its share, and the slack
        for last in range(first + 1, len(slots)):
            assert last - first <= (slots[last] - slots[first] + late) / 5000


def test_nobody_reserves_between_another_s_look_and_its_count(tmp_path: Path) -> None:
    """The last one of a day, wanted by a second process at just that moment: it waits, and then there is none."""
    path, rates = tmp_path / "rates.db", Rate.parse_all("1/day")
    found: list[Reservation] = []
    other = threading.Thread(target=lambda: found.append(SharedRateStore(path, "a", rates).reserve(1)))

    class Interrupted(SharedRateStore):
        def _count(self, *arguments: Any) -> None:
            other.start()
            other.join(0.2)  # it would be through by now, if it could
            super()._count(*arguments)

    SharedRateStore(path, "b", rates).reserve(1)  # the file is there
    assert len(Interrupted(path, "a", rates).reserve(1).times) == 1
    other.join(10)
    assert [len(reserved.times) for reserved in found] == [0]


async def test_another_relay_s_messages_do_not_count(tmp_path: Path) -> None:
    rates = Rate.parse_all("1/day")
    for relay in ("a", "b"):
        async with SharedLimiter(SharedRateStore(tmp_path / "rates.db", relay, rates)) as shared:
            assert await shared.take() == 0
            assert await shared.take() > 80_000


async def test_what_is_not_used_is_given_back(tmp_path: Path) -> None:
    """A run that stops leaves to the next what it had reserved ahead."""
    rates, taken = Rate.parse_all("200/day"), 0
    for _ in range(4):
        async with SharedLimiter(SharedRateStore(tmp_path / "rates.db", "a", rates)) as shared:
            for _ in range(33):
                taken += not await shared.take()
    assert SharedRateStore(tmp_path / "rates.db", "a", rates).reserve(1000).times
    async with SharedLimiter(SharedRateStore(tmp_path / "rates.db", "a", Rate.parse_all("200/day"))) as shared:
        while not await shared.take():
            taken += 1
    assert taken >= 200 - (200 - 132) // 4  # all but what the line above reserved and never used
    assert taken <= 200


def test_a_message_counts_for_the_whole_time_of_the_rate(tmp_path: Path) -> None:
    """Not a moment less, and a part of it longer at the most; the wait says when."""
    wall = Wall()
    file = SharedRateStore(tmp_path / "rates.db", "a", Rate.parse_all("1/day"), wall=wall)
    assert len(file.reserve(5).times) == 1
    refused = file.reserve(1)
    assert not refused.times
    assert refused.wait + RESERVATION_TIME >= DAY
    assert refused.wait <= DAY + 2 * DAY / QUOTA_PARTS
    wall.seconds += DAY
    assert not file.reserve(1).times
    wall.seconds += refused.wait - DAY + 1
    assert file.reserve(1).times


def test_a_clock_that_is_set_back_frees_no_quota_and_stops_no_even_rate(tmp_path: Path) -> None:
    """BL-14: a wrong clock may delay messages, by a moment where they are even."""
    wall = Wall()
    quota = SharedRateStore(tmp_path / "rates.db", "a", Rate.parse_all("2/h"), wall=wall)
    even = SharedRateStore(tmp_path / "rates.db", "b", Rate.parse_all("10/s"), wall=wall)
    assert len(quota.reserve(1).times) == len(quota.reserve(1).times) == 1
    assert even.reserve(1).times
    wall.seconds -= 7200
    assert not quota.reserve(1).times
    refused = even.reserve(1)
    assert refused.times or refused.wait < MAX_AHEAD + RESERVATION_TIME


@pytest.mark.parametrize(
    ("rates", "back"),
    [("10/s", 7200.0), ("6/min", 400 * DAY), ("20/s,60/min", 300.0)],
    ids=["hours", "slow", "two rates"],
)
def test_a_clock_that_is_set_back_delays_an_even_rate_by_seconds(tmp_path: Path, rates: str, back: float) -> None:
    """BL-14: also a file that another clock wrote; afterwards the rate is kept, by all processes together."""
    path, wall = tmp_path / "rates.db", Wall()
    slowest = max(rate.interval for rate in Rate.parse_all(rates))
    assert SharedRateStore(path, "a", Rate.parse_all(rates), wall=wall).reserve(1).times
    wall.seconds -= back
    stores = [SharedRateStore(path, "a", Rate.parse_all(rates), wall=wall) for _ in range(2)]
    slots: list[int] = []
    end = wall.seconds + MAX_AHEAD + RESERVATION_TIME + 6 * slowest
    while wall.seconds < end:
        for store in stores:
            slots += store.reserve(1).times
        wall.seconds += slowest / 4
    assert len(slots) >= 5
    assert slots == sorted(slots)
    assert min(later - slot for slot, later in pairwise(slots)) >= int(slowest * 1e6)


def test_so_many_are_reserved_ahead_and_then_others_have_their_turn(tmp_path: Path) -> None:
    """A quarter of a second at a time, a second in all: a process that is killed loses no more."""
    wall, found = Wall(), []
    file = SharedRateStore(tmp_path / "rates.db", "a", Rate.parse_all("100/s"), wall=wall)
    while (reserved := file.reserve(1000)).times:
        found.append(len(reserved.times))
    assert set(found) == {25}
    assert 100 <= sum(found) <= 100 * (MAX_AHEAD + 0.25 + MAX_CATCH_UP) + 25


async def test_a_file_that_cannot_be_used_ends_the_run_or_is_reported(tmp_path: Path) -> None:
    """Where sharing was asked for it is an error; where it is only usual, the run goes by its own count."""
    path = tmp_path / "rates.db"
    path.write_bytes(b"no database at all, surely" * 100)
    file = SharedRateStore(path, "a", Rate.parse_all("1/day"))
    with pytest.raises(LedgerError, match=r"rates\.db cannot be used: .*: repair or remove it"):
        await SharedLimiter(file).take()
    said: list[str] = []
    shared = SharedLimiter(file, required=False, warn=said.append)
    assert [await shared.take() for _ in range(3)] == [0, 0, 0]
    assert len(said) == 1
    assert "not shared" in said[0]


def test_the_file_is_the_user_s_own(tmp_path: Path) -> None:
    """0600 in a folder of 0700, and never through a link (TF-14)."""
    path = tmp_path / "state" / "rates.db"
    SharedRateStore(path, "a", Rate.parse_all("1/day")).reserve(1)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    link = tmp_path / "link.db"
    link.symlink_to(path)
    with pytest.raises(LedgerError):
        SharedRateStore(link, "a", Rate.parse_all("1/day")).reserve(1)


class Counting(SharedRateStore):
    """Counts the messages that it reserved and got back."""

    reserved = released = 0

    def reserve(self, wanted: int) -> Reservation:
        found = super().reserve(wanted)
        self.reserved += len(found.times)
        return found

    def release(self, reserved: Reservation, number: int) -> None:
        super().release(reserved, number)
        self.released += number


async def inline(function: Callable[[], Any]) -> Any:
    return function()


async def reserve_ahead(limiter: SharedLimiter, wall: Wall) -> None:
    """Take until some messages are reserved and not taken."""
    while limiter._used == len(limiter._reserved.times):
        wall.seconds += await limiter.take() + 0.001
    assert len(limiter._reserved.times) - limiter._used >= 1


@pytest.mark.parametrize("later", [RESERVATION_TIME + MAX_AHEAD + 0.1, 3600.0])
async def test_slots_that_have_expired_are_not_used(tmp_path: Path, later: float) -> None:
    """FT-81: a run that was suspended begins with slots of its new time, as others have the old ones' time by now."""
    wall, rates = Wall(), Rate.parse_all("20/s")
    stores = [Counting(tmp_path / "rates.db", "a", rates, wall=wall) for _ in range(2)]
    slept, other = (SharedLimiter(store, run_in_thread=inline) for store in stores)
    await reserve_ahead(slept, wall)
    left = len(slept._reserved.times) - slept._used
    wall.seconds += later
    begun = []
    end = wall.seconds + 2
    while wall.seconds < end:
        for limiter in (other, slept):
            if not await limiter.take():
                begun.append(wall.seconds)
        wall.seconds += 0.005
    assert stores[0].released == left
    assert len(begun) <= 20 * (2 + MAX_CATCH_UP) + 2
    assert slept._reserved.at > (end - 2) * 1e6 - 1e6


async def test_counted_messages_of_an_expired_reservation_are_free_again(tmp_path: Path) -> None:
    """FT-81: else a suspended run would use up a day's quota with messages that it never sent."""
    wall, rates = Wall(), Rate.parse_all("100/day")
    store = Counting(tmp_path / "rates.db", "a", rates, wall=wall)
    limiter, taken = SharedLimiter(store, run_in_thread=inline), 0
    for _ in range(5):
        for _ in range(3):
            taken += not await limiter.take()
        wall.seconds += RESERVATION_TIME + 1
    await limiter.__aexit__()
    assert taken == 15
    assert store.reserved - store.released == 15
    left = SharedRateStore(tmp_path / "rates.db", "a", rates, wall=wall)
    number = 0
    while times := left.reserve(1).times:
        number += len(times)
    assert number == 85


@pytest.mark.parametrize("back", [10.0, 3600.0, 400.0 * DAY])
async def test_a_limiter_does_not_wait_for_a_clock_that_was_set_back(tmp_path: Path, back: float) -> None:
    """FT-81: slots that it has reserved lie hours ahead then; it takes others, within seconds."""
    wall = Wall()
    store = Counting(tmp_path / "rates.db", "a", Rate.parse_all("20/s"), wall=wall)
    limiter = SharedLimiter(store, run_in_thread=inline)
    await reserve_ahead(limiter, wall)
    wall.seconds -= back
    waits, waited = 0, 0.0
    while (seconds := await limiter.take()) > 0:
        assert seconds <= MAX_AHEAD + RESERVATION_TIME + 1
        wall.seconds += seconds
        waited += seconds
        waits += 1
        assert waits < 20
    assert waited <= 2 * (MAX_AHEAD + RESERVATION_TIME) + 1
    assert store.released
