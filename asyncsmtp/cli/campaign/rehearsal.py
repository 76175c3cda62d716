"""Rehearsing a campaign: composing it all without sending, or sending it to a relay inside the command."""

from __future__ import annotations

from pathlib import Path

from asyncsmtp.cli.campaign.plan import Plan
from asyncsmtp.cli.campaign.running import run
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.exits import Exit
from asyncsmtp.cli.sandboxes import sandboxed, show

__all__ = ["dry", "rehearse"]


async def dry(plan: Plan) -> Exit:
    """Read every row and compose every message; nothing is opened but files, and no ledger is made.

    With a file to be added, of that file.
    """
    from asyncsmtp.cli.campaign.adding import with_recipients
    from asyncsmtp.cli.campaign.assembly import assemble
    from asyncsmtp.cli.campaign.preflighting import exit_of, told

    assembled = await assemble(plan.settings)
    if plan.add is not None:
        assembled = await with_recipients(plan.add, assembled, plan.settings)
    report = await told(assembled, every=True, strict=plan.strict, write=console.out)
    console.say("nothing was sent (--dry-run)")
    console.say(f"  next: asyncsmtp bulk {plan.reference} --sandbox" if plan.settings.source else "  next: --sandbox")
    return exit_of(report)


async def rehearse(plan: Plan, maildir: Path | None, number: int | None) -> Exit:
    """Send to the sandbox, with a ledger of the rehearsal's own.

    One that was complete begins afresh; so does one whose files changed. One that was interrupted goes on.

    Args:
        maildir: where the mails are kept; None is beside the campaign, and emptied when it begins afresh.
        number: of the mails that came last, so many are printed.
    """
    from asyncsmtp.errors import LedgerMismatch

    ledger = plan.settings.rehearsal
    place = maildir or plan.settings.folder / f"{plan.settings.name}.sandbox.maildir"
    if await _complete(ledger):
        _afresh(ledger, None if maildir else place)
    async with sandboxed(place) as relay:
        relays = [(relay, plan.own_share)]
        try:
            ended = await run(plan, relays)
        except LedgerMismatch:
            console.say("the campaign changed since the last rehearsal: this one begins afresh")
            _afresh(ledger, None if maildir else place)
            ended = await run(plan, relays)
    console.say(f"  the mails are in {place}; nothing left this machine")
    if number is not None and ended is not Exit.INTERRUPTED:
        show(place, number, console.say if plan.as_json else console.out)  # stdout is a program's then
    return ended


async def _complete(ledger: Path) -> bool:
    """Whether a rehearsal was there, and came to its end."""
    from asyncsmtp.bulk.sqlite.ledger import SqliteLedger
    from asyncsmtp.bulk.states import State
    from asyncsmtp.errors import LedgerEmpty

    try:
        async with await SqliteLedger.read(ledger) as reader:
            counts = await reader.counts()
    except LedgerEmpty:
        return False
    return not (counts[State.PENDING] or counts[State.SENDING] or counts[State.DEFERRED])


def _afresh(ledger: Path, maildir: Path | None) -> None:
    """Forget a rehearsal, under its ledger's lock: no other process may be in it."""
    from asyncsmtp.bulk.sqlite.lock import Lock

    lock = Lock.take(ledger.with_name(f"{ledger.name}.lock"))
    try:
        for ending in ("", "-wal", "-shm", ".ballast"):
            ledger.with_name(ledger.name + ending).unlink(missing_ok=True)
    finally:
        lock.release()
    for folder in ("new", "cur"):
        for path in (maildir / folder).glob("*") if maildir else ():
            path.unlink()
