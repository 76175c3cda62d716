"""Suppression lists and workers: who is listed gets nothing, whatever the time and the host of the entry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from asyncsmtp import Campaign
from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.bulk.workers.control import store_suppressions
from asyncsmtp.testing import ScriptedRelay
from tests.bulk.workers.test_work import recipients, url, write  # noqa: F401  # a fixture
from tests.cli.serving import serving
from tests.interop.postgres import Postgres

LISTS = 'suppression = ["gone.txt"]\n'


async def until_first(relay: ScriptedRelay) -> None:
    async with asyncio.timeout(20):
        while not relay.received:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("by", ["file", "table"])
async def test_who_is_listed_while_his_row_waits_in_a_worker_gets_nothing(
    write: Callable[..., Path],  # noqa: F811
    postgres: Postgres,
    by: str,
) -> None:
    """By a list of the host, or by entries that another host stores."""
    file = write(5, campaign=LISTS, sections='[limits]\nrate = "1/s"\n')
    (file.parent / "gone.txt").write_text("")
    await Campaign.from_file(file).load()
    with serving(ScriptedRelay()) as relay:
        working = asyncio.create_task(Campaign.from_file(file, relay=url(relay)).work(until_idle=True))
        await until_first(relay)
        other = file.parent / ("gone.txt" if by == "file" else "other.txt")
        other.write_text("reader4@d1.example\nreader5@d2.example\n")
        if by == "table":
            await store_suppressions(Database(postgres.url, "news"), [other])
        result = await working
        assert not {"reader4@d1.example", "reader5@d2.example"} & set(recipients(relay))
    assert (result.counts["accepted"], result.counts["suppressed"]) == (3, 2)
