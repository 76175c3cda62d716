"""Credentials for a relay: passwords, access tokens and client certificates."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from asyncsmtp.errors import InvalidArgument, check_type
from asyncsmtp.protocol.auth.auth import NAMES
from asyncsmtp.protocol.auth.credentials import Secret
from asyncsmtp.protocol.replies import safe_text

__all__ = ["ClientCertificate", "Login", "Token", "TokenSource", "normalize_fingerprint"]


@dataclass(frozen=True, slots=True, init=False)
class ClientCertificate:
    """A TLS client certificate, sent to a relay that asks for one (RFC 8446 §4.3.2).

    Args:
        file: a PEM file: the certificate first, then its intermediate certificates.
        key: the PEM file of the private key; None if the key is in `file`.
        passphrase: of the key, if the key is encrypted.
    """

    file: Path
    key: Path | None
    passphrase: Secret | None

    def __init__(self, file: str | Path, key: str | Path | None = None, passphrase: str | Secret | None = None) -> None:
        check_type("file", file, str, Path)
        check_type("key", key, str, Path, None)
        object.__setattr__(self, "file", Path(file))
        object.__setattr__(self, "key", None if key is None else Path(key))
        object.__setattr__(self, "passphrase", _to_secret("passphrase", passphrase))


_SHA_256 = re.compile(r"[0-9a-f]{64}")


def normalize_fingerprint(text: str) -> str:
    """Return a SHA-256 fingerprint as 64 lower-case hex digits; colons and capitals, as OpenSSL prints them, are fine.

    Raises:
        InvalidArgument: `text` is not a fingerprint.
    """
    digits = text.strip().replace(":", "").lower()
    if not _SHA_256.fullmatch(digits):
        raise InvalidArgument(
            f"“{safe_text(text, 80)}” is not a SHA-256 fingerprint of a certificate: give 64 hex digits, "
            "as `asyncsmtp check` and `openssl x509 -noout -fingerprint -sha256` print them"
        )
    return digits


@dataclass(frozen=True, slots=True)
class Token:
    """An OAuth 2.0 access token that expires in `expires_in` seconds from now."""

    secret: Secret
    expires_in: float


TokenSource = Callable[[], Awaitable[str | Token]]
"""An async function that returns an access token; an exception from it ends the login.

It is called when there is no token yet, one minute before the token expires (five minutes after it was fetched if it is
a plain string), and once more after a relay refuses it; never twice at a time by the sessions of one pool.
"""


@dataclass(frozen=True, slots=True)
class _FixedToken:
    """A token source for a token given as a string, which is valid until a relay refuses it."""

    secret: Secret

    async def __call__(self) -> Token:
        return Token(self.secret, inf)


_EXTERNAL = ("EXTERNAL",)


@dataclass(frozen=True, slots=True, init=False)
class Login:
    """Credentials of a user: a password or access tokens, or the identity in the TLS client certificate.

        Login("ada", "secret")
        Login("ada@example.org", token=fetch_token)

    Args:
        password: a string or a `Secret`; stored as a `Secret`, which no repr or log shows.
        token: an access token as a string or `Secret`, or an async function that returns one (see `TokenSource`).
        authzid: the identity to act as, if it is not the user's own.
        mechanisms: the only SASL mechanisms that may be used, in order of preference. If empty, the safest that the
            relay offers is used, and CRAM-MD5 never: it must be named here.
    Raises:
        InvalidArgument: no user name, both or neither of password and token, or an unknown mechanism.
    """

    username: str
    password: Secret | None
    token: TokenSource | None = field(repr=False)
    authzid: str
    mechanisms: tuple[str, ...]

    def __init__(
        self,
        username: str = "",
        password: str | Secret | None = None,
        token: str | Secret | TokenSource | None = None,
        authzid: str = "",
        mechanisms: tuple[str, ...] = (),
    ) -> None:
        check_type("username", username, str)
        object.__setattr__(self, "username", username)
        object.__setattr__(self, "password", _to_secret("password", password))
        object.__setattr__(self, "token", _to_token_source(token))
        object.__setattr__(self, "authzid", authzid)
        object.__setattr__(self, "mechanisms", tuple(mechanisms))
        self._check()

    def _check(self) -> None:
        if unknown := sorted(set(self.mechanisms) - set(NAMES)):
            name = safe_text(unknown[0], 80)
            raise InvalidArgument(f"“{name}” is not a supported SASL mechanism: use {', '.join(NAMES)}")
        if self.mechanisms == _EXTERNAL:
            if self.username or self.password is not None or self.token is not None:
                raise InvalidArgument(
                    "a login by EXTERNAL takes no user name, password or token: the client certificate names the user"
                )
            return
        if not self.username:
            raise InvalidArgument("a login needs a user name: give username=")
        if (self.password is None) == (self.token is None):
            raise InvalidArgument("a login needs either a password or a token: give password= or token=")

    @classmethod
    def by_certificate(cls, authzid: str = "") -> Login:
        """Return a login as the user that the relay's `client_certificate` names (SASL EXTERNAL)."""
        return cls(authzid=authzid, mechanisms=_EXTERNAL)


def _to_secret(parameter: str, value: str | Secret | None) -> Secret | None:
    check_type(parameter, value, str, Secret, None)
    return Secret(value) if isinstance(value, str) else value


def _to_token_source(token: str | Secret | TokenSource | None) -> TokenSource | None:
    if isinstance(token, str | Secret):
        return _FixedToken(token if isinstance(token, Secret) else Secret(token))
    if token is not None and not callable(token):
        raise TypeError(f"token must be str, Secret or an async function, not {type(token).__name__}")
    return token
