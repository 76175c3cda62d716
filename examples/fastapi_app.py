"""A FastAPI application that sends one mail for each request, through a pool that lives as long as the application.

Needs `pip install fastapi uvicorn`. Run `asyncsmtp sandbox` in another terminal, then, in this folder:

    uvicorn fastapi_app:app
    curl -d '' 'http://127.0.0.1:8000/welcome?to=ann@example.com&name=Ann'
"""

import logging
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import uuid4

from fastapi import FastAPI, HTTPException, Request

import asyncsmtp

RELAY = os.environ.get("RELAY", "smtp://localhost:2525?security=none")
SENDER = "Example <hello@example.org>"
RETRY = asyncsmtp.Retry(attempts=3)  # after a broken connection or a 4xx reply
SECONDS = 20.0  # retries included; a request does not take longer

logger = logging.getLogger(__name__)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with asyncsmtp.Pool(RELAY, sessions=4, retry=RETRY) as app.state.pool:
        yield  # at the end the pool closes its connections


app = FastAPI(lifespan=lifespan)


@app.post("/welcome")
async def welcome(to: str, name: str, request: Request) -> dict[str, str]:
    """Send a mail and report what happened to it.

    200: the relay accepted it. 422: it refused the recipient for good, or `to` is not an address. 503: it was not
    delivered, and the same request may be made again later. 504: the relay may or may not have it.
    """
    pool: asyncsmtp.Pool = request.app.state.pool
    message_id = f"{uuid4().hex}@example.org"
    try:
        message = asyncsmtp.build(
            from_=SENDER, to=to, subject="Welcome", text=f"Hello {name}!\n", message_id=message_id
        )
        delivery = await pool.send(message, deadline=SECONDS, hard=True)
    except asyncsmtp.MessageError as error:  # an invalid address, for example
        raise HTTPException(422, str(error)) from error
    except asyncsmtp.DeliveryInDoubt as error:  # the content was sent, but no reply came
        logger.warning("mail %s to %s is in doubt: %s", message_id, to, error)
        raise HTTPException(504, f"mail {message_id} may have been sent: do not request it again") from error
    except asyncsmtp.SMTPError as error:  # no connection, no login, no time
        logger.warning("mail %s to %s was not delivered: %s", message_id, to, error)
        raise HTTPException(503, "the mail was not delivered: try again later") from error
    for result in delivery:
        if result.outcome is asyncsmtp.Outcome.REJECTED:
            raise HTTPException(422, f"the mail to {result.address} was refused: {result.reply}")
        if result.outcome is asyncsmtp.Outcome.DEFERRED:
            raise HTTPException(503, f"the mail to {result.address} was refused for now: {result.reply}")
    return {"outcome": "accepted", "message_id": message_id}
