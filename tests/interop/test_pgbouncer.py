"""A pooler between workers and their database: PgBouncer, by its modes."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from asyncsmtp.bulk.ledger.postgres.store import PostgresLedger
from asyncsmtp.bulk.ledger.postgres.worker_ledger import WorkerLedger
from asyncsmtp.errors import LedgerError
from tests.bulk.ledger.ledgers import readers
from tests.interop.postfix import free_ports
from tests.interop.postgres import OWNER, Postgres
from tests.interop.requiring import required

pytestmark = [pytest.mark.interop, pytest.mark.slow]

CONFIG = """
[databases]
postgres = host=127.0.0.1 port={server} user=tests
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
ignore_startup_parameters = extra_float_digits
unix_socket_dir =
"""


@contextmanager
def pooling(folder: Path, server: Postgres, mode: str, size: int) -> Iterator[str]:
    """Run PgBouncer in front of a database; yield the URL through it."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    required(None if program else "there is no PgBouncer (Debian: pgbouncer)")
    (port,) = free_ports(1)
    file = folder / "pgbouncer.ini"
    file.write_text(CONFIG.format(server=server.port, port=port, mode=mode, size=size))
    folder.chmod(0o755)
    user = {"user": pwd.getpwnam(OWNER).pw_uid} if os.geteuid() == 0 else {}
    url = f"postgresql://tests@127.0.0.1:{port}/postgres"
    process = subprocess.Popen([str(program), "-q", str(file)], stderr=subprocess.DEVNULL, **user)  # type: ignore[call-overload]
    try:
        end = time.monotonic() + 20
        while True:
            try:
                psycopg.connect(url, connect_timeout=2).close()
                break
            except psycopg.OperationalError:
                assert time.monotonic() < end
                time.sleep(0.05)
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = Path(f"/tmp/asyncsmtp-pgbouncer-{os.getpid()}")  # another user reads it
    path.mkdir()
    yield path
    shutil.rmtree(path)


async def load(server: Postgres) -> None:
    ledger = await PostgresLedger.open(server.url, name="news", from_domain="example.org")
    await ledger.load(readers(10))
    await ledger.aclose()


@pytest.mark.parametrize("size", [1, 5])
async def test_a_pooler_that_keeps_no_sessions_is_refused(folder: Path, postgres: Postgres, size: int) -> None:
    await load(postgres)
    with pooling(folder, postgres, "transaction", size) as url:
        with pytest.raises(LedgerError, match="behind a pooler in transaction mode"):
            await WorkerLedger.open(url, name="news")
        assert postgres.execute("SELECT count(*) FROM asyncsmtp.worker") == [(0,)]


async def test_a_pooler_that_keeps_sessions_works(folder: Path, postgres: Postgres) -> None:
    await load(postgres)
    with pooling(folder, postgres, "session", 5) as url:
        async with await WorkerLedger.open(url, name="news") as ledger:
            assert len(await ledger.claim(500)) == 10
