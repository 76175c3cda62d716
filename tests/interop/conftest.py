"""One Postfix for all the tests here, with an empty mailbox for each."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.interop.postfix import Postfix, missing


@pytest.fixture(scope="session")
def running_postfix() -> Iterator[Postfix]:
    """The server; where it cannot run the tests are skipped, saying why, unless they are required."""
    if reason := missing():
        if os.environ.get("ASYNCSMTP_REQUIRE_INTEROP"):
            pytest.fail(f"ASYNCSMTP_REQUIRE_INTEROP is set, but {reason}")
        pytest.skip(reason)
    server = Postfix()
    yield server
    server.stop()


@pytest.fixture
def postfix(running_postfix: Postfix) -> Postfix:
    """The server, with an empty mailbox."""
    running_postfix.clear()
    return running_postfix
