"""Send campaigns by the workers of procrastinate, whose jobs are enqueued in the transaction that loads the recipients.

    export ASYNCSMTP_LEDGER=postgresql://mail@db.example.com/mail
    procrastinate --app=procrastinate_app.app schema --apply
    python procrastinate_app.py news/campaign.toml
    procrastinate --app=procrastinate_app.app worker --concurrency=2 --shutdown-graceful-timeout=1
    procrastinate --app=procrastinate_app.app shell

Needs `pip install 'asyncsmtp[procrastinate]'`. Campaigns are in the folder that CAMPAIGNS names.
"""

from __future__ import annotations

import asyncio
import os
import sys

import procrastinate

from asyncsmtp.bulk import ProcrastinateJobs

DATABASE = os.environ["ASYNCSMTP_LEDGER"]

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=DATABASE))
jobs = ProcrastinateJobs(app, os.environ.get("CAMPAIGNS", "."), ledger=DATABASE)


async def load(campaign: str) -> None:
    """Load a campaign and enqueue its jobs; where it is loaded, enqueue those that are missing."""
    async with app.open_async():
        counts = await jobs.load(campaign)
    print(", ".join(f"{number} {state}" for state, number in counts.items() if number))


if __name__ == "__main__":
    asyncio.run(load(sys.argv[1]))
