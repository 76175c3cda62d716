"""Mail providers of recipient domains, by their MX records: many domains may share one provider."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Self

from asyncsmtp.bulk.dns_resolver import DnsResolver
from asyncsmtp.mail.checks.spf import DnsQueryFailed
from asyncsmtp.mail.domains import organizational_domain
from asyncsmtp.protocol.replies import safe_text

__all__ = ["MxProviders"]

logger = logging.getLogger("asyncsmtp.campaign")

MAX_CONCURRENT = 20  # lookups
MAX_PENDING = 100  # domains that are being looked up; further rows wait until there are fewer
MAX_FAILURES = 10  # lookups without an answer, one after the other, after which DNS is no longer used
MAX_KNOWN = 50_000  # domains whose provider is kept


class MxProviders:
    """Background lookups of the provider that takes a domain's mail; use it in `async with`.

    The provider is the registered domain of the MX host with the lowest preference value; of several such hosts, of
    the first by name. A domain without MX records is its own host (RFC 5321 §5.1). A domain that takes no mail (RFC
    7505), does not exist, or is not answered for in time has no provider.

    Args:
        server: `host:port` of the name server to ask, an address; None for the system's.
        warn: called with a sentence when DNS is no longer used.
    """

    def __init__(self, server: str | None = None, *, warn: Callable[[str], object] = logger.warning) -> None:
        """Raises MissingDependency: dnspython is missing. InvalidArgument: `server` is not an address."""
        self._resolver = DnsResolver(server, purpose="limits by provider")
        self._warn = warn
        self._known: dict[str, str] = {}
        self._pending: set[str] = set()
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._failures = 0
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._tasks = [self._group.create_task(self._work()) for _ in range(MAX_CONCURRENT)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(kind, error, trace)

    @property
    def has_backlog(self) -> bool:
        """True if so many domains are being looked up that further ones should wait."""
        return len(self._pending) >= MAX_PENDING

    def known(self, domain: str) -> str | None:
        """Return the provider of a domain, in lower case; "" where it has none; None while it is being looked up."""
        found = self._known.get(domain)
        if found is not None:
            return found
        if domain.startswith("[") or self._failures >= MAX_FAILURES:
            return ""
        if domain not in self._pending:
            self._pending.add(domain)
            self._queue.put_nowait(domain)
        return None

    async def _work(self) -> None:
        while True:
            domain = await self._queue.get()
            found = "" if self._failures >= MAX_FAILURES else await self._look_up(domain)
            if len(self._known) >= MAX_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[domain] = found
            self._pending.discard(domain)

    async def _look_up(self, domain: str) -> str:
        try:
            answer = await self._resolver.resolve(domain, "MX")
        except DnsQueryFailed as error:
            self._failures += 1
            if self._failures == MAX_FAILURES:
                why = safe_text(str(error.__cause__), 200)
                self._warn(f"name servers do not answer, so limits of providers apply no longer: {why}")
            return ""
        self._failures = 0
        if answer is None:
            return ""
        best = min(
            ((int(value), host.lower()) for value, _, host in (mx.partition(" ") for mx in answer)), default=None
        )
        if best is None:
            return _provider(domain)
        return "" if best[1] == "." else _provider(best[1])


def _provider(host: str) -> str:
    """Return the domain registered for a host. Customers' names below it are part of it: mail of amazonaws.com."""
    return organizational_domain(host, private_suffixes=False)
