"""A warm-up: a day's messages grow by each day on which something was sent, and no day ever has more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsmtp.bulk.rate_limit.rate import Rate
from asyncsmtp.bulk.rate_limit.shared_store import SharedLimiter, SharedRateStore
from asyncsmtp.bulk.rate_limit.warmup import Warmup
from asyncsmtp.errors import InvalidArgument, LedgerError

NOON = datetime(2026, 3, 2, 12).timestamp()
DAY = 86400


class Wall:
    """A clock that is set by hand, in nanoseconds."""

    def __init__(self, seconds: float = NOON) -> None:
        self.seconds = seconds

    def __call__(self) -> int:
        return int(self.seconds * 1e9)


def store(
    path: Path, wall: Wall, relay: str = "relay", warmup: Warmup | None = None, rates: str = ""
) -> SharedRateStore:
    given = Rate.parse_all(rates) if rates else ()
    return SharedRateStore(path / "rates.db", relay, given, warmup=warmup or Warmup(4, 1.5, 20), wall=wall)


def take_all(shared: SharedRateStore) -> int:
    """Take what there is now; return how much that was."""
    number = 0
    while times := shared.reserve(100).times:
        number += len(times)
    return number


@pytest.mark.parametrize(
    ("warmup", "limits"),
    [
        (Warmup(200, 1.5, 20000), [200, 300, 450, 675, 1012, 1518]),
        (Warmup(50, 2, 300), [50, 100, 200, 300, 300, 300]),
        (Warmup(1, 1.1, 3), [1, 1, 1, 1, 1, 1]),
    ],
)
def test_the_days_are_what_they_say(warmup: Warmup, limits: Sequence[int]) -> None:
    assert [warmup.limit(day) for day in range(1, 7)] == limits
    assert warmup.limit(100_000) == warmup.until


@pytest.mark.parametrize("wrong", [(0, 2, 9), (5, 1, 9), (5, 0.5, 9), (5, 2, 4)])
def test_what_does_not_grow_is_refused(wrong: tuple[int, float, int]) -> None:
    with pytest.raises(InvalidArgument):
        Warmup(*wrong)


@pytest.mark.parametrize("pause", [1, 3])
def test_it_grows_by_sending_days_and_not_by_others(tmp_path: Path, pause: int) -> None:
    """Days without a message, in between, change nothing; a day on which one was sent counts."""
    wall, sent = Wall(), []
    for turn in range(6):
        shared = store(tmp_path, wall)
        sent.append(len(shared.reserve(1).times) if turn == 2 else take_all(shared))
        wall.seconds += pause * DAY
    assert sent == [4, 6, 1, 13, 20, 20]


def test_another_relay_has_a_warm_up_of_its_own(tmp_path: Path) -> None:
    wall = Wall()
    assert [take_all(store(tmp_path, wall, relay)) for relay in ("a", "b", "a")] == [4, 4, 0]
    wall.seconds += DAY
    assert [take_all(store(tmp_path, wall, relay)) for relay in ("a", "c", "b")] == [6, 4, 6]


@pytest.mark.parametrize(("rates", "sent"), [("3/day", 3), ("100/day", 4), ("2/h, 100/day", 2)])
def test_the_lower_limit_holds(tmp_path: Path, rates: str, sent: int) -> None:
    wall = Wall()
    assert take_all(store(tmp_path, wall, rates=rates)) == sent
    day = store(tmp_path, wall, rates=rates).read_warmup()
    assert day is not None
    assert (day.day, day.sent, day.limit) == (1, sent, 4)


def test_it_goes_on_at_midnight(tmp_path: Path) -> None:
    """Of this machine's time zone; nothing that is reserved before it begins after it."""
    wall = Wall()
    shared = store(tmp_path, wall)
    take_all(shared)
    refused = shared.reserve(1)
    assert (refused.wait, refused.times) == (pytest.approx(DAY / 2), ())
    assert refused.warmup is not None
    assert refused.warmup.resumes_at.astimezone() == datetime(2026, 3, 3).astimezone()
    wall.seconds = datetime(2026, 3, 3, 23, 59, 59).timestamp()
    late = shared.reserve(1)
    assert (late.times, late.wait) == ((), pytest.approx(1))
    wall.seconds += late.wait
    assert take_all(shared) == 6, "nothing was sent on the third, so the fourth is the second sending day"


@pytest.mark.parametrize("back", [60.0, DAY * 0.9, DAY * 3, DAY * 365])
def test_a_clock_that_is_set_back_frees_nothing(tmp_path: Path, back: float) -> None:
    """And the number of the day stays; where the clock was wrong by days, nothing waits for them to come again."""
    wall = Wall()
    for _ in range(3):
        take_all(store(tmp_path, wall))
        wall.seconds += DAY
    wall.seconds -= DAY
    wall.seconds -= back
    shared = store(tmp_path, wall)
    assert take_all(shared) == 0
    assert shared.reserve(1).wait <= 2 * DAY + 1
    wall.seconds += shared.reserve(1).wait + 1
    assert take_all(shared) == Warmup(4, 1.5, 20).limit(4)


def test_a_clock_that_is_set_back_and_forth_frees_nothing(tmp_path: Path) -> None:
    """Over midnight and back again, as often as it likes."""
    wall = Wall(datetime(2026, 3, 2, 23, 59).timestamp())
    sent = 0
    for _ in range(6):
        sent += take_all(store(tmp_path, wall))
        wall.seconds += 180
        sent += take_all(store(tmp_path, wall))
        wall.seconds -= 180
    assert sent == 4 + 6


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 2.5 * DAY), st.integers(1, 30), st.booleans()), max_size=25))
@pytest.mark.slow
def test_no_day_has_more_than_its_share(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[float, int, bool]]
) -> None:
    """Whatever comes when, and however much of it is given back or lost with a process."""
    folder, wall, warmup = tmp_path_factory.mktemp("days"), Wall(), Warmup(3, 1.5, 40)
    sent: dict[object, int] = {}
    for gap, wanted, is_given_back in steps:
        wall.seconds += gap
        shared = store(folder, wall, warmup=warmup)  # another process
        reserved = shared.reserve(wanted)
        used = len(reserved.times)
        if is_given_back and used:
            shared.release(reserved, used - 1)
            used = 1
        if used:
            today = datetime.fromtimestamp(wall.seconds).date()
            sent[today] = sent.get(today, 0) + used
    for number, (_, messages) in enumerate(sorted(sent.items(), key=lambda item: str(item[0])), 1):
        assert messages <= warmup.limit(number)


async def test_what_is_not_sent_is_given_back(tmp_path: Path) -> None:
    """A run that ends early leaves the rest of the day to the next."""
    wall, warmup = Wall(), Warmup(40, 2, 100)
    async with SharedLimiter(store(tmp_path, wall, warmup=warmup)) as limiter:
        for _ in range(7):
            assert await limiter.take() == 0
        day = limiter.warmup
        assert day is not None
        assert (day.day, day.sent, day.limit) == (1, 7, 40)
    day = store(tmp_path, wall, warmup=warmup).read_warmup()
    assert day is not None
    assert (day.sent, day.left) == (7, 33)


async def test_nothing_is_sent_without_the_file(tmp_path: Path) -> None:
    """Without it nobody knows which day it is."""
    (tmp_path / "rates.db").mkdir()
    async with SharedLimiter(store(tmp_path, Wall())) as limiter:
        with pytest.raises(LedgerError, match="cannot be used"):
            await limiter.take()


def test_an_older_file_gets_the_table(tmp_path: Path) -> None:
    """One that has counted rates already."""
    SharedRateStore(tmp_path / "rates.db", "relay", Rate.parse_all("5/day"), wall=Wall()).reserve(5)
    assert take_all(store(tmp_path, Wall())) == 4


TAKER = """
import sys
from pathlib import Path
from asyncsmtp.bulk.rate_limit.shared_store import SharedRateStore
from asyncsmtp.bulk.rate_limit.warmup import Warmup
shared = SharedRateStore(Path(sys.argv[1]), "relay", (), warmup=Warmup(300, 2, 1000))
while times := shared.reserve(1).times:
    print("x", flush=True)
print("end", flush=True)
sys.stdin.read()
"""


@pytest.mark.timeout(120)
@pytest.mark.slow
def test_processes_that_are_killed_have_used_their_part(tmp_path: Path) -> None:
    """Two at once, killed in the middle, again and again: together they never begin more than the day has."""
    if datetime.now() + timedelta(minutes=2) > datetime.combine(datetime.now().date(), datetime.max.time()):
        pytest.skip("midnight is near, when the next day begins")  # tests run at any time
    output = tmp_path / "output"
    for turn in range(10):
        with output.open("a", encoding="utf-8") as file:
            words = [sys.executable, "-c", TAKER, str(tmp_path / "rates.db")]
            running = [subprocess.Popen(words, stdin=subprocess.PIPE, stdout=file) for _ in range(2)]
        aim = 10**9 if turn == 9 else output.stat().st_size + 40
        while output.stat().st_size < aim and "end" not in output.read_text("utf-8"):
            time.sleep(0.001)
        for process in running:
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
    text = output.read_text("utf-8")
    begun = text.count("x")
    shared = SharedRateStore(tmp_path / "rates.db", "relay", (), warmup=Warmup(300, 2, 1000))
    assert not shared.reserve(1).times
    assert "end" in text
    assert 280 <= begun <= 300, "at most one of each kill is lost, and none is begun twice"
