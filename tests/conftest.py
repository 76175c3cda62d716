"""Fixtures for every test: a private certificate authority, and event loops to run on."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import pytest
import trustme

NAMES = ("relay.example", "localhost", "127.0.0.1")


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    """A certificate authority that nothing else trusts."""
    return trustme.CA()


@pytest.fixture(scope="session")
def server_tls(ca: trustme.CA) -> ssl.SSLContext:
    """A relay's context: a certificate for relay.example, localhost and 127.0.0.1."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(*NAMES).configure_cert(context)
    return context


@pytest.fixture(scope="session")
def client_tls(ca: trustme.CA) -> ssl.SSLContext:
    """A client's context that trusts the authority, and checks names."""
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


@pytest.fixture(scope="session")
def server_tls_for(ca: trustme.CA) -> Callable[..., ssl.SSLContext]:
    """Make a relay's context for other names, or with other dates: `server_tls_for("other.example")`."""

    def make(*names: str, **options: object) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ca.issue_cert(*names, **options).configure_cert(context)  # type: ignore[arg-type]
        return context

    return make
