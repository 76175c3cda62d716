"""Which SASL mechanism logs in with what (RFC 4422, RFC 4954)."""

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
from asyncsmtp.protocol.auth.scram import binds, preparable, scram

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
    "choose",
    "redacted",
]

PLUS = "-PLUS"  # how the names of mechanisms with channel binding end (RFC 5801 §3)


@dataclass(frozen=True, slots=True)
class Mechanism:
    """A mechanism's name, the kind of credentials it takes, and its dialogue.

    Attributes:
        fits: whether it can be spoken with these credentials on this channel.
        proved_by: how many challenges must have been answered before a 235 counts; the last had the relay's proof.
        reason: what a challenge says about a failure that follows it, for people.
        unasked: whether it is used without being named; CRAM-MD5 is not, being weak.
    """

    name: str
    takes: type[Password] | type[Bearer] | type[External]
    begin: Callable[[Credentials, Channel], SaslDialogue]
    fits: Callable[[Credentials, Channel], bool]
    proved_by: int = 0
    reason: Callable[[bytes], str] = lambda challenge: ""
    unasked: bool = True

    @property
    def plus(self) -> bool:
        """Whether it binds to the relay's certificate."""
        return self.name.endswith(PLUS)


_Kind = TypeVar("_Kind", Password, Bearer, External)


def _row(
    name: str,
    takes: type[_Kind],
    begin: Callable[[_Kind, Channel], SaslDialogue],
    *,
    fits: Callable[[_Kind, Channel], bool] = lambda credentials, channel: True,
    proved_by: int = 0,
    reason: Callable[[bytes], str] = lambda challenge: "",
    unasked: bool = True,
) -> Mechanism:
    """A row of the table, its functions taking their own kind of credentials."""

    def begin_with(credentials: Credentials, channel: Channel) -> SaslDialogue:
        assert isinstance(credentials, takes)
        return begin(credentials, channel)

    def fits_with(credentials: Credentials, channel: Channel) -> bool:
        return isinstance(credentials, takes) and fits(credentials, channel)

    return Mechanism(name, takes, begin_with, fits_with, proved_by, reason, unasked)


def _scram(name: str, algorithm: str, *, plus: bool = False) -> Mechanism:
    def fits(credentials: Password, channel: Channel) -> bool:
        return preparable(credentials) and (binds(channel) or not plus)

    return _row(name, Password, scram(algorithm, plus=plus), fits=fits, proved_by=2)


MECHANISMS = (  # in order of preference
    _row("OAUTHBEARER", Bearer, oauthbearer, reason=oauth_error),
    _row("XOAUTH2", Bearer, xoauth2, reason=oauth_error),
    _row("EXTERNAL", External, external),
    _scram("SCRAM-SHA-512-PLUS", "sha512", plus=True),
    _scram("SCRAM-SHA-256-PLUS", "sha256", plus=True),
    _scram("SCRAM-SHA-1-PLUS", "sha1", plus=True),
    _scram("SCRAM-SHA-512", "sha512"),
    _scram("SCRAM-SHA-256", "sha256"),
    _scram("SCRAM-SHA-1", "sha1"),
    _row("PLAIN", Password, plain),
    _row("LOGIN", Password, login),
    _row("CRAM-MD5", Password, cram_md5, unasked=False),
)
NAMES = tuple(mechanism.name for mechanism in MECHANISMS)


def choose(
    credentials: Credentials, offered: Iterable[str], channel: Channel, wanted: Sequence[str] = ()
) -> tuple[Mechanism, ...]:
    """The mechanisms that fit the credentials and are offered, the preferred one first.

    Args:
        wanted: only these, in this order; without any, all but what must be asked for.
    """
    names = frozenset(offered)
    listed = [m for name in wanted for m in MECHANISMS if m.name == name] or [m for m in MECHANISMS if m.unasked]
    return tuple(m for m in listed if m.name in names and m.fits(credentials, channel))


def redacted(credentials: Credentials, channel: Channel) -> tuple[bytes, ...]:
    """What no log may show: the secret, and what mechanisms make of it in base64; a longer one first.

    Raises:
        InvalidArgument: the credentials would break a mechanism's frame.
    """
    if isinstance(credentials, External):
        return ()
    name, secret = credentials.username, credentials.secret
    password = credentials if isinstance(credentials, Password) else Password(name, secret)
    token = Bearer(name, secret)
    said = [next(plain(password, channel)), next(xoauth2(token, channel)), next(oauthbearer(token, channel))]
    octets = secret.octets("password or token")
    encoded = (b64encode(form).rstrip(b"=") for form in (octets, *filter(None, said)))
    return tuple(sorted({octets, *encoded}, key=len, reverse=True))
