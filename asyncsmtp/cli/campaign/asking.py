"""Asks the name system what the rules of `mail.checks` want to know, with dnspython."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from asyncsmtp.client.settings.hosts import host_and_port, split_url
from asyncsmtp.errors import BadArgument, NotInstalled
from asyncsmtp.mail.checks.asking import Answer, Asking, Question, Unanswered

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver
    from dns.rdata import Rdata

    from asyncsmtp.cli.campaign.settings import Settings
    from asyncsmtp.mail.checks.published import Sender
    from asyncsmtp.mail.message import Message

__all__ = ["answered", "sender_of"]

PATIENCE = 5.0  # seconds for one question, in all
_T = TypeVar("_T")


def sender_of(settings: Settings, sample: Message) -> Sender:
    """Who sends a campaign, by its settings and one of its messages."""
    from asyncsmtp.mail.checks.published import Sender
    from asyncsmtp.mail.checks.seen import see

    seen = see(sample)
    urls = [url for url in (settings.relay, *(share.url for share in settings.shares)) if url is not None]
    places = [place for url in urls for place in split_url(url).netloc.rpartition("@")[2].split(",") if place]
    keys = [signature.load() for signature in settings.signatures]
    return Sender(
        author=seen.author,
        reverse=seen.reverse or seen.author,
        keys=[(key.name, key.record) for key in keys],
        relays=[host_and_port(place)[0] for place in places],
    )


async def answered(asking: Asking[_T], server: str | None = None) -> _T:
    """Ask until it asks no more; return what it comes to. A question that comes again is asked once.

    Args:
        server: `host:port` of the name server, an address; None for the system's.
    Raises:
        NotInstalled: dnspython is not there. BadArgument: `server` is no address.
    """
    resolver = _resolver(server)
    known: dict[Question, Answer | Unanswered] = {}
    try:
        question = next(asking)
        while True:
            if question not in known:
                known[question] = await _ask(resolver, question)
            answer = known[question]
            question = asking.throw(answer) if isinstance(answer, Unanswered) else asking.send(answer)
    except StopIteration as end:
        result: _T = end.value
        return result


def _resolver(server: str | None) -> Resolver:
    try:
        from dns.asyncresolver import Resolver
        from dns.exception import DNSException
    except ImportError:
        raise NotInstalled("asking the name system", "asyncsmtp[dns]") from None
    try:
        resolver = Resolver(configure=server is None)
        if server is not None:
            host, port = host_and_port(server)
            resolver.port = port or 53
            resolver.nameservers = [host]
    except (DNSException, ValueError) as error:
        raise BadArgument(f"the name server {server or ''} cannot be asked: give an address, 192.0.2.1:53") from error
    return resolver


async def _ask(resolver: Resolver, question: Question) -> Answer | Unanswered:
    from dns.exception import DNSException
    from dns.resolver import NXDOMAIN, NoAnswer
    from dns.reversename import from_address

    try:
        name = from_address(question.name) if question.kind == "PTR" else f"{question.name}."
        found = await resolver.resolve(name, question.kind, lifetime=PATIENCE)
    except (NXDOMAIN, NoAnswer):
        return ()
    except (DNSException, OSError, ValueError) as error:
        return Unanswered(question, type(error).__name__)
    return tuple(map(_TEXTS.get(question.kind, str), found))


def _text(record: Rdata) -> str:
    strings: tuple[bytes, ...] = record.strings  # type: ignore[attr-defined]  # of a TXT
    return b"".join(strings).decode("utf-8", "backslashreplace")


def _without_dot(record: Rdata) -> str:
    text = str(record)
    return text[:-1] if text.endswith(".") and not text.endswith(" .") else text


_TEXTS: dict[str, Callable[[Rdata], str]] = {"TXT": _text, "MX": _without_dot, "PTR": _without_dot}
