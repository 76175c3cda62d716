"""[unsubscribe] of a campaign file: where recipients unsubscribe, and where the key of their tokens is."""

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
    from asyncsmtp.mail.list_unsubscribe import Unsubscribe

__all__ = ["Unsubscribing", "unsubscribing"]

VARIABLE = "ASYNCSMTP_UNSUBSCRIBE_SECRET"
_NAMES = ("url", "mailto", "one_click", "secret_file")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsubscribing:
    """The section; without `secret_file` the secret is in the environment."""

    url: str
    mailto: str | None = None
    one_click: bool = True
    secret_file: Path | None = None

    def load(self) -> Unsubscribe:
        """Read the secret.

        Raises:
            Failed: it is not there, others can read it, or the section cannot make a header.
        """
        from asyncsmtp.errors import MessageError, RecipientError
        from asyncsmtp.mail.list_unsubscribe import Unsubscribe

        try:
            return Unsubscribe(self.url, self._secret(), self.mailto, self.one_click)
        except (MessageError, RecipientError) as error:
            raise Failed(f"[unsubscribe]: {error}", "correct it, then run the same command again") from error

    def _secret(self) -> bytes:
        if self.secret_file is not None:
            return octets_of(self.secret_file, "[unsubscribe] secret_file").strip()
        if not (secret := os.environ.get(VARIABLE)):
            raise Failed(
                "[unsubscribe]: there is no secret for the tokens",
                f"name a file as secret_file, or set {VARIABLE}; to make one: openssl rand -hex 16",
            )
        return secret.encode("utf-8", "surrogateescape")


def unsubscribing(value: object, folder: Path) -> Unsubscribing:
    """The kind of the whole section."""
    if not isinstance(value, dict):
        raise ValueError("must be a section with a url")
    for name, given in value.items():
        if name == "secret":
            raise ValueError("a campaign file holds no secrets: store it in a file, and name that as secret_file")
        if name not in _NAMES:
            raise ValueError(f"unknown key “{safe_text(name, 60)}”; it may have {', '.join(_NAMES)}")
        if name == "one_click" and not isinstance(given, bool):
            raise ValueError("one_click must be true or false")
        if name != "one_click" and (not isinstance(given, str) or not given.strip()):
            raise ValueError(f"{name} must be text, in quotes")
    if "url" not in value:
        raise ValueError('url is missing, such as url = "https://example.org/u/{{ token }}"')
    _check("url", value["url"])
    _check("mailto", value["url"], value.get("mailto"))
    secret = place(value["secret_file"], folder, "secret_file") if "secret_file" in value else None
    return Unsubscribing(
        url=value["url"], mailto=value.get("mailto"), one_click=value.get("one_click", True), secret_file=secret
    )


def _check(name: str, url: str, mailto: str | None = None) -> None:
    """What can be said before the secret is read: some secret stands for it."""
    from asyncsmtp.errors import MessageError, RecipientError
    from asyncsmtp.mail.list_unsubscribe import LEAST_SECRET, Unsubscribe

    try:
        Unsubscribe(url, bytes(LEAST_SECRET), mailto)
    except RecipientError as error:
        raise ValueError(f"{name}: {error.reason}") from None
    except MessageError as error:
        raise ValueError(f"{name}: {str(error).removeprefix('List-Unsubscribe: ')}") from None
