"""Every fault at every point of a session, on every link and in every dialogue: a typed ending, in time, and true."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import ssl
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.matrix.playing import Wires, complaints
from tests.matrix.tables import Cell, ClientMode, Fault, Link, cells

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

TOGETHER = 14  # cases at a time
MEBIBYTE = 1 << 20


@pytest.fixture
def wires(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> Wires:
    return Wires(server_tls, client_tls)


async def _all(chosen: Iterable[Cell], wires: Wires) -> list[str]:
    gate = asyncio.Semaphore(TOGETHER)

    async def one(cell: Cell) -> list[str]:
        async with gate:
            return await complaints(cell, wires)

    return [wrong for some in await asyncio.gather(*map(one, chosen)) for wrong in some]


@pytest.mark.both_loops
@pytest.mark.parametrize("way", ClientMode)
@pytest.mark.parametrize("link", Link)
@pytest.mark.parametrize("fault", Fault)
async def test_every_fault_ends_typed_true_and_in_time(fault: Fault, link: Link, way: ClientMode, wires: Wires) -> None:
    """WI-12, fault injection 2: the stage's limit + 0.5 s; accepted is what the relay has once, the rest it has not."""
    chosen = [cell for cell in cells() if (cell.fault, cell.link, cell.way) == (fault, link, way)]
    assert await _all(chosen, wires) == []


async def test_they_keep_no_memory(wires: Wires, caplog: pytest.LogCaptureFixture) -> None:
    """At most 5 MiB more behind every second case than behind the same ones before, once all is warm."""
    caplog.set_level(logging.CRITICAL, "asyncsmtp")  # what is logged is kept, by pytest
    every = list(cells())
    assert len(every) == 1480
    for _ in range(2):
        assert await _all(every[::2], wires) == []
    before = _resident()
    assert await _all(every[::2], wires) == []
    assert _resident() - before <= 5 * MEBIBYTE


def _resident() -> int:
    """Octets of memory that this process holds, less what the allocator keeps for later where it tells."""
    gc.collect()
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
