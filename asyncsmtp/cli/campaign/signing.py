"""[dkim] of a campaign file: whose signature, and where its private key is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asyncsmtp.cli.campaign.places import place
from asyncsmtp.cli.campaign.private import octets_of
from asyncsmtp.cli.output.failures import Failed
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.mail.signing.dkim import DkimKey

__all__ = ["Signature", "signatures"]

_AGAIN = "correct it, then run the same command again"
_NAMES = ("domain", "selector", "key", "key_env")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One [dkim] section: `key` is a file, `key_env` a variable of the environment that holds the PEM; one of them."""

    domain: str
    selector: str
    key: Path | None = None
    key_env: str | None = None

    def load(self) -> DkimKey:
        """Read the key.

        Raises:
            Failed: it is not there, others can read it, or it cannot sign.
        """
        from asyncsmtp.errors import MessageError
        from asyncsmtp.mail.signing.dkim import DkimKey

        try:
            return DkimKey.of_pem(self.domain, self.selector, self._pem())
        except MessageError as error:
            where = f"the variable {self.key_env}" if self.key is None else safe_text(str(self.key))
            raise Failed(f"[dkim] of {safe_text(self.domain, 80)}, {where}: {error}", _AGAIN) from error

    def _pem(self) -> bytes:
        if self.key is not None:
            return octets_of(self.key, "[dkim] key")
        assert self.key_env is not None
        if not (pem := os.environ.get(self.key_env)):
            raise Failed(
                f"[dkim] key_env: the variable {self.key_env} is not set", f"set {self.key_env} to the key in PEM"
            )
        return pem.encode("utf-8", "surrogateescape")


def signatures(value: object, folder: Path) -> tuple[Signature, ...]:
    """The kind of the whole section: a table, or several as [[dkim]]."""
    tables = value if isinstance(value, list) else [value]
    found = tuple(_signature(table, folder) for table in tables)
    if len({(each.domain.lower(), each.selector.lower()) for each in found}) < len(found):
        raise ValueError("two sections have the same domain and selector, and so the same public key")
    return found


def _signature(table: object, folder: Path) -> Signature:
    if not isinstance(table, dict):
        raise ValueError("must be a section with domain, selector and key; several are [[dkim]] each")
    for name, value in table.items():
        if name not in _NAMES:
            raise ValueError(f"unknown key “{safe_text(name, 60)}”; it may have {', '.join(_NAMES)}")
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{name} must be text, in quotes")
        if "PRIVATE KEY" in value:  # the value is not repeated
            raise ValueError(f"{name} holds a private key itself: store it in a file, and name the file as key")
    texts = {name: str(value) for name, value in table.items()}
    for name in ("domain", "selector"):
        if name not in texts:
            raise ValueError(f"{name} is missing")
    if ("key" in texts) == ("key_env" in texts):
        raise ValueError("needs either key, a file, or key_env, the name of an environment variable")
    key = place(texts["key"], folder, "key") if "key" in texts else None
    return Signature(domain=texts["domain"], selector=texts["selector"], key=key, key_env=texts.get("key_env"))
