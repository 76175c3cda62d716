"""A process with a ledger, to be killed: `python -m tests.bulk.ledger.sqlite.ledger_victim HOW PATH ROWS`.

It prints what was acknowledged, one line each, as soon as it was.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from asyncsmtp.bulk.ledger.interfaces import Claim
from asyncsmtp.bulk.ledger.sqlite.store import SqliteLedger
from asyncsmtp.errors import LedgerBusy, LedgerError
from tests.bulk.ledger.ledgers import accepted, readers

SENDERS = 20


def say(*words: object) -> None:
    os.write(1, f"{' '.join(map(str, words))}\n".encode())


async def send_all(ledger: SqliteLedger) -> None:
    """Mark and settle every row, as many senders do."""
    claims = iter(await ledger.claim(1_000_000))

    async def sender() -> None:
        last: Claim | None = None
        for claim in claims:
            await ledger.mark(claim)
            if last is not None:
                say("settled", last.recipient.row)  # settled before this mark, which is durable
            say("marked", claim.recipient.row)
            ledger.settle(accepted(claim))
            last = claim

    async with asyncio.TaskGroup() as senders:
        for _ in range(SENDERS):
            senders.create_task(sender())
    await ledger.flush()


async def run(path: Path, rows: int) -> None:
    """Load a ledger, and send all its rows."""
    async with await SqliteLedger.open(path, name="news", from_domain="example.org") as ledger:
        if not ledger.loaded:
            await ledger.load(readers(rows))
        say("loaded")
        try:
            await send_all(ledger)
        except* LedgerError as errors:
            say("failed", errors.exceptions[0])
            say("unsettled", *(settlement.row for settlement in ledger.unsettled))
    say("closed", *(settlement.row for settlement in ledger.unsettled))


async def starve(path: Path, rows: int) -> None:
    """Fill the disk while rows are in flight, until the ledger fails; then settle the last replies."""
    async with await SqliteLedger.open(path, name="news", from_domain="example.org") as ledger:
        await ledger.load(readers(rows))
        claims = await ledger.claim(rows)
        flying, late, rest = claims[:40], claims[40:60], claims[60:]
        await asyncio.gather(*map(ledger.mark, flying + late))
        fill(path.with_name("rubbish"))
        for claim in flying:
            ledger.settle(accepted(claim))
        try:
            for claim in rest:
                await ledger.mark(claim)
                say("marked", claim.recipient.row)
                ledger.settle(accepted(claim))
        except LedgerError as error:
            say("failed", error)
        say("unsettled", *(settlement.row for settlement in ledger.unsettled))
        for claim in late:
            try:
                ledger.settle(accepted(claim))
            except LedgerError:
                say("refused", claim.recipient.row)
    say("closed", *(settlement.row for settlement in ledger.unsettled))


def fill(path: Path) -> None:
    """Fill the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for size in (65536, 4096, 512):
            try:
                while True:
                    os.write(descriptor, bytes(size))
            except OSError:
                continue
    finally:
        os.close(descriptor)


async def hold(path: Path, seconds: int) -> None:
    """Open the ledger and keep it open, or report that it is busy."""
    try:
        async with await SqliteLedger.open(path, name="news", from_domain="example.org"):
            say("mine")
            await asyncio.to_thread(sys.stdin.read)
    except LedgerBusy as error:
        say("busy", error)


if __name__ == "__main__":
    _, how, where, number = sys.argv
    asyncio.run({"run": run, "starve": starve, "hold": hold}[how](Path(where), int(number)))
