"""Messages with files of their own: as many in memory as the sessions can send, and composed outside the event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from threading import current_thread, main_thread

import pytest

from asyncsmtp.bulk.ledger.interfaces import RowState
from asyncsmtp.bulk.running.row_sender import MAX_COMPOSED_AT_ONCE, MIN_MEMORY
from asyncsmtp.bulk.running.runner import Run
from asyncsmtp.client.session.pending_message import BeforeEnd
from asyncsmtp.errors import ConnectionLost, RecipientError
from asyncsmtp.mail.attachment import Attachment, AttachmentPattern
from asyncsmtp.mail.message import Message
from asyncsmtp.mail.templates.template import Template
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.protocol.envelope import Envelope, Mailbox
from tests.bulk.ledger.ledgers import states
from tests.bulk.running.test_runner import campaign
from tests.bulk.running.test_storms import YES
from tests.client.support import until

LARGE = 30 << 20


class Reading:
    """A composer of messages that say to be of a size; it looks at how it is used."""

    def __init__(self, size: Callable[[int], int], *, reads_files: bool = True) -> None:
        self.reads_files = reads_files
        self.size = size
        self.in_memory = self.most = self.bytes = self.most_bytes = self.busy = 0
        self.threads: list[bool] = []
        self.five = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def compose(
        self, to: Mailbox, fields: Mapping[str, str], *, message_id: str, date: datetime, row: int | None = None
    ) -> Message:
        assert row is not None
        self.busy += 1
        assert self.busy == 1
        self.threads.append(current_thread() is not main_thread())
        if self.size(row) < 0:
            self.busy -= 1
            raise RecipientError("no such file", row)
        self.in_memory += 1
        self.bytes += self.size(row)
        self.most, self.most_bytes = max(self.most, self.in_memory), max(self.most_bytes, self.bytes)
        self.busy -= 1
        if self.in_memory == 5:
            self._loop.call_soon_threadsafe(self.five.set)
        return Message(Envelope.of("a@example.org", [to.address]), Content((b"x\r\n",), self.size(row), False, False))


class Slow:
    """A pool that answers each message after some steps of the loop, and none before so many are in memory."""

    def __init__(self, composer: Reading, error: Exception | None = None, *, at_least: int = 0) -> None:
        self.composer, self.error, self.at_least = composer, error, at_least

    async def send(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery:
        await until(lambda: self.composer.most >= self.at_least, 20)
        for _ in range(20):
            await asyncio.sleep(0)
        assert before_end is not None
        await before_end()
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.composer.in_memory -= 1
        self.composer.bytes -= message.content.size or 0
        return Delivery(message.envelope, YES, (YES,), (YES,), host="relay.example")


async def run(
    folder: Path, composer: Reading, rows: int = 40, error: Exception | None = None, *, at_least: int = 0
) -> Counter[RowState]:
    async with campaign(folder, rows) as ledger:
        await Run(composer, ledger, Slow(composer, error, at_least=at_least), concurrency=30, sessions=5).run()
        return Counter((await states(ledger)).values())


@pytest.mark.parametrize(
    ("size", "least", "most"),
    [
        (lambda row: LARGE, 5, 5),
        (lambda row: LARGE if row % 2 else 1000, 5, 30),
        (lambda row: MIN_MEMORY // 10, 10, 10),
        (lambda row: 1000, 30, 30),
        (lambda row: row * (1 << 20), 5, 16),
    ],
    ids=["large", "some large", "middle", "small", "ever larger"],
)
async def test_messages_in_memory_are_bounded_by_the_sessions(
    tmp_path: Path, size: Callable[[int], int], least: int, most: int
) -> None:
    """FT-63: of 25 MiB for each row at 5 sessions, 40 were in memory: 1.5 GB; small ones are as before."""
    composer = Reading(size)
    assert await run(tmp_path, composer, at_least=least) == {RowState.ACCEPTED: 40}
    assert least <= composer.most <= most
    assert composer.most_bytes <= max(MIN_MEMORY, 5 * max(map(size, range(1, 41))))


async def test_messages_that_share_their_files_are_not_bounded(tmp_path: Path) -> None:
    """FT-63: the same attachment for everyone is in memory once."""
    composer = Reading(lambda row: LARGE, reads_files=False)
    await run(tmp_path, composer, at_least=30)
    assert composer.most == 30


async def test_large_ones_are_composed_in_a_thread_one_at_a_time(tmp_path: Path) -> None:
    """FT-63: reading and encoding 25 MiB takes longer than a step of the event loop may; small files do not."""
    large, small = Reading(lambda row: MAX_COMPOSED_AT_ONCE + 1), Reading(lambda row: MAX_COMPOSED_AT_ONCE)
    for composer in (large, small):
        folder = tmp_path / str(id(composer))
        folder.mkdir()
        await run(folder, composer)
    assert large.threads == [False] + [True] * 39
    assert not any(small.threads)


async def test_a_conversion_comes_first_in_a_thread_also_where_there_are_files(tmp_path: Path) -> None:
    """It takes longer than a step of the event loop may; then small messages are composed as before."""
    converted: list[bool] = []

    class Converting(Reading):
        def pending_conversion(self, to: Mailbox, fields: Mapping[str, str]) -> Callable[[], None] | None:
            return None if converted else lambda: converted.append(current_thread() is not main_thread())

    composer = Converting(lambda row: 1000)
    assert await run(tmp_path, composer, rows=5) == {RowState.ACCEPTED: 5}
    assert converted == [True]
    assert composer.threads == [False] * 5


async def test_a_row_without_a_message_takes_no_memory(tmp_path: Path) -> None:
    """FT-63: nor does one whose connection broke, once it has its outcome."""
    composer = Reading(lambda row: -1 if row % 3 == 0 else LARGE)
    found = await run(tmp_path, composer, error=ConnectionLost("gone"))
    assert found == {RowState.ACCEPTED: 27, RowState.REJECTED: 13}
    assert composer.most <= 5


async def test_a_run_that_is_cancelled_does_not_wait_for_memory(tmp_path: Path) -> None:
    """FT-63: the rows that waited for it are pending."""
    composer = Reading(lambda row: LARGE)

    class Never(Slow):
        async def send(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery:
            await asyncio.Event().wait()
            raise AssertionError

    async with campaign(tmp_path, 40) as ledger:
        running = asyncio.create_task(Run(composer, ledger, Never(composer), concurrency=30, sessions=5).run())
        async with asyncio.timeout(20):
            await composer.five.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert Counter((await states(ledger)).values()) == {RowState.PENDING: 40}
    assert composer.most == 5


@pytest.mark.parametrize(
    ("settings", "reads"),
    [
        ({"attachments": [AttachmentPattern("inv/{{ name }}.pdf")]}, True),
        ({"inline": {"x": AttachmentPattern("img/{{ name }}.png")}, "html": "<img src='cid:x'>"}, True),
        ({"attachments": [AttachmentPattern("inv/all.pdf"), Attachment("a.pdf", b"x")]}, False),
        ({}, False),
    ],
)
def test_a_composer_says_whether_it_reads_files(settings: dict[str, object], reads: bool) -> None:
    """FT-63: only paths that differ from row to row are read for each."""
    template = Template(from_="a@example.org", subject="x", text="x", **settings)  # type: ignore[arg-type]
    assert template.compile(["name"], read=lambda path: b"x").reads_files is reads
