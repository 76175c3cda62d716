"""Every test of the client runs on asyncio's own event loop and on uvloop, and must leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import pytest
import uvloop

from asyncsmtp.testing import ScriptedRelay
from tests.client.support import Trail


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def _sockets() -> set[str]:
    """The sockets with an address that this process holds, as the kernel names them; a loop has others of its own."""
    held = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink(f"/proc/self/fd/{number}")
            if name.startswith("socket:"):
                with socket.socket(fileno=os.dup(int(number))) as handle:
                    held |= {name} if _has_address(handle) else set()
        except OSError:
            continue
    return held


def _has_address(handle: socket.socket) -> bool:
    """Whether it has one, or whoever is at its other end; the two ends of a pair within this process have none."""
    return handle.family != socket.AF_UNIX or bool(handle.getsockname() or handle.getpeername())


@pytest.fixture
async def nothing_leaks() -> AsyncIterator[None]:
    """No task and no socket outlives the test that made it (RE-07)."""
    tasks, sockets = asyncio.all_tasks(), _sockets()
    yield
    for _ in range(200):  # closing a socket takes the loop a few rounds
        if not (_sockets() - sockets):
            break
        await asyncio.sleep(0.01)
    assert not (_sockets() - sockets), "a socket was left open"
    left = {task for task in asyncio.all_tasks() - tasks if task is not asyncio.current_task() and not task.done()}
    assert not left, "a task was left running"


@pytest.fixture(scope="module", autouse=True)
def nothing_is_collected() -> Iterator[None]:
    """A socket or a transport that only the collector closes warns, and warnings are errors."""
    yield
    gc.collect()


@pytest.fixture
async def server() -> AsyncIterator[ScriptedRelay]:
    """A correct relay in clear: PIPELINING and the rest."""
    async with ScriptedRelay() as relay:
        yield relay


@pytest.fixture
def trail() -> Trail:
    """A trace that keeps what it is told."""
    return Trail()
