"""`bulk --only-to ADDRESS`: what some rows would get, sent to one address instead; no ledger hears of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

from asyncsmtp.cli.campaign.plan import Plan
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.asking import ask
from asyncsmtp.cli.output.exits import Exit
from asyncsmtp.cli.output.failures import Failed

if TYPE_CHECKING:
    from asyncsmtp.bulk.recipients.recipient import Recipient
    from asyncsmtp.cli.campaign.assembly import Assembled
    from asyncsmtp.client.config.relay import Relay

__all__ = ["send_to_one"]


async def send_to_one(plan: Plan, address: str, relay: Relay, row: int | None = None) -> Exit:
    """Send the first row's message, or those of the first `plan.limit` rows, or of `row`, to `address`."""
    from asyncsmtp.cli.campaign.assembly import assemble
    from asyncsmtp.cli.output.outcomes import Tally
    from asyncsmtp.cli.output.transcript import Transcript
    from asyncsmtp.client.session.session import Session
    from asyncsmtp.protocol.envelope import Mailbox

    to = Mailbox.parse(address)
    assembled = await assemble(plan.settings)
    number = plan.limit or 1
    if number > 1 and not plan.confirmed:
        await ask(f"Send {number:,} messages to {to} through {relay}?", f"this would send {number:,} messages to {to}")
    tally = Tally(as_json=plan.as_json)
    trace = Transcript(console.say) if plan.verbose else None
    async with Session(relay, trace=trace) as session, aclosing(_chosen(assembled, number, row)) as rows:
        async for recipient in rows:
            message = assembled.composer.compose(
                to,
                recipient.fields,
                message_id=f"{uuid4().hex}@{assembled.composer.author.domain}",
                date=datetime.now(UTC),
                row=recipient.row,
            )
            tally.add(await session.send(message), f"row {recipient.row} ({recipient.mailbox}), to ")
    return tally.exit


async def _chosen(assembled: Assembled, number: int, wanted: int | None) -> AsyncGenerator[Recipient]:
    from asyncsmtp.bulk.recipients.recipient import Recipient

    async with aclosing(assembled.file.batches()) as batches:
        async for batch in batches:
            for row in batch:
                if wanted is not None and row.row != wanted:
                    continue
                if wanted is not None and not isinstance(row, Recipient):
                    raise Failed(f"{assembled.file.name}, {row}", "correct the row, or choose another")
                if isinstance(row, Recipient):
                    yield row
                    number -= 1
                    if not number or wanted is not None:
                        return
    if wanted is not None:
        raise Failed(f"{assembled.file.name} has no row {wanted}", "choose one that is there")
