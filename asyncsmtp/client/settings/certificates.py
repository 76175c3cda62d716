"""Certificates as values: ours, by which a relay knows us, and the fingerprint by which we know it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from asyncsmtp.errors import BadArgument
from asyncsmtp.protocol.credentials import Secret
from asyncsmtp.protocol.replies import safe_text

__all__ = ["ClientCertificate", "normal_fingerprint"]


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """Our own certificate, shown to a relay that asks for one (RFC 8446 §4.3.2).

    Attributes:
        file: in PEM, the certificate first and what it is signed by behind it.
        key: its private key in PEM; None where that is in `file` too.
        passphrase: of the key, where it is encrypted.
    """

    file: Path
    key: Path | None = None
    passphrase: Secret | None = None


_SHA_256 = re.compile(r"[0-9a-f]{64}")


def normal_fingerprint(text: str) -> str:
    """A SHA-256 fingerprint as 64 small hex digits; it may come with colons and capitals, as OpenSSL prints it.

    Raises:
        BadArgument: it is none.
    """
    digits = text.strip().replace(":", "").lower()
    if not _SHA_256.fullmatch(digits):
        raise BadArgument(
            f"“{safe_text(text, 80)}” is no SHA-256 fingerprint of a certificate: 64 hex digits, "
            "as `asyncsmtp check` and `openssl x509 -noout -fingerprint -sha256` print them"
        )
    return digits
