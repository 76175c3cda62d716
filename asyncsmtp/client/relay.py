"""Where and how to submit mail: a relay as a value (RFC 6409, RFC 8314)."""

from __future__ import annotations

import os
import re
import ssl
import sys
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from asyncsmtp.client.login import Login, Token, TokenSource
from asyncsmtp.client.timeouts import Timeouts
from asyncsmtp.errors import BadArgument
from asyncsmtp.protocol.commands import ehlo
from asyncsmtp.protocol.opening import Security
from asyncsmtp.protocol.replies import safe_text
from asyncsmtp.protocol.sasl import Secret
from asyncsmtp.protocol.xclient import XClient

__all__ = ["Dialogue", "Login", "Relay", "Token", "TokenSource", "has_password", "split_url"]

_LMTP_PORT = 24
_MAX_UNIX_PATH = 107 if sys.platform == "linux" else 103  # octets: what sockaddr_un has room for, less the NUL
_PORTS = {Security.IMPLICIT_TLS: 465, Security.STARTTLS: 587, Security.OPPORTUNISTIC: 25, Security.PLAINTEXT: 25}


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

    def __post_init__(self) -> None:
        if self.unix_path is not None:
            _check_unix(self)
        elif not self.host:
            raise BadArgument("a relay needs a host, or the unix_path of its socket")
        if self.port is not None and not 0 < self.port < 65536:
            raise BadArgument(f"{self.port} is no port: 1 to 65535")
        if self.name is not None:
            ehlo(self.name)

    @classmethod
    def from_url(cls, url: str, *, password: str | Secret | None = None, token: TokenSource | None = None) -> Relay:
        """Read a relay's URL.

        `smtp://user@host:587` (STARTTLS required), `smtps://user@host` (TLS, 465),
        `smtp://localhost:2525?security=none`; `lmtp://host:24`, and for a Unix socket `lmtp+unix:///path` or
        `smtp+unix:///path`, these in clear unless `security` says otherwise. Other query keys: `security` (tls,
        starttls, opportunistic, none), `name` (for EHLO), `verify-name`, `ca-file`, `dialogue`, `auth` (the only
        mechanisms for the login, parted by commas).

        Raises:
            BadArgument: with the part of the URL that is wrong. A password in the URL is refused.
        """
        parts = split_url(url)
        if parts.scheme not in _SCHEMES:
            raise BadArgument(f"“{safe_text(url, 80)}” is no relay: write smtp://host:587 or smtps://host")
        security, unix = _SCHEMES[parts.scheme], parts.scheme.endswith("+unix")
        if (parts.path.strip("/") and not unix) or parts.fragment:
            raise BadArgument(f"“{safe_text(parts.fragment or parts.path, 80)}” means nothing in a relay's URL")
        settings = dict(parse_qsl(parts.query, keep_blank_values=True))
        if unknown := settings.keys() - _SETTINGS:
            raise BadArgument(f"“{safe_text(min(unknown), 80)}” is no setting of a relay's URL")
        return cls(
            "" if unix else _host(url, parts.hostname),
            _port(url, parts),
            _choice(Security, "security", settings.get("security", security)),
            _login(unquote(parts.username), password, token, settings.get("auth")) if parts.username else None,
            ca_file=Path(settings["ca-file"]) if "ca-file" in settings else None,
            verify_name=settings.get("verify-name"),
            dialogue=_choice(Dialogue, "dialogue", settings.get("dialogue", Dialogue.PIPELINED)),
            name=settings.get("name"),
            lmtp=parts.scheme.startswith("lmtp"),
            unix_path=_unix_path(url, parts) if unix else None,
        )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, the usual ones filled in."""
        usual = _LMTP_PORT if self.lmtp else _PORTS[self.security]
        return self.host or "localhost", self.port or usual

    def __str__(self) -> str:
        if self.unix_path is not None:
            return safe_text(os.fsdecode(self.unix_path), 280)
        host, port = self.address
        return safe_text(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", 280)


_PASSWORD_INSIDE = re.compile(
    r"(?:[a-z+]*:?/{1,2}[^/?#@:\[]*:|[^/?#@:\[]*:(?!/))"  # a user, with what should be the scheme before it or not
    r"(?!\d{1,5}[/?#])[^@]*@",  # not a port; the password may have /, ? and # in it, where no URL may
    re.IGNORECASE,
)


def has_password(url: str) -> bool:
    """Whether there is a password in a relay's URL, though it may not be well formed: then it must not be shown."""
    return _PASSWORD_INSIDE.match(url) is not None


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


def _check_unix(relay: Relay) -> None:
    path = os.fsdecode(relay.unix_path or "")
    if relay.host or relay.port is not None:
        raise BadArgument("a relay has a host and a port, or a unix_path, not both; verify_name is its certificate's")
    if not path or "\0" in path:
        raise BadArgument(f"“{safe_text(path, 80)}” is no path of a Unix socket")
    if len(os.fsencode(path)) > _MAX_UNIX_PATH:  # uvloop would say that there is no such file
        raise BadArgument(f"“{safe_text(path, 200)}” is too long for a Unix socket: at most {_MAX_UNIX_PATH} octets")


def _unix_path(url: str, parts: SplitResult) -> Path:
    if parts.netloc.rpartition("@")[2] or not parts.path.strip("/"):
        raise BadArgument(f"“{safe_text(url, 80)}” names no Unix socket: write lmtp+unix:///path/to/socket")
    return Path(unquote(parts.path))


def _host(url: str, host: str | None) -> str:
    if not host:
        raise BadArgument(f"“{safe_text(url, 80)}” names no host: write smtp://host:587")
    return unquote(host)


def _port(url: str, parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError as error:
        raise BadArgument(f"“{safe_text(url, 80)}” has a port that is no number from 1 to 65535") from error


def _login(username: str, password: str | Secret | None, token: TokenSource | None, auth: str | None) -> Login:
    if password is None and token is None:
        raise BadArgument(
            f"no password for “{safe_text(username, 80)}”: set ASYNCSMTP_PASSWORD or use --password-command"
        )
    mechanisms = tuple(auth.upper().split(",")) if auth is not None else ()
    return Login(username, Secret(password) if isinstance(password, str) else password, token, mechanisms=mechanisms)


_SCHEMES = {  # with the security, unless the URL says another
    "smtp": Security.STARTTLS,
    "smtps": Security.IMPLICIT_TLS,
    "lmtp": Security.PLAINTEXT,
    "smtp+unix": Security.PLAINTEXT,
    "lmtp+unix": Security.PLAINTEXT,
}
_SETTINGS = frozenset({"auth", "security", "ca-file", "verify-name", "dialogue", "name"})
_Choice = TypeVar("_Choice", bound=StrEnum)


def _choice(kind: type[_Choice], key: str, value: str) -> _Choice:
    try:
        return kind(value)
    except ValueError as error:
        known = ", ".join(kind)
        raise BadArgument(f"“{safe_text(value, 80)}” is no {key} of a relay: {known}") from error
