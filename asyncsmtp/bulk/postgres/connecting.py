"""A connection that keeps the promises of a ledger, and notices when its other end is gone."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from asyncsmtp.bulk.postgres.driver import Connection, conninfo_to_dict, make_conninfo, psycopg
from asyncsmtp.bulk.postgres.place import Database
from asyncsmtp.errors import LedgerError

__all__ = ["answered", "connect"]

_SETTINGS: dict[str, str | int] = {
    "application_name": "asyncsmtp",
    "connect_timeout": 10,  # seconds
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,  # milliseconds
}
_SESSION = (
    "SET client_encoding = 'UTF8'",
    "SET search_path = asyncsmtp",
    "SET default_transaction_isolation = 'read committed'",
    # the server's end, so that the lock of a machine that vanished is free again
    "SET tcp_keepalives_idle = 10",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 3",
)


async def connect(database: Database, *, write: bool) -> Connection:
    """Connect, each statement being a transaction of its own unless one is begun.

    Raises:
        LedgerError: the server does not write durably, and says so. psycopg.Error: it cannot be reached.
    """
    given = conninfo_to_dict(database.url)
    settings = {key: value for key, value in _SETTINGS.items() if key not in given}
    if write:
        settings["target_session_attrs"] = "read-write"  # of several hosts the one that is the primary now
    place = make_conninfo(database.url, **settings)
    connection = await psycopg.AsyncConnection.connect(place, autocommit=True)
    try:
        for statement in _SESSION:
            await connection.execute(statement)
        if write:
            await _make_durable(connection, database)
        else:
            await connection.execute("SET default_transaction_read_only = on")
    except BaseException:
        await connection.close()
        raise
    return connection


async def _make_durable(connection: Connection, database: Database) -> None:
    """What is committed is on the disk of the primary, whatever the server's configuration had said of commits."""
    await connection.execute("SET synchronous_commit = on")
    found = await connection.execute("SELECT current_setting('synchronous_commit'), current_setting('fsync')")
    commit, fsync = await found.fetchone() or ("", "")
    if (commit, fsync) != ("on", "on"):
        raise LedgerError(
            f"{database}: the server promises what it may forget (synchronous_commit = {commit}, fsync = {fsync}):"
            " set both to on in its configuration"
        )


@contextmanager
def answered(connection: Connection, seconds: float | None) -> Iterator[None]:
    """Break the connection of a server that says nothing for so long: what waits for it hears that it is lost.

    Cancelling would not do: the driver asks the server to cancel first, and waits for it.
    """
    watch = None if seconds is None else asyncio.get_running_loop().call_later(seconds, _cut, connection)
    try:
        yield
    finally:
        if watch is not None:
            watch.cancel()


def _cut(connection: Connection) -> None:
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as other:
        other.shutdown(socket.SHUT_RDWR)
