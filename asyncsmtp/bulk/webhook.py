"""Outcomes told to somebody else's server, in batches, beside the campaign and never in its way."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import urlsplit

from asyncsmtp.bulk.ledger import Claim, Settlement
from asyncsmtp.errors import InvalidArgument, MissingDependency
from asyncsmtp.protocol.replies import safe_text

__all__ = ["SIGNATURE", "Posts", "Webhook", "check_url", "webhook"]

SIGNATURE = "X-Asyncsmtp-Signature"
BATCH = 500  # outcomes of one request
GATHER = 1.0  # seconds in which a batch gathers
PATIENCE = 10.0  # seconds for one answer, and for what is left at the end of a run
TRIES = (1.0, 2.0, 4.0, 8.0)  # seconds before each further try
MOST_WAITING = 50_000  # outcomes that wait; further ones are not told, and counted

logger = logging.getLogger("asyncsmtp.campaign")


class Posts(Protocol):
    """What sends a request and returns the status of its answer; any exception is a try that failed."""

    async def __call__(self, body: bytes, headers: dict[str, str]) -> int: ...


class Webhook:
    """Tells outcomes as NDJSON, a line each, at least once: `id` is the same where one comes again.

    Use it within `async with`. Its failures are logged and cost the campaign nothing; the ledger has every outcome.

    Args:
        secret: signs each body: `sha256=` and the HMAC in hex, in the header X-Asyncsmtp-Signature.
    Attributes:
        told: outcomes that were taken (2xx). lost: those that were given up.
    """

    def __init__(self, posts: Posts, secret: bytes | None = None, tries: Sequence[float] = TRIES) -> None:
        self.told = 0
        self.lost = 0
        self._posts = posts
        self._secret = secret
        self._tries = tries
        self._waiting: deque[dict[str, object]] = deque()
        self._some = asyncio.Event()
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def watch(self, claim: Claim, settlement: Settlement) -> None:
        """Take one outcome; the watch of a Run."""
        if len(self._waiting) >= MOST_WAITING:
            self.lost += 1
            return
        self._waiting.append(
            {
                "id": f"{claim.message_id}/{claim.attempt}",
                "row": settlement.row,
                "email": str(claim.recipient.mailbox),
                "state": str(settlement.state),
                "code": settlement.code,
                "status": settlement.status,
                "reply": settlement.reply,
                "host": settlement.host,
                "attempt": claim.attempt,
                "message_id": claim.message_id,
            }
        )
        self._some.set()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="asyncsmtp: webhook")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell what is left, within `PATIENCE` seconds; what is not told then is lost, and counted."""
        self._ending.set()
        self._some.set()
        assert self._task is not None
        try:
            await asyncio.wait({self._task}, timeout=PATIENCE)
        finally:
            self._task.cancel()
            await asyncio.wait({self._task})
        self.lost += len(self._waiting)
        self._waiting.clear()
        if self.lost:
            logger.warning("%d outcomes could not be told to the webhook: the ledger has them", self.lost)

    async def _run(self) -> None:
        while self._waiting or not self._ending.is_set():
            await self._some.wait()
            if len(self._waiting) < BATCH:
                try:
                    async with asyncio.timeout(GATHER):
                        await self._ending.wait()
                except TimeoutError:
                    pass
            if self._waiting:
                await self._tell()

    async def _tell(self) -> None:
        batch = [self._waiting[place] for place in range(min(BATCH, len(self._waiting)))]
        body = "".join(json.dumps(one) + "\n" for one in batch).encode("ascii")
        headers = {"Content-Type": "application/x-ndjson"}
        if self._secret is not None:
            headers[SIGNATURE] = f"sha256={hmac.digest(self._secret, body, 'sha256').hex()}"
        taken = await self._posted(body, headers)
        for _ in batch:
            self._waiting.popleft()
        if taken:
            self.told += len(batch)
        else:
            self.lost += len(batch)
        if not (self._waiting or self._ending.is_set()):
            self._some.clear()

    async def _posted(self, body: bytes, headers: dict[str, str]) -> bool:
        why = ""
        for delay in (0.0, *self._tries):
            await asyncio.sleep(delay)
            try:
                async with asyncio.timeout(PATIENCE):
                    status = await self._posts(body, headers)
            except Exception as error:  # whatever the library raises
                why = f"{type(error).__name__}: {error}"
                continue
            if 200 <= status < 300:
                return True
            why = f"it answered {status}"
            if 400 <= status < 500 and status not in (408, 425, 429):
                break  # the same again would be answered the same
        logger.warning("the webhook does not take outcomes: %s", safe_text(why, 200))
        return False


def check_url(url: str) -> None:
    """Raise InvalidArgument for what is no http or https URL."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # brackets around what is no IPv6 address, a port that is none
        usable = False
    if not usable:
        raise InvalidArgument(f"“{safe_text(url, 100)}” is no URL for a webhook: give one that begins with https://")


@asynccontextmanager
async def webhook(url: str, secret: bytes | None = None) -> AsyncGenerator[Webhook]:
    """A webhook at a URL, told until the block ends.

    Raises:
        InvalidArgument: it is no http or https URL. MissingDependency: what speaks HTTP is optional, and not there.
    """
    check_url(url)
    try:
        httpx = import_module("httpx")
    except ImportError:
        raise MissingDependency("telling outcomes to a webhook", "asyncsmtp[http]") from None
    async with httpx.AsyncClient(timeout=PATIENCE, follow_redirects=False) as client:

        async def posts(body: bytes, headers: dict[str, str]) -> int:
            return int((await client.post(url, content=body, headers=headers)).status_code)

        async with Webhook(posts, secret) as hook:
            yield hook
