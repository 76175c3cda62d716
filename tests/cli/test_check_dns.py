"""`check --dns`: what is published of the sender, asked of a name server on loopback."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from asyncsmtp.bulk.rate_limit import dns_resolver
from asyncsmtp.mail.signing.dkim import DkimKey
from tests.cli.ended import Command
from tests.cli.test_check import WAY_OUT
from tests.name_server import Zone, naming

SECTIONS = """
[dkim]
domain = "example.org"
selector = "s1"
key = "dkim.pem"

[relay]
url = "smtp://smtp.relay.example"
"""


@pytest.fixture
def zone(campaign: Path) -> dict[str | tuple[str, str], list[str]]:
    """A campaign that signs, and all that belongs into the zone of its sender."""
    key = rsa.generate_private_key(65_537, 2_048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = campaign.parent / "dkim.pem"
    path.write_bytes(pem)
    path.chmod(0o600)
    campaign.write_text(campaign.read_text("utf-8") + WAY_OUT + SECTIONS, encoding="utf-8")
    record = DkimKey.from_pem("example.org", "s1", pem).record
    strings = " ".join(f'"{record[at : at + 200]}"' for at in range(0, len(record), 200))  # one has 255 octets at most
    return {
        ("example.org", "TXT"): ['"v=spf1 ip4:8.8.4.4 " "-all"'],
        ("example.org", "MX"): ["10 mx.example.org."],
        ("s1._domainkey.example.org", "TXT"): [strings],
        ("_dmarc.example.org", "TXT"): ['"v=DMARC1; p=none; rua=mailto:dmarc@example.org"'],
        ("smtp.relay.example", "A"): ["8.8.4.4"],
        ("4.4.8.8.in-addr.arpa", "PTR"): ["smtp.relay.example."],
    }


def rules(command: Command, campaign: Path, zone: Zone) -> tuple[int, list[str]]:
    """The exit code, and the rules that found something."""
    with naming(zone) as server:
        ended = command("check", campaign, "--json", "--dns", "--name-server", f"127.0.0.1:{server.port}")
    return ended.code, [json.loads(line)["rule"] for line in ended.out.splitlines()]


def test_a_good_sender_passes_every_rule(
    command: Command, campaign: Path, zone: dict[str | tuple[str, str], list[str]]
) -> None:
    assert rules(command, campaign, zone) == (0, [])


def test_what_is_missing_or_wrong_is_reported(
    command: Command, campaign: Path, zone: dict[str | tuple[str, str], list[str]]
) -> None:
    """Objections are in the exit code; a domain that does not exist is one that publishes nothing."""
    zone["example.org", "TXT"] = ['"v=spf1 ip4:192.0.2.1 -all"']
    del zone["4.4.8.8.in-addr.arpa", "PTR"]
    assert rules(command, campaign, zone) == (0, ["spf", "ptr"])  # notes both
    zone["s1._domainkey.example.org", "TXT"] = ['"v=DKIM1; k=rsa; p="']
    assert rules(command, campaign, zone) == (1, ["spf", "dkim", "ptr"])
    assert rules(command, campaign, {}) == (1, ["spf", "dkim", "dmarc", "mx"])


@pytest.mark.parametrize("preference", [0, 10])
def test_a_domain_that_accepts_no_mail(
    command: Command, campaign: Path, zone: dict[str | tuple[str, str], list[str]], preference: int
) -> None:
    """FT-85, RFC 7505: a null MX is an MX record, and answers and bounces to that domain are lost all the same."""
    zone["example.org", "MX"] = [f"{preference} ."]
    zone["example.org", "A"] = ["192.0.2.1"]
    assert rules(command, campaign, zone) == (1, ["mx"])
    with naming(zone) as server:
        ended = command("check", campaign, "--dns", "--name-server", f"127.0.0.1:{server.port}")
    assert "accepts no mail (RFC 7505)" in ended.out


def test_silence_is_no_pass(
    command: Command, campaign: Path, zone: dict[str | tuple[str, str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each rule that could not be judged says so, with what to do."""
    monkeypatch.setattr(dns_resolver, "QUERY_TIMEOUT", 0.05)
    with naming(zone) as server:
        server.silent = None
        ended = command("check", campaign, "--name-server", f"127.0.0.1:{server.port}")
    assert ended.code == 1
    assert "objection (dkim): there was no answer for the TXT record of s1._domainkey.example.org" in ended.out
    assert "run the check again" in ended.out
    assert ended.out.count("there was no answer for") == 5


def test_without_it_nobody_is_asked(command: Command, campaign: Path, zone: object) -> None:
    """And that is said."""
    ended = command("check", campaign)
    assert ended.code == 0, ended.err
    assert "were not checked; --dns checks them" in ended.err


def test_the_package_that_asks_may_be_missing(
    command: Command, campaign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("dns", "dns.asyncresolver"):
        monkeypatch.setitem(sys.modules, name, None)
    ended = command("check", campaign, "--dns")
    assert ended.code == 2
    assert "asyncsmtp[dns]" in ended.err


def test_a_name_server_is_an_address(command: Command, campaign: Path) -> None:
    ended = command("check", campaign, "--name-server", "dns.example.org")
    assert ended.code == 2
    assert "192.0.2.1:53" in ended.err
