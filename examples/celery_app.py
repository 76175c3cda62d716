"""Send campaigns by the workers of Celery, with any broker: the ledger decides which rows a task sends.

    export ASYNCSMTP_LEDGER=postgresql://mail@db.example.com/mail BROKER=redis://localhost:6379/0
    python celery_app.py news/campaign.toml
    celery --app=celery_app worker --concurrency=2

Needs `pip install celery[redis] 'asyncsmtp[postgres]'`. Campaigns are in the folder that CAMPAIGNS names.

Rows are loaded before the tasks are sent, not in one transaction with them: a broker is another system. If the program
ends in between, run it again; nothing is loaded twice, and a task that is superfluous ends at once. A task may also run
twice, as after a kill (`acks_late`), or never: then another task, or `asyncsmtp work`, sends what is left.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from math import ceil
from pathlib import Path

from celery import Celery

from asyncsmtp import Campaign, ExitReason

DATABASE = os.environ["ASYNCSMTP_LEDGER"]
FOLDER = Path(os.environ.get("CAMPAIGNS", "."))
ROWS = int(os.environ.get("ROWS", "10000"))  # that one task sends at most
LEASE = float(os.environ.get("LEASE", "30"))  # seconds
PAUSE = 30.0  # seconds before a campaign that is paused is looked at again
MAX_COUNTDOWN = 1800.0  # seconds; less than the visibility timeout, after which Redis would send the task twice

app = Celery("campaigns", broker=os.environ.get("BROKER", "redis://localhost:6379/0"))
app.conf.update(
    task_acks_late=True,  # a task is done when it has ended, not when it has begun
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_transport_options={"visibility_timeout": 3600},  # of Redis: longer than a task takes
    broker_connection_retry_on_startup=True,
)


def open_campaign(name: str) -> Campaign:
    return Campaign.from_file(FOLDER / name, ledger=DATABASE)


@app.task(name="campaigns.work", autoretry_for=(Exception,), max_retries=None, retry_backoff=10, retry_backoff_max=600)
def work(name: str) -> None:
    """Send up to ROWS rows; the next task goes on, when there is something to do for it."""
    result = asyncio.run(open_campaign(name).work(until_idle=True, limit=ROWS, lease=LEASE))
    if result.exit_reason is ExitReason.LIMIT:
        work.delay(name)
    elif result.exit_reason is ExitReason.WAITING:  # for rows that are deferred, or for `asyncsmtp campaign resume`
        seconds = PAUSE if result.resumes_at is None else (result.resumes_at - datetime.now(UTC)).total_seconds()
        work.apply_async((name,), countdown=min(MAX_COUNTDOWN, max(1.0, seconds)))


def load(name: str) -> Mapping[str, int]:
    """Load a campaign, and send as many tasks as it takes."""
    counts = asyncio.run(open_campaign(name).load())
    for _ in range(ceil(counts["pending"] / ROWS)):
        work.delay(name)
    return counts


if __name__ == "__main__":
    print(", ".join(f"{number} {state}" for state, number in load(sys.argv[1]).items() if number))
