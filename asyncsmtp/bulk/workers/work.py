"""A worker's run: it joins the workers of a campaign, sends the rows of batches that it takes, and leaves."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from asyncsmtp.bulk.ledger.interfaces import Claim, InDoubt, RowState, Settlement
from asyncsmtp.bulk.ledger.loading import list_changes
from asyncsmtp.bulk.ledger.postgres import COLUMNS, LISTS_STORED, Database
from asyncsmtp.bulk.ledger.postgres.database_session import Connection
from asyncsmtp.bulk.ledger.postgres.store import Enqueue, PostgresLedger, find_campaign
from asyncsmtp.bulk.ledger.postgres.worker_ledger import WorkerLedger, check_lease
from asyncsmtp.bulk.ledger.postgres.worker_session import CampaignState, Fenced, WorkerObserver
from asyncsmtp.bulk.open_campaign import OpenCampaign, make_relays, open_ledger, open_reader
from asyncsmtp.bulk.recipients.column_header import ColumnHeader
from asyncsmtp.bulk.recipients.file import RecipientFile
from asyncsmtp.bulk.recipients.recipient import Problem, Recipient
from asyncsmtp.bulk.running.results import CampaignResult, ExitReason, count_by_word
from asyncsmtp.bulk.setup.config import CampaignConfig
from asyncsmtp.bulk.setup.prepare import PreparedCampaign, prepare
from asyncsmtp.bulk.workers.control import change_state, store_suppressions, write_state, write_suppressions
from asyncsmtp.bulk.workers.rate_table import WorkerRates
from asyncsmtp.errors import (
    CampaignHalted,
    ConfigError,
    InvalidArgument,
    LedgerBusy,
    LedgerError,
    LedgerMismatch,
    check_type,
)
from asyncsmtp.protocol.envelope import Mailbox
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.running.runner import OutcomeCallback, Run
    from asyncsmtp.bulk.setup.config_types import RelayConfig
    from asyncsmtp.client.events.types import Trace

__all__ = ["DEFAULT_LEASE", "StoredRecipients", "Worker", "find_database", "load_rows"]

logger = logging.getLogger("asyncsmtp.campaign")

DEFAULT_LEASE = 30.0  # seconds


def find_database(config: CampaignConfig) -> Database:
    """Return the database of a campaign's ledger. Raises ConfigError: it is a file, which one process has."""
    location = config.ledger_location
    if not isinstance(location, Database):
        raise ConfigError(
            f"workers need a ledger in PostgreSQL, and {location} is a file",
            "name one: --ledger postgresql://user@host/database, or ledger = … in [campaign]",
        )
    return location


async def load_rows(
    config: CampaignConfig,
    prepared: PreparedCampaign,
    *,
    strict: bool = False,
    paused: bool = False,
    enqueue: Enqueue | None = None,
) -> Mapping[str, int]:
    """Check everything, and take the recipients into the ledger; send nothing. Return the rows by state.

    Rows, entries of suppression lists and the state are there together: a worker may begin the moment they are. Of a
    campaign that is loaded already, also while its workers send, only the entries and the state are stored.

    Args:
        paused: workers wait until the campaign is resumed.
        enqueue: called in the transaction of the load, with its connection and the number of batches.

    Raises:
        LedgerMismatch: it was loaded with something else.
    """
    place = find_database(config)
    is_stored = False

    async def store(connection: Connection, batches: int) -> None:
        nonlocal is_stored
        number, _ = await find_campaign(connection, place)
        await write_suppressions(connection, number, config.suppression)
        if paused:
            await write_state(connection, number, CampaignState.PAUSED, only=CampaignState.RUNNING)
        if enqueue is not None:
            await enqueue(connection, batches)
        is_stored = True

    async def store_later() -> None:
        await store_suppressions(place, config.suppression)
        if paused:
            await change_state(place, CampaignState.PAUSED, only=CampaignState.RUNNING)

    try:
        ledger = await open_ledger(config, prepared)
    except LedgerBusy:
        async with await open_reader(place) as reader:
            parts = {} if reader._campaign is None else reader._campaign.parts
            changes = list_changes(parts, await prepared.fingerprint())
            if not parts or changes:
                raise
            await store_later()
            return count_by_word(await reader.counts())
    async with ledger:
        assert isinstance(ledger, PostgresLedger), "it is in a database"
        ledger.enqueue_at_load(store)
        opened = OpenCampaign(config, prepared, ledger, (), None)
        await opened.begin(strict=strict)
        await ledger.write_value(COLUMNS, await prepared.describe_columns())
        if not is_stored:
            await store_later()
        return count_by_word(await ledger.counts())


class StoredRecipients(RecipientFile):
    """The recipients of a campaign that is loaded, for a host without their file."""

    def __init__(self, stored: str, ledger: WorkerLedger) -> None:
        values = json.loads(stored)
        super().__init__("recipients.csv")
        self.name = self.path = str(values["name"])
        self.sheet = str(values["sheet"])
        self.name_column = str(values["name_column"])
        self._ledger = ledger
        self._header = ColumnHeader(tuple(values["columns"]), str(values["email"]), guessed=False, delimiter=",")

    async def batches(self, size: int = 500) -> AsyncGenerator[Sequence[Recipient | Problem]]:
        """Yield the rows that are to be mailed, or were, as the ledger has them."""
        batch: list[Recipient] = []
        async with aclosing(self._ledger.entries()) as entries:
            async for entry in entries:
                if not entry.copy and entry.message_id and entry.address:
                    batch.append(Recipient(entry.row, Mailbox.parse(entry.address), entry.fields))
                if len(batch) == size:
                    yield batch
                    batch = []
        if batch:
            yield batch


class Worker:
    """One worker of a campaign.

    Args:
        relays: each with a `Relay`; `None`: by the configuration, with secrets from the environment.
        until_idle: end where nothing can be sent for a minute; otherwise stay until every row has a final outcome.
        lease: seconds after which others take over where this one commits nothing any more.
        limit: attempts after which it ends, as one job of many: see `Campaign.work`.
        watch: called with each outcome, as `Run` does.
        observer: called at commits, fences and waits.
        warn: called with a sentence about what a person should know.
    Attributes:
        result: state of the campaign at the end; None before it.
    """

    def __init__(
        self,
        config: CampaignConfig,
        relays: Sequence[RelayConfig] | None = None,
        *,
        until_idle: bool = False,
        lease: float = DEFAULT_LEASE,
        limit: int | None = None,
        watch: OutcomeCallback | None = None,
        observer: WorkerObserver | None = None,
        trace: Trace | None = None,
        warn: Callable[[str], object] = logger.warning,
    ) -> None:
        check_lease(lease)
        check_type("limit", limit, int, None)
        if limit is not None and limit < 1:
            raise InvalidArgument(f"limit= {limit} must be at least 1")
        self.result: CampaignResult | None = None
        self._database = find_database(config)
        if config.warmup is not None:
            raise ConfigError(
                "a warm-up is counted on one machine, and workers may be on several",
                "send with bulk until the warm-up is over, or take [warmup] out of the campaign file",
            )
        # Whom the relay found to be gone is put on the lists by the next `load`, on the host that has them.
        self._config = replace(config, suppress_rejected=False)
        self._relays = relays
        self._until_idle = until_idle
        self._lease = lease
        self._limit = limit
        self._attempts = 0
        self._watch = watch
        self._observer = observer
        self._trace = trace
        self._warn = warn
        self._run: Run | None = None
        self._ledger: WorkerLedger | None = None
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """Begin nothing new; `run` returns when what is in flight is answered, and the batches are free."""
        self._stopped.set()
        if self._ledger is not None:
            self._ledger.stop_waiting()
        if self._run is not None:
            self._run.stop()

    def abort(self) -> None:
        """Stop, and break off what is in flight."""
        self.stop()
        if self._run is not None:
            self._run.abort()

    @property
    def in_progress(self) -> int:
        """Number of rows that have begun and have no outcome yet."""
        return 0 if self._run is None else self._run.in_progress

    async def run(self) -> CampaignResult:
        """Work until nothing is left to do, or until stopped.

        A worker that was away for longer than its lease begins anew.

        Raises:
            LedgerEmpty: the campaign is not loaded. LedgerBusy: a process has it alone, such as `bulk`.
            LedgerMismatch: this host has other templates, keys or settings than the load had.
            LedgerError: the database cannot be used. CampaignHalted: the relay refuses everyone; all workers pause.
            ConnectFailed, Refused, ExtensionNotSupported, InsecureConnection: the relay is unusable.
        """
        config = await self._config.resolve_providers() if self._config.has_unresolved_provider else self._config
        while True:
            try:
                if (ledger := await self._join(config)) is None:
                    raise LedgerError(f"{self._database} was away until this worker was stopped")
                self._ledger = ledger
                async with ledger:
                    self.result = await self._serve(ledger, config)
                return self.result
            except Fenced as error:
                if self._observer is not None:
                    self._observer.on_fenced()
                if self._stopped.is_set():
                    raise
                self._warn(f"{error}; it begins anew")

    async def _join(self, config: CampaignConfig) -> WorkerLedger | None:
        """Open the ledger; None: stopped before the database answered."""
        opening = asyncio.create_task(
            WorkerLedger.open(
                self._database.url,
                name=config.name,
                lease=self._lease,
                in_doubt=InDoubt(config.in_doubt),
                suppressions=config.suppression,
                leaves_when_idle=self._until_idle,
                keeps_round=self._limit is not None,
                observer=self._observer,
                warn=self._warn,
            )
        )
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            await asyncio.wait({opening, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return await opening if opening.done() else None
        finally:
            for task in (opening, stopped):
                task.cancel()
            await asyncio.wait({opening, stopped})

    async def _serve(self, ledger: WorkerLedger, config: CampaignConfig) -> CampaignResult:
        from asyncsmtp.bulk.open_campaign import EnvironmentSecrets

        prepared = await _prepare(ledger, config)
        relays = self._relays or make_relays(config, lambda _: EnvironmentSecrets())
        campaign = OpenCampaign(config, prepared, ledger, relays, None)
        while True:
            ledger.state_changed.clear()
            state = await ledger.refresh_state()
            if self._stopped.is_set() or state is CampaignState.CANCELLED:
                return await _conclude(ledger, ExitReason.STOPPED)
            if state is CampaignState.PAUSED:
                if self._limit is not None:
                    return await _conclude(ledger, ExitReason.WAITING)
                self._warn(f"the campaign “{safe_text(config.name, 60)}” is paused: this worker waits")
                await self._wait(ledger.state_changed)
                continue
            run = await self._send(campaign, ledger)
            if self._stopped.is_set():
                return await _conclude(ledger, ExitReason.STOPPED)
            if self._limit is not None and self._attempts >= self._limit:
                return await _conclude(ledger, ExitReason.LIMIT)
            if await ledger.refresh_state() is CampaignState.RUNNING and not ledger.state_changed.is_set():
                return await _conclude(ledger, ExitReason.WAITING, run)

    async def _wait(self, event: asyncio.Event) -> None:
        """Wait for an event, or until stopped."""
        tasks = {asyncio.create_task(each.wait()) for each in (event, self._stopped)}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _send(self, campaign: OpenCampaign, ledger: WorkerLedger) -> Run:
        """Send until nothing is left to do, the campaign is paused or cancelled, or this worker is stopped."""
        rates = WorkerRates(ledger, self._warn)
        watching = asyncio.create_task(self._watch_state(ledger))
        try:
            async with campaign.start(
                limit=None if self._limit is None else self._limit - self._attempts,
                wait=not self._until_idle,
                watch=self._count,
                trace=self._trace,
                warn=self._warn,
                rates=rates,
            ) as run:
                self._run = run
                if not self._stopped.is_set() and not ledger.state_changed.is_set():
                    await run.run()
        except CampaignHalted as error:
            with suppress(LedgerError):
                if await ledger.pause() is CampaignState.PAUSED:
                    self._warn("the campaign is paused for all workers, since the relay refuses everyone")
            raise error
        finally:
            self._run = None
            watching.cancel()
            await asyncio.wait([watching])
            await rates.aclose()
        await ledger.free_all()
        return run

    def _count(self, claim: Claim, settlement: Settlement) -> None:
        self._attempts += 1
        if self._watch is not None:
            self._watch(claim, settlement)

    async def _watch_state(self, ledger: WorkerLedger) -> None:
        await ledger.state_changed.wait()
        if self._run is not None:
            self._run.stop()


async def _prepare(ledger: WorkerLedger, config: CampaignConfig) -> PreparedCampaign:
    """Read what this host has of the campaign, and compare it with what the load had.

    Raises:
        LedgerMismatch: it is something else.
    """
    stored = await ledger.read_value(COLUMNS)
    if stored is None:
        raise ConfigError(
            f"{ledger.place} was loaded by an older asyncsmtp and does not have the columns of its recipients",
            "once, where their file is: asyncsmtp campaign load CAMPAIGN.toml with the same --ledger",
        )
    missing = [path for path in config.suppression if not path.exists()]
    if missing and await ledger.read_value(LISTS_STORED) is None:
        raise ConfigError(
            f"the suppression list {missing[0]} is not on this host, and its entries are not in {ledger.place}",
            "once, where the list is: asyncsmtp campaign load CAMPAIGN.toml with the same --ledger",
        )
    recipients = StoredRecipients(stored, ledger)
    prepared = await prepare(config, stored=recipients)
    parts = {name: digest for name, digest in ledger.parts.items() if name != recipients.name}
    if changes := list_changes(parts, prepared.parts):
        raise LedgerMismatch(
            f"{changes} since the campaign “{safe_text(config.name, 80)}” was loaded: give this host the same files and"
            " settings"
        )
    return prepared


async def _conclude(ledger: WorkerLedger, reason: ExitReason, run: Run | None = None) -> CampaignResult:
    counts = await ledger.counts()
    left = counts[RowState.PENDING] + counts[RowState.DEFERRED] + counts[RowState.SENDING]
    if not left:
        return CampaignResult(count_by_word(counts), ExitReason.COMPLETE)
    resumes_at = ledger.resumes_at or (None if run is None else run.resumes_at)
    return CampaignResult(count_by_word(counts), reason, resumes_at)
