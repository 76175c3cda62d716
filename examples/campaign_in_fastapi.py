"""A campaign inside a FastAPI application: begun by a request, looked at while it runs, finished before the end.

Needs `pip install fastapi uvicorn`. Run `asyncsmtp sandbox` in another terminal, then: uvicorn campaign_in_fastapi:app

    curl --data-binary @people.csv http://127.0.0.1:8000/campaigns/news
    curl http://127.0.0.1:8000/campaigns/news
"""

import asyncio
import os
import re
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request

import asyncsmtp

FOLDER = Path(os.environ.get("CAMPAIGNS", "."))
RELAY = os.environ.get("RELAY", "smtp://localhost:2525?security=none")

TEMPLATE = asyncsmtp.Template(
    from_="Example News <news@example.org>",
    subject="News for {{ name }}",
    text="Dear {{ name }},\nthis is the news.\n",
)


class Campaigns:
    """What runs in this application: any number at once, through one pool."""

    def __init__(self, pool: asyncsmtp.Pool, tasks: asyncio.TaskGroup) -> None:
        self.pool = pool
        self.tasks = tasks
        self.runs: dict[str, asyncsmtp.Run] = {}
        self.counts: dict[str, Counter[str]] = {}
        self.ended_by: dict[str, str] = {}

    def begin(self, name: str, people: asyncsmtp.RecipientFile, composer: asyncsmtp.Composer) -> None:
        self.counts[name] = Counter()
        self.tasks.create_task(self.send(name, people, composer))

    async def send(self, name: str, people: asyncsmtp.RecipientFile, composer: asyncsmtp.Composer) -> None:
        try:
            async with await asyncsmtp.SqliteLedger.open(
                FOLDER / f"{name}.ledger", name=name, from_domain="example.org"
            ) as ledger:
                if not ledger.loaded:
                    await ledger.load(people.batches())
                self.runs[name] = asyncsmtp.Run(composer, ledger, self.pool)
                async with aclosing(asyncsmtp.outcomes(self.runs[name])) as told:
                    async for _claim, settlement in told:
                        self.counts[name][str(settlement.state)] += 1
                self.counts[name] = Counter({str(state): n for state, n in (await ledger.counts()).items() if n})
        except asyncsmtp.SMTPError as error:  # it ends this campaign; the others go on
            self.ended_by[name] = str(error)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with asyncsmtp.Pool(asyncsmtp.Relay.from_url(RELAY)) as pool, asyncio.TaskGroup() as tasks:
        app.state.campaigns = Campaigns(pool, tasks)
        yield
        for run in app.state.campaigns.runs.values():
            run.stop()  # what is in flight is answered; the next start goes on with the rest


app = FastAPI(lifespan=lifespan)


@app.post("/campaigns/{name}", status_code=202)
async def begin(name: str, request: Request) -> dict[str, int]:
    """Take a CSV, check every row of it, and begin."""
    campaigns: Campaigns = request.app.state.campaigns
    if not re.fullmatch("[a-z0-9-]{1,40}", name):
        raise HTTPException(422, "a campaign's name is made of a-z, 0-9 and -")
    if name in campaigns.counts:
        raise HTTPException(409, f"{name} has begun already")
    path = FOLDER / f"{name}.csv"
    await asyncio.to_thread(path.write_bytes, await request.body())
    people = asyncsmtp.RecipientFile(path)
    try:
        composer = TEMPLATE.compile(await people.columns())
        report = await asyncsmtp.run_preflight(people, composer)
    except (asyncsmtp.RecipientError, asyncsmtp.TemplateError) as error:
        raise HTTPException(422, str(error)) from error
    campaigns.begin(name, people, composer)
    return {"recipients": report.recipients, "problems": report.rows - report.recipients}


@app.get("/campaigns/{name}")
async def look(name: str, request: Request) -> dict[str, str | int]:
    """How many are in each state so far, and what ended the campaign if anything did."""
    campaigns: Campaigns = request.app.state.campaigns
    if name not in campaigns.counts:
        raise HTTPException(404, f"there is no campaign {name}")
    ended = {"ended by": campaigns.ended_by[name]} if name in campaigns.ended_by else {}
    return {**campaigns.counts[name], **ended}
