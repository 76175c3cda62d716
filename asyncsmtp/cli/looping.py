"""The event loop that carries a campaign: uvloop's where it is installed, asyncio's own otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

__all__ = ["run"]

T = TypeVar("T")


def run(main: Coroutine[object, object, T]) -> T:
    """As `asyncio.run`, on the faster loop of the two. It is for what sends much: to load uvloop takes a while."""
    try:
        import uvloop
    except ImportError:  # no extra, or no such thing on this system
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
