"""The policy of a relay: the extensions that it offers, the logins that it accepts, its limits.

A SASL mechanism yields each challenge, is sent each response, and returns the user name that it received and whether
the secret was right.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from asyncsmtp.testing.received import AuthAttempt

__all__ = ["DEFAULT_MECHANISMS", "MECHANISMS", "OFFERS", "MechanismFactory", "Policy", "ServerLogin", "ServerScram"]

LoginResult: TypeAlias = tuple[str | None, bool]
SaslExchange: TypeAlias = Generator[bytes, bytes, LoginResult]

_CLIENT_FIRST: Final = re.compile(rb"((?:n|y|p=([a-z-]+)),(?:a=[^,]*)?,)(n=([^,]+),r=([^,]+))")
_CLIENT_FINAL: Final = re.compile(rb"(c=([^,]+),r=([^,]+)),p=([^,]+)")


@dataclass(frozen=True, slots=True)
class ServerScram:
    """The server side of SCRAM, for `ScriptedRelay(mechanisms={"SCRAM-SHA-256": ServerScram("sha256")})`.

    Attributes:
        algorithm: a name of `hashlib`.
        binding: the tls-server-end-point of the relay: the hash of its certificate. With it, a client that could bind
            and does not is refused; without it, one that binds is.
        nonce: the server's part.
        alter_challenge: changes each challenge, for a malicious server.
        skips_proof: reply 235 to the client's proof at once, whatever it is.
    """

    algorithm: str
    binding: bytes | None = None
    salt: bytes = b"a salt for tests"
    iterations: int = 4096
    nonce: bytes = b"%the-server-s-part"
    alter_challenge: Callable[[bytes], bytes] = bytes  # unchanged
    skips_proof: bool = False

    def __call__(self, users: Mapping[str, str]) -> SaslExchange:
        first = _CLIENT_FIRST.fullmatch((yield b""))
        if first is None:
            return None, False
        header, bound, bare, name, nonce = first.groups()
        user = name.replace(b"=2C", b",").replace(b"=3D", b"=").decode("utf-8", "backslashreplace")
        server_first = b"r=%s%s,s=%s,i=%d" % (nonce, self.nonce, b64encode(self.salt), self.iterations)
        final = _CLIENT_FINAL.fullmatch((yield self.alter_challenge(server_first)))
        if self.skips_proof:
            return user, True
        if final is None or user not in users or not self._is_binding_valid(header, bound, final[2]):
            return user, False
        password = users[user].encode("utf-8")
        proof, signature = self._compute_proof(password, b",".join((bare, server_first, final[1])))
        if final[3] != nonce + self.nonce or not hmac.compare_digest(b64decode(final[4]), proof):
            return user, False
        yield self.alter_challenge(b"v=" + b64encode(signature))
        return user, True

    def _is_binding_valid(self, header: bytes, kind: bytes | None, sent: bytes) -> bool:
        if kind is None:
            return b64decode(sent) == header and (header[:1] == b"n" or self.binding is None)
        return kind == b"tls-server-end-point" and b64decode(sent) == header + (self.binding or b"?")

    def _compute_proof(self, password: bytes, message: bytes) -> tuple[bytes, bytes]:
        """Return the client's proof and the server's signature (RFC 5802 §3)."""
        salted = hashlib.pbkdf2_hmac(self.algorithm, password, self.salt, self.iterations)
        key = hmac.digest(salted, b"Client Key", self.algorithm)
        mask = hmac.digest(hashlib.new(self.algorithm, key).digest(), message, self.algorithm)
        proof = bytes(a ^ b for a, b in zip(key, mask, strict=True))
        return proof, hmac.digest(hmac.digest(salted, b"Server Key", self.algorithm), message, self.algorithm)


Users: TypeAlias = Mapping[str, str]
MechanismFactory: TypeAlias = Callable[[Users], SaslExchange]


def _check_secret(users: Users, user: bytes, secret: bytes) -> LoginResult:
    name = user.decode("utf-8", "backslashreplace")
    return name, name in users and hmac.compare_digest(users[name].encode("utf-8"), secret)


def _plain(users: Users) -> SaslExchange:
    """Run PLAIN (RFC 4616)."""
    parts = (yield b"").split(b"\0")
    if len(parts) != 3:
        return None, False
    return _check_secret(users, parts[1], parts[2])


def _login(users: Users) -> SaslExchange:
    """Run LOGIN (draft-murchison-sasl-login); the user name may come as the initial response."""
    user = yield b"Username:"
    secret = yield b"Password:"
    return _check_secret(users, user, secret)


def _bearer(pattern: bytes, failure: Mapping[str, str]) -> MechanismFactory:
    """Return the exchange of an OAuth mechanism: a refusal is a challenge first, whose answer means nothing."""
    message = re.compile(pattern, re.IGNORECASE)

    def exchange(users: Users) -> SaslExchange:
        match = message.fullmatch((yield b""))
        result = _check_secret(users, match[1], match[2]) if match else (None, False)
        if not result[1]:
            yield json.dumps(failure).encode("ascii")
        return result

    return exchange


_xoauth2 = _bearer(  # as documented by Google and Microsoft
    rb"user=([^\x01]*)\x01auth=Bearer ([^\x01]*)\x01\x01", {"status": "401", "schemes": "bearer", "scope": "mail"}
)
_oauthbearer = _bearer(  # RFC 7628
    rb"n,a=([^,\x01]*),(?:\x01[a-z]+=[^\x01]*)*\x01auth=Bearer ([^\x01]*)\x01\x01",
    {"status": "invalid_token", "scope": "mail"},
)


def _cram_md5(users: Users) -> SaslExchange:
    """Run CRAM-MD5 (RFC 2195); the challenge is always the same."""
    challenge = b"<1896.697170952@relay.example>"
    user, _, digest = (yield challenge).rpartition(b" ")
    name = user.decode("utf-8", "backslashreplace")
    expected = hmac.digest(users.get(name, "").encode("utf-8"), challenge, "md5").hex().encode("ascii")
    return name, name in users and hmac.compare_digest(digest, expected)


def _external(users: Users) -> SaslExchange:
    """Run EXTERNAL (RFC 4422, Appendix A): the client may act as any user; TLS has authenticated it."""
    name = (yield b"").decode("utf-8", "backslashreplace")
    return name, not name or name in users


DEFAULT_MECHANISMS: Final[Mapping[str, MechanismFactory]] = {"PLAIN": _plain, "LOGIN": _login, "XOAUTH2": _xoauth2}
MECHANISMS: Final[Mapping[str, MechanismFactory]] = {
    **DEFAULT_MECHANISMS,
    "OAUTHBEARER": _oauthbearer,
    "CRAM-MD5": _cram_md5,
    "EXTERNAL": _external,
    "SCRAM-SHA-1": ServerScram("sha1"),
    "SCRAM-SHA-256": ServerScram("sha256"),
    "SCRAM-SHA-512": ServerScram("sha512"),
}


class ServerLogin:
    """One AUTH command and its responses, up to the final reply.

    Args:
        offered: the server side of each mechanism that is offered; None if it is offered but does not work.
    """

    def __init__(self, argument: bytes, users: Users, offered: Mapping[str, MechanismFactory | None]) -> None:
        words = argument.decode("ascii", "backslashreplace").split(" ")
        self.mechanism = words[0].upper()
        self.responses: list[bytes] = []
        self.user: str | None = None
        self._users = users
        self._offered = offered
        self._initial = words[1:]
        self._exchange: SaslExchange | None = None

    def begin(self) -> str:
        """Return the reply to the AUTH command itself."""
        if not self.mechanism or len(self._initial) > 1:
            return "501 5.5.4 AUTH takes a mechanism and an initial response"
        begin = self._offered.get(self.mechanism)
        if begin is None:
            return "504 5.5.4 mechanism not offered"
        self._exchange = begin(self._users)
        challenge = next(self._exchange)
        return self.respond(self._initial[0].encode()) if self._initial else _challenge(challenge)

    def respond(self, line: bytes) -> str:
        """Return the reply to one response, `*` included; `=` is an empty initial response (RFC 4954 §4)."""
        if line == b"*":
            return "501 5.0.0 cancelled"
        try:
            self.responses.append(b64decode(b"" if line == b"=" else line, validate=True))
        except ValueError:
            return "501 5.5.2 not base64"
        if self._exchange is None:
            return "535 5.7.8 no exchange in progress"
        try:
            return _challenge(self._exchange.send(self.responses[-1]))
        except StopIteration as end:
            self.user, right = end.value
        return "235 2.7.0 welcome" if right else "535 5.7.8 user name and password do not match"

    def attempt(self, accepted: bool) -> AuthAttempt:
        return AuthAttempt(self.mechanism, tuple(self.responses), self.user, accepted)


def _challenge(octets: bytes) -> str:
    return f"334 {b64encode(octets).decode('ascii')}"


OFFERS: Final = ("PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")


@dataclass(frozen=True, slots=True)
class Policy:
    """The extensions, limits and demands of a relay; see the arguments of `ScriptedRelay`.

    Attributes:
        name: its host name, in the greeting and the reply to EHLO.
        hides: in upper case.
        starttls: true if it has a certificate to upgrade with.
        mechanisms: each with its server side; None is offered but does not work.
    """

    name: str = "relay.example"
    offers: tuple[str, ...] = OFFERS
    hides: frozenset[str] = frozenset()
    starttls: bool = False
    users: Mapping[str, str] = field(default_factory=dict)
    mechanisms: Mapping[str, MechanismFactory | None] = field(default_factory=lambda: DEFAULT_MECHANISMS)
    auth_needs_tls: bool = False
    needs_auth: bool = False
    needs_tls: bool = False
    max_size: int | None = 52_428_800
    lmtp: bool = False
    runs_refused_chunk: bool = False

    def keywords(self, *, tls: bool, user: str | None) -> list[str]:
        """Return the lines of the reply to EHLO after the first, in the current state."""
        lines = [*self.offers, "SIZE" if self.max_size is None else f"SIZE {self.max_size}"]
        if self.starttls and not tls:
            lines.append("STARTTLS")
        if self.users and user is None and (tls or not self.auth_needs_tls):
            lines.append(f"AUTH {' '.join(self.mechanisms)}")
        return [line for line in lines if line.split()[0].upper() not in self.hides]

    def supports(self, keyword: str) -> bool:
        """Tell if a parameter of this extension is accepted."""
        if keyword in ("SIZE", "AUTH"):
            return keyword == "SIZE" or bool(self.users)
        return any(line.split()[0].upper() == keyword for line in self.offers)
