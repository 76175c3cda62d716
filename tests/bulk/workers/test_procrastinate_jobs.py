"""Jobs of procrastinate: rows and jobs in one transaction, and whatever becomes of a job, the ledger decides."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import procrastinate
import pytest
from procrastinate.jobs import Status

from asyncsmtp.bulk.campaign import Campaign
from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.bulk.ledger.postgres.worker_session import CampaignState
from asyncsmtp.bulk.procrastinate_jobs import RECOVER, WORK, ProcrastinateJobs
from asyncsmtp.bulk.workers.control import change_state
from asyncsmtp.errors import ConfigError, InvalidArgument, LedgerEmpty, LedgerError, RecipientError
from asyncsmtp.testing import ScriptedRelay, Stage
from tests.interop.postgres import Postgres

pytestmark = pytest.mark.slow
NEWS = "news/campaign.toml"
ROWS = 1200
STATUS = "SELECT status::text FROM procrastinate_jobs WHERE id = %s"
DROP = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"


@pytest.fixture
async def app(postgres: Postgres) -> AsyncIterator[procrastinate.App]:
    """An application with its tables in the ledger's database."""
    postgres.execute(DROP)
    app = procrastinate.App(
        connector=procrastinate.PsycopgConnector(conninfo=postgres.url, min_size=1, max_size=4),
        worker_defaults={"listen_notify": False, "install_signal_handlers": False},
    )
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        yield app
    postgres.execute(DROP)


@pytest.fixture
def jobs(app: procrastinate.App, folder: Path, postgres: Postgres) -> ProcrastinateJobs:
    return ProcrastinateJobs(app, folder, ledger=postgres.url, rows=500, lease=2.0)


async def work(app: procrastinate.App, concurrency: int = 2) -> None:
    """Run workers until nothing is left that may run now."""
    async with asyncio.timeout(50):
        while True:
            await app.run_worker_async(wait=False, concurrency=concurrency)
            waiting = await app.job_manager.list_jobs_async(task=WORK, status="todo")
            if all(job.scheduled_at is not None and job.scheduled_at > datetime.now(UTC) for job in waiting):
                return


async def statuses(app: procrastinate.App) -> list[str]:
    return [str(job.status) for job in await app.job_manager.list_jobs_async(task=WORK)]


def counts(postgres: Postgres) -> dict[str, int]:
    found = postgres.execute("SELECT state, count(*) FROM asyncsmtp.delivery GROUP BY state")
    return {str(state): int(str(number)) for state, number in found}


def recipients(relay: ScriptedRelay) -> list[str]:
    return [str(to) for mail in relay.received for to in mail.forward_paths]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - of another process or thread
        await asyncio.sleep(0.01)


def is_sent(relay: ScriptedRelay) -> bool:
    got = recipients(relay)
    return len(got) == len(set(got)) == ROWS


async def test_jobs_send_a_campaign(
    app: procrastinate.App, jobs: ProcrastinateJobs, relay: ScriptedRelay, folder: Path
) -> None:
    """No job is needed for what was sent; no file of recipients is needed by a worker."""
    assert (await jobs.load(NEWS))["pending"] == ROWS
    assert await statuses(app) == ["todo"] * 3
    (folder / "news" / "people.csv").unlink()
    await work(app)
    assert is_sent(relay)
    assert set(await statuses(app)) == {"succeeded"}
    assert await jobs.enqueue(NEWS) == 0


async def test_the_jobs_are_seen_with_the_rows_and_not_before(
    app: procrastinate.App, folder: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = ProcrastinateJobs(app, folder, ledger=postgres.url, rows=500)
    seen: list[object] = []
    enqueue = ProcrastinateJobs._enqueue

    async def look(self: ProcrastinateJobs, *arguments: object, **further: object) -> int:
        number = await enqueue(self, *arguments, **further)  # type: ignore[arg-type]
        seen.append(await asyncio.to_thread(postgres.execute, "SELECT count(*) FROM procrastinate_jobs"))
        seen.append(await asyncio.to_thread(postgres.execute, "SELECT count(*) FROM asyncsmtp.recipient"))
        return number

    monkeypatch.setattr(ProcrastinateJobs, "_enqueue", look)
    await jobs.load(NEWS)
    assert seen == [[(0,)], [(0,)]]
    assert postgres.execute("SELECT count(*) FROM procrastinate_jobs") == [(3,)]
    assert postgres.execute("SELECT count(*) FROM asyncsmtp.recipient") == [(ROWS,)]


async def test_a_load_that_fails_leaves_neither_rows_nor_jobs(
    app: procrastinate.App, jobs: ProcrastinateJobs, postgres: Postgres
) -> None:
    """Here the database refuses the third job."""
    postgres.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF (SELECT count(*) FROM procrastinate_jobs) > 2 THEN RAISE 'no more jobs'; END IF;"
        " RETURN NULL; END $$;"
        "CREATE TRIGGER refuse AFTER INSERT ON procrastinate_jobs FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    with pytest.raises(LedgerError, match=r"jobs cannot be enqueued: no more jobs"):
        await jobs.load(NEWS)
    assert await statuses(app) == []
    assert postgres.execute("SELECT count(*) FROM asyncsmtp.recipient") == [(0,)]
    postgres.execute("DROP TRIGGER refuse ON procrastinate_jobs")
    assert (await jobs.load(NEWS))["pending"] == ROWS
    assert await statuses(app) == ["todo"] * 3


async def test_bad_recipients_make_no_job(app: procrastinate.App, jobs: ProcrastinateJobs, folder: Path) -> None:
    (folder / "news" / "people.csv").write_text("email\nnobody\n", encoding="utf-8")
    with pytest.raises(RecipientError):
        await jobs.load(NEWS)
    assert await statuses(app) == []


async def test_a_job_may_run_twice(app: procrastinate.App, jobs: ProcrastinateJobs, relay: ScriptedRelay) -> None:
    """At once, and again after its end."""
    await jobs.load(NEWS)
    for _ in range(3):
        await app.configure_task(WORK, queue="asyncsmtp").defer_async(campaign=NEWS)
    await work(app, concurrency=6)
    assert is_sent(relay)
    for job in await app.job_manager.list_jobs_async(task=WORK):
        await app.configure_task(WORK, queue="asyncsmtp").defer_async(**job.task_kwargs)
    await work(app)
    assert is_sent(relay)
    assert set(await statuses(app)) <= {"succeeded", "todo"}  # one may look later whether others have ended


async def test_jobs_may_be_lost_but_for_one(
    app: procrastinate.App, jobs: ProcrastinateJobs, relay: ScriptedRelay, postgres: Postgres
) -> None:
    """A job that leaves rows behind enqueues those that are missing."""
    await jobs.load(NEWS)
    postgres.execute("DELETE FROM procrastinate_jobs WHERE id > (SELECT min(id) FROM procrastinate_jobs)")
    await work(app)
    assert is_sent(relay)


@pytest.mark.parametrize("by", ["load", "enqueue", "work"])
async def test_all_jobs_may_be_lost(
    app: procrastinate.App, jobs: ProcrastinateJobs, relay: ScriptedRelay, postgres: Postgres, folder: Path, by: str
) -> None:
    """Another load adds them again, without another row; so does `enqueue`; a worker without jobs sends as well."""
    await jobs.load(NEWS)
    postgres.execute("DELETE FROM procrastinate_jobs")
    if by == "work":
        await Campaign.from_file(folder / NEWS, ledger=postgres.url).work(until_idle=True)
    else:
        await (jobs.load(NEWS) if by == "load" else jobs.enqueue(NEWS))
        assert await statuses(app) == ["todo"] * 3
        await work(app)
    assert is_sent(relay)


async def test_jobs_are_enqueued_once(app: procrastinate.App, jobs: ProcrastinateJobs) -> None:
    for _ in range(3):
        await jobs.load(NEWS)
    assert await jobs.enqueue(NEWS) == 0
    assert await statuses(app) == ["todo"] * 3


async def test_what_is_deferred_is_scheduled(
    app: procrastinate.App, jobs: ProcrastinateJobs, folder: Path, postgres: Postgres
) -> None:
    """The next attempt is in five minutes: the job does not wait for it, and the next one is due then."""
    async with ScriptedRelay({Stage.RCPT: lambda _: "451 4.7.1 later"}) as busy:
        relay_url = f"smtp://127.0.0.1:{busy.port}?security=none"
        jobs = ProcrastinateJobs(
            procrastinate.App(connector=app.connector), folder, ledger=postgres.url, rows=5000, relay=relay_url
        )
        (folder / "news" / "people.csv").write_text("email\na1@example.org\na2@example.org\n", encoding="utf-8")
        await jobs.load(NEWS)
        await work(jobs._app)
    [scheduled] = await app.job_manager.list_jobs_async(task=WORK, status="todo")
    assert scheduled.scheduled_at is not None
    assert timedelta(minutes=2) < scheduled.scheduled_at - datetime.now(UTC) < timedelta(minutes=8)
    [(due,)] = postgres.execute("SELECT min(next_us) FROM asyncsmtp.delivery")
    assert abs(scheduled.scheduled_at.timestamp() * 1e6 - float(str(due))) < 2000


@pytest.mark.parametrize(("limit", "hours"), [('rate = "20/day"', 1), ("window = {}", 2)])
async def test_a_campaign_that_is_held_up_comes_again_when_it_may_go_on(
    app: procrastinate.App, folder: Path, relay: ScriptedRelay, postgres: Postgres, limit: str, hours: int
) -> None:
    """By a quota that is used up, or by a window; its rows are free all the time."""
    jobs = ProcrastinateJobs(app, folder, ledger=postgres.url, rows=500, lease=2.0)
    opens = datetime.now() + timedelta(hours=3)
    window = f'"{opens:%H:%M}-{opens + timedelta(hours=1):%H:%M}"'
    with (folder / NEWS).open("a", encoding="utf-8") as file:
        file.write(f"[limits]\n{limit.format(window)}\n")
    await jobs.load(NEWS)
    await work(app)
    found = list(await app.job_manager.list_jobs_async(task=WORK))
    waiting = [job.scheduled_at for job in found if job.status == "todo"]
    assert len(found) <= 9, "at most as many jobs again as began before the first one ended"
    assert len(waiting) == 3
    assert all(at is not None and at - datetime.now(UTC) > timedelta(hours=hours) for at in waiting)
    assert len(relay.received) <= 21


async def test_a_paused_campaign_holds_no_place(
    app: procrastinate.App, jobs: ProcrastinateJobs, relay: ScriptedRelay, postgres: Postgres
) -> None:
    """One job looks at it from time to time, and enqueues as many as there were; a cancelled one needs none."""
    await jobs.load(NEWS)
    place = Database(postgres.url, "news")
    await change_state(place, CampaignState.PAUSED)
    for _ in range(3):
        await work(app)
        [waiting] = await app.job_manager.list_jobs_async(task=WORK, status="todo")
        assert waiting.attempts == 0, "a long pause leaves no job without an attempt for a failure"
        assert waiting.scheduled_at is not None
        assert waiting.scheduled_at - datetime.now(UTC) < timedelta(seconds=31)
        postgres.execute("UPDATE procrastinate_jobs SET scheduled_at = now() WHERE status = 'todo'")
    assert relay.received == []
    await change_state(place, CampaignState.RUNNING)
    await app.run_worker_async(wait=False, concurrency=1)
    await work(app)
    assert is_sent(relay)
    assert 9 <= len(await statuses(app)) <= 12  # one may look later whether others have ended
    postgres.execute("DELETE FROM procrastinate_jobs WHERE status <> 'todo'")
    await app.configure_task(WORK, queue="asyncsmtp").defer_async(campaign=NEWS)
    await change_state(place, CampaignState.CANCELLED)
    await work(app)
    assert await statuses(app) == ["succeeded"]


async def test_jobs_come_again_after_the_last_one_has_failed(
    app: procrastinate.App, jobs: ProcrastinateJobs, relay: ScriptedRelay, folder: Path, postgres: Postgres
) -> None:
    """Once, where rows are left and the campaign runs; other campaigns may be gone meanwhile."""
    await jobs.load(NEWS)
    await app.configure_task(WORK, queue="asyncsmtp").defer_async(campaign="gone/campaign.toml")
    postgres.execute("UPDATE procrastinate_jobs SET attempts = 50")
    message = (folder / "news" / "message.txt").read_text("utf-8")
    (folder / "news" / "message.txt").write_text("Something else\n", encoding="utf-8")
    place = Database(postgres.url, "news")
    await change_state(place, CampaignState.PAUSED)
    await work(app)
    assert await statuses(app) == ["failed"] * 4
    (folder / "news" / "message.txt").write_text(message, encoding="utf-8")
    await app.tasks[RECOVER](timestamp=0)
    assert await statuses(app) == ["failed"] * 4
    await change_state(place, CampaignState.RUNNING)
    for _ in range(2):
        await app.tasks[RECOVER](timestamp=0)
        assert (await statuses(app)).count("todo") == 3
    await work(app)
    assert is_sent(relay)
    before = await statuses(app)
    await app.tasks[RECOVER](timestamp=0)
    assert await statuses(app) == before


async def test_a_relay_that_is_away_is_tried_again_later(
    app: procrastinate.App, jobs: ProcrastinateJobs, folder: Path, postgres: Postgres
) -> None:
    """Another host may have the right files, too: the job of this one comes again."""
    await jobs.load(NEWS)
    (folder / "news" / "message.txt").write_text("Something else\n", encoding="utf-8")
    await work(app)
    for job in await app.job_manager.list_jobs_async(task=WORK):
        assert (job.status, job.attempts) == ("todo", 1)
        assert job.scheduled_at is not None
        assert job.scheduled_at > datetime.now(UTC)


async def test_a_job_whose_worker_has_vanished_is_enqueued_again(
    app: procrastinate.App, jobs: ProcrastinateJobs, relay: ScriptedRelay, postgres: Postgres
) -> None:
    """Of two with the same lock, one is enough."""
    await jobs.load(NEWS)
    manager = app.job_manager
    worker = await manager.register_worker()
    taken = [await manager.fetch_job(queues=["asyncsmtp"], worker_id=worker) for _ in range(3)]
    assert taken[0] is not None
    await app.configure_task(WORK, queue="asyncsmtp", queueing_lock=taken[0].queueing_lock).defer_async(campaign=NEWS)
    postgres.execute("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 minute'")
    await app.tasks[RECOVER](timestamp=0)
    assert sorted(await statuses(app)) == ["failed", "todo", "todo", "todo"]
    await work(app)
    assert is_sent(relay)
    assert "doing" not in await statuses(app)


async def test_an_aborted_job_finishes_what_is_under_way(
    app: procrastinate.App, jobs: ProcrastinateJobs, relay: ScriptedRelay, postgres: Postgres
) -> None:
    """Nothing is in doubt, and its batches are free for the others."""
    await jobs.load(NEWS)
    working = asyncio.create_task(app.run_worker_async(concurrency=1, abort_job_polling_interval=0.05))
    try:
        async with asyncio.timeout(30):
            await until(lambda: len(relay.received) >= 20)
            [job] = await app.job_manager.list_jobs_async(task=WORK, status="doing")
            assert job.id is not None
            await app.job_manager.cancel_job_by_id_async(job.id, abort=True)
            number = job.id
            await until(lambda: postgres.execute(STATUS, number) != [("doing",)])
            assert await app.job_manager.get_job_status_async(job.id) is Status.ABORTED
            await until(lambda: is_sent(relay))
    finally:
        working.cancel()
        await asyncio.wait([working])
    assert set(counts(postgres)) == {"2"}


async def test_the_end_of_a_worker_gives_its_job_back(
    app: procrastinate.App, folder: Path, relay: ScriptedRelay, postgres: Postgres
) -> None:
    jobs = ProcrastinateJobs(app, folder, ledger=postgres.url, rows=5000, rate="100/s")
    await jobs.load(NEWS)
    working = asyncio.create_task(app.run_worker_async(shutdown_graceful_timeout=0.1))
    async with asyncio.timeout(30):
        await until(lambda: len(relay.received) >= 20)
        working.cancel()
        await asyncio.wait([working])
    assert await statuses(app) == ["todo"]
    assert postgres.execute("SELECT count(*) FROM asyncsmtp.delivery WHERE state NOT IN (0, 2)") == [(0,)]
    assert postgres.execute("SELECT count(*) FROM asyncsmtp.batch WHERE run IS NOT NULL") == [(0,)]
    assert len(relay.received) == len(set(recipients(relay))) < ROWS


async def test_bad_input_is_one_sentence(
    app: procrastinate.App, jobs: ProcrastinateJobs, folder: Path, postgres: Postgres
) -> None:
    other = procrastinate.App(connector=app.connector)
    with pytest.raises(InvalidArgument, match=r"rows= 0 must be at least 1"):
        ProcrastinateJobs(other, folder, rows=0)
    with pytest.raises(InvalidArgument, match=r"there is no folder .*: name the one that has the campaigns"):
        ProcrastinateJobs(other, folder / "nowhere")
    with pytest.raises(ConfigError, match=r"is not in .*: name a file in this folder"):
        await jobs.load("../campaign.toml")
    with pytest.raises(ConfigError, match=r"there is no"):
        await jobs.load("old/campaign.toml")
    with pytest.raises(LedgerEmpty):
        await jobs.enqueue(NEWS)
    with pytest.raises(ConfigError, match=r"workers need a ledger in PostgreSQL"):
        await ProcrastinateJobs(other, folder).load(NEWS)
    postgres.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    with pytest.raises(ConfigError, match=r"has no tables of procrastinate: procrastinate --app=… schema --apply"):
        await jobs.load(NEWS)
    assert postgres.execute("SELECT to_regclass('asyncsmtp.recipient')") == [(None,)]


async def test_another_database_is_refused(app: procrastinate.App, folder: Path, postgres: Postgres) -> None:
    """Rows and jobs could not be there together."""
    postgres.execute("CREATE DATABASE elsewhere")
    try:
        jobs = ProcrastinateJobs(app, folder, ledger=postgres.url.replace("/postgres", "/elsewhere"))
        with pytest.raises(ConfigError, match=r"in different databases.*: give both the same URL"):
            await jobs.load(NEWS)
    finally:
        postgres.execute("DROP DATABASE elsewhere WITH (FORCE)")


async def test_an_application_that_is_not_open_is_refused(folder: Path, postgres: Postgres) -> None:
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=postgres.url))
    with pytest.raises(LedgerError, match=r"procrastinate cannot use its database: .*open"):
        await ProcrastinateJobs(app, folder, ledger=postgres.url).load(NEWS)


def test_the_extra_is_named_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "procrastinate", None)
    monkeypatch.delitem(sys.modules, "asyncsmtp.bulk.procrastinate_jobs")
    with pytest.raises(ImportError, match=re.escape("pip install 'asyncsmtp[procrastinate]'")):
        __import__("asyncsmtp.bulk.procrastinate_jobs")
