"""One server for all the tests here, emptied before each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interop.postgres import Postgres, missing, running
from tests.interop.requiring import required


@pytest.fixture(scope="session")
def running_postgres() -> Iterator[Postgres]:
    """The server; if it cannot run, the tests are skipped with the reason, unless they are required."""
    required(missing())
    with running() as server:
        yield server


@pytest.fixture
def postgres(running_postgres: Postgres) -> Postgres:
    """The server, without campaigns."""
    running_postgres.clear()
    return running_postgres
