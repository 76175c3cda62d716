"""Rules for the sender's DNS records, one function for each: SPF (RFC 7208), DKIM, DMARC, MX, and the reverse name.

Each rule is a generator of DNS questions, see `DnsQueries`. A question without an answer is an objection
of its own, so the rule does not pass.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple, TypeVar

from asyncsmtp.mail.address import organizational_domain
from asyncsmtp.mail.checks.rules import Finding, FindingLevel
from asyncsmtp.protocol.replies import safe_text

__all__ = [
    "DNS_RULES",
    "DnsAnswer",
    "DnsQueries",
    "DnsQueryFailed",
    "DnsQuestion",
    "SenderDomain",
    "Spf",
    "check_dns",
    "read_spf",
]


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


_Result = tuple[FindingLevel, str, str]  # level, sentence, advice
_OBJECTION, _NOTE = FindingLevel.OBJECTION, FindingLevel.NOTE


@dataclass(frozen=True, slots=True)
class SenderDomain:
    """The domains and relays of a sender.

    Attributes:
        author: the domain in From, in lower case.
        return_path: the domain of the reverse-path, in lower case.
        keys: the DNS name of each DKIM key, and the record that belongs there.
        relays: the hosts of the relay; empty if it is a Unix socket.
    """

    author: str
    return_path: str
    keys: Sequence[tuple[str, str]] = ()
    relays: Sequence[str] = ()


def _check_spf(sender: SenderDomain) -> DnsQueries[list[_Result]]:
    domain = _quote(sender.return_path)
    found = yield from read_spf(sender.return_path)
    if found.records != 1:
        records = f"{found.records or 'no'} SPF record{'s' if found.records > 1 else ''}"
        advice = 'publish one TXT, such as "v=spf1 include:… -all" with the terms that your relay documents'
        return [(_OBJECTION, f"{domain} has {records}, but must have one", advice)]
    results: list[_Result] = []
    if found.exceeds_lookup_limit:
        sentence = f"the SPF record of {domain} needs more than 10 lookups: receivers ignore it (RFC 7208 §4.6.4)"
        results.append((_OBJECTION, sentence, "use fewer includes, or list addresses with ip4: and ip6:"))
    if found.unknown:
        sentence = f"the SPF record of {domain} has a term that is not valid: {_quote(found.unknown[0])}"
        results.append((_OBJECTION, sentence, "correct it: receivers reject the whole record"))
    if found.exceeds_lookup_limit or found.unknown:
        return results  # the rest was not read, or does not count
    if found.all_qualifier == "+":
        results.append((_OBJECTION, f"the SPF record of {domain} allows anybody to send", "end it with -all or ~all"))
    elif found.all_qualifier in ("", "?"):
        sentence = f"the SPF record of {domain} does not say what holds for other senders"
        results.append((_NOTE, sentence, "end it with ~all, or -all"))
    for address in (yield from _resolve_relays(sender)):
        if found.allows(address) is False:
            sentence = f"the SPF record of {domain} does not include the relay, {address}"
            advice = "include it, unless the relay sends from other addresses that are included"
            results.append((_NOTE, sentence, advice))
    return results


def _check_dkim(sender: SenderDomain) -> DnsQueries[list[_Result]]:
    results: list[_Result] = []
    for name, wanted in sender.keys:
        texts = yield DnsQuestion(name, "TXT")
        keys = [tags for tags in map(_parse_tags, texts) if "p" in tags]
        publish = f'publish the TXT "{wanted}"'
        if len(keys) != 1:
            sentence = f"there is {'more than one' if keys else 'no'} DKIM key at {_quote(name)}"
            results.append((_OBJECTION, sentence, publish))
        elif not (tags := keys[0])["p"]:
            sentence = f"the DKIM key at {_quote(name)} is revoked"
            results.append((_OBJECTION, sentence, "sign with another selector, and publish its key"))
        elif _decode_key(tags["p"]) != _decode_key(_parse_tags(wanted)["p"]):
            results.append((_OBJECTION, f"the DKIM key at {_quote(name)} is not the one that signs", publish))
        elif "y" in tags.get("t", "").split(":"):
            sentence = f"the DKIM key at {_quote(name)} is marked as a test (t=y), so receivers ignore it"
            results.append((_OBJECTION, sentence, "publish it without t=y"))
    return results


def _check_dmarc(sender: SenderDomain) -> DnsQueries[list[_Result]]:
    labels = sender.author.split(".")
    own = organizational_domain(sender.author).count(".") + 1  # a public suffix has no policy
    for start in range(max(1, len(labels) - own + 1)):
        domain = ".".join(labels[start:])
        texts = yield DnsQuestion(f"_dmarc.{domain}", "TXT")
        policies = [tags for tags in map(_parse_tags, texts) if tags.get("v") == "DMARC1"]
        if len(policies) > 1:
            sentence = f"_dmarc.{_quote(domain)} has {len(policies)} DMARC records, so none is used"
            return [(_OBJECTION, sentence, "remove all but one")]
        if policies:
            return list(_check_policy(f"_dmarc.{_quote(domain)}", policies[0]))
    advice = f'publish the TXT "v=DMARC1; p=none; rua=mailto:…" at _dmarc.{_quote(sender.author)}'
    return [(_OBJECTION, f"{_quote(sender.author)} has no DMARC record, which large providers require", advice)]


def _resolve_relays(sender: SenderDomain) -> DnsQueries[list[IpAddress]]:
    """Return the relay's public addresses."""
    found: list[IpAddress] = []
    for host in sender.relays:
        found += yield from resolve_host(host)
    return [address for address in found if address.is_global]


def _check_policy(name: str, tags: Mapping[str, str]) -> Iterator[_Result]:
    policy = tags.get("p", "").lower()
    if policy not in ("none", "quarantine", "reject"):
        yield _OBJECTION, f"the DMARC record at {name} has no policy", "add p=none, p=quarantine or p=reject"
    if "rua" not in tags:
        yield _NOTE, f"the DMARC record asks for no reports ({name})", "add rua=mailto:… to receive reports"


def _check_mx(sender: SenderDomain) -> DnsQueries[list[_Result]]:
    results: list[_Result] = []
    for domain, lost in {sender.return_path: "bounces", sender.author: "answers"}.items():
        records = yield DnsQuestion(domain, "MX")
        if any(record.partition(" ")[2] == "." for record in records):
            sentence = f"{_quote(domain)} accepts no mail (RFC 7505), so {lost} are lost"
        elif not records and not (yield from resolve_host(domain)):
            sentence = f"{_quote(domain)} has neither an MX nor an address record, so {lost} are lost"
        else:
            continue
        results.append((_OBJECTION, sentence, "publish an MX record, or use another domain"))
    return results


def _check_ptr(sender: SenderDomain) -> DnsQueries[list[_Result]]:
    results: list[_Result] = []
    for address in (yield from _resolve_relays(sender)):
        names = yield DnsQuestion(str(address), "PTR")
        confirmed = False
        for name in names[:5]:
            confirmed = confirmed or address in (yield from resolve_host(name))
        if not confirmed:
            what = f"is {_quote(names[0])}, which does not resolve back to it" if names else "has no reverse name"
            advice = "ask its owner to make the PTR and the address match, if mail is sent from it"
            results.append((_NOTE, f"the relay's address {address} {what}", advice))
    return results


DNS_RULES: Mapping[str, Callable[[SenderDomain], DnsQueries[list[_Result]]]] = {
    "spf": _check_spf,
    "dkim": _check_dkim,
    "dmarc": _check_dmarc,
    "mx": _check_mx,
    "ptr": _check_ptr,
}


def check_dns(sender: SenderDomain) -> DnsQueries[list[Finding]]:
    """Ask for all records, and return the findings in the order of the rules."""
    found: list[Finding] = []
    for name, rule in DNS_RULES.items():
        try:
            results = yield from rule(sender)
        except DnsQueryFailed as error:
            results = [(_OBJECTION, safe_text(str(error), 300), "run the check again, or use another name server")]
        found += [Finding(name, *each) for each in results]
    return found


def _parse_tags(text: str) -> dict[str, str]:
    """Parse a list of tags (RFC 6376 §3.2), without white space."""
    parted = (tag.partition("=") for tag in text.split(";"))
    return {name.strip().lower(): "".join(value.split()) for name, equals, value in parted if equals}


def _decode_key(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        return text.encode("utf-8", "replace")


def _quote(text: str) -> str:
    return safe_text(text, 100)
