"""What a relay offers and demands, as a value.

A mechanism yields each challenge, is sent each response, and returns the user name it heard and whether
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

__all__ = ["MECHANISMS", "OFFERS", "USUAL", "Begin", "Policy", "ServerLogin", "ServerScram"]

Verdict: TypeAlias = tuple[str | None, bool]
Exchange: TypeAlias = Generator[bytes, bytes, Verdict]

_CLIENT_FIRST: Final = re.compile(rb"((?:n|y|p=([a-z-]+)),(?:a=[^,]*)?,)(n=([^,]+),r=([^,]+))")
_CLIENT_FINAL: Final = re.compile(rb"(c=([^,]+),r=([^,]+)),p=([^,]+)")


def _unchanged(challenge: bytes) -> bytes:
    return challenge


@dataclass(frozen=True, slots=True)
class ServerScram:
    """A SCRAM mechanism for `ScriptedRelay(mechanisms={"SCRAM-SHA-256": Scram("sha256")})`.

    Attributes:
        algorithm: of `hashlib`.
        binding: what tls-server-end-point must be: the hash of the relay's certificate. With it a client that says
            it could bind, and does not, is refused; without it one that binds is.
        nonce: the server's part.
        twist: makes something else of each challenge, for a server that is up to no good.
        skips_proof: 235 follows the client's proof at once, whatever that is.
    """

    algorithm: str
    binding: bytes | None = None
    salt: bytes = b"a salt for tests"
    iterations: int = 4096
    nonce: bytes = b"%the-server-s-part"
    twist: Callable[[bytes], bytes] = _unchanged
    skips_proof: bool = False

    def __call__(self, users: Mapping[str, str]) -> Exchange:
        first = _CLIENT_FIRST.fullmatch((yield b""))
        if first is None:
            return None, False
        header, bound, bare, name, nonce = first.groups()
        user = name.replace(b"=2C", b",").replace(b"=3D", b"=").decode("utf-8", "backslashreplace")
        server_first = b"r=%s%s,s=%s,i=%d" % (nonce, self.nonce, b64encode(self.salt), self.iterations)
        final = _CLIENT_FINAL.fullmatch((yield self.twist(server_first)))
        if self.skips_proof:
            return user, True
        if final is None or user not in users or not self._bound(header, bound, final[2]):
            return user, False
        password = users[user].encode("utf-8")
        proof, signature = self._expected(password, b",".join((bare, server_first, final[1])))
        if final[3] != nonce + self.nonce or not hmac.compare_digest(b64decode(final[4]), proof):
            return user, False
        yield self.twist(b"v=" + b64encode(signature))
        return user, True

    def _bound(self, header: bytes, kind: bytes | None, sent: bytes) -> bool:
        if kind is None:
            return b64decode(sent) == header and (header[:1] == b"n" or self.binding is None)
        return kind == b"tls-server-end-point" and b64decode(sent) == header + (self.binding or b"?")

    def _expected(self, password: bytes, message: bytes) -> tuple[bytes, bytes]:
        """The client's proof and the server's signature (RFC 5802 §3)."""
        salted = hashlib.pbkdf2_hmac(self.algorithm, password, self.salt, self.iterations)
        key = hmac.digest(salted, b"Client Key", self.algorithm)
        mask = hmac.digest(hashlib.new(self.algorithm, key).digest(), message, self.algorithm)
        proof = bytes(a ^ b for a, b in zip(key, mask, strict=True))
        return proof, hmac.digest(hmac.digest(salted, b"Server Key", self.algorithm), message, self.algorithm)


Users: TypeAlias = Mapping[str, str]
Begin: TypeAlias = Callable[[Users], Exchange]


def _verdict(users: Users, user: bytes, secret: bytes) -> Verdict:
    name = user.decode("utf-8", "backslashreplace")
    return name, name in users and hmac.compare_digest(users[name].encode("utf-8"), secret)


def _plain(users: Users) -> Exchange:
    """RFC 4616."""
    parts = (yield b"").split(b"\0")
    if len(parts) != 3:
        return None, False
    return _verdict(users, parts[1], parts[2])


def _login(users: Users) -> Exchange:
    """draft-murchison-sasl-login; the user name may come as the initial response."""
    user = yield b"Username:"
    secret = yield b"Password:"
    return _verdict(users, user, secret)


_BEARER = re.compile(rb"user=([^\x01]*)\x01auth=Bearer ([^\x01]*)\x01\x01", re.IGNORECASE)


def _xoauth2(users: Users) -> Exchange:
    """As Google and Microsoft document it: a refusal comes as a challenge first, which takes an empty answer."""
    match = _BEARER.fullmatch((yield b""))
    verdict = _verdict(users, match[1], match[2]) if match else (None, False)
    if not verdict[1]:
        yield json.dumps({"status": "401", "schemes": "bearer", "scope": "mail"}).encode("ascii")
    return verdict


_OAUTHBEARER = re.compile(rb"n,a=([^,\x01]*),(?:\x01[a-z]+=[^\x01]*)*\x01auth=Bearer ([^\x01]*)\x01\x01", re.IGNORECASE)


def _oauthbearer(users: Users) -> Exchange:
    """RFC 7628: a refusal comes as a challenge first, which takes one octet of 0x01."""
    match = _OAUTHBEARER.fullmatch((yield b""))
    verdict = _verdict(users, match[1], match[2]) if match else (None, False)
    if not verdict[1]:
        yield json.dumps({"status": "invalid_token", "scope": "mail"}).encode("ascii")
    return verdict


def _cram_md5(users: Users) -> Exchange:
    """RFC 2195; the challenge is always the same."""
    challenge = b"<1896.697170952@relay.example>"
    user, _, digest = (yield challenge).rpartition(b" ")
    name = user.decode("utf-8", "backslashreplace")
    expected = hmac.digest(users.get(name, "").encode("utf-8"), challenge, "md5").hex().encode("ascii")
    return name, name in users and hmac.compare_digest(digest, expected)


def _external(users: Users) -> Exchange:
    """RFC 4422, Appendix A: whoever has come so far may act as any user, or as himself; TLS knows who that is."""
    name = (yield b"").decode("utf-8", "backslashreplace")
    return name, not name or name in users


USUAL: Final[Mapping[str, Begin]] = {
    "PLAIN": _plain,
    "LOGIN": _login,
    "XOAUTH2": _xoauth2,
}
MECHANISMS: Final[Mapping[str, Begin]] = {
    **USUAL,
    "OAUTHBEARER": _oauthbearer,
    "CRAM-MD5": _cram_md5,
    "EXTERNAL": _external,
    "SCRAM-SHA-1": ServerScram("sha1"),
    "SCRAM-SHA-256": ServerScram("sha256"),
    "SCRAM-SHA-512": ServerScram("sha512"),
}


class ServerLogin:
    """One AUTH command and the responses behind it, up to its last reply.

    Args:
        offered: the server's side of each mechanism that is offered; None where it is offered and not there.
    """

    def __init__(self, argument: bytes, users: Users, offered: Mapping[str, Begin | None]) -> None:
        words = argument.decode("ascii", "backslashreplace").split(" ")
        self.mechanism = words[0].upper()
        self.responses: list[bytes] = []
        self.user: str | None = None
        self._users = users
        self._offered = offered
        self._initial = words[1:]
        self._exchange: Exchange | None = None

    def begin(self) -> str:
        """The reply to the AUTH command itself."""
        if not self.mechanism or len(self._initial) > 1:
            return "501 5.5.4 AUTH takes a mechanism and an initial response"
        begin = self._offered.get(self.mechanism)
        if begin is None:
            return "504 5.5.4 mechanism not offered"
        self._exchange = begin(self._users)
        challenge = next(self._exchange)
        return self.respond(self._initial[0].encode()) if self._initial else _challenge(challenge)

    def respond(self, line: bytes) -> str:
        """The reply to one response, `*` included; `=` is an empty initial response (RFC 4954 §4)."""
        if line == b"*":
            return "501 5.0.0 cancelled"
        try:
            self.responses.append(b64decode(b"" if line == b"=" else line, validate=True))
        except ValueError:
            return "501 5.5.2 not base64"
        if self._exchange is None:
            return "535 5.7.8 no exchange under way"
        try:
            return _challenge(self._exchange.send(self.responses[-1]))
        except StopIteration as end:
            self.user, right = end.value
        return "235 2.7.0 welcome" if right else "535 5.7.8 user name and password do not fit"

    def attempt(self, accepted: bool) -> AuthAttempt:
        return AuthAttempt(self.mechanism, tuple(self.responses), self.user, accepted)


def _challenge(octets: bytes) -> str:
    return f"334 {b64encode(octets).decode('ascii')}"


OFFERS: Final = ("PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")


@dataclass(frozen=True, slots=True)
class Policy:
    """What a relay offers and demands.

    Attributes:
        name: its own, in the greeting and the reply to EHLO.
        offers: lines of the reply to EHLO, a keyword and its parameters each; SIZE, STARTTLS and AUTH are added.
        hides: keywords left out of that reply, although the relay obeys them (a stripped STARTTLS).
        starttls: whether it has a certificate to upgrade with.
        users: names and passwords, or tokens; AUTH is offered when there are any.
        mechanisms: those it offers, in its order, each with its side of the exchange; None is there in name only.
        auth_needs_tls: AUTH is neither offered nor taken in clear.
        needs_auth: MAIL is refused before a login; `needs_tls`: before TLS.
        max_size: octets of content it takes (RFC 1870); None takes any and says SIZE without a number.
        lmtp: speaks LMTP: LHLO, and one reply per recipient behind the content (RFC 2033).
        runs_refused_chunk: reads the chunk of a BDAT it refuses as commands, as go-smtp 0.21 does.
    """

    name: str = "relay.example"
    offers: tuple[str, ...] = OFFERS
    hides: frozenset[str] = frozenset()
    starttls: bool = False
    users: Mapping[str, str] = field(default_factory=dict)
    mechanisms: Mapping[str, Begin | None] = field(default_factory=lambda: USUAL)
    auth_needs_tls: bool = False
    needs_auth: bool = False
    needs_tls: bool = False
    max_size: int | None = 52_428_800
    lmtp: bool = False
    runs_refused_chunk: bool = False

    def keywords(self, *, tls: bool, user: str | None) -> list[str]:
        """The lines of the reply to EHLO behind the first, as things stand."""
        lines = [*self.offers, "SIZE" if self.max_size is None else f"SIZE {self.max_size}"]
        if self.starttls and not tls:
            lines.append("STARTTLS")
        if self.users and user is None and (tls or not self.auth_needs_tls):
            lines.append(f"AUTH {' '.join(self.mechanisms)}")
        return [line for line in lines if line.split()[0].upper() not in self.hides]

    def obeys(self, keyword: str) -> bool:
        """Whether a parameter of this extension is taken."""
        if keyword in ("SIZE", "AUTH"):
            return keyword == "SIZE" or bool(self.users)
        return any(line.split()[0].upper() == keyword for line in self.offers)
