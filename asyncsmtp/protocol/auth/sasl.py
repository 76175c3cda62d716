"""The table of SASL mechanisms, and the choice of one for given credentials (RFC 4422, RFC 4954)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from asyncsmtp.protocol.auth.credentials import Bearer, Channel, Credentials, External, Password, Secret
from asyncsmtp.protocol.auth.mechanisms import (
    MechanismFailed,
    SaslDialogue,
    cram_md5,
    external,
    login,
    oauth_error,
    oauthbearer,
    plain,
    xoauth2,
)
from asyncsmtp.protocol.auth.scram import can_bind, can_prepare, scram

__all__ = [
    "MECHANISMS",
    "NAMES",
    "PLUS",
    "Bearer",
    "Channel",
    "Credentials",
    "External",
    "Mechanism",
    "MechanismFailed",
    "Password",
    "SaslDialogue",
    "Secret",
    "choose_mechanisms",
    "redacted",
]

PLUS = "-PLUS"  # suffix of the names of mechanisms with channel binding (RFC 5801 §3)


@dataclass(frozen=True, slots=True)
class Mechanism:
    """A mechanism: its name, the type of credentials that it uses, and its exchange.

    Attributes:
        is_usable: tells if it can be used with these credentials on this channel.
        min_challenges: challenges that must have been answered before a 235 counts; the last one has the relay's proof.
        failure_reason: extracts from a challenge the reason of a following failure, for people.
        is_default: true if it is used without being named; CRAM-MD5 is not, being weak.
    """

    name: str
    credentials_type: type[Password] | type[Bearer] | type[External]
    begin: Callable[[Credentials, Channel], SaslDialogue]
    is_usable: Callable[[Credentials, Channel], bool]
    min_challenges: int = 0
    failure_reason: Callable[[bytes], str] = lambda challenge: ""
    is_default: bool = True

    @property
    def plus(self) -> bool:
        """True if it binds to the relay's certificate."""
        return self.name.endswith(PLUS)


_CredentialsT = TypeVar("_CredentialsT", Password, Bearer, External)


def _row(
    name: str,
    credentials_type: type[_CredentialsT],
    begin: Callable[[_CredentialsT, Channel], SaslDialogue],
    *,
    is_usable: Callable[[_CredentialsT, Channel], bool] = lambda credentials, channel: True,
    min_challenges: int = 0,
    failure_reason: Callable[[bytes], str] = lambda challenge: "",
    is_default: bool = True,
) -> Mechanism:
    """Make a row of the table from functions that take their own type of credentials."""

    def begin_with(credentials: Credentials, channel: Channel) -> SaslDialogue:
        assert isinstance(credentials, credentials_type)
        return begin(credentials, channel)

    def is_usable_with(credentials: Credentials, channel: Channel) -> bool:
        return isinstance(credentials, credentials_type) and is_usable(credentials, channel)

    return Mechanism(name, credentials_type, begin_with, is_usable_with, min_challenges, failure_reason, is_default)


def _scram(name: str, algorithm: str, *, plus: bool = False) -> Mechanism:
    def is_usable(credentials: Password, channel: Channel) -> bool:
        return can_prepare(credentials) and (can_bind(channel) or not plus)

    return _row(name, Password, scram(algorithm, plus=plus), is_usable=is_usable, min_challenges=2)


MECHANISMS = (  # in order of preference
    _row("OAUTHBEARER", Bearer, oauthbearer, failure_reason=oauth_error),
    _row("XOAUTH2", Bearer, xoauth2, failure_reason=oauth_error),
    _row("EXTERNAL", External, external),
    _scram("SCRAM-SHA-512-PLUS", "sha512", plus=True),
    _scram("SCRAM-SHA-256-PLUS", "sha256", plus=True),
    _scram("SCRAM-SHA-1-PLUS", "sha1", plus=True),
    _scram("SCRAM-SHA-512", "sha512"),
    _scram("SCRAM-SHA-256", "sha256"),
    _scram("SCRAM-SHA-1", "sha1"),
    _row("PLAIN", Password, plain),
    _row("LOGIN", Password, login),
    _row("CRAM-MD5", Password, cram_md5, is_default=False),
)
NAMES = tuple(mechanism.name for mechanism in MECHANISMS)


def choose_mechanisms(
    credentials: Credentials, offered: Iterable[str], channel: Channel, wanted: Sequence[str] = ()
) -> tuple[Mechanism, ...]:
    """Return the mechanisms that are offered and can use the credentials, the preferred one first.

    Args:
        wanted: only these, in this order; if empty, all default ones.
    """
    names = frozenset(offered)
    listed = [m for name in wanted for m in MECHANISMS if m.name == name] or [m for m in MECHANISMS if m.is_default]
    return tuple(m for m in listed if m.name in names and m.is_usable(credentials, channel))


def redacted(credentials: Credentials, channel: Channel) -> tuple[bytes, ...]:
    """Return the byte strings that no log may show, longer ones first: the secret, and its base64 in all mechanisms.

    Raises:
        InvalidArgument: the credentials contain a character that a mechanism cannot send.
    """
    if isinstance(credentials, External):
        return ()
    name, secret = credentials.username, credentials.secret
    password = credentials if isinstance(credentials, Password) else Password(name, secret)
    token = Bearer(name, secret)
    messages = [next(plain(password, channel)), next(xoauth2(token, channel)), next(oauthbearer(token, channel))]
    octets = secret.encode("password or token")
    encoded = (b64encode(form).rstrip(b"=") for form in (octets, *filter(None, messages)))
    return tuple(sorted({octets, *encoded}, key=len, reverse=True))
