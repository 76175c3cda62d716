"""Campaign: the library's interface to a mailing, which the command calls as well.

    campaign = Campaign.from_file("campaign.toml")
    result = await campaign.run()

`Campaign.open` gives the steps of a run one by one, for a program that asks a person in between or shows progress:
`check`, `load`, `suppress`, `start`. `Campaign.run` does them in that order.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Self
from weakref import finalize, ref

from asyncsmtp.bulk.ledger.interfaces import Decision, Entry, InDoubt, RowState
from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.bulk.open_campaign import (
    CheckResult,
    EnvironmentSecrets,
    OpenCampaign,
    make_relays,
    open_ledger,
    open_reader,
    reopen_ledger,
    run_preflight,
)
from asyncsmtp.bulk.setup.config import CampaignConfig, config_from_parameters, load_config
from asyncsmtp.bulk.setup.config_types import RelayConfig
from asyncsmtp.bulk.setup.prepare import (
    PreparedCampaign,
    Rows,
    check_password,
    check_path_argument,
    describe_sender,
    prepare,
    prepare_file,
    relay_settings,
    save_rows,
    split_ledger,
    split_recipients,
)
from asyncsmtp.errors import ConfigError

if TYPE_CHECKING:  # late: see open_campaign
    from asyncsmtp.bulk.ledger.interfaces import Claim, Ledger, LedgerReader, Settlement
    from asyncsmtp.bulk.running.runner import Run
    from asyncsmtp.client.config.relay import Relay
    from asyncsmtp.mail.checks.rules import Finding
    from asyncsmtp.mail.message import Message
    from asyncsmtp.protocol.auth.auth import Secret

    RelayLike = str | Relay | RelayConfig | Sequence[str | Relay | RelayConfig]
    LedgerLike = str | os.PathLike[str] | Database | Ledger

__all__ = [
    "Campaign",
    "CampaignResult",
    "CampaignRun",
    "CheckResult",
    "ExitReason",
    "RowOutcome",
]


class ExitReason(StrEnum):
    """The reason why a run ended. What ends it otherwise is raised."""

    COMPLETE = "complete"  # every row has its final outcome, or is in doubt
    LIMIT = "limit"  # the run's `limit` is reached
    WAITING = "waiting"  # rows are left for later: `resumes_at`
    STOPPED = "stopped"  # `stop` was called, or the loop over the outcomes was left


@dataclass(frozen=True, slots=True)
class CampaignResult:
    """RowState of a campaign after a run.

    Attributes:
        counts: rows of the whole campaign by state, such as "accepted", "rejected" or "in doubt"; each state is there.
        resumes_at: from when on the first of the rows that are left may be tried, UTC; None: at once, or none is left.
    """

    counts: Mapping[str, int]
    exit_reason: ExitReason
    resumes_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RowOutcome:
    """Outcome of one row, as it was recorded in the ledger.

    Attributes:
        row: counts the records of the recipients from 1.
        fields: its cells by column.
        state: ACCEPTED, DEFERRED, REJECTED or IN_DOUBT.
        code, status: of the relay's reply, such as 550 and "5.1.1"; None where no relay decided.
        reply: the relay's words, or the reason.
        attempt: counts from 1.
        message_id: without angle brackets.
    """

    row: int
    address: str
    fields: Mapping[str, str]
    state: RowState
    code: int | None
    status: str | None
    reply: str
    host: str
    attempt: int
    message_id: str


class Campaign:
    """A mailing: recipients, a template, relays and a ledger that has the outcome of each row.

    A row is sent at most once without a person's word: the ledger is written before the point of no return, and a
    campaign that was interrupted, by whatever, resumes with the next `run`. A `Campaign` holds no connection and no
    open ledger; it may be run several times, and by one task at a time.
    """

    def __init__(
        self,
        *,
        recipients: str | os.PathLike[str] | Rows,
        from_: str,
        subject: str,
        text: str | Path | None = None,
        html: str | Path | None = None,
        name: str | None = None,
        relay: RelayLike | None = None,
        password: str | Secret | None = None,
        ledger: LedgerLike | None = None,
        folder: str | os.PathLike[str] | None = None,
        **settings: object,
    ) -> None:
        """Make a campaign from parameters; no file is read yet.

        Args:
            recipients: a file (CSV, JSON lines, .xlsx), or mappings of columns to cells, such as `[{"email":
                "ann@example.com", "name": "Ann"}]`. The first mapping names the columns. They are read once, when they
                are first needed, and saved to a temporary file that lives as long as the campaign.
            text, html: the template itself (Jinja2), or a `Path` to it. A `Path` to Markdown makes both parts.
            name: of the campaign and its ledger; the name of the recipients' file if omitted.
            relay: a URL, a `Relay`, or several; `run` may name another one.
            password: of the user in the URL; ASYNCSMTP_PASSWORD if omitted.
            ledger: a file, a URL of PostgreSQL, or a `Ledger` that is open and stays open; NAME.ledger in `folder` if
                omitted.
            folder: of attachments, included templates and the ledger; that of the recipients' file, or the current one
                if omitted. Other paths are relative to the current folder.
            settings: what a campaign file may say, by the names in docs/settings.md, such as `concurrency=50`,
                `rate="30/s"`, `return_path="bounces+{{ token }}@example.com"`.
        Raises:
            TypeError: an argument of the wrong type, or with an unknown name. ConfigError: one with a wrong value.
        """
        place, rows = split_recipients(recipients)
        location, opened = split_ledger(ledger)
        home = Path() if place is None else place.parent
        config = config_from_parameters(
            home if folder is None else check_path_argument("folder", folder),
            {
                **settings,
                **relay_settings(relay),
                "recipients": place,
                "from_": from_,
                "subject": subject,
                "text": text,
                "html": html,
                "name": name,
                "ledger": location,
            },
        )
        self._set(config, rows, opened, password)

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        recipients: str | os.PathLike[str] | Rows | None = None,
        relay: RelayLike | None = None,
        password: str | Secret | None = None,
        ledger: LedgerLike | None = None,
        **settings: object,
    ) -> Self:
        """Read a campaign file; arguments go before what it says, by the names that `Campaign` has for them.

        It reads the file at the call, and blocks that long. A `password_command` is run by the command only.

        Raises:
            TypeError: an argument of the wrong type, or with an unknown name.
            ConfigError: the file cannot be used, with the key that is wrong.
        """
        config = load_config(check_path_argument("path", path))
        place, rows = (None, None) if recipients is None else split_recipients(recipients)
        location, opened = split_ledger(ledger)
        given = {**settings, **relay_settings(relay), "recipients": place, "ledger": location}
        return cls.from_config(config_from_parameters(config, given), recipients=rows, ledger=opened, password=password)

    @classmethod
    def from_config(
        cls,
        config: CampaignConfig,
        *,
        recipients: Rows | None = None,
        ledger: Ledger | None = None,
        password: str | Secret | None = None,
    ) -> Self:
        """Make a campaign from a configuration that is checked."""
        made = cls.__new__(cls)
        made._set(config, recipients, ledger, password)
        return made

    def _set(
        self, config: CampaignConfig, rows: Rows | None, ledger: Ledger | None, password: str | Secret | None
    ) -> None:
        self.config = config
        self._rows = rows
        self._rows_file: Path | None = None
        self._ledger = ledger
        self._secrets = EnvironmentSecrets(check_password(password))
        self._left: tuple[ref[object], asyncio.Event] | None = None

    @property
    def name(self) -> str:
        """Name of the campaign."""
        return self.config.name

    def __repr__(self) -> str:
        return f"<Campaign {self.config.name!r}>"

    async def prepare(self, add: str | os.PathLike[str] | None = None) -> PreparedCampaign:
        """Read all files, and compile the template against the columns of the recipients.

        Args:
            add: a further file of recipients, which is prepared instead of the campaign's own.
        Raises:
            ConfigError: a file cannot be read, or a key cannot sign. RecipientError: the recipients' header.
            TemplateError: the template.
        """
        if self._rows is not None and self._rows_file is None:
            self._rows_file = await save_rows(self._rows)
            finalize(self, self._rows_file.unlink, missing_ok=True)
        prepared = await prepare(self.config, self._rows_file)
        if add is None:
            return prepared
        return await prepare_file(check_path_argument("add", add), prepared, self.config)

    async def check(
        self,
        *,
        every: bool = True,
        dns: bool = False,
        name_server: str | None = None,
        add: str | os.PathLike[str] | None = None,
    ) -> CheckResult:
        """Run the whole pre-flight; send nothing, and make no ledger.

        Args:
            every: compose each message rather than the first hundred: as slow as sending, and as sure.
            dns: ask DNS for what is published of the sender; `name_server` is `host:port`, the system's if omitted.
            add: a further file of recipients to check.
        Raises:
            ConfigError, RecipientError, TemplateError: the campaign could not begin.
            MissingDependency: DNS takes a package that is not installed.
        """
        from asyncsmtp.mail.checks.rules import check_message  # late: only a check needs the rules

        prepared = await self.prepare(add)
        report = await run_preflight(prepared, every=every)
        findings = check_message(report.sample) if report.sample is not None else []
        if dns and report.sample is not None:
            findings += await _check_dns(self.config, report.sample, name_server)
        return CheckResult(prepared.file.name, report, tuple(findings), prepared.remarks)

    @asynccontextmanager
    async def open(
        self,
        *,
        relay: RelayLike | None = None,
        ledger: LedgerLike | None = None,
        add: str | os.PathLike[str] | None = None,
    ) -> AsyncGenerator[OpenCampaign]:
        """Open the ledger, to run the campaign step by step; it is closed when the block ends.

        Args:
            relay, ledger: instead of the campaign's own.
            add: a further file of recipients, for a campaign that has begun.
        Raises:
            ConfigError, RecipientError, TemplateError: as `prepare` does.
            LedgerBusy, LedgerMismatch, LedgerError, SuppressionError: the ledger cannot be used.
        """
        config = self.config if relay is None else replace(self.config, **relay_settings(relay))
        location, opened = split_ledger(ledger)
        if location is not None:
            config = config_from_parameters(config, {"ledger": location})
        elif opened is None:
            opened = self._ledger
        further = None if add is None else check_path_argument("add", add)
        relays = make_relays(config, lambda _: self._secrets)
        await self._wait_closed()
        prepared = await self.prepare()
        async with AsyncExitStack() as stack:
            if opened is None:
                opened = await open_ledger(
                    config.ledger_location,
                    name=config.name,
                    from_domain=prepared.composer.author.domain,
                    fingerprint=await prepared.fingerprint(),
                    in_doubt=InDoubt(config.in_doubt),
                    suppressions=config.suppression,
                )
                stack.push_async_callback(opened.aclose)
            yield OpenCampaign(config, prepared, opened, relays, further)

    def run(
        self,
        *,
        relay: RelayLike | None = None,
        ledger: LedgerLike | None = None,
        limit: int | None = None,
        wait: bool = False,
        strict: bool = False,
        add: str | os.PathLike[str] | None = None,
    ) -> CampaignRun:
        """Check everything, then send what is left; await it, or iterate over it.

            result = await campaign.run()

            async with campaign.run() as run:
                async for outcome in run: ...
            run.result

        Nothing begins before that. A row that is deferred and tried again in the same run comes each time. A loop that
        is left begins no further message and waits for those in flight, at the end of the block; without `async with`,
        at the next use of the campaign. Cancelled, it breaks off what is in flight: rows past the point of no return
        are in doubt, the others pending.

        Args:
            relay, ledger: instead of the campaign's own.
            limit: attempts to make in this run.
            wait: stay until every row has a final outcome: for rates, windows, and further attempts.
            strict: send nothing if a row of the recipients is odd in any way.
            add: a further file of recipients, for a campaign that has begun.
        Raises:
            ConfigError, RecipientError, TemplateError: the campaign cannot begin; nothing was sent.
            LedgerBusy: another process, or another run, has it. LedgerMismatch: it has begun with something else.
            LedgerError: the ledger failed. CampaignHalted: the relay refuses the sender.
            ConnectFailed, Refused, ExtensionNotSupported, InsecureConnection: the relay is unusable; rows stay pending.
        """
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
            raise TypeError(f"limit= must be a whole number; it is {type(limit).__name__}")
        relay_settings(relay)
        split_ledger(ledger)
        if add is not None:
            check_path_argument("add", add)
        return CampaignRun(
            self,
            lambda: self.open(relay=relay, ledger=ledger, add=add),
            limit=limit,
            wait=wait,
            strict=strict,
        )

    async def counts(self) -> Mapping[str, int]:
        """Count the rows by state, such as "accepted"; all are 0 before the campaign has begun."""
        from asyncsmtp.bulk.ledger.interfaces import Counts
        from asyncsmtp.errors import LedgerEmpty

        try:
            async with self._reader() as reader:
                return _by_word(await reader.counts())
        except LedgerEmpty:
            return _by_word(Counts())

    async def results(self, states: Iterable[str | RowState] | None = None) -> AsyncGenerator[Entry]:
        """Yield what the ledger knows of every row, in the order of the recipients; also while it runs.

        Args:
            states: only rows in one of these, such as "rejected" or "in doubt".
        Raises:
            LedgerEmpty: the campaign has not begun. ConfigError: there is no such state.
        """
        chosen = None if states is None else [_find_state(each) for each in states]
        async with self._reader() as reader, aclosing(reader.entries(chosen)) as entries:
            async for entry in entries:
                yield entry

    async def resolve(
        self,
        decision: Decision | str,
        *,
        rows: Iterable[int] | None = None,
        states: Iterable[str | RowState] = (RowState.IN_DOUBT,),
    ) -> int:
        """Decide about rows in doubt, deferred or rejected; return how many it changed.

        Args:
            decision: "resend" makes them pending, for the next run; "skip" gives them up.
            rows: their numbers; None for all.
        Raises:
            LedgerEmpty: the campaign has not begun. LedgerBusy: it is running. ConfigError: there is no such decision.
        """
        try:
            chosen = Decision(decision)
        except ValueError:
            raise ConfigError(f"there is no decision {decision!r}", "pass “resend” or “skip”") from None
        found = [_find_state(each) for each in states]
        await self._wait_closed()
        if self._ledger is not None:
            return await self._ledger.resolve(chosen, rows, found)
        async with await reopen_ledger(self.config.ledger_location) as ledger:
            return await ledger.resolve(chosen, rows, found)

    @asynccontextmanager
    async def _reader(self) -> AsyncGenerator[LedgerReader]:
        await self._wait_closed()
        if self._ledger is not None:
            yield self._ledger
            return
        async with await open_reader(self.config.ledger_location) as reader:
            yield reader

    async def _wait_closed(self) -> None:
        """Wait for a loop that was left: asyncio closes its generator, and with it the ledger, some time later.

        Only where nobody has the generator any more. Somebody who has it could go on with it, and would be waited for
        in vain: the ledger says that it is busy.
        """
        if self._left is not None and self._left[0]() is None:
            await self._left[1].wait()


class CampaignRun:
    """One run of a campaign: await it for the result, or iterate over the outcomes. See `Campaign.run`.

    Attributes:
        result: the state of the campaign after the run; None before its end.
    """

    def __init__(
        self,
        campaign: Campaign,
        open_campaign: Callable[[], AbstractAsyncContextManager[OpenCampaign]],
        *,
        limit: int | None,
        wait: bool,
        strict: bool,
    ) -> None:
        """Use `Campaign.run`."""
        self.result: CampaignResult | None = None
        self._campaign = campaign
        self._open = open_campaign
        self._limit = limit
        self._wait = wait
        self._strict = strict
        self._run: Run | None = None
        self._stopped = False
        self._is_managed = False
        self._iterator: AsyncGenerator[RowOutcome] | None = None
        self._attempts = 0

    def stop(self) -> None:
        """Begin nothing new; the run ends when what is in flight is answered."""
        self._stopped = True
        if self._run is not None:
            self._run.stop()

    def __await__(self) -> Generator[None, None, CampaignResult]:
        return self._finish().__await__()

    def __aiter__(self) -> AsyncGenerator[RowOutcome]:
        closed = asyncio.Event()
        closed.set()  # until it has begun
        outcomes = self._outcomes(closed)
        self._campaign._left = ref(outcomes), closed
        if self._is_managed:  # else nobody but the loop may have it: when the loop is left, it is closed
            self._iterator = outcomes
        return outcomes

    async def __aenter__(self) -> Self:
        self._is_managed = True
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._iterator is not None:
            await self._iterator.aclose()

    async def _finish(self) -> CampaignResult:
        async with self._begun() as (opened, run):
            if run is not None:
                await run.run()
            return await self._conclude(opened, run)

    async def _outcomes(self, closed: asyncio.Event) -> AsyncGenerator[RowOutcome]:
        from asyncsmtp.bulk.running.runner import outcomes

        closed.clear()
        try:
            async with self._begun() as (opened, run):
                if run is not None:
                    async with aclosing(outcomes(run)) as found:
                        try:
                            async for claim, settlement in found:
                                yield _row_outcome(claim, settlement)
                        except GeneratorExit:
                            self._stopped = True
                            await found.aclose()
                            await self._conclude(opened, run)
                            raise
                await self._conclude(opened, run)
        finally:
            closed.set()

    @asynccontextmanager
    async def _begun(self) -> AsyncGenerator[tuple[OpenCampaign, Run | None]]:
        """Open the campaign and have its recipients loaded; start a run, if anything is left to send."""
        async with self._open() as opened, AsyncExitStack() as stack:
            await opened.begin(strict=self._strict)
            if not self._stopped and await opened.count_ready(wait=self._wait):
                self._run = await stack.enter_async_context(
                    opened.start(limit=self._limit, wait=self._wait, watch=self._count)
                )
            yield opened, self._run

    def _count(self, claim: Claim, settlement: Settlement) -> None:
        self._attempts += 1

    async def _conclude(self, opened: OpenCampaign, run: Run | None) -> CampaignResult:
        counts = await opened.ledger.counts()
        resumes_at = (run and run.resumes_at) or await opened.ledger.next_due()
        if not (counts[RowState.PENDING] or counts[RowState.DEFERRED]):
            reason, resumes_at = ExitReason.COMPLETE, None
        elif self._stopped:
            reason = ExitReason.STOPPED
        elif self._limit is not None and self._attempts >= self._limit:
            reason = ExitReason.LIMIT
        else:
            reason = ExitReason.WAITING
        if resumes_at is not None and resumes_at <= datetime.now(UTC):
            resumes_at = None
        self.result = CampaignResult(_by_word(counts), reason, resumes_at)
        return self.result


async def _check_dns(config: CampaignConfig, sample: Message, name_server: str | None) -> list[Finding]:
    from asyncsmtp.bulk.dns_resolver import DnsResolver
    from asyncsmtp.mail.checks.dns_rules import check_dns

    return await DnsResolver(name_server).answer(check_dns(describe_sender(config, sample)))


def _find_state(value: object) -> RowState:
    if isinstance(value, RowState):
        return value
    found = next((state for state in RowState if str(value).replace("_", " ") == str(state)), None)
    if found is None:
        raise ConfigError(f"there is no state {value!r}", f"the states are {', '.join(map(str, RowState))}")
    return found


def _by_word(counts: Mapping[RowState, int]) -> dict[str, int]:
    return {str(state): number for state, number in counts.items()}


def _row_outcome(claim: Claim, settlement: Settlement) -> RowOutcome:
    return RowOutcome(
        row=settlement.row,
        address=str(claim.recipient.mailbox),
        fields=claim.recipient.fields,
        state=settlement.state,
        code=settlement.code,
        status=settlement.status,
        reply=settlement.reply,
        host=settlement.host,
        attempt=claim.attempt,
        message_id=claim.message_id,
    )
