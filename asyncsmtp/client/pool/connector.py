"""Opens the sessions of a pool: the first one alone, with a back-off after failures, and none after a refused password.

A relay that accepts connections and closes them at once would otherwise be asked as fast as the machine can.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.connection.connect import Hosts
from asyncsmtp.client.connection.smtp_connection import is_being_cancelled
from asyncsmtp.client.connection.transport import OpenConnection
from asyncsmtp.client.events.trace import Trace
from asyncsmtp.client.events.types import EventEmitter
from asyncsmtp.client.session.send_pipeline import ServerQuirks
from asyncsmtp.client.session.session import Session
from asyncsmtp.client.session.token_source import CredentialsProvider
from asyncsmtp.errors import AuthenticationRefused, LocalProtocolError, SMTPError

__all__ = ["Backoff", "Connector"]

FIRST_DELAY = 0.01  # seconds after one failure; twice as many after each further one …
MAX_DELAY = 5.0  # … up to this


class Backoff:
    """The delay before the next connection, from failures that follow each other; time is passed in."""

    __slots__ = ("_failed_at", "_failures", "_not_before", "_tried_at")

    def __init__(self) -> None:
        self._failures = 0
        self._failed_at = self._tried_at = self._not_before = float("-inf")

    def started(self, now: float) -> None:
        """Note that a connection is begun."""
        self._tried_at = now

    def failed(self, now: float) -> None:
        """Note that it failed, or broke before it was of any use; of concurrent failures only the first counts."""
        if self._tried_at < self._failed_at:
            return
        self._failed_at = now
        self._not_before = now + min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(self._failures, 16))
        self._failures += 1

    def reset(self) -> None:
        """Note that the relay accepted the envelope of a message."""
        self._failures = 0
        self._not_before = float("-inf")

    def delay(self, now: float) -> float:
        """Return the seconds to wait before the next attempt."""
        return max(0.0, self._not_before - now)


class Connector:
    """Opens sessions that share credentials, host failures and quirks.

    Attributes:
        failures: how often the first session could not be opened, so far.
        backoff: when to try again after failures; the pool reports them.
    """

    def __init__(
        self,
        relay: Relay,
        quirks: ServerQuirks,
        trace: Trace | None,
        emitter: EventEmitter | None,
        clock: Callable[[], float],
        open_connection: OpenConnection,
    ) -> None:
        self._relay = relay
        self._quirks = quirks
        self._trace = trace
        self._emitter = emitter
        self._clock = clock
        self._open_connection = open_connection
        self._credentials = CredentialsProvider(relay.login, relay.timeouts.auth, clock) if relay.login else None
        self._hosts = Hosts(relay, clock)
        self._connecting: set[asyncio.Task[None]] = set()
        self._first = asyncio.Lock()
        self._opened_one = False
        self._last_failure: SMTPError | None = None
        self._refused: AuthenticationRefused | None = None
        self._closing = False
        self.failures = 0
        self.backoff = Backoff()

    async def open(self, seen: int) -> Session:
        """Open a session for a message that came after `seen` failures; a later failure is raised for it too."""
        if not self._opened_one:
            async with self._first:
                if not self._opened_one:
                    return await self._open_first(seen)
        return await self._open()

    async def _open_first(self, seen: int) -> Session:
        if self._last_failure is not None and self.failures > seen:
            raise self._last_failure
        try:
            session = await self._open()
        except SMTPError as error:
            self.failures += 1
            self._last_failure = error
            raise
        self._opened_one = True
        return session

    def all_failed(self, error: SMTPError) -> None:
        """Fail all who wait: no session is open, and none could be opened; the next one is the first again."""
        if self._opened_one:
            self._opened_one = False
            self.failures += 1
            self._last_failure = error

    async def _open(self) -> Session:
        """Connect in a task of the connector's own: `aclose` can end it without cancelling the sender.

        So there are two reasons for a CancelledError here. If the sender is cancelled, it goes on; if only the task
        was, the pool is closing, and the sender must get a reason that it can handle.
        """
        if self._refused is not None:
            raise self._refused
        self.check()
        session = Session(
            self._relay,
            trace=self._trace,
            quirks=self._quirks,
            credentials=self._credentials,
            hosts=self._hosts,
            emitter=self._emitter,
            clock=self._clock,
            open_connection=self._open_connection,
        )
        opening = asyncio.get_running_loop().create_task(self._connect_after_delay(session))
        self._connecting.add(opening)
        try:
            await opening
        except AuthenticationRefused as error:
            self._refused = error
            raise
        except asyncio.CancelledError:
            session.abort()  # it may have been opened in the loop step in which its message was given up
            if self._closing and not is_being_cancelled():
                raise _closed() from None
            raise
        finally:
            self._connecting.discard(opening)
        return session

    async def _connect_after_delay(self, session: Session) -> None:
        if delay := self.backoff.delay(self._clock()):
            await asyncio.sleep(delay)
        self.backoff.started(self._clock())
        await session.connect()

    def check(self) -> None:
        """Raise if the pool is closed."""
        if self._closing:
            raise _closed()

    async def aclose(self) -> None:
        """Open no more sessions, and cancel what is being opened."""
        self._closing = True
        connecting = tuple(self._connecting)
        for task in connecting:
            task.cancel()
        await asyncio.gather(*connecting, return_exceptions=True)


def _closed() -> SMTPError:
    return LocalProtocolError("the pool is closed")
