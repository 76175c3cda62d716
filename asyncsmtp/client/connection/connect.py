"""From a relay to an open session: its hosts in turn, and the opening dialogue on a connection.

Three kinds of failure to open a session are told apart. Of *transport*: no connection, no handshake, a greeting with
4xx: the next host may do better. *Permanent*: credentials, a certificate, a policy that cannot be met: wrong on every
host, so no other is tried. *Past the point of no return*: never here, since only connecting is tried again; a message
in doubt stays with the host that may have it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable

from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.connection.smtp_connection import SmtpConnection
from asyncsmtp.client.connection.transport import client_name, start_tls, tls_context, tls_info, verifies
from asyncsmtp.client.events.trace import Direction, Trace
from asyncsmtp.errors import (
    AllHostsFailed,
    ConnectFailed,
    ConnectionLost,
    RemoteProtocolError,
    ReplyTimeout,
    SMTPError,
    StartTlsInjection,
)
from asyncsmtp.protocol.auth.sasl import PLUS, Channel, Credentials
from asyncsmtp.protocol.client import ProtocolState
from asyncsmtp.protocol.commands import Command, Verb
from asyncsmtp.protocol.delivery import TlsInfo
from asyncsmtp.protocol.opening_handshake import OpeningOptions, Security, open_session
from asyncsmtp.protocol.replies import Reply

__all__ = ["HOST_PENALTY", "Hosts", "open_dialogue", "with_context"]

logger = logging.getLogger("asyncsmtp.session")

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
            self._opened(self._each[0], await connect(self._each[0]))
            return
        if self._each[0].security is not Security.PLAINTEXT:
            await tls_context(self._each[0])  # files that cannot be used are no host's fault
        failures = []
        for host in self.in_order():
            try:
                self._opened(host, await connect(host))
            except SMTPError as error:
                if not error.retryable:
                    raise
                self._penalty_until[str(host)] = self._now() + HOST_PENALTY
                logger.info("the next host is tried: %s", error)
                failures.append((str(host), error))
            else:
                for name, failure in failures:
                    logger.warning("%s does not take us, %s does: %s", name, host, failure)
                return
        raise AllHostsFailed(failures) from failures[-1][1]

    def in_order(self) -> list[Relay]:
        """Return the hosts in the relay's order, but those that failed lately last, in the order of their failures."""
        now = self._now()
        return sorted(self._each, key=lambda host: max(self._penalty_until.get(str(host), 0.0), now))

    def _now(self) -> float:
        return (self._clock or asyncio.get_running_loop().time)()

    def _opened(self, host: Relay, tls: TlsInfo | None) -> None:
        """Note that it works; warn once if its certificate was not verified."""
        name = str(host)
        self._penalty_until.pop(name, None)
        if tls is not None and not tls.verified and name not in self._unverified:
            self._unverified.add(name)
            logger.warning(
                "nobody verified the certificate of %s: whoever sits on the line can read and change what is sent; "
                "pin it (pins), or trust its CA (ca_file)",
                name,
            )


async def open_dialogue(
    connection: SmtpConnection, relay: Relay, credentials: Credentials | None, trace: Trace | None
) -> None:
    """Play the opening dialogue, with its handshake and its computing; return when a message may be sent.

    Raises what `protocol.opening.open_session` does, and ConnectFailed for the handshake.
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
        # Bytes in clear break the handshake; what they were is the better reason (RFC 3207 §6).
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
