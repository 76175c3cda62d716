"""A campaign that is read again whenever one of its files is saved, for the preview.

It lives in a thread with an event loop of its own, where files are read and messages are composed: neither holds up
the loop that answers the browser. The methods may be awaited on any other loop.
"""

from __future__ import annotations

import asyncio
import shlex
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from asyncsmtp.bulk.ledger.loading import SuppressionLookup
from asyncsmtp.bulk.recipients.preflight import run_preflight
from asyncsmtp.bulk.recipients.recipient import Recipient
from asyncsmtp.errors import RecipientError, SMTPError, TemplateError
from asyncsmtp.mail.checks.empty_cells import EmptyCells
from asyncsmtp.mail.checks.rules import check_message
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.replies import safe_text
from asyncsmtp.web.campaign_files import CampaignFiles, Fault, Remark, stamp_file
from asyncsmtp.web.row_index import IndexedRow, RowIndex, RowPage, RowQuery

if TYPE_CHECKING:
    from asyncsmtp.bulk.recipients.preflight import PreflightReport
    from asyncsmtp.bulk.recipients.recipient import Problem
    from asyncsmtp.bulk.setup.config import CampaignConfig
    from asyncsmtp.bulk.setup.prepare import PreparedCampaign
    from asyncsmtp.mail.message import Message

__all__ = ["CampaignReading", "ComposedRow", "LiveCampaign", "SendResult", "open_live_campaign"]

GROUPING_TIME = 20  # milliseconds without a further change, after which files are read again
MAX_GROUPING_TIME = 100
PROGRESS_INTERVAL = 0.5  # seconds between two reports of how many rows are read
PAGE_TIME = 0.2  # seconds for the page of the chosen row, before the messages of all are composed
CHECKING_TIME = 0.05  # seconds that a page waits for the findings in its message
MAX_CHECKED = 4 * 1024 * 1024  # bytes of a message that is checked: takes up to four seconds in a thread
LISTING_TIME = 0.15  # seconds that a page waits for further rows

_T = TypeVar("_T")
_READING = (  # settings that rows are read with
    *("recipients", "email_column", "columns", "delimiter", "encoding", "skip_lines", "sheet"),
    *("trim", "repair", "duplicates", "where", "offset"),
)


@dataclass(frozen=True, slots=True)
class CampaignReading:
    """The campaign as far as it was read.

    Attributes:
        version: number of times that its files were read.
        progress: grows with whatever else changes.
        checked: rows whose message was composed so far. complete: all are.
        fault: why no message can be shown; the rows are those of the reading before.
        lines: the pre-flight in words, as `check` prints it. remarks: what was found in all.
    """

    name: str
    version: int = 0
    progress: int = 0
    checked: int = 0
    complete: bool = False
    fault: Fault | None = None
    lines: tuple[str, ...] = ()
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True)
class ComposedRow:
    """The message of a row.

    Attributes:
        octets: as it would be sent, with the lines that delivery adds for the envelope.
        copies: `cc` or `bcc` and the address of everyone who gets it too.
    """

    octets: bytes = field(repr=False)
    sender: str
    recipient: str
    copies: tuple[tuple[str, str], ...] = ()
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True)
class SendResult:
    """The outcome of one message: `accepted`, `deferred`, `rejected` or `failed`, in words, and what to do next."""

    state: str
    sentence: str
    advice: str = ""


Send = Callable[["CampaignConfig", "PreparedCampaign", Recipient, str], Coroutine[object, object, SendResult]]
Describe = Callable[[str, "PreflightReport"], Iterable[str]]


@dataclass(slots=True, eq=False)
class _Reading:
    """The files of the campaign as they were read at one time.

    Attributes:
        key: equal if the recipients are the same and are read the same way: then the index is kept.
        is_listed: the index has all rows. listing: the task that reads them.
    """

    config: CampaignConfig
    prepared: PreparedCampaign
    lists: SuppressionLookup
    index: RowIndex
    key: object
    is_listed: bool = False
    listing: asyncio.Task[None] | None = None

    def close(self, following: _Reading | None = None) -> None:
        """Close what a following reading does not use."""
        self.lists.close()
        if following is None or following.index is not self.index:
            self.index.close()


class LiveCampaign:
    """A campaign, its rows and its messages as its files are at the moment; made by `open_live_campaign`.

    Args:
        path: the campaign file. load: reads it.
        describe: the pre-flight in words. send: sends the message of a row to an address.
    """

    def __init__(self, path: Path, load: Callable[[], CampaignConfig], *, describe: Describe, send: Send) -> None:
        self.state = CampaignReading(path.stem)
        self._path = path
        self._load_config = load
        self._describe = describe
        self._send = send
        self._reading: _Reading | None = None
        self._is_broken = False  # no message can be composed
        self._composed: tuple[int, int, ComposedRow | Fault] | None = None
        self._files = CampaignFiles(path)
        self._changed = asyncio.Event()
        self._progress_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._listeners: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._is_over = False

    # For the loop that answers the browser.

    async def read_page(self, query: RowQuery, row: int | None) -> tuple[RowPage, int | None]:
        """Return a page of the rows, and the row that is shown: the given one, or the first that gets a message."""

        async def read() -> tuple[RowPage, int | None]:
            if self._reading is None:
                return RowPage(), row
            shown = self._reading.index.find_first() if row is None else row
            listed = query if row is not None or query.offset is not None else replace(query, offset=0)
            return self._reading.index.read_page(listed, shown), shown

        return await self._call(read())

    async def compose(self, row: int) -> ComposedRow | Fault | None:
        """Return the message of a row, or why there is none; None: the row has not been read, or does not exist."""
        return await self._call(self._compose(row))

    async def send(self, row: int, address: str) -> SendResult:
        """Send the message of a row to this address only."""
        return await self._call(self._send_row(row, address))

    async def changes(self, interval: float) -> AsyncGenerator[CampaignReading]:
        """Yield the state, now, whenever it changes and after `interval` seconds, until `end_changes`."""
        mine = asyncio.get_running_loop(), asyncio.Event()
        self._listeners.add(mine)
        try:
            while not self._is_over:
                mine[1].clear()
                yield self.state
                with suppress(TimeoutError):
                    async with asyncio.timeout(interval):
                        await mine[1].wait()
        finally:
            self._listeners.discard(mine)

    def end_changes(self) -> None:
        """End all `changes`, so that a server can stop."""
        self._is_over = True
        self._notify()

    async def _call(self, coroutine: Coroutine[object, object, _T]) -> _T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    # For the thread.

    def run(self) -> None:
        """Run the loop of the thread until `stop`."""
        asyncio.set_event_loop(self._loop)
        watching = self._loop.create_task(self._follow())
        try:
            self._loop.run_forever()
        finally:
            for task in (watching, *asyncio.all_tasks(self._loop)):
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(self._loop), return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            if self._reading is not None:
                self._reading.close()
            self._loop.close()

    def stop(self) -> None:
        """End `run`."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _follow(self) -> None:
        """Read the campaign, and again after each change."""
        watched: set[Path] = set()
        watching = checking = None
        while True:
            self._changed.clear()
            await asyncio.to_thread(self._files.begin)
            is_complete = await self._read()
            await asyncio.to_thread(self._files.note)
            if (folders := await asyncio.to_thread(self._files.list_watched_folders)) != watched:
                if watching is not None:
                    await _cancel(watching)
                watched, watching = folders, asyncio.create_task(self._watch(folders))
            if is_complete:
                checking = asyncio.create_task(self._check())
            while await self._changed.wait():
                self._changed.clear()
                if await asyncio.to_thread(self._files.have_changed):
                    break
            if checking is not None:
                await _cancel(checking)

    async def _read(self) -> bool:
        """Read the files; return whether messages can be composed."""
        try:
            reading = await self._prepare()
        except Exception as error:
            self._is_broken = True
            fault = self._files.explain(error)
            self._set(version=self.state.version + 1, fault=fault, complete=True, remarks=(), lines=())
            return False
        self._progress_at = monotonic()
        self.state = replace(self.state, checked=0)
        former, self._is_broken = self._reading, False
        if former is not None and former.key == reading.key:
            reading.index, reading.is_listed = former.index, former.is_listed
        if not reading.is_listed:
            listing = asyncio.create_task(self._list_rows(reading))
            await asyncio.wait({listing}, timeout=LISTING_TIME)  # the rest is read while the first rows are shown
            reading.listing = listing
        self._reading = reading
        if former is not None:
            former.close(reading)
        self._set(name=reading.config.name, version=self.state.version + 1, fault=None, complete=False)
        return True

    async def _prepare(self) -> _Reading:
        from asyncsmtp.bulk.setup.prepare import prepare  # late: it brings templates and signing

        config = await asyncio.to_thread(self._load_config)
        await asyncio.to_thread(self._files.add_named, config)
        lists = SuppressionLookup(config.suppression)
        try:
            await asyncio.to_thread(lists.open)
            former = None if self._reading is None else self._reading.prepared
            if former is not None and self._reading is not None and make_key(config, former) != self._reading.key:
                former = None
            prepared = await prepare(config, former=former)
        except BaseException as error:
            lists.close()
            if isinstance(error, TemplateError):
                self._files.add_from_error(config, error)
            raise
        self._files.keep(config, prepared.sources)
        return _Reading(config, prepared, lists, RowIndex(config.duplicates), make_key(config, prepared))

    async def _list_rows(self, reading: _Reading) -> None:
        """Read all rows; compose no message."""

        def add(row: Recipient | Problem) -> None:
            if reading.index.add(row, reading.lists):
                self._report_progress()

        await run_preflight(reading.prepared.file, watch=add)
        reading.index.flush(reading.lists)
        reading.is_listed = True

    async def _check(self) -> None:
        """Read all rows, then compose all messages; the rows are listed meanwhile."""
        reading = self._reading
        assert reading is not None
        prepared, checked = reading.prepared, 0
        cells: EmptyCells | None = None

        def add(row: Recipient | Problem) -> None:
            nonlocal checked
            checked += 1
            if cells is not None and isinstance(row, Recipient):
                cells.add(row.row, row.fields)
            if reading.index.add(row, reading.lists):
                self._report_progress(checked=checked)

        try:
            if reading.listing is not None:
                await reading.listing
                self._set()
            await asyncio.sleep(PAGE_TIME)
            cells = EmptyCells(await asyncio.to_thread(prepared.find_written))
            report = await run_preflight(prepared.file, prepared.composer, compose=None, watch=add)
            reading.index.flush(reading.lists)
            unsupported = await asyncio.to_thread(prepared.find_unsupported)
            found = [self._files.locate(each) for each in (*prepared.findings, *cells.findings(), *unsupported)]
            if report.sample is not None:
                found += await self._find_remarks(report.sample, report.recipients)
            found += [Remark("note", safe_text(each)) for each in (*prepared.remarks, *prepared.describe_rows(report))]
            lines = tuple(safe_text(line, 400).strip() for line in self._describe(prepared.file.name, report))
            self._set(checked=checked, complete=True, lines=lines, remarks=tuple(found))
        except Exception as error:
            with suppress(SMTPError, OSError):
                reading.index.flush()
            self._set(complete=True, fault=self._files.explain(error))
        finally:
            if reading.listing is not None:
                await _cancel(reading.listing)

    def _report_progress(self, checked: int = 0) -> None:
        """Take down the number of rows, and tell listeners now and then."""
        self.state = replace(self.state, checked=checked)
        if (now := monotonic()) - self._progress_at >= PROGRESS_INTERVAL:
            self._progress_at = now
            self._set()

    async def _compose(self, row: int) -> ComposedRow | Fault | None:
        version, reading = self.state.version, self._reading
        if self._is_broken or reading is None:
            return self.state.fault
        if self._composed is not None and self._composed[:2] == (version, row):
            return self._composed[2]
        if (found := reading.index.find(row)) is None:
            return None
        made, message = self._make(reading.prepared, found)
        self._composed = version, row, made
        if message is None or isinstance(made, Fault):
            return made
        checking = asyncio.create_task(self._check_row(version, row, made, message))
        self._tasks.add(checking)
        checking.add_done_callback(self._tasks.discard)
        await asyncio.wait({checking}, timeout=CHECKING_TIME)  # of large HTML it takes longer, and is shown later
        current = self._composed
        return current[2] if current is not None and current[:2] == (version, row) else made

    async def _check_row(self, version: int, row: int, made: ComposedRow, message: Message) -> None:
        begun = monotonic()
        remarks = await self._find_remarks(message, self._reading.index.count() if self._reading else None)
        if self._composed == (version, row, made):
            self._composed = version, row, replace(made, remarks=remarks)
            if monotonic() - begun > CHECKING_TIME:
                self._set()

    async def _find_remarks(self, message: Message, recipients: int | None = None) -> tuple[Remark, ...]:
        """Return what a provider would object to in a message."""
        if (size := message.content.size or 0) > MAX_CHECKED:
            sentence = f"the message has {size:,} bytes, which is too large to be looked at here"
            return (Remark("note", sentence, f"asyncsmtp check {shlex.quote(str(self._path))}"),)
        found = await asyncio.to_thread(check_message, message, recipients)
        return tuple(self._files.locate(each) for each in found)

    def _make(self, prepared: PreparedCampaign, row: IndexedRow) -> tuple[ComposedRow | Fault, Message | None]:
        """Return the message of a row to look at, and to check; or why there is none."""
        if row.recipient is None:
            return self._files.explain(RecipientError(row.reason), line=row.line), None
        try:
            message = prepared.compose_preview(row.recipient)
            expand = prepared.file.rules.expand
            recipient = row.recipient if expand is None else expand(row.recipient)
        except RecipientError as error:
            return self._files.explain(RecipientError(error.reason), line=row.line), None
        except Exception as error:
            return self._files.explain(error), None
        sender = message.envelope.reverse_path
        shown = str(sender) if sender is not None else ""
        to = str(row.recipient.mailbox)
        copies = tuple((kind, str(mailbox)) for kind, mailbox in getattr(recipient, "copies", ()))
        return ComposedRow(read_octets(message), shown, to, copies), message

    async def _send_row(self, row: int, address: str) -> SendResult:
        reading = None if self._is_broken else self._reading
        found = None if reading is None else reading.index.find(row)
        if reading is None or found is None or found.recipient is None:
            return SendResult("failed", f"there is no message of row {row} to send", "correct what the page says of it")
        return await self._send(reading.config, reading.prepared, found.recipient, address)

    def _set(self, **values: object) -> None:
        """Change the state, and tell whoever listens."""
        self.state = replace(self.state, progress=self.state.progress + 1, **values)  # type: ignore[arg-type]
        self._notify()

    def _notify(self) -> None:
        for loop, event in [*self._listeners]:
            with suppress(RuntimeError):  # it has ended
                loop.call_soon_threadsafe(event.set)

    # Changes of files.

    async def _watch(self, folders: Iterable[Path]) -> None:
        """Set the event when something changes in a folder; an editor may write a file or put another in its place.

        It is also set every second, for what changed before the watching began, and for file systems that tell nothing.
        """
        from watchfiles import awatch

        settings = {"watch_filter": None, "step": GROUPING_TIME, "debounce": MAX_GROUPING_TIME, "rust_timeout": 1000}
        while True:
            try:
                async for _ in awatch(*folders, recursive=False, yield_on_timeout=True, **settings):  # type: ignore[arg-type]
                    self._changed.set()
            except OSError:  # a folder is gone, or there are too many to be watched
                pass
            self._changed.set()
            await asyncio.sleep(PROGRESS_INTERVAL)


@asynccontextmanager
async def open_live_campaign(
    path: Path, load: Callable[[], CampaignConfig], *, describe: Describe, send: Send
) -> AsyncIterator[LiveCampaign]:
    """Read a campaign, and follow its files until the block ends.

    Raises:
        MissingDependency: the extra `web` is not installed.
    """
    from asyncsmtp.web.local_app import require_web

    require_web("watchfiles")
    campaign = LiveCampaign(path, load, describe=describe, send=send)
    thread = threading.Thread(target=campaign.run, name="asyncsmtp: preview", daemon=True)
    thread.start()
    try:
        yield campaign
    finally:
        campaign.end_changes()
        campaign.stop()
        await asyncio.to_thread(thread.join)


def make_key(config: CampaignConfig, prepared: PreparedCampaign) -> object:
    """Return what differs if the recipients are others, or would be read another way."""
    return [getattr(config, name) for name in _READING], stamp_file(Path(prepared.file.path))


def read_octets(message: Message) -> bytes:
    """Return a composed message as it would be sent."""
    assert isinstance(message.content, Content), "a composer makes no other"
    return bytes(message.content)


async def _cancel(task: asyncio.Task[None]) -> None:
    """Cancel a task, and wait for its end; how it ended does not matter."""
    task.cancel()
    await asyncio.wait({task})  # to await the task itself would take our own cancellation for its
    if not task.cancelled():
        task.exception()
