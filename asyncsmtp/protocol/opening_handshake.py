"""From the greeting to a session that may send: EHLO, STARTTLS, EHLO again, AUTH (RFC 5321 §3.1, 3207, 4954).

A generator: it yields commands and is sent their replies. It does no I/O; where the protocol's state says
that a TLS handshake is due, whoever drives it shakes hands before sending the reply in.

It changes whom the relay believes to have connected, so it is said only when the caller asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import Literal

from asyncsmtp.errors import ExtensionNotSupported, InsecureConnection, InvalidArgument, Refused
from asyncsmtp.protocol.auth.auth import Steps, log_in
from asyncsmtp.protocol.auth.sasl import Channel, Credentials
from asyncsmtp.protocol.client import CLOSING, ClientProtocol
from asyncsmtp.protocol.commands import GREETING, STARTTLS, Command, Verb, ehlo, helo, lhlo
from asyncsmtp.protocol.esmtp_options import xtext
from asyncsmtp.protocol.extensions import Extensions
from asyncsmtp.protocol.mailbox import is_domain
from asyncsmtp.protocol.replies import Reply, safe_text

__all__ = ["OpeningOptions", "Security", "Steps", "XClient", "open_session"]

MAX_NAME = 255
UNKNOWN = frozenset({"[UNAVAILABLE]", "[TEMPUNAVAIL]"})  # a look-up failed, for good or for now
_PRINTABLE = re.compile(rf"[ -~]{{1,{MAX_NAME}}}")


@dataclass(frozen=True, slots=True)
class XClient:
    """Another client, as far as it is known; what is None is not said.

    Attributes:
        name, addr: its host name, and its IPv4 or IPv6 address; or "[UNAVAILABLE]", "[TEMPUNAVAIL]".
        port: its port. proto: what it speaks. helo: how it greeted us. login: who logged in with us.
        destaddr, destport: where it connected to.
    Raises:
        InvalidArgument: one of them is none, or there is nothing to say.
    """

    name: str | None = None
    addr: str | None = None
    port: int | None = None
    proto: Literal["SMTP", "ESMTP"] | None = None
    helo: str | None = None
    login: str | None = None
    destaddr: str | None = None
    destport: int | None = None

    def __post_init__(self) -> None:
        for attribute, text in (("NAME", self.name), ("HELO", self.helo), ("LOGIN", self.login)):
            if text is not None and not _PRINTABLE.fullmatch(text):
                raise _bad(attribute, text)
        if self.name is not None and self.name not in UNKNOWN and not is_domain(self.name):
            raise _bad("NAME", self.name)
        for attribute, port in (("PORT", self.port), ("DESTPORT", self.destport)):
            if port is not None and not 0 < port < 65536:
                raise _bad(attribute, str(port))
        if self.proto not in (None, "SMTP", "ESMTP"):
            raise _bad("PROTO", str(self.proto))
        if not list(self):
            raise InvalidArgument("there is nothing to tell by XCLIENT: give one attribute at least")

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Each attribute that is known, with its value, not encoded yet."""
        known: dict[str, str | int | None] = {
            "NAME": self.name,
            "ADDR": _address("ADDR", self.addr),
            "PORT": self.port,
            "PROTO": self.proto,
            "HELO": self.helo,
            "LOGIN": self.login,
            "DESTADDR": _address("DESTADDR", self.destaddr),
            "DESTPORT": self.destport,
        }
        return ((attribute, str(value)) for attribute, value in known.items() if value is not None)

    def command(self, offered: Extensions) -> Command:
        """XCLIENT with all of it.

        Raises:
            ExtensionNotSupported: the relay does not take XCLIENT from us, or not each of these attributes.
            InvalidArgument: it is too long for a command line.
        """
        if "XCLIENT" not in offered:
            raise ExtensionNotSupported(
                "XCLIENT", "it may trust other clients only, or another relay stands in front of it"
            )
        for attribute, _ in self:
            if attribute not in offered.xclient:
                taken = safe_text(", ".join(offered.xclient) or "none", 120)
                raise ExtensionNotSupported(f"XCLIENT {attribute}", f"of the attributes it takes {taken}")
        words = (f"{attribute}={xtext(value.encode('utf-8'))}" for attribute, value in self)
        return Command(Verb.XCLIENT, " ".join(words).encode("ascii"))


def _address(attribute: str, text: str | None) -> str | None:
    if text is None or text in UNKNOWN:
        return text
    try:
        address = ip_address(text)
    except ValueError as error:
        raise _bad(attribute, text) from error
    if "%" in text:
        raise _bad(attribute, text)
    return f"IPV6:{address}" if address.version == 6 else str(address)


def _bad(attribute: str, text: str) -> InvalidArgument:
    return InvalidArgument(f"“{safe_text(text, 80)}” is no {attribute} of a client: nothing was sent")


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
class OpeningOptions:
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


def open_session(protocol: ClientProtocol, opening: OpeningOptions) -> Steps:
    """Open a session; return when mail may be sent.

    Raises:
        Refused: the greeting, EHLO and HELO, STARTTLS or XCLIENT; or AUTH for now, the credentials not being judged.
        ExtensionNotSupported: STARTTLS, XCLIENT or AUTH is needed and missing.
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


def _introduce(opening: OpeningOptions) -> Steps:
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


def _speak_for(client: XClient, protocol: ClientProtocol, opening: OpeningOptions) -> Steps:
    """XCLIENT, and EHLO again: the relay has forgotten the first one."""
    command = client.command(protocol.extensions)
    reply = yield command
    if not reply.positive:
        raise Refused(command, reply, "the relay does not let us speak for others; nothing more was said")
    yield from _introduce(opening)


def _upgrade(protocol: ClientProtocol, opening: OpeningOptions) -> Generator[Command, Reply, bool]:
    must = opening.security is Security.STARTTLS or opening.credentials is not None
    if not protocol.extensions.starttls:
        if must:
            raise ExtensionNotSupported(
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
