"""Opens the sessions of a pool: the first one alone, and none after a refused password."""

from __future__ import annotations

import asyncio

from asyncsmtp.client.cancelling import being_cancelled
from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.connection.failover import Hosts
from asyncsmtp.client.events.trace import Trace
from asyncsmtp.client.events.types import EventEmitter
from asyncsmtp.client.pool.backoff import Backoff
from asyncsmtp.client.session.manners import Manners
from asyncsmtp.client.session.session import Session
from asyncsmtp.client.session.wallet import Wallet
from asyncsmtp.errors import AuthenticationRefused, LocalProtocolError, SMTPError

__all__ = ["Connector"]


class Connector:
    """What the sessions of one pool have in common while they are opened.

    Attributes:
        failures: how often the first session could not be opened, so far.
        backoff: when to try again after failures; the pool tells it of them.
    """

    def __init__(
        self, relay: Relay, manners: Manners, trace: Trace | None = None, witness: EventEmitter | None = None
    ) -> None:
        self._relay = relay
        self._manners = manners
        self._trace = trace
        self._witness = witness
        self._wallet = Wallet(relay.login, relay.timeouts.auth)
        self._hosts = Hosts(relay)
        self._connecting: set[asyncio.Task[None]] = set()
        self._first = asyncio.Lock()
        self._opened_one = False
        self._last_failure: SMTPError | None = None
        self._refused: AuthenticationRefused | None = None
        self._closing = False
        self.failures = 0
        self.backoff = Backoff()

    async def open(self, seen: int) -> Session:
        """Open a session for a message that came after `seen` failures; a later one is its failure too."""
        if not self._opened_one:
            async with self._first:
                if not self._opened_one:
                    return await self._open_first(seen)
        return await self._connected()

    async def _open_first(self, seen: int) -> Session:
        if self._last_failure is not None and self.failures > seen:
            raise self._last_failure
        try:
            session = await self._connected()
        except SMTPError as error:
            self.failures += 1
            self._last_failure = error
            raise
        self._opened_one = True
        return session

    def gone(self, error: SMTPError) -> None:
        """No session is open, and none could be: who waits is told, the next one to come is the first again."""
        if self._opened_one:
            self._opened_one = False
            self.failures += 1
            self._last_failure = error

    async def _connected(self) -> Session:
        if self._refused is not None:
            raise self._refused
        self.check()
        session = Session(
            self._relay,
            trace=self._trace,
            manners=self._manners,
            wallet=self._wallet,
            hosts=self._hosts,
            witness=self._witness,
        )
        opening = asyncio.get_running_loop().create_task(self._in_time(session))
        self._connecting.add(opening)
        try:
            await opening
        except AuthenticationRefused as error:
            self._refused = error
            raise
        except asyncio.CancelledError:
            session.abort()  # it may have been opened in the very turn in which its message was given up
            if self._closing and not being_cancelled():
                raise _closed() from None
            raise
        finally:
            self._connecting.discard(opening)
        return session

    async def _in_time(self, session: Session) -> None:
        time = asyncio.get_running_loop().time
        if delay := self.backoff.delay(time()):
            await asyncio.sleep(delay)
        self.backoff.tries(time())
        await session.connect()

    def check(self) -> None:
        """Raise when the pool is closed, or nothing."""
        if self._closing:
            raise _closed()

    async def aclose(self) -> None:
        """Open no more, and break off what is being opened."""
        self._closing = True
        connecting = tuple(self._connecting)
        for task in connecting:
            task.cancel()
        await asyncio.gather(*connecting, return_exceptions=True)


def _closed() -> SMTPError:
    return LocalProtocolError("the pool is closed")
