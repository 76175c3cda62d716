"""The connection of the process that has a campaign in hand: its lock, its lease, and how it comes back.

The lock is the session's: it ends with the process, or with the server, so nobody waits for a dead one. What keeps two
apart is the lease: each transaction writes its number there, if the lease still has this run. So a process that lost
its session, and its campaign to another, finds out before its next mark; and one whose connection broke at a commit
finds out whether that was the one before, or the one it asked for.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from asyncsmtp.bulk.postgres.connecting import answered, connect
from asyncsmtp.bulk.postgres.driver import Connection, psycopg
from asyncsmtp.bulk.postgres.failures import Fenced, is_lost, ledger_error
from asyncsmtp.bulk.postgres.place import Database
from asyncsmtp.bulk.postgres.schema import NOW
from asyncsmtp.errors import LedgerBusy
from asyncsmtp.protocol.replies import safe_text

__all__ = ["ANSWER", "PATIENCE", "Session", "held_back", "owner", "take_lock"]

PATIENCE = 120.0  # seconds that the database may be away
DELAYS = (0.05, 0.1, 0.2, 0.5, 1.0)  # seconds before each further try; the last one again and again
ANSWER = 60.0  # seconds for one transaction
LOOKS, LOOK = 4, 0.1  # how often the lock is looked at before it is another's; seconds in between

_log = logging.getLogger("asyncsmtp.ledger")
_T = TypeVar("_T")

_LOCK = "SELECT pg_try_advisory_lock(hashtextextended('asyncsmtp ' || %s, 0))"
_STEP = f"""
UPDATE lease SET commits = %(number)s, at_us = {NOW}
WHERE campaign_id = %(campaign)s AND epoch = %(run)s
AND (SELECT held IS NULL FROM campaign WHERE id = %(campaign)s)"""  # noqa: S608
_LEASE = """
SELECT epoch, owner, commits, held FROM lease JOIN campaign ON id = campaign_id WHERE campaign_id = %(campaign)s"""
_HOLD = "UPDATE campaign SET held = %(held)s WHERE id = %(campaign)s"

_FORGOT = "the database has forgotten transactions that it had reported durable: is it a replica that was behind?"


def owner() -> str:
    """How this process is named to others."""
    return f"pid {os.getpid()} on {socket.gethostname()}"


async def take_lock(connection: Connection, database: Database) -> None:
    """Take the campaign's lock, or not at all.

    Raises:
        LedgerBusy: another process has it; the message says which.
    """
    for _ in range(LOOKS):  # the server may not have noticed yet that one has died
        if await _locks(connection, database):
            return
        await asyncio.sleep(LOOK)
    found = await connection.execute(
        "SELECT owner FROM lease JOIN campaign ON id = campaign_id WHERE name = %s", (database.campaign,)
    )
    row = await found.fetchone()
    who = safe_text(str(row[0]), 100) if row else "another process"
    raise LedgerBusy(
        f"{who} has the campaign “{database.campaign}” in hand: wait until it ends, or stop it, then run the same"
        " command again"
    )


async def _locks(connection: Connection, database: Database) -> bool:
    row = await (await connection.execute(_LOCK, (database.campaign,))).fetchone()
    return bool(row and row[0])


def held_back(name: str, why: str) -> str:
    """That a campaign is on hold, and how it goes on."""
    return (
        f"the campaign “{name}” is on hold: {safe_text(why, 200)}; when it may go on, set its `held` to NULL"
        " in the table asyncsmtp.campaign"
    )


class Session:
    """One run's session with its database; used by one task at a time.

    Args:
        campaign: its id. run: the number of this run.
        now: microseconds since 1970, UTC; None: the database's clock.
    """

    def __init__(
        self, database: Database, connection: Connection, campaign: int, run: int, now: Callable[[], int | None]
    ) -> None:
        self.database = database
        self._connection = connection
        self._campaign = campaign
        self._run = run
        self._now = now
        self._commits = 0  # transactions of this run that are durable

    @property
    def stamp(self) -> dict[str, object]:
        """What every statement is told."""
        return {"campaign": self._campaign, "run": self._run, "now": self._now()}

    async def read(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        """Do what changes nothing; again, if the connection breaks.

        Raises:
            Fenced, LedgerError: there is no way to go on.
        """
        while True:
            try:
                return await work(self._connection)
            except psycopg.Error as error:
                await self._renew(error, self._commits)

    async def write(self, work: Callable[[Connection], Awaitable[_T]], *, within: float | None = None) -> _T:
        """Do something as one transaction: once, however often the connection breaks.

        Args:
            within: seconds; a server that takes longer is lost.
        Raises:
            Fenced: another process has the campaign now, or it is on hold. LedgerError: there is no way to go on.
        """
        number = self._commits + 1
        while True:
            done: list[_T] = []
            try:
                with answered(self._connection, within):
                    async with self._connection.transaction():
                        await self._step(number)
                        done.append(await work(self._connection))
            except psycopg.Error as error:
                if not await self._renew(error, number):
                    continue
            self._commits = number
            return done[0]

    async def once(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        """Do one step of something that is to be begun anew if the connection breaks.

        Raises:
            LedgerError: it broke, or what was asked for cannot be done.
        """
        try:
            return await work(self._connection)
        except psycopg.Error as error:
            raise ledger_error(self.database, error) from error

    async def at_last(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        """Do something after a failure, on a new connection where the old one is gone; tried once.

        Raises:
            psycopg.Error, LedgerError: it cannot be done.
        """
        if self._connection.closed:
            self._connection = await connect(self.database, write=True)
        with answered(self._connection, ANSWER):
            return await work(self._connection)

    async def close(self) -> None:
        """Let go of the connection, and so of the lock."""
        with suppress(psycopg.Error):
            await self._connection.close()

    async def _step(self, number: int) -> None:
        changed = await self._connection.execute(_STEP, {**self.stamp, "number": number})
        if changed.rowcount == 1:
            return
        epoch, who, _, held = await self._lease()
        if epoch != self._run:
            raise Fenced(_taken(self.database, who))
        raise Fenced(held_back(self.database.campaign, held or ""))

    async def _lease(self) -> tuple[int, str, int, str | None]:
        row = await (await self._connection.execute(_LEASE, self.stamp)).fetchone()
        return (0, "", 0, None) if row is None else (row[0], row[1], row[2], row[3])

    async def _renew(self, error: BaseException, number: int) -> bool:
        """Come back after `error`; return whether transaction `number` is durable.

        What is asked for is kept meanwhile. Whoever has the lock may be what is left of our own session.
        """
        if not is_lost(error):
            raise ledger_error(self.database, error) from error
        _log.warning("%s is away: what is known is kept, and tried again (%s)", self.database, _said(error))
        began, tries = time.monotonic(), 0
        while True:
            await self.close()
            await asyncio.sleep(DELAYS[min(tries, len(DELAYS) - 1)])
            tries += 1
            try:
                self._connection = await connect(self.database, write=True)
                with answered(self._connection, ANSWER):
                    locked = await _locks(self._connection, self.database)
                    durable = await self._is_durable(number)
                if locked:
                    _log.warning("%s is back after %.1f s", self.database, time.monotonic() - began)
                    return durable
                error = LedgerBusy(f"{self.database}: another session has the lock of this campaign")
            except psycopg.Error as again:
                if not is_lost(again):
                    raise ledger_error(self.database, again) from again
                error = again
            if time.monotonic() - began > PATIENCE:
                raise ledger_error(self.database, error) from error

    async def _is_durable(self, number: int) -> bool:
        epoch, who, commits, _ = await self._lease()
        if epoch > self._run:
            raise Fenced(_taken(self.database, who))
        if epoch < self._run or commits < self._commits:
            await self._connection.execute(_HOLD, {**self.stamp, "held": _FORGOT})
            raise Fenced(held_back(self.database.campaign, _FORGOT))
        return commits == number


def _taken(database: Database, who: str) -> str:
    return (
        f"{safe_text(who, 100)} went on with the campaign “{database.campaign}” while this process had lost the"
        " database: leave it to that one"
    )


def _said(error: BaseException) -> str:
    return safe_text(" ".join(str(error).split()), 200) or type(error).__name__
