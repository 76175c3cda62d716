"""From the greeting to a session that may send: EHLO, STARTTLS, EHLO again, AUTH (RFC 5321 §3.1, 3207, 4954).

A generator: it yields commands and is sent their replies. It does no I/O; where the protocol's state says
that a TLS handshake is due, whoever drives it shakes hands before sending the reply in.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Generator
from dataclasses import dataclass
from enum import StrEnum

from asyncsmtp.errors import AuthenticationRefused, InsecureConnection, NotOffered, Refused
from asyncsmtp.protocol.client import CHALLENGE, CLOSING, ClientProtocol
from asyncsmtp.protocol.commands import GREETING, MAX_LINE, STARTTLS, Command, Verb, auth, ehlo, helo, lhlo, response
from asyncsmtp.protocol.replies import Reply, Severity
from asyncsmtp.protocol.sasl import Credentials, Mechanism, choose, unspeakable

__all__ = ["Opening", "Security", "open_session"]

MAX_ROUNDS = 4  # challenges answered before we give up
MAX_CHALLENGE = 8192  # octets, base64
ANOTHER_MAY_DO = frozenset({504, 534})  # this mechanism is not taken (RFC 4954 §6); the secret was not judged


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
    """

    name: str
    security: Security = Security.STARTTLS
    credentials: Credentials | None = None
    cleartext_login: bool = False
    verified: bool = True
    lmtp: bool = False


Steps = Generator[Command, Reply, None]


def open_session(protocol: ClientProtocol, opening: Opening) -> Steps:
    """Open a session; return when mail may be sent.

    Raises:
        Refused: the greeting, EHLO and HELO, or STARTTLS; or AUTH for now, the credentials not being judged.
        NotOffered: STARTTLS or AUTH is needed and missing.
        InsecureConnection: the credentials would travel in clear.
        AuthenticationRefused: the credentials were refused; said once, never again.
    """
    greeting = yield GREETING
    if not greeting.positive:
        raise Refused(GREETING, greeting, "the relay takes no mail now, or not from this machine")
    yield from _introduce(opening)
    encrypted = opening.security is Security.IMPLICIT_TLS
    if opening.security in (Security.STARTTLS, Security.OPPORTUNISTIC):
        encrypted = yield from _upgrade(protocol, opening)
    if opening.credentials is not None:
        if not ((encrypted and opening.verified) or opening.cleartext_login):
            raise InsecureConnection(
                "the credentials would travel in clear, or to a relay nobody verified, so none were sent: "
                "use smtps://, or smtp:// with STARTTLS, and a context that verifies certificates"
            )
        yield from _log_in(protocol, opening.credentials)


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


def _log_in(protocol: ClientProtocol, credentials: Credentials) -> Steps:
    offered = protocol.extensions.mechanisms
    mechanisms = choose(credentials, offered)
    if not mechanisms:
        raise NotOffered(
            "AUTH", f"it takes {', '.join(offered) or 'no login at all'}, which these credentials do not fit"
        )
    protocol.unspeakable = unspeakable(credentials)
    for mechanism in mechanisms:
        reply = yield from _authenticate(mechanism, credentials)
        if reply.code == 235:
            return
        if reply.code not in ANOTHER_MAY_DO:
            break
    refused = auth(mechanism.name)  # without the secret: an error is kept, shown and logged
    if reply.severity is Severity.TRANSIENT:
        raise Refused(refused, reply, "the credentials were not judged: try again later")
    raise AuthenticationRefused(refused, reply, "check the user name and the password")


def _authenticate(mechanism: Mechanism, credentials: Credentials) -> Generator[Command, Reply, Reply]:
    """Run one mechanism to its final reply; a challenge that cannot be answered is cancelled with `*`."""
    dialogue = mechanism.begin(credentials)
    reply = yield from _begin(mechanism.name, next(dialogue))
    for _ in range(MAX_ROUNDS):
        if reply.code != CHALLENGE:
            return reply
        try:
            answer = dialogue.send(_decode(reply))
        except (StopIteration, binascii.Error):
            break
        reply = yield response(answer or b"")
    if reply.code == CHALLENGE:
        reply = yield Command(Verb.CANCEL)
    return reply


def _begin(mechanism: str, initial_response: bytes | None) -> Generator[Command, Reply, Reply]:
    """AUTH; where the initial response makes its line too long, that answers an empty challenge (RFC 4954 §4)."""
    command = auth(mechanism, initial_response)
    if initial_response is None or len(bytes(command)) <= MAX_LINE:
        return (yield command)
    reply = yield auth(mechanism)
    if reply.code != CHALLENGE or any(reply.lines):
        return reply
    return (yield response(initial_response))


def _decode(challenge: Reply) -> bytes:
    octets = b"".join(challenge.lines)
    if len(octets) > MAX_CHALLENGE:
        raise binascii.Error("a challenge longer than any mechanism has")
    return b64decode(octets, validate=True)
