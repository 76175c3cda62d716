"""Proxy settings (SOCKS 5, RFC 1928; HTTP CONNECT, RFC 9110 §9.3.6), and parsing of hosts, ports and relay URLs."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self
from urllib.parse import SplitResult, unquote, urlsplit

from asyncsmtp.errors import InvalidArgument, check_type
from asyncsmtp.protocol.auth.credentials import Secret
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Proxy", "ProxyKind", "check_port", "has_password", "parse_host_port", "split_url"]

_USER = r"(?:[a-z0-9+]*:?/{1,2}[^/?#@:\[]*:|[^/?#@:\[]*:(?!/))"  # with what should be the scheme before it or not
_OTHERS = r"(?:,(?:\[[0-9a-f:.]*\]|[^/?#@:,\[]*)(?::\d{1,5})?)*"  # further hosts and ports
_PASSWORD_INSIDE = re.compile(
    _USER
    + rf"(?!\d{{1,5}}{_OTHERS}[/?#])[^@]*@",  # not a port; the password may have /, ? and # in it, where no URL may
    re.IGNORECASE,
)
_PROXY_PASSWORD = re.compile(r"\s*" + _USER + r"(?!\d{1,5}(?:[/?#]|&[a-z-]+=))[^@]*@", re.IGNORECASE)


def has_password(url: str) -> bool:
    """Return whether the URL of a relay, or of its proxy, holds a password; such a URL must not be shown.

    The URLs need not be well formed: a mistyped URL with a password in it must not be shown either.
    """
    proxy = unquote(url.partition("proxy=")[2])
    return _PASSWORD_INSIDE.match(url) is not None or _PROXY_PASSWORD.match(proxy) is not None


def split_url(url: str) -> SplitResult:
    """Split a relay's URL.

    Raises:
        InvalidArgument: the URL is malformed, or holds a password, which the message does not repeat.
    """
    if has_password(url):
        raise InvalidArgument(
            "the URL must not hold a password: give password= beside it "
            "(with the command: set ASYNCSMTP_PASSWORD or use --password-command)"
        )
    try:
        return urlsplit(url)
    except ValueError as error:  # brackets around something else than an IPv6 address; characters that NFKC changes
        raise InvalidArgument(f"“{safe_text(url, 80)}” is not a valid URL: write smtp://host:587") from error


def parse_host_port(text: str) -> tuple[str, int | None]:
    """Split `name`, `name:587`, `192.0.2.1` or `[2001:db8::1]:587` into host and port; without a port it is None.

    Raises:
        InvalidArgument: the host or port is not valid.
    """
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidArgument(f"“{safe_text(text, 80)}” is not a valid host and port: write host:587") from error
    if not host or parts.username is not None or parts.netloc != text:
        raise InvalidArgument(f"“{safe_text(text, 80)}” does not name a host: write smtp://host:587")
    check_port(port)
    return unquote(host), port


def check_port(port: int | None) -> None:
    """Raise InvalidArgument unless `port` is 1 to 65535, or None for the default."""
    if port is not None and not 0 < port < 65536:
        raise InvalidArgument(f"{port} is not a valid port: give 1 to 65535")


_MAX_SOCKS_CREDENTIAL = 255  # bytes of a user name and of a password (RFC 1929 §2)


class ProxyKind(StrEnum):
    """The protocol of a proxy."""

    SOCKS5 = "socks5"
    HTTP = "http"


_DEFAULT_PORTS = {ProxyKind.SOCKS5: 1080, ProxyKind.HTTP: 8080}


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
        if not self.host:
            raise InvalidArgument("a proxy needs host=")
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
        try:
            parts = urlsplit(url)
            kind, port = ProxyKind(parts.scheme), parts.port
        except ValueError as error:
            raise _invalid_proxy(url) from error
        if not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
            raise _invalid_proxy(url)
        secret = Secret(password) if isinstance(password, str) else password
        return cls(kind, unquote(parts.hostname), port, unquote(parts.username or ""), secret)

    def with_password(self, password: Secret) -> Self:
        """Return a copy with the password of its user."""
        return replace(self, password=password)

    @property
    def address(self) -> tuple[str, int]:
        """The host and port, with the default filled in."""
        return self.host, self.port or _DEFAULT_PORTS[self.kind]

    def __str__(self) -> str:
        host, port = self.address
        return safe_text(f"{self.kind}://" + (f"[{host}]:{port}" if ":" in host else f"{host}:{port}"), 280)


def _invalid_proxy(url: str) -> InvalidArgument:
    return InvalidArgument(f"“{safe_text(url, 80)}” is not a proxy's URL: write socks5://host:1080 or http://host:8080")
