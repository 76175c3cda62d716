"""DKIM keys: whose they are, where their public half is published, and the private half that signs."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field

from asyncsmtp.errors import MessageError
from asyncsmtp.protocol.replies import safe_text

__all__ = ["DkimKey"]

LEAST_BITS = 1024  # below it a signer MUST NOT sign and no verifier looks, RFC 8301 §3.2
GOOD_BITS = 2048  # SHOULD, the same

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+{_LABEL}")
_SELECTOR = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_TXT = "v=DKIM1; k={}; p={}"


@dataclass(frozen=True, slots=True)
class DkimKey:
    """A private key and the name under which its public half is found: `selector._domainkey.domain`.

    Attributes:
        algorithm: the tag `a=`: `rsa-sha256` or `ed25519-sha256` (RFC 8463).
        sign: signs octets; the same octets, the same signature.
        record: the text of the TXT record to publish.
        bits: the size of an RSA key; 256 for Ed25519.
    """

    domain: str
    selector: str
    algorithm: str
    sign: Callable[[bytes], bytes] = field(repr=False, compare=False)
    record: str
    bits: int

    @classmethod
    def of_pem(cls, domain: str, selector: str, pem: bytes) -> DkimKey:
        """Read an RSA or Ed25519 key in PEM: PKCS#8, or PKCS#1 as `openssl genrsa` used to write it; unencrypted.

        Args:
            domain: the tag `d=`; letters, digits, hyphens and dots. An international one as `xn--…`.
        Raises:
            MessageError: a name that would not stand in its tag, or a key that cannot be used; or the
                package `cryptography` is not there.
        """
        _check("domain", domain, _DOMAIN, "example.com")
        _check("selector", selector, _SELECTOR, "s1")
        return _read(domain.lower(), selector, pem)

    @property
    def name(self) -> str:
        """Where the record is to be published."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def weak(self) -> bool:
        """Whether it is an RSA key of fewer than 2048 bits, which signs but should be replaced (RFC 8301 §3.2)."""
        return self.algorithm == "rsa-sha256" and self.bits < GOOD_BITS


def _check(what: str, text: str, form: re.Pattern[str], like: str) -> None:
    """What is no name could end its tag and begin another."""
    if len(text) > 253 or not form.fullmatch(text):
        raise MessageError(f"the {what} “{safe_text(text, 80)}” is not one: it must look like {like}", "DKIM")


def _read(domain: str, selector: str, pem: bytes) -> DkimKey:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
    except ImportError as error:
        raise MessageError("signing needs the package cryptography: pip install 'asyncsmtp[dkim]'", "DKIM") from error
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise MessageError("the key is encrypted: store it decrypted, readable by its owner only", "DKIM") from None
    except (ValueError, UnsupportedAlgorithm):  # not chained: what it says may quote the key
        raise MessageError(
            "there is no private key in PEM, which begins with -----BEGIN PRIVATE KEY-----", "DKIM"
        ) from None
    if isinstance(key, rsa.RSAPrivateKey):
        private = key
        if key.key_size < LEAST_BITS:
            raise MessageError(f"an RSA key of {key.key_size} bits is too weak: make one of {GOOD_BITS}", "DKIM")
        der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        padded, hashed = padding.PKCS1v15(), hashes.SHA256()
        record = _TXT.format("rsa", b64encode(der).decode())
        return DkimKey(
            domain, selector, "rsa-sha256", lambda octets: private.sign(octets, padded, hashed), record, key.key_size
        )
    if isinstance(key, ed25519.Ed25519PrivateKey):
        edwards = key
        raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        record = _TXT.format("ed25519", b64encode(raw).decode())
        return DkimKey(domain, selector, "ed25519-sha256", lambda octets: edwards.sign(_digest(octets)), record, 256)
    raise MessageError("the key is neither RSA nor Ed25519, and DKIM knows no other", "DKIM")


def _digest(octets: bytes) -> bytes:
    """Ed25519 signs the SHA-256 of what RSA signs (RFC 8463 §3)."""
    from hashlib import sha256

    return sha256(octets).digest()
