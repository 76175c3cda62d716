"""The loop of a campaign: the faster one where it is installed, and no need of it."""

from __future__ import annotations

import asyncio
import sys

import pytest
import uvloop

from asyncsmtp.cli.controls import run_on_fast_loop


async def _loop() -> type[asyncio.AbstractEventLoop]:
    return type(asyncio.get_running_loop())


def test_uvloop_carries_a_campaign_where_it_is_installed() -> None:
    assert run_on_fast_loop(_loop()) is uvloop.Loop


def test_it_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert issubclass(run_on_fast_loop(_loop()), asyncio.BaseEventLoop)
