"""Organizational domains, by the Public Suffix List."""

from __future__ import annotations

import pytest

from asyncsmtp.mail.address import is_aligned, organizational_domain


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("aspmx.l.google.com.", "google.com"),
        ("example-com.mail.protection.OUTLOOK.com", "outlook.com"),
        ("mx1.example.co.uk", "example.co.uk"),
        ("mx.example.com.au.", "example.com.au"),
        ("mx.example.at", "example.at"),
        ("co.uk", "co.uk"),
        ("mx.co.at.example.com", "example.com"),
        ("localhost", "localhost"),
        ("mx.acme.ltd.uk", "acme.ltd.uk"),
        ("mx1.tokyo.example.co.jp", "example.co.jp"),
        ("mx.example.kobe.jp", "mx.example.kobe.jp"),  # the rule *.kobe.jp: example.kobe.jp is a suffix
        ("mail.ann.github.io", "ann.github.io"),  # of a customer of the owner of github.io
        ("Mail.Пример.РФ", "пример.рф"),
        ("mail.xn--e1afmkfd.xn--p1ai.", "xn--e1afmkfd.xn--p1ai"),
        ("mail.例え.個人.香港", "例え.個人.香港"),  # 個人.香港 is a suffix
        ("straße..de", "straße..de"),
        ("", ""),
    ],
)
def test_the_organizational_domain_is_one_label_below_a_public_suffix(host: str, domain: str) -> None:
    assert organizational_domain(host) == domain


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("inbound-smtp.us-east-1.amazonaws.com", "amazonaws.com"),
        ("mail.ann.github.io", "github.io"),
        ("mx.acme.ltd.uk", "acme.ltd.uk"),
    ],
)
def test_suffixes_of_companies_may_count_as_their_domains(host: str, domain: str) -> None:
    """[limits.provider] names the provider, not each of its customers."""
    assert organizational_domain(host, private_suffixes=False) == domain


@pytest.mark.parametrize(
    ("domain", "author", "holds"),
    [
        ("example.com", "example.com", True),
        ("mail.example.com", "example.com", True),
        ("example.com", "mail.example.com", True),
        ("mail.example.com", "news.example.com", True),
        ("mail.example.co.uk", "example.co.uk", True),
        ("mail.go.it", "go.it", False),  # go.it is a public suffix: of the province of Gorizia
        ("go.it", "mail.go.it", False),
        ("co.uk", "example.co.uk", False),
        ("acme.ltd.uk", "other.ltd.uk", False),
        ("ann.github.io", "bob.github.io", False),
        ("ample.com", "example.com", False),
        ("example.com", "ample.com", False),
        ("example.net", "example.com", False),
        ("other.co.uk", "example.co.uk", False),
    ],
)
def test_domains_of_one_organisation_are_aligned(domain: str, author: str, holds: bool) -> None:
    """RFC 7489 §3.1.1, relaxed; a name that merely ends alike is another one."""
    assert is_aligned(domain, author) is holds
