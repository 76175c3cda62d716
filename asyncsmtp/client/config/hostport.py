"""Hosts, ports and URLs of relays and proxies as text: splitting them, and keeping mistyped passwords out of errors."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, unquote, urlsplit

from asyncsmtp.errors import InvalidArgument
from asyncsmtp.protocol.envelope import to_a_labels
from asyncsmtp.protocol.replies import safe_text

__all__ = ["check_port", "has_password", "parse_host_port", "show_url", "split_leniently", "split_url", "to_ascii_host"]

_NAME = r"(?:[^/?#@:\[]*@)*[^/?#@:\[]*:"  # a user name may be an address
_USER = rf"(?:[a-z0-9+]*:?/{{1,2}}{_NAME}|{_NAME}(?!/))"  # with what should be the scheme before it or not
_OTHERS = r"(?:,(?:\[[0-9a-f:.]*\]|[^/?#@:,\[]*)(?::\d{1,5})?)*"  # further hosts and ports
# not a port; the password may have /, ? and # in it, where no URL may
_PASSWORD_INSIDE = re.compile(_USER + rf"(?!\d{{1,5}}{_OTHERS}[/?#])[^@]*@", re.IGNORECASE)
_PROXY_PASSWORD = re.compile(r"\s*" + _USER + r"(?!\d{1,5}(?:[/?#]|&[a-z-]+=))[^@]*@", re.IGNORECASE)


def has_password(url: str) -> bool:
    """Return whether the URL of a relay, or of its proxy, holds a password; such a URL must not be shown.

    The URLs need not be well formed: a mistyped URL with a password in it must not be shown either.
    """
    proxy = unquote(url.partition("proxy=")[2])
    return _PASSWORD_INSIDE.match(url) is not None or _PROXY_PASSWORD.match(proxy) is not None


_SCHEME = re.compile(r"(?:[a-z0-9+]*(?::/{1,2}|//))?", re.IGNORECASE)
_NOT_A_PORT = re.compile(r":(?!\d{1,5}(?:[,/?#]|$))")
_LITERAL = re.compile(r"\[?[0-9a-f:.%]*\]?(?::\d*)?/?", re.IGNORECASE)


def show_url(url: str) -> str:
    """Return a URL or a host for an error message, without anything in it that may be a mistyped password.

    That is all behind a colon that is followed by no port, and a path with an @.
    """
    begin = _SCHEME.match(url)
    at = begin.end() if begin is not None else 0
    colon = None if _LITERAL.fullmatch(url, at) else _NOT_A_PORT.search(url, at)
    shown = url if colon is None else f"{url[: colon.end()]}…"
    path = shown.find("/", at)
    if path >= 0 and "@" in shown[path:]:
        shown = f"{shown[: path + 1]}…"
    return safe_text(shown, 80)


def split_leniently(url: str, *, with_port: bool = False) -> SplitResult | None:
    """Split a URL; return None where it cannot be split. The error would quote it, and stay in the context of ours.

    Args:
        with_port: the port must be a number that a port can be.
    """
    try:
        parts = urlsplit(url)
        if with_port:
            _ = parts.port  # raises a ValueError unless it is one
    except ValueError:
        return None
    return parts


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
    parts = split_leniently(url)
    if parts is None:  # brackets around something else than an IPv6 address; characters that NFKC changes
        raise InvalidArgument(f"“{show_url(url)}” is not a valid URL: write smtp://host:587")
    return parts


def parse_host_port(text: str) -> tuple[str, int | None]:
    """Split `name`, `name:587`, `192.0.2.1` or `[2001:db8::1]:587` into host and port; without a port it is None.

    Raises:
        InvalidArgument: the host or port is not valid.
    """
    parts = split_leniently(f"//{text}", with_port=True)
    if parts is None:
        raise InvalidArgument(f"“{show_url(text)}” is not a valid host and port: write host:587")
    if not parts.hostname or parts.username is not None or parts.netloc != text:
        raise InvalidArgument(f"“{show_url(text)}” does not name a host: write smtp://host:587")
    check_port(parts.port)
    host = parts.hostname
    if not text.isascii():
        host = text.partition(":")[0]  # not lower-cased, which would hide that another name comes of it
    return to_ascii_host(unquote(host)), parts.port


def to_ascii_host(host: str) -> str:
    """Return a host as DNS has it, in A-labels; the resolver would map it to another name (RFC 3490)."""
    try:
        return to_a_labels(host)
    except ValueError as error:
        raise InvalidArgument(f"“{safe_text(host, 80)}” is not a valid host: {error}") from error


def check_port(port: int | None) -> None:
    """Raise InvalidArgument unless `port` is 1 to 65535, or None for the default."""
    if port is not None and not 0 < port < 65536:
        raise InvalidArgument(f"{port} is not a valid port: give 1 to 65535")
