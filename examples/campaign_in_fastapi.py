"""A FastAPI application that runs campaigns: a request starts one, another shows its counts.

Needs `pip install fastapi uvicorn`. Run `asyncsmtp sandbox` in another terminal, then, in this folder:

    uvicorn campaign_in_fastapi:app
    curl --data-binary @people.csv http://127.0.0.1:8000/campaigns/news
    curl http://127.0.0.1:8000/campaigns/news
"""

import asyncio
import os
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request

import asyncsmtp

FOLDER = Path(os.environ.get("CAMPAIGNS", "."))
RELAY = os.environ.get("RELAY", "smtp://localhost:2525?security=none")


class StartedCampaign:
    """A campaign that runs in this application, or ran."""

    def __init__(self, campaign: asyncsmtp.Campaign) -> None:
        self.campaign = campaign
        self.run = campaign.run()
        self.error = ""

    async def send(self) -> None:
        try:
            await self.run
        except asyncsmtp.SMTPError as error:  # this campaign ends, the others continue
            self.error = str(error)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    app.state.campaigns = {}
    async with asyncio.TaskGroup() as app.state.tasks:
        yield
        for started in app.state.campaigns.values():
            started.run.stop()  # messages in flight are finished; the next start resumes with the rest


app = FastAPI(lifespan=lifespan)


@app.post("/campaigns/{name}", status_code=202)
async def start(name: str, request: Request) -> dict[str, int]:
    """Store a CSV file, check every row of it, and start the campaign."""
    campaigns: dict[str, StartedCampaign] = request.app.state.campaigns
    if not re.fullmatch("[a-z0-9-]{1,40}", name):
        raise HTTPException(422, "the name of a campaign consists of a-z, 0-9 and -")
    if name in campaigns:
        raise HTTPException(409, f"the campaign {name} was started already")
    path = FOLDER / f"{name}.csv"
    await asyncio.to_thread(path.write_bytes, await request.body())
    campaign = asyncsmtp.Campaign(
        recipients=path,
        from_="Example News <news@example.org>",
        subject="News for {{ name }}",
        text="Dear {{ name }},\nthis is the news.\n",
        relay=RELAY,
    )
    try:
        report = (await campaign.check()).report
    except (asyncsmtp.RecipientError, asyncsmtp.TemplateError) as error:
        raise HTTPException(422, str(error)) from error
    campaigns[name] = StartedCampaign(campaign)
    request.app.state.tasks.create_task(campaigns[name].send())
    return {"recipients": report.recipients, "problems": report.rows - report.recipients}


@app.get("/campaigns/{name}")
async def show(name: str, request: Request) -> dict[str, str | int]:
    """Return the number of rows in each state, and the error that ended the campaign, if any."""
    campaigns: dict[str, StartedCampaign] = request.app.state.campaigns
    if name not in campaigns:
        raise HTTPException(404, f"there is no campaign {name}")
    started = campaigns[name]
    counts = {state: rows for state, rows in (await started.campaign.counts()).items() if rows}
    return counts | ({"error": started.error} if started.error else {})
