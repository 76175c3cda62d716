"""Channel binding of the type tls-server-end-point: the hash of the relay's certificate (RFC 5929 §4).

The other types are out of reach or out of the question: tls-unique is not defined for TLS 1.3, and the standard
library exports no keying material for tls-exporter (RFC 9266).
"""

from __future__ import annotations

import hashlib

__all__ = ["NAME", "end_point"]

NAME = "tls-server-end-point"

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


def end_point(certificate: bytes | None) -> bytes | None:
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
