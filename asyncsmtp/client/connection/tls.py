"""TLS: the contexts, what a handshake proved, and how it fails (RFC 8314, RFC 6125)."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from functools import lru_cache
from pathlib import Path

from asyncsmtp.client.config.login_config import ClientCertificate
from asyncsmtp.client.config.relay import Relay
from asyncsmtp.errors import CertificateRefused, ConnectFailed
from asyncsmtp.protocol.delivery import TlsInfo
from asyncsmtp.protocol.opening_handshake import Security

__all__ = ["certified_name", "check_pins", "handshake_failed", "tls_context", "tls_info", "verifies"]


async def tls_context(relay: Relay) -> ssl.SSLContext:
    """The relay's own context, or one that verifies; made once, away from the event loop (it reads files).

    A client certificate that was renewed is read anew.

    Raises:
        ConnectFailed: a file cannot be used.
    """
    if relay.context is not None:
        return relay.context
    return await asyncio.to_thread(_context, relay.ca_file, relay.client_certificate, relay.verify)


def _context(ca_file: Path | None, certificate: ClientCertificate | None, verify: bool) -> ssl.SSLContext:
    return _made_context(ca_file, certificate, verify, _age(certificate))


@lru_cache(maxsize=8)
def _made_context(
    ca_file: Path | None, certificate: ClientCertificate | None, verify: bool, _: tuple[int, ...]
) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConnectFailed(f"the CA file {ca_file} cannot be used: {error.strerror or error}") from error
    if ssl.HAS_NEVER_CHECK_COMMON_NAME:  # a common name proves no host (RFC 9525 §2); the default still takes it
        context.hostname_checks_common_name = False
    if certificate is not None:
        _show(context, certificate)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _age(certificate: ClientCertificate | None) -> tuple[int, ...]:
    """When its files were written last."""
    files = (certificate.file, certificate.key) if certificate is not None else ()
    try:
        return tuple(file.stat().st_mtime_ns for file in files if file is not None)
    except OSError:
        return ()  # loading it tells what is wrong


def _show(context: ssl.SSLContext, certificate: ClientCertificate) -> None:
    secret = certificate.passphrase
    try:  # without a passphrase OpenSSL would ask for one at the terminal
        context.load_cert_chain(certificate.file, certificate.key, secret.reveal() if secret is not None else "")
    except (OSError, ssl.SSLError, ValueError) as error:
        files = f"{certificate.file}" + (f" with the key {certificate.key}" if certificate.key else "")
        advice = "give both in PEM, and the key's passphrase where it has one"
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConnectFailed(f"the client certificate {files} cannot be used ({reason}): {advice}") from None


def verifies(relay: Relay) -> bool:
    """Whether a handshake with it proves who it is: by a certificate that is valid, or by one that is pinned."""
    context = relay.context
    if relay.pins:
        return True
    return relay.verify and (context is None or (context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname))


def certified_name(relay: Relay) -> str:
    """The name that the certificate must carry."""
    return relay.verify_name or relay.address[0]


def check_pins(relay: Relay, tls: ssl.SSLObject) -> None:
    """Compare the certificate with what is pinned, before anything is said under it.

    Raises:
        CertificateRefused: it is another one.
    """
    found = _fingerprint(tls)
    if relay.pins and found not in relay.pins:
        raise CertificateRefused(
            f"the certificate of {relay} is not the one that is pinned: its SHA-256 is {found}; "
            "if it was renewed, pin that, else someone may be tampering with the connection",
            found,
        )


def tls_info(relay: Relay, tls: ssl.SSLObject | None) -> TlsInfo | None:
    """What protects a session; None in clear."""
    if tls is None:
        return None
    cipher = tls.cipher()
    return TlsInfo(tls.version() or "", cipher[0] if cipher else "", verifies(relay), _fingerprint(tls))


def _fingerprint(tls: ssl.SSLObject) -> str:
    return hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()


def handshake_failed(relay: Relay, error: ssl.SSLError) -> ConnectFailed:
    """Why, and what to do about it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = f"{error.verify_message}; give its CA with ca_file, its real name with verify_name, or pin it"
        return CertificateRefused(f"the certificate of {relay} is not valid: {advice}")
    if "WRONG_VERSION_NUMBER" in str(error) or "RECORD_LAYER" in str(error):
        if relay.security is Security.IMPLICIT_TLS:
            return ConnectFailed(
                f"{relay} does not speak TLS from the first octet: use smtp:// (STARTTLS, often port 587)"
            )
        return ConnectFailed(
            f"the TLS handshake with {relay} met octets that are no TLS: someone may be tampering with it"
        )
    return ConnectFailed(f"the TLS handshake with {relay} failed: {error.strerror or error}")
