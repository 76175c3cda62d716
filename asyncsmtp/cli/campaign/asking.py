"""The sender of a campaign, for the DNS rules of `mail.checks`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsmtp.client.config.proxy import parse_host_port, split_url
from asyncsmtp.errors import InvalidArgument, MissingDependency
from asyncsmtp.mail.checks.spf import DnsAnswer, DnsQueries, DnsQueryFailed, DnsQuestion

if TYPE_CHECKING:
    from asyncsmtp.cli.campaign.settings import Settings
    from asyncsmtp.mail.checks.dns_rules import SenderDomain
    from asyncsmtp.mail.message import Message

__all__ = ["sender_of"]


def sender_of(settings: Settings, sample: Message) -> SenderDomain:
    """Who sends a campaign, by its settings and one of its messages."""
    from asyncsmtp.mail.checks.dns_rules import SenderDomain
    from asyncsmtp.mail.checks.parsed_message import parse_message

    seen = parse_message(sample)
    urls = [url for url in (settings.relay, *(share.url for share in settings.shares)) if url is not None]
    places = [place for url in urls for place in split_url(url).netloc.rpartition("@")[2].split(",") if place]
    keys = [signature.load() for signature in settings.signatures]
    return SenderDomain(
        author=seen.author,
        return_path=seen.return_path or seen.author,
        keys=[(key.name, key.record) for key in keys],
        relays=[parse_host_port(place)[0] for place in places],
    )


async def answered(asking: DnsQueries[_T], server: str | None = None) -> _T:
    """Ask until it asks no more; return what it comes to. A question that comes again is asked once.

    Args:
        server: `host:port` of the name server, an address; None for the system's.
    Raises:
        MissingDependency: dnspython is not there. InvalidArgument: `server` is no address.
    """
    resolver = _resolver(server)
    known: dict[DnsQuestion, DnsAnswer | DnsQueryFailed] = {}
    try:
        question = next(asking)
        while True:
            if question not in known:
                known[question] = await _ask(resolver, question)
            answer = known[question]
            question = asking.throw(answer) if isinstance(answer, DnsQueryFailed) else asking.send(answer)
    except StopIteration as end:
        result: _T = end.value
        return result


def _resolver(server: str | None) -> Resolver:
    try:
        from dns.asyncresolver import Resolver
        from dns.exception import DNSException
    except ImportError:
        raise MissingDependency("asking the name system", "asyncsmtp[dns]") from None
    try:
        resolver = Resolver(configure=server is None)
        if server is not None:
            host, port = parse_host_port(server)
            resolver.port = port or 53
            resolver.nameservers = [host]
    except (DNSException, ValueError) as error:
        raise InvalidArgument(
            f"the name server {server or ''} cannot be asked: give an address, 192.0.2.1:53"
        ) from error
    return resolver


async def _ask(resolver: Resolver, question: DnsQuestion) -> DnsAnswer | DnsQueryFailed:
    from dns.exception import DNSException
    from dns.resolver import NXDOMAIN, NoAnswer
    from dns.reversename import from_address

    try:
        name = from_address(question.name) if question.kind == "PTR" else f"{question.name}."
        found = await resolver.resolve(name, question.kind, lifetime=PATIENCE)
    except (NXDOMAIN, NoAnswer):
        return ()
    except (DNSException, OSError, ValueError) as error:
        return DnsQueryFailed(question, type(error).__name__)
    return tuple(map(_TEXTS.get(question.kind, str), found))


def _text(record: Rdata) -> str:
    strings: tuple[bytes, ...] = record.strings  # type: ignore[attr-defined]  # of a TXT
    return b"".join(strings).decode("utf-8", "backslashreplace")


def _without_dot(record: Rdata) -> str:
    text = str(record)
    return text[:-1] if text.endswith(".") and not text.endswith(" .") else text


_TEXTS: dict[str, Callable[[Rdata], str]] = {"TXT": _text, "MX": _without_dot, "PTR": _without_dot}
