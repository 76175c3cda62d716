"""Certificates that prove nothing: each is refused before anything is said under it (TL-05, W-41 and W-42)."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from asyncsmtp.client.config.login_config import Login
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import CertificateRefused
from asyncsmtp.protocol.auth.auth import Secret
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import ScriptedRelay
from tests.client.support import commands, message, relay_of

pytestmark = pytest.mark.usefixtures("nothing_leaks")

NAME = "relay.example"
NOW = datetime.now(UTC)
BOTH = pytest.mark.parametrize("security", [Security.STARTTLS, Security.IMPLICIT_TLS])
Issue = Callable[[trustme.CA], tuple[bytes, bytes]]


def _issued(ca: trustme.CA, *names: str, **options: object) -> tuple[bytes, bytes]:
    issued = ca.issue_cert(*names, **options)  # type: ignore[arg-type]
    return b"".join(blob.bytes() for blob in issued.cert_chain_pems), issued.private_key_pem.bytes()


def _self_signed(ca: trustme.CA) -> tuple[bytes, bytes]:
    return _made(None)


def _for_clients_only(ca: trustme.CA) -> tuple[bytes, bytes]:
    return _made(ca, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]))


def _made(ca: trustme.CA | None, *more: x509.ExtensionType, alternative: bool = True) -> tuple[bytes, bytes]:
    """A certificate for the right name and time; signed by the authority, or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    signer, issuer = key, subject
    if ca is not None:
        signer = load_pem_private_key(ca.private_key_pem.bytes(), None)  # type: ignore[assignment]
        issuer = x509.load_pem_x509_certificate(ca.cert_pem.bytes()).subject
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if alternative:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
    for extension in more:
        builder = builder.add_extension(extension, critical=False)
    octets = builder.sign(signer, SHA256()).public_bytes(Encoding.PEM)
    return octets, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


WRONG: dict[str, Issue] = {
    "another name": lambda ca: _issued(ca, "other.example"),
    "a name below": lambda ca: _issued(ca, f"mail.{NAME}"),
    "a wildcard for another depth": lambda ca: _issued(ca, f"*.{NAME}"),
    "a wildcard for all": lambda ca: _issued(ca, "*.example.org"),
    "the name as CN only": lambda ca: _issued(ca, "other.example", common_name=NAME),
    "an address only": lambda ca: _issued(ca, "127.0.0.1"),
    "expired": lambda ca: _issued(ca, NAME, not_before=NOW - timedelta(days=9), not_after=NOW - timedelta(days=2)),
    "not yet valid": lambda ca: _issued(ca, NAME, not_before=NOW + timedelta(days=2)),
    "another authority": lambda ca: _issued(trustme.CA(), NAME),
    "self-signed": _self_signed,
    "for clients only": _for_clients_only,
}


def _context(made: tuple[bytes, bytes], folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    (folder / "relay.pem").write_bytes(b"".join(made))
    context.load_cert_chain(folder / "relay.pem")
    return context


@BOTH
@pytest.mark.parametrize("fault", WRONG)
async def test_a_certificate_that_proves_nothing_is_refused(
    fault: str, security: Security, ca: trustme.CA, client_tls: ssl.SSLContext, tmp_path: Path
) -> None:
    """TL-05: no EHLO, no AUTH, no MAIL under it, whatever is wrong with it."""
    context = _context(WRONG[fault](ca), tmp_path)
    implicit = security is Security.IMPLICIT_TLS
    async with ScriptedRelay(tls=context, implicit_tls=implicit, users={"ann": "p"}) as server:
        relay = relay_of(server, security=security, context=client_tls, login=Login("ann", Secret("p")))
        with pytest.raises(CertificateRefused, match="not valid"):
            await Session(relay).connect()
        await server.wait_until_idle()
        assert commands(server) == ([] if implicit else ["EHLO", "STARTTLS"])
        assert server.auth_attempts == []


@BOTH
async def test_a_name_in_the_subject_alone_is_refused(security: Security, ca: trustme.CA, tmp_path: Path) -> None:
    """TL-05, RFC 9525 §2: without a subjectAltName the library's default would still take the common name."""
    context = _context(_made(ca, alternative=False), tmp_path)
    (tmp_path / "ca.pem").write_bytes(ca.cert_pem.bytes())
    async with ScriptedRelay(tls=context, implicit_tls=security is Security.IMPLICIT_TLS) as server:
        with pytest.raises(CertificateRefused, match="not valid"):
            await Session(relay_of(server, security=security, ca_file=tmp_path / "ca.pem")).connect()


@BOTH
@pytest.mark.parametrize(
    ("names", "verified"),
    [
        ((NAME,), NAME),
        (("other.example", NAME), NAME),
        (("*.mail.example",), "RELAY.mail.example"),
        (("127.0.0.1",), None),
        (("bücher.example",), "bücher.example"),
        (("xn--bcher-kva.example",), "bücher.example"),
    ],
)
async def test_a_certificate_for_the_name_that_was_configured_is_taken(
    names: tuple[str, ...],
    verified: str | None,
    security: Security,
    ca: trustme.CA,
    client_tls: ssl.SSLContext,
    tmp_path: Path,
) -> None:
    """TL-05: among others, by a wildcard for one label, for the address that is connected to, in other letters."""
    context = _context(_issued(ca, *names), tmp_path)
    async with ScriptedRelay(tls=context, implicit_tls=security is Security.IMPLICIT_TLS) as server:
        relay = relay_of(server, security=security, context=client_tls, verify_name=verified)
        async with Session(relay) as session:
            assert (await session.send(message())).accepted
