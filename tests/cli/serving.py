"""A scripted relay beside a command that runs here: it has a thread and a loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from asyncsmtp.testing import ScriptedRelay


@contextmanager
def serving(relay: ScriptedRelay) -> Iterator[ScriptedRelay]:
    """Run the relay until the block ends; read what it got after the command has returned."""
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with relay:
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield relay
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
