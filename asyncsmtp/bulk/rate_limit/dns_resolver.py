"""DNS queries with dnspython, and the mail providers of recipients' domains by their MX records."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from asyncsmtp.client.config.hostport import parse_host_port
from asyncsmtp.errors import InvalidArgument, MissingDependency
from asyncsmtp.mail.address import organizational_domain
from asyncsmtp.mail.checks.dns_rules import DnsAnswer, DnsQueries, DnsQueryFailed, DnsQuestion
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from dns.rdata import Rdata

__all__ = ["QUERY_TIMEOUT", "DnsResolver", "MxProviders"]

QUERY_TIMEOUT = 5.0  # seconds for one query, retries included
_T = TypeVar("_T")


class DnsResolver:
    """A stub resolver: the system's, or one name server.

    Args:
        server: `host:port` of the name server, an address; None for the system's.
        purpose: a phrase for the error when dnspython is missing.
    """

    def __init__(self, server: str | None = None, *, purpose: str = "DNS queries") -> None:
        """Raises MissingDependency: dnspython is missing. InvalidArgument: `server` is not an address."""
        try:
            from dns.asyncresolver import Resolver  # an extra
            from dns.exception import DNSException
        except ImportError:
            raise MissingDependency(purpose, "asyncsmtp[dns]") from None
        try:
            self._resolver = Resolver(configure=server is None)
            if server is not None:
                host, port = parse_host_port(server)
                self._resolver.port = port or 53
                self._resolver.nameservers = [host]
        except (DNSException, ValueError) as error:
            name = server or "of this system"
            raise InvalidArgument(f"the name server {name} is not an address: give one such as 192.0.2.1:53") from error

    async def resolve(self, name: str, kind: str) -> DnsAnswer | None:
        """Look up one name; return its records as text, None where the name does not exist.

        Args:
            name: a domain; an address where `kind` is PTR.
        Raises:
            DnsQueryFailed: no answer in time, or a failure; nothing is known. `__cause__` is dnspython's error.
        """
        from dns.exception import DNSException
        from dns.resolver import NXDOMAIN, NoAnswer
        from dns.reversename import from_address

        try:
            asked = from_address(name) if kind == "PTR" else f"{name}."
            found = await self._resolver.resolve(asked, kind, lifetime=QUERY_TIMEOUT)
        except NXDOMAIN:
            return None
        except NoAnswer:
            return ()
        except (DNSException, OSError, ValueError) as error:
            raise DnsQueryFailed(DnsQuestion(name, kind), type(error).__name__) from error
        return tuple(map(_FORMATS.get(kind, str), found))

    async def answer(self, queries: DnsQueries[_T]) -> _T:
        """Answer the questions of a generator, each once, until it ends; return its result."""
        known: dict[DnsQuestion, DnsAnswer | DnsQueryFailed] = {}
        try:
            question = next(queries)
            while True:
                if question not in known:
                    try:
                        known[question] = await self.resolve(question.name, question.kind) or ()
                    except DnsQueryFailed as error:
                        known[question] = error
                answer = known[question]
                question = queries.throw(answer) if isinstance(answer, DnsQueryFailed) else queries.send(answer)
        except StopIteration as end:
            result: _T = end.value
            return result


def _joined_strings(record: Rdata) -> str:
    strings: tuple[bytes, ...] = record.strings  # type: ignore[attr-defined]  # of a TXT record
    return b"".join(strings).decode("utf-8", "backslashreplace")


def _without_final_dot(record: Rdata) -> str:
    text = str(record)
    return text[:-1] if text.endswith(".") and not text.endswith(" .") else text  # "0 ." is a null MX (RFC 7505)


_FORMATS: dict[str, Callable[[Rdata], str]] = {
    "TXT": _joined_strings,
    "MX": _without_final_dot,
    "PTR": _without_final_dot,
}

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
