"""Outcomes posted to an HTTP server, in batches, in the background of a campaign."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Protocol, Self
from urllib.parse import urlsplit

from asyncsmtp.bulk.interfaces import Sleep, sleep_unless
from asyncsmtp.bulk.ledger.interfaces import Claim, Settlement
from asyncsmtp.errors import InvalidArgument, MissingDependency, check_type
from asyncsmtp.protocol.replies import safe_text

__all__ = ["SIGNATURE_HEADER", "HttpPost", "Webhook", "check_url", "open_webhook"]

SIGNATURE_HEADER = "X-Asyncsmtp-Signature"
BATCH = 500  # outcomes of one request
BATCH_DELAY = 1.0  # seconds in which a batch is collected
TIMEOUT = 10.0  # seconds for one response, and for the rest at the end of a run
RETRY_DELAYS = (1.0, 2.0, 4.0, 8.0)  # seconds before each further try
MAX_WAITING = 50_000  # outcomes; further ones are lost, and counted

logger = logging.getLogger("asyncsmtp.campaign")


class HttpPost(Protocol):
    """A function that posts a request and returns the status of the response; any exception is a failed try."""

    async def __call__(self, body: bytes, headers: dict[str, str]) -> int: ...


class Webhook:
    """A client that posts outcomes as NDJSON, one a line, at least once: a repeated one has the same `id`.

    Use it in `async with`. Its failures are logged and do not affect the campaign; the ledger has every outcome.
    It is passed each one when that is queued for the ledger: see `Run`.

    Args:
        secret: signs each body: `sha256=` and the HMAC in hex, in the header X-Asyncsmtp-Signature.
        delays: seconds before each further try.
        sleep: sleeps, and returns early when the event is set.
    Attributes:
        delivered: number of outcomes that were accepted (2xx). lost: number of those that were given up.
    """

    def __init__(
        self,
        post: HttpPost,
        secret: str | bytes | None = None,
        delays: Sequence[float] = RETRY_DELAYS,
        *,
        sleep: Sleep = sleep_unless,
    ) -> None:
        self.delivered = 0
        self.lost = 0
        self._post = post
        check_type("secret", secret, str, bytes, None)
        self._secret = secret.encode() if isinstance(secret, str) else secret
        self._delays = delays
        self._sleep = sleep
        self._waiting: deque[dict[str, object]] = deque()
        self._has_outcomes = asyncio.Event()
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def watch(self, claim: Claim, settlement: Settlement) -> None:
        """Add one outcome; pass it as `Run(watch=…)`."""
        if len(self._waiting) >= MAX_WAITING:
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
        self._has_outcomes.set()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="asyncsmtp: webhook")
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Post the remaining outcomes within `TIMEOUT` seconds; the rest is lost, and counted."""
        self._ending.set()
        self._has_outcomes.set()
        assert self._task is not None
        try:
            await asyncio.wait({self._task}, timeout=TIMEOUT)
        finally:
            self._task.cancel()
            await asyncio.wait({self._task})
        self.lost += len(self._waiting)
        self._waiting.clear()
        if self.lost:
            logger.warning("%d outcomes could not be posted to the webhook: the ledger has them", self.lost)

    async def _run(self) -> None:
        while self._waiting or not self._ending.is_set():
            await self._has_outcomes.wait()
            if len(self._waiting) < BATCH:
                await self._sleep(BATCH_DELAY, self._ending)
            if self._waiting:
                await self._post_batch()

    async def _post_batch(self) -> None:
        batch = [self._waiting[place] for place in range(min(BATCH, len(self._waiting)))]
        body = "".join(json.dumps(one) + "\n" for one in batch).encode("ascii")
        headers = {"Content-Type": "application/x-ndjson"}
        if self._secret is not None:
            headers[SIGNATURE_HEADER] = f"sha256={hmac.digest(self._secret, body, 'sha256').hex()}"
        accepted = await self._post_with_retries(body, headers)
        for _ in batch:
            self._waiting.popleft()
        if accepted:
            self.delivered += len(batch)
        else:
            self.lost += len(batch)
        if not (self._waiting or self._ending.is_set()):
            self._has_outcomes.clear()

    async def _post_with_retries(self, body: bytes, headers: dict[str, str]) -> bool:
        why, never = "", asyncio.Event()  # also at the end of a run there are pauses between the tries
        for delay in (0.0, *self._delays):
            await self._sleep(delay, never)
            try:
                async with asyncio.timeout(TIMEOUT):
                    status = await self._post(body, headers)
            except Exception as error:  # the function may raise anything
                why = f"{type(error).__name__}: {error}"
                continue
            if 200 <= status < 300:
                return True
            why = f"status {status}"
            if 400 <= status < 500 and status not in (408, 425, 429):
                break  # the same request would fail again
        logger.warning("the webhook does not accept outcomes: %s", safe_text(why, 200))
        return False


def check_url(url: str) -> None:
    """Raise InvalidArgument unless it is an http or https URL."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # an invalid IPv6 address or port
        usable = False
    if not usable:
        raise InvalidArgument(f"“{safe_text(url, 100)}” is not a URL for a webhook: give one that begins with https://")


@asynccontextmanager
async def open_webhook(url: str, secret: str | bytes | None = None) -> AsyncGenerator[Webhook]:
    """Open a webhook at a URL until the block ends.

    Raises:
        InvalidArgument: not an http or https URL. MissingDependency: httpx is missing.
    """
    check_type("url", url, str)
    check_url(url)
    try:
        httpx = import_module("httpx")  # an extra
    except ImportError:
        raise MissingDependency("posting outcomes to a webhook", "asyncsmtp[http]") from None
    async with httpx.AsyncClient(timeout=TIMEOUT, follow_redirects=False) as client:

        async def post(body: bytes, headers: dict[str, str]) -> int:
            return int((await client.post(url, content=body, headers=headers)).status_code)

        async with Webhook(post, secret) as hook:
            yield hook
