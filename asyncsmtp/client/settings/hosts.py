"""Hosts and ports as people write them, in URLs and alone; never a password among them."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, unquote, urlsplit

from asyncsmtp.errors import BadArgument
from asyncsmtp.protocol.replies import safe_text

__all__ = ["check_port", "has_password", "host_and_port", "split_url"]

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
        BadArgument: it cannot be taken apart, or has a password, which is not repeated.
    """
    if has_password(url):
        raise BadArgument("a password has no place in a URL: use ASYNCSMTP_PASSWORD or --password-command")
    try:
        return urlsplit(url)
    except ValueError as error:  # brackets around what is no IPv6 address, characters that become others (NFKC)
        raise BadArgument(f"“{safe_text(url, 80)}” has a host that is none: write smtp://host:587") from error


def host_and_port(text: str) -> tuple[str, int | None]:
    """A host, and its port where one is given: `name`, `name:587`, `192.0.2.1`, `[2001:db8::1]:587`.

    Raises:
        BadArgument: it is neither.
    """
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise BadArgument(f"“{safe_text(text, 80)}” has a host or a port that is none: write host:587") from error
    if not host or parts.username is not None or parts.netloc != text:
        raise BadArgument(f"“{safe_text(text, 80)}” names no host: write smtp://host:587")
    check_port(port)
    return unquote(host), port


def check_port(port: int | None) -> None:
    """Raise BadArgument for what is no port; None stands for the usual one."""
    if port is not None and not 0 < port < 65536:
        raise BadArgument(f"{port} is no port: 1 to 65535")
