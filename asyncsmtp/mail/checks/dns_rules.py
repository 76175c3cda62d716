"""Rules for the sender's DNS records, one function for each: SPF, DKIM, DMARC, MX, and the relay's reverse name.

Each rule is a generator of DNS questions, see `spf.DnsQueries`. A question without an answer is an objection
of its own, so the rule does not pass.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from asyncsmtp.mail.checks.rules import Finding, FindingLevel
from asyncsmtp.mail.checks.spf import DnsQueries, DnsQueryFailed, DnsQuestion, IpAddress, read_spf, resolve_host
from asyncsmtp.mail.domains import organizational_domain
from asyncsmtp.protocol.replies import safe_text

__all__ = ["DNS_RULES", "SenderDomain", "check_dns"]

_MAX_QUOTED = 100
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
        sentence = (
            f"{domain} has {found.records or 'no'} SPF record{'s' if found.records > 1 else ''}, but must have one"
        )
        return [
            (
                _OBJECTION,
                sentence,
                'publish one TXT, such as "v=spf1 include:… -all" with the terms that your relay documents',
            )
        ]
    results: list[_Result] = []
    if found.exceeds_lookup_limit:
        results.append(
            (
                _OBJECTION,
                f"the SPF record of {domain} needs more than 10 lookups: receivers ignore it (RFC 7208 §4.6.4)",
                "use fewer includes, or list addresses with ip4: and ip6:",
            )
        )
    if found.unknown:
        sentence = f"the SPF record of {domain} has a term that is not valid: {_quote(found.unknown[0])}"
        results.append((_OBJECTION, sentence, "correct it: receivers reject the whole record"))
    if found.exceeds_lookup_limit or found.unknown:
        return results  # the rest was not read, or does not count
    if found.all_qualifier == "+":
        results.append((_OBJECTION, f"the SPF record of {domain} allows anybody to send", "end it with -all or ~all"))
    elif found.all_qualifier in ("", "?"):
        results.append(
            (
                _NOTE,
                f"the SPF record of {domain} does not say what holds for other senders",
                "end it with ~all, or -all",
            )
        )
    for address in (yield from _resolve_relays(sender)):
        if found.allows(address) is False:
            sentence = f"the SPF record of {domain} does not include the relay, {address}"
            results.append(
                (_NOTE, sentence, "include it, unless the relay sends from other addresses that are included")
            )
    return results


def _check_dkim(sender: SenderDomain) -> DnsQueries[list[_Result]]:
    results: list[_Result] = []
    for name, wanted in sender.keys:
        texts = [text for text in (yield DnsQuestion(name, "TXT")) if "p" in _parse_tags(text)]
        publish = f'publish the TXT "{wanted}"'
        if len(texts) != 1:
            sentence = f"there is {'more than one' if texts else 'no'} DKIM key at {_quote(name)}"
            results.append((_OBJECTION, sentence, publish))
            continue
        tags = _parse_tags(texts[0])
        if not tags["p"]:
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
        texts = [
            text for text in (yield DnsQuestion(f"_dmarc.{domain}", "TXT")) if _parse_tags(text).get("v") == "DMARC1"
        ]
        if len(texts) > 1:
            sentence = f"_dmarc.{_quote(domain)} has {len(texts)} DMARC records, so none is used"
            return [(_OBJECTION, sentence, "remove all but one")]
        if texts:
            return list(_check_policy(f"_dmarc.{_quote(domain)}", _parse_tags(texts[0])))
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
            results.append(
                (
                    _NOTE,
                    f"the relay's address {address} {what}",
                    "ask its owner to make the PTR and the address match, if mail is sent from it",
                )
            )
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
    return safe_text(text, _MAX_QUOTED)
