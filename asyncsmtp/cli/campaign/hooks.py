"""The webhook of a run, if it has one."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from asyncsmtp.cli.output import console

if TYPE_CHECKING:
    from asyncsmtp.bulk.webhook import Webhook

__all__ = ["told_to"]

VARIABLE = "ASYNCSMTP_WEBHOOK_SECRET"


@asynccontextmanager
async def told_to(url: str | None) -> AsyncGenerator[Webhook | None]:
    """Tell outcomes to `url` until the block ends; say how many it did not take."""
    if url is None:
        yield None
        return
    from asyncsmtp.bulk.webhook import open_webhook

    secret = os.environ.get(VARIABLE)
    async with open_webhook(url, secret.encode("utf-8", "surrogateescape") if secret else None) as hook:
        yield hook
    if hook.lost:
        console.say(f"the webhook did not take {console.many(hook.lost, 'outcome')}: the ledger has them")
