"""Where and how to submit mail: a relay as a value (RFC 6409, RFC 8314)."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path

from asyncsmtp.client.settings.certificates import ClientCertificate, normal_fingerprint
from asyncsmtp.client.settings.dialogue import Dialogue
from asyncsmtp.client.settings.hosts import check_port, host_and_port
from asyncsmtp.client.settings.login import Login, Token, TokenSource
from asyncsmtp.client.settings.proxy import Proxy
from asyncsmtp.client.settings.relay_url import settings_of
from asyncsmtp.client.settings.timeouts import Timeouts
from asyncsmtp.errors import BadArgument
from asyncsmtp.protocol.commands import ehlo
from asyncsmtp.protocol.opening import Security
from asyncsmtp.protocol.replies import safe_text
from asyncsmtp.protocol.sasl import Secret
from asyncsmtp.protocol.xclient import XClient

__all__ = ["Dialogue", "Login", "OpenedStreams", "Opener", "Relay", "Token", "TokenSource"]

_LMTP_PORT = 24
_MAX_UNIX_PATH = 107 if sys.platform == "linux" else 103  # octets: what sockaddr_un has room for, less the NUL
_PORTS = {Security.IMPLICIT_TLS: 465, Security.STARTTLS: 587, Security.OPPORTUNISTIC: 25, Security.PLAINTEXT: 25}

OpenedStreams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Opener = Callable[[str, int], Awaitable[socket.socket | OpenedStreams]]
"""Opens a connection to a host and port in a way of its own: through a tunnel, say.

It is called once for each session, and returns a connected socket or a pair of streams, which the session owns from
then on. It has the relay's `connect` timeout; TLS comes on top of what it returns.
"""


@dataclass(frozen=True, slots=True)
class Relay:
    """A submission server and the policy for speaking with it.

    Attributes:
        host: a name or an address. port: None for the usual one: 465 for implicit TLS, 587 for STARTTLS, 25 else;
            for LMTP it is 24.
        security: STARTTLS, required, unless said otherwise.
        login: None to send without one.
        context: your own TLS context; without it, certificates are verified against the system's CAs and `ca_file`.
        verify_name: the name the certificate must carry, where that is not `host`; "localhost" on a Unix socket.
        cleartext_login: let credentials travel without TLS; only for a relay on a wire you trust.
        name: how we greet the relay; None for the address literal of our end.
        masked: EHLO keywords to act as if they were not offered.
        window: contents unanswered at a time in a streamed dialogue: as many may be in doubt on a connection.
        lmtp: the relay speaks LMTP: it answers the content once for each recipient (RFC 2033).
        xclient: the client for whom we speak, where the relay trusts us with that (Postfix's XCLIENT).
        unix_path: the Unix socket where the relay listens, instead of host and port.
        standby: further hosts, `name` or `name:port`, tried in this order when those before cannot be reached within
            the timeouts, which each of them has. One that refuses us for good is not passed over: wrong credentials
            are wrong everywhere.
        source_address: the address of ours to connect from.
        proxy: through which to connect.
        opener: connects instead of us.
        client_certificate: ours, for a relay that asks for one.
        pins: SHA-256 fingerprints in hex; the relay's certificate must have one of them, whatever else is checked.
        verify: whether its certificate must be valid, and for its name. Without it, and without pins, nobody knows who
            the relay is: a warning is logged, and credentials are not sent unless `cleartext_login` lets them.
    """

    host: str = ""
    port: int | None = None
    security: Security = Security.STARTTLS
    login: Login | None = None
    context: ssl.SSLContext | None = field(default=None, repr=False)
    ca_file: Path | None = None
    verify_name: str | None = None
    cleartext_login: bool = False
    dialogue: Dialogue = Dialogue.PIPELINED
    timeouts: Timeouts = field(default_factory=Timeouts)
    name: str | None = None
    masked: frozenset[str] = frozenset()
    window: int = 4
    lmtp: bool = False
    xclient: XClient | None = None
    unix_path: str | bytes | Path | None = None
    standby: tuple[str, ...] = ()
    source_address: str | None = None
    proxy: Proxy | None = None
    opener: Opener | None = field(default=None, repr=False)
    client_certificate: ClientCertificate | None = None
    pins: tuple[str, ...] = ()
    verify: bool = True

    def __post_init__(self) -> None:
        if self.unix_path is not None:
            _check_unix(self)
        elif not self.host:
            raise BadArgument("a relay needs a host, or the unix_path of its socket")
        check_port(self.port)
        if self.name is not None:
            ehlo(self.name)
        for other in self.standby:
            host_and_port(other)
        object.__setattr__(self, "pins", tuple(map(normal_fingerprint, self.pins)))
        _check_way(self)
        _check_tls(self)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        password: str | Secret | None = None,
        token: TokenSource | None = None,
        passphrase: str | Secret | None = None,
        proxy_password: str | Secret | None = None,
    ) -> Relay:
        """Read a relay's URL.

        `smtp://user@host:587` (STARTTLS required), `smtps://user@host` (TLS, 465),
        `smtp://localhost:2525?security=none`; several hosts are tried in order, `smtp://one.example,two.example:25`;
        `lmtp://host:24`, and for a Unix socket `lmtp+unix:///path` or `smtp+unix:///path`, these in clear unless
        `security` says otherwise. Other query keys: `security` (tls, starttls, opportunistic, none), `name` (for
        EHLO), `verify-name`, `ca-file`, `pin` (fingerprints, parted by commas), `verify` (yes, no), `client-cert`,
        `client-key`, `source-address`, `proxy` (socks5://user@host:1080, http://user@host:8080), `dialogue`, `auth`
        (the only mechanisms for the login, parted by commas; EXTERNAL without a user).

        Args:
            passphrase: of the client certificate's key. proxy_password: of the proxy's user.
        Raises:
            BadArgument: with the part of the URL that is wrong. A password in the URL is refused.
        """
        return cls(**settings_of(url, password, token, passphrase, proxy_password))

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, the usual ones filled in."""
        usual = _LMTP_PORT if self.lmtp else _PORTS[self.security]
        return self.host or "localhost", self.port or usual

    @property
    def each(self) -> tuple[Relay, ...]:
        """The same relay once for each of its hosts, in the order to try them."""
        if not self.standby:
            return (self,)
        others = [replace(self, host=host, port=port, standby=()) for host, port in map(host_and_port, self.standby)]
        return (replace(self, standby=()), *others)

    def __str__(self) -> str:
        if self.unix_path is not None:
            return safe_text(os.fsdecode(self.unix_path), 280)
        if self.standby:
            return ", ".join(map(str, self.each))
        host, port = self.address
        return safe_text(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", 280)


def _check_unix(relay: Relay) -> None:
    path = os.fsdecode(relay.unix_path or "")
    if relay.host or relay.port is not None or relay.standby:
        raise BadArgument("a relay has a host and a port, or a unix_path, not both; verify_name is its certificate's")
    if not path or "\0" in path:
        raise BadArgument(f"“{safe_text(path, 80)}” is no path of a Unix socket")
    if len(os.fsencode(path)) > _MAX_UNIX_PATH:  # uvloop would say that there is no such file
        raise BadArgument(f"“{safe_text(path, 200)}” is too long for a Unix socket: at most {_MAX_UNIX_PATH} octets")


def _check_way(relay: Relay) -> None:
    """There is one way to a relay."""
    if relay.unix_path is not None and (relay.proxy or relay.opener or relay.source_address):
        raise BadArgument("a Unix socket has no proxy, no opener and no source address")
    if relay.opener is not None and (relay.proxy or relay.source_address):
        raise BadArgument("an opener makes the connection by itself: give it the proxy and the source address")
    if relay.source_address is not None:
        try:
            ip_address(relay.source_address.partition("%")[0])
        except ValueError as error:
            text = safe_text(relay.source_address, 80)
            raise BadArgument(f"“{text}” is no address of this machine: write 192.0.2.1 or 2001:db8::1") from error


def _check_tls(relay: Relay) -> None:
    """Nothing that was asked for is left out in silence."""
    if relay.pins and relay.security in (Security.PLAINTEXT, Security.OPPORTUNISTIC):
        raise BadArgument("a pin proves nothing where TLS may be left out: use smtp:// with STARTTLS, or smtps://")
    if relay.context is not None and (relay.client_certificate or relay.ca_file or not relay.verify):
        raise BadArgument(
            "a context of your own says what is trusted, and holds your certificate: "
            "give the relay either that, or ca_file, client_certificate and verify"
        )
