"""Whose a domain is, as far as a name says it."""

from __future__ import annotations

import pytest

from asyncsmtp.mail.domains import aligned, organizational_domain


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
    ],
)
def test_the_organisation_is_at_the_end_of_a_host_s_name(host: str, domain: str) -> None:
    assert organizational_domain(host) == domain


@pytest.mark.parametrize(
    ("domain", "author", "holds"),
    [
        ("example.com", "example.com", True),
        ("mail.example.com", "example.com", True),
        ("example.com", "mail.example.com", True),
        ("mail.example.com", "news.example.com", True),
        ("mail.example.co.uk", "example.co.uk", True),
        ("mail.go.it", "go.it", True),
        ("go.it", "mail.go.it", True),
        ("ample.com", "example.com", False),
        ("example.com", "ample.com", False),
        ("example.net", "example.com", False),
        ("other.co.uk", "example.co.uk", False),
    ],
)
def test_domains_of_one_organisation_are_aligned(domain: str, author: str, holds: bool) -> None:
    """RFC 7489 §3.1.1, relaxed; a name that merely ends alike is another's."""
    assert aligned(domain, author) is holds
