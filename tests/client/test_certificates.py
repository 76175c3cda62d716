"""Certificates that prove nothing: the session ends before any command."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from asyncsmtp.client.session import Session
from asyncsmtp.errors import ConnectFailed
from asyncsmtp.protocol.opening import Security
from asyncsmtp.testing import ScriptedRelay
from tests.client.support import message, relay_of

pytestmark = pytest.mark.usefixtures("nothing_leaks")

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Kind:
    """A certificate for a server: what it says of itself, and who signed it."""

    names: tuple[str, ...] = ("relay.example",)
    common_name: str = "a relay"
    end: timedelta = 2 * DAY
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH
    signer: str = "trusted"  # or "unknown", or "itself"


GOOD = Kind()
BAD = {
    "another host": (Kind(names=("other.example",)), "relay.example"),
    "expired": (Kind(end=-DAY), "relay.example"),
    "self-signed": (Kind(signer="itself"), "relay.example"),
    "unknown authority": (Kind(signer="unknown"), "relay.example"),
    "common name only": (Kind(names=(), common_name="relay.example"), "relay.example"),
    "for clients": (Kind(usage=ExtendedKeyUsageOID.CLIENT_AUTH), "relay.example"),
    "wildcard too deep": (Kind(names=("*.example.net",)), "mx.relay.example.net"),
    "address as a name": (Kind(names=("127.0.0.1",)), "127.0.0.1"),
    "IDN of another": (Kind(names=("xn--mnchn-kva.example",)), "münchen.example"),
}


def named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def signed(
    kind: Kind, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey, authority: bool
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(kind.common_name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - 3 * DAY)
        .not_valid_after(NOW + kind.end)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(not authority, False, False, False, False, authority, authority, False, False), critical=True
        )
    )
    if not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([kind.usage]), critical=False)
        if kind.names:
            names = x509.SubjectAlternativeName([x509.DNSName(name) for name in kind.names])
            builder = builder.add_extension(names, critical=False)
    return builder.sign(signer, hashes.SHA256())


@pytest.fixture
def contexts(tmp_path: Path) -> Callable[[Kind], tuple[ssl.SSLContext, Path]]:
    """Make a context for a server with such a certificate, and the file of an authority to trust."""

    def make(kind: Kind) -> tuple[ssl.SSLContext, Path]:
        own, trusted = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        signer = {"trusted": trusted, "unknown": ec.generate_private_key(ec.SECP256R1()), "itself": own}[kind.signer]
        issuer = kind.common_name if kind.signer == "itself" else "an authority"
        authority = signed(Kind(common_name="an authority"), trusted, "an authority", trusted, authority=True)
        certificate = signed(kind, own, issuer, signer, authority=False)
        path = tmp_path / "server.pem"
        path.write_bytes(
            own.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.load_cert_chain(path)
        ca_file = tmp_path / "ca.pem"
        ca_file.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
        return server, ca_file

    return make


@pytest.mark.parametrize("name", BAD)
async def test_a_certificate_that_proves_nothing_ends_the_session(
    name: str, contexts: Callable[[Kind], tuple[ssl.SSLContext, Path]]
) -> None:
    """TL-05: nine of them, each refused before any command under TLS; the error says what to do."""
    kind, host = BAD[name]
    server_tls, ca_file = contexts(kind)
    async with ScriptedRelay(tls=server_tls, implicit_tls=True) as server:
        relay = relay_of(server, security=Security.IMPLICIT_TLS, ca_file=ca_file, verify_name=host)
        with pytest.raises(ConnectFailed, match=r"certificate .* is not valid: .*ca_file"):
            await Session(relay).connect()
        assert not any(line.startswith("C: ") for line in server.dialogue)


async def test_a_certificate_made_the_same_way_is_taken(
    contexts: Callable[[Kind], tuple[ssl.SSLContext, Path]],
) -> None:
    """Or the nine would be refused for something else; also by a Python that verifies strictly (3.13, TL-06)."""
    server_tls, ca_file = contexts(GOOD)
    async with ScriptedRelay(tls=server_tls, implicit_tls=True) as server:
        relay = relay_of(server, security=Security.IMPLICIT_TLS, ca_file=ca_file, verify_name="relay.example")
        async with Session(relay) as session:
            assert (await session.send(message())).accepted
