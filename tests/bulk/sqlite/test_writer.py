"""The writer thread: how much it commits at once, in which order, and whom it tells."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path

import pytest

from asyncsmtp.bulk.keeping import queue
from asyncsmtp.bulk.keeping.change import Change
from asyncsmtp.bulk.sqlite import writer
from asyncsmtp.bulk.sqlite.ledger import SqliteLedger
from asyncsmtp.bulk.sqlite.schema import open_ledger
from asyncsmtp.bulk.sqlite.writer import Writer
from asyncsmtp.bulk.states import State
from asyncsmtp.errors import LedgerError
from tests.bulk.ledgers import accepted, readers
from tests.bulk.sqlite.test_ledger import Folder


class Commits(list[list[int]]):
    """The rows of each commit."""

    def written(self, changes: Sequence[Change]) -> None:
        self.append([change.row for change in changes])


@pytest.fixture
def commits() -> Commits:
    return Commits()


@pytest.fixture
async def pen(tmp_path: Path, commits: Commits) -> AsyncIterator[Writer]:
    """A writer for a ledger of 2000 rows."""
    home = Folder(tmp_path)
    async with home.open() as ledger:
        await ledger.load(readers(2000))
    pen = Writer(home.path, open_ledger(home.path), 2, clock=lambda: 1, make_room=lambda: None, written=commits.written)
    yield pen
    await pen.aclose()


def mark(row: int) -> Change:
    return Change(row, State.PENDING, State.SENDING, 1, done=asyncio.get_running_loop().create_future())


async def test_what_waits_is_one_commit(pen: Writer, commits: Commits) -> None:
    """The next transaction takes whatever queued during the last one, however much that is."""
    busy = asyncio.create_task(pen.call(lambda connection: None))
    await asyncio.sleep(0)
    marks = [mark(row) for row in range(1, 1001)]
    for change in marks:
        pen.queue.put(change, urgent=True)
    await asyncio.gather(busy, *(change.done for change in marks if change.done))
    assert len(commits) <= 3
    assert [row for rows in commits for row in rows] == list(range(1, 1001))


async def test_behind_a_large_commit_the_next_one_gathers(
    pen: Writer, commits: Commits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where changes come thick and fast each commit has more of them; behind a small one nothing is waited for."""
    monkeypatch.setattr(writer, "GATHER", 0.5)
    all_queued = threading.Event()
    busy = asyncio.create_task(pen.call(lambda connection: all_queued.wait()))
    await asyncio.sleep(0)
    await committed(pen, range(1, writer.MANY + 1), meanwhile=all_queued.set)
    await busy
    first, second = mark(101), mark(102)
    pen.queue.put(first, urgent=True)
    await asyncio.sleep(0.05)
    pen.queue.put(second, urgent=True)
    await asyncio.gather(*(change.done for change in (first, second) if change.done))
    assert commits == [[*range(1, writer.MANY + 1)], [101, 102]]
    for row in (103, 104):
        async with asyncio.timeout(0.4):
            await committed(pen, [row])
    assert commits[2:] == [[103], [104]]


async def committed(pen: Writer, rows: Iterable[int], meanwhile: Callable[[], object] = lambda: None) -> None:
    """Mark the rows, and wait until that is durable."""
    marks = [mark(row) for row in rows]
    for change in marks:
        pen.queue.put(change, urgent=True)
    meanwhile()
    await asyncio.gather(*(change.done for change in marks if change.done))


async def test_a_settlement_waits_for_a_mark(pen: Writer, commits: Commits, monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs no commit of its own."""
    monkeypatch.setattr(queue, "RIDE", 3600.0)
    first, second = mark(1), mark(2)
    pen.queue.put(first, urgent=True)
    assert first.done is not None
    await first.done
    pen.queue.put(Change(1, State.SENDING, State.ACCEPTED), urgent=False)
    await asyncio.sleep(0.05)
    assert commits == [[1]]
    pen.queue.put(second, urgent=True)
    assert second.done is not None
    await second.done
    assert commits == [[1], [1, 2]]


async def test_one_row_may_change_often_in_one_commit(pen: Writer, commits: Commits) -> None:
    """Marked, taken back, marked again: the order of what concerns one row is kept."""
    last = mark(1)
    for change in (mark(1), mark(2), Change(1, State.SENDING, State.PENDING, -1), last):
        pen.queue.put(change, urgent=change is last)
    assert last.done is not None
    await last.done
    assert commits == [[1, 2, 1, 1]]
    found = await pen.call(lambda connection: connection.execute("SELECT attempts, state FROM delivery").fetchmany(2))
    assert found == [(1, State.SENDING), (1, State.SENDING)]


async def test_calls_and_changes_keep_their_order(pen: Writer) -> None:
    """Who asks after a change sees it."""
    pen.queue.put(mark(1), urgent=False)
    before = pen.call(lambda connection: connection.execute("SELECT sum(state) FROM delivery").fetchone())
    asking = asyncio.create_task(before)
    await asyncio.sleep(0)
    pen.queue.put(mark(2), urgent=True)
    assert await asking == (1,)


async def test_an_error_of_a_call_is_its_own(pen: Writer) -> None:
    def fail(connection: object) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await pen.call(fail)
    await pen.call(lambda connection: None)


async def test_one_wrong_row_ends_it(pen: Writer, commits: Commits) -> None:
    """Compare and set; nothing of a larger transaction is kept."""
    changes = [mark(row) for row in range(1, 601)]
    changes[550].before = State.DEFERRED
    for change in changes:
        pen.queue.put(change, urgent=change is changes[-1])
    found = await asyncio.gather(*(change.done for change in changes if change.done), return_exceptions=True)
    assert all(isinstance(error, LedgerError) for error in found)
    assert "row 551 is pending in the ledger, not deferred" in str(pen.queue.failure)
    assert commits == []


async def test_it_cannot_be_used_once_it_is_closed(pen: Writer) -> None:
    await pen.aclose()
    with pytest.raises(LedgerError, match="is closed already"):
        pen.queue.put(mark(1), urgent=True)
    with pytest.raises(LedgerError, match="is closed already"):
        await pen.call(lambda connection: None)


@pytest.mark.both_loops
async def test_a_future_that_was_given_up_harms_nobody(tmp_path: Path) -> None:
    """A sender is cancelled while its mark is on the way."""
    async with Folder(tmp_path).open() as ledger:
        await ledger.load(readers(2))
        first, second = await ledger.claim(2)
        ledger.mark(first).cancel()
        await ledger.mark(second)
        ledger.settle(accepted(first))
        await ledger.flush()
        assert (await ledger.counts())[State.ACCEPTED] == 1


def test_a_loop_that_ends_without_closing_does_not_hang(tmp_path: Path) -> None:
    """The thread is no reason for a process to stay."""

    async def forgetful() -> None:
        ledger = await SqliteLedger.open(tmp_path / "news.ledger", name="news", from_domain="example.org")
        await ledger.load(readers(1))
        ledger.mark((await ledger.claim(1))[0])

    asyncio.run(forgetful())
    gc.collect()
