"""`Campaign.load` and `Campaign.work`: several workers in one process, against a relay on loopback."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from asyncsmtp import Campaign, CampaignHalted, ConfigError, ExitReason
from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.bulk.ledger.postgres.worker_session import CampaignState
from asyncsmtp.bulk.ledger.suppression_list import hash_key
from asyncsmtp.bulk.workers.control import change_state, read_workers
from asyncsmtp.errors import InvalidArgument, LedgerBusy, LedgerEmpty, LedgerError
from asyncsmtp.testing import NO_REPLY, Fin, Received, ScriptedRelay, Stage
from tests.bulk.running.test_webhook import server as webhook_server
from tests.cli.serving import serving
from tests.interop.postgres import Postgres

ROWS = 1300
FILE = """\
[campaign]
name = "news"
from = "Example News <news@example.org>"
subject = "News for {{ name }}"
recipients = "people.csv"
text = "message.txt"
"""


@pytest.fixture
def write(tmp_path: Path, postgres: Postgres) -> Callable[..., Path]:
    """Write a campaign of some rows, with its ledger in the database."""

    def write(rows: int = ROWS, campaign: str = "", sections: str = "", columns: str = "") -> Path:
        names = ["email", "name", *columns.split()]
        lines = (
            f"reader{n}@d{n % 3}.example,Reader {n}{f',cc{n}@example.net' * bool(columns)}" for n in range(1, rows + 1)
        )
        (tmp_path / "people.csv").write_text("\n".join([",".join(names), *lines]) + "\n", encoding="utf-8")
        (tmp_path / "message.txt").write_text("Hello {{ name }}\n", encoding="utf-8")
        path = tmp_path / "campaign.toml"
        path.write_text(f'{FILE}ledger = "{postgres.url}"\n{campaign}{sections}', encoding="utf-8")
        return path

    return write


def url(relay: ScriptedRelay) -> str:
    return f"smtp://127.0.0.1:{relay.port}?security=none"


def recipients(relay: ScriptedRelay) -> Counter[str]:
    received: list[Received] = list(relay.received)
    return Counter(str(to) for message in received for to in message.forward_paths)


async def until_here(place: Database) -> None:
    """Wait until a worker has joined."""
    async with asyncio.timeout(20):
        while "here" not in [worker.state for worker in (await read_workers(place)).workers]:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_three_workers_send_everybody_one_message(write: Callable[..., Path]) -> None:
    file = write()
    assert (await Campaign.from_file(file).load())["pending"] == ROWS
    (file.parent / "people.csv").unlink()
    with serving(ScriptedRelay()) as relay:
        workers = [Campaign.from_file(file, relay=url(relay)).work(until_idle=True) for _ in range(3)]
        results = await asyncio.gather(*workers)
        assert len(recipients(relay)) == ROWS
        assert set(recipients(relay).values()) == {1}
    assert [result.exit_reason for result in results] == [ExitReason.COMPLETE] * 3
    assert results[0].counts["accepted"] == ROWS


async def test_a_job_may_run_twice_late_or_without_need(write: Callable[..., Path]) -> None:
    """As an engine of jobs calls it: the second call finds nothing to do."""
    file = write(20)
    with serving(ScriptedRelay()) as relay:
        campaign = Campaign.from_file(file, relay=url(relay))
        with pytest.raises(LedgerEmpty):
            await campaign.work(until_idle=True)
        await campaign.load()
        await campaign.load()
        for _ in range(3):
            assert (await campaign.work(until_idle=True)).exit_reason is ExitReason.COMPLETE
        assert set(recipients(relay).values()) == {1}
        assert (await campaign.load())["accepted"] == 20


async def test_copies_go_with_their_row(write: Callable[..., Path]) -> None:
    file = write(1100, campaign='cc = "{{ cc }}"\n', columns="cc")
    await Campaign.from_file(file).load()
    with serving(ScriptedRelay()) as relay:
        work = [Campaign.from_file(file, relay=url(relay)).work(until_idle=True) for _ in range(2)]
        results = await asyncio.gather(*work)
        assert results[0].counts["accepted"] == 2200
        assert set(recipients(relay).values()) == {1}


async def test_a_cancelled_worker_leaves_its_rows_to_the_next(write: Callable[..., Path]) -> None:
    file = write(600)
    await Campaign.from_file(file).load()
    with serving(ScriptedRelay()) as relay:
        campaign = Campaign.from_file(file, relay=url(relay))
        working = asyncio.create_task(campaign.work(until_idle=True))
        async with asyncio.timeout(20):
            while not relay.received:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        working.cancel()
        await asyncio.wait([working])
        result = await campaign.work(until_idle=True)
        assert result.counts["accepted"] + result.counts["in doubt"] == 600
        assert set(recipients(relay).values()) == {1}


async def test_a_relay_that_refuses_everyone_pauses_the_campaign(
    write: Callable[..., Path], postgres: Postgres
) -> None:
    file = write(300)
    await Campaign.from_file(file).load()
    with serving(ScriptedRelay({Stage.RCPT: "550 relay not permitted"})) as relay, pytest.raises(CampaignHalted):
        await Campaign.from_file(file, relay=url(relay)).work(until_idle=True)
    place = Database(postgres.url, "news")
    assert (await read_workers(place)).state == "paused"
    assert await Campaign.from_file(file).resolve("resend", halted=True) > 0
    await change_state(place, CampaignState.RUNNING)
    with serving(ScriptedRelay()) as relay:
        result = await Campaign.from_file(file, relay=url(relay)).work(until_idle=True)
    assert result.counts["pending"] == 0


async def test_a_paused_worker_waits_and_goes_on(write: Callable[..., Path], postgres: Postgres) -> None:
    file = write(10)
    await Campaign.from_file(file).load()
    place = Database(postgres.url, "news")
    await change_state(place, CampaignState.PAUSED)
    with serving(ScriptedRelay()) as relay:
        working = asyncio.create_task(Campaign.from_file(file, relay=url(relay)).work(until_idle=True))
        await until_here(place)
        await asyncio.sleep(0.5)
        assert not relay.received
        await change_state(place, CampaignState.RUNNING)
        assert (await asyncio.wait_for(working, 20)).counts["accepted"] == 10


async def test_a_decision_by_the_library_while_a_worker_waits(write: Callable[..., Path], postgres: Postgres) -> None:
    """A row in doubt is sent again by a worker that was there before."""
    file = write(5)
    await Campaign.from_file(file).load()
    with serving(ScriptedRelay({Stage.END_OF_DATA: {2: (NO_REPLY, Fin())}})) as relay:
        result = await Campaign.from_file(file, relay=url(relay)).work(until_idle=True)
        assert result.counts["in doubt"] == 1
    with serving(ScriptedRelay()) as relay:
        await change_state(Database(postgres.url, "news"), CampaignState.PAUSED)
        working = asyncio.create_task(Campaign.from_file(file, relay=url(relay)).work(until_idle=True))
        await until_here(Database(postgres.url, "news"))
        assert await Campaign.from_file(file).resolve("resend") == 1
        with pytest.raises(LedgerBusy):
            await Campaign.from_file(file, relay=url(relay)).run()
        await change_state(Database(postgres.url, "news"), CampaignState.RUNNING)
        assert (await asyncio.wait_for(working, 20)).counts["accepted"] == 5


async def test_rates_hold_for_all_workers_together(write: Callable[..., Path]) -> None:
    """100 messages at 50 a second by two workers: two seconds, not one."""
    file = write(100, sections='[limits]\nrate = "50/s"\n')
    await Campaign.from_file(file).load()
    with serving(ScriptedRelay()) as relay:
        began = asyncio.get_running_loop().time()
        work = [Campaign.from_file(file, relay=url(relay)).work(until_idle=True) for _ in range(2)]
        results = await asyncio.gather(*work)
        assert asyncio.get_running_loop().time() - began >= 1.8
    assert results[0].counts["accepted"] == 100


def spread(write: Callable[..., Path], seconds: float) -> tuple[Path, float]:
    """Write a campaign of 1200 messages that ends in about so many seconds; return in how many from now."""
    until = datetime.now().astimezone().replace(microsecond=0) + timedelta(seconds=seconds)
    file = write(1200, sections=f'[limits]\nspread_until = "{until:%Y-%m-%d %H:%M:%S}"\n')
    return file, (until - datetime.now().astimezone()).total_seconds()


async def test_messages_of_all_workers_together_are_spread_until_the_time(write: Callable[..., Path]) -> None:
    began = time.monotonic()
    file, left = spread(write, 9)
    await Campaign.from_file(file).load()

    async def work(delay: float) -> None:
        await asyncio.sleep(delay)
        await Campaign.from_file(file, relay=url(relay)).work(until_idle=True)

    with serving(ScriptedRelay()) as relay:
        await asyncio.gather(*map(work, (0.0, 0.3, 0.6)))
        assert len(relay.received) == 1200
    assert time.monotonic() - began >= left - 2.0  # some are reserved ahead of their time, or made up for


async def test_a_job_of_a_few_messages_does_not_spread_these_until_the_time(write: Callable[..., Path]) -> None:
    file, _ = spread(write, 120)
    await Campaign.from_file(file).load()
    with serving(ScriptedRelay()) as relay:
        async with asyncio.timeout(40):
            result = await Campaign.from_file(file, relay=url(relay)).work(until_idle=True, limit=5)
    assert (result.exit_reason, result.counts["accepted"]) == (ExitReason.LIMIT, 5)


async def test_a_quota_of_a_day_is_used_up_by_all_workers_together(write: Callable[..., Path]) -> None:
    file = write(100, sections='[limits]\nrate = "30/day"\n[limits.domain."d1.example"]\nrate = "5/day"\n')
    await Campaign.from_file(file).load()
    with serving(ScriptedRelay()) as relay:
        work = [Campaign.from_file(file, relay=url(relay)).work(until_idle=True) for _ in range(2)]
        results = await asyncio.gather(*work)
        found = recipients(relay)
    assert results[0].exit_reason is ExitReason.WAITING
    assert results[0].resumes_at is not None
    assert sum(found.values()) <= 30
    assert sum(number for address, number in found.items() if address.endswith("@d1.example")) <= 5
    assert sum(found.values()) >= 20


async def test_each_outcome_is_posted_once_by_several_workers(write: Callable[..., Path]) -> None:
    async with webhook_server(204) as hook:
        file = write(1200, campaign=f'webhook = "{hook.url}"\n')
        await Campaign.from_file(file).load()
        with serving(ScriptedRelay()) as relay:
            work = [Campaign.from_file(file, relay=url(relay)).work(until_idle=True) for _ in range(3)]
            await asyncio.gather(*work)
        assert Counter(outcome["state"] for outcome in hook.outcomes) == {"accepted": 1200}
        assert len({json.dumps(outcome["row"]) for outcome in hook.outcomes}) == 1200


async def test_what_workers_cannot_do_is_refused_before_anything_is_sent(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    file = write(3)
    with pytest.raises(ConfigError, match="workers need a ledger in PostgreSQL"):
        await Campaign.from_file(file, ledger=tmp_path / "news.ledger").load()
    with pytest.raises(ConfigError, match="workers need a ledger in PostgreSQL"):
        await Campaign.from_file(file, ledger=tmp_path / "news.ledger", relay="smtp://localhost").work()
    for limit in (0, -1):
        with pytest.raises(InvalidArgument, match=f"limit= {limit} must be at least 1"):
            await Campaign.from_file(file, relay="smtp://localhost").work(limit=limit)
    with pytest.raises(InvalidArgument, match=r"a lease of 0\.5 s is too short"):
        await Campaign.from_file(file, relay="smtp://localhost").work(lease=0.5)
    with pytest.raises(TypeError, match="lease"):
        await Campaign.from_file(file, relay="smtp://localhost").work(lease="30s")  # type: ignore[arg-type]


async def test_dates_and_amounts_are_read_from_the_ledger_where_there_is_no_file(write: Callable[..., Path]) -> None:
    """How a column is written is found out from its rows."""
    file = write(3)
    (file.parent / "people.csv").write_text(
        "email,name,due\n" + "".join(f"r{n}@example.org,R{n},{n + 12}.01.2026\n" for n in range(3)), encoding="utf-8"
    )
    (file.parent / "message.txt").write_text('Hello {{ name }}, by {{ due | date("%d %B") }}\n', encoding="utf-8")
    await Campaign.from_file(file).load()
    (file.parent / "people.csv").unlink()
    with serving(ScriptedRelay()) as relay:
        result = await Campaign.from_file(file, relay=url(relay)).work(until_idle=True)
        assert result.counts["accepted"] == 3
        assert any(b"by 12 January" in message.content for message in relay.received)


async def test_a_paused_or_cancelled_campaign_is_not_sent_by_a_run_either(
    write: Callable[..., Path], postgres: Postgres
) -> None:
    file = write(3)
    await Campaign.from_file(file).load()
    for state, words in (
        (CampaignState.PAUSED, "campaign resume news"),
        (CampaignState.CANCELLED, "campaign start news"),
    ):
        await change_state(Database(postgres.url, "news"), state)
        with serving(ScriptedRelay()) as relay:
            with pytest.raises(ConfigError, match=words):
                await Campaign.from_file(file, relay=url(relay)).run()
            assert not relay.received


async def test_a_database_without_space_ends_a_worker_and_another_goes_on(
    write: Callable[..., Path], postgres: Postgres
) -> None:
    file = write(600)
    await Campaign.from_file(file).load()
    postgres.execute(
        "CREATE FUNCTION full_disk() RETURNS trigger AS 'BEGIN"
        " IF (SELECT count(*) FROM asyncsmtp.delivery WHERE state = 2) > 100 THEN"
        " RAISE EXCEPTION ''no space'' USING ERRCODE = ''disk_full''; END IF; RETURN new; END' LANGUAGE plpgsql"
    )
    postgres.execute("CREATE TRIGGER full_disk BEFORE UPDATE ON asyncsmtp.worker EXECUTE FUNCTION full_disk()")
    try:
        with serving(ScriptedRelay()) as relay:
            with pytest.raises(LedgerError, match="no space left"):
                await Campaign.from_file(file, relay=url(relay)).work(until_idle=True, lease=2)
            postgres.execute("DROP TRIGGER full_disk ON asyncsmtp.worker")
            result = await Campaign.from_file(file, relay=url(relay)).work(until_idle=True, lease=2)
            assert result.counts["accepted"] + result.counts["in doubt"] == 600
            assert result.counts["in doubt"] <= 10
            assert set(recipients(relay).values()) == {1}
    finally:
        postgres.execute("DROP FUNCTION full_disk CASCADE")


async def test_hashed_entries_of_a_list_are_obeyed_on_every_host(write: Callable[..., Path]) -> None:
    file = write(3, campaign='suppression = ["gone.txt"]\n')
    (file.parent / "gone.txt").write_text(f"{hash_key('reader2@d2.example')}\n@d0.example\n", encoding="utf-8")
    await Campaign.from_file(file).load()
    (file.parent / "gone.txt").unlink()
    with serving(ScriptedRelay()) as relay:
        result = await Campaign.from_file(file, relay=url(relay)).work(until_idle=True)
        assert (result.counts["accepted"], result.counts["suppressed"]) == (1, 2)
        assert [*recipients(relay)] == ["reader1@d1.example"]
