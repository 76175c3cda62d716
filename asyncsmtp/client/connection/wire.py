"""One connection and the protocol on it: says commands, hears replies, keeps the time, fails once.

It hears from the first octet to the last. So a reply is handled while we still write, as RFC 2920 §3.1
asks; a 421 or a hang-up is noticed while nothing is asked; and octets that come between the 220 to STARTTLS
and the handshake meet a protocol that takes none (RFC 3207 §6).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from asyncsmtp.client.cancelling import being_cancelled
from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.connection.ear import Ear
from asyncsmtp.client.events.trace import Direction, Trace
from asyncsmtp.errors import ConnectionLost, LocalProtocolError, ReplyTimeout, SMTPError
from asyncsmtp.protocol.client import ClientProtocol, ProtocolState
from asyncsmtp.protocol.commands import GREETING, Command, Verb
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.protocol.replies import Reply

__all__ = ["Heard", "Listener", "Said", "Wire"]

Heard = Callable[[Command, Reply], None]


class Said(NamedTuple):
    """Commands, who hears their replies, seconds for each (None: by its verb), and how many replies each has."""

    commands: tuple[Command, ...]
    heard: Heard
    limit: float | None = None
    answers: int = 1


_CLOSED = ProtocolState.CLOSED  # looked up once: on Python 3.11 that is a call
logger = logging.getLogger("asyncsmtp.session")


class Listener(Protocol):
    """Who is told of what happens on the wire."""

    def caught_up(self) -> None:
        """All that one read brought is heard, and it was in order."""

    def broken(self, error: SMTPError) -> None:
        """The connection is gone; told once."""


class Wire:
    """Owns the streams and the protocol until `aclose`; `heard` and `lost` are called by the ear."""

    def __init__(
        self,
        relay: Relay,
        ear: Ear,
        writer: asyncio.StreamWriter,
        *,
        listener: Listener,
        greeted: Heard,
        trace: Trace | None,
    ) -> None:
        self.protocol = ClientProtocol(masked=relay.masked, tls=relay.security is Security.IMPLICIT_TLS)
        self.failure: SMTPError | None = None
        self.writer = writer
        self._relay = relay
        self._ear = ear  # its protocol holds it weakly
        self._listener = listener
        self._trace = trace
        self._waiters: deque[Said] = deque([Said((GREETING,), greeted)])
        self._heard = greeted  # who heard the last reply
        self._loop = asyncio.get_running_loop()
        self._limits = {verb: relay.timeouts.limit(verb) for verb in Verb}
        self._hearing = False
        self._due = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._silent = self._loop.create_future()  # done when nothing more will be heard
        self._keep_time()
        ear.attend(self)

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS connection, None in clear."""
        found: ssl.SSLObject | None = self.writer.get_extra_info("ssl_object")
        return found

    @property
    def alive(self) -> bool:
        return self.failure is None and not self.writer.transport.is_closing()

    @property
    def block_limit(self) -> float:
        """Seconds that the relay has to read one block of content."""
        return self._relay.timeouts.block

    def check(self) -> None:
        """Raise what broke the connection, or nothing; a write after it would be lost without a word."""
        if self.failure is not None:
            raise self.failure
        if self.writer.transport.is_closing():
            raise ConnectionLost(f"the connection to {self._relay} was lost: try again")

    def say(self, said: Iterable[Said], *, behind: Iterable[bytes] = (), chunk: Iterable[bytes] = ()) -> None:
        """Write commands as one group; returns before anything is answered.

        Args:
            behind: octets of content to write first, whose end the first command is.
            chunk: octets that the last command, BDAT, has counted.
        """
        self.check()
        octets = list(behind)
        idle = not self._waiters
        for one in said:
            commands, _, _, answers = one
            octets.append(self.protocol.send(*commands, answers=answers))
            self._waiters.extend((one,) * (len(commands) * answers))
            if self._trace is not None:
                for command in commands:
                    self._trace(Direction.CLIENT, str(command), tls=self.tls is not None, refused=False)
        octets += chunk
        self.writer.write(b"".join(octets))
        if idle and not self._hearing:  # else it is kept when all is heard
            self._keep_time()

    async def write_content(self, octets: bytes) -> None:
        """Write a block of content, and wait for room as `make_room` does."""
        self.check()
        self.writer.write(octets)
        await self.make_room()

    async def make_room(self) -> None:
        """Wait until the relay has read enough for the next block of content.

        Raises:
            ReplyTimeout: no progress within the relay's `block` timeout; the connection is broken off.
        """
        limit = self.block_limit
        try:
            async with asyncio.timeout(limit):
                await self.writer.drain()
        except TimeoutError:
            self.fail(ReplyTimeout(None, limit))
        except OSError as error:
            self.fail(self._lost(error))
        self.check()

    def fail(self, error: SMTPError) -> None:
        """Break off: abort, never close, since closing would still send what is buffered, its end included."""
        if self.failure is not None:
            return
        self.failure = error
        self.writer.transport.abort()
        self._waiters.clear()
        self._silence()
        if self._trace is not None:
            self._trace(Direction.EVENT, str(error), tls=False, refused=True)
        logger.info("session with %s broken off: %s", self._relay, error)
        self._listener.broken(error)

    async def ended(self) -> None:
        """Return when nothing more will be heard. Cancelling it changes nothing."""
        await asyncio.wait((self._silent,))

    async def aclose(self) -> None:
        """End the connection: TLS and all within the relay's `close` timeout, then at once."""
        self._silence()
        if self.failure is None:
            self.failure = ConnectionLost(f"the session with {self._relay} was closed: open another")
            self.writer.close()
            self._listener.broken(self.failure)
        try:
            async with asyncio.timeout(self._relay.timeouts.close):
                await self.writer.wait_closed()
        except (OSError, TimeoutError):
            pass
        except asyncio.CancelledError:
            if being_cancelled():
                raise
            # else it was closed before: the limit on that cancelled what asyncio lets everyone wait for
        finally:
            self.writer.transport.abort()
        await self._ear.aclose()
        self.lost(None)

    def heard(self, data: bytes) -> None:
        """Take octets from the relay; what they break ends the connection, and is told to whom it concerns."""
        if self.failure is not None:
            return
        try:
            self._hear(data)
        except SMTPError as error:
            if any(secret in data for secret in self.protocol.redacted):
                error.args = ("the relay broke the rules of the dialogue, and echoed the credentials: not shown here",)
            self.fail(error.with_traceback(None))  # its frames hold what was read, and tell nobody anything
        except Exception as error:
            self.fail(LocalProtocolError(f"{type(error).__name__} while hearing a reply: {error}"))
            raise

    def lost(self, error: BaseException | None) -> None:
        """The relay ended its side, or the connection broke; after the 221 it goes as it should."""
        if self.protocol.state is not ProtocolState.CLOSED:
            self.fail(self._lost(error) if isinstance(error, OSError) else self._hung_up())
        if not self._silent.done():
            self._silent.set_result(None)

    def _hear(self, data: bytes) -> None:
        exchange, waiters = None, self._waiters
        for exchange in self.protocol.receive(data):
            command, reply = exchange
            if self._trace is not None:
                self._trace(Direction.SERVER, reply.raw_text, tls=self.tls is not None, refused=not reply.positive)
            if command is None:
                continue  # a 421 that answers nothing
            if waiters:
                self._heard = waiters.popleft()[1]
            # else the content is refused before its end was said: that is for the one who heard the 354
            self._heard(command, reply)
        if exchange is None:
            return  # part of a reply: the time for the whole of it goes on
        if self.protocol.state is not _CLOSED:
            self._hearing = True
            try:
                self._listener.caught_up()
            finally:
                self._hearing = False
            self._keep_time()
        elif exchange.command is None or exchange.command.verb is not Verb.QUIT:
            self.fail(ConnectionLost(f"{self._relay} closed the session: {exchange.reply}"))

    def _keep_time(self) -> None:
        """The limit is on the whole reply to the oldest command, however it drips (RFC 5321 §4.5.3.2)."""
        if not self._waiters or self.failure is not None:
            return
        self._due = self._loop.time() + self._limit()
        if self._alarm is None or self._alarm.when() > self._due:  # else it goes off too early, and is set again
            self._set_alarm()

    def _silence(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _set_alarm(self) -> None:
        self._silence()
        self._alarm = self._loop.call_at(self._due, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if not self._waiters or self.failure is not None:
            return
        if self._loop.time() < self._due:
            self._set_alarm()
            return
        self.fail(ReplyTimeout(self.protocol.pending[0], self._limit()))

    def _limit(self) -> float:
        """Seconds for the reply to the oldest command."""
        limit = self._waiters[0].limit
        return self._limits[self.protocol.pending[0].verb] if limit is None else limit

    def _hung_up(self) -> SMTPError:
        return self.protocol.receive_eof() or ConnectionLost(f"{self._relay} hung up: try again")

    def _lost(self, error: OSError) -> ConnectionLost:
        lost = ConnectionLost(f"the connection to {self._relay} was lost ({error.strerror or error}): try again")
        lost.__cause__ = error
        return lost
