"""Campaign: the library's interface to a mailing, which the command calls as well.

    campaign = Campaign.from_file("campaign.toml")
    result = await campaign.run()

`Campaign.open` gives the steps of a run one by one, for a program that asks a person in between or shows progress:
`check`, `load`, `suppress`, `start`. `Campaign.run` does them in that order.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self
from weakref import finalize, ref

from asyncsmtp.bulk.ledger.interfaces import Decision, Entry, RowOutcomeReader, RowState
from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.bulk.open_campaign import (
    CheckResult,
    EnvironmentSecrets,
    OpenCampaign,
    check_rows,
    make_relays,
    open_ledger,
    open_reader,
    reopen_ledger,
)
from asyncsmtp.bulk.running.results import (
    CampaignResult,
    CampaignRun,
    ExitReason,
    RowOutcome,
    count_by_word,
    find_states,
    resolve_rows,
    select_rows,
)
from asyncsmtp.bulk.setup.config import (
    CampaignConfig,
    Rows,
    check_password,
    check_path_argument,
    check_token,
    config_from_parameters,
    load_config,
    relay_settings,
    split_ledger,
    split_recipients,
)
from asyncsmtp.bulk.setup.config_types import RelayConfig
from asyncsmtp.bulk.setup.prepare import PreparedCampaign, load_dkim_key, prepare, prepare_file
from asyncsmtp.bulk.setup.saved_rows import save_rows
from asyncsmtp.errors import ConfigError, check_number

if TYPE_CHECKING:  # late: see open_campaign
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from asyncsmtp.bulk.ledger.interfaces import Ledger, LedgerReader
    from asyncsmtp.bulk.ledger.postgres.store import Enqueue
    from asyncsmtp.client.config.login_config import TokenSource
    from asyncsmtp.client.config.relay import Relay
    from asyncsmtp.mail.checks.dns_rules import SenderDomain
    from asyncsmtp.mail.checks.rules import Finding
    from asyncsmtp.mail.message import Message
    from asyncsmtp.protocol.auth.auth import Secret

    RelayLike = str | Relay | RelayConfig | Sequence[str | Relay | RelayConfig]
    States = str | RowState | Iterable[str | RowState]
    LedgerLike = str | os.PathLike[str] | Database | Ledger

__all__ = ["Campaign", "CampaignResult", "CampaignRun", "CheckResult", "ExitReason", "RowOutcome"]


class Campaign:
    """A mailing: recipients, a template, relays and a ledger that has the outcome of each row.

    A row is sent at most once unless a person decides otherwise: the ledger is written before the point of no return,
    and a campaign that was interrupted, by whatever, resumes with the next `run`. A `Campaign` holds no connection and
    no open ledger; it may be run several times, and by one task at a time.
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
        token: str | Secret | TokenSource | None = None,
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
            token: an access token instead, or an async function that returns one (see `TokenSource`).
            ledger: a file, a URL of PostgreSQL, or a `Ledger` that is open and stays open; NAME.ledger in `folder` if
                omitted.
            folder: of attachments, included templates and the ledger; that of the recipients' file, or the current one
                if omitted. Other paths are relative to the current folder.
            settings: what a campaign file may say, by the names in docs/reference/settings.md, such as
                `concurrency=50`, `rate="30/s"`, `return_path="bounces+{{ token }}@example.com"`.
        Raises:
            TypeError: an argument of the wrong type, or with an unknown name. ConfigError: one with a wrong value.
        """
        place, rows = split_recipients(recipients)
        location, opened = split_ledger(ledger)
        home = Path() if place is None else place.parent
        config = config_from_parameters(
            home if folder is None else check_path_argument("folder", folder),
            {
                **relay_settings(relay),
                **settings,
                "recipients": place,
                "from_": from_,
                "subject": subject,
                "text": text,
                "html": html,
                "name": name,
                "ledger": location,
            },
        )
        self._set(config, rows, opened, password=password, token=token)

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        recipients: str | os.PathLike[str] | Rows | None = None,
        relay: RelayLike | None = None,
        password: str | Secret | None = None,
        token: str | Secret | TokenSource | None = None,
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
        if relay is not None:  # it replaces all that the file says of its relay
            config = replace(config, provider=None, user=None)
        given = {**relay_settings(relay), **settings, "recipients": place, "ledger": location}
        config = config_from_parameters(config, given)
        return cls.from_config(config, recipients=rows, ledger=opened, password=password, token=token)

    @classmethod
    def from_config(
        cls,
        config: CampaignConfig,
        *,
        recipients: Rows | None = None,
        ledger: Ledger | None = None,
        password: str | Secret | None = None,
        token: str | Secret | TokenSource | None = None,
    ) -> Self:
        """Make a campaign from a configuration that is checked."""
        made = cls.__new__(cls)
        made._set(config, recipients, ledger, password=password, token=token)
        return made

    def _set(
        self, config: CampaignConfig, rows: Rows | None, ledger: Ledger | None, *, password: object, token: object
    ) -> None:
        self.config = config
        self._rows = rows
        self._rows_file: Path | None = None
        self._is_begun = False  # the reading of rows that can be read once
        self._ledger = ledger
        self._secrets = EnvironmentSecrets(check_password(password))
        self._token = check_token(token, password)
        self._loops: list[tuple[ref[object], asyncio.Event]] = []  # over outcomes, each with its end

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
        further = None if add is None else check_path_argument("add", add)
        prepared = await self._prepare(None, further)
        return prepared if further is None else await prepare_file(further, prepared, self.config)

    async def _prepare(self, ledger: object, add: Path | None) -> PreparedCampaign:
        if self._rows is not None and self._rows_file is None:
            if self._is_begun:
                raise ConfigError("recipients= was read in part and cannot be read again", "make a new Campaign")
            self._is_begun = isinstance(self._rows, Iterator | AsyncIterator)
            self._rows_file = await save_rows(self._rows)
            finalize(self, self._rows_file.unlink, missing_ok=True)
        return await prepare(self.config, self._rows_file, ledger=ledger, add=add)

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
            ConfigError, RecipientError, TemplateError, SuppressionError: the campaign could not begin.
            MissingDependency: DNS takes a package that is not installed.
        """
        from asyncsmtp.mail.checks.rules import check_message  # late: only a check needs the rules

        if name_server is not None and not isinstance(name_server, str):
            raise TypeError(f"name_server= must be text; it is {type(name_server).__name__}")
        prepared = await self.prepare(add)
        result = await check_rows(prepared, every=every, suppression=self.config.suppression)
        if (sample := result.report.sample) is None:
            return result
        findings = [*result.findings, *check_message(sample, result.report.recipients)]
        findings += await asyncio.to_thread(prepared.find_unsupported)
        if dns:
            findings += await _check_dns(self.config, sample, name_server)
        return replace(result, findings=tuple(findings))

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
        if config.has_unresolved_provider:
            config = await config.resolve_providers()
        relays = make_relays(config, lambda _: self._secrets, self._token)
        await self._wait_closed()
        place = config.ledger_location if opened is None else getattr(opened, "place", None)
        prepared = await self._prepare(place, further)
        async with AsyncExitStack() as stack:
            if opened is None:
                opened = await open_ledger(config, prepared)
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
        keep_going: bool = False,
        add: str | os.PathLike[str] | None = None,
        processes: int = 1,
    ) -> CampaignRun:
        """Check everything, then send what is left; await it, or iterate over it.

            result = await campaign.run()    # in a program without a loop: asyncio.run(campaign.run())

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
            strict: send nothing if a row of the recipients has a problem or a remark.
            keep_going: go on where the relay refuses everyone: the rows are used up.
            add: a further file of recipients, for a campaign that has begun.
            processes: so many compose, sign and send, which pays with DKIM or S/MIME; 1: this one does.
        Raises:
            ConfigError, RecipientError, TemplateError: the campaign cannot begin; nothing was sent.
            LedgerBusy: another process, or another run, has it. LedgerMismatch: it has begun with something else.
            LedgerError: the ledger failed. CampaignHalted: the relay refuses everyone; rows that were rejected
                before can be made pending again: `resolve("resend", halted=True)`.
            ConnectFailed, Refused, ExtensionNotSupported, InsecureConnection: the relay is unusable; rows stay pending.
        """
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
            raise TypeError(f"limit= must be a whole number; it is {type(limit).__name__}")
        if limit is not None and limit < 1:
            raise ConfigError(f"limit= {limit} must be at least 1", "correct the argument")
        check_number("processes", processes, int)
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
            keep_going=keep_going,
            processes=processes,
        )

    async def load(
        self, *, strict: bool = False, paused: bool = False, enqueue: Enqueue | None = None
    ) -> Mapping[str, int]:
        """Check everything, and take the recipients into a ledger in PostgreSQL for workers; return the rows by state.

        Nothing is sent, and no relay is needed. Workers that wait begin at once; they need no file of recipients. Done
        again, also while they send, it stores the entries of suppression lists, and changes nothing else.

        Args:
            strict: load nothing if a row of the recipients has a problem or a remark.
            paused: workers wait until the campaign is resumed.
            enqueue: an async function that is called in the transaction of the load, with its connection (psycopg) and
                the number of batches: rows and jobs are there together or not at all. Not for a loaded campaign.
        Raises:
            ConfigError, RecipientError, TemplateError: the campaign cannot begin; the ledger is a file.
            LedgerMismatch: it was loaded with something else. LedgerError: the database cannot be used.
        """
        from asyncsmtp.bulk.workers.work import find_database, load_rows  # late, as below: most campaigns have none

        place = find_database(self.config)
        prepared = await self._prepare(place, None)
        return await load_rows(self.config, prepared, strict=strict, paused=paused, enqueue=enqueue)

    async def work(
        self, *, until_idle: bool = False, lease: float = 30.0, limit: int | None = None, relay: RelayLike | None = None
    ) -> CampaignResult:
        """Send as one of any number of workers, on this host or others, a campaign that `load` has loaded.

        It may be called any number of times, at once and one after the other, also after a worker was killed: the
        ledger decides which rows are whose. Cancelled, it breaks off what is in flight, as `run` does.

        Args:
            until_idle: end where nothing can be sent for a minute; `resumes_at` of the result is the time to come
                again. Otherwise stay until every row has a final outcome.
            lease: seconds; other workers take over the rows of one that has committed nothing for so long.
            limit: attempts after which it ends (`exit_reason` is LIMIT), for one job of many in a queue. With it, it
                ends also where the campaign is paused (WAITING, without a time), and it begins no new round.
            relay: instead of the campaign's own.
        Raises:
            LedgerEmpty: the campaign is not loaded. LedgerBusy: a process has it alone, as `run` does.
            LedgerMismatch: the files or settings here are not those of the load. InvalidArgument: the lease is short.
            CampaignHalted: the relay refuses everyone; all workers pause. The errors of `run`.
        """
        from asyncsmtp.bulk.workers.work import Worker

        config = self.config if relay is None else replace(self.config, **relay_settings(relay))
        if config.has_unresolved_provider:
            config = await config.resolve_providers()
        relays = make_relays(config, lambda _: self._secrets, self._token)
        return await Worker(config, relays, until_idle=until_idle, lease=lease, limit=limit).run()

    async def counts(self) -> Mapping[str, int]:
        """Count the rows by state, such as "accepted"; all are 0 before the campaign has begun."""
        from asyncsmtp.bulk.ledger.interfaces import Counts
        from asyncsmtp.errors import LedgerEmpty

        try:
            async with self._reader() as reader:
                return count_by_word(await reader.counts())
        except LedgerEmpty:
            return count_by_word(Counts())

    def results(self, states: States | None = None) -> AsyncGenerator[Entry]:
        """Yield what the ledger knows of every row, in the order of the recipients; also while it runs.

        Args:
            states: only rows in this state, or one of several, such as "rejected" or "in doubt".
        Raises:
            ConfigError: there is no such state. LedgerEmpty, from the iteration: the campaign has not begun.
        """
        return self._entries(None if states is None else find_states(states))

    async def _entries(self, chosen: Sequence[RowState] | None) -> AsyncGenerator[Entry]:
        async with self._reader() as reader:
            by_row = reader.entries_by_row if isinstance(reader, RowOutcomeReader) else reader.entries
            async with aclosing(by_row(chosen)) as entries:
                async for entry in entries:
                    yield entry

    async def resolve(
        self,
        decision: Decision | str,
        *,
        rows: int | Iterable[int] | None = None,
        states: States | None = None,
        codes: int | Iterable[int] | None = None,
        enhanced_codes: str | Iterable[str] | None = None,
        reply: str = "",
        since: datetime | None = None,
        host: str = "",
        halted: bool = False,
    ) -> int:
        """Decide about rows in doubt, deferred or rejected; return how many it changed.

        Args:
            decision: "resend" makes them pending, for the next run; "skip" gives them up.
            rows: a number, or several; None for all.
            states: in doubt if omitted; rejected with `codes`, `enhanced_codes` or `halted`.
            codes: of the relay's reply, such as 550. enhanced_codes: such as "5.7.1".
            reply: a part of the relay's words. since: decided at this time or later. host: by this relay.
            halted: only rows that were rejected before a run raised CampaignHalted.
        Raises:
            LedgerEmpty: the campaign has not begun. LedgerBusy: it is running. ConfigError: there is no such decision.
        """
        try:
            chosen = Decision(decision)
        except ValueError:
            raise ConfigError(f"there is no decision {decision!r}", "pass “resend” or “skip”") from None
        selection = select_rows(rows, states, codes, enhanced_codes, reply, since, host, halted=halted)
        await self._wait_closed()
        if self._ledger is not None:
            return await resolve_rows(self._ledger, chosen, selection)
        async with await reopen_ledger(
            self.config.ledger_location, retention=self.config.retention, guest=True, name=self.name
        ) as ledger:
            return await resolve_rows(ledger, chosen, selection)

    @asynccontextmanager
    async def _reader(self) -> AsyncGenerator[LedgerReader]:
        await self._wait_closed()
        if self._ledger is not None:
            yield self._ledger
            return
        async with await open_reader(self.config.ledger_location, self.name) as reader:
            yield reader

    async def _wait_closed(self) -> None:
        """Wait for a loop that was left: asyncio closes its generator, and with it the ledger, some time later.

        Only where nobody has the generator any more. Somebody who has it could go on with it, and would be waited for
        in vain: the ledger says that it is busy.
        """
        for outcomes, closed in tuple(self._loops):
            if outcomes() is None:
                await closed.wait()
        self._loops = [each for each in self._loops if each[0]() is not None or not each[1].is_set()]


async def _check_dns(config: CampaignConfig, sample: Message, name_server: str | None) -> list[Finding]:
    from asyncsmtp.bulk.rate_limit.dns_resolver import DnsResolver
    from asyncsmtp.mail.checks.dns_rules import check_dns

    return await DnsResolver(name_server).answer(check_dns(describe_sender(config, sample)))


def describe_sender(config: CampaignConfig, sample: Message) -> SenderDomain:
    """Return the sender of a campaign, by its configuration and one of its messages."""
    from asyncsmtp.client.config.hostport import parse_host_port, split_url
    from asyncsmtp.mail.checks.dns_rules import SenderDomain
    from asyncsmtp.mail.checks.parsed_message import parse_message

    seen = parse_message(sample)
    hosts: list[str] = []
    for relay in (each.relay for each in config.relay_configs):
        if isinstance(relay, str) and not relay.startswith("srv:"):  # such a domain has not been looked up
            named = split_url(relay).netloc.rpartition("@")[2].split(",")
            hosts += [parse_host_port(each)[0] for each in named if each]
        elif not isinstance(relay, str):
            hosts += [each.host for each in relay.single_host_relays if each.host]
    keys = [load_dkim_key(each) for each in config.dkim]
    return SenderDomain(
        author=seen.author,
        return_path=seen.return_path or seen.author,
        keys=[(key.name, key.record) for key in keys],
        relays=hosts,
    )
