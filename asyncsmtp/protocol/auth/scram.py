"""SCRAM: both sides prove that they know the password without sending it (RFC 5802, RFC 7677).

With -PLUS the proof covers the relay's certificate too, so that nobody in between can relay the login (RFC 5929). Only
tls-server-end-point is supported: tls-unique is not defined for TLS 1.3, and the standard library does not export the
keying material for tls-exporter (RFC 9266).

Names and passwords are prepared with SASLprep (RFC 4013), as SCRAM is defined. RFC 8265 replaces it for new mechanisms,
but keeps compatibility characters that SASLprep folds (`Ⅸ` is `IX`), drops nothing, and has no rule for the direction
of a password. Characters that Unicode 3.2 did not know are passed unchanged, as in RFC 8265: RFC 4013 forbids them only
to those who store a password, and a server that has stored one with an emoji has answered that question.
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
from asyncsmtp.protocol.auth.credentials import Channel, MechanismFailed, Password, SaslDialogue, encode_name, saslname

__all__ = [
    "ALLOWED_ITERATIONS",
    "TLS_SERVER_END_POINT",
    "SaslprepError",
    "can_bind",
    "can_prepare",
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
    """Return the channel binding of a certificate in DER.

    None without a certificate, and if the binding is not defined: the signature algorithm does not name one hash
    (Ed25519, RSASSA-PSS), is unknown here, or cannot be found.
    """
    try:
        name = _HASH.get(_signature_algorithm(certificate or b""))
    except ValueError:
        return None
    return hashlib.new(name, certificate or b"").digest() if name else None


def _signature_algorithm(certificate: bytes) -> bytes:
    """Return the OID's bytes: Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm, … } (RFC 5280 §4.1)."""
    fields, rest = _take(_SEQUENCE, certificate)
    if rest:
        raise ValueError("trailing bytes after the certificate")
    _, fields = _take(_SEQUENCE, fields)
    algorithm, _ = _take(_SEQUENCE, fields)
    return _take(_OID, algorithm)[0]


def _take(tag: int, octets: bytes) -> tuple[bytes, bytes]:
    """Return the content of the first element, which must have this tag, and the rest; lengths as required by DER."""
    if len(octets) < 2 or octets[0] != tag:
        raise ValueError("unexpected element")
    begin, length = 2, octets[1]
    if length >= 0x80:
        begin += length - 0x80
        length = int.from_bytes(octets[2:begin], "big")
        if not 2 < begin <= 5 or length < 0x80 or octets[2] == 0:
            raise ValueError("a length that is not valid DER")
    if len(octets) < begin + length:
        raise ValueError("the element is truncated")
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


class SaslprepError(ValueError):
    """An error for a text that SASLprep forbids; it does not repeat the text."""


def saslprep(text: str) -> str:
    """Map, normalize and check a text (RFC 4013).

    Raises:
        SaslprepError: nothing is left, a character is prohibited, or it mixes directions of writing.
    """
    prepared, fault = _prepare(text)
    del text  # a traceback with local variables must not show a password
    if fault:
        del prepared
        raise SaslprepError(fault)
    return prepared


def _prepare(text: str) -> tuple[str, str]:
    """Return the prepared text and what is wrong with it."""
    if text.isascii() and text.isprintable() and text:
        return text, ""
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c))
    prepared = ucd_3_2_0.normalize("NFKC", mapped)
    if not prepared:
        return "", "nothing is left of it"
    if any(prohibited(c) for c in prepared for prohibited in _PROHIBITED):
        return "", "it has a control or another character that SASLprep prohibits"
    return prepared, _direction(prepared)


def _direction(text: str) -> str:
    """Check RFC 3454 §6: right-to-left text begins and ends right-to-left, with no left-to-right character in it."""
    if not any(stringprep.in_table_d1(c) for c in text):
        return ""
    if any(stringprep.in_table_d2(c) for c in text):
        return "it mixes directions of writing"
    ends = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return "" if ends else "it is right-to-left, but does not begin and end so"


# the minimum of RFC 7677 §4; a maximum, since the server decides how long the client computes
ALLOWED_ITERATIONS = range(4_096, 1_000_001)

_FIRST = re.compile(rb"r=([\x21-\x2b\x2d-\x7e]+),s=([A-Za-z0-9+/]+={0,2}),i=([1-9][0-9]{0,9})(?:,[a-zA-Z]=[^,]+)*")
_FINAL = re.compile(rb"v=([A-Za-z0-9+/]+={0,2})(?:,[a-zA-Z]=[^,]+)*")
_ERRORS = frozenset(  # RFC 5802 §7, server-error-value; any other text may echo a secret
    b"invalid-encoding extensions-not-supported invalid-proof channel-bindings-dont-match "
    b"server-does-support-channel-binding channel-binding-not-supported unsupported-channel-binding-type "
    b"unknown-user invalid-username-encoding no-resources other-error".split()
)
_NONCE = re.compile(r"[\x21-\x2b\x2d-\x7e]{16,}")


def scram(algorithm: str, *, plus: bool = False) -> Callable[[Password, Channel], SaslDialogue]:
    """Return the mechanism for this hash, with or without channel binding.

    Its answer to the first challenge may take a second of computing, as the relay demands: do not run it in the thread
    of an event loop.
    """

    def begin(credentials: Password, channel: Channel) -> SaslDialogue:
        return _scram(algorithm, _gs2(credentials, channel, plus=plus), credentials, channel)

    return begin


def can_prepare(credentials: Password) -> bool:
    """Tell if SASLprep allows the user name and the password, so that SCRAM can use them (RFC 4013)."""
    try:
        saslprep(credentials.username)
        saslprep(credentials.secret.reveal())
    except SaslprepError:
        return False
    return True


def can_bind(channel: Channel) -> bool:
    """Tell if a proof can cover the relay's certificate."""
    return server_end_point(channel.certificate) is not None


def _gs2(credentials: Password, channel: Channel, *, plus: bool) -> tuple[bytes, bytes]:
    """Return the header of the first message, and the binding that follows it in the last one (RFC 5802 §6)."""
    authzid = b"a=" + saslname(encode_name(credentials.authzid, "identity to act as")) if credentials.authzid else b""
    binding = server_end_point(channel.certificate)
    if plus:
        if binding is None:
            raise LocalProtocolError("a -PLUS mechanism needs a certificate to bind to")
        return b"p=" + TLS_SERVER_END_POINT.encode("ascii") + b"," + authzid + b",", binding
    supported = binding is not None and not channel.plus  # `y`: the client supports it, the relay says that it does not
    return (b"y," if supported else b"n,") + authzid + b",", b""


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
    encode_name(credentials.username, "user name")
    credentials.secret.encode("password")
    if not can_prepare(credentials):
        raise InvalidArgument(
            "the user name or the password has characters that SCRAM does not allow (RFC 4013): nothing was sent"
        )
    return saslprep(credentials.secret.reveal()).encode("utf-8")


def _read_first(challenge: bytes, ours: bytes) -> tuple[bytes, bytes, int]:
    """Return nonce, salt and iterations of the server's first message."""
    _raise_error(challenge)
    if challenge.startswith(b"m="):
        raise MechanismFailed("the relay requires an unknown extension of SCRAM")
    match = _FIRST.fullmatch(challenge)
    if match is None:
        raise MechanismFailed("the relay's first message is not valid SCRAM")
    nonce, salt, iterations = match[1], _decode(match[2]), int(match[3])
    if not nonce.startswith(ours) or nonce == ours:
        raise MechanismFailed("the relay's nonce does not extend the client's: someone may be replaying a login")
    if iterations not in ALLOWED_ITERATIONS:
        raise MechanismFailed(
            f"the relay asks for {iterations} iterations: "
            f"{ALLOWED_ITERATIONS.start} to {ALLOWED_ITERATIONS.stop - 1} are allowed"
        )
    return nonce, salt, iterations


def _prove(algorithm: str, password: bytes, salt: bytes, iterations: int, message: bytes) -> tuple[bytes, bytes]:
    """Return the client's proof, and the signature that the relay must show (RFC 5802 §3)."""
    salted = hashlib.pbkdf2_hmac(algorithm, password, salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", algorithm)
    signature = hmac.digest(hashlib.new(algorithm, client_key).digest(), message, algorithm)
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    return proof, hmac.digest(hmac.digest(salted, b"Server Key", algorithm), message, algorithm)


def _verify(challenge: bytes, expected: bytes) -> None:
    _raise_error(challenge)
    match = _FINAL.fullmatch(challenge)
    if match is None or not hmac.compare_digest(_decode(match[1]), expected):
        raise MechanismFailed("the relay did not prove that it knows the password: it may be an impostor")


def _raise_error(challenge: bytes) -> None:
    if challenge.startswith(b"e="):
        error = challenge[2:].split(b",")[0]
        raise MechanismFailed(f"the relay reports {error.decode('ascii') if error in _ERRORS else 'an unknown error'}")


def _decode(text: bytes) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise MechanismFailed("the relay's message has invalid base64") from None
