"""tls-server-end-point: the certificate's hash, found in its DER."""

from __future__ import annotations

import hashlib
import ssl

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.protocol.auth.scram import server_end_point


def der(tag: int, *parts: bytes) -> bytes:
    """One element, its length as DER wants it."""
    content = b"".join(parts)
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 + len(length)]) + length + content


def certificate(oid: str, tbs: bytes = b"\x02\x01\x00" * 100) -> bytes:
    """As much of one as is looked at: its outer frame."""
    first, second, *rest = map(int, oid.split("."))
    octets = bytes([first * 40 + second])
    for arc in rest:
        base128 = [arc & 0x7F]
        while arc := arc >> 7:
            base128.insert(0, 0x80 | arc & 0x7F)
        octets += bytes(base128)
    return der(0x30, der(0x30, tbs), der(0x30, der(0x06, octets), b"\x05\x00"), der(0x03, b"\0signature"))


@pytest.mark.parametrize(
    ("oid", "algorithm"),
    [
        ("1.2.840.113549.1.1.4", "sha256"),  # md5WithRSAEncryption
        ("1.2.840.113549.1.1.5", "sha256"),  # sha1WithRSAEncryption
        ("1.2.840.113549.1.1.14", "sha224"),
        ("1.2.840.113549.1.1.11", "sha256"),
        ("1.2.840.113549.1.1.12", "sha384"),
        ("1.2.840.113549.1.1.13", "sha512"),
        ("1.2.840.10045.4.1", "sha256"),  # ecdsa-with-SHA1
        ("1.2.840.10045.4.3.1", "sha224"),
        ("1.2.840.10045.4.3.2", "sha256"),
        ("1.2.840.10045.4.3.3", "sha384"),
        ("1.2.840.10045.4.3.4", "sha512"),
    ],
)
def test_the_hash_is_that_of_the_signature_but_for_md5_and_sha_1(oid: str, algorithm: str) -> None:
    """AU-04, RFC 5929 §4.1."""
    found = certificate(oid)
    assert server_end_point(found) == hashlib.new(algorithm, found).digest()


@pytest.mark.parametrize("oid", ["1.3.101.112", "1.2.840.113549.1.1.10", "1.2.840.113549.1.1.1"])
def test_a_signature_without_one_hash_of_its_own_gives_no_binding(oid: str) -> None:
    """AU-04: Ed25519 and RSASSA-PSS; RFC 5929 §4.1 leaves them undefined, so nothing is made up."""
    assert server_end_point(certificate(oid)) is None


def test_a_real_certificate_is_understood() -> None:
    """Signed with ECDSA and SHA-256."""
    pem = trustme.CA().issue_cert("relay.example").cert_chain_pems[0].bytes().decode()
    octets = ssl.PEM_cert_to_DER_cert(pem)
    assert server_end_point(octets) == hashlib.sha256(octets).digest()


GOOD = certificate("1.2.840.113549.1.1.11")


@pytest.mark.parametrize(
    "octets",
    [
        None,
        b"",
        b"\x30",
        GOOD + b"\0",
        GOOD[:-1],
        b"\x31" + GOOD[1:],
        b"\x30\x80" + GOOD[4:],
        b"\x30\x83\x00" + GOOD[2:],
        b"\x30\x84\x00\x00\x00\x00",
        b"\x30\x81\x05\x30\x00\x30\x01\x06",
        der(0x30, der(0x30), der(0x30, der(0x05))),
        der(0x30, der(0x30)),
    ],
)
def test_what_is_no_certificate_gives_no_binding(octets: bytes | None) -> None:
    """AU-04: then SCRAM says `n`, that it cannot bind."""
    assert server_end_point(octets) is None


@given(st.binary(max_size=64) | st.integers(0, len(GOOD) - 1).map(lambda n: GOOD[:n] + b"\xff" + GOOD[n + 1 :]))
def test_no_octets_break_the_reader(octets: bytes) -> None:
    """A relay writes its certificate as it likes."""
    assert len(server_end_point(octets) or b"") in (0, 32)
