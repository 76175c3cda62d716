"""A PostgreSQL of the tests' own: a cluster in a folder that goes with it, on a free port of this machine."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

from tests.interop.postfix import free_ports

__all__ = ["Postgres", "missing", "running"]

OWNER = "nobody"  # where the tests run as root, which the server refuses to be
SETTINGS = ("fsync=on", "shared_buffers=16MB", "max_connections=30", "wal_level=minimal", "max_wal_senders=0")


def _programs() -> Path | None:
    """The folder of `initdb` and `postgres`; Debian keeps them out of the way."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    found = shutil.which("initdb")
    candidates = [*folders, *([Path(found).parent] if found else [])]
    return next((folder for folder in candidates if (folder / "initdb").exists()), None)


def missing() -> str | None:
    """Return why it cannot be run here, or None if it can."""
    return None if _programs() else "there is no PostgreSQL (Debian: postgresql)"


class Postgres:
    """Starts when it is made; `stop()` ends it.

    Attributes:
        url: of its database, for a user who needs no password.
    """

    def __init__(self) -> None:
        programs = _programs()
        assert programs is not None
        self._server = programs / "postgres"
        (self.port,) = free_ports(1)
        self.url = f"postgresql://tests@127.0.0.1:{self.port}/postgres"
        self._folder = Path(tempfile.mkdtemp(prefix="asyncsmtp-postgres-"))
        self._as: dict[str, int] = {}
        if os.geteuid() == 0:
            owner = pwd.getpwnam(OWNER)
            os.chown(self._folder, owner.pw_uid, owner.pw_gid)
            self._as = {"user": owner.pw_uid, "group": owner.pw_gid}
        made = [programs / "initdb", "-D", self._data, "-U", "tests", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
        subprocess.run(made, cwd=self._folder, check=True, stdout=subprocess.DEVNULL, **self._as)  # type: ignore[call-overload]
        self.start()

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def processor_seconds(self) -> float:
        """Return the CPU time of the server so far, of sessions that have ended as well."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    @property
    def log(self) -> str:
        """Return what the server logged so far."""
        return (self._folder / "log").read_text(encoding="utf-8", errors="replace")

    def start(self) -> None:
        """Start it, and wait until it answers; what a killed one left in memory may be in the way at first."""
        settings = [word for setting in SETTINGS for word in ("-c", setting)]
        command = [
            self._server,
            "-D",
            self._data,
            "-p",
            str(self.port),
            "-h",
            "127.0.0.1",
            "-k",
            self._folder,
            *settings,
        ]
        end = time.monotonic() + 30
        while True:
            with (self._folder / "log").open("ab") as log:
                self._process: subprocess.Popen[bytes] = subprocess.Popen(  # type: ignore[call-overload]
                    command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._as
                )
            while self._process.poll() is None:
                if self._answers():
                    return
                assert time.monotonic() < end, self.log[-4000:]
                time.sleep(0.02)
            assert time.monotonic() < end, self.log[-4000:]
            time.sleep(0.05)

    def kill(self, *, all_at_once: bool = True) -> None:
        """SIGKILL to the server; to its children as well, or they end when they see that it is gone."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split() if all_at_once else []
        self._process.send_signal(signal.SIGKILL)
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        self._process.wait()

    def start_again(self) -> None:
        """Start it, if it was killed."""
        if self._process.poll() is not None:
            self.start()

    def stop(self) -> None:
        """End it, and forget all that was in it."""
        self._process.send_signal(signal.SIGQUIT)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def execute(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        """Have one statement done in its database."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def clear(self) -> None:
        """Forget every campaign."""
        self.execute("DROP SCHEMA IF EXISTS asyncsmtp CASCADE")

    def cut(self) -> None:
        """End every session, as a process that dies does."""
        self.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def running() -> Iterator[Postgres]:
    """One that is ended on the way out."""
    server = Postgres()
    try:
        yield server
    finally:
        server.stop()
