"""The simple SASL mechanisms, the table of all of them, and the choice of one (RFC 4422, RFC 4954)."""

from __future__ import annotations

import hmac
import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from asyncsmtp.protocol.auth.credentials import (
    Bearer,
    Channel,
    Credentials,
    External,
    MechanismFailed,
    Password,
    SaslDialogue,
    Secret,
    encode_name,
    saslname,
)
from asyncsmtp.protocol.auth.scram import can_bind, can_prepare, scram
from asyncsmtp.protocol.replies import safe_text

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


def plain(credentials: Password, channel: Channel) -> SaslDialogue:
    """Run PLAIN (RFC 4616)."""
    authzid = encode_name(credentials.authzid, "identity to act as") if credentials.authzid else b""
    user = encode_name(credentials.username, "user name")
    message = b"\0".join((authzid, user, credentials.secret.encode("password")))
    challenge = yield message
    if challenge == b"":  # a server that ignored the initial response asks for it
        yield message


def login(credentials: Password, channel: Channel) -> SaslDialogue:
    """Run LOGIN (draft-murchison-sasl-login); its prompts differ between servers and are ignored."""
    user, password = encode_name(credentials.username, "user name"), credentials.secret.encode("password")
    yield None
    yield user
    yield password


def cram_md5(credentials: Password, channel: Channel) -> SaslDialogue:
    """Run CRAM-MD5 (RFC 2195); anyone who issues the challenge can guess the password offline afterwards."""
    user, password = encode_name(credentials.username, "user name"), credentials.secret.encode("password")
    challenge = yield None
    if not challenge:
        raise MechanismFailed("the challenge is empty")
    yield user + b" " + hmac.digest(password, challenge, "md5").hex().encode("ascii")


def external(credentials: External, channel: Channel) -> SaslDialogue:
    """Run EXTERNAL (RFC 4422, Appendix A): the certificate authenticates; only the identity to act as is sent."""
    authzid = encode_name(credentials.authzid, "identity to act as") if credentials.authzid else b""
    challenge = yield authzid
    if challenge == b"":
        yield authzid


def xoauth2(credentials: Bearer, channel: Channel) -> SaslDialogue:
    """Run XOAUTH2, as documented by Google and Microsoft."""
    user = encode_name(credentials.username, "user name")
    yield b"user=" + user + b"\x01auth=Bearer " + credentials.secret.encode("token") + b"\x01\x01"
    yield b""  # the challenge is the reason for the failure in JSON; the server sends 535 after an empty answer


def oauthbearer(credentials: Bearer, channel: Channel) -> SaslDialogue:
    """Run OAUTHBEARER (RFC 7628)."""
    words = [b"n,a=" + saslname(encode_name(credentials.username, "user name")) + b","]
    if channel.host:
        words += [b"host=" + channel.host.encode("utf-8"), b"port=%d" % channel.port]
    words += [b"auth=Bearer " + credentials.secret.encode("token"), b"", b""]
    yield b"\x01".join(words)
    yield b"\x01"  # §3.2.3: "the client MUST then send … %x01", and the server ends it


def oauth_error(challenge: bytes) -> str:
    """Return the status in the JSON challenge after a refused token; an empty string if there is none."""
    try:
        decoded = json.loads(challenge)
    except (ValueError, RecursionError):
        return ""
    status = decoded.get("status") if isinstance(decoded, dict) else None
    return f"the token's status: {safe_text(status, 80)}" if isinstance(status, str) and status else ""


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
