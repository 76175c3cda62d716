"""SCRAM: both sides prove that they know the password, and neither says it (RFC 5802, RFC 7677).

With -PLUS the proof covers the relay's certificate too, so that nobody in between can pass it on (RFC 5929).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Callable

from asyncsmtp.errors import BadArgument, LocalProtocolError
from asyncsmtp.protocol.binding import NAME, end_point
from asyncsmtp.protocol.credentials import Channel, Password, octets
from asyncsmtp.protocol.mechanisms import Dialogue, MechanismFailed, saslname
from asyncsmtp.protocol.saslprep import Unprepared, saslprep

__all__ = ["ITERATIONS", "binds", "preparable", "scram"]

ITERATIONS = range(4_096, 1_000_001)  # RFC 7677 §4 gives the least; more than the most only costs us time

_FIRST = re.compile(rb"r=([\x21-\x2b\x2d-\x7e]+),s=([A-Za-z0-9+/]+={0,2}),i=([1-9][0-9]{0,9})(?:,[a-zA-Z]=[^,]+)*")
_FINAL = re.compile(rb"v=([A-Za-z0-9+/]+={0,2})(?:,[a-zA-Z]=[^,]+)*")
_ERRORS = frozenset(  # RFC 5802 §7, server-error-value; any other text may be an echo
    b"invalid-encoding extensions-not-supported invalid-proof channel-bindings-dont-match "
    b"server-does-support-channel-binding channel-binding-not-supported unsupported-channel-binding-type "
    b"unknown-user invalid-username-encoding no-resources other-error".split()
)
_NONCE = re.compile(r"[\x21-\x2b\x2d-\x7e]{16,}")


def scram(algorithm: str, *, plus: bool = False) -> Callable[[Password, Channel], Dialogue]:
    """The mechanism of this hash, with or without channel binding.

    The answer to the first challenge costs up to a second of computing, as the relay demands: it is not for an
    event loop's own thread.
    """

    def begin(credentials: Password, channel: Channel) -> Dialogue:
        return _scram(algorithm, _gs2(credentials, channel, plus=plus), credentials, channel)

    return begin


def preparable(credentials: Password) -> bool:
    """Whether user name and password are texts that SCRAM can compute with (RFC 4013)."""
    try:
        saslprep(credentials.username)
        saslprep(credentials.secret.reveal())
    except Unprepared:
        return False
    return True


def binds(channel: Channel) -> bool:
    """Whether a proof can cover the relay's certificate."""
    return end_point(channel.certificate) is not None


def _gs2(credentials: Password, channel: Channel, *, plus: bool) -> tuple[bytes, bytes]:
    """The header of the first message, and the binding that stands behind it in the last one (RFC 5802 §6)."""
    authzid = b"a=" + saslname(octets(credentials.authzid, "identity to act as")) if credentials.authzid else b""
    binding = end_point(channel.certificate)
    if plus:
        if binding is None:
            raise LocalProtocolError("a -PLUS mechanism without a certificate to bind to")
        return b"p=" + NAME.encode("ascii") + b"," + authzid + b",", binding
    could = binding is not None and not channel.plus  # `y`: we could, the relay says it cannot
    return (b"y," if could else b"n,") + authzid + b",", b""


def _scram(algorithm: str, gs2: tuple[bytes, bytes], credentials: Password, channel: Channel) -> Dialogue:
    if not _NONCE.fullmatch(channel.nonce):
        raise LocalProtocolError("SCRAM needs a nonce of 16 characters or more")
    password = _prepared(credentials)
    header, binding = gs2
    user = saslname(saslprep(credentials.username).encode("utf-8"))
    bare = b"n=" + user + b",r=" + channel.nonce.encode("ascii")
    first = yield header + bare
    nonce, salt, iterations = _read_first(first, channel.nonce.encode("ascii"))
    final = b"c=" + b64encode(header + binding) + b",r=" + nonce
    proof, expected = _prove(algorithm, password, salt, iterations, b",".join((bare, first, final)))
    _verify((yield final + b",p=" + b64encode(proof)), expected)
    yield b""


def _prepared(credentials: Password) -> bytes:
    octets(credentials.username, "user name")
    credentials.secret.octets("password")
    if not preparable(credentials):
        raise BadArgument(
            "the user name or the password has characters that SCRAM cannot compute with (RFC 4013): nothing was sent"
        )
    return saslprep(credentials.secret.reveal()).encode("utf-8")


def _read_first(challenge: bytes, ours: bytes) -> tuple[bytes, bytes, int]:
    """Nonce, salt and iterations of the server's first message."""
    _raise_error(challenge)
    if challenge.startswith(b"m="):
        raise MechanismFailed("it demands an extension of SCRAM that is not known")
    match = _FIRST.fullmatch(challenge)
    if match is None:
        raise MechanismFailed("its first message is not SCRAM")
    nonce, salt, iterations = match[1], _decode(match[2]), int(match[3])
    if not nonce.startswith(ours) or nonce == ours:
        raise MechanismFailed("its nonce does not continue ours: someone may be replaying a login")
    if iterations not in ITERATIONS:
        raise MechanismFailed(
            f"it asks for {iterations} iterations; from {ITERATIONS.start} to {ITERATIONS.stop - 1} are safe"
        )
    return nonce, salt, iterations


def _prove(algorithm: str, password: bytes, salt: bytes, iterations: int, message: bytes) -> tuple[bytes, bytes]:
    """Our proof, and the signature that the relay must show (RFC 5802 §3)."""
    salted = hashlib.pbkdf2_hmac(algorithm, password, salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", algorithm)
    signature = hmac.digest(hashlib.new(algorithm, client_key).digest(), message, algorithm)
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    return proof, hmac.digest(hmac.digest(salted, b"Server Key", algorithm), message, algorithm)


def _verify(challenge: bytes, expected: bytes) -> None:
    _raise_error(challenge)
    match = _FINAL.fullmatch(challenge)
    if match is None or not hmac.compare_digest(_decode(match[1]), expected):
        raise MechanismFailed("it did not prove that it knows the password: it may be an impostor")


def _raise_error(challenge: bytes) -> None:
    if challenge.startswith(b"e="):
        error = challenge[2:].split(b",")[0]
        raise MechanismFailed(f"it says {error.decode('ascii') if error in _ERRORS else 'an unknown error'}")


def _decode(text: bytes) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise MechanismFailed("its message is not base64 where it must be") from None
