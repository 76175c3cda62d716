"""The server's side of SCRAM, honest or not (RFC 5802, RFC 7677, RFC 5929)."""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

__all__ = ["Scram"]

Verdict: TypeAlias = tuple[str | None, bool]
Exchange: TypeAlias = Generator[bytes, bytes, Verdict]

_CLIENT_FIRST: Final = re.compile(rb"((?:n|y|p=([a-z-]+)),(?:a=[^,]*)?,)(n=([^,]+),r=([^,]+))")
_CLIENT_FINAL: Final = re.compile(rb"(c=([^,]+),r=([^,]+)),p=([^,]+)")


def _unchanged(challenge: bytes) -> bytes:
    return challenge


@dataclass(frozen=True, slots=True)
class Scram:
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
