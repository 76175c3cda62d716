"""Fixtures for every test: a private certificate authority, and event loops to run on."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme
import uvloop

if TYPE_CHECKING:
    from tests.interop.postgres import Postgres

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
NAMES = ("relay.example", "localhost", "127.0.0.1")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "both_loops: runs on asyncio's event loop and on uvloop's (TL-16)")


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loops a test runs on: asyncio's, unless it asks for both."""
    return LOOPS if item.get_closest_marker("both_loops") else {"asyncio": asyncio.new_event_loop}


@pytest.fixture(autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which campaigns share their rates: each test's own."""
    path = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(path))
    return path


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


@pytest.fixture(scope="session")
def running_postgres() -> Iterator[Postgres]:
    """The database server; if it cannot run, the tests are skipped with the reason, unless they are required."""
    from tests.interop.postgres import missing, running  # late: the driver is loaded for these tests only
    from tests.interop.requiring import required

    required(missing())
    with running() as server:
        yield server


@pytest.fixture
def postgres(running_postgres: Postgres) -> Postgres:
    """The database server, without campaigns."""
    running_postgres.clear()
    return running_postgres
