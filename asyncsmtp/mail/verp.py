"""Return paths: one mailbox for all bounces, or one for each message (VERP), so that a bounce names its message."""

from __future__ import annotations

from asyncsmtp.errors import MessageError, RecipientError
from asyncsmtp.mail.address import require_domain
from asyncsmtp.mail.list_unsubscribe import TOKEN_PLACEHOLDER
from asyncsmtp.protocol.envelope import Mailbox

__all__ = ["ReturnPath"]

_SAMPLE_TOKEN = "a" * 26  # as long as the left part of a Message-ID of a campaign


class ReturnPath:
    """The reverse-path of each message, from a text such as `bounces+{{ token }}@example.org` (VERP).

    The token is the left part of the message's Message-ID. Outsiders cannot guess it and the ledger stores it, so
    nobody can forge a bounce for a message that was not sent.

    Raises:
        MessageError: the text does not make a mailbox.
    """

    def __init__(self, text: str) -> None:
        self._before, *after = TOKEN_PLACEHOLDER.split(text)
        self._after = "".join(after)
        if len(after) > 1:
            raise MessageError("{{ token }} may occur only once", "return_path")
        try:
            mailbox = require_domain(Mailbox.parse(TOKEN_PLACEHOLDER.sub(_SAMPLE_TOKEN, text)))
        except RecipientError as error:
            raise MessageError(error.reason, "return_path") from None
        if after and "@" not in self._after:
            raise MessageError("{{ token }} must come before the @", "return_path")
        self._fixed = None if after else mailbox
        self._domain = mailbox.domain

    @property
    def has_token(self) -> bool:
        """True if each message has a reverse-path of its own."""
        return self._fixed is None

    def address_for(self, message_id: str | None) -> Mailbox:
        """Return the reverse-path for a Message-ID, left@right; None is allowed if there is no token."""
        if self._fixed is not None:
            return self._fixed
        assert message_id is not None
        token = message_id.partition("@")[0]
        return Mailbox(f"{self._before}{token}{self._after.rpartition('@')[0]}", self._domain)

    def parse_token(self, address: str) -> str | None:
        """Return the token in an address that `address_for` made; None for any other address."""
        local, _, domain = address.rpartition("@")
        end = self._after.rpartition("@")[0]
        if self._fixed is not None or domain.lower() != self._domain.lower():
            return None
        if not (local.startswith(self._before) and local.endswith(end)):
            return None
        return local[len(self._before) : len(local) - len(end)] or None
