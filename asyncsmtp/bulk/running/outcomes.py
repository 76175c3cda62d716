"""The outcomes of a run, one after the other, for a program that wants to do something about each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from asyncsmtp.bulk.ledger import Claim, Settlement
from asyncsmtp.bulk.running.campaign import Run

__all__ = ["outcomes"]

_Told = tuple[Claim, Settlement]


async def outcomes(run: Run, *, ahead: int = 100) -> AsyncGenerator[_Told]:
    """Send, as `run.go()` does, and give each outcome as it is recorded in the ledger.

    A row that is deferred and tried again in the same run comes each time. Use it within `contextlib.aclosing`:

        async with aclosing(outcomes(run)) as told:
            async for claim, settlement in told: ...

    Leaving the loop early begins nothing new, waits for what is in flight, and has it recorded: what was not given is
    in the ledger. Cancelled, it breaks off what is in flight, as a cancelled `go` does.

    Args:
        ahead: outcomes that may wait to be taken; who is slower than the relay slows the run.
    Raises:
        What `go` raises, after the last outcome.
    """
    told: asyncio.Queue[_Told | None] = asyncio.Queue(ahead)

    async def hear(claim: Claim, settlement: Settlement) -> None:
        await told.put((claim, settlement))

    async def go() -> None:
        try:
            await run.go(hear)
        finally:
            await told.put(None)

    running = asyncio.create_task(go(), name="asyncsmtp: run")
    try:
        while (outcome := await told.get()) is not None:
            yield outcome
    except asyncio.CancelledError:
        running.cancel()
        await _ended(running, told)
        raise
    except GeneratorExit:
        run.stop()
        await _ended(running, told)
        running.result()
        raise
    await running


async def _ended(running: asyncio.Task[None], told: asyncio.Queue[_Told | None]) -> None:
    """Wait until the run has ended, hearing what nobody wants any more; cancelled meanwhile, break it off."""
    deaf = asyncio.create_task(_discard(told), name="asyncsmtp: nobody hears")
    try:
        while not running.done():
            try:
                await asyncio.wait({running})
            except asyncio.CancelledError:
                running.cancel()
                await asyncio.wait({running})
                raise
    finally:
        deaf.cancel()


async def _discard(told: asyncio.Queue[_Told | None]) -> None:
    while True:
        await told.get()
