"""The server's side of SASL, for tests: mechanisms as generators (RFC 4422, 4954).

A mechanism yields each challenge, is sent each response, and returns the user name it heard and whether
the secret was right.
"""

from __future__ import annotations

import hmac
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Generator, Mapping
from typing import Final, TypeAlias

from asyncsmtp.testing.received import AuthAttempt
from asyncsmtp.testing.scram import Scram

__all__ = ["MECHANISMS", "USUAL", "Begin", "Login"]

Verdict: TypeAlias = tuple[str | None, bool]
Exchange: TypeAlias = Generator[bytes, bytes, Verdict]
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
    "SCRAM-SHA-1": Scram("sha1"),
    "SCRAM-SHA-256": Scram("sha256"),
    "SCRAM-SHA-512": Scram("sha512"),
}


class Login:
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
