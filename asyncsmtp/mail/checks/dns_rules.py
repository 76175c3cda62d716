"""What the name system says of a sender, one rule a function: SPF, DKIM, DMARC, MX, and the relay's own name.

Each rule asks, see `asking`; what cannot be found out is an objection of its own, and never passes.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from asyncsmtp.mail.checks.rules import Finding, Weight
from asyncsmtp.mail.checks.spf import Address, DnsQueries, DnsQueryFailed, DnsQuestion, addresses_of, read_spf
from asyncsmtp.mail.domains import organizational_domain
from asyncsmtp.protocol.replies import safe_text

__all__ = ["DNS_RULES", "SenderDomain", "check_dns"]

_SHORT = 100
_Said = tuple[Weight, str, str]  # how much it matters, what is so, what to do
_OBJECTION, _NOTE = Weight.OBJECTION, Weight.NOTE


@dataclass(frozen=True, slots=True)
class SenderDomain:
    """Who sends.

    Attributes:
        author: the domain in From. reverse: that of the reverse-path; both in lower case.
        keys: of each DKIM key the name of its record, and the record that belongs there.
        relays: the hosts of the relay; none where it is a socket of this machine.
    """

    author: str
    reverse: str
    keys: Sequence[tuple[str, str]] = ()
    relays: Sequence[str] = ()


def _spf(sender: SenderDomain) -> DnsQueries[list[_Said]]:
    domain = _shown(sender.reverse)
    found = yield from read_spf(sender.reverse)
    if found.records != 1:
        sentence = (
            f"{domain} has {found.records or 'no'} SPF record{'s' if found.records > 1 else ''} where one belongs"
        )
        return [(_OBJECTION, sentence, 'publish one TXT, such as "v=spf1 include:… -all" with what your relay names')]
    said: list[_Said] = []
    if found.too_long:
        said.append(
            (
                _OBJECTION,
                f"the SPF record of {domain} takes more than 10 lookups: receivers give it up (RFC 7208 §4.6.4)",
                "include less, or name addresses with ip4: and ip6:",
            )
        )
    if found.unknown:
        sentence = f"the SPF record of {domain} has a term that is none: {_shown(found.unknown[0])}"
        said.append((_OBJECTION, sentence, "correct it: receivers take the whole record for broken"))
    if found.too_long or found.unknown:
        return said  # what stands behind was not read, or counts for nothing
    if found.otherwise == "+":
        said.append((_OBJECTION, f"the SPF record of {domain} lets anybody send", "end it with -all or ~all"))
    elif found.otherwise in ("", "?"):
        said.append((_NOTE, f"the SPF record of {domain} says nothing of others", "end it with ~all, or -all"))
    for address in (yield from _addresses(sender)):
        if found.passes(address) is False:
            sentence = f"the SPF record of {domain} does not name the relay, {address}"
            said.append((_NOTE, sentence, "name it, unless the relay sends from other addresses, which are named"))
    return said


def _dkim(sender: SenderDomain) -> DnsQueries[list[_Said]]:
    said: list[_Said] = []
    for name, wanted in sender.keys:
        texts = [text for text in (yield DnsQuestion(name, "TXT")) if "p" in _tags(text)]
        publish = f'publish the TXT "{wanted}"'
        if len(texts) != 1:
            sentence = f"there is {'more than one' if texts else 'no'} DKIM key at {_shown(name)}"
            said.append((_OBJECTION, sentence, publish))
            continue
        tags = _tags(texts[0])
        if not tags["p"]:
            sentence = f"the DKIM key at {_shown(name)} is revoked"
            said.append((_OBJECTION, sentence, "sign with another selector, and publish its key"))
        elif _key(tags["p"]) != _key(_tags(wanted)["p"]):
            said.append((_OBJECTION, f"at {_shown(name)} is another key than the one that signs", publish))
        elif "y" in tags.get("t", "").split(":"):
            sentence = f"the DKIM key at {_shown(name)} says that it is being tested (t=y), so it counts for nothing"
            said.append((_OBJECTION, sentence, "publish it without t=y"))
    return said


def _dmarc(sender: SenderDomain) -> DnsQueries[list[_Said]]:
    labels = sender.author.split(".")
    own = organizational_domain(sender.author).count(".") + 1  # what is above is nobody's own
    for start in range(max(1, len(labels) - own + 1)):
        domain = ".".join(labels[start:])
        texts = [text for text in (yield DnsQuestion(f"_dmarc.{domain}", "TXT")) if _tags(text).get("v") == "DMARC1"]
        if len(texts) > 1:
            sentence = f"_dmarc.{_shown(domain)} has {len(texts)} DMARC records, so that none counts"
            return [(_OBJECTION, sentence, "leave one of them")]
        if texts:
            return list(_policy(f"_dmarc.{_shown(domain)}", _tags(texts[0])))
    advice = f'publish the TXT "v=DMARC1; p=none; rua=mailto:…" at _dmarc.{_shown(sender.author)}'
    return [(_OBJECTION, f"{_shown(sender.author)} has no DMARC record, which large providers ask for", advice)]


def _addresses(sender: SenderDomain) -> DnsQueries[list[Address]]:
    """The relay's, as far as the world sees them."""
    found: list[Address] = []
    for host in sender.relays:
        found += yield from addresses_of(host)
    return [address for address in found if address.is_global]


def _policy(name: str, tags: Mapping[str, str]) -> Iterator[_Said]:
    policy = tags.get("p", "").lower()
    if policy not in ("none", "quarantine", "reject"):
        yield _OBJECTION, f"the DMARC record at {name} has no policy", "add p=none, p=quarantine or p=reject"
    if "rua" not in tags:
        yield _NOTE, f"nobody is told what becomes of mail from you ({name})", "add rua=mailto:… for the reports"


def _mx(sender: SenderDomain) -> DnsQueries[list[_Said]]:
    said: list[_Said] = []
    for domain, lost in {sender.reverse: "bounces", sender.author: "answers"}.items():
        records = yield DnsQuestion(domain, "MX")
        if any(record.partition(" ")[2] == "." for record in records):
            sentence = f"{_shown(domain)} says that it takes no mail (RFC 7505), so {lost} are lost"
        elif not records and not (yield from addresses_of(domain)):
            sentence = f"{_shown(domain)} has neither MX nor an address, so {lost} are lost"
        else:
            continue
        said.append((_OBJECTION, sentence, "publish an MX, or take another domain"))
    return said


def _ptr(sender: SenderDomain) -> DnsQueries[list[_Said]]:
    said: list[_Said] = []
    for address in (yield from _addresses(sender)):
        names = yield DnsQuestion(str(address), "PTR")
        confirmed = False
        for name in names[:5]:
            confirmed = confirmed or address in (yield from addresses_of(name))
        if not confirmed:
            what = f"is {_shown(names[0])}, which is not its name" if names else "has no name"
            said.append(
                (
                    _NOTE,
                    f"the relay's address {address} {what}",
                    "have its owner set PTR and address to each other, if mail leaves from it",
                )
            )
    return said


DNS_RULES: Mapping[str, Callable[[SenderDomain], DnsQueries[list[_Said]]]] = {
    "spf": _spf,
    "dkim": _dkim,
    "dmarc": _dmarc,
    "mx": _mx,
    "ptr": _ptr,
}


def check_dns(sender: SenderDomain) -> DnsQueries[list[Finding]]:
    """Ask for all that is published, by the order of the rules."""
    found: list[Finding] = []
    for name, rule in DNS_RULES.items():
        try:
            said = yield from rule(sender)
        except DnsQueryFailed as error:
            said = [(_OBJECTION, safe_text(str(error), 300), "run the check again; or ask another name server")]
        found += [Finding(name, *each) for each in said]
    return found


def _tags(text: str) -> dict[str, str]:
    """A list of tags (RFC 6376 §3.2), white space gone."""
    parted = (tag.partition("=") for tag in text.split(";"))
    return {name.strip().lower(): "".join(value.split()) for name, equals, value in parted if equals}


def _key(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        return text.encode("utf-8", "replace")


def _shown(text: str) -> str:
    return safe_text(text, _SHORT)
