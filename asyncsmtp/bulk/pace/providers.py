"""Whose machines take the mail of a domain: recipients at many domains may all be one provider's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from asyncsmtp.client.config.proxy import parse_host_port
from asyncsmtp.errors import InvalidArgument, MissingDependency
from asyncsmtp.mail.domains import organizational_domain
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

__all__ = ["Providers"]

logger = logging.getLogger("asyncsmtp.campaign")

AT_ONCE = 20  # lookups
CROWD = 100  # domains that are being looked up: further rows wait until there are fewer
PATIENCE = 5.0  # seconds for one lookup, in all
SILENCE = 10  # lookups, one after the other, that were not answered: from then on nothing is asked
KEPT = 50_000  # domains whose provider is remembered


class Providers:
    """Looks up, beside what is sent, who takes a domain's mail; use it in `async with`.

    A provider is that of the MX host of the least preference value; of several such, the first by its name. A domain
    without MX is its own host (RFC 5321 §5.1). One that takes no mail (RFC 7505), does not exist, or is not answered
    for in time stands by itself.

    Args:
        server: `host:port` of the name server to ask, an address; None for the system's.
        warn: says when nothing is asked any more.
    """

    def __init__(self, server: str | None = None, *, warn: Callable[[str], object] = logger.warning) -> None:
        """Raises MissingDependency: dnspython is not there. InvalidArgument: `server` is no address."""
        try:
            from dns.asyncresolver import Resolver
        except ImportError:
            raise MissingDependency("limits by provider", "asyncsmtp[dns]") from None
        self._resolver: Resolver = Resolver(configure=server is None)
        if server is not None:
            host, port = parse_host_port(server)
            try:
                self._resolver.port = port or 53
                self._resolver.nameservers = [host]
            except ValueError as error:
                raise InvalidArgument(f"the name server {host} is no address: give one such as 192.0.2.1:53") from error
        self._warn = warn
        self._known: dict[str, str] = {}
        self._asked: set[str] = set()
        self._questions: asyncio.Queue[str] = asyncio.Queue()
        self._unanswered = 0
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._tasks = [self._group.create_task(self._work()) for _ in range(AT_ONCE)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(kind, error, trace)

    @property
    def crowded(self) -> bool:
        """Whether so many domains are being looked up that further ones had better wait."""
        return len(self._asked) >= CROWD

    def known(self, domain: str) -> str | None:
        """The provider of a domain, in lower case; "" where it stands by itself; None while it is being looked up."""
        found = self._known.get(domain)
        if found is not None:
            return found
        if domain.startswith("[") or self._unanswered >= SILENCE:
            return ""
        if domain not in self._asked:
            self._asked.add(domain)
            self._questions.put_nowait(domain)
        return None

    async def _work(self) -> None:
        while True:
            domain = await self._questions.get()
            found = "" if self._unanswered >= SILENCE else await self._look_up(domain)
            if len(self._known) >= KEPT:
                del self._known[next(iter(self._known))]
            self._known[domain] = found
            self._asked.discard(domain)

    async def _look_up(self, domain: str) -> str:
        from dns.exception import DNSException
        from dns.resolver import NXDOMAIN, NoAnswer

        try:
            answer = await self._resolver.resolve(f"{domain}.", "MX", lifetime=PATIENCE)
        except NXDOMAIN:
            self._unanswered = 0
            return ""
        except NoAnswer:
            self._unanswered = 0
            return organizational_domain(domain)
        except (DNSException, OSError, ValueError) as error:
            self._unanswered += 1
            if self._unanswered == SILENCE:
                self._warn(
                    f"name servers do not answer, so limits of providers hold no longer: {safe_text(str(error), 200)}"
                )
            return ""
        self._unanswered = 0
        _, best = min((record.preference, record.exchange.to_text().lower()) for record in answer)
        return "" if best == "." else organizational_domain(best)
