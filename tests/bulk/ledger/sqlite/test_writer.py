"""The writer: the size and the order of its commits, and its notifications."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from asyncsmtp.bulk.ledger import write_queue
from asyncsmtp.bulk.ledger.interfaces import RowState
from asyncsmtp.bulk.ledger.sqlite import writer
from asyncsmtp.bulk.ledger.sqlite.ledger_file import LedgerLock, open_file
from asyncsmtp.bulk.ledger.sqlite.store import SqliteLedger, SqliteQueries
from asyncsmtp.bulk.ledger.sqlite.writer import DaemonThread, SqliteWriter
from asyncsmtp.bulk.ledger.transitions import Transition
from asyncsmtp.errors import LedgerError
from tests.bulk.ledger.ledgers import accepted, readers
from tests.bulk.ledger.sqlite.test_ledger import Folder


class Commits(list[list[int]]):
    """The rows of each commit."""

    def written(self, changes: Sequence[Transition]) -> None:
        self.append([change.row for change in changes])


@pytest.fixture
def commits() -> Commits:
    return Commits()


@pytest.fixture
async def pen(tmp_path: Path, commits: Commits) -> AsyncIterator[SqliteWriter]:
    """A writer for a ledger of 2000 rows."""
    home = Folder(tmp_path)
    async with home.open() as ledger:
        await ledger.load(readers(2000))
    executor = DaemonThread("writer")
    pen = SqliteWriter(
        home.path,
        open_file(home.path),
        SqliteQueries(2),
        executor=executor,
        clock=lambda: 1,
        lock=LedgerLock.acquire(home.path.with_name("news.ledger.lock")),
        free_disk_space=lambda: None,
        on_durable=commits.written,
        on_closed=executor.shutdown,
    )
    yield pen
    await pen.aclose()


def mark(row: int) -> Transition:
    return Transition(row, RowState.PENDING, RowState.SENDING, 1, done=asyncio.get_running_loop().create_future())


async def test_what_is_queued_is_one_commit(pen: SqliteWriter, commits: Commits) -> None:
    """The next transaction takes whatever queued during the last one, however much that is."""
    busy = asyncio.create_task(pen.call(lambda connection: None))
    await asyncio.sleep(0)
    marks = [mark(row) for row in range(1, 1001)]
    for change in marks:
        pen.queue.put(change, urgent=True)
    await asyncio.gather(busy, *(change.done for change in marks if change.done))
    assert len(commits) <= 3
    assert [row for rows in commits for row in rows] == list(range(1, 1001))


async def test_after_a_large_commit_the_next_one_gathers(
    pen: SqliteWriter, commits: Commits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At full speed each commit has more transitions; after a small commit there is no delay."""
    monkeypatch.setattr(writer, "GATHER_DELAY", 0.5)
    all_queued = threading.Event()
    busy = asyncio.create_task(pen.call(lambda connection: all_queued.wait()))
    await asyncio.sleep(0)
    await committed(pen, range(1, writer.GATHER_MIN + 1), meanwhile=all_queued.set)
    await busy
    first, second = mark(101), mark(102)
    pen.queue.put(first, urgent=True)
    await asyncio.sleep(0.05)
    pen.queue.put(second, urgent=True)
    await asyncio.gather(*(change.done for change in (first, second) if change.done))
    assert commits == [[*range(1, writer.GATHER_MIN + 1)], [101, 102]]
    for row in (103, 104):
        async with asyncio.timeout(0.4):
            await committed(pen, [row])
    assert commits[2:] == [[103], [104]]


async def committed(pen: SqliteWriter, rows: Iterable[int], meanwhile: Callable[[], object] = lambda: None) -> None:
    """Mark the rows, and wait until that is durable."""
    marks = [mark(row) for row in rows]
    for change in marks:
        pen.queue.put(change, urgent=True)
    meanwhile()
    await asyncio.gather(*(change.done for change in marks if change.done))


async def test_a_settlement_waits_for_a_mark(
    pen: SqliteWriter, commits: Commits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs no commit of its own."""
    monkeypatch.setattr(write_queue, "MAX_SETTLE_DELAY", 3600.0)
    first, second = mark(1), mark(2)
    pen.queue.put(first, urgent=True)
    assert first.done is not None
    await first.done
    pen.queue.put(Transition(1, RowState.SENDING, RowState.ACCEPTED), urgent=False)
    await asyncio.sleep(0.05)
    assert commits == [[1]]
    pen.queue.put(second, urgent=True)
    assert second.done is not None
    await second.done
    assert commits == [[1], [1, 2]]


async def test_one_row_may_change_often_in_one_commit(pen: SqliteWriter, commits: Commits) -> None:
    """Marked, released, marked again: the order of the transitions of one row is kept."""
    last = mark(1)
    for change in (mark(1), mark(2), Transition(1, RowState.SENDING, RowState.PENDING, -1), last):
        pen.queue.put(change, urgent=change is last)
    assert last.done is not None
    await last.done
    assert commits == [[1, 2, 1, 1]]
    found = await pen.call(lambda connection: connection.execute("SELECT attempts, state FROM delivery").fetchmany(2))
    assert found == [(1, RowState.SENDING), (1, RowState.SENDING)]


async def test_calls_and_transitions_keep_their_order(pen: SqliteWriter) -> None:
    """A call that is made after a transition sees it."""
    pen.queue.put(mark(1), urgent=False)
    before = pen.call(lambda connection: connection.execute("SELECT sum(state) FROM delivery").fetchone())
    asking = asyncio.create_task(before)
    await asyncio.sleep(0)
    pen.queue.put(mark(2), urgent=True)
    assert await asking == (1,)


async def test_an_error_of_a_call_goes_to_its_caller(pen: SqliteWriter) -> None:
    def fail(connection: object) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await pen.call(fail)
    await pen.call(lambda connection: None)


async def test_one_row_in_a_wrong_state_ends_it(pen: SqliteWriter, commits: Commits) -> None:
    """Compare and set; nothing of a larger transaction is kept."""
    changes = [mark(row) for row in range(1, 601)]
    changes[550].before = RowState.DEFERRED
    for change in changes:
        pen.queue.put(change, urgent=change is changes[-1])
    found = await asyncio.gather(*(change.done for change in changes if change.done), return_exceptions=True)
    assert all(isinstance(error, LedgerError) for error in found)
    assert "row 551 is pending in the ledger, not deferred" in str(pen.queue.failure)
    assert commits == []


async def test_it_cannot_be_used_once_it_is_closed(pen: SqliteWriter) -> None:
    await pen.aclose()
    with pytest.raises(LedgerError, match="is closed already"):
        pen.queue.put(mark(1), urgent=True)
    with pytest.raises(LedgerError, match="is closed already"):
        await pen.call(lambda connection: None)


@pytest.mark.both_loops
async def test_a_cancelled_mark_does_no_harm(tmp_path: Path) -> None:
    """A sender is cancelled while its mark is being written."""
    async with Folder(tmp_path).open() as ledger:
        await ledger.load(readers(2))
        first, second = await ledger.claim(2)
        ledger.mark(first).cancel()
        await ledger.mark(second)
        ledger.settle(accepted(first))
        await ledger.flush()
        assert (await ledger.counts())[RowState.ACCEPTED] == 1


class InlineExecutor:
    """An executor that runs each function at once, in the thread that submits it."""

    def __init__(self) -> None:
        self.calls = 0

    def submit(self, function: Callable[[], None], /) -> None:
        self.calls += 1
        function()


async def test_a_ledger_does_its_work_in_the_executor_it_is_given(tmp_path: Path) -> None:
    """A simulation can drive it without threads, and by its own clock."""
    executor, threads = InlineExecutor(), threading.active_count()
    async with await SqliteLedger.open(
        tmp_path / "news.ledger", name="news", from_domain="example.org", clock=lambda: 1_000_000, executor=executor
    ) as ledger:
        await ledger.load(readers(2))
        first, second = await ledger.claim(2)
        await ledger.mark(first)
        ledger.settle(accepted(first))
        await ledger.mark(second)
        assert ledger.created_at == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
        assert (await ledger.counts())[RowState.ACCEPTED] == 1
        assert threading.active_count() == threads
    assert executor.calls > 5


async def test_the_pause_after_a_large_commit_is_by_the_given_clock(tmp_path: Path) -> None:
    """A simulation decides when it ends."""
    slept: list[float] = []
    async with await SqliteLedger.open(
        tmp_path / "news.ledger", name="news", from_domain="example.org", monotonic=lambda: 5.0, sleep=slept.append
    ) as ledger:
        await ledger.load(readers(200))
        for _ in range(2):
            await asyncio.gather(*map(ledger.mark, await ledger.claim(100)))
    assert slept
    assert slept == [pytest.approx(writer.GATHER_DELAY)] * len(slept)


async def test_a_ledger_may_use_a_thread_pool_of_one_thread(tmp_path: Path) -> None:
    """Two ledgers may share it, one after the other: it is not shut down."""
    with ThreadPoolExecutor(1) as executor:
        for _ in range(2):
            async with await SqliteLedger.open(
                tmp_path / "news.ledger", name="news", from_domain="example.org", executor=executor
            ) as ledger:
                if not ledger.loaded:
                    await ledger.load(readers(1))
        assert (await ledger.counts()).total == 1


FORGETFUL = """
import asyncio, gc, sys
from asyncsmtp import SqliteLedger
from tests.bulk.ledger.ledgers import readers

async def forgetful():
    ledger = await SqliteLedger.open(sys.argv[1], name="news", from_domain="example.org")
    await ledger.load(readers(1))
    ledger.mark((await ledger.claim(1))[0])

asyncio.run(forgetful())
gc.collect()
print("ended")
"""


def test_a_loop_that_ends_without_closing_does_not_hang(tmp_path: Path) -> None:
    """The thread does not keep the process alive."""
    command = [sys.executable, "-c", FORGETFUL, str(tmp_path / "news.ledger")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=Path(__file__).parents[4])
    assert (ended.returncode, ended.stdout) == (0, "ended\n"), ended.stderr
