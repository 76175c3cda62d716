"""Who logs in, and with what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from asyncsmtp.errors import BadArgument
from asyncsmtp.protocol.replies import safe_text
from asyncsmtp.protocol.sasl import NAMES, Secret

__all__ = ["Login", "Token", "TokenSource"]


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
            raise BadArgument(f"“{safe_text(unknown[0], 80)}” is no mechanism known here: {', '.join(NAMES)}")
        if self.mechanisms == _EXTERNAL:
            if self.username or self.password is not None or self.token is not None:
                raise BadArgument("a login by EXTERNAL has no user name, password or token: the certificate says who")
            return
        if not self.username:
            raise BadArgument("a login needs a user name")
        if (self.password is None) == (self.token is None):
            raise BadArgument("a login has either a password or a token source")

    @classmethod
    def by_certificate(cls, authzid: str = "") -> Login:
        """Log in as whom the client certificate names (EXTERNAL); the relay's settings have it."""
        return cls(authzid=authzid, mechanisms=_EXTERNAL)
