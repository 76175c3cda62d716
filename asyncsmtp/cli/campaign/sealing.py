"""[smime] of a campaign file: the certificate that signs the bodies, and where its private key is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from asyncsmtp.cli.campaign.places import place
from asyncsmtp.cli.campaign.private import octets_of
from asyncsmtp.cli.output.failures import Failed
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.mail.signing.smime import SmimeSigner
    from asyncsmtp.protocol.envelope import Mailbox

__all__ = ["Sealing", "remarks", "sealing"]

_NAMES = ("certificate", "key", "chain")
_SOON = timedelta(days=14)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealing:
    """The section: files in PEM; the chain holds the certificates above that of the sender."""

    certificate: Path
    key: Path
    chain: Path | None = None

    def load(self) -> SmimeSigner:
        """Read the files.

        Raises:
            Failed: one is not there, others can read the key, it does not fit, or the certificate is over.
        """
        from asyncsmtp.errors import MessageError
        from asyncsmtp.mail.signing.smime import SmimeSigner

        certificate = _public(self.certificate, "certificate")
        chain = _public(self.chain, "chain") if self.chain else b""
        try:
            seal = SmimeSigner(certificate, octets_of(self.key, "[smime] key"), chain)
        except MessageError as error:
            raise Failed(f"[smime]: {error}", "correct it, then run the same command again") from error
        if seal.ends_at <= datetime.now(UTC):
            raise Failed(
                f"[smime]: the certificate {safe_text(str(self.certificate))} ended on {seal.ends_at:%Y-%m-%d}",
                "get a new one, then run the same command again",
            )
        return seal


def remarks(seal: SmimeSigner, author: Mailbox) -> Iterator[str]:
    """What could be better about it, one sentence each."""
    if str(author).lower() not in seal.addresses:
        whose = ", ".join(seal.addresses) or "nobody's address"
        yield f"the certificate of [smime] is for {whose}, and From is {author}: readers are warned"
    if seal.ends_at - datetime.now(UTC) < _SOON:
        yield f"the certificate of [smime] ends on {seal.ends_at:%Y-%m-%d}"


def sealing(value: object, folder: Path) -> Sealing:
    """The kind of the whole section."""
    if not isinstance(value, dict):
        raise ValueError("must be a section with certificate and key")
    for name, file in value.items():
        if name not in _NAMES:
            raise ValueError(f"unknown key “{safe_text(name, 60)}”; it may have {', '.join(_NAMES)}")
        if not isinstance(file, str) or not file.strip() or "-----BEGIN" in file:
            raise ValueError(f"{name} must be the name of a file")
    paths = {name: place(file, folder, name) for name, file in value.items()}
    for name in ("certificate", "key"):
        if name not in paths:
            raise ValueError(f"{name} is missing")
    return Sealing(**paths)


def _public(path: Path, role: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        why = "does not exist" if isinstance(error, FileNotFoundError) else str(error.strerror).lower()
        advice = "correct the name or its rights, then run the same command again"
        raise Failed(f"[smime] {role}: {safe_text(str(path))}: {why}", advice) from error
