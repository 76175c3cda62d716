"""One server of a kind for all the tests here, with an empty mailbox for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.interop.dovecot import Dovecot
from tests.interop.exim import Exim
from tests.interop.install import absent
from tests.interop.opensmtpd import OpenSmtpd
from tests.interop.postfix import Postfix, missing
from tests.interop.requiring import required
from tests.interop.served_postfix import ServedPostfix
from tests.interop.server import Server


@pytest.fixture(scope="session")
def running_postfix() -> Iterator[Postfix]:
    """The server; where it cannot run the tests are skipped, saying why, unless they are required."""
    required(missing())
    server = Postfix()
    yield server
    server.stop()


@pytest.fixture
def postfix(running_postfix: Postfix) -> Postfix:
    """The server, with an empty mailbox."""
    running_postfix.clear()
    return running_postfix


@pytest.fixture(scope="session")
def running(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Server]]:
    """Gives the server of that name, started when it is first asked for."""
    servers: dict[str, Server] = {}
    with ExitStack() as stack:

        def start(name: str) -> Server:
            if name == "postfix":
                return ServedPostfix(request.getfixturevalue("running_postfix"))
            required(absent(name))
            server = Dovecot(give("exim")) if name == "dovecot" else {"exim": Exim, "opensmtpd": OpenSmtpd}[name]()
            stack.callback(server.stop)
            return server

        def give(name: str) -> Server:
            if name not in servers:
                servers[name] = start(name)
            return servers[name]

        yield give


@pytest.fixture
def server(request: pytest.FixtureRequest, running: Callable[[str], Server]) -> Server:
    """The server that the test's parameter names, with an empty mailbox."""
    found = running(request.param)
    found.clear()
    return found


@pytest.fixture
def dovecot(running: Callable[[str], Server]) -> Server:
    """Dovecot, with an empty mailbox behind its submission."""
    found = running("dovecot")
    found.clear()
    return found
