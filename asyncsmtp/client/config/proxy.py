"""A proxy as a value: SOCKS 5 (RFC 1928) or HTTP CONNECT (RFC 9110 §9.3.6)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self
from urllib.parse import SplitResult, unquote, urlsplit

from asyncsmtp.errors import InvalidArgument
from asyncsmtp.protocol.auth.credentials import Secret
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Proxy", "ProxyKind", "check_port", "has_password", "host_and_port", "split_url"]

_USER = r"(?:[a-z0-9+]*:?/{1,2}[^/?#@:\[]*:|[^/?#@:\[]*:(?!/))"  # with what should be the scheme before it or not
_OTHERS = r"(?:,(?:\[[0-9a-f:.]*\]|[^/?#@:,\[]*)(?::\d{1,5})?)*"  # further hosts and ports
_PASSWORD_INSIDE = re.compile(
    _USER
    + rf"(?!\d{{1,5}}{_OTHERS}[/?#])[^@]*@",  # not a port; the password may have /, ? and # in it, where no URL may
    re.IGNORECASE,
)
_PROXY_PASSWORD = re.compile(r"\s*" + _USER + r"(?!\d{1,5}(?:[/?#]|&[a-z-]+=))[^@]*@", re.IGNORECASE)


def has_password(url: str) -> bool:
    """Whether there is a password in a relay's URL, or in that of its proxy, though neither may be well formed.

    Then it must not be shown.
    """
    proxy = unquote(url.partition("proxy=")[2])
    return _PASSWORD_INSIDE.match(url) is not None or _PROXY_PASSWORD.match(proxy) is not None


def split_url(url: str) -> SplitResult:
    """The parts of a relay's URL.

    Raises:
        InvalidArgument: it cannot be taken apart, or has a password, which is not repeated.
    """
    if has_password(url):
        raise InvalidArgument("a password has no place in a URL: use ASYNCSMTP_PASSWORD or --password-command")
    try:
        return urlsplit(url)
    except ValueError as error:  # brackets around what is no IPv6 address, characters that become others (NFKC)
        raise InvalidArgument(f"“{safe_text(url, 80)}” has a host that is none: write smtp://host:587") from error


def host_and_port(text: str) -> tuple[str, int | None]:
    """A host, and its port where one is given: `name`, `name:587`, `192.0.2.1`, `[2001:db8::1]:587`.

    Raises:
        InvalidArgument: it is neither.
    """
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidArgument(f"“{safe_text(text, 80)}” has a host or a port that is none: write host:587") from error
    if not host or parts.username is not None or parts.netloc != text:
        raise InvalidArgument(f"“{safe_text(text, 80)}” names no host: write smtp://host:587")
    check_port(port)
    return unquote(host), port


def check_port(port: int | None) -> None:
    """Raise InvalidArgument for what is no port; None stands for the usual one."""
    if port is not None and not 0 < port < 65536:
        raise InvalidArgument(f"{port} is no port: 1 to 65535")


_MOST_SOCKS = 255  # octets of a user name and of a password (RFC 1929 §2)


class ProxyKind(StrEnum):
    """How a proxy is spoken to."""

    SOCKS5 = "socks5"
    HTTP = "http"


_PORTS = {ProxyKind.SOCKS5: 1080, ProxyKind.HTTP: 8080}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy through which a relay is reached; the packages for it come with `pip install asyncsmtp[proxy]`.

    What goes through it is protected by TLS with the relay, if by anything.

    Attributes:
        port: None for the usual one, 1080 for SOCKS and 8080 for HTTP.
        username, password: where it wants to know us; it hears them in clear.
        remote_names: have the proxy look up the relay's name; else we do, and it is told an address.
    """

    kind: ProxyKind
    host: str
    port: int | None = None
    username: str = ""
    password: Secret | None = None
    remote_names: bool = True

    def __post_init__(self) -> None:
        if not self.host:
            raise InvalidArgument("a proxy needs a host")
        check_port(self.port)
        if self.password is not None and not self.username:
            raise InvalidArgument("a proxy's password needs a user name")
        said = (self.username, self.password.reveal() if self.password is not None else "")
        if any(ord(character) < 32 or ord(character) == 127 for text in said for character in text):
            raise InvalidArgument("a control character in the user name or the password of the proxy")
        if self.kind is ProxyKind.SOCKS5 and not all(text.isascii() and len(text) <= _MOST_SOCKS for text in said):
            raise InvalidArgument(
                f"SOCKS takes a user name and a password of ASCII, {_MOST_SOCKS} octets each at the most"
            )
        if self.kind is ProxyKind.HTTP and ":" in self.username:
            raise InvalidArgument("a colon in the user name of an HTTP proxy, which ends there (RFC 7617 §2)")

    @classmethod
    def from_url(cls, url: str, *, password: str | Secret | None = None) -> Self:
        """Read a proxy's URL: `socks5://user@host:1080` or `http://user@host:8080`.

        Raises:
            InvalidArgument: it is none, or there is a password in it, which is not repeated.
        """
        if has_password(url):
            raise InvalidArgument(
                "a password has no place in a URL: give it as `password`, or in ASYNCSMTP_PROXY_PASSWORD"
            )
        try:
            parts = urlsplit(url)
            kind, port = ProxyKind(parts.scheme), parts.port
        except ValueError as error:
            raise _no_proxy(url) from error
        if not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
            raise _no_proxy(url)
        secret = Secret(password) if isinstance(password, str) else password
        return cls(kind, unquote(parts.hostname), port, unquote(parts.username or ""), secret)

    def with_password(self, password: Secret) -> Self:
        """The same proxy, and the password of its user."""
        return replace(self, password=password)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, the usual one filled in."""
        return self.host, self.port or _PORTS[self.kind]

    def __str__(self) -> str:
        host, port = self.address
        return safe_text(f"{self.kind}://" + (f"[{host}]:{port}" if ":" in host else f"{host}:{port}"), 280)


def _no_proxy(url: str) -> InvalidArgument:
    return InvalidArgument(f"“{safe_text(url, 80)}” is no proxy: write socks5://host:1080 or http://host:8080")
