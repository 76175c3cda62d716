"""SCRAM: both sides prove that they know the password, and neither says it (RFC 5802, RFC 7677).

With -PLUS the proof covers the relay's certificate too, so that nobody in between can pass it on (RFC 5929).

The other types are out of reach or out of the question: tls-unique is not defined for TLS 1.3, and the standard
library exports no keying material for tls-exporter (RFC 9266).

RFC 8265 replaces it for new mechanisms: it keeps compatibility characters, which are folded here (`Ⅸ` is
`IX`), drops nothing, and has no rule for the direction of a password. SCRAM is defined with SASLprep.
What Unicode 3.2 did not know yet is let through unchanged, as RFC 8265 does: the RFC forbids it to who stores
a password, and a server that has stored one with an emoji has answered that question.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import stringprep
from base64 import b64decode, b64encode
from collections.abc import Callable
from unicodedata import ucd_3_2_0

from asyncsmtp.errors import InvalidArgument, LocalProtocolError
from asyncsmtp.protocol.auth.credentials import Channel, Password, octets
from asyncsmtp.protocol.auth.mechanisms import MechanismFailed, SaslDialogue, saslname

__all__ = [
    "ITERATIONS",
    "TLS_SERVER_END_POINT",
    "Unprepared",
    "binds",
    "preparable",
    "saslprep",
    "scram",
    "server_end_point",
]

TLS_SERVER_END_POINT = "tls-server-end-point"

_RSA = bytes.fromhex("2a864886f70d0101")  # 1.2.840.113549.1.1
_ECDSA = bytes.fromhex("2a8648ce3d04")  # 1.2.840.10045.4
_HASH = {  # of signature algorithms; RFC 5929: "if the hash function is MD5 or SHA-1, then use SHA-256"
    _RSA + b"\x04": "sha256",
    _RSA + b"\x05": "sha256",
    _RSA + b"\x0e": "sha224",
    _RSA + b"\x0b": "sha256",
    _RSA + b"\x0c": "sha384",
    _RSA + b"\x0d": "sha512",
    _ECDSA + b"\x01": "sha256",
    _ECDSA + b"\x03\x01": "sha224",
    _ECDSA + b"\x03\x02": "sha256",
    _ECDSA + b"\x03\x03": "sha384",
    _ECDSA + b"\x03\x04": "sha512",
}
_SEQUENCE, _OID = 0x30, 0x06


def server_end_point(certificate: bytes | None) -> bytes | None:
    """The binding of a certificate in DER.

    None without a certificate, and where the binding is not defined: the signature's algorithm names not one
    hash (Ed25519, RSASSA-PSS), is not known here, or cannot be found.
    """
    try:
        name = _HASH.get(_signature_algorithm(certificate or b""))
    except ValueError:
        return None
    return hashlib.new(name, certificate or b"").digest() if name else None


def _signature_algorithm(certificate: bytes) -> bytes:
    """The OID's octets: Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm, … } (RFC 5280 §4.1)."""
    fields, rest = _take(_SEQUENCE, certificate)
    if rest:
        raise ValueError("octets behind the certificate")
    _, fields = _take(_SEQUENCE, fields)
    algorithm, _ = _take(_SEQUENCE, fields)
    return _take(_OID, algorithm)[0]


def _take(tag: int, octets: bytes) -> tuple[bytes, bytes]:
    """The content of the first element, which has this tag, and what follows it; lengths as DER wants them."""
    if len(octets) < 2 or octets[0] != tag:
        raise ValueError("another element is due")
    begin, length = 2, octets[1]
    if length >= 0x80:
        begin += length - 0x80
        length = int.from_bytes(octets[2:begin], "big")
        if not 2 < begin <= 5 or length < 0x80 or octets[2] == 0:
            raise ValueError("a length that is not DER")
    if len(octets) < begin + length:
        raise ValueError("the element is cut off")
    return octets[begin : begin + length], octets[begin + length :]


_PROHIBITED = (  # RFC 4013 §2.3
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


class Unprepared(ValueError):
    """A text that SASLprep forbids; the error does not repeat it."""


def saslprep(text: str) -> str:
    """The text mapped, normalised and checked.

    Raises:
        Unprepared: nothing is left of it, a character is prohibited, or it mixes directions of writing.
    """
    prepared, fault = _prepare(text)
    del text  # so that a traceback with its variables does not show a password
    if fault:
        del prepared
        raise Unprepared(fault)
    return prepared


def _prepare(text: str) -> tuple[str, str]:
    """The prepared text and what is wrong with it."""
    if text.isascii() and text.isprintable() and text:
        return text, ""
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c))
    prepared = ucd_3_2_0.normalize("NFKC", mapped)
    if not prepared:
        return "", "nothing is left of it"
    if any(prohibited(c) for c in prepared for prohibited in _PROHIBITED):
        return "", "it has a control character, or another one that SASLprep prohibits"
    return prepared, _direction(prepared)


def _direction(text: str) -> str:
    """RFC 3454 §6: what is written from the right begins and ends so, and has nothing from the left inside."""
    if not any(stringprep.in_table_d1(c) for c in text):
        return ""
    if any(stringprep.in_table_d2(c) for c in text):
        return "it mixes directions of writing"
    ends = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return "" if ends else "it is written from the right, but does not begin and end so"


ITERATIONS = range(4_096, 1_000_001)  # RFC 7677 §4 gives the least; more than the most only costs us time

_FIRST = re.compile(rb"r=([\x21-\x2b\x2d-\x7e]+),s=([A-Za-z0-9+/]+={0,2}),i=([1-9][0-9]{0,9})(?:,[a-zA-Z]=[^,]+)*")
_FINAL = re.compile(rb"v=([A-Za-z0-9+/]+={0,2})(?:,[a-zA-Z]=[^,]+)*")
_ERRORS = frozenset(  # RFC 5802 §7, server-error-value; any other text may be an echo
    b"invalid-encoding extensions-not-supported invalid-proof channel-bindings-dont-match "
    b"server-does-support-channel-binding channel-binding-not-supported unsupported-channel-binding-type "
    b"unknown-user invalid-username-encoding no-resources other-error".split()
)
_NONCE = re.compile(r"[\x21-\x2b\x2d-\x7e]{16,}")


def scram(algorithm: str, *, plus: bool = False) -> Callable[[Password, Channel], SaslDialogue]:
    """The mechanism of this hash, with or without channel binding.

    The answer to the first challenge costs up to a second of computing, as the relay demands: it is not for an
    event loop's own thread.
    """

    def begin(credentials: Password, channel: Channel) -> SaslDialogue:
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
    return server_end_point(channel.certificate) is not None


def _gs2(credentials: Password, channel: Channel, *, plus: bool) -> tuple[bytes, bytes]:
    """The header of the first message, and the binding that stands behind it in the last one (RFC 5802 §6)."""
    authzid = b"a=" + saslname(octets(credentials.authzid, "identity to act as")) if credentials.authzid else b""
    binding = server_end_point(channel.certificate)
    if plus:
        if binding is None:
            raise LocalProtocolError("a -PLUS mechanism without a certificate to bind to")
        return b"p=" + TLS_SERVER_END_POINT.encode("ascii") + b"," + authzid + b",", binding
    could = binding is not None and not channel.plus  # `y`: we could, the relay says it cannot
    return (b"y," if could else b"n,") + authzid + b",", b""


def _scram(algorithm: str, gs2: tuple[bytes, bytes], credentials: Password, channel: Channel) -> SaslDialogue:
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
        raise InvalidArgument(
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
