"""Steps of a run of a campaign: ledger, recipients, relays with their secrets, pools, limits, webhook."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote

from asyncsmtp.bulk.interfaces import SecretSource, utc_now
from asyncsmtp.bulk.ledger import STORED, UNTIL_NEXT
from asyncsmtp.bulk.ledger.interfaces import InDoubt, OutcomeStore, RowState
from asyncsmtp.bulk.ledger.postgres import COLUMNS, Database
from asyncsmtp.bulk.setup.config import CampaignConfig
from asyncsmtp.bulk.setup.config_types import RelayConfig
from asyncsmtp.bulk.setup.prepare import PreparedCampaign, prepare_file
from asyncsmtp.bulk.setup.source_files import refuse_merge_tags
from asyncsmtp.errors import ConfigError, LedgerBusy, LedgerMismatch, RecipientError, SMTPError
from asyncsmtp.protocol.replies import safe_text

# What is not imported here is late on purpose: a wrong campaign file, `status` and `results` need neither the pool, nor
# the runner, nor a database driver, and `asyncsmtp bulk` is measured from its start to the first message.
if TYPE_CHECKING:
    from asyncsmtp.bulk.interfaces import ComposerProtocol, MessageSender
    from asyncsmtp.bulk.ledger.base import BaseLedger
    from asyncsmtp.bulk.ledger.interfaces import Claim, Ledger, Settlement
    from asyncsmtp.bulk.ledger.postgres.store import PostgresLedger, PostgresReader
    from asyncsmtp.bulk.ledger.sqlite.store import SqliteLedger, SqliteReader
    from asyncsmtp.bulk.rate_limit.shared_store import SharedLimiter
    from asyncsmtp.bulk.recipients.preflight import PreflightReport
    from asyncsmtp.bulk.recipients.recipient import Problem, Recipient
    from asyncsmtp.bulk.running.runner import OutcomeCallback, Run
    from asyncsmtp.bulk.running.webhook import Webhook
    from asyncsmtp.bulk.workers.rate_table import WorkerRates
    from asyncsmtp.client.config.login_config import TokenSource
    from asyncsmtp.client.config.relay import Relay
    from asyncsmtp.client.events.types import Trace
    from asyncsmtp.mail.checks.rules import Finding
    from asyncsmtp.protocol.auth.auth import Secret

__all__ = [
    "CheckResult",
    "EnvironmentSecrets",
    "OpenCampaign",
    "check_rows",
    "make_relay",
    "make_relays",
    "open_ledger",
    "open_reader",
    "reopen_ledger",
]

WEBHOOK_SECRET = "ASYNCSMTP_WEBHOOK_SECRET"  # noqa: S105  # the name of the variable
CHECKED = 100  # messages that are composed before a campaign begins
_RELAY_SETTINGS = ("ca_file", "dialogue", "source_address", "proxy", "pins", "client_cert", "client_key")
SHOWN = 20  # rows of each kind that a report names

logger = logging.getLogger("asyncsmtp.campaign")

Warn = Callable[[str], object]
_L = TypeVar("_L", bound="BaseLedger")
_ShareRates = Callable[..., AbstractAsyncContextManager["SharedLimiter | None"]]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Result of a campaign's pre-flight.

    Attributes:
        file: the name of the recipients' file.
        report: the rows: how many would be mailed, and the first few of those with a problem or a remark.
        findings: merge tags of other programs and empty cells in the templates, what a provider may object to in the
            first message, and in DNS if that was asked.
        remarks: what could be better about keys and certificates, one sentence each.
    """

    file: str
    report: PreflightReport
    findings: tuple[Finding, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """True if somebody would be mailed, and no row has a problem. Findings do not count."""
        return bool(self.report.recipients) and not self.report.problems

    def __bool__(self) -> bool:
        return self.passed


@dataclass(eq=False, repr=False)
class OpenCampaign:
    """A campaign whose ledger is open; made by `Campaign.open`, which closes it.

    The steps of a run, in this order: `load_checked` where there is something to load (or `check` and `load`, which
    read the recipients twice), `suppress`, `start`.

    Attributes:
        prepared: its files, read. ledger: its ledger. relays: each with a `Relay`.
        limiters: of the run that was started last: of rates that are shared with other campaigns.
        failed_relays: of several relays those that could not be used at the end of the last run, each with its error.
    """

    config: CampaignConfig
    prepared: PreparedCampaign
    ledger: Ledger
    relays: Sequence[RelayConfig]
    _add: Path | None
    _further: PreparedCampaign | None = None
    failed_relays: Mapping[str, SMTPError] = field(default_factory=dict)
    limiters: Sequence[SharedLimiter] = ()

    @property
    def has_begun(self) -> bool:
        """True once the recipients are in the ledger."""
        return self.ledger.loaded

    @property
    def has_rows_to_load(self) -> bool:
        """True if there are recipients to load: the first ones, or a further file."""
        return self._add is not None or not self.ledger.loaded

    async def check(self) -> CheckResult:
        """Check the recipients that are to be loaded, and compose the first hundred messages.

        Raises:
            ConfigError: a further file, and the campaign has not begun; a merge tag of another program in a template.
            RecipientError: the file cannot be used. TemplateError: the template fails on a row.
        """
        prepared = await self._to_load()
        refuse_merge_tags(prepared.findings)
        return await check_rows(prepared, every=False)

    async def load(self) -> None:
        """Take the recipients into the ledger, all of them or none."""
        prepared = await self._to_load()
        await self._load(prepared, prepared.file.batches())

    async def load_checked(self, decide: Callable[[CheckResult], Awaitable[object]]) -> CheckResult:
        """Do what `check` and `load` do, and read the recipients once.

        Args:
            decide: awaited with the result, before anything is loaded for good: if it raises, nothing is.
        Raises:
            What `check` raises, and `decide`.
        """
        prepared = await self._to_load()
        refuse_merge_tags(prepared.findings)
        found: list[CheckResult] = []

        async def read() -> AsyncGenerator[Sequence[Recipient | Problem]]:
            async with aclosing(prepared.file.batches()) as batches:
                preflight = Preflight(prepared.file, prepared.composer, compose=CHECKED, show=SHOWN)
                async for batch in batches:
                    await preflight.add(batch)
                    yield batch
            found.append(_make_result(prepared, await preflight.finish()))
            await decide(found[0])

        from asyncsmtp.bulk.recipients.preflight import Preflight

        await self._load(prepared, read())
        return found[0]

    async def _load(self, prepared: PreparedCampaign, rows: AsyncGenerator[Sequence[Recipient | Problem]]) -> None:
        async with aclosing(rows):
            if self._add is not None:
                await self.ledger.add(rows)
                self._add = None
                return
            if isinstance(getattr(self.ledger, "place", None), Database):  # workers on other hosts have no such file
                await self.ledger.write_value(COLUMNS, await prepared.describe_columns())
            await self.ledger.load(rows)

    async def suppress(self) -> int:
        """Suppress the rows to come that are on a suppression list; return how many.

        Before that, with `suppress_rejected`, whom earlier runs found to be gone is put on the list.
        """
        if self.config.suppress_rejected:
            from asyncsmtp.bulk.running.refused import suppress_refused

            await suppress_refused(self.ledger, self.config.suppression)
        return await self.ledger.suppress()

    async def begin(self, *, strict: bool = False) -> None:
        """Do all that comes before `start`.

        Raises:
            RecipientError: nobody would be mailed, or with `strict` a row has a problem or a remark; nothing is loaded.
        """

        async def decide(checked: CheckResult) -> None:
            if strict:
                checked.report.raise_for_problems()
            if not checked.report.recipients:
                first = next((f", since {problem}" for problem in checked.report.problem_rows), "")
                advice = "correct the rows, or name the address column"
                raise RecipientError(f"{checked.file}: nobody would be mailed{first}: {advice}")

        if self.has_rows_to_load:
            await self.load_checked(decide)
        await self.suppress()

    async def count_ready(self, *, wait: bool = False) -> int:
        """Count the rows that a run would send; with `wait`, also those whose time is yet to come."""
        if not wait:
            return await self.ledger.count_ready()
        counts = await self.ledger.counts()
        return counts[RowState.PENDING] + counts[RowState.DEFERRED]

    async def find_first_address(self) -> str:
        """Return the address of the first row that is left; "" if none is."""
        async with aclosing(self.ledger.entries((RowState.PENDING, RowState.DEFERRED))) as left:
            async for entry in left:
                return entry.address
        return ""

    @asynccontextmanager
    async def start(
        self,
        *,
        limit: int | None = None,
        wait: bool = False,
        keep_going: bool = False,
        processes: int = 1,
        watch: OutcomeCallback | None = None,
        trace: Trace | None = None,
        warn: Warn = logger.warning,
        rates: WorkerRates | None = None,
    ) -> AsyncGenerator[Run]:
        """Make the run, with its pools, limits and webhook, until the block ends; `await run.run()` sends.

        Args:
            watch: called with each outcome as it is queued for the ledger: see `Run`.
            keep_going: go on where the relay refuses everyone.
            processes: so many that compose, sign and send; 1: this one does.
            warn: called with a sentence about what is wrong but does not stop the run.
            rates: the limits that this worker has together with others.
        """
        from asyncsmtp.bulk.rate_limit.rate_policy import make_rate_policy, open_providers, share_campaign_rates
        from asyncsmtp.bulk.running.balancer import RelayBalancer
        from asyncsmtp.bulk.running.runner import Run
        from asyncsmtp.bulk.running.schedule import Schedule
        from asyncsmtp.client.retry import Retry

        config, left = self.config, await self.count_ready(wait=wait)
        retry = Retry(attempts=config.attempts, delay=config.retry_delay)
        relays = [each.relay for each in self.relays if not isinstance(each.relay, str)]
        share, make_policy = (rates.share, rates.make_policy) if rates else (share_campaign_rates, make_rate_policy)
        async with (
            _open_webhook(config.webhook, self.ledger, warn) as webhook,
            open_providers(config, warn) as providers,
            self._open_pools(processes, trace, warn, share) as (composer, sender),
            share(config, relays, config.rate, warn, warms_up=not isinstance(sender, RelayBalancer)) as shared,
        ):
            self.limiters = sender.limiters if isinstance(sender, RelayBalancer) else [shared] if shared else []

            def report(claim: Claim, settlement: Settlement) -> None:
                if watch is not None:
                    watch(claim, settlement)
                if webhook is not None:
                    webhook.watch(claim, settlement)

            run = Run(
                composer,
                self.ledger,
                sender,
                concurrency=config.concurrency,
                sessions=sum(each.sessions for each in self.relays),
                limit=limit,
                watch=report,
                retry=retry if config.retry_for is None else replace(retry, give_up_after=config.retry_for),
                wait=wait,
                rate_policy=make_policy(config, left if limit is None else min(limit, left), providers),
                schedule=Schedule(config.window, config.start_at, config.time_zone_column),
                shared=shared,
                keep_going=keep_going,
                warn=warn,
                clock=rates.now if rates else utc_now,
            )
            try:
                yield run
                if config.suppress_rejected:
                    from asyncsmtp.bulk.running.refused import suppress_after_run

                    await suppress_after_run(self.ledger, config.suppression, warn)
            finally:
                self.failed_relays = sender.failures if isinstance(sender, RelayBalancer) else {}

    @asynccontextmanager
    async def _open_pools(
        self, processes: int, trace: Trace | None, warn: Warn, share: _ShareRates
    ) -> AsyncGenerator[tuple[ComposerProtocol, MessageSender]]:
        """Open a pool for each relay until the block ends; several, or one with limits of its own, share the messages.

        Yields a composer of the messages that they take as well.
        """
        from asyncsmtp.bulk.running.balancer import RelayBalancer, WeightedRelay
        from asyncsmtp.client.pool.pool import Pool

        composer: ComposerProtocol = self.prepared.composer
        relays = [(each, each.relay) for each in self.relays if not isinstance(each.relay, str)]
        pools: list[MessageSender] = []
        async with AsyncExitStack() as stack:
            if processes > 1:
                from asyncsmtp.bulk.running.process_pool import JobComposer, open_processes  # late: few runs need them

                started = open_processes(processes, self, trace=trace, warn=warn)
                composer, pools = JobComposer(), [*await stack.enter_async_context(started)]
            else:
                for each, relay in relays:
                    pool = Pool(relay, sessions=each.sessions, messages=each.max_per_connection, trace=trace)
                    pools.append(await stack.enter_async_context(pool))
            if len(relays) == 1 and not relays[0][0].rate:
                yield composer, pools[0]
                return
            shares = []
            for sender, (each, relay) in zip(pools, relays, strict=True):
                limits = share(self.config, [relay], each.rate, warn, warms_up=True)
                shared = await stack.enter_async_context(limits)
                shares.append(WeightedRelay(sender, each.weight, each.rate, shared, str(relay)))
            yield composer, RelayBalancer(shares, warn=warn)

    async def post_outcomes(self, warn: Warn = logger.warning) -> None:
        """Post to the webhook what earlier runs did not post; for a campaign that has nothing left to send."""
        ledger = self.ledger
        if not (self.config.webhook and isinstance(ledger, OutcomeStore)):
            return
        from asyncsmtp.bulk.running.webhook import describe_outcome

        ledger.keep_outcomes(describe_outcome)  # also of rows that recovery found in doubt
        if await ledger.count_outcomes():
            async with _open_webhook(self.config.webhook, self.ledger, warn):
                pass  # at the end of the block

    async def _to_load(self) -> PreparedCampaign:
        if self._add is None:
            return self.prepared
        if not self.ledger.loaded:
            raise ConfigError("add= is for a campaign that has begun", "begin it without add=, then add the others")
        if self._further is None:
            self._further = await prepare_file(self._add, self.prepared, self.config)
        return self._further


# Ledgers, by their location.


def _find_ledger(location: Path | Database) -> Callable[..., Awaitable[SqliteLedger | PostgresLedger]]:
    """Return `open` of the ledger's class, with the location as its first argument."""
    if isinstance(location, Path):
        from asyncsmtp.bulk.ledger.sqlite.store import SqliteLedger

        return partial(SqliteLedger.open, location)
    from asyncsmtp.bulk.ledger.postgres.store import PostgresLedger

    return partial(PostgresLedger.open, location.url)


async def open_ledger(config: CampaignConfig, prepared: PreparedCampaign) -> SqliteLedger | PostgresLedger:
    """Open a campaign's ledger to send."""
    if config.suppress_rejected:
        from asyncsmtp.bulk.running.refused import find_list

        find_list(config.suppression)
    try:
        ledger = await _find_ledger(config.ledger_location)(
            name=config.name,
            from_domain=prepared.domain,
            fingerprint=prepared.read_fingerprint,
            in_doubt=InDoubt(config.in_doubt),
            suppressions=config.suppression,
        )
        return await _apply_retention(ledger, config.retention)
    except LedgerMismatch as error:
        if f"{safe_text(prepared.recipients_name, 80)} changed" not in str(error):
            raise
        advice = "further recipients are loaded from a file of their own, with add="
        raise LedgerMismatch(f"{error}; {advice}") from None


async def open_reader(location: Path | Database, name: str | None = None) -> SqliteReader | PostgresReader:
    """Open a ledger to look at it; `name`: of the campaign that a file must be of.

    Raises:
        LedgerEmpty: there is none, or it holds no campaign yet. LedgerMismatch, LedgerError: it cannot be read.
    """
    if isinstance(location, Path):
        from asyncsmtp.bulk.ledger.sqlite.store import SqliteReader

        return await SqliteReader.open(location, name=name)
    from asyncsmtp.bulk.ledger.postgres.store import PostgresReader

    return await PostgresReader.open(location.url, name=location.campaign)


async def reopen_ledger(
    location: Path | Database, retention: float | None = STORED, *, guest: bool = False, name: str | None = None
) -> BaseLedger:
    """Open a ledger that holds a campaign, to decide about its rows.

    Args:
        retention: that of the campaign, in seconds; `STORED`: that of its last run.
        guest: also while workers send; the rows that they have are not changed. name: as for `open_reader`.
    Raises:
        LedgerEmpty: it holds none. LedgerBusy: a run has it. LedgerError: it cannot be used.
    """
    async with await open_reader(location, name) as reader:
        name = reader.name
    try:
        return await _apply_retention(await _find_ledger(location)(name=name, from_domain="localhost"), retention)
    except LedgerBusy:
        if not guest or isinstance(location, Path):
            raise
        from asyncsmtp.bulk.ledger.postgres.worker_ledger import WorkerLedger

        return await WorkerLedger.open(location.url, name=name, is_guest=True)


async def _apply_retention(ledger: _L, retention: float | None) -> _L:
    """Erase everybody if the retention has passed; close the ledger if that fails."""
    try:
        if retention != UNTIL_NEXT and await ledger.apply_retention(retention):
            logger.warning("%s: its retention has passed: addresses and cells were removed", ledger.place)
    except BaseException:
        await ledger.aclose()
        raise
    return ledger


# Parts of a run, made from the configuration.


async def check_rows(prepared: PreparedCampaign, *, every: bool, suppression: Sequence[Path] = ()) -> CheckResult:
    """Read the recipients, and compose every message or the first hundred; nothing asks what a provider objects to.

    Args:
        suppression: lists that must be there and can be read; a ledger that is open has checked its own.
    Raises:
        SuppressionError: one cannot be used.
    """
    from asyncsmtp.bulk.recipients.preflight import run_preflight
    from asyncsmtp.bulk.recipients.recipient import Recipient
    from asyncsmtp.mail.checks.empty_cells import EmptyCells

    def count(row: Recipient | Problem) -> None:
        if cells is not None and isinstance(row, Recipient):
            cells.add(row.row, row.fields)

    if suppression:
        await asyncio.to_thread(_check_lists, suppression)
    cells = EmptyCells(prepared.find_written()) if every else None
    watch, compose = (count, None) if cells else (None, CHECKED)
    report = await run_preflight(prepared.file, prepared.composer, compose=compose, show=SHOWN, watch=watch)
    return _make_result(prepared, report, cells.findings() if cells else ())


def _make_result(prepared: PreparedCampaign, report: PreflightReport, findings: Sequence[Finding] = ()) -> CheckResult:
    remarks = (*prepared.remarks, *prepared.describe_rows(report))
    return CheckResult(prepared.file.name, report, (*prepared.findings, *findings), remarks)


def _check_lists(paths: Sequence[Path]) -> None:
    from asyncsmtp.bulk.ledger.loading import SuppressionLookup

    with closing(SuppressionLookup(paths)) as lists:
        lists.open()


@asynccontextmanager
async def _open_webhook(url: str | None, ledger: Ledger, warn: Warn) -> AsyncGenerator[Webhook | None]:
    """Post outcomes to `url` until the block ends; warn how many it did not take."""
    if url is None:
        yield None
        return
    from asyncsmtp.bulk.running.webhook import open_webhook

    secret = os.environ.get(WEBHOOK_SECRET)
    key = secret.encode("utf-8", "surrogateescape") if secret else None
    async with open_webhook(url, key, ledger=ledger) as hook:
        yield hook
    if hook.lost:
        outcomes = "1 outcome" if hook.lost == 1 else f"{hook.lost:,} outcomes"
        later = ", and the next run posts them" if isinstance(ledger, OutcomeStore) else ""
        warn(f"the webhook did not take {outcomes}: the ledger has them{later}")


# Relays.


@dataclass(frozen=True, slots=True)
class EnvironmentSecrets:
    """Secrets from a parameter, or from the variables ASYNCSMTP_PASSWORD, _PROXY_PASSWORD and _KEY_PASSPHRASE."""

    given: str | Secret | None = field(default=None, repr=False)

    def password(self, username: str, host: str) -> str | Secret | None:
        return self.given if self.given is not None else os.environ.get("ASYNCSMTP_PASSWORD")

    def token(self, username: str, host: str) -> None: ...

    def proxy_password(self, username: str, host: str) -> str | None:
        return os.environ.get("ASYNCSMTP_PROXY_PASSWORD")

    def passphrase(self, key: Path) -> str | None:
        return os.environ.get("ASYNCSMTP_KEY_PASSPHRASE")


def make_relay(
    url: str,
    secrets: SecretSource,
    *,
    token: str | Secret | TokenSource | None = None,
    ca_file: Path | None = None,
    dialogue: str | None = None,
    source_address: str | None = None,
    proxy: str | None = None,
    pins: Sequence[str] = (),
    client_cert: Path | None = None,
    client_key: Path | None = None,
) -> Relay:
    """Make a relay from its URL and the settings beside it, which go before the URL; find its secrets.

    Raises:
        ConfigError: a file is missing, or a password is in a URL; it is not repeated.
        InvalidArgument: the URL is not a relay's, or no source has the password.
    """
    from asyncsmtp.client.config.hostport import has_password, parse_host_port, split_url
    from asyncsmtp.client.config.login_config import ClientCertificate
    from asyncsmtp.client.config.relay import Dialogue, Proxy, Relay
    from asyncsmtp.protocol.auth.auth import Secret

    if has_password(url) or (proxy is not None and has_password(proxy)):
        raise ConfigError(
            "there is a password in the relay's URL, or its proxy's, where others can read it: change it",
            "leave it out; set ASYNCSMTP_PASSWORD (ASYNCSMTP_PROXY_PASSWORD), or password_command in [relay]",
        )
    if ca_file is not None and not ca_file.is_file():
        raise ConfigError(f"there is no CA file {ca_file}", "correct ca_file= or ca_file in [relay]")
    if client_key is not None and client_cert is None:
        raise ConfigError("there is a client key and no client certificate", "add client_cert to [relay]")
    user, _, hosts = split_url(url).netloc.rpartition("@")
    host = parse_host_port(hosts.partition(",")[0])[0] if hosts else ""
    token = secrets.token(unquote(user), host) if user and token is None else token
    password = secrets.password(unquote(user), host) if user and token is None else None
    relay = Relay.from_url(url, password=password, token=token)
    certificate = ClientCertificate(client_cert, client_key) if client_cert else relay.client_certificate
    for file in (certificate.file, certificate.key) if certificate else ():
        if file is not None and not file.is_file():
            advice = "correct client_cert and client_key, in [relay] or in the URL"
            raise ConfigError(f"there is no client certificate {file}", advice)
    if certificate is not None:
        passphrase = secrets.passphrase(certificate.key or certificate.file)
        certificate = replace(certificate, passphrase=Secret(passphrase) if isinstance(passphrase, str) else passphrase)
    way = Proxy.from_url(proxy) if proxy else relay.proxy
    if way is not None and way.username:
        password = secrets.proxy_password(way.username, way.host)
        way = replace(way, password=Secret(password) if isinstance(password, str) else password)
    return replace(
        relay,
        ca_file=ca_file or relay.ca_file,
        dialogue=Dialogue(dialogue) if dialogue else relay.dialogue,
        source_address=source_address or relay.source_address,
        pins=tuple(pins) or relay.pins,
        client_certificate=certificate,
        proxy=way,
    )


def make_relays(
    config: CampaignConfig,
    secrets: Callable[[RelayConfig], SecretSource],
    token: str | Secret | TokenSource | None = None,
) -> list[RelayConfig]:
    """Return the relays of a configuration, the first one first, each with a `Relay` in place of its URL.

    Raises:
        ConfigError: there is none, and as `make_relay` does.
    """
    if not config.relay_configs:
        raise ConfigError("no relay was given", "pass relay=, or name its url in [relay]")
    for each in config.relay_configs:
        if each.provider is not None and isinstance(each.relay, str):
            from asyncsmtp.bulk.setup.provider_relay import require_user  # late: few campaigns name a provider

            require_user(each.relay, each.provider)
    settings = {name: getattr(config, name) for name in _RELAY_SETTINGS}
    return [
        replace(each, relay=make_relay(each.relay, secrets(each), token=token, **settings))
        if isinstance(each.relay, str)
        else each
        for each in config.relay_configs
    ]
