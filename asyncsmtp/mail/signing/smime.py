"""S/MIME signatures over the body of a message (RFC 8551, RFC 1847).

The body becomes the first part of a multipart/signed, unchanged, and a detached signature the second. There are no
signed attributes: the time among them would come from a clock, and a message that is sent again must have the same
bytes. For the same reason the key must be an RSA key, whose signatures are deterministic.
"""

from __future__ import annotations

from base64 import encodebytes
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from hashlib import blake2b
from typing import TYPE_CHECKING

from asyncsmtp.errors import MessageError
from asyncsmtp.mail.message import Message
from asyncsmtp.mail.signing.dkim import load_private_key
from asyncsmtp.protocol.content import Content

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

__all__ = ["SmimeSigner"]

_FIELD = "S/MIME"


class SmimeSigner:
    """A signer with one certificate and its key.

    Attributes:
        addresses: the addresses in the certificate, in lower case; readers warn if From is another.
        expires_at: the end of the certificate's validity.
        certificate: the certificate in DER.
    """

    def __init__(self, certificate: bytes, key: bytes, chain: bytes = b"") -> None:
        """Load a certificate, its unencrypted RSA key and its intermediate certificates, all in PEM.

        Raises:
            MessageError: one cannot be read, the key does not belong to the certificate or is not an RSA key, or the
                package `cryptography` is missing.
        """
        try:
            from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
            from cryptography.hazmat.primitives.serialization import Encoding
            from cryptography.x509 import RFC822Name, load_pem_x509_certificate, load_pem_x509_certificates
            from cryptography.x509 import SubjectAlternativeName as Names
        except ImportError as error:
            why = "S/MIME needs the package cryptography: pip install 'asyncsmtp[dkim]'"
            raise MessageError(why, _FIELD) from error
        try:
            self._certificate: Certificate = load_pem_x509_certificate(certificate)
            self._chain: Sequence[Certificate] = load_pem_x509_certificates(chain) if chain.strip() else []
        except ValueError as error:
            raise MessageError("the certificate, or one of the chain, is not valid PEM", _FIELD) from error
        private = load_private_key(key, _FIELD)
        if not isinstance(private, RSAPrivateKey):
            raise MessageError("the key must be an RSA key, whose signatures are deterministic", _FIELD)
        self._key = private
        if self._certificate.public_key() != self._key.public_key():
            raise MessageError("the key does not belong to the certificate", _FIELD)
        found = [extension.value for extension in self._certificate.extensions if isinstance(extension.value, Names)]
        self.addresses = tuple(name.lower() for names in found for name in names.get_values_for_type(RFC822Name))
        self.certificate = self._certificate.public_bytes(Encoding.DER)
        self.expires_at: datetime = self._certificate.not_valid_after_utc

    def sign(self, message: Message) -> Message:
        """Return the message with a signed body; the same message gives the same bytes.

        Raises:
            MessageError: the content is not canonical (BINARYMIME), not 7-bit, or not in memory.
        """
        if not isinstance(message.content, Content):
            raise MessageError("streamed content cannot be signed: read it into memory first", _FIELD)
        return Message(message.envelope, self.sign_content(message.content), message.is_draft)

    def sign_content(self, content: Content) -> Content:
        """Return the content with a signed body. Sign with DKIM afterwards: it covers the new body."""
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.serialization import Encoding
        from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7Options, PKCS7SignatureBuilder

        if content.eight_bit and content.downgrade is not None:
            content = content.downgrade()
        if content.binary or content.eight_bit:
            raise MessageError("a relay might change bytes above 127: encode the parts as quoted-printable", _FIELD)
        outer, entity = _split_entity(bytes(content))
        builder = PKCS7SignatureBuilder().set_data(entity).add_signer(self._certificate, self._key, SHA256())
        for above in self._chain:
            builder = builder.add_certificate(above)
        options = [PKCS7Options.DetachedSignature, PKCS7Options.Binary, PKCS7Options.NoAttributes]
        signature = builder.sign(Encoding.DER, options)
        boundary = b"=_" + blake2b(signature, digest_size=12).hexdigest().encode("ascii") + b"_s"
        head = (
            outer + b'Content-Type: multipart/signed; protocol="application/pkcs7-signature";\r\n'
            b' micalg=sha-256; boundary="' + boundary + b'"\r\n\r\n--' + boundary + b"\r\n"
        )
        tail = (
            b"\r\n--" + boundary + b'\r\nContent-Type: application/pkcs7-signature; name="smime.p7s"\r\n'
            b"Content-Transfer-Encoding: base64\r\n"
            b'Content-Disposition: attachment; filename="smime.p7s"\r\n\r\n'
            + encodebytes(signature).replace(b"\n", b"\r\n")
            + b"\r\n--"
            + boundary
            + b"--\r\n"
        )
        parts = (head, entity, tail)
        return replace(content, parts=parts, size=sum(map(len, parts)))


def _split_entity(octets: bytes) -> tuple[bytes, bytes]:
    """Return the fields of the message, and the entity to sign: the Content- fields and the body."""
    section, _, body = octets.partition(b"\r\n\r\n")
    fields: list[bytes] = []
    for line in section.split(b"\r\n"):
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1] += line + b"\r\n"
        else:
            fields.append(line + b"\r\n")
    about = [field for field in fields if field[:8].lower() == b"content-"]
    others = [field for field in fields if field[:8].lower() != b"content-"]
    return b"".join(others), b"".join(about) + b"\r\n" + body
