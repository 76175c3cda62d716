"""Jobs of procrastinate (https://procrastinate.readthedocs.io) that send a campaign.

    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo="postgresql://mail@db.example.com/mail"))
    jobs = ProcrastinateJobs(app, "/srv/campaigns", ledger="postgresql://mail@db.example.com/mail")

    await jobs.load("news/campaign.toml")     # rows and jobs, in one transaction

and `procrastinate --app=module.app worker` sends.

*A job is a slice of the work, not a batch.* It joins the workers, sends up to `rows` rows of whichever batches are
free, and leaves. So a job needs no number of a batch: the ledger decides which batches are whose, and a job that runs
twice, late, or after a kill sends what is left, if anything is. One job a batch would join and leave for each 500 rows,
with new connections to the relay; one for the whole campaign would hold a place of procrastinate's worker for hours,
and show no progress in its shell.

*What becomes of the rest.* A job that leaves rows behind enqueues others, for the time at which the next row may be
tried. They have queueing locks, so there are never more of them than slices. Of a paused campaign one job is left; it
looks every 30 seconds, and enqueues the others when it goes on. Every minute a second task enqueues those jobs again
whose worker has vanished, which procrastinate does not do by itself, and those of campaigns whose last job has failed.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import TYPE_CHECKING

from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.bulk.ledger.transitions import BATCH_SIZE
from asyncsmtp.bulk.open_campaign import EnvironmentSecrets, make_relays
from asyncsmtp.bulk.running.results import CampaignResult, ExitReason
from asyncsmtp.bulk.setup.config import (
    CampaignConfig,
    check_password,
    check_path_argument,
    config_from_parameters,
    load_config,
    relay_settings,
)
from asyncsmtp.bulk.setup.prepare import prepare
from asyncsmtp.bulk.workers.control import NextWork, read_next
from asyncsmtp.bulk.workers.work import DEFAULT_LEASE, Worker, find_database, load_rows
from asyncsmtp.errors import (
    CampaignHalted,
    ConfigError,
    InvalidArgument,
    LedgerError,
    MissingDependency,
    SMTPError,
    check_type,
)
from asyncsmtp.protocol.replies import safe_text

try:
    import procrastinate
    from procrastinate.exceptions import AlreadyEnqueued, ConnectorException, JobAborted
    from procrastinate.jobs import Status
    from procrastinate.retry import BaseRetryStrategy, RetryDecision
except ImportError:
    raise MissingDependency("jobs of procrastinate", "asyncsmtp[procrastinate]") from None

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from procrastinate import App, JobContext
    from procrastinate.jobs import Job
    from psycopg import AsyncConnection

    from asyncsmtp.bulk.setup.config_types import RelayConfig
    from asyncsmtp.client.config.relay import Relay
    from asyncsmtp.protocol.auth.auth import Secret

    RelayLike = str | Relay | RelayConfig | Sequence[str | Relay | RelayConfig]

__all__ = ["ProcrastinateJobs"]

_log = logging.getLogger("asyncsmtp.campaign")

WORK, RECOVER = "asyncsmtp.work", "asyncsmtp.recover"  # names of the tasks, which are stored in jobs
DRAIN_TIMEOUT = 60.0  # seconds for what is under way where a job is aborted, or its worker ends
HELD_UP = 60  # seconds until the next job where nothing could be sent, and nobody knows for how long
PAUSE_INTERVAL = 30  # seconds after which a job looks again at a campaign that is paused
RETRY_DELAYS = (10, 600)  # seconds after the first failure, doubled each time; at most
MAX_ATTEMPTS = 50  # about seven hours
STALLED_AFTER = 30.0  # seconds without a heartbeat of procrastinate's worker
# A campaign of which a job has failed, and none waits or runs. Only recent jobs are looked at: old ones may be many.
_FAILED = """
SELECT args->>'campaign' AS campaign FROM procrastinate_jobs
WHERE task_name = %(task)s AND queue_name = %(queue)s
  AND id > (SELECT max(id) - 100000 FROM procrastinate_jobs)
GROUP BY 1 HAVING bool_or(status = 'failed') AND NOT bool_or(status IN ('todo', 'doing'))
ORDER BY max(id) DESC LIMIT 50"""
_PLACE = "SELECT pg_postmaster_start_time()::text || ' ' || current_database() AS place"


class ProcrastinateJobs:
    """Jobs of an application of procrastinate that send campaigns, and the tasks that do them.

    The tables of procrastinate are in the database of the ledger (`procrastinate schema --apply`), so that rows and
    jobs are there together or not at all. Each process that runs procrastinate's worker makes such an object; its host
    needs the campaign's files, but not the recipients.
    """

    def __init__(
        self,
        app: App,
        folder: str | os.PathLike[str],
        *,
        queue: str = "asyncsmtp",
        rows: int = 10_000,
        lease: float = DEFAULT_LEASE,
        ledger: str | Database | None = None,
        relay: RelayLike | None = None,
        password: str | Secret | None = None,
        **settings: object,
    ) -> None:
        """Add the tasks to the application.

        Args:
            folder: that has the campaign files; jobs name them relative to it.
            queue: of the jobs.
            rows: that one job sends at most.
            lease: seconds; others take over the rows of a job that has committed nothing for so long.
            ledger: the database, where the campaign files do not name it.
            relay, password, settings: as of `Campaign.from_file`; they go before what the files say.
        Raises:
            InvalidArgument: there is no such folder, or a number is too small.
        """
        self._folder = check_path_argument("folder", folder)
        check_type("rows", rows, int)
        if rows < 1:
            raise InvalidArgument(f"rows= {rows} must be at least 1")
        if not self._folder.is_dir():
            raise InvalidArgument(
                f"there is no folder {safe_text(str(folder), 80)}: name the one that has the campaigns"
            )
        self._app = app
        self._queue = queue
        self._rows = rows
        self._lease = lease
        self._relay = relay
        check_type("ledger", ledger, str, Database, None)
        self._settings = {**settings, "ledger": ledger}
        self._secrets = EnvironmentSecrets(check_password(password))
        app.task(name=WORK, queue=queue, pass_context=True, retry=_RetryLater())(self._work)
        recover = app.task(name=RECOVER, queue=queue, queueing_lock=RECOVER)(self._recover)
        app.periodic(cron="* * * * *")(recover)

    async def load(self, campaign: str, *, strict: bool = False) -> Mapping[str, int]:
        """Load a campaign's recipients and enqueue its jobs, in one transaction; return the rows by state.

        Of a campaign that is loaded already only jobs are enqueued, if some are missing.

        Args:
            campaign: its file, relative to the folder.
            strict: load nothing if a row of the recipients has a problem or a remark.
        Raises:
            ConfigError, RecipientError, TemplateError, LedgerError, LedgerMismatch: as `Campaign.load`; there is no
                job then.
        """
        config = await self._read(campaign)
        place = find_database(config)
        await self._check_place(place)
        is_enqueued = False

        async def enqueue(connection: AsyncConnection, batches: int) -> None:
            nonlocal is_enqueued
            is_enqueued = True
            await self._enqueue(campaign, self._count_jobs(batches), connection=connection)

        counts = await load_rows(config, await prepare(config, ledger=place), strict=strict, enqueue=enqueue)
        if not is_enqueued:
            await self.enqueue(campaign)
        return counts

    async def enqueue(self, campaign: str) -> int:
        """Enqueue jobs for what is left of a loaded campaign; return the number of those that were missing.

        Raises:
            LedgerEmpty: it is not loaded. LedgerError: the database cannot be used.
        """
        left = await read_next(find_database(await self._read(campaign)))
        return await self._enqueue_rest(campaign, left)

    async def _read(self, campaign: str) -> CampaignConfig:
        check_type("campaign", campaign, str)
        path = (self._folder / campaign).resolve()
        if not path.is_relative_to(self._folder.resolve()):
            raise ConfigError(
                f"the campaign {safe_text(campaign, 80)} is not in {self._folder}", "name a file in this folder"
            )
        config = await asyncio.to_thread(load_config, path)
        if self._relay is not None:  # it replaces all that the file says of its relay
            config = replace(config, provider=None, user=None)
        config = config_from_parameters(config, {**relay_settings(self._relay), **self._settings})
        return await config.resolve_providers() if config.has_unresolved_provider else config

    async def _check_place(self, ledger: Database) -> None:
        """Raise ConfigError unless the jobs are in the database of the ledger."""
        from asyncsmtp.bulk.ledger.postgres.database_session import connect, ledger_error, psycopg

        try:
            connection = await connect(ledger, write=False)
            try:
                await connection.execute("RESET search_path")
                found = await connection.execute(f"{_PLACE}, to_regclass('procrastinate_jobs') IS NOT NULL")
                place, has_tables = await found.fetchone() or ("", False)
            finally:
                await connection.close()
            mine = (await self._app.connector.execute_query_one_async(_PLACE))["place"]
        except psycopg.Error as error:
            raise ledger_error(ledger, error) from error
        except procrastinate.exceptions.ProcrastinateException as error:
            raise LedgerError(f"procrastinate cannot use its database: {_explain(error)}") from error
        if place != mine:
            raise ConfigError(
                "the ledger and procrastinate are in different databases, so that rows and jobs could not be there"
                " together",
                "give both the same URL",
            )
        if not has_tables:
            raise ConfigError(f"{ledger} has no tables of procrastinate", "procrastinate --app=… schema --apply")

    def _count_jobs(self, batches: int) -> int:
        return ceil(batches * BATCH_SIZE / self._rows)

    async def _enqueue_rest(self, campaign: str, left: NextWork, not_before: datetime | None = None) -> int:
        """Enqueue jobs for the batches that nobody has, or for those of workers that may be gone."""
        if not left.free and not left.taken:
            return 0
        soonest = left.due_at if left.free else datetime.now(UTC) + timedelta(seconds=self._lease)
        if not_before is not None:
            soonest = max(soonest or not_before, not_before)
        return await self._enqueue(campaign, max(1, self._count_jobs(left.free)), soonest)

    async def _enqueue(
        self, campaign: str, number: int, at: datetime | None = None, connection: AsyncConnection | None = None
    ) -> int:
        """Enqueue those of so many jobs that are not waiting already; return their number.

        Raises:
            LedgerError: it cannot be done; in a transaction, the caller rolls it back.
        """
        locks = [f"{WORK} {campaign} {slice_number}" for slice_number in range(1, number + 1)]
        return sum([await self._enqueue_one(campaign, lock, at, connection) for lock in locks])

    async def _enqueue_one(
        self, campaign: str, lock: str, at: datetime | None, connection: AsyncConnection | None = None
    ) -> bool:
        """Enqueue a job unless one with its queueing lock waits already; return whether it was missing."""
        deferrer = self._app.configure_task(
            WORK, queue=self._queue, queueing_lock=lock, schedule_at=at, connection=connection
        )
        try:
            if connection is None:
                await deferrer.defer_async(campaign=campaign)
            else:
                async with connection.transaction():  # a savepoint: a job that is there already is no failure
                    await deferrer.defer_async(campaign=campaign)
        except AlreadyEnqueued:
            return False
        except ConnectorException as error:
            raise LedgerError(f"jobs cannot be enqueued: {_explain(error)}") from error
        return True

    # The tasks.

    async def _work(self, context: JobContext, campaign: str) -> None:
        """Do one job."""
        config = await self._read(campaign)
        database, pause_lock = find_database(config), f"{WORK} {campaign} paused"
        result = None
        if context.job.queueing_lock != pause_lock:
            result = await self._send(config, context)
        left = await read_next(database)
        if left.is_cancelled:
            return
        if not left.is_paused:
            await self._enqueue_rest(campaign, left, _find_end_of_hold(result) if result else None)
        elif left.free or left.taken:  # a new job: to try this one again would count as an attempt that failed
            await self._enqueue_one(campaign, pause_lock, datetime.now(UTC) + timedelta(seconds=PAUSE_INTERVAL))

    async def _send(self, config: CampaignConfig, context: JobContext) -> CampaignResult:
        relays = make_relays(config, lambda _: self._secrets)
        worker = Worker(config, relays, until_idle=True, lease=self._lease, limit=self._rows)
        result = await _run_to_the_end(worker, context)
        shown = ", ".join(f"{number:,} {state}" for state, number in result.counts.items() if number)
        _log.info("a job of %s ends: %s", config.name, shown)
        return result

    async def _recover(self, timestamp: int) -> None:
        """Enqueue jobs again whose worker has vanished, and those of campaigns that have none after a failure.

        A job that still runs does no harm: it is a worker more.
        """
        manager = self._app.job_manager
        for job in await manager.get_stalled_jobs(task_name=WORK, seconds_since_heartbeat=STALLED_AFTER):
            assert job.id is not None
            try:
                await manager.retry_job(job)
            except ConnectorException:  # another one with its queueing lock waits already
                with suppress(ConnectorException):  # it has ended meanwhile
                    await manager.finish_job_by_id_async(job.id, status=Status.FAILED, delete_job=False)
        for row in await self._app.connector.execute_query_all_async(_FAILED, task=WORK, queue=self._queue):
            try:
                left = await read_next(find_database(await self._read(row["campaign"])))
                if not (left.is_paused or left.is_cancelled):
                    await self._enqueue_rest(row["campaign"], left)
            except (OSError, TypeError, SMTPError) as error:  # its files are gone, or on another host
                _log.info("no job of %s is enqueued: %s", safe_text(str(row["campaign"]), 80), _explain(error))


def _find_end_of_hold(result: CampaignResult) -> datetime | None:
    """Return when a quota, a window or the like lets a job send again; None: nothing held up the one that ended."""
    if result.exit_reason is not ExitReason.WAITING:
        return None
    return result.resumes_at or datetime.now(UTC) + timedelta(seconds=HELD_UP)


async def _run_to_the_end(worker: Worker, context: JobContext) -> CampaignResult:
    """Run a worker; where the job is aborted, finish what is under way first."""
    running = asyncio.create_task(worker.run())
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        worker.stop()
        await asyncio.wait([running], timeout=DRAIN_TIMEOUT)
        worker.abort()
        await asyncio.wait([running], timeout=DRAIN_TIMEOUT)
        if not running.done():
            running.cancel()
        with suppress(Exception, asyncio.CancelledError):
            await running  # whatever it was, the job comes again
        if context.abort_reason() is procrastinate.job_context.AbortReason.USER_REQUEST:
            raise JobAborted from None
        raise


class _RetryLater(BaseRetryStrategy):
    """The time of the next attempt of a job that failed: a relay may be back, another host may have the right files."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        if isinstance(exception, asyncio.CancelledError):  # its worker ends
            return RetryDecision(retry_at=datetime.now(UTC))
        if isinstance(exception, CampaignHalted) or job.attempts >= MAX_ATTEMPTS:
            return None
        first, longest = RETRY_DELAYS
        return RetryDecision(retry_in={"seconds": min(longest, first * 2 ** min(job.attempts, 10))})


def _explain(error: BaseException) -> str:
    cause = error.__cause__ or error
    return safe_text(" ".join(str(cause).split()), 200) or type(cause).__name__
