"""Who may send for a domain, as its SPF record says (RFC 7208): read as a receiver reads it, lookup by lookup."""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple, TypeVar

__all__ = ["Address", "DnsAnswer", "DnsQueries", "DnsQueryFailed", "DnsQuestion", "Spf", "addresses_of", "read_spf"]


class DnsQuestion(NamedTuple):
    """What is asked for: `kind` is TXT, MX, A, AAAA or PTR; `name` is a domain, for PTR an address."""

    name: str
    kind: str


class DnsQueryFailed(Exception):
    """Nobody answered in time, or with a failure: nothing is known. Thrown into the rule that asked."""

    def __init__(self, question: DnsQuestion, why: str) -> None:
        super().__init__(f"nobody answered for the {question.kind} of {question.name} ({why})")
        self.question = question


# Of MX "10 mx.example", of TXT the strings joined, names without a dot at the end; empty where there is nothing.
DnsAnswer = tuple[str, ...]
_T = TypeVar("_T")
DnsQueries = Generator[DnsQuestion, DnsAnswer, _T]

MOST_LOOKUPS = 10  # RFC 7208 §4.6.4: beyond it the result is "permerror"
_HOST = re.compile(r"(a|mx)(?::([^/]+))?(?:/([0-9]+))?(?://([0-9]+))?", re.IGNORECASE)  # RFC 7208 §5.3, §5.4
_ASKS = frozenset({"include", "a", "mx", "ptr", "exists", "redirect"})

Address = IPv4Address | IPv6Address


@dataclass(slots=True)
class Spf:
    """What a domain's record comes to.

    Attributes:
        records: how many there are; more than one is an error, RFC 7208 §4.5.
        otherwise: the qualifier of `all`, for who is not named: `-`, `~`, `?` or `+`; "" where there is no `all`.
        lookups: terms that made a receiver ask.
        names: addresses that pass, as far as they are written down.
        open_ended: whether there are others, by a macro, `exists` or `ptr`, that cannot be told beforehand.
        unknown: terms that are none.
    """

    records: int = 0
    otherwise: str = ""
    lookups: int = 0
    names: list[IPv4Network | IPv6Network] = field(default_factory=list)
    open_ended: bool = False
    unknown: list[str] = field(default_factory=list)

    @property
    def too_long(self) -> bool:
        """Whether a receiver gives it up."""
        return self.lookups > MOST_LOOKUPS

    def passes(self, address: Address) -> bool | None:
        """Whether mail from this address passes; None where that cannot be told."""
        if any(address in network for network in self.names) or self.otherwise == "+":
            return True
        return None if self.open_ended or self.too_long else False


def read_spf(domain: str) -> DnsQueries[Spf]:
    """Read a domain's record, and those it includes."""
    found = Spf()
    yield from _read(domain, found, first=True)
    return found


def _read(domain: str, found: Spf, *, first: bool) -> DnsQueries[None]:
    texts = yield DnsQuestion(domain, "TXT")
    records = [text for text in texts if text.lower() == "v=spf1" or text.lower().startswith("v=spf1 ")]
    if first:
        found.records = len(records)
    if len(records) != 1:
        return
    redirect = ""
    for term in records[0].split()[1:]:
        if found.too_long:
            return
        name, _, value = term.partition("=")
        if name.lower() == "redirect":
            redirect = value
        elif "=" not in term.partition(":")[0].partition("/")[0]:  # else a modifier that says nothing of who passes
            qualifier, mechanism = (term[0], term[1:]) if term[0] in "+-~?" else ("+", term)
            if mechanism.lower() == "all":
                if first:
                    found.otherwise = qualifier
                return  # what stands behind it is never looked at, RFC 7208 §5.1
            yield from _mechanism(mechanism, qualifier, domain, found)
    if redirect:
        found.lookups += 1
        if "%" in redirect:
            found.open_ended = True
        elif not found.too_long:
            yield from _read(redirect, found, first=first)


def _mechanism(text: str, qualifier: str, domain: str, found: Spf) -> DnsQueries[None]:
    name, _, value = text.partition(":")
    name = name.lower()
    host = _HOST.fullmatch(text)
    if host is not None:
        name = host[1].lower()
    found.lookups += name in _ASKS
    if name in ("ip4", "ip6"):
        _note(value, qualifier, found)
    elif "%" in value or name in ("exists", "ptr"):
        found.open_ended = True
    elif name == "include" and not found.too_long:
        yield from _read(value, found, first=False)
    elif host is not None and not found.too_long:
        hosts: tuple[str, ...] = (host[2] or domain,)
        if name == "mx":
            hosts = tuple(record.partition(" ")[2] for record in (yield DnsQuestion(hosts[0], "MX")))
        for each in hosts:
            for kind, width in (("A", host[3]), ("AAAA", host[4])):
                for address in (yield DnsQuestion(each, kind)):
                    _note(f"{address}/{width}" if width else address, qualifier, found)
    elif name not in _ASKS:
        found.unknown.append(text)


def _note(network: str, qualifier: str, found: Spf) -> None:
    try:
        named = ip_network(network, strict=False)
    except ValueError:
        found.unknown.append(network)
    else:
        if qualifier == "+":
            found.names.append(named)


def addresses_of(host: str) -> DnsQueries[list[Address]]:
    """The addresses of a host, or the one that it is."""
    try:
        return [ip_address(host)]
    except ValueError:
        pass
    found = []
    for kind in ("A", "AAAA"):
        found += [ip_address(text) for text in (yield DnsQuestion(host, kind))]
    return found
