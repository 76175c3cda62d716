"""Fixtures for every test: a private certificate authority, and event loops to run on."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import Callable, Generator, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme
import uvloop

if TYPE_CHECKING:
    from tests.interop.postgres import Postgres

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
TIME_TO_CLEAN_UP = 15.0  # seconds after a test's time is up
NAMES = ("relay.example", "localhost", "127.0.0.1")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "both_loops: runs on asyncio's event loop and on uvloop's (TL-16)")


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loops a test runs on: asyncio's, unless it asks for both."""
    return LOOPS if item.get_closest_marker("both_loops") else {"asyncio": asyncio.new_event_loop}


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item) -> Generator[None, object, object]:
    """Repeat the alarm: the first may reach a clean-up that goes on to wait for a process that does not end."""
    done = yield
    if left := signal.getitimer(signal.ITIMER_REAL)[0]:
        signal.setitimer(signal.ITIMER_REAL, left, TIME_TO_CLEAN_UP)
    return done


@pytest.fixture(scope="session")
def state_homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A new folder at each step; pytest itself would read the names of all earlier ones to find a new one."""
    folder = tmp_path_factory.mktemp("state")
    return (folder / str(number) for number in count())


@pytest.fixture(autouse=True)
def state_home(state_homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which campaigns share their rates: each test's own."""
    path = next(state_homes)
    path.mkdir()
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
    """The database server, without campaigns; a test may kill it."""
    running_postgres.start_again()
    running_postgres.clear()
    return running_postgres
