"""Where and how to submit mail: a relay as a value (RFC 6409, RFC 8314)."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote

from asyncsmtp.client.config.login_config import ClientCertificate, Login, Token, TokenSource, normal_fingerprint
from asyncsmtp.client.config.proxy import Proxy, check_port, host_and_port, split_url
from asyncsmtp.errors import InvalidArgument
from asyncsmtp.protocol.auth.sasl import Secret
from asyncsmtp.protocol.commands import Verb, ehlo
from asyncsmtp.protocol.opening_handshake import Security, XClient
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Dialogue", "Login", "OpenedStreams", "Opener", "Relay", "Timeouts", "Token", "TokenSource", "settings_of"]


class Dialogue(StrEnum):
    """How far we speak ahead of the relay's replies.

    LOCKSTEP: one command at a time. PIPELINED: groups, where the relay offers PIPELINING (RFC 2920), and
    across transactions on a session that has proved it reads on behind the end of a content. STREAMED: content
    in chunks (RFC 3030), said unasked with its envelope, `window` messages ahead of their replies; only for a
    relay one runs. Each of these may be in doubt when the connection breaks.
    """

    LOCKSTEP = "lockstep"
    PIPELINED = "pipelined"
    STREAMED = "streamed"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """A limit for each stage, in seconds. The RFC asks for one per command; a total alone is not allowed.

    Before the point of no return a timeout is cheap: trying again is free. After it, it costs a possible
    duplicate. So `end`, the wait for the reply to the content, stays at ten minutes in every profile.

    Attributes:
        connect: name lookup and TCP, all addresses together. tls: a handshake.
        block: no progress in writing a block of content.
        quit: the relay's goodbye. close: the end of TLS and of the connection.
    """

    connect: float = 30.0
    tls: float = 30.0
    greeting: float = 300.0
    ehlo: float = 300.0
    starttls: float = 60.0
    auth: float = 60.0
    mail: float = 300.0
    rcpt: float = 300.0
    data: float = 120.0
    block: float = 180.0
    end: float = 600.0
    rset: float = 20.0
    quit: float = 1.0
    close: float = 0.5

    @classmethod
    def interactive(cls) -> Timeouts:
        """For someone who watches: shorter before the point of no return, the same after it."""
        return cls(connect=15.0, greeting=30.0, ehlo=30.0, starttls=30.0, mail=60.0, rcpt=60.0)

    def limit(self, verb: Verb) -> float:
        """Seconds from when `verb` is the oldest command unanswered until its whole reply must be in."""
        return float(getattr(self, _STAGE[verb]))


_STAGE = {
    Verb.GREETING: "greeting",
    Verb.EHLO: "ehlo",
    Verb.HELO: "ehlo",
    Verb.LHLO: "ehlo",
    Verb.STARTTLS: "starttls",
    Verb.XCLIENT: "ehlo",
    Verb.AUTH: "auth",
    Verb.RESPONSE: "auth",
    Verb.CANCEL: "auth",
    Verb.MAIL: "mail",
    Verb.RCPT: "rcpt",
    Verb.DATA: "data",
    Verb.CONTENT: "end",
    Verb.BDAT: "block",
    Verb.BDAT_LAST: "end",
    Verb.RSET: "rset",
    Verb.VRFY: "rcpt",
    Verb.EXPN: "rcpt",
    Verb.NOOP: "rset",
    Verb.QUIT: "quit",
}

_SCHEMES = {  # with the security, unless the URL says another
    "smtp": Security.STARTTLS,
    "smtps": Security.IMPLICIT_TLS,
    "lmtp": Security.PLAINTEXT,
    "smtp+unix": Security.PLAINTEXT,
    "lmtp+unix": Security.PLAINTEXT,
}
_QUERY = frozenset(
    {
        "auth",
        "ca-file",
        "client-cert",
        "client-key",
        "dialogue",
        "name",
        "pin",
        "proxy",
        "security",
        "source-address",
        "verify",
        "verify-name",
    }
)


def settings_of(
    url: str,
    password: str | Secret | None = None,
    token: TokenSource | None = None,
    passphrase: str | Secret | None = None,
    proxy_password: str | Secret | None = None,
) -> dict[str, Any]:
    """What a URL says, by the names of a Relay's fields.

    Raises:
        InvalidArgument: with the part of the URL that is wrong. A password in the URL is refused.
    """
    parts = split_url(url)
    if parts.scheme not in _SCHEMES:
        raise InvalidArgument(f"“{safe_text(url, 80)}” is no relay: write smtp://host:587 or smtps://host")
    security, unix = _SCHEMES[parts.scheme], parts.scheme.endswith("+unix")
    if (parts.path.strip("/") and not unix) or parts.fragment:
        raise InvalidArgument(f"“{safe_text(parts.fragment or parts.path, 80)}” means nothing in a relay's URL")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := query.keys() - _QUERY:
        raise InvalidArgument(f"“{safe_text(min(unknown), 80)}” is no setting of a relay's URL")
    user = parts.netloc.rpartition("@")[0]
    return {
        **({"unix_path": _unix_path(url, parts)} if unix else _hosts(url, parts)),
        "security": _choice(Security, "security", query.get("security", security)),
        "login": _login(unquote(user), password, token, query.get("auth")),
        "ca_file": _file("ca-file", query),
        "verify_name": query.get("verify-name"),
        "verify": _yes("verify", query.get("verify", "yes")),
        "pins": tuple(query["pin"].split(",")) if "pin" in query else (),
        "client_certificate": _certificate(query, passphrase),
        "dialogue": _choice(Dialogue, "dialogue", query.get("dialogue", Dialogue.PIPELINED)),
        "name": query.get("name"),
        "lmtp": parts.scheme.startswith("lmtp"),
        "source_address": query.get("source-address"),
        "proxy": Proxy.from_url(query["proxy"], password=proxy_password) if "proxy" in query else None,
    }


def _unix_path(url: str, parts: SplitResult) -> Path:
    if parts.netloc.rpartition("@")[2] or not parts.path.strip("/"):
        raise InvalidArgument(f"“{safe_text(url, 80)}” names no Unix socket: write lmtp+unix:///path/to/socket")
    return Path(unquote(parts.path))


def _hosts(url: str, parts: SplitResult) -> dict[str, Any]:
    """The first host with its port, and those that stand by for it."""
    named = parts.netloc.rpartition("@")[2]
    if not named:
        raise InvalidArgument(f"“{safe_text(url, 80)}” names no host: write smtp://host:587")
    first, *others = named.split(",")
    host, port = host_and_port(first)
    return {"host": host, "port": port, "fallback_hosts": tuple(others)}


def _login(username: str, password: str | Secret | None, token: TokenSource | None, auth: str | None) -> Login | None:
    if not username:
        return Login.by_certificate() if auth is not None and auth.upper() == "EXTERNAL" else None
    if password is None and token is None:
        raise InvalidArgument(
            f"no password for “{safe_text(username, 80)}”: set ASYNCSMTP_PASSWORD or use --password-command"
        )
    mechanisms = tuple(auth.upper().split(",")) if auth is not None else ()
    return Login(username, Secret(password) if isinstance(password, str) else password, token, mechanisms=mechanisms)


def _certificate(query: Mapping[str, str], passphrase: str | Secret | None) -> ClientCertificate | None:
    if "client-cert" not in query:
        if "client-key" in query:
            raise InvalidArgument("a client-key needs its client-cert beside it in a relay's URL")
        return None
    certificate, key = _file("client-cert", query), _file("client-key", query)
    assert certificate is not None
    return ClientCertificate(certificate, key, Secret(passphrase) if isinstance(passphrase, str) else passphrase)


def _file(key: str, query: Mapping[str, str]) -> Path | None:
    if "\0" in (path := query.get(key, "")):
        raise InvalidArgument(f"“{safe_text(path, 80)}” is no path, which {key} in a relay's URL must be")
    return Path(path) if key in query else None


_Choice = TypeVar("_Choice", bound=StrEnum)


def _choice(kind: type[_Choice], key: str, value: str) -> _Choice:
    try:
        return kind(value)
    except ValueError as error:
        known = ", ".join(kind)
        raise InvalidArgument(f"“{safe_text(value, 80)}” is no {key} of a relay: {known}") from error


def _yes(key: str, value: str) -> bool:
    if value not in ("yes", "no"):
        raise InvalidArgument(f"“{safe_text(value, 80)}” is no {key} of a relay: yes, no")
    return value == "yes"


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
    fallback_hosts: tuple[str, ...] = ()
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
            raise InvalidArgument("a relay needs a host, or the unix_path of its socket")
        check_port(self.port)
        if self.name is not None:
            ehlo(self.name)
        for other in self.fallback_hosts:
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
            InvalidArgument: with the part of the URL that is wrong. A password in the URL is refused.
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
        if not self.fallback_hosts:
            return (self,)
        others = [
            replace(self, host=host, port=port, fallback_hosts=())
            for host, port in map(host_and_port, self.fallback_hosts)
        ]
        return (replace(self, fallback_hosts=()), *others)

    def __str__(self) -> str:
        if self.unix_path is not None:
            return safe_text(os.fsdecode(self.unix_path), 280)
        if self.fallback_hosts:
            return ", ".join(map(str, self.each))
        host, port = self.address
        return safe_text(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", 280)


def _check_unix(relay: Relay) -> None:
    path = os.fsdecode(relay.unix_path or "")
    if relay.host or relay.port is not None or relay.fallback_hosts:
        raise InvalidArgument(
            "a relay has a host and a port, or a unix_path, not both; verify_name is its certificate's"
        )
    if not path or "\0" in path:
        raise InvalidArgument(f"“{safe_text(path, 80)}” is no path of a Unix socket")
    if len(os.fsencode(path)) > _MAX_UNIX_PATH:  # uvloop would say that there is no such file
        raise InvalidArgument(
            f"“{safe_text(path, 200)}” is too long for a Unix socket: at most {_MAX_UNIX_PATH} octets"
        )


def _check_way(relay: Relay) -> None:
    """There is one way to a relay."""
    if relay.unix_path is not None and (relay.proxy or relay.opener or relay.source_address):
        raise InvalidArgument("a Unix socket has no proxy, no opener and no source address")
    if relay.opener is not None and (relay.proxy or relay.source_address):
        raise InvalidArgument("an opener makes the connection by itself: give it the proxy and the source address")
    if relay.source_address is not None:
        try:
            ip_address(relay.source_address.partition("%")[0])
        except ValueError as error:
            text = safe_text(relay.source_address, 80)
            raise InvalidArgument(f"“{text}” is no address of this machine: write 192.0.2.1 or 2001:db8::1") from error


def _check_tls(relay: Relay) -> None:
    """Nothing that was asked for is left out in silence."""
    if relay.pins and relay.security in (Security.PLAINTEXT, Security.OPPORTUNISTIC):
        raise InvalidArgument("a pin proves nothing where TLS may be left out: use smtp:// with STARTTLS, or smtps://")
    if relay.context is not None and (relay.client_certificate or relay.ca_file or not relay.verify):
        raise InvalidArgument(
            "a context of your own says what is trusted, and holds your certificate: "
            "give the relay either that, or ca_file, client_certificate and verify"
        )
