"""A connection becomes a session: the opening dialogue played on a wire, with its handshake and its computing."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.connection.tls import tls_info, verifies
from asyncsmtp.client.connection.transport import client_name, shake_hands
from asyncsmtp.client.connection.wire import Wire
from asyncsmtp.client.events.trace import Direction, Trace
from asyncsmtp.errors import (
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
from asyncsmtp.protocol.opening_handshake import OpeningOptions, open_session
from asyncsmtp.protocol.replies import Reply

__all__ = ["in_context", "open_on"]

Asks = Callable[[Command], Awaitable[Reply]]


async def open_on(wire: Wire, relay: Relay, credentials: Credentials | None, ask: Asks, trace: Trace | None) -> None:
    """Say all that comes before the first message; return when one may be sent.

    Raises what `protocol.opening.open_session` does, and ConnectFailed for the handshake.
    """

    def channel() -> Channel:
        certificate = wire.tls.getpeercert(binary_form=True) if wire.tls is not None else None
        return Channel(*relay.address, certificate, secrets.token_urlsafe(24))

    opening = OpeningOptions(
        relay.name or client_name(wire.writer),
        relay.security,
        credentials,
        relay.cleartext_login,
        verifies(relay),
        channel,
        relay.login.mechanisms if relay.login is not None else (),
        lmtp=relay.lmtp,
        xclient=relay.xclient,
    )
    steps = open_session(wire.protocol, opening)
    command = next(steps)
    while True:
        try:
            reply = await ask(command)
        except ConnectionLost as error:
            raise (_unbound(relay, error) if _binds(command) else error) from error.__cause__
        if wire.protocol.state is ProtocolState.TLS:
            await _shake_hands(wire, relay, trace)
        try:
            if wire.protocol.state is ProtocolState.AUTH:  # the answer to a challenge may cost a second of computing
                command = await asyncio.to_thread(steps.send, reply)
            else:
                command = steps.send(reply)
        except StopIteration:
            return


def _binds(command: Command) -> bool:
    return command.verb is Verb.AUTH and command.argument.partition(b" ")[0].endswith(PLUS.encode("ascii"))


def _unbound(relay: Relay, error: ConnectionLost) -> ConnectFailed:
    """Dovecot 2.4.1 for one ends the connection at a type of channel binding that it does not know."""
    return ConnectFailed(
        f"{error}; that was at a login bound to its certificate, which it may not know: "
        f"name another mechanism in the login of {relay}, SCRAM-SHA-256 for one"
    )


async def _shake_hands(wire: Wire, relay: Relay, trace: Trace | None) -> None:
    try:
        await shake_hands(relay, wire.writer)
    except ConnectFailed as error:
        # Octets in clear break the handshake; what they were is the better reason (RFC 3207 §6).
        raise (wire.failure if isinstance(wire.failure, StartTlsInjection) else error) from error.__cause__
    wire.check()
    wire.protocol.tls_started()
    if trace is not None:
        trace(Direction.EVENT, str(tls_info(relay, wire.tls)), tls=True, refused=False)


def in_context(error: SMTPError, relay: Relay, greeting: Reply | None) -> SMTPError:
    """A connection that breaks before the session is open: no session came to be, and that is what matters."""
    if not isinstance(error, ConnectionLost | ReplyTimeout | RemoteProtocolError) or isinstance(
        error, StartTlsInjection
    ):
        return error
    advice = ""
    if isinstance(error, ReplyTimeout) and greeting is None:
        advice = "; a port that stays silent may wait for TLS, as 465 does: use smtps:// then"
    what = f"no greeting from {relay}" if greeting is None else f"no session with {relay}"
    return ConnectFailed(f"{what}: {error}{advice}")
