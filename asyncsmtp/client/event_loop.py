"""The event loop of a session or a pool: which one owns it, and how a cancellation waits for clean-up.

*One owner.* Streams, futures and locks belong to the event loop in which they were first used. From another loop the
standard library raises RuntimeError, or a call waits for ever; after a fork two processes may write to one connection.
So sessions and pools check their owner first, and raise an error that says what to do.

*Cancellation.* A task may be cancelled again while its `async with` blocks are left: `asyncio.timeout` inside another
one, a TaskGroup, a second Ctrl-C; a cancel scope of anyio cancels at every step of the loop until it is left. A
CancelledError of clean-up would replace what the block returns, a Delivery, or raises, a DeliveryInDoubt. So clean-up
is cut short by a cancellation, but does not raise it: the task is cancelled again one step of the loop later. A task
that ends in this step keeps its outcome; any other gets its CancelledError at its next `await`, so no request is lost
either. If whoever asked for it has taken it back meanwhile (`asyncio.timeout` does at its end), nothing more comes.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from typing import Self
from weakref import WeakKeyDictionary

from asyncsmtp.errors import LocalProtocolError

__all__ = [
    "DeferredCancellation",
    "LoopOwner",
    "count_cancellations",
    "defer_cancellation",
    "defer_during_error",
    "running_loop",
    "wait_for_tasks",
]


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop.

    Raises:
        LocalProtocolError: there is none, for instance under trio.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        why = "no event loop of asyncio is running: await this in a coroutine that asyncio.run runs"
        raise LocalProtocolError(why) from None


_forks = 0  # of this process since it was started: a pid would cost a system call for each message


def _count_fork() -> None:
    global _forks
    _forks += 1
    LoopOwner._binding = threading.Lock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):  # else there is no fork
    os.register_at_fork(after_in_child=_count_fork)


class LoopOwner:
    """The event loop, thread and process in which an object was first used: the only ones in which it may be used.

    Args:
        what: the object's name in messages.
    """

    __slots__ = ("_loop", "_process", "_thread", "_what")

    _binding = threading.Lock()

    def __init__(self, what: str) -> None:
        self._what = what
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = self._thread = 0

    def bind(self) -> asyncio.AbstractEventLoop:
        """Return the running event loop, the owner from now on.

        Raises:
            LocalProtocolError: the object has another owner, or no event loop is running.
        """
        if self._loop is None:
            running = running_loop()
            with self._binding:  # two threads may come first
                if self._loop is None:
                    self._process, self._thread, self._loop = _forks, threading.get_ident(), running
        return self.check()

    def check(self) -> asyncio.AbstractEventLoop:
        """Return the running event loop; raise as `bind` does. An object without an owner keeps none."""
        owner = self._loop
        if owner is not None and self._process != _forks:
            raise self._forked()
        running = running_loop()
        if owner is not None and owner is not running:
            raise self._foreign(owner)
        return running

    def check_thread(self) -> None:
        """Raise as `check` does, but not where no event loop is running: for methods that are not async."""
        if self._loop is None:
            return
        if self._process != _forks:
            raise self._forked()
        if self._loop.is_closed() or self._thread != threading.get_ident():
            raise self._foreign(self._loop)

    def _forked(self) -> LocalProtocolError:
        return LocalProtocolError(
            f"this {self._what} was used before the fork of this process, and belongs to the parent: "
            "create one in each process, or use it for the first time after the fork"
        )

    def _foreign(self, owner: asyncio.AbstractEventLoop) -> LocalProtocolError:
        if owner.is_closed():
            return LocalProtocolError(
                f"this {self._what} belongs to another event loop, which is closed: create one in each asyncio.run"
            )
        if self._thread != threading.get_ident():
            return LocalProtocolError(
                f"this {self._what} belongs to another event loop, in another thread: create one in each, "
                "or call it there with asyncio.run_coroutine_threadsafe"
            )
        return LocalProtocolError(f"this {self._what} belongs to another event loop: create one in each")


# --- cancellation ---

_undelivered: WeakKeyDictionary[asyncio.Task[object], int] = WeakKeyDictionary()  # -> requests that came before those


def count_cancellations() -> int:
    """Return how many cancellations of the current task were requested and raised, or turned into an outcome."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop is running: `LoopOwner` says so
        return 0
    return 0 if task is None else min(task.cancelling(), _undelivered.get(task, task.cancelling()))


def defer_cancellation(before: int | None, error: BaseException | None) -> bool:
    """Cancel the current task again in the next step of the loop, if that was requested since `count_cancellations`.

    Args:
        before: what that returned; None: before the last request.
        error: the CancelledError that is not raised now; by its message a cancel scope of anyio knows its own.
    Returns:
        whether it was requested.
    """
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    if task is None:
        return False
    if before is None:
        before = min(count_cancellations(), task.cancelling() - 1)
    if task.cancelling() <= before:
        return False
    _undelivered[task] = before
    message = error.args[0] if isinstance(error, asyncio.CancelledError) and error.args else None
    asyncio.get_running_loop().call_soon(_deliver, task, before, message)
    return True


def _deliver(task: asyncio.Task[object], before: int, message: object) -> None:
    _undelivered.pop(task, None)
    if not task.done() and task.cancelling() > before:  # else whoever asked for it has taken it back
        task.uncancel()  # it is the same request
        task.cancel(message)


class DeferredCancellation:
    """A context for clean-up: a cancellation ends the block, and is raised at the first `await` after it.

    with DeferredCancellation():
        await connection.aclose()

    An exception of the block that is no CancelledError is raised, and the cancellation follows it in the same way.
    """

    __slots__ = ("_before",)

    def __enter__(self) -> Self:
        self._before = count_cancellations()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        return defer_cancellation(self._before, error) and isinstance(error, asyncio.CancelledError)


def defer_during_error() -> AbstractContextManager[object]:
    """Return a DeferredCancellation where an exception is being handled: in `finally`, `except` or an `__aexit__`."""
    return nullcontext() if sys.exc_info()[1] is None else DeferredCancellation()


async def wait_for_tasks(tasks: Collection[asyncio.Task[object]], cut_short: Callable[[], object]) -> None:
    """Wait until all tasks have ended, whatever comes of them, so that none outlives its owner.

    Args:
        cut_short: is called when this is cancelled, each time; CancelledError is raised when the tasks have ended.
    """
    cancelled: asyncio.CancelledError | None = None
    while waiting := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(waiting)
        except asyncio.CancelledError as error:
            cancelled = error
            cut_short()
    if cancelled is not None:
        raise cancelled
