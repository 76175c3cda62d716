"""SPF evaluation with the lookups that a receiver would make, and the DNS questions of rules (RFC 7208)."""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple, TypeVar

__all__ = ["DnsAnswer", "DnsQueries", "DnsQueryFailed", "DnsQuestion", "IpAddress", "Spf", "read_spf", "resolve_host"]


class DnsQuestion(NamedTuple):
    """A DNS question: `kind` is TXT, MX, A, AAAA or PTR; `name` is a domain, or an address for PTR."""

    name: str
    kind: str


class DnsQueryFailed(Exception):
    """No answer in time, or an error; thrown into the rule that asked."""

    def __init__(self, question: DnsQuestion, why: str) -> None:
        super().__init__(f"there was no answer for the {question.kind} record of {question.name} ({why})")
        self.question = question


# MX records as "10 mx.example", TXT as the joined strings, names without the trailing “.”; empty if there is no record.
# A rule is a generator: it yields questions and is sent the answers, so that it needs no network itself.
DnsAnswer = tuple[str, ...]
_T = TypeVar("_T")
DnsQueries = Generator[DnsQuestion, DnsAnswer, _T]

MAX_LOOKUPS = 10  # RFC 7208 §4.6.4: beyond it the result is "permerror"
_HOST = re.compile(r"(a|mx)(?::([^/]+))?(?:/([0-9]+))?(?://([0-9]+))?", re.IGNORECASE)  # RFC 7208 §5.3, §5.4
_LOOKUP_TERMS = frozenset({"include", "a", "mx", "ptr", "exists", "redirect"})

IpAddress = IPv4Address | IPv6Address


@dataclass(slots=True)
class Spf:
    """The result of evaluating a domain's SPF record.

    Attributes:
        records: the number of records; more than one is an error, RFC 7208 §4.5.
        all_qualifier: the qualifier of `all`, for addresses that are not named: `-`, `~`, `?` or `+`; "" without `all`.
        lookups: the number of terms that need a DNS lookup.
        networks: addresses that pass, as far as they are listed.
        open_ended: others may pass too, by a macro, `exists` or `ptr`, which cannot be evaluated in advance.
        unknown: terms that are not valid.
    """

    records: int = 0
    all_qualifier: str = ""
    lookups: int = 0
    networks: list[IPv4Network | IPv6Network] = field(default_factory=list)
    open_ended: bool = False
    unknown: list[str] = field(default_factory=list)

    @property
    def exceeds_lookup_limit(self) -> bool:
        """True if receivers give up on the record."""
        return self.lookups > MAX_LOOKUPS

    def allows(self, address: IpAddress) -> bool | None:
        """Return whether mail from this address passes; None if that cannot be evaluated."""
        if any(address in network for network in self.networks) or self.all_qualifier == "+":
            return True
        return None if self.open_ended or self.exceeds_lookup_limit else False


def read_spf(domain: str) -> DnsQueries[Spf]:
    """Evaluate a domain's record and those it includes."""
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
        if found.exceeds_lookup_limit:
            return
        name, _, value = term.partition("=")
        if name.lower() == "redirect":
            redirect = value
        elif "=" not in term.partition(":")[0].partition("/")[0]:  # otherwise a modifier that does not decide
            qualifier, mechanism = (term[0], term[1:]) if term[0] in "+-~?" else ("+", term)
            if mechanism.lower() == "all":
                if first:
                    found.all_qualifier = qualifier
                return  # terms behind it are ignored, RFC 7208 §5.1
            yield from _mechanism(mechanism, qualifier, domain, found)
    if redirect:
        found.lookups += 1
        if "%" in redirect:
            found.open_ended = True
        elif not found.exceeds_lookup_limit:
            yield from _read(redirect, found, first=first)


def _mechanism(text: str, qualifier: str, domain: str, found: Spf) -> DnsQueries[None]:
    name, _, value = text.partition(":")
    name = name.lower()
    host = _HOST.fullmatch(text)
    if host is not None:
        name = host[1].lower()
    found.lookups += name in _LOOKUP_TERMS
    if name in ("ip4", "ip6"):
        _add_network(value, qualifier, found)
    elif "%" in value or name in ("exists", "ptr"):
        found.open_ended = True
    elif name == "include" and not found.exceeds_lookup_limit:
        yield from _read(value, found, first=False)
    elif host is not None and not found.exceeds_lookup_limit:
        hosts: tuple[str, ...] = (host[2] or domain,)
        if name == "mx":
            hosts = tuple(record.partition(" ")[2] for record in (yield DnsQuestion(hosts[0], "MX")))
        for each in hosts:
            for kind, width in (("A", host[3]), ("AAAA", host[4])):
                for address in (yield DnsQuestion(each, kind)):
                    _add_network(f"{address}/{width}" if width else address, qualifier, found)
    elif name not in _LOOKUP_TERMS:
        found.unknown.append(text)


def _add_network(network: str, qualifier: str, found: Spf) -> None:
    try:
        named = ip_network(network, strict=False)
    except ValueError:
        found.unknown.append(network)
    else:
        if qualifier == "+":
            found.networks.append(named)


def resolve_host(host: str) -> DnsQueries[list[IpAddress]]:
    """Return the addresses of a host, or the address that `host` is."""
    try:
        return [ip_address(host)]
    except ValueError:
        pass
    found = []
    for kind in ("A", "AAAA"):
        found += [ip_address(text) for text in (yield DnsQuestion(host, kind))]
    return found
