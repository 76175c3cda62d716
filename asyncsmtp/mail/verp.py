"""Where bounces go: one mailbox for all messages, or one for each, so that a bounce says which message it is about."""

from __future__ import annotations

from asyncsmtp.errors import MessageError, RecipientError
from asyncsmtp.mail.address import with_domain
from asyncsmtp.mail.list_unsubscribe import TOKEN
from asyncsmtp.protocol.envelope import Mailbox

__all__ = ["ReturnPath"]

_LONGEST = "a" * 26  # what the left part of a Message-ID of a campaign is made of


class ReturnPath:
    """The reverse-path of each message, from a text such as `bounces+{{ token }}@example.org` (VERP).

    The token is the left part of the message's Message-ID, which no stranger can guess and the ledger knows: so nobody
    can make a bounce for a message that was not sent.
    """

    def __init__(self, text: str) -> None:
        """Raises MessageError: it makes no mailbox."""
        self._before, *after = TOKEN.split(text)
        self._after = "".join(after)
        if len(after) > 1:
            raise MessageError("{{ token }} may stand there once", "return_path")
        try:
            mailbox = with_domain(Mailbox.parse(TOKEN.sub(_LONGEST, text)))
        except RecipientError as error:
            raise MessageError(error.reason, "return_path") from None
        if after and "@" not in self._after:
            raise MessageError("{{ token }} must stand before the @", "return_path")
        self._fixed = None if after else mailbox
        self._domain = mailbox.domain

    def of(self, message_id: str) -> Mailbox:
        """The reverse-path of the message with that Message-ID, left@right."""
        if self._fixed is not None:
            return self._fixed
        token = message_id.partition("@")[0]
        return Mailbox(f"{self._before}{token}{self._after.rpartition('@')[0]}", self._domain)

    def token_in(self, address: str) -> str | None:
        """The token in an address that `of` made; None: it made no such address."""
        local, _, domain = address.rpartition("@")
        end = self._after.rpartition("@")[0]
        if self._fixed is not None or domain.lower() != self._domain.lower():
            return None
        if not (local.startswith(self._before) and local.endswith(end)):
            return None
        return local[len(self._before) : len(local) - len(end)] or None
