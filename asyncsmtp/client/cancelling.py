"""Whom a CancelledError is meant for."""

from __future__ import annotations

import asyncio

__all__ = ["being_cancelled"]


def being_cancelled() -> bool:
    """Whether somebody cancels the task we are in; else the error is about something that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
