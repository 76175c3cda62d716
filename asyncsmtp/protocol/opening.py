"""From the greeting to a session that may send: EHLO, STARTTLS, EHLO again, AUTH (RFC 5321 §3.1, 3207, 4954).

A generator: it yields commands and is sent their replies. It does no I/O; where the protocol's state says
that a TLS handshake is due, whoever drives it shakes hands before sending the reply in.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import StrEnum

from asyncsmtp.errors import InsecureConnection, NotOffered, Refused
from asyncsmtp.protocol.client import CLOSING, ClientProtocol
from asyncsmtp.protocol.commands import GREETING, STARTTLS, Command, ehlo, helo, lhlo
from asyncsmtp.protocol.login import Steps, log_in
from asyncsmtp.protocol.replies import Reply
from asyncsmtp.protocol.sasl import Channel, Credentials
from asyncsmtp.protocol.xclient import XClient

__all__ = ["Opening", "Security", "Steps", "open_session"]


class Security(StrEnum):
    """How the connection is protected.

    IMPLICIT_TLS: TLS from the first octet (RFC 8314). STARTTLS: upgrade, and nothing is said without it.
    OPPORTUNISTIC: upgrade when offered; never with credentials. PLAINTEXT: no TLS.
    """

    IMPLICIT_TLS = "tls"
    STARTTLS = "starttls"
    OPPORTUNISTIC = "opportunistic"
    PLAINTEXT = "none"


@dataclass(frozen=True, slots=True)
class Opening:
    """What a session needs to be opened.

    Attributes:
        name: the client's name for EHLO, a domain or an address literal.
        cleartext_login: whether credentials may travel without TLS, or with a certificate that nobody verified.
        lmtp: whether to say LHLO, which has no older form to fall back to (RFC 2033 §4.1).
        verified: whether a handshake verifies the relay's certificate and name.
        channel: asked when it is time to log in; the certificate is known only then.
        mechanisms: the only ones to log in with, in this order; without any, the usual ones.
        xclient: for whom we speak, told before anybody logs in.
    """

    name: str
    security: Security = Security.STARTTLS
    credentials: Credentials | None = None
    cleartext_login: bool = False
    verified: bool = True
    channel: Callable[[], Channel] = Channel
    mechanisms: tuple[str, ...] = ()
    lmtp: bool = False
    xclient: XClient | None = None


def open_session(protocol: ClientProtocol, opening: Opening) -> Steps:
    """Open a session; return when mail may be sent.

    Raises:
        Refused: the greeting, EHLO and HELO, STARTTLS or XCLIENT; or AUTH for now, the credentials not being judged.
        NotOffered: STARTTLS, XCLIENT or AUTH is needed and missing.
        InsecureConnection: the credentials would travel in clear.
        AuthenticationRefused: the credentials were refused; said once, never again. And what else `log_in` raises.
    """
    greeting = yield GREETING
    if not greeting.positive:
        raise Refused(GREETING, greeting, "the relay takes no mail now, or not from this machine")
    yield from _introduce(opening)
    encrypted = opening.security is Security.IMPLICIT_TLS
    if opening.security in (Security.STARTTLS, Security.OPPORTUNISTIC):
        encrypted = yield from _upgrade(protocol, opening)
    if opening.xclient is not None:
        yield from _speak_for(opening.xclient, protocol, opening)
    if opening.credentials is not None:
        if not ((encrypted and opening.verified) or opening.cleartext_login):
            raise InsecureConnection(
                "the credentials would travel in clear, or to a relay nobody verified, so none were sent: "
                "use smtps://, or smtp:// with STARTTLS, and a context that verifies certificates"
            )
        yield from log_in(protocol, opening.credentials, opening.channel(), opening.mechanisms)


def _introduce(opening: Opening) -> Steps:
    """EHLO, and HELO where the server does not know it (RFC 5321 §3.2); then there are no extensions."""
    hello = lhlo(opening.name) if opening.lmtp else ehlo(opening.name)
    reply = yield hello
    if reply.positive:
        return
    if reply.code < 500 or opening.lmtp:
        raise Refused(hello, reply)
    hello = helo(opening.name)
    reply = yield hello
    if not reply.positive:
        raise Refused(hello, reply)


def _speak_for(client: XClient, protocol: ClientProtocol, opening: Opening) -> Steps:
    """XCLIENT, and EHLO again: the relay has forgotten the first one."""
    command = client.command(protocol.extensions)
    reply = yield command
    if not reply.positive:
        raise Refused(command, reply, "the relay does not let us speak for others; nothing more was said")
    yield from _introduce(opening)


def _upgrade(protocol: ClientProtocol, opening: Opening) -> Generator[Command, Reply, bool]:
    must = opening.security is Security.STARTTLS or opening.credentials is not None
    if not protocol.extensions.starttls:
        if must:
            raise NotOffered(
                "STARTTLS",
                "the policy needs it and nothing more was said; someone may have stripped it, or the port is wrong "
                "(smtps:// is for port 465, ?security=none for a relay you trust on this machine)",
            )
        return False
    reply = yield STARTTLS
    if reply.positive:
        yield from _introduce(opening)
        return True
    if must or reply.code == CLOSING:
        raise Refused(STARTTLS, reply, "the policy needs TLS; nothing more was said")
    return False
