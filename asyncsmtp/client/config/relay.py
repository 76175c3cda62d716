"""Relay settings: hosts, TLS, login, proxy, timeouts, and the URLs that name them.

RFC 6409, RFC 8314; SOCKS 5: RFC 1928; HTTP CONNECT: RFC 9110 §9.3.6.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote

from asyncsmtp.client.config.hostport import (
    check_port,
    has_password,
    parse_host_port,
    show_url,
    split_leniently,
    split_url,
    to_ascii_host,
)
from asyncsmtp.client.config.login_config import ClientCertificate, Login, TokenSource, normalize_fingerprint
from asyncsmtp.errors import InvalidArgument, check_number, check_type
from asyncsmtp.protocol.auth.auth import Secret
from asyncsmtp.protocol.commands import Verb, ehlo
from asyncsmtp.protocol.opening_handshake import Security, XClient
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Dialogue", "OpenedStreams", "Opener", "Proxy", "ProxyKind", "Relay", "Timeouts"]


class Dialogue(StrEnum):
    """The number of commands that are sent before their replies arrive.

    LOCKSTEP: one command at a time.
    PIPELINED: groups of commands if the relay offers PIPELINING (RFC 2920), and the next transaction behind the end of
    data once the session has shown that the server reads on there.
    STREAMED: envelopes and contents in chunks (RFC 3030), up to `window` messages ahead of their replies. Only for a
    relay that you run: each of these messages is in doubt if the connection breaks. A relay that answers RSET in the
    words of other commands gets one message at a time, since a reply that it leaves out could not be noticed.
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

    def __post_init__(self) -> None:
        for each in fields(self):
            check_number(each.name, getattr(self, each.name), int, float)

    @classmethod
    def interactive(cls) -> Timeouts:
        """Return shorter limits for a person who waits; after the point of no return they are the same."""
        return cls(connect=15.0, greeting=30.0, ehlo=30.0, starttls=30.0, mail=60.0, rcpt=60.0)

    def limit(self, verb: Verb) -> float:
        """Return the seconds from when `verb` is the oldest unanswered command until its reply must be complete."""
        return float(getattr(self, _STAGE_BY_VERB.get(verb) or verb.name.lower()))


_STAGE_BY_VERB = {  # where it has not the verb's own name
    **dict.fromkeys((Verb.HELO, Verb.LHLO, Verb.XCLIENT), "ehlo"),
    **dict.fromkeys((Verb.RESPONSE, Verb.CANCEL), "auth"),
    **dict.fromkeys((Verb.VRFY, Verb.EXPN), "rcpt"),
    **dict.fromkeys((Verb.CONTENT, Verb.BDAT_LAST), "end"),
    Verb.BDAT: "block",
    Verb.NOOP: "rset",
}

_MAX_SOCKS_CREDENTIAL = 255  # bytes of a user name and of a password (RFC 1929 §2)


class ProxyKind(StrEnum):
    """The protocol of a proxy."""

    SOCKS5 = "socks5"
    HTTP = "http"


_PROXY_PORTS = {ProxyKind.SOCKS5: 1080, ProxyKind.HTTP: 8080}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy between us and a relay; install its packages with `pip install asyncsmtp[proxy]`.

    Only TLS with the relay protects the traffic: the proxy itself sees everything else.

    Attributes:
        port: None for the default: 1080 for SOCKS, 8080 for HTTP.
        username, password: credentials for the proxy, which it receives in cleartext.
        remote_names: let the proxy look up the relay's name; if False, it is looked up here.
    """

    kind: ProxyKind
    host: str
    port: int | None = None
    username: str = ""
    password: Secret | None = None
    remote_names: bool = True

    def __post_init__(self) -> None:
        if not self.host or "@" in self.host:
            raise InvalidArgument("a proxy needs host=, a name or an address alone")
        object.__setattr__(self, "host", to_ascii_host(self.host))
        check_port(self.port)
        if self.password is not None and not self.username:
            raise InvalidArgument("a proxy's password needs username= too")
        said = (self.username, self.password.reveal() if self.password is not None else "")
        if any(ord(character) < 32 or ord(character) == 127 for text in said for character in text):
            raise InvalidArgument("the user name and password of a proxy must not hold control characters")
        if self.kind is ProxyKind.SOCKS5 and not all(
            text.isascii() and len(text) <= _MAX_SOCKS_CREDENTIAL for text in said
        ):
            raise InvalidArgument(
                f"a SOCKS user name and password must be ASCII, at most {_MAX_SOCKS_CREDENTIAL} bytes each"
            )
        if self.kind is ProxyKind.HTTP and ":" in self.username:
            raise InvalidArgument("the user name of an HTTP proxy must not hold a colon (RFC 7617 §2)")

    @classmethod
    def from_url(cls, url: str, *, password: str | Secret | None = None) -> Self:
        """Return the proxy of a URL: `socks5://user@host:1080` or `http://user@host:8080`.

        Raises:
            InvalidArgument: the URL is not valid, or holds a password, which the message does not repeat.
        """
        check_type("url", url, str)
        if has_password(url):
            raise InvalidArgument(
                "the URL of a proxy must not hold a password: give password= "
                "(with the command: set ASYNCSMTP_PROXY_PASSWORD)"
            )
        parts = split_leniently(url, with_port=True)
        if parts is None or parts.scheme not in list(ProxyKind):
            raise _invalid_proxy(url)
        if not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
            raise _invalid_proxy(url)
        secret = Secret(password) if isinstance(password, str) else password
        named = parts.netloc.rpartition("@")[2]
        host = unquote(parts.hostname if named.isascii() else named.partition(":")[0])
        return cls(ProxyKind(parts.scheme), host, parts.port, unquote(parts.username or ""), secret)

    def with_password(self, password: Secret) -> Self:
        """Return a copy with the password of its user."""
        return replace(self, password=password)

    @property
    def address(self) -> tuple[str, int]:
        """The host and port, with the default filled in."""
        return self.host, self.port or _PROXY_PORTS[self.kind]

    def __str__(self) -> str:
        host, port = self.address
        return safe_text(f"{self.kind}://" + (f"[{host}]:{port}" if ":" in host else f"{host}:{port}"), 280)


def _invalid_proxy(url: str) -> InvalidArgument:
    return InvalidArgument(f"“{show_url(url)}” is not a proxy's URL: write socks5://host:1080 or http://host:8080")


_SECURITY_BY_SCHEME = {  # unless the key `security` of the URL says otherwise
    "smtp": Security.STARTTLS,
    "smtps": Security.IMPLICIT_TLS,
    "lmtp": Security.PLAINTEXT,
    "smtp+unix": Security.PLAINTEXT,
    "lmtp+unix": Security.PLAINTEXT,
}
_QUERY_KEYS = {
    *("auth", "ca-file", "client-cert", "client-key", "dialogue", "name", "pin", "proxy"),
    *("security", "source-address", "verify", "verify-name"),
}


def _parse_proxy(query: Mapping[str, str], password: str | Secret | None) -> Proxy | None:
    if "proxy" in query:
        return Proxy.from_url(query["proxy"], password=password)
    if password is not None:
        raise InvalidArgument("proxy_password= needs a proxy: add proxy=socks5://user@host:1080 to the relay's URL")
    return None


def _parse_unix_path(url: str, parts: SplitResult) -> Path:
    if parts.netloc.rpartition("@")[2] or not parts.path.strip("/"):
        raise InvalidArgument(f"“{show_url(url)}” does not name a Unix socket: write lmtp+unix:///path/to/socket")
    return Path(unquote(parts.path))


def _parse_hosts(url: str, parts: SplitResult) -> dict[str, Any]:
    """Return the first host with its port, and the fallback hosts."""
    named = parts.netloc.rpartition("@")[2]
    if not named:
        raise InvalidArgument(f"“{show_url(url)}” does not name a host: write smtp://host:587")
    first, *others = named.split(",")
    host, port = parse_host_port(first)
    return {"host": host, "port": port, "fallback_hosts": tuple(others)}


def _build_login(
    username: str, password: str | Secret | None, token: str | Secret | TokenSource | None, auth: str | None
) -> Login | None:
    if not username:
        if password is not None or token is not None:
            raise InvalidArgument(
                "password= and token= need a user in the relay's URL, who would not log in otherwise: "
                "write smtp://user@host:587"
            )
        return Login.by_certificate() if auth is not None and auth.upper() == "EXTERNAL" else None
    if password is None and token is None:
        raise InvalidArgument(
            f"no password for “{safe_text(username.partition(':')[0], 80)}”: give password= or token= beside the URL "
            "(with the command: set ASYNCSMTP_PASSWORD or use --password-command)"
        )
    mechanisms = tuple(auth.upper().split(",")) if auth is not None else ()
    return Login(username, password, token, mechanisms=mechanisms)


def _parse_client_certificate(query: Mapping[str, str], passphrase: str | Secret | None) -> ClientCertificate | None:
    certificate, key = _parse_path("client-cert", query), _parse_path("client-key", query)
    if certificate is not None:
        return ClientCertificate(certificate, key, passphrase)
    if key is not None:
        raise InvalidArgument("client-key needs client-cert beside it in a relay's URL")
    if passphrase is not None:
        raise InvalidArgument("passphrase= needs a client certificate: add client-cert to the relay's URL")
    return None


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
        raise InvalidArgument(f"“{safe_text(str(value), 80)}” is not a valid {key} for a relay: use {known}") from error


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


_TYPES: dict[str, tuple[type | None, ...]] = {  # of the fields of a Relay that are not converted
    "host": (str,),
    "port": (int, None),
    "login": (Login, None),
    "context": (ssl.SSLContext, None),
    "ca_file": (str, Path, None),
    "verify_name": (str, None),
    "cleartext_login": (bool,),
    "timeouts": (Timeouts,),
    "name": (str, None),
    "lmtp": (bool,),
    "xclient": (XClient, None),
    "unix_path": (str, bytes, Path, None),
    "source_address": (str, None),
    "proxy": (Proxy, None),
    "client_certificate": (ClientCertificate, None),
    "verify": (bool,),
}
_COLLECTIONS = {"ignored_extensions": frozenset, "fallback_hosts": tuple, "pins": tuple}


@dataclass(frozen=True, slots=True, repr=False)
class Relay:
    """A mail server to submit messages to, and the settings for sessions with it.

    Attributes:
        host: a host name or an address. A name that is not ASCII is converted to A-labels, `xn--…`.
        port: None for the default: 465 for implicit TLS, 587 for STARTTLS, 24 for LMTP, otherwise 25.
        security: STARTTLS, required, by default. The value of a `Security` or `Dialogue`, and the URL of a proxy, are
            converted.
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
        convert = partial(object.__setattr__, self)
        convert("security", _parse_choice(Security, "security", self.security))
        convert("dialogue", _parse_choice(Dialogue, "dialogue", self.dialogue))
        if isinstance(self.proxy, str):
            convert("proxy", Proxy.from_url(self.proxy))
        for parameter, kinds in _TYPES.items():
            check_type(parameter, getattr(self, parameter), *kinds)
        for parameter, kind in _COLLECTIONS.items():
            check_type(parameter, value := getattr(self, parameter), tuple, list, set, frozenset)
            convert(parameter, kind(value))
        check_number("window", self.window, int)
        if "://" in self.host or "@" in self.host or self.host.partition(":")[2].isdecimal():
            raise InvalidArgument("host= takes a name or an address alone: use port=, or Relay.from_url() for a URL")
        if self.unix_path is not None:
            _check_unix(self)
        elif not self.host:
            raise InvalidArgument("a relay needs host= or unix_path=")
        convert("host", to_ascii_host(self.host))
        if self.verify_name is not None:
            convert("verify_name", to_ascii_host(self.verify_name))
        check_port(self.port)
        if self.name is not None:
            ehlo(self.name)
        for other in self.fallback_hosts:
            parse_host_port(other)
        convert("pins", tuple(map(normalize_fingerprint, self.pins)))
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
        check_type("url", url, str)
        parts = split_url(url)
        if parts.scheme not in _SECURITY_BY_SCHEME:
            raise InvalidArgument(f"“{show_url(url)}” is not a relay's URL: write smtp://host:587 or smtps://host")
        security, unix = _SECURITY_BY_SCHEME[parts.scheme], parts.scheme.endswith("+unix")
        if (parts.path.strip("/") and not unix) or parts.fragment:
            rest = "…" if "@" in parts.fragment + parts.path else safe_text(parts.fragment or parts.path, 80)
            raise InvalidArgument(f"“{rest}” has no meaning in a relay's URL")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if unknown := query.keys() - _QUERY_KEYS:
            raise InvalidArgument(f"“{safe_text(min(unknown), 80)}” is not a setting of a relay's URL")
        user = parts.netloc.rpartition("@")[0]
        return cls(
            **({"unix_path": _parse_unix_path(url, parts)} if unix else _parse_hosts(url, parts)),
            security=_parse_choice(Security, "security", query.get("security", security)),
            login=_build_login(unquote(user), password, token, query.get("auth")),
            ca_file=_parse_path("ca-file", query),
            verify_name=query.get("verify-name"),
            verify=_parse_yes_no("verify", query.get("verify", "yes")),
            pins=tuple(query["pin"].split(",")) if "pin" in query else (),
            client_certificate=_parse_client_certificate(query, passphrase),
            dialogue=_parse_choice(Dialogue, "dialogue", query.get("dialogue", Dialogue.PIPELINED)),
            name=query.get("name"),
            lmtp=parts.scheme.startswith("lmtp"),
            source_address=query.get("source-address"),
            proxy=_parse_proxy(query, proxy_password),
        )

    @classmethod
    def for_provider(
        cls,
        name: str,
        username: str = "",
        *,
        password: str | Secret | None = None,
        token: str | Secret | TokenSource | None = None,
    ) -> Relay:
        """Return the relay of a mail provider, such as `gmail`, with its host, port and security.

        Args:
            name: of a provider in `asyncsmtp.client.PROVIDERS`; of Amazon SES in a region: `ses-eu-west-1`.
            username: needed, unless it is the same for every customer (`apikey` of SendGrid).
            password, token: as `from_url` takes them.
        Raises:
            InvalidArgument: the provider is unknown; the message has the nearest name. Or the login is missing.
        """
        from asyncsmtp.client.config.provider_presets import find_provider  # late: few programs name one

        check_type("name", name, str)
        check_type("username", username, str)
        provider = find_provider(name)
        if not (username or provider.username):
            raise InvalidArgument(f"{provider.title} needs username= and password=: {provider.login}")
        return cls.from_url(provider.relay_url(username or provider.username), password=password, token=token)

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
        first, others = replace(self, fallback_hosts=()), map(parse_host_port, self.fallback_hosts)
        return (first, *(replace(first, host=host, port=port) for host, port in others))

    def __repr__(self) -> str:
        shown = ((each, getattr(self, each.name)) for each in fields(self) if each.repr)
        changed = (f"{each.name}={value!r}" for each, value in shown if value not in (each.default, Timeouts()))
        return f"Relay({', '.join(changed)})"

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
