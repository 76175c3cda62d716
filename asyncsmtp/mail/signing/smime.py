"""S/MIME: a signature by a person's or an office's certificate over the body of a message (RFC 8551, RFC 1847).

The body becomes the first part of a multipart/signed, as it is, and a detached signature the second. There are no
signed attributes: the time among them would come from a clock, and a message that is sent again has the same octets.
For the same reason the key is an RSA key, whose signatures have nothing random in them.
"""

from __future__ import annotations

from base64 import encodebytes
from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b
from typing import TYPE_CHECKING

from asyncsmtp.errors import MessageError
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.content import Content

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.x509 import Certificate

__all__ = ["SmimeSigner"]

_FIELD = "S/MIME"


class SmimeSigner:
    """Signs messages with one certificate and its key.

    Attributes:
        addresses: whose certificate it is, in lower case: a reader is warned where From is none of them.
        ends_at: until when it is valid.
        certificate: its octets, DER.
    """

    def __init__(self, certificate: bytes, key: bytes, chain: bytes = b"") -> None:
        """Read a certificate, its unencrypted RSA key and the certificates above it, all in PEM.

        Raises:
            MessageError: one cannot be read, the key is not the certificate's, or no RSA key; or the package
                `cryptography` is not there.
        """
        try:
            from cryptography.hazmat.primitives.serialization import Encoding
            from cryptography.x509 import RFC822Name, load_pem_x509_certificate, load_pem_x509_certificates
            from cryptography.x509 import SubjectAlternativeName as Names
        except ImportError as error:
            raise MessageError("S/MIME needs a package: pip install 'asyncsmtp[dkim]'", _FIELD) from error
        try:
            self._certificate: Certificate = load_pem_x509_certificate(certificate)
            self._chain: Sequence[Certificate] = load_pem_x509_certificates(chain) if chain.strip() else []
        except ValueError as error:
            raise MessageError("the certificate, or one of the chain, is none in PEM", _FIELD) from error
        self._key = _read_key(key)
        if self._certificate.public_key() != self._key.public_key():
            raise MessageError("the key is not that of the certificate", _FIELD)
        found = [extension.value for extension in self._certificate.extensions if isinstance(extension.value, Names)]
        self.addresses = tuple(name.lower() for names in found for name in names.get_values_for_type(RFC822Name))
        self.certificate = self._certificate.public_bytes(Encoding.DER)
        self.ends_at: datetime = self._certificate.not_valid_after_utc

    def sign(self, message: Message) -> Message:
        """The message with its body signed; the same message gives the same octets.

        Raises:
            MessageError: its content is not canonical (BINARYMIME), or not in memory.
        """
        if not isinstance(message.content, Content):
            raise MessageError("content that is read while it is sent cannot be signed: read it first", _FIELD)
        return Message(message.envelope, self.signed(message.content))

    def signed(self, content: Content) -> Content:
        """The same for a content. A DKIM signature is made afterwards: it covers what becomes of the body."""
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.serialization import Encoding
        from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7Options, PKCS7SignatureBuilder

        if content.binary or content.eight_bit:
            raise MessageError("a relay might change octets above 127: encode the parts as quoted-printable", _FIELD)
        outer, entity = _parted(bytes(content))
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
        tail = b"\r\n--" + boundary + b"\r\n" + _signature_part(signature) + b"\r\n--" + boundary + b"--\r\n"
        parts = (head, entity, tail)
        return Content(
            parts, sum(map(len, parts)), False, content.utf8_headers, needs_dot_stuffing=content.needs_dot_stuffing
        )


def _signature_part(signature: bytes) -> bytes:
    return (
        b'Content-Type: application/pkcs7-signature; name="smime.p7s"\r\n'
        b"Content-Transfer-Encoding: base64\r\n"
        b'Content-Disposition: attachment; filename="smime.p7s"\r\n\r\n'
        + encodebytes(signature).replace(b"\n", b"\r\n")
    )


def _parted(octets: bytes) -> tuple[bytes, bytes]:
    """The fields of the message, and the entity that its body is: the fields about the body, and the body."""
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


def _read_key(pem: bytes) -> RSAPrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise MessageError("the key is encrypted: take the passphrase off, and guard the file", _FIELD) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MessageError("the key is none in PEM", _FIELD) from error
    if not isinstance(key, RSAPrivateKey):
        raise MessageError("the key is no RSA key, whose signatures alone are the same each time", _FIELD)
    return key
