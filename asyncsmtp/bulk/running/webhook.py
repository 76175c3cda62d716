"""Outcomes posted to an HTTP server, in batches, in the background of a campaign."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from typing import Protocol, Self
from urllib.parse import urlsplit

from asyncsmtp.bulk.interfaces import Sleep, sleep_unless
from asyncsmtp.bulk.ledger.interfaces import Claim, Ledger, OutcomeStore, Settlement, settlement_record
from asyncsmtp.errors import InvalidArgument, LedgerError, MissingDependency, check_type
from asyncsmtp.protocol.envelope import to_a_labels
from asyncsmtp.protocol.replies import safe_text

__all__ = ["SIGNATURE_HEADER", "HttpPost", "Webhook", "check_url", "open_webhook"]

SIGNATURE_HEADER = "X-Asyncsmtp-Signature"
BATCH = 500  # outcomes of one request
BATCH_DELAY = 1.0  # seconds in which a batch is collected
TIMEOUT = 10.0  # seconds for one response, and for the rest at the end of a run
RETRY_DELAYS = (1.0, 2.0, 4.0, 8.0)  # seconds before each further try
MAX_WAITING = 50_000  # outcomes in memory; further ones are lost, and counted
MAX_ANSWER = 64 * 1024  # bytes of a response that are read …
ANSWER_TIMEOUT = 1.0  # … and seconds after its status

logger = logging.getLogger("asyncsmtp.campaign")


class HttpPost(Protocol):
    """A function that posts a request and returns the status of the response; any exception is a failed try."""

    async def __call__(self, body: bytes, headers: dict[str, str]) -> int: ...


class Webhook:
    """A client that posts outcomes as NDJSON, one a line; a repeated one has the same `id`.

    Use it in `async with`. Its failures are logged and do not affect the campaign; the ledger has every outcome.

    With a ledger that can keep outcomes, as those of asyncsmtp can, each is posted at least once: it is committed
    together with the row, and removed when the server has accepted it. What an earlier run did not post, since it was
    killed or the server did not respond, is posted first. Without one, outcomes are kept in memory, up to 50,000, and
    lost with the process.

    Args:
        secret: signs each body: `sha256=` and the HMAC in hex, in the header X-Asyncsmtp-Signature.
        delays: seconds before each further try.
        ledger: of the campaign, open as long as the webhook.
        sleep: sleeps, and returns early when the event is set.
    Attributes:
        delivered: number of outcomes that were accepted (2xx). lost: number of those that were given up in this run.
    """

    def __init__(
        self,
        post: HttpPost,
        secret: str | bytes | None = None,
        delays: Sequence[float] = RETRY_DELAYS,
        *,
        ledger: Ledger | None = None,
        sleep: Sleep = sleep_unless,
    ) -> None:
        self.delivered = 0
        self.lost = 0
        self._post = post
        check_type("secret", secret, str, bytes, None)
        self._secret = secret.encode() if isinstance(secret, str) else secret
        self._delays = delays
        self._sleep = sleep
        self._store = ledger if isinstance(ledger, OutcomeStore) else None
        self._after = ""  # the name of the last outcome that was read from the ledger
        self._waiting: deque[tuple[str, str]] = deque()  # without a ledger: a name, and the line
        self._number = 0  # outcomes since the last batches
        self._has_outcomes = asyncio.Event()
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def watch(self, claim: Claim, settlement: Settlement) -> None:
        """Post one outcome soon; pass it as `Run(watch=…)`."""
        if self._store is None:
            if len(self._waiting) >= MAX_WAITING:
                self.lost += 1
                return
            self._waiting.append(("", describe_outcome(claim, settlement)))
        self._number += 1
        self._has_outcomes.set()

    async def __aenter__(self) -> Self:
        if self._store is not None:
            self._store.keep_outcomes(describe_outcome)
            self._has_outcomes.set()  # an earlier run may have left some
        self._task = asyncio.create_task(self._run(), name="asyncsmtp: webhook")
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Post the remaining outcomes within `TIMEOUT` seconds; the rest is counted as lost."""
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
        if self._store is not None:
            with suppress(LedgerError):  # then the run ends with that
                self.lost = await self._store.count_outcomes()
        if self.lost:
            logger.warning("%d outcomes could not be posted to the webhook: the ledger has them", self.lost)

    async def _run(self) -> None:
        is_last = False
        with suppress(LedgerError):  # it ends the run, which reports it
            while not is_last:
                await self._has_outcomes.wait()
                if self._number < BATCH:
                    await self._sleep(BATCH_DELAY, self._ending)
                is_last = self._ending.is_set()
                self._number = 0
                self._has_outcomes.clear()
                while batch := await self._read_batch():
                    await self._post_batch(batch)

    async def _read_batch(self) -> Sequence[tuple[str, str]]:
        """Return name and line of the next outcomes; those that were given up are not read again in this run."""
        if self._store is None:
            return [self._waiting[place] for place in range(min(BATCH, len(self._waiting)))]
        return await self._store.read_outcomes(self._after, BATCH)

    async def _post_batch(self, batch: Sequence[tuple[str, str]]) -> None:
        body = "".join(line for _, line in batch).encode("ascii")
        headers = {"Content-Type": "application/x-ndjson"}
        if self._secret is not None:
            headers[SIGNATURE_HEADER] = f"sha256={hmac.digest(self._secret, body, 'sha256').hex()}"
        accepted = await self._post_with_retries(body, headers)
        if accepted:
            self.delivered += len(batch)
        else:
            self.lost += len(batch)
        if self._store is None:
            for _ in batch:
                self._waiting.popleft()
            return
        self._after = batch[-1][0]
        if accepted:
            await self._store.remove_outcomes([name for name, _ in batch])

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


def describe_outcome(claim: Claim, settlement: Settlement) -> str:
    """Return the line for one outcome, with its line end."""
    identifier = {"id": f"{claim.message_id}/{claim.attempt}"}
    return json.dumps(identifier | settlement_record(claim, settlement, attempt="attempt")) + "\n"


def check_url(url: str) -> None:
    """Raise InvalidArgument unless it is an http or https URL."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        to_a_labels(parts.netloc.rpartition("@")[2].partition(":")[0])
    except ValueError:  # an invalid IPv6 address, port or name
        usable = False
    if not usable:
        raise InvalidArgument(f"“{safe_text(url, 100)}” is not a URL for a webhook: give one that begins with https://")


@asynccontextmanager
async def open_webhook(
    url: str, secret: str | bytes | None = None, *, ledger: Ledger | None = None
) -> AsyncGenerator[Webhook]:
    """Open a webhook at a URL until the block ends; arguments as of `Webhook`.

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
            # Only the status matters. What follows is read as it came, neither kept nor decompressed, so that the
            # connection can be used again; an answer that is too long or too slow costs the connection instead.
            async with client.stream("POST", url, content=body, headers=headers) as response:
                with suppress(httpx.HTTPError, TimeoutError):
                    async with asyncio.timeout(ANSWER_TIMEOUT):
                        size = 0
                        async for chunk in response.aiter_raw():
                            size += len(chunk)
                            if size > MAX_ANSWER:
                                break
                return int(response.status_code)

        async with Webhook(post, secret, ledger=ledger) as hook:
            yield hook
