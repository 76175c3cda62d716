"""Suppression lists and workers: who is listed gets nothing, whatever the time and the host of the entry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from asyncsmtp import Campaign, CampaignHalted, ConfigError
from asyncsmtp.bulk.ledger.base import BaseLedger
from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.bulk.ledger.postgres.worker_ledger import WorkerLedger
from asyncsmtp.bulk.ledger.postgres.worker_session import CampaignState
from asyncsmtp.bulk.workers.control import change_state, read_workers, store_suppressions
from asyncsmtp.errors import LedgerEmpty, SuppressionError
from asyncsmtp.testing import ScriptedRelay, Stage
from tests.bulk.workers.test_work import recipients, url, write  # noqa: F401  # a fixture
from tests.cli.serving import serving
from tests.interop.postgres import Postgres

LISTS = 'suppression = ["gone.txt"]\n'


async def until_first(relay: ScriptedRelay) -> None:
    async with asyncio.timeout(20):
        while not relay.received:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.slow
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


async def load_and_die(file: Path, monkeypatch: pytest.MonkeyPatch, *, paused: bool = False) -> None:
    """Load a campaign by a process that dies right after the commit of the rows."""

    async def die(self: BaseLedger) -> int:
        raise RuntimeError("killed here")

    with monkeypatch.context() as patched:
        patched.setattr(BaseLedger, "suppress", die)
        with pytest.raises(RuntimeError, match="killed here"):
            await Campaign.from_file(file).load(paused=paused)


async def test_a_load_that_dies_leaves_no_rows_without_its_suppressions(
    write: Callable[..., Path],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = write(20, campaign=LISTS)
    (file.parent / "gone.txt").write_text("reader3@d0.example\n")
    await load_and_die(file, monkeypatch)
    for name in ("gone.txt", "people.csv"):  # the worker is on another host
        (file.parent / name).unlink()
    with serving(ScriptedRelay()) as relay:
        result = await Campaign.from_file(file, relay=url(relay)).work(until_idle=True)
        assert "reader3@d0.example" not in recipients(relay)
    assert (result.counts["accepted"], result.counts["suppressed"]) == (19, 1)


async def test_what_fails_in_the_transaction_of_the_load_loads_nothing(write: Callable[..., Path]) -> None:  # noqa: F811
    file = write(20, campaign=LISTS)
    (file.parent / "gone.txt").write_text("reader3@d0.example\n")

    async def fail(connection: object, batches: int) -> None:
        raise SuppressionError("the list is broken")

    with pytest.raises(SuppressionError, match="is broken"):
        await Campaign.from_file(file).load(enqueue=fail)
    with pytest.raises(LedgerEmpty):
        await Campaign.from_file(file, relay="smtp://127.0.0.1:9").work(until_idle=True)


async def test_a_worker_refuses_rows_whose_lists_nobody_stored(
    write: Callable[..., Path],  # noqa: F811
    postgres: Postgres,
) -> None:
    """`bulk` has loaded them, or an older asyncsmtp; where the lists are there, they are obeyed."""
    file = write(20, campaign=LISTS)
    gone = file.parent / "gone.txt"
    gone.write_text("reader3@d0.example\n")
    await Campaign.from_file(file).load()
    postgres.execute("DELETE FROM asyncsmtp.memory WHERE name = 'suppression lists'")
    postgres.execute("DELETE FROM asyncsmtp.suppressed")
    postgres.execute("UPDATE asyncsmtp.delivery SET state = 0")
    gone.rename(file.parent / "away")
    with serving(ScriptedRelay()) as relay:
        campaign = Campaign.from_file(file, relay=url(relay))
        with pytest.raises(ConfigError, match=r"gone.txt is not on this host, and .*: asyncsmtp campaign load"):
            await campaign.work(until_idle=True)
        assert not relay.received
        (file.parent / "away").rename(gone)
        await campaign.load()
        gone.unlink()
        assert (await campaign.work(until_idle=True)).counts["suppressed"] == 1
        assert "reader3@d0.example" not in recipients(relay)


@pytest.mark.slow
async def test_a_load_while_workers_send_stores_the_suppressions(write: Callable[..., Path]) -> None:  # noqa: F811
    file = write(5, campaign=LISTS, sections='[limits]\nrate = "1/s"\n')
    gone = file.parent / "gone.txt"
    gone.write_text("")
    await Campaign.from_file(file).load()
    other = file.parent / "other"  # host
    other.mkdir()
    for name in (file.name, "message.txt"):
        (other / name).write_text((file.parent / name).read_text(encoding="utf-8"), encoding="utf-8")
    with serving(ScriptedRelay()) as relay:
        working = asyncio.create_task(Campaign.from_file(other / file.name, relay=url(relay)).work(until_idle=True))
        await until_first(relay)
        gone.write_text("reader5@d2.example\n")
        await Campaign.from_file(file).load()
        assert (await working).counts["suppressed"] == 1
        assert "reader5@d2.example" not in recipients(relay)


async def test_a_campaign_that_is_loaded_paused_never_runs_before(
    write: Callable[..., Path],  # noqa: F811
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, place = write(20), Database(postgres.url, "news")
    await load_and_die(file, monkeypatch, paused=True)
    assert (await read_workers(place)).state == "paused"
    await change_state(place, CampaignState.CANCELLED)
    await Campaign.from_file(file).load(paused=True)
    assert (await read_workers(place)).state == "cancelled"


async def test_a_halted_worker_leaves_a_cancelled_campaign_cancelled(
    write: Callable[..., Path],  # noqa: F811
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, place = write(300), Database(postgres.url, "news")
    await Campaign.from_file(file).load()
    record_halt = WorkerLedger.record_halt

    async def cancel_first(self: WorkerLedger, rows: Iterable[int]) -> None:
        await change_state(place, CampaignState.CANCELLED)
        await record_halt(self, rows)

    monkeypatch.setattr(WorkerLedger, "record_halt", cancel_first)
    with serving(ScriptedRelay({Stage.RCPT: "550 relay not permitted"})) as relay, pytest.raises(CampaignHalted):
        await Campaign.from_file(file, relay=url(relay)).work(until_idle=True)
    assert (await read_workers(place)).state == "cancelled"
