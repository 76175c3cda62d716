"""Relay settings: hosts, TLS, login, proxy, timeouts, and the URL that names them (RFC 6409, RFC 8314)."""

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

from asyncsmtp.client.config.login_config import ClientCertificate, Login, Token, TokenSource, normalize_fingerprint
from asyncsmtp.client.config.proxy import Proxy, check_port, parse_host_port, split_url
from asyncsmtp.errors import InvalidArgument, check_type
from asyncsmtp.protocol.auth.auth import Secret
from asyncsmtp.protocol.commands import Verb, ehlo
from asyncsmtp.protocol.opening_handshake import Security, XClient
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Dialogue", "Login", "OpenedStreams", "Opener", "Relay", "Timeouts", "Token", "TokenSource"]


class Dialogue(StrEnum):
    """The number of commands that are sent before their replies arrive.

    LOCKSTEP: one command at a time.
    PIPELINED: groups of commands if the relay offers PIPELINING (RFC 2920), and the next transaction behind the end of
    data once the session has shown that the server reads on there.
    STREAMED: envelopes and contents in chunks (RFC 3030), up to `window` messages ahead of their replies. Only for a
    relay that you run: each of these messages is in doubt if the connection breaks.
    """

    LOCKSTEP = "lockstep"
    PIPELINED = "pipelined"
    STREAMED = "streamed"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits for the stages of a session, in seconds (RFC 5321 §4.5.3.2 asks for one for each command).

    Before the point of no return a timeout is cheap: the message can be sent again. After it, a timeout may cost a
    duplicate. Therefore `end`, the wait for the reply to the end of data, is ten minutes in every profile.

    Attributes:
        connect: name lookup and TCP, for all addresses together.
        tls: a TLS handshake.
        block: writing one block of the content without progress.
        quit: the reply to QUIT.
        close: closing TLS and the connection.
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
        """Return shorter limits for a person who waits; after the point of no return they are the same."""
        return cls(connect=15.0, greeting=30.0, ehlo=30.0, starttls=30.0, mail=60.0, rcpt=60.0)

    def limit(self, verb: Verb) -> float:
        """Return the seconds from when `verb` is the oldest unanswered command until its reply must be complete."""
        return float(getattr(self, _STAGE_BY_VERB[verb]))


_STAGE_BY_VERB = {
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

_SECURITY_BY_SCHEME = {  # unless the key `security` of the URL says otherwise
    "smtp": Security.STARTTLS,
    "smtps": Security.IMPLICIT_TLS,
    "lmtp": Security.PLAINTEXT,
    "smtp+unix": Security.PLAINTEXT,
    "lmtp+unix": Security.PLAINTEXT,
}
_QUERY_KEYS = frozenset(
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


def _parse_url(
    url: str,
    password: str | Secret | None,
    token: str | Secret | TokenSource | None,
    passphrase: str | Secret | None,
    proxy_password: str | Secret | None,
) -> dict[str, Any]:
    """Return the settings in a URL as arguments for `Relay`."""
    check_type("url", url, str)
    parts = split_url(url)
    if parts.scheme not in _SECURITY_BY_SCHEME:
        raise InvalidArgument(f"“{safe_text(url, 80)}” is not a relay's URL: write smtp://host:587 or smtps://host")
    security, unix = _SECURITY_BY_SCHEME[parts.scheme], parts.scheme.endswith("+unix")
    if (parts.path.strip("/") and not unix) or parts.fragment:
        raise InvalidArgument(f"“{safe_text(parts.fragment or parts.path, 80)}” has no meaning in a relay's URL")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := query.keys() - _QUERY_KEYS:
        raise InvalidArgument(f"“{safe_text(min(unknown), 80)}” is not a setting of a relay's URL")
    user = parts.netloc.rpartition("@")[0]
    return {
        **({"unix_path": _parse_unix_path(url, parts)} if unix else _parse_hosts(url, parts)),
        "security": _parse_choice(Security, "security", query.get("security", security)),
        "login": _build_login(unquote(user), password, token, query.get("auth")),
        "ca_file": _parse_path("ca-file", query),
        "verify_name": query.get("verify-name"),
        "verify": _parse_yes_no("verify", query.get("verify", "yes")),
        "pins": tuple(query["pin"].split(",")) if "pin" in query else (),
        "client_certificate": _parse_client_certificate(query, passphrase),
        "dialogue": _parse_choice(Dialogue, "dialogue", query.get("dialogue", Dialogue.PIPELINED)),
        "name": query.get("name"),
        "lmtp": parts.scheme.startswith("lmtp"),
        "source_address": query.get("source-address"),
        "proxy": Proxy.from_url(query["proxy"], password=proxy_password) if "proxy" in query else None,
    }


def _parse_unix_path(url: str, parts: SplitResult) -> Path:
    if parts.netloc.rpartition("@")[2] or not parts.path.strip("/"):
        raise InvalidArgument(f"“{safe_text(url, 80)}” does not name a Unix socket: write lmtp+unix:///path/to/socket")
    return Path(unquote(parts.path))


def _parse_hosts(url: str, parts: SplitResult) -> dict[str, Any]:
    """Return the first host with its port, and the fallback hosts."""
    named = parts.netloc.rpartition("@")[2]
    if not named:
        raise InvalidArgument(f"“{safe_text(url, 80)}” does not name a host: write smtp://host:587")
    first, *others = named.split(",")
    host, port = parse_host_port(first)
    return {"host": host, "port": port, "fallback_hosts": tuple(others)}


def _build_login(
    username: str,
    password: str | Secret | None,
    token: str | Secret | TokenSource | None,
    auth: str | None,
) -> Login | None:
    if not username:
        return Login.by_certificate() if auth is not None and auth.upper() == "EXTERNAL" else None
    if password is None and token is None:
        raise InvalidArgument(
            f"no password for “{safe_text(username, 80)}”: give password= or token= beside the URL "
            "(with the command: set ASYNCSMTP_PASSWORD or use --password-command)"
        )
    mechanisms = tuple(auth.upper().split(",")) if auth is not None else ()
    return Login(username, password, token, mechanisms=mechanisms)


def _parse_client_certificate(query: Mapping[str, str], passphrase: str | Secret | None) -> ClientCertificate | None:
    if "client-cert" not in query:
        if "client-key" in query:
            raise InvalidArgument("client-key needs client-cert beside it in a relay's URL")
        return None
    certificate, key = _parse_path("client-cert", query), _parse_path("client-key", query)
    assert certificate is not None
    return ClientCertificate(certificate, key, passphrase)


def _parse_path(key: str, query: Mapping[str, str]) -> Path | None:
    if "\0" in (path := query.get(key, "")):
        raise InvalidArgument(f"“{safe_text(path, 80)}” is not a valid path for {key} in a relay's URL")
    return Path(path) if key in query else None


_Choice = TypeVar("_Choice", bound=StrEnum)


def _parse_choice(kind: type[_Choice], key: str, value: str) -> _Choice:
    try:
        return kind(value)
    except ValueError as error:
        known = ", ".join(kind)
        raise InvalidArgument(f"“{safe_text(value, 80)}” is not a valid {key} for a relay: use {known}") from error


def _parse_yes_no(key: str, value: str) -> bool:
    if value not in ("yes", "no"):
        raise InvalidArgument(f"“{safe_text(value, 80)}” is not a valid {key} for a relay: use yes or no")
    return value == "yes"


_LMTP_PORT = 24
_MAX_UNIX_PATH = 107 if sys.platform == "linux" else 103  # bytes: the size of sun_path, less the NUL
_DEFAULT_PORTS = {
    Security.IMPLICIT_TLS: 465,
    Security.STARTTLS: 587,
    Security.OPPORTUNISTIC: 25,
    Security.PLAINTEXT: 25,
}

OpenedStreams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Opener = Callable[[str, int], Awaitable[socket.socket | OpenedStreams]]
"""An async function that opens a connection to a host and port, for example through a tunnel.

It is called once for each session and returns a connected socket or a pair of streams, which the session then owns. It
has the relay's `connect` timeout; TLS is started on what it returns.
"""


@dataclass(frozen=True, slots=True)
class Relay:
    """A mail server to submit messages to, and the settings for sessions with it.

    Attributes:
        host: a host name or an address.
        port: None for the default: 465 for implicit TLS, 587 for STARTTLS, 24 for LMTP, otherwise 25.
        security: STARTTLS, required, by default.
        login: None to send without authentication.
        context: a TLS context of your own; without it, certificates are verified against the system's CAs or `ca_file`.
        ca_file: a PEM file of the CAs to trust instead of the system's.
        verify_name: the name the certificate must carry, if not `host`; "localhost" for a Unix socket.
        cleartext_login: send credentials without TLS too. Only for a network that you trust.
        name: the name in EHLO; None for the address literal of the local end.
        ignored_extensions: EHLO keywords to treat as not offered.
        window: maximum unanswered contents of a STREAMED dialogue: as many may be in doubt on one connection.
        lmtp: speak LMTP: the relay answers the content once for each recipient (RFC 2033).
        xclient: the client to name with XCLIENT, if the relay trusts us with that (Postfix).
        unix_path: the Unix socket of the relay, instead of host and port.
        fallback_hosts: further hosts, `name` or `name:port`, tried in order if those before cannot be reached within
            the timeouts, which apply to each host. A host that refuses permanently ends the search: wrong credentials
            are wrong everywhere.
        source_address: the local address to connect from.
        proxy: the proxy to connect through.
        opener: opens the connection instead of the library.
        client_certificate: a certificate to identify with, if the relay asks for one.
        pins: SHA-256 fingerprints in hex; the relay's certificate must have one of them, in addition to other checks.
        verify: check the certificate and its name. If False, and without pins, the relay is not authenticated: a
            warning is logged, and credentials are sent only if `cleartext_login` is set.
    """

    host: str = ""
    port: int | None = None
    security: Security = Security.STARTTLS
    login: Login | None = None
    context: ssl.SSLContext | None = field(default=None, repr=False)
    ca_file: str | Path | None = None
    verify_name: str | None = None
    cleartext_login: bool = False
    dialogue: Dialogue = Dialogue.PIPELINED
    timeouts: Timeouts = field(default_factory=Timeouts)
    name: str | None = None
    ignored_extensions: frozenset[str] = frozenset()
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
        check_type("host", self.host, str)
        check_type("port", self.port, int, None)
        check_type("login", self.login, Login, None)
        check_type("ca_file", self.ca_file, str, Path, None)
        if self.unix_path is not None:
            _check_unix(self)
        elif not self.host:
            raise InvalidArgument("a relay needs host= or unix_path=")
        check_port(self.port)
        if self.name is not None:
            ehlo(self.name)
        for other in self.fallback_hosts:
            parse_host_port(other)
        object.__setattr__(self, "pins", tuple(map(normalize_fingerprint, self.pins)))
        _check_route(self)
        _check_tls(self)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        password: str | Secret | None = None,
        token: str | Secret | TokenSource | None = None,
        passphrase: str | Secret | None = None,
        proxy_password: str | Secret | None = None,
    ) -> Relay:
        """Return the relay that a URL describes.

        `smtp://user@host:587` (STARTTLS required), `smtps://user@host` (TLS, 465),
        `smtp://localhost:2525?security=none`; several hosts are tried in order, `smtp://one.example,two.example:25`;
        `lmtp://host:24`, and for a Unix socket `lmtp+unix:///path` or `smtp+unix:///path`, both in cleartext unless
        `security` says otherwise. Other query keys: `security` (tls, starttls, opportunistic, none), `name` (for
        EHLO), `verify-name`, `ca-file`, `pin` (fingerprints, separated by commas), `verify` (yes, no), `client-cert`,
        `client-key`, `source-address`, `proxy` (socks5://user@host:1080, http://user@host:8080), `dialogue`, `auth`
        (the only mechanisms for the login, separated by commas; EXTERNAL without a user).

        Args:
            password: of the user in the URL.
            token: an access token, or an async function that returns one (see `TokenSource`), instead of a password.
            passphrase: of the client certificate's key.
            proxy_password: of the proxy's user.
        Raises:
            InvalidArgument: a part of the URL is wrong; the message names it. A password in the URL is refused.
        """
        return cls(**_parse_url(url, password, token, passphrase, proxy_password))

    @property
    def address(self) -> tuple[str, int]:
        """The host and port, with defaults filled in."""
        usual = _LMTP_PORT if self.lmtp else _DEFAULT_PORTS[self.security]
        return self.host or "localhost", self.port or usual

    @property
    def single_host_relays(self) -> tuple[Relay, ...]:
        """The relay once for each of its hosts, in the order to try them."""
        if not self.fallback_hosts:
            return (self,)
        others = [
            replace(self, host=host, port=port, fallback_hosts=())
            for host, port in map(parse_host_port, self.fallback_hosts)
        ]
        return (replace(self, fallback_hosts=()), *others)

    def __str__(self) -> str:
        if self.unix_path is not None:
            return safe_text(os.fsdecode(self.unix_path), 280)
        if self.fallback_hosts:
            return ", ".join(map(str, self.single_host_relays))
        host, port = self.address
        return safe_text(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", 280)


def _check_unix(relay: Relay) -> None:
    path = os.fsdecode(relay.unix_path or "")
    if relay.host or relay.port is not None or relay.fallback_hosts:
        raise InvalidArgument(
            "give either host and port, or unix_path; for the name in the certificate use verify_name"
        )
    if not path or "\0" in path:
        raise InvalidArgument(f"“{safe_text(path, 80)}” is not a valid path for a Unix socket")
    if len(os.fsencode(path)) > _MAX_UNIX_PATH:  # uvloop would report that the file does not exist
        raise InvalidArgument(
            f"“{safe_text(path, 200)}” is too long for a Unix socket: the limit is {_MAX_UNIX_PATH} bytes"
        )


def _check_route(relay: Relay) -> None:
    """Refuse two ways to connect at once, and a source address that is not an address."""
    if relay.unix_path is not None and (relay.proxy or relay.opener or relay.source_address):
        raise InvalidArgument("unix_path excludes proxy, opener and source_address")
    if relay.opener is not None and (relay.proxy or relay.source_address):
        raise InvalidArgument("opener excludes proxy and source_address: let the opener use them")
    if relay.source_address is not None:
        try:
            ip_address(relay.source_address.partition("%")[0])
        except ValueError as error:
            text = safe_text(relay.source_address, 80)
            raise InvalidArgument(
                f"“{text}” is not an IP address: write source_address as 192.0.2.1 or 2001:db8::1"
            ) from error


def _check_tls(relay: Relay) -> None:
    """Refuse settings that would be ignored silently."""
    if relay.pins and relay.security in (Security.PLAINTEXT, Security.OPPORTUNISTIC):
        raise InvalidArgument("pins need TLS: use smtp:// with STARTTLS, or smtps://")
    if relay.context is not None and (relay.client_certificate or relay.ca_file or not relay.verify):
        raise InvalidArgument(
            "context excludes ca_file, client_certificate and verify: set up the context with them instead"
        )
