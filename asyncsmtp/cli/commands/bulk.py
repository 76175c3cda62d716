"""`asyncsmtp bulk`: the main job, from the options to the exit code."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, ExitStack, aclosing, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.bulk.setup.config import KEYS, CampaignConfig, build_config, name_ledger_campaign
from asyncsmtp.bulk.setup.config_types import RelayConfig
from asyncsmtp.cli.command_line import typed
from asyncsmtp.cli.controls import run_on_fast_loop
from asyncsmtp.cli.env_file import env_file_option
from asyncsmtp.cli.options import (
    OUTPUT,
    REHEARSAL,
    GroupedCommand,
    campaign_argument,
    config_options,
    json_option,
    ledger_option,
    load_campaign,
    make_cli_relays,
    name_ledger,
    option,
    parse_mailbox,
    relay_options,
    resolve_cli_provider,
    verbose_option,
)
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode
from asyncsmtp.cli.output.run_summary import RunSummary, write_summary
from asyncsmtp.errors import ConfigError, LedgerError

if TYPE_CHECKING:
    from asyncsmtp.bulk.ledger.interfaces import Ledger
    from asyncsmtp.bulk.open_campaign import CheckResult, OpenCampaign
    from asyncsmtp.bulk.rate_limit.warmup import WarmupDay
    from asyncsmtp.bulk.recipients.recipient import Recipient
    from asyncsmtp.bulk.running.runner import Run
    from asyncsmtp.bulk.setup.prepare import PreparedCampaign
    from asyncsmtp.cli.output.run_stats import RunReporter, RunStats

__all__ = ["command"]

DRAIN_TIMEOUT = 60.0  # seconds for what is under way after the first Ctrl-C
SETTLE_TIME = 0.1  # seconds after which those that wait have been given back

logging.getLogger("asyncsmtp.campaign").addHandler(logging.NullHandler())  # the command prints these itself

_EPILOG = """\b
Every option can also be ASYNCSMTP_NAME in the environment, or a key of the
campaign file. Ctrl-C finishes what is under way; a second one breaks it off.

\b
Example:
  asyncsmtp bulk demo/campaign.toml --sandbox
"""
_MESSAGE = [
    name
    for name, key in KEYS.items()
    if key.options and name.startswith(("campaign.", "columns")) and name != "campaign.ledger"
]
_LIMITS = ("limits.concurrency", "limits.rate", "limits.window", "limits.time_zone_column")
_PATH = click.Path(path_type=Path)
_RUN = "This run"
_OPTIONS = {key.field: key.name for key in KEYS.values()}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """One call of the command: the campaign, and how this run goes about it.

    Attributes:
        reference: the words that lead `results` and `resolve` to the ledger, quoted for a shell.
        limit: rows to try in this run; None for all.
        wait: stay until those deferred were tried again.
        keep_going: do not stop where the relay refuses everyone.
        processes: so many compose, sign and send.
        add: a file with further recipients for a campaign that has begun.
        confirmed: nobody has to be asked.
        summary: what --summary writes.
        interrupted: set by a signal during the run, even if there was nothing left to stop.
    """

    config: CampaignConfig
    reference: str
    limit: int | None = None
    strict: bool = False
    wait: bool = False
    keep_going: bool = False
    processes: int = 1
    add: Path | None = None
    confirmed: bool = False
    as_json: bool = False
    verbose: bool = False
    summary: RunSummary = field(default_factory=RunSummary)
    interrupted: asyncio.Event = field(default_factory=asyncio.Event)


@click.command("bulk", cls=GroupedCommand, epilog=_EPILOG)
@campaign_argument()
@config_options(*_MESSAGE)
@ledger_option
@relay_options
@config_options("relay.sessions", "relay.max_per_connection", *_LIMITS, "limits.start_at", "limits.spread_until")
@config_options("retry.in_doubt", "retry.for", "retry.delay", "retry.attempts")
@option("--wait", is_flag=True, help="Stay for what comes later: quotas, windows, second attempts.", group=_RUN)
@option("--limit", type=click.IntRange(min=1), metavar="N", help="This many recipients, then stop.", group=_RUN)
@option("--add", type=_PATH, metavar="CSV", help="Further recipients, for one that was begun.", group=_RUN)
@option(
    "--processes",
    type=click.IntRange(1, 256),
    metavar="N",
    default=1,
    help="Number of processes that send.",
    group=_RUN,
)
@option("--keep-going", is_flag=True, help="Go on where the relay refuses everyone.", group=_RUN)
@option("--strict", is_flag=True, help="Send nothing if any row has a problem or a remark.", group=_RUN)
@option("--yes", is_flag=True, help="Do not ask before sending.", group=_RUN)
@env_file_option
@option("--dry-run", is_flag=True, help="Compose every message, send none.", group=REHEARSAL)
@option(
    "--only-to", metavar="ADDRESS", help="The first row's message (or --limit N) to ADDRESS instead.", group=REHEARSAL
)
@option("--row", type=click.IntRange(min=1), metavar="N", help="That row's message, for --only-to.", group=REHEARSAL)
@option("--sandbox", is_flag=True, help="To a relay inside the command: nothing leaves this machine.", group=REHEARSAL)
@option("--maildir", type=_PATH, metavar="DIR", help="Where the sandbox keeps what it gets.", group=REHEARSAL)
@option(
    "--show", type=click.IntRange(min=1), metavar="N", help="Print N of the messages the sandbox got.", group=REHEARSAL
)
@option("--open", "opens", is_flag=True, help="Show what the sandbox gets in the browser.", group=REHEARSAL)
@option("--quiet", is_flag=True, help="Print warnings and errors; the summary unless all were accepted.", group=OUTPUT)
@option("--log-file", type=_PATH, metavar="FILE", help="Append every line for people, with the time.", group=OUTPUT)
@option("--summary", "file", type=_PATH, metavar="FILE", help="Write the summary as one JSON object.", group=OUTPUT)
@json_option
@verbose_option
def command(quiet: bool, log_file: Path | None, file: Path | None, **options: Any) -> ExitCode:
    """Mail everyone in a CSV; run it again to resume.

    Everything is checked before the first message leaves. Each recipient's
    outcome is in the ledger, NAME.ledger beside the campaign or a database,
    whatever happens.
    """
    console.configure_info(quiet=quiet, log_file=log_file)
    if file is None:
        return _choose_run(RunSummary(), **options)
    with write_summary(file) as summary:
        summary.exit_code = code = _choose_run(summary, **options)
    return code


def _choose_run(
    summary: RunSummary,
    *,
    campaign: Path | None,
    ledger: Path | Database | None,
    dry_run: bool,
    only_to: str | None,
    row: int | None,
    sandbox: bool,
    maildir: Path | None,
    show: int | None,
    opens: bool,
    yes: bool,
    **options: Any,
) -> ExitCode:
    """Make the configuration, and do what the options ask for."""
    if not sandbox and (maildir or show or opens):
        raise CommandError("--maildir, --show and --open are about the sandbox", "add --sandbox")
    if sandbox and ledger:
        raise CommandError("--sandbox uses a ledger of its own", "leave out --ledger, or --sandbox")
    if row and not only_to:
        raise CommandError("--row needs --only-to", "add --only-to me@example.org")
    given = {name: options.pop(field) for field, name in _OPTIONS.items() if field in options}
    config = load_campaign(campaign, given) if campaign else build_config({}, given)
    if sandbox:  # its limits are no other campaign's, it asks no DNS, and its refusals are about nobody
        config = replace(
            config,
            ledger=config.sandbox_ledger,
            shared_rates=False,
            provider_rates={},
            provider=None,
            suppress_rejected=False,
            warmup=None,
        )
    else:
        location = name_ledger_campaign(ledger, config.name) if ledger else config.ledger_location
        config = replace(config, ledger=location)
        config = config if dry_run else resolve_cli_provider(config)
    summary.campaign, summary.ledger = config.name, str(config.ledger_location)
    reference = name_ledger(config.ledger_location, campaign, sandbox=sandbox)
    run = RunOptions(config=config, reference=reference, confirmed=yes or sandbox, summary=summary, **options)
    if dry_run:
        return asyncio.run(_check_only(run))
    if only_to is not None:
        return asyncio.run(_send_to_one(run, only_to, row, sandbox=sandbox))
    if sandbox:
        return run_on_fast_loop(_rehearse(run, maildir, show, opens=opens))
    return run_on_fast_loop(_run(run, make_cli_relays(config)))


# One run, from the ledger to the summary.


async def _run(options: RunOptions, relays: list[RelayConfig]) -> ExitCode:
    """Check everything, ask, send; return what the campaign's state means.

    Raises:
        CommandError, SMTPError: the run could not begin, or could not go on; what was recorded stays recorded.
    """
    from asyncsmtp.bulk.campaign import Campaign  # late, here and below: `bulk --help` needs none of it

    ledger: Ledger | None = None
    try:
        async with Campaign.from_config(options.config).open(relay=relays, add=options.add) as campaign:
            if options.add is not None and not campaign.has_begun:
                advice = "begin it without --add, then add the others"
                raise CommandError("--add is for a campaign that was begun", advice)
            ledger = campaign.ledger
            await _begin(options, campaign)
            return await _send(options, campaign)
    finally:
        if ledger is not None:  # closed: its last attempt to write them is over
            _print_unsettled(ledger)


async def _begin(options: RunOptions, campaign: OpenCampaign) -> None:
    """Have the recipients in the ledger, after a person has agreed to what would be sent."""
    from asyncsmtp.cli.commands.check import print_findings, print_report
    from asyncsmtp.cli.output.run_stats import notify_if_slow

    suppressed, ready, first = 0, 0, ""
    if changes := campaign.ledger.recovery.changes:
        console.print_info(f"{changes}, and nothing was sent yet: the recipients are loaded again")
    if campaign.has_begun:  # before anything is loaded, which is one transaction
        suppressed = await campaign.suppress()
        if ready := await campaign.count_ready(wait=options.wait):
            first = await campaign.find_first_address()

    async def decide(checked: CheckResult) -> None:
        slow.close()
        print_findings(checked.findings, write=console.print_info)
        print_report(checked, strict=options.strict)
        if campaign.has_begun:
            await _print_state(options, campaign, suppressed)
        report = checked.report
        fewer = options.add is not None or bool(report.duplicates and report.copies)
        number, to = ready + report.recipients + report.copies, first or str(report.first and report.first.mailbox)
        await _confirm(options, campaign, number, to, fewer=fewer)
        slow.enter_context(notify_if_slow(f"loading {console.pluralize(report.rows, 'row')} into the ledger"))

    if campaign.has_rows_to_load:
        with ExitStack() as slow:
            slow.enter_context(notify_if_slow(f"reading {options.add or options.config.recipients}"))
            checked = await campaign.load_checked(decide)
        if options.add is not None:
            console.print_info(f"  {console.pluralize(checked.report.rows, 'row')} added from {checked.file}")
        _print_suppressed(await campaign.suppress())
        return
    await _print_state(options, campaign, suppressed)
    if ready and first:
        await _confirm(options, campaign, ready, first, fewer=options.add is not None)


def _print_suppressed(number: int) -> None:
    if number:
        console.print_info(f"  {console.pluralize(number, 'row')} on a suppression list, not mailed")


async def _print_state(options: RunOptions, campaign: OpenCampaign, suppressed: int) -> None:
    """Print what is known of a campaign that goes on, and how many of its rows have just been suppressed."""
    from asyncsmtp.cli.output.run_stats import format_counts

    _print_suppressed(suppressed)
    ledger = campaign.ledger
    console.print_info(f"{options.config.name}: resuming: {format_counts(await ledger.counts())}")
    if number := ledger.recovery.found:
        console.print_info(f"  {console.pluralize(number, 'row')} under way when the last run ended: in doubt")
    if number := ledger.recovery.resent:
        console.print_info(f"  {console.pluralize(number, 'row')} in doubt to be sent once more (in_doubt = resend)")


async def _confirm(
    options: RunOptions, campaign: OpenCampaign, recipients: int, first: str, *, fewer: bool = False
) -> None:
    """Ask once before anything leaves.

    Args:
        fewer: not all of them may get something: who is added may be in the ledger already, and those in Cc and Bcc of
            a duplicate get nothing.
    """
    from asyncsmtp.cli.output.provider_advice import describe_quota

    number = recipients if options.limit is None else min(options.limit, recipients)
    if (quota := describe_quota(options.config.provider, options.config.rate, number)) is not None:
        console.print_info(f"  {quota}")
    most = "up to " if fewer else ""
    through = " and ".join(str(each.relay) for each in campaign.relays)
    messages = f"{most}{console.pluralize(number, 'message')}"
    what = f"{messages} from {options.config.from_} through {through}, the first to {first}"
    if not options.confirmed:
        await console.confirm(f"Send {what}?", f"this would send {what}")


async def _send(options: RunOptions, campaign: OpenCampaign) -> ExitCode:
    """Send what is left, if anything is; whatever happens, the summary is printed."""
    from asyncsmtp.bulk.ledger.interfaces import RowState
    from asyncsmtp.cli.output.provider_advice import explain_reply
    from asyncsmtp.cli.output.run_stats import RunReporter, RunStats, exit_code_for, halted_command
    from asyncsmtp.errors import CampaignHalted

    left = await campaign.count_ready(wait=options.wait)
    stats = RunStats(left if options.limit is None else min(options.limit, left))
    reporter = RunReporter(stats, options.reference, as_json=options.as_json)
    signalled: ExitCode | None = None
    resumes_at: datetime | None = None
    try:
        if left:
            signalled, resumes_at = await _send_rows(options, campaign, stats, reporter)
        else:
            await campaign.post_outcomes(warn=console.print_warning)
        counts = await campaign.ledger.counts()
        if signalled is not None and counts[RowState.PENDING]:
            return signalled
        code = exit_code_for(counts, relay_failed=bool(campaign.failed_relays))
        return ExitCode.LEDGER if reporter.failed else code
    except CampaignHalted as error:
        if not await campaign.ledger.halted_rows():
            raise
        known = explain_reply(error.reply, error.host, _get_provider(options.config))
        advice = str(known or "ask the relay's operator what is wrong with the sender")
        advice = f"{advice}; then, before the same command: {halted_command(options.reference)}"
        raise CommandError(str(error), advice, ExitCode.UNREACHABLE) from error
    finally:
        await _print_summary(options, campaign, stats, resumes_at)


def _get_provider(config: CampaignConfig) -> str | None:
    """Return the provider that was named, if all refusals come from it: there is one relay."""
    return None if config.relays else config.provider


async def _send_rows(
    options: RunOptions, campaign: OpenCampaign, stats: RunStats, reporter: RunReporter
) -> tuple[ExitCode | None, datetime | None]:
    """Run; return the exit code of the signal that ended it, and when it would have gone on."""
    from asyncsmtp.cli.controls import Keyboard, handle_signals, read_keys
    from asyncsmtp.cli.output.run_stats import show_progress

    trace = console.TranscriptPrinter(console.print_info) if options.verbose else None
    async with campaign.start(
        limit=options.limit,
        wait=options.wait,
        keep_going=options.keep_going,
        processes=options.processes,
        watch=reporter.watch,
        trace=trace,
        warn=console.print_warning,
    ) as run:
        stats.run, stats.limiters = run, campaign.limiters
        loop = asyncio.get_running_loop()

        def drain() -> None:
            run.stop()
            loop.call_later(DRAIN_TIMEOUT, run.abort)
            loop.call_later(SETTLE_TIME, lambda: console.print_info(f"  {_describe_progress(run)}"))

        def interrupt() -> None:
            options.interrupted.set()
            drain()

        with (
            handle_signals(interrupt, run.abort) as interruption,
            read_keys(Keyboard(run, stats, drain)),
            console.stamp_lines(),
        ):
            async with show_progress(stats):
                await run.run()
    return interruption.exit, run.resumes_at


def _describe_progress(run: Run) -> str:
    """Return what goes on after a stop, once the rows that have not begun are given back."""
    number = console.pluralize(run.in_progress, "message")
    return f"{number} in progress, for up to {DRAIN_TIMEOUT:g} s; the rows that have not begun stay pending"


async def _print_summary(
    options: RunOptions, campaign: OpenCampaign, stats: RunStats, resumes_at: datetime | None
) -> None:
    """Print the summary, and take its figures down for --summary; with --quiet only if not everybody was accepted."""
    from asyncsmtp.cli.output.run_stats import (
        color_outcomes,
        draw_bar,
        exit_code_for,
        format_counts,
        next_steps,
        relay_lines,
        summary_lines,
        warmup_lines,
    )

    ledger, failed = campaign.ledger, campaign.failed_relays
    counts, by_relay = await ledger.counts(), await ledger.counts_by_relay()
    due, halted = resumes_at or await ledger.next_due(), len(await ledger.halted_rows())
    warmup = await _read_warmup(options.config, campaign)
    options.summary.record(counts, by_relay, failed, stats, due, halted, warmup)
    is_wrong = exit_code_for(counts, relay_failed=bool(failed)) is not ExitCode.ACCEPTED
    first, *lines = summary_lines(options.config.name, stats, _get_provider(options.config))
    console.print_styled(color_outcomes(first), always=is_wrong)
    for line in lines:
        console.print_info(line, always=is_wrong)
    console.print_styled(color_outcomes(f"  in all {format_counts(counts)}"), always=is_wrong)
    if console.has_colors():
        console.print_styled(draw_bar(counts, console.count_columns()), always=is_wrong)
    lines = [*relay_lines(by_relay, failed)] if len(campaign.relays) > 1 else []
    for line in (*lines, *warmup_lines(warmup)):
        console.print_info(f"  {line}", always=is_wrong)
    again = typed().repeat()
    steps = [*next_steps(counts, options.reference, again, due, may_wait=not options.wait, halted=halted)]
    if stats.done:
        steps.append(f"a report with charts, for a browser: asyncsmtp report {options.reference}")
    console.print_steps(steps, always=is_wrong)


async def _read_warmup(config: CampaignConfig, campaign: OpenCampaign) -> list[WarmupDay]:
    """Return how far the warm-up of each relay is; nothing where the file cannot be read."""
    if config.warmup is None:
        return []
    from asyncsmtp.bulk.rate_limit.shared_store import read_warmup_days

    relays = [each.relay for each in campaign.relays if not isinstance(each.relay, str)]
    with suppress(LedgerError, ConfigError):  # the run has reported it
        return await asyncio.to_thread(read_warmup_days, config.shared_rates, relays, config.warmup.make_warmup())
    return []


def _print_unsettled(ledger: Ledger) -> None:
    """Print what a broken ledger could not take, so that it is not lost with this process."""
    from asyncsmtp.bulk.ledger.interfaces import find_file_row

    if ledger.unsettled:
        console.print_warning("these outcomes are known, but the ledger could not take them:")
    for settlement in ledger.unsettled:
        row = find_file_row(settlement.row)
        console.print_warning(f"  row {row}: {settlement.state} {settlement.code or ''} {settlement.reply}")


# Rehearsals: composing it all without sending, or sending it to a relay inside the command.


async def _check_only(options: RunOptions) -> ExitCode:
    """Read every row and compose every message; nothing is opened but files, and no ledger is made."""
    from asyncsmtp.bulk.campaign import Campaign
    from asyncsmtp.bulk.open_campaign import check_rows
    from asyncsmtp.bulk.setup.source_files import refuse_merge_tags
    from asyncsmtp.cli.commands.check import exit_code_of_report, print_findings, print_report
    from asyncsmtp.cli.output.run_stats import notify_if_slow

    with notify_if_slow(f"reading {options.add or options.config.recipients}"):
        prepared = await Campaign.from_config(options.config).prepare(options.add)
        result = await check_rows(prepared, every=True, suppression=options.config.suppression)
    print_findings(result.findings)
    print_report(result, strict=options.strict, write=console.print_result)
    refuse_merge_tags(result.findings)
    console.print_info("nothing was sent (--dry-run)")
    if options.add is None:  # a rehearsal has no ledger of the campaign, and asks nobody
        console.print_steps([typed().repeat("--sandbox", without=("--dry-run", "--ledger"))])
    else:
        console.print_steps([typed().repeat(without=("--dry-run",))])
    return exit_code_of_report(result.report)


async def _rehearse(options: RunOptions, maildir: Path | None, number: int | None, *, opens: bool) -> ExitCode:
    """Send to the sandbox, with a ledger of the rehearsal's own.

    One that was complete begins afresh, unless rows are added to it; so does one whose files changed. One that was
    interrupted goes on.

    Args:
        maildir: where the mails are kept; None is beside the campaign, and emptied when it begins afresh.
        number: of the mails that came last, so many are printed.
        opens: the mails are shown in the browser while they arrive, and after that until Ctrl-C.
    """
    from asyncsmtp.bulk.campaign import Campaign
    from asyncsmtp.cli.commands.check import check_input
    from asyncsmtp.cli.commands.sandbox import print_mails, remove_rehearsal, run_sandbox, show_mailbox
    from asyncsmtp.errors import LedgerMismatch

    config = options.config
    ledger = config.ledger_location
    assert isinstance(ledger, Path)
    place = maildir or config.folder / f"{config.name}.sandbox.maildir"
    counts = await Campaign.from_config(config).counts()
    is_complete = sum(counts.values()) and not (counts["pending"] or counts["sending"] or counts["deferred"])
    if is_complete and options.add is None:
        await check_input(config, strict=options.strict)  # until then the last rehearsal stays
        remove_rehearsal(ledger, None if maildir else place)
    async with AsyncExitStack() as stack:
        if opens:
            await stack.enter_async_context(show_mailbox(place, config.name, opens=True))
        relay = await stack.enter_async_context(run_sandbox(place))
        relays = [RelayConfig(relay=relay, sessions=config.sessions, max_per_connection=config.max_per_connection)]
        try:
            ended = await _run(options, relays)
        except LedgerMismatch:
            await check_input(config, strict=options.strict)
            console.print_info("the campaign changed since the last rehearsal: this one begins afresh")
            remove_rehearsal(ledger, None if maildir else place)
            ended = await _run(options, relays)
        console.print_info(f"  the mails are in {place}; nothing left this machine")
        if ended is ExitCode.ACCEPTED and not all(map(_is_local, config.relay_configs)):
            console.print_info("  to send them, give the same command without --sandbox")
        if number is not None and ended is not ExitCode.INTERRUPTED:
            # stdout is a program's with --json
            print_mails(place, number, console.print_info if options.as_json else console.print_result)
        if opens and not options.interrupted.is_set():
            from asyncsmtp.cli.controls import handle_signals

            with handle_signals(options.interrupted.set, options.interrupted.set, "ending"):
                console.print_info("  they are shown in the browser until Ctrl-C")
                await options.interrupted.wait()
    return ended


def _is_local(relay: RelayConfig) -> bool:
    """Return whether a relay is on this machine, as that of the sample."""
    return re.match(r"\w+://(?:[^@/]*@)?(?:localhost|127\.|\[::1\])", str(relay.relay)) is not None


# --only-to: what some rows would get, sent to one address instead; no ledger is opened.


async def _send_to_one(options: RunOptions, address: str, row: int | None, *, sandbox: bool) -> ExitCode:
    """Send the first row's message, or those of the first `limit` rows, or of `row`, to `address`."""
    from asyncsmtp.bulk.campaign import Campaign
    from asyncsmtp.cli.commands.sandbox import run_sandbox
    from asyncsmtp.cli.output.formats import DeliveryPrinter, list_copies
    from asyncsmtp.client.session.session import Session

    to = parse_mailbox("--only-to", address)
    where = run_sandbox(None) if sandbox else nullcontext(make_cli_relays(options.config)[0].relay)
    prepared = await Campaign.from_config(options.config).prepare()
    number = options.limit or 1
    printer = DeliveryPrinter(as_json=options.as_json)
    trace = console.TranscriptPrinter(console.print_info) if options.verbose else None
    async with where as relay:
        if number > 1 and not options.confirmed:
            question = f"Send {number:,} messages to {to} through {relay}?"
            await console.confirm(question, f"this would send {number:,} messages to {to}")
        async with Session(relay, trace=trace) as session, aclosing(_choose_rows(prepared, number, row)) as rows:
            async for recipient in rows:
                message = prepared.compose_preview(recipient, to)
                printer.add(await session.send(message), f"row {recipient.row} ({recipient.mailbox}), to ")
                if left_out := list_copies(recipient):
                    console.print_info(f"  not sent with --only-to: {left_out}")
    return printer.exit


async def _choose_rows(prepared: PreparedCampaign, number: int, wanted: int | None) -> AsyncGenerator[Recipient]:
    from asyncsmtp.bulk.recipients.recipient import Recipient

    async with aclosing(prepared.file.batches()) as batches:
        async for batch in batches:
            for row in batch:
                if wanted is not None and row.row != wanted:
                    continue
                if wanted is not None and not isinstance(row, Recipient):
                    raise CommandError(f"{prepared.file.name}, {row}", "correct the row, or choose another")
                if isinstance(row, Recipient):
                    yield row
                    number -= 1
                    if not number or wanted is not None:
                        return
    if wanted is not None:
        raise CommandError(f"{prepared.file.name} has no row {wanted}", "choose one that is there")
