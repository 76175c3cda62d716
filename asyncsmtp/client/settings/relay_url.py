"""A relay's URL, read into the settings of a Relay."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote

from asyncsmtp.client.settings.certificates import ClientCertificate
from asyncsmtp.client.settings.dialogue import Dialogue
from asyncsmtp.client.settings.hosts import host_and_port, split_url
from asyncsmtp.client.settings.login import Login, TokenSource
from asyncsmtp.client.settings.proxy import Proxy
from asyncsmtp.errors import BadArgument
from asyncsmtp.protocol.opening import Security
from asyncsmtp.protocol.replies import safe_text
from asyncsmtp.protocol.sasl import Secret

__all__ = ["settings_of"]

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
        BadArgument: with the part of the URL that is wrong. A password in the URL is refused.
    """
    parts = split_url(url)
    if parts.scheme not in _SCHEMES:
        raise BadArgument(f"“{safe_text(url, 80)}” is no relay: write smtp://host:587 or smtps://host")
    security, unix = _SCHEMES[parts.scheme], parts.scheme.endswith("+unix")
    if (parts.path.strip("/") and not unix) or parts.fragment:
        raise BadArgument(f"“{safe_text(parts.fragment or parts.path, 80)}” means nothing in a relay's URL")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := query.keys() - _QUERY:
        raise BadArgument(f"“{safe_text(min(unknown), 80)}” is no setting of a relay's URL")
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
        raise BadArgument(f"“{safe_text(url, 80)}” names no Unix socket: write lmtp+unix:///path/to/socket")
    return Path(unquote(parts.path))


def _hosts(url: str, parts: SplitResult) -> dict[str, Any]:
    """The first host with its port, and those that stand by for it."""
    named = parts.netloc.rpartition("@")[2]
    if not named:
        raise BadArgument(f"“{safe_text(url, 80)}” names no host: write smtp://host:587")
    first, *others = named.split(",")
    host, port = host_and_port(first)
    return {"host": host, "port": port, "standby": tuple(others)}


def _login(username: str, password: str | Secret | None, token: TokenSource | None, auth: str | None) -> Login | None:
    if not username:
        return Login.by_certificate() if auth is not None and auth.upper() == "EXTERNAL" else None
    if password is None and token is None:
        raise BadArgument(
            f"no password for “{safe_text(username, 80)}”: set ASYNCSMTP_PASSWORD or use --password-command"
        )
    mechanisms = tuple(auth.upper().split(",")) if auth is not None else ()
    return Login(username, Secret(password) if isinstance(password, str) else password, token, mechanisms=mechanisms)


def _certificate(query: Mapping[str, str], passphrase: str | Secret | None) -> ClientCertificate | None:
    if "client-cert" not in query:
        if "client-key" in query:
            raise BadArgument("a client-key needs its client-cert beside it in a relay's URL")
        return None
    certificate, key = _file("client-cert", query), _file("client-key", query)
    assert certificate is not None
    return ClientCertificate(certificate, key, Secret(passphrase) if isinstance(passphrase, str) else passphrase)


def _file(key: str, query: Mapping[str, str]) -> Path | None:
    if "\0" in (path := query.get(key, "")):
        raise BadArgument(f"“{safe_text(path, 80)}” is no path, which {key} in a relay's URL must be")
    return Path(path) if key in query else None


_Choice = TypeVar("_Choice", bound=StrEnum)


def _choice(kind: type[_Choice], key: str, value: str) -> _Choice:
    try:
        return kind(value)
    except ValueError as error:
        known = ", ".join(kind)
        raise BadArgument(f"“{safe_text(value, 80)}” is no {key} of a relay: {known}") from error


def _yes(key: str, value: str) -> bool:
    if value not in ("yes", "no"):
        raise BadArgument(f"“{safe_text(value, 80)}” is no {key} of a relay: yes, no")
    return value == "yes"
