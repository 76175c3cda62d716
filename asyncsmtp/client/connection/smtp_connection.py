"""One SMTP connection: opening it on one of the hosts of a relay, writing commands, reading replies, timeouts.

Three kinds of failure to open a session are told apart. Of *transport*: no connection, no handshake, a greeting with
4xx: the next host may do better. *Permanent*: credentials, a certificate, a policy that cannot be met: wrong on every
host, so no other is tried. *Past the point of no return*: never here, since only connecting is tried again; a message
in doubt stays with the host that may have it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple, Protocol

from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.connection.transport import (
    PushStreamReader,
    client_name,
    start_tls,
    tls_context,
    tls_info,
    verifies,
)
from asyncsmtp.client.event_loop import count_cancellations
from asyncsmtp.client.events.types import Direction, GuardedLogger, Trace
from asyncsmtp.errors import (
    AllHostsFailed,
    ConnectFailed,
    ConnectionLost,
    LocalProtocolError,
    RemoteProtocolError,
    ReplyTimeout,
    SMTPError,
    StartTlsInjection,
)
from asyncsmtp.protocol.auth.auth import PLUS, Channel, Credentials
from asyncsmtp.protocol.client import ClientProtocol, Exchange, ProtocolState
from asyncsmtp.protocol.commands import GREETING, Command, Verb
from asyncsmtp.protocol.delivery import TlsInfo
from asyncsmtp.protocol.masking import SecretMask
from asyncsmtp.protocol.opening_handshake import OpeningOptions, Security, open_session
from asyncsmtp.protocol.replies import Reply

__all__ = [
    "HOST_PENALTY",
    "CommandGroup",
    "ConnectionListener",
    "Hosts",
    "ReplyCallback",
    "SmtpConnection",
    "aborted_by_owner",
    "open_dialogue",
    "with_context",
]

ReplyCallback = Callable[[Command, Reply], None]


class CommandGroup(NamedTuple):
    """Commands written together, the callback for their replies, a timeout for each (None: that of its verb), and
    the number of replies that each command has.
    """

    commands: tuple[Command, ...]
    on_reply: ReplyCallback
    timeout: float | None = None
    replies: int = 1


_CLOSED = ProtocolState.CLOSED  # looked up once: on Python 3.11 that is a call
logger = GuardedLogger(logging.getLogger("asyncsmtp.session"))


class ConnectionListener(Protocol):
    """The owner of the messages on a connection; see `SmtpConnection.listen`."""

    def replies_received(self) -> None:
        """Handle the end of one read, after each of its replies went to its callback."""

    def connection_failed(self, error: SMTPError) -> None:
        """Handle the end of the connection; called once."""


class SmtpConnection:
    """The streams and the protocol of one session, until `aclose`.

    It reads from the first byte to the last, in the loop step that brings the bytes. So a reply is handled while we
    still write, as RFC 2920 §3.1 asks; a 421 or a closed connection is noticed while no reply is due; and bytes that
    come between the 220 to STARTTLS and the handshake meet a protocol that takes none (RFC 3207 §6).

    Attributes:
        failure: the error that ended the connection; everybody who uses it later gets the same one.
        greeting: the 220 of the relay, or None before it came.
        round_trip: seconds of the fastest reply to `ask`; the greeting does not count.
    """

    def __init__(
        self,
        relay: Relay,
        reader: PushStreamReader,
        writer: asyncio.StreamWriter,
        *,
        on_failure: Callable[[SMTPError], None],
        trace: Trace | None,
        clock: Callable[[], float],
        mask: SecretMask | None = None,
    ) -> None:
        implicit_tls = relay.security is Security.IMPLICIT_TLS
        self.protocol = ClientProtocol(masked=relay.ignored_extensions, tls=implicit_tls, mask=mask)
        self.failure: SMTPError | None = None
        self.greeting: Reply | None = None
        self.round_trip = float("inf")
        self.writer = writer
        self._relay = relay
        self._reader = reader  # its protocol holds it weakly
        self._on_failure = on_failure
        self._listener: ConnectionListener | None = None
        self._trace = trace
        self._clock = clock
        self._waiting: deque[CommandGroup] = deque([CommandGroup((GREETING,), self._answered)])  # one for each reply
        self._on_last_reply: ReplyCallback = self._answered
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[Reply] = self._loop.create_future()
        self._asking = asyncio.Lock()
        self._timeouts = {verb: relay.timeouts.limit(verb) for verb in Verb}
        self._receiving = False
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._ended = self._loop.create_future()  # done when nothing more will be received
        self._restart_timer()
        reader.push_to(self)

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS connection, None in clear."""
        found: ssl.SSLObject | None = self.writer.get_extra_info("ssl_object")
        return found

    @property
    def alive(self) -> bool:
        return self.failure is None and not self.protocol.is_closing and not self.writer.transport.is_closing()

    @property
    def block_timeout(self) -> float:
        """Seconds that the relay has to read one block of content."""
        return self._relay.timeouts.block

    def check(self) -> None:
        """Raise the error that ended the connection, if one did; a write after it would be lost silently."""
        if self.protocol.is_closing:
            self._fail_closing()
        if self.failure is not None:
            raise self.failure
        if self.writer.transport.is_closing():
            raise ConnectionLost(f"the connection to {self._relay} was lost: try again")

    def listen(self, listener: ConnectionListener) -> None:
        """Call `listener` from now on."""
        self._listener = listener

    def write(
        self, groups: Iterable[CommandGroup], *, content: Iterable[bytes] = (), chunk: Iterable[bytes] = ()
    ) -> None:
        """Write commands as one group, without waiting for a reply.

        Args:
            content: bytes to write before the commands; the first command is its end.
            chunk: bytes that the last command, BDAT, has counted.
        """
        self.check()
        data = list(content)
        idle = not self._waiting
        for group in groups:
            commands, _, _, replies = group
            data.append(self.protocol.send(*commands, answers=replies))
            self._waiting.extend((group,) * (len(commands) * replies))
            if self._trace is not None:
                for command in commands:
                    self._trace(Direction.CLIENT, str(command), tls=self.tls is not None, refused=False)
        data += chunk
        self.writer.write(b"".join(data))
        if idle and not self._receiving:  # else it is restarted when the whole read is handled
            self._restart_timer()

    async def ask(self, command: Command) -> Reply:
        """Write one command and return its reply; the greeting is only waited for. Concurrent calls take turns.

        Cancelling it aborts the connection: the reply would be taken for that to the next command.
        """
        async with self._asking:
            if command is not GREETING:
                self._answer = self._loop.create_future()
                self.write([CommandGroup((command,), self._answered)])
            began = self._clock()
            try:
                reply = await self._answer
            except asyncio.CancelledError:
                self.fail(aborted_by_owner())
                raise
        if command is not GREETING:
            self.round_trip = min(self.round_trip, self._clock() - began)
        return reply

    def _answered(self, command: Command, reply: Reply) -> None:
        if command is GREETING:
            self.greeting = reply
        if not self._answer.done():
            self._answer.set_result(reply)

    async def write_content(self, data: bytes) -> None:
        """Write a block of content, and wait as `drain` does."""
        self.check()
        self.writer.write(data)
        await self.drain()

    async def drain(self) -> None:
        """Wait until the relay has read enough for the next block of content.

        Raises:
            ReplyTimeout: no progress within the relay's `block` timeout; the connection is aborted.
        """
        limit = self.block_timeout
        try:
            async with asyncio.timeout(limit):
                await self.writer.drain()
        except TimeoutError:
            self.fail(ReplyTimeout(None, limit))
        except OSError as error:
            self.fail(self._lost(error))
        self.check()

    def fail(self, error: SMTPError) -> None:
        """Abort the connection. Never close it here: closing still sends what is buffered.

        The buffer may hold the end of a content that nobody may deliver any more, so a close would pass the point of
        no return for a message that is reported as not delivered. Only `abort` throws the buffer away.
        """
        if self.failure is not None:
            return
        self.failure = error
        self.writer.transport.abort()
        self._waiting.clear()
        self._stop_timer()
        try:
            if self._trace is not None:
                self._trace(Direction.EVENT, str(error), tls=False, refused=True)
            if logger.isEnabledFor(logging.INFO):
                logger.info("session with %s aborted: %s", self._relay, error)
        finally:
            self._report_failure(error)

    def _report_failure(self, error: SMTPError) -> None:
        if not self._answer.done():
            self._answer.set_exception(error)
            self._answer.exception()  # marks it as retrieved: nobody may be waiting
        try:
            self._on_failure(error)
        finally:
            if self._listener is not None:
                self._listener.connection_failed(error)

    async def wait_closed(self) -> None:
        """Return when nothing more will be received. Cancelling it changes nothing."""
        await asyncio.wait((self._ended,))

    async def aclose(self) -> None:
        """End the connection: TLS and all within the relay's `close` timeout, then at once."""
        self._stop_timer()
        if self.failure is None:
            self.failure = ConnectionLost(f"the session with {self._relay} was closed: open another")
            self.writer.close()
            self._report_failure(self.failure)
        before = count_cancellations()
        try:
            async with asyncio.timeout(self._relay.timeouts.close):
                await self.writer.wait_closed()
        except (OSError, TimeoutError):
            pass
        except asyncio.CancelledError:
            if count_cancellations() > before:
                raise
            # else an earlier `aclose` timed out, which cancelled the future that asyncio shares among all who wait
        finally:
            self.writer.transport.abort()
            try:
                await self._reader.aclose()
            finally:
                self.connection_lost(None)

    def data_received(self, data: bytes) -> None:
        """Handle bytes from the relay; a violation of the protocol ends the connection and reaches those it affects."""
        if self.failure is None:
            self._receive(self.protocol.receive(data))

    def connection_lost(self, error: BaseException | None) -> None:
        """Handle the end of the incoming stream; after the 221 to QUIT it is the orderly one."""
        if self.failure is None and self.protocol.state is not _CLOSED:
            partial, left = self.protocol.partial_reply, self.protocol.receive_eof()
            if isinstance(left, Exchange):
                self._receive([left])
            elif left is not None:
                self.fail(left)
            else:
                self.fail(self._lost(error, partial) if isinstance(error, OSError) else self._hung_up(partial))
        if not self._ended.done():
            self._ended.set_result(None)

    def _receive(self, exchanges: Iterable[Exchange]) -> None:
        try:
            self._handle(exchanges)
        except SMTPError as error:
            self.fail(error.with_traceback(None))  # its frames hold what was read, and help nobody
        except BaseException as error:  # a bug, or a KeyboardInterrupt: nobody may wait for a reply any more
            failure = LocalProtocolError(f"{type(error).__name__} while reading a reply: {error}")
            failure.__cause__ = error
            self.fail(failure)
            raise

    def _handle(self, exchanges: Iterable[Exchange]) -> None:
        exchange, waiting = None, self._waiting
        for exchange in exchanges:
            command, reply = exchange
            if self._trace is not None:
                self._trace(Direction.SERVER, reply.raw_text, tls=self.tls is not None, refused=not reply.positive)
            if command is None:
                continue  # a 421 that answers nothing
            if waiting:
                self._on_last_reply = waiting.popleft()[1]
            # else the content is refused before its end was written: that is for the callback that took the 354
            self._on_last_reply(command, reply)
        if exchange is None:  # part of a reply: the time for the whole of it goes on
            if self.protocol.is_closing:
                self._restart_timer()
            return
        if self.protocol.state is not _CLOSED:
            if self._listener is not None:
                self._receiving = True
                try:
                    self._listener.replies_received()
                finally:
                    self._receiving = False
            self._restart_timer()
        elif exchange.command is None or exchange.command.verb is not Verb.QUIT:
            self.fail(self._closed_by(exchange.reply))

    def _fail_closing(self) -> None:
        """End a connection on which a 421 has begun to arrive, and the rest of it is not waited for."""
        self.fail(ConnectionLost(f"{self._relay} began to close the session: {self.protocol.partial_reply}"))

    def _restart_timer(self) -> None:
        """Time the whole reply to the oldest command, however slowly it drips (RFC 5321 §4.5.3.2).

        A timer that is due earlier is left alone and set again when it fires: setting one for each reply costs more
        than the few that fire early.
        """
        if self.failure is not None or not (self._waiting or self.protocol.is_closing):
            return
        self._due = self._loop.time() + self._timeout()
        if self._timer is None or self._timer.when() > self._due:
            self._set_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        self._stop_timer()
        self._timer = self._loop.call_at(self._due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self.protocol.is_closing:
            self._fail_closing()
        if not self._waiting or self.failure is not None:
            return
        if self._loop.time() < self._due:
            self._set_timer()
            return
        self.fail(ReplyTimeout(self.protocol.pending[0], self._timeout(), self.protocol.partial_reply))

    def _timeout(self) -> float:
        """Return the seconds for the reply to the oldest command, or for the rest of a 421 that answers none."""
        if not self._waiting:
            return self._timeouts[Verb.QUIT]
        limit = self._waiting[0].timeout
        return self._timeouts[self.protocol.pending[0].verb] if limit is None else limit

    def _closed_by(self, reply: Reply) -> ConnectionLost:
        return ConnectionLost(f"{self._relay} closed the session: {reply}")

    def _hung_up(self, partial: str) -> ConnectionLost:
        return ConnectionLost(f"{self._relay} hung up{_inside(partial)}: try again")

    def _lost(self, error: OSError, partial: str = "") -> ConnectionLost:
        reason = error.strerror or error
        lost = ConnectionLost(f"the connection to {self._relay} was lost{_inside(partial)} ({reason}): try again")
        lost.__cause__ = error
        return lost


def _inside(partial: str) -> str:
    return f" inside the reply “{partial}”" if partial else ""


def aborted_by_owner() -> SMTPError:
    """Return the error for messages on a session that its owner aborts."""
    return LocalProtocolError("the session was aborted by its owner")


HOST_PENALTY = 30.0  # seconds for which a host that failed comes last


class Hosts:
    """The hosts of a relay, with the times of their last failures; the sessions of a pool share it."""

    def __init__(self, relay: Relay, clock: Callable[[], float] | None = None) -> None:
        self._each = relay.single_host_relays
        self._clock = clock
        self._penalty_until: dict[str, float] = {}
        self._unverified: set[str] = set()

    async def connect(self, connect: Callable[[Relay], Awaitable[TlsInfo | None]]) -> None:
        """Connect to the first host that accepts us, in the order of the relay; those that failed lately come last.

        Cancelling it cancels the attempt under way, and tries no other host.

        Args:
            connect: opens a session with one host and returns what protects it.
        Raises:
            AllHostsFailed: there are several, and all failed. Of a single host its own error.
            And what `connect` raises, where no other host may do better: see `SMTPError.retryable`.
        """
        if len(self._each) == 1:
            self._note_opened(self._each[0], await connect(self._each[0]))
            return
        if self._each[0].security is not Security.PLAINTEXT:
            await tls_context(self._each[0])  # files that cannot be used are no host's fault
        failures = []
        for host in self.in_order():
            try:
                self._note_opened(host, await connect(host))
            except SMTPError as error:
                if not error.retryable:
                    raise
                self._penalty_until[str(host)] = self._now() + HOST_PENALTY
                logger.info("the next host is tried: %s", error)
                failures.append((str(host), error))
            else:
                for name, failure in failures:
                    logger.warning("%s could not be used, so %s is used instead: %s", name, host, failure)
                return
        raise AllHostsFailed(failures) from failures[-1][1]

    def in_order(self) -> list[Relay]:
        """Return the hosts in the relay's order, but those that failed lately last, in the order of their failures."""
        now = self._now()
        return sorted(self._each, key=lambda host: max(self._penalty_until.get(str(host), 0.0), now))

    def _now(self) -> float:
        return (self._clock or asyncio.get_running_loop().time)()

    def _note_opened(self, host: Relay, tls: TlsInfo | None) -> None:
        """Note that it works; warn once if its certificate was not verified."""
        name = str(host)
        self._penalty_until.pop(name, None)
        if tls is not None and not tls.verified and name not in self._unverified:
            self._unverified.add(name)
            logger.warning(
                "the certificate of %s was not verified: an attacker could read and change what is sent; "
                "pin it (pins=), or trust its CA (ca_file=)",
                name,
            )


async def open_dialogue(
    connection: SmtpConnection, relay: Relay, credentials: Credentials | None, trace: Trace | None
) -> None:
    """Run the opening handshake, with TLS and the SCRAM computation; return when a message may be sent.

    Raises what `protocol.opening_handshake.open_session` does, and ConnectFailed for the TLS handshake.
    """

    def channel() -> Channel:
        certificate = connection.tls.getpeercert(binary_form=True) if connection.tls is not None else None
        return Channel(*relay.address, certificate, secrets.token_urlsafe(24))

    opening = OpeningOptions(
        relay.name or client_name(connection.writer),
        relay.security,
        credentials,
        relay.cleartext_login,
        verifies(relay),
        channel,
        relay.login.mechanisms if relay.login is not None else (),
        lmtp=relay.lmtp,
        xclient=relay.xclient,
    )
    steps = open_session(connection.protocol, opening)
    command = next(steps)
    while True:
        try:
            reply = await connection.ask(command)
        except ConnectionLost as error:
            raise (_advise_unbound(relay, error) if _is_bound(command) else error) from error.__cause__
        if connection.protocol.state is ProtocolState.TLS:
            await _start_tls(connection, relay, trace)
        try:
            if (
                connection.protocol.state is ProtocolState.AUTH
            ):  # the answer to a challenge may cost a second of computing
                command = await asyncio.to_thread(steps.send, reply)
            else:
                command = steps.send(reply)
        except StopIteration:
            return


def _is_bound(command: Command) -> bool:
    return command.verb is Verb.AUTH and command.argument.partition(b" ")[0].endswith(PLUS.encode("ascii"))


def _advise_unbound(relay: Relay, error: ConnectionLost) -> ConnectFailed:
    """Return the error for a hang-up at a type of channel binding that the server does not know (Dovecot 2.4.1)."""
    return ConnectFailed(
        f"{error}; that was at a login bound to its certificate, which it may not know: "
        f"name another mechanism in the login of {relay}, SCRAM-SHA-256 for one"
    )


async def _start_tls(connection: SmtpConnection, relay: Relay, trace: Trace | None) -> None:
    try:
        await start_tls(relay, connection.writer)
    except ConnectFailed as error:
        # Plaintext bytes break the handshake; the injection is the more useful error (RFC 3207 §6).
        failure = connection.failure
        raise (failure if isinstance(failure, StartTlsInjection) else error) from error.__cause__
    connection.check()
    connection.protocol.tls_started()
    if trace is not None:
        trace(Direction.EVENT, str(tls_info(relay, connection.tls)), tls=True, refused=False)


def with_context(error: SMTPError, relay: Relay, greeting: Reply | None) -> SMTPError:
    """Return the error to raise for a connection that broke before its session was open: ConnectFailed, with advice."""
    if not isinstance(error, ConnectionLost | ReplyTimeout | RemoteProtocolError) or isinstance(
        error, StartTlsInjection
    ):
        return error
    advice = ""
    if isinstance(error, ReplyTimeout) and greeting is None:
        advice = "; a port that stays silent may wait for TLS, as 465 does: use smtps:// then"
    what = f"no greeting from {relay}" if greeting is None else f"no session with {relay}"
    return ConnectFailed(f"{what}: {error}{advice}")
