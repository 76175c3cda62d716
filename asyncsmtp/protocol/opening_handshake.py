"""The opening of a session: greeting, EHLO, STARTTLS, EHLO again, XCLIENT, AUTH (RFC 5321 §3.1, 3207, 4954).

`open_session` is a generator that yields commands and receives their replies. It does no I/O: when the protocol is in
state TLS, the caller performs the TLS handshake before it sends the reply in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import Literal

from asyncsmtp.errors import ExtensionNotSupported, InsecureConnection, InvalidArgument, Refused
from asyncsmtp.protocol.auth.auth import Channel, CommandGenerator, Credentials, log_in
from asyncsmtp.protocol.client import SERVICE_CLOSING, ClientProtocol
from asyncsmtp.protocol.commands import GREETING, STARTTLS, Command, Verb, ehlo, helo, lhlo
from asyncsmtp.protocol.envelope import is_domain, xtext
from asyncsmtp.protocol.replies import Extensions, Reply, safe_text

__all__ = ["OpeningOptions", "Security", "XClient", "open_session"]

MAX_NAME = 255
UNKNOWN = frozenset({"[UNAVAILABLE]", "[TEMPUNAVAIL]"})  # a lookup failed, permanently or temporarily
_PRINTABLE = re.compile(rf"[ -~]{{1,{MAX_NAME}}}")


@dataclass(frozen=True, slots=True)
class XClient:
    """Attributes of another client, for a relay that accepts XCLIENT (Postfix); None is not sent.

    XCLIENT changes the client that the relay believes to be connected to, so it is sent only on request.

    Attributes:
        name, addr: its host name, and its IPv4 or IPv6 address; or "[UNAVAILABLE]", "[TEMPUNAVAIL]".
        port: its port. proto: its protocol. helo: its name in EHLO. login: its user name.
        destaddr, destport: the address and port that it connected to.
    Raises:
        InvalidArgument: a value is not valid, or there is none.
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
                raise _invalid(attribute, text)
        if self.name is not None and self.name not in UNKNOWN and not is_domain(self.name):
            raise _invalid("NAME", self.name)
        for attribute, port in (("PORT", self.port), ("DESTPORT", self.destport)):
            if port is not None and not 0 < port < 65536:
                raise _invalid(attribute, str(port))
        if self.proto not in (None, "SMTP", "ESMTP"):
            raise _invalid("PROTO", str(self.proto))
        if not list(self):
            raise InvalidArgument("XCLIENT needs at least one attribute")

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Yield each known attribute with its value, not encoded yet."""
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
        """Make the XCLIENT command with all attributes.

        Raises:
            ExtensionNotSupported: the relay does not accept XCLIENT from this client, or not each of the attributes.
            InvalidArgument: too long for a command line.
        """
        if "XCLIENT" not in offered:
            why = "it may accept it from other clients only, or there is another relay in front of it"
            raise ExtensionNotSupported("XCLIENT", why)
        for attribute, _ in self:
            if attribute not in offered.xclient:
                taken = safe_text(", ".join(offered.xclient) or "none", 120)
                raise ExtensionNotSupported(f"XCLIENT {attribute}", f"it accepts only {taken}")
        words = (f"{attribute}={xtext(value.encode('utf-8'))}" for attribute, value in self)
        return Command(Verb.XCLIENT, " ".join(words).encode("ascii"))


def _address(attribute: str, text: str | None) -> str | None:
    if text is None or text in UNKNOWN:
        return text
    try:
        address = ip_address(text)
    except ValueError as error:
        raise _invalid(attribute, text) from error
    if "%" in text:
        raise _invalid(attribute, text)
    return f"IPV6:{address}" if address.version == 6 else str(address)


def _invalid(attribute: str, text: str) -> InvalidArgument:
    return InvalidArgument(f"“{safe_text(text, 80)}” is not a valid XCLIENT {attribute}: nothing was sent")


class Security(StrEnum):
    """The protection of a connection.

    IMPLICIT_TLS: TLS from the first byte (RFC 8314). STARTTLS: upgrade, and send nothing else without it.
    OPPORTUNISTIC: upgrade if offered; never with credentials. PLAINTEXT: no TLS.
    """

    IMPLICIT_TLS = "tls"
    STARTTLS = "starttls"
    OPPORTUNISTIC = "opportunistic"
    PLAINTEXT = "none"


@dataclass(frozen=True, slots=True)
class OpeningOptions:
    """Options for opening a session.

    Attributes:
        name: the client's name for EHLO, a domain or an address literal.
        cleartext_login: allow credentials without TLS, or with a certificate that was not verified.
        lmtp: send LHLO, which has no older form to fall back to (RFC 2033 §4.1).
        verified: true if the TLS handshake verifies the relay's certificate and name.
        channel: called when it is time to log in; the certificate is not known before.
        mechanisms: the only ones to log in with, in this order; if empty, the default ones.
        xclient: the client to act for, announced before the login.
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


def open_session(protocol: ClientProtocol, options: OpeningOptions) -> CommandGenerator:
    """Open a session; return when mail may be sent.

    Raises:
        Refused: the greeting, EHLO and HELO, STARTTLS or XCLIENT was; or AUTH for now, without judging the credentials.
        ExtensionNotSupported: STARTTLS, XCLIENT or AUTH is needed and missing.
        InsecureConnection: the credentials would be sent in cleartext.
        AuthenticationRefused: the credentials were refused; they are not tried again. And the other errors of `log_in`.
    """
    greeting = yield GREETING
    if not greeting.positive:
        raise Refused(GREETING, greeting, "the relay accepts no mail now, or not from this machine")
    yield from _send_ehlo(options)
    encrypted = options.security is Security.IMPLICIT_TLS
    if options.security in (Security.STARTTLS, Security.OPPORTUNISTIC):
        encrypted = yield from _start_tls(protocol, options)
    if options.xclient is not None:
        yield from _send_xclient(options.xclient, protocol, options)
    if options.credentials is not None:
        if not ((encrypted and options.verified) or options.cleartext_login):
            raise InsecureConnection(
                "the credentials would be sent in cleartext, or to an unverified relay, so none were sent: "
                "use smtps://, or smtp:// with STARTTLS, and a context that verifies certificates"
            )
        yield from log_in(protocol, options.credentials, options.channel(), options.mechanisms)


def _send_ehlo(options: OpeningOptions) -> CommandGenerator:
    """Send EHLO, then HELO if the server does not know it (RFC 5321 §3.2); then there are no extensions."""
    command = lhlo(options.name) if options.lmtp else ehlo(options.name)
    reply = yield command
    if reply.positive:
        return
    if reply.code < 500 or options.lmtp:
        raise Refused(command, reply)
    command = helo(options.name)
    reply = yield command
    if not reply.positive:
        raise Refused(command, reply)


def _send_xclient(client: XClient, protocol: ClientProtocol, options: OpeningOptions) -> CommandGenerator:
    """Send XCLIENT, and EHLO again: the relay forgets the first one."""
    command = client.command(protocol.extensions)
    reply = yield command
    if not reply.positive:
        raise Refused(command, reply, "the relay does not accept XCLIENT from this client; nothing more was sent")
    yield from _send_ehlo(options)


def _start_tls(protocol: ClientProtocol, options: OpeningOptions) -> Generator[Command, Reply, bool]:
    required = options.security is Security.STARTTLS or options.credentials is not None
    if not protocol.extensions.starttls:
        if required:
            raise ExtensionNotSupported(
                "STARTTLS",
                "the policy needs it and nothing more was sent; someone may have stripped it, or the port is wrong "
                "(smtps:// is for port 465, ?security=none for a trusted relay on this machine)",
            )
        return False
    reply = yield STARTTLS
    if reply.positive:
        yield from _send_ehlo(options)
        return True
    if required or reply.code == SERVICE_CLOSING:
        raise Refused(STARTTLS, reply, "the security policy needs TLS; nothing more was sent")
    return False
