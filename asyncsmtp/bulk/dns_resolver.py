"""DNS queries with dnspython: for the providers of recipients' domains, and for `check --dns`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from asyncsmtp.client.config.proxy import parse_host_port
from asyncsmtp.errors import InvalidArgument, MissingDependency
from asyncsmtp.mail.checks.spf import DnsAnswer, DnsQueries, DnsQueryFailed, DnsQuestion

if TYPE_CHECKING:
    from dns.rdata import Rdata

__all__ = ["QUERY_TIMEOUT", "DnsResolver"]

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
