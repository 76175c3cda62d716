"""Who logs in, and with what."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from asyncsmtp.errors import InvalidArgument
from asyncsmtp.protocol.auth.credentials import Secret
from asyncsmtp.protocol.auth.sasl import NAMES
from asyncsmtp.protocol.replies import safe_text

__all__ = ["ClientCertificate", "Login", "Token", "TokenSource", "normal_fingerprint"]


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """Our own certificate, shown to a relay that asks for one (RFC 8446 §4.3.2).

    Attributes:
        file: in PEM, the certificate first and what it is signed by behind it.
        key: its private key in PEM; None where that is in `file` too.
        passphrase: of the key, where it is encrypted.
    """

    file: Path
    key: Path | None = None
    passphrase: Secret | None = None


_SHA_256 = re.compile(r"[0-9a-f]{64}")


def normal_fingerprint(text: str) -> str:
    """A SHA-256 fingerprint as 64 small hex digits; it may come with colons and capitals, as OpenSSL prints it.

    Raises:
        InvalidArgument: it is none.
    """
    digits = text.strip().replace(":", "").lower()
    if not _SHA_256.fullmatch(digits):
        raise InvalidArgument(
            f"“{safe_text(text, 80)}” is no SHA-256 fingerprint of a certificate: 64 hex digits, "
            "as `asyncsmtp check` and `openssl x509 -noout -fingerprint -sha256` print them"
        )
    return digits


@dataclass(frozen=True, slots=True)
class Token:
    """An OAuth 2.0 access token, and for how many seconds from now it is good."""

    secret: Secret
    expires_in: float


TokenSource = Callable[[], Awaitable[str | Token]]
"""Fetches an access token, by a refresh token or however its owner likes; what it raises ends the login.

It is called when there is no token yet, when the one there is has a minute left (five minutes after it came, if it is
a bare text), and once more when a relay refuses it; never twice at a time by the sessions of a pool.
"""

_EXTERNAL = ("EXTERNAL",)


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in: a user with a password or with access tokens, or whoever the TLS client certificate names.

    Attributes:
        authzid: the identity to act as, where that is not the user's own.
        mechanisms: the only SASL mechanisms that may be used, in this order. Without any, the safest that the relay
            offers is used, and CRAM-MD5 not at all: it must be asked for here.
    """

    username: str = ""
    password: Secret | None = None
    token: TokenSource | None = field(default=None, repr=False)
    authzid: str = ""
    mechanisms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.mechanisms) - set(NAMES)):
            raise InvalidArgument(f"“{safe_text(unknown[0], 80)}” is no mechanism known here: {', '.join(NAMES)}")
        if self.mechanisms == _EXTERNAL:
            if self.username or self.password is not None or self.token is not None:
                raise InvalidArgument(
                    "a login by EXTERNAL has no user name, password or token: the certificate says who"
                )
            return
        if not self.username:
            raise InvalidArgument("a login needs a user name")
        if (self.password is None) == (self.token is None):
            raise InvalidArgument("a login has either a password or a token source")

    @classmethod
    def by_certificate(cls, authzid: str = "") -> Login:
        """Log in as whom the client certificate names (EXTERNAL); the relay's settings have it."""
        return cls(authzid=authzid, mechanisms=_EXTERNAL)
