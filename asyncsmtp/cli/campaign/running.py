"""One run of a campaign, from the ledger to the summary."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing, nullcontext
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from asyncsmtp.cli.campaign.plan import Plan
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.asking import ask
from asyncsmtp.cli.output.exits import Exit
from asyncsmtp.cli.output.failures import Failed
from asyncsmtp.cli.output.progress import patience, shown

if TYPE_CHECKING:
    from asyncsmtp.bulk.ledger import Claim, Ledger, Settlement
    from asyncsmtp.cli.campaign.assembly import Assembled
    from asyncsmtp.cli.campaign.shares import RelayShare
    from asyncsmtp.cli.output.meter import Meter
    from asyncsmtp.cli.output.reporter import Reporter
    from asyncsmtp.client.config.relay import Relay

    Relays = Sequence[tuple[Relay, RelayShare]]

__all__ = ["run"]

logging.getLogger("asyncsmtp.campaign").addHandler(logging.NullHandler())  # we show these ourselves

GRACE = 60.0  # seconds for what is under way after the first Ctrl-C


async def run(plan: Plan, relays: Relays) -> Exit:
    """Check everything, ask, send; return what the campaign's state means.

    Raises:
        Failed, SMTPError: the run could not begin, or could not go on; what was recorded stays recorded.
    """
    from asyncsmtp.bulk.ledger import InDoubt
    from asyncsmtp.cli.campaign.assembly import assemble
    from asyncsmtp.cli.campaign.ledgers import opened

    assembled = await assemble(plan.settings)
    async with await opened(
        plan.ledger,
        name=plan.settings.name,
        from_domain=assembled.composer.author.domain,
        fingerprint=await assembled.fingerprint(),
        in_doubt=InDoubt(plan.settings.in_doubt),
        suppressions=plan.settings.suppressions,
    ) as ledger:
        await _begin(plan, assembled, ledger, relays)
        try:
            return await _send(plan, assembled, ledger, relays)
        finally:
            _tell_unsettled(ledger)


async def _begin(plan: Plan, assembled: Assembled, ledger: Ledger, relays: Relays) -> None:
    """Have the recipients in the ledger, and somebody's word for it."""
    from asyncsmtp.cli.campaign.adding import with_recipients

    if plan.add is not None:
        if not ledger.loaded:
            raise Failed("--add is for a campaign that was begun", "begin it without --add, then add the others")
        await _add(plan, await with_recipients(plan.add, assembled, plan.settings), ledger, relays)
    elif ledger.loaded:
        await _go_on(plan, ledger, relays)
    else:
        await _load(plan, assembled, ledger, relays)


async def _load(plan: Plan, assembled: Assembled, ledger: Ledger, relays: Relays) -> None:
    from asyncsmtp.cli.campaign.preflighting import told

    report = await told(assembled, every=False, strict=plan.strict)
    await _confirm(plan, report.recipients, str(report.first and report.first.mailbox), relays)
    with patience(f"taking {console.many(report.rows, 'row')} into the ledger"):
        await ledger.load(assembled.file.batches())
    await _suppress(ledger)


async def _go_on(plan: Plan, ledger: Ledger, relays: Relays) -> None:
    await _suppress(ledger)
    await _tell_of(plan, ledger)
    if (ready := await _ready(plan, ledger)) and (first := await _first(ledger)):
        await _confirm(plan, ready, first, relays)


async def _add(plan: Plan, more: Assembled, ledger: Ledger, relays: Relays) -> None:
    """Take in another file, once it was checked and somebody's word was given for what is in it and what is left."""
    from asyncsmtp.cli.campaign.preflighting import told

    report = await told(more, every=False, strict=plan.strict)
    await _suppress(ledger)
    await _tell_of(plan, ledger)
    ready = await _ready(plan, ledger)
    first = await _first(ledger) if ready else ""
    await _confirm(plan, ready + report.recipients, first or str(report.first and report.first.mailbox), relays)
    with patience(f"taking {console.many(report.rows, 'row')} into the ledger"):
        await ledger.add(more.file.batches())
    console.say(f"  {console.many(report.rows, 'row')} added from {more.file.name}")
    await _suppress(ledger)


async def _tell_of(plan: Plan, ledger: Ledger) -> None:
    """What is known of a campaign that goes on."""
    from asyncsmtp.cli.output.summary import counted

    console.say(f"{plan.settings.name}: going on with {counted(await ledger.counts())}")
    if ledger.recovery.found:
        console.say(f"  {console.many(ledger.recovery.found, 'row')} under way when the last run ended: in doubt")
    if ledger.recovery.resent:
        console.say(
            f"  {console.many(ledger.recovery.resent, 'row')} in doubt to be sent once more (in_doubt = resend)"
        )


async def _first(ledger: Ledger) -> str:
    """The address of the first row that is left; "" where none is."""
    from asyncsmtp.bulk.states import State

    async with aclosing(ledger.entries((State.PENDING, State.DEFERRED))) as left:
        async for entry in left:
            return entry.address
    return ""


async def _suppress(ledger: Ledger) -> None:
    if number := await ledger.suppress():
        console.say(f"  {console.many(number, 'row')} on a suppression list: nothing for them")


async def _ready(plan: Plan, ledger: Ledger) -> int:
    """How many rows this run has to do with: those whose time is yet to come, if it waits for them."""
    from asyncsmtp.bulk.states import State

    if not plan.wait:
        return await ledger.ready()
    counts = await ledger.counts()
    return counts[State.PENDING] + counts[State.DEFERRED]


async def _confirm(plan: Plan, recipients: int, first: str, relays: Relays) -> None:
    """Ask once before anything leaves."""
    number = recipients if plan.limit is None else min(plan.limit, recipients)
    most = "" if plan.add is None else "up to "  # who is added may be in the ledger already
    through = " and ".join(str(relay) for relay, _ in relays)
    what = f"{most}{console.many(number, 'message')} from {plan.settings.from_} through {through}, the first to {first}"
    if not plan.confirmed:
        await ask(f"Send {what}?", f"this would send {what}")


async def _send(plan: Plan, assembled: Assembled, ledger: Ledger, relays: Relays) -> Exit:
    """Send what is left, if anything is; whatever happens, the summary is printed."""
    from asyncsmtp.bulk.states import State
    from asyncsmtp.cli.output.meter import Meter
    from asyncsmtp.cli.output.reporter import Reporter
    from asyncsmtp.cli.output.summary import exit_of

    left, ended = await _ready(plan, ledger), _Ended()
    meter = Meter(left if plan.limit is None else min(plan.limit, left))
    reporter = Reporter(meter, as_json=plan.as_json)
    try:
        ended = await _go(plan, assembled, ledger, relays, meter, reporter) if left else ended
        counts = await ledger.counts()
        if ended.by_signal is not None and counts[State.PENDING]:
            return ended.by_signal
        return Exit.LEDGER if reporter.failed else exit_of(counts, held_up=ended.comes_at is not None or not left)
    finally:
        await _summarize(plan, ledger, meter, ended.comes_at)


class _Ended(NamedTuple):
    """How a run ended: the exit code of the signal that did, and when it would have gone on."""

    by_signal: Exit | None = None
    comes_at: datetime | None = None


async def _go(
    plan: Plan, assembled: Assembled, ledger: Ledger, relays: Relays, meter: Meter, reporter: Reporter
) -> _Ended:
    """The run itself."""
    from asyncsmtp.bulk.running.runner import Run
    from asyncsmtp.cli.campaign.hooks import told_to
    from asyncsmtp.cli.campaign.keyboard import Keyboard, played
    from asyncsmtp.cli.campaign.shares import opened
    from asyncsmtp.cli.campaign.sharing import Sharing
    from asyncsmtp.cli.campaign.signals import interruptible
    from asyncsmtp.cli.output.transcript import Transcript

    trace = Transcript(console.say) if plan.verbose else None
    sharing = Sharing(plan.settings.shared if not plan.rehearses else False)
    async with (
        told_to(plan.settings.webhook) as tell,
        nullcontext() if plan.rehearses else plan.settings.providers() as providers,
        opened(relays, trace, sharing) as pool,
        sharing.of([relay for relay, _ in relays], plan.settings.rates) as shared,
    ):

        def watch(claim: Claim, settlement: Settlement) -> None:
            reporter.watch(claim, settlement)
            if tell is not None:
                tell.watch(claim, settlement)

        job = Run(
            assembled.composer,
            ledger,
            pool,
            concurrency=plan.settings.concurrency,
            limit=plan.limit,
            watch=watch,
            retry=plan.settings.retry(),
            wait=plan.wait,
            rate_policy=plan.settings.pace(meter.total, providers),
            schedule=plan.settings.schedule(),
            shared=shared,
        )

        def drain() -> None:
            job.stop()
            asyncio.get_running_loop().call_later(GRACE, job.abort)

        with interruptible(drain, job.abort) as interruption, played(Keyboard(job, meter, drain)):
            async with shown(meter):
                await job.run()
    return _Ended(interruption.exit, job.resumes_at)


async def _summarize(plan: Plan, ledger: Ledger, meter: Meter, comes_at: datetime | None) -> None:
    from asyncsmtp.cli.output.summary import counted, next_steps, run_lines

    counts = await ledger.counts()
    for line in run_lines(plan.settings.name, meter):
        console.say(line)
    console.say(f"  {counted(counts)}")
    for step in next_steps(counts, plan.reference, comes_at or await ledger.next_due()):
        console.say(f"  next: {step}")


def _tell_unsettled(ledger: Ledger) -> None:
    """A broken ledger: what it could not take is told, so that it is not lost with this process."""
    if ledger.unsettled:
        console.say("these outcomes are known, but the ledger could not take them:")
    for settlement in ledger.unsettled:
        console.say(f"  row {settlement.row}: {settlement.state} {settlement.code or ''} {settlement.reply}")
