"""DNS rules: a good zone passes every rule, and one mistake is found by its own rule and no other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import pytest

from asyncsmtp.mail.checks.dns_rules import (
    DNS_RULES,
    DnsAnswer,
    DnsQueries,
    DnsQueryFailed,
    DnsQuestion,
    SenderDomain,
    Spf,
    check_dns,
    ip_address,
    read_spf,
)
from asyncsmtp.mail.checks.rules import Finding, FindingLevel

KEY = "v=DKIM1; k=rsa; p=MIIBIjANBgkq"
RELAY = "8.8.4.4"
GOOD: Mapping[tuple[str, str], DnsAnswer] = {
    ("example.org", "TXT"): ("something else", "v=spf1 include:_spf.relay.example ip4:192.0.2.0/24 -all"),
    ("_spf.relay.example", "TXT"): ("v=spf1 ip4:8.8.0.0/16 ip6:2001:db8::/32 ~all",),
    ("s1._domainkey.example.org", "TXT"): (KEY,),
    ("_dmarc.example.org", "TXT"): ("v=DMARC1; p=quarantine; rua=mailto:dmarc@example.org",),
    ("example.org", "MX"): ("10 mx.example.org",),
    ("smtp.relay.example", "A"): (RELAY,),
    (RELAY, "PTR"): ("out.relay.example",),
    ("out.relay.example", "A"): (RELAY,),
}
SENDER = SenderDomain("example.org", "example.org", [("s1._domainkey.example.org", KEY)], ["smtp.relay.example"])


T = TypeVar("T")
Zone = Mapping[tuple[str, str], DnsAnswer | None]


def answered(asking: DnsQueries[T], zone: Zone) -> T:
    """Answer from a zone; None stands for a name server that does not."""
    try:
        question = next(asking)
        while True:
            answer = zone.get((question.name, question.kind), ())
            question = asking.throw(DnsQueryFailed(question, "Timeout")) if answer is None else asking.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result


def found(change: Zone, sender: SenderDomain = SENDER) -> list[Finding]:
    return answered(check_dns(sender), {**GOOD, **change})


def test_a_good_zone_passes_every_rule() -> None:
    assert found({}) == []


SPF, DKIM, DMARC = ("example.org", "TXT"), ("s1._domainkey.example.org", "TXT"), ("_dmarc.example.org", "TXT")
MX, PTR = ("example.org", "MX"), (RELAY, "PTR")
LONG = {("example.org", "TXT"): ("v=spf1 include:a0.example -all",)} | {
    (f"a{n}.example", "TXT"): (f"v=spf1 include:a{n + 1}.example ~all",) for n in range(12)
}


@pytest.mark.parametrize(
    ("rule", "level", "change", "sentence"),
    [
        ("spf", "objection", {SPF: ()}, "has no SPF record"),
        ("spf", "objection", {SPF: ("v=spf1 -all", "v=spf1 ~all")}, "has 2 SPF records"),
        ("spf", "objection", {SPF: ("v=spf1 +all",)}, "allows anybody to send"),
        ("spf", "objection", {SPF: ("v=spf1 all",)}, "allows anybody to send"),
        ("spf", "objection", {SPF: ("v=spf1 ip4:8.8.0.0/16 ip5:1 -all",)}, "a term that is not valid: ip5:1"),
        (
            "spf",
            "objection",
            {SPF: ("v=spf1 ip4:8.8.0.0/16 ip4:8.8.8.300 -all",)},
            "a term that is not valid: 8.8.8.300",
        ),
        ("spf", "objection", LONG, "more than 10 lookups"),
        ("spf", "note", {SPF: ("v=spf1 ip4:8.8.0.0/16 ?all",)}, "does not say what holds for other senders"),
        ("spf", "note", {SPF: ("v=spf1 ip4:8.8.0.0/16",)}, "does not say what holds for other senders"),
        ("spf", "note", {SPF: ("v=spf1 ip4:192.0.2.1 -all",)}, f"does not include the relay, {RELAY}"),
        ("spf", "note", {SPF: ("v=spf1 -ip4:8.8.0.0/16 -all",)}, f"does not include the relay, {RELAY}"),
        ("spf", "objection", {SPF: None}, "there was no answer for the TXT record of example.org (Timeout)"),
        ("dkim", "objection", {DKIM: ()}, "there is no DKIM key"),
        ("dkim", "objection", {DKIM: (KEY, KEY)}, "more than one DKIM key"),
        ("dkim", "objection", {DKIM: ("v=DKIM1; p=",)}, "is revoked"),
        ("dkim", "objection", {DKIM: ("v=DKIM1; k=rsa; p=AAAA",)}, "is not the one that signs"),
        ("dkim", "objection", {DKIM: ("v=DKIM1; t=s:y; k=rsa; p=MIIBIjANBgkq",)}, "is marked as a test"),
        ("dmarc", "objection", {DMARC: ()}, "has no DMARC record"),
        ("dmarc", "objection", {DMARC: ("v=DMARC1; p=none; rua=mailto:a@b.c",) * 2}, "has 2 DMARC records"),
        ("dmarc", "objection", {DMARC: ("v=DMARC1; rua=mailto:a@b.c",)}, "has no policy"),
        ("dmarc", "note", {DMARC: ("v=DMARC1; p=none",)}, "asks for no reports"),
        ("mx", "objection", {MX: ()}, "has neither an MX nor an address record, so answers are lost"),
        ("mx", "objection", {MX: ("0 .",)}, "accepts no mail (RFC 7505)"),
        ("ptr", "note", {PTR: ()}, "has no reverse name"),
        ("ptr", "note", {PTR: ("liar.example",)}, "is liar.example, which does not resolve back to it"),
        ("ptr", "objection", {PTR: None}, "there was no answer for the PTR record of 8.8.4.4"),
    ],
)
def test_one_mistake_is_found_by_its_own_rule(rule: str, level: str, change: Zone, sentence: str) -> None:
    """RFC 7208 §4.5, §4.6.4; RFC 6376 §3.6; RFC 7489; RFC 7505."""
    (finding,) = found(change)
    assert (finding.rule, finding.weight) == (rule, FindingLevel(level))
    assert sentence in finding.sentence
    assert finding.advice


def test_every_rule_has_its_mistake() -> None:
    marks = [mark for mark in test_one_mistake_is_found_by_its_own_rule.pytestmark if mark.name == "parametrize"]  # type: ignore[attr-defined]
    assert {case[0] for mark in marks for case in mark.args[1]} == set(DNS_RULES)


def test_white_space_and_order_in_a_key_record_do_not_matter() -> None:
    """RFC 6376 §3.2: a record is folded as its owner likes."""
    assert found({DKIM: ("k=rsa; v=DKIM1;p = MIIB IjAN\tBgkq ;",)}) == []


def test_a_policy_may_stand_at_the_organisation() -> None:
    """RFC 7489 §6.6.3: mail.example.org is covered by _dmarc.example.org; nobody's top-level domain is asked."""
    sender = SenderDomain("news.mail.example.org", "example.org")
    asked: list[DnsQuestion] = []

    def watched() -> DnsQueries[list[Finding]]:
        asking = check_dns(sender)
        question = next(asking)
        while True:
            asked.append(question)
            answer = yield question
            try:
                question = asking.send(answer)
            except StopIteration as end:
                value: list[Finding] = end.value
                return value

    zone: Zone = {**GOOD, ("news.mail.example.org", "MX"): ("10 mx.example.org",)}
    assert answered(watched(), zone) == []
    assert [question.name for question in asked if question.name.startswith("_dmarc")] == [
        "_dmarc.news.mail.example.org",
        "_dmarc.mail.example.org",
        "_dmarc.example.org",
    ]
    without = {**zone, DMARC: ()}
    assert [finding.rule for finding in answered(check_dns(sender), without)] == ["dmarc"]


def test_a_policy_of_a_public_suffix_does_not_count() -> None:
    """Of example.co.uk nothing is said by co.uk."""
    zone: Zone = {("_dmarc.co.uk", "TXT"): ("v=DMARC1; p=none; rua=mailto:a@b.c",)}
    assert "dmarc" in [finding.rule for finding in found(zone, SenderDomain("example.co.uk", "example.org"))]


def test_a_domain_without_mx_takes_mail_at_its_address() -> None:
    """RFC 5321 §5.1; and a bounce domain of its own is asked about as well."""
    assert found({MX: (), ("example.org", "A"): ("192.0.2.7",)}) == []
    sender = SenderDomain("example.org", "bounces.example.org", SENDER.keys, SENDER.relays)
    rules = [(finding.rule, "bounces are lost" in finding.sentence) for finding in found({}, sender)]
    assert rules == [("spf", False), ("mx", True)]


def test_the_address_of_a_local_relay_is_not_checked() -> None:
    """Its address is not that which others see."""
    for host in ("127.0.0.1", "192.168.1.1", "::1"):
        assert found({SPF: ("v=spf1 -all",)}, SenderDomain("example.org", "example.org", SENDER.keys, [host])) == []


@pytest.mark.parametrize(
    ("record", "address", "passes"),
    [
        ("v=spf1 a -all", "192.0.2.7", True),
        ("v=spf1 a/24 -all", "192.0.2.99", True),
        ("v=spf1 a:other.example//64 -all", "2001:db8::9", True),
        ("v=spf1 mx -all", "192.0.2.8", True),
        ("v=spf1 mx -all", "192.0.2.7", False),
        ("v=spf1 redirect=other.example", "203.0.113.5", True),
        ("v=spf1 -all redirect=other.example", "203.0.113.5", False),
        ("v=spf1 redirect=%{d}.example", "192.0.2.7", None),
        ("v=spf1 exists:%{i}.other.example -all", "192.0.2.7", None),
        ("v=spf1 include:%{d}.example -all", "192.0.2.7", None),
        ("v=spf1 exp=why.example ip4:192.0.2.7 -all", "192.0.2.7", True),
    ],
)
def test_spf_mechanisms_and_modifiers_decide_as_in_the_rfc(record: str, address: str, passes: bool | None) -> None:
    """RFC 7208 §5, §6.1."""
    zone: Zone = {
        ("d.example", "TXT"): (record,),
        ("d.example", "A"): ("192.0.2.7",),
        ("d.example", "MX"): ("10 mx.d.example",),
        ("mx.d.example", "A"): ("192.0.2.8",),
        ("other.example", "TXT"): ("v=spf1 ip4:203.0.113.0/24 ~all",),
        ("other.example", "AAAA"): ("2001:db8::1",),
    }
    spf: Spf = answered(read_spf("d.example"), zone)
    assert spf.unknown == []
    assert spf.allows(ip_address(address)) is passes


def test_a_record_that_includes_itself_ends() -> None:
    """Without the limit of lookups it would not end."""
    spf: Spf = answered(read_spf("d.example"), {("d.example", "TXT"): ("v=spf1 include:d.example -all",)})
    assert spf.exceeds_lookup_limit
    assert spf.lookups == 11
