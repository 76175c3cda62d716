"""Addresses with a token for each recipient: List-Unsubscribe URLs (RFC 2369, RFC 8058) and VERP return paths."""

from __future__ import annotations

import hmac
import re
from base64 import b32encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from asyncsmtp.errors import MessageError, RecipientError
from asyncsmtp.mail import headers
from asyncsmtp.mail.address import Address, require_domain
from asyncsmtp.protocol.envelope import Mailbox
from asyncsmtp.protocol.replies import safe_text

__all__ = ["TOKEN_PLACEHOLDER", "UNSUBSCRIBE_URL_VARIABLE", "ReturnPath", "Unsubscribe", "unsubscribe_token"]

UNSUBSCRIBE_URL_VARIABLE = "unsubscribe_url"  # the variable of a template that holds it
TOKEN_PLACEHOLDER = re.compile(r"\{\{ *token *\}\}")
MIN_SECRET_LENGTH = 16  # bytes
_LENGTH = 26  # characters of base 32: 130 bits
_URL = re.compile(r"[!#$%&'()*+\-./0-9:;=?@A-Z\[\]_a-z~]+")


def unsubscribe_token(secret: bytes, mailbox: Mailbox) -> str:
    """Return the token for a mailbox in an unsubscribe URL: 26 letters and digits.

    It is the same for every campaign with the same secret. The address cannot be computed from it: to find the
    subscriber, compare it with the tokens of the addresses on the list.
    """
    digest = hmac.digest(secret, mailbox.key.encode("utf-8"), "sha256")
    return b32encode(digest)[:_LENGTH].decode("ascii").lower()


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """The settings for the List-Unsubscribe header of each message.

    Attributes:
        url: https, with `{{ token }}` in place of the recipient's token.
        secret: the key of the tokens, 16 bytes or more.
        mailto: an address that takes unsubscriptions by mail too; the subject of such a mail is the token.
        one_click: a POST to the URL unsubscribes at once (RFC 8058). A GET must not: scanners follow links.
    Raises:
        MessageError: the settings do not make a valid header, or anybody could unsubscribe anybody.
    """

    url: str
    secret: bytes = field(repr=False)
    mailto: str | None = None
    one_click: bool = True

    def __post_init__(self) -> None:
        if len(TOKEN_PLACEHOLDER.findall(self.url)) != 1:
            why = "the URL must have {{ token }} in it once: it identifies the subscriber"
            raise MessageError(why, "List-Unsubscribe")
        written = TOKEN_PLACEHOLDER.sub("token", self.url)
        if not _URL.fullmatch(written) or not _has_host(written):
            why = "is not a valid URL: write one such as https://example.org/u/{{ token }}"
            raise MessageError(f"“{safe_text(self.url, 100)}” {why}", "List-Unsubscribe")
        if not written.startswith("https://"):
            raise MessageError("the URL must begin with https:// (RFC 8058 §3.1)", "List-Unsubscribe")
        if len(self.secret) < MIN_SECRET_LENGTH:
            why = f"the secret of the tokens has {len(self.secret)} bytes: give {MIN_SECRET_LENGTH} or more"
            raise MessageError(why, "List-Unsubscribe")
        if self.mailto is not None and not require_domain(Address.parse(self.mailto).mailbox).address.isascii():
            raise MessageError("the address for unsubscriptions must be ASCII", "List-Unsubscribe")

    def url_for(self, mailbox: Mailbox) -> str:
        """Return the URL for one recipient."""
        return TOKEN_PLACEHOLDER.sub(unsubscribe_token(self.secret, mailbox), self.url)

    def fields(self, mailbox: Mailbox) -> bytes:
        """Return List-Unsubscribe and, with `one_click`, List-Unsubscribe-Post."""
        ways = [f"<{self.url_for(mailbox)}>"]
        if self.mailto is not None:
            to = Address.parse(self.mailto).mailbox
            local = quote(to.local, safe="!$'*+-._~")  # RFC 6068 §2: a ? or & would end it
            ways.append(f"<mailto:{local}@{to.domain}?subject={unsubscribe_token(self.secret, mailbox)}>")
        octets = headers.format_tokens("List-Unsubscribe", ", ".join(ways))
        # RFC 8058 §3.1: "The List-Unsubscribe-Post header MUST contain the single key/value pair
        # "List-Unsubscribe=One-Click"."
        return octets + b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" if self.one_click else octets


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets around something else than an IPv6 address; a port that is not a number
        return False


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
            # As long as the left part of a Message-ID of a campaign.
            mailbox = require_domain(Mailbox.parse(TOKEN_PLACEHOLDER.sub("a" * 26, text)))
        except RecipientError as error:
            raise MessageError(error.reason, "return_path") from None
        if after and "@" not in self._after:
            raise MessageError("{{ token }} must come before the @", "return_path")
        self._fixed = None if after else mailbox
        self._domain = mailbox.domain
        begin, end = re.escape(self._before), re.escape(self._after.rpartition("@")[0])
        around = (begin or "(?<![a-z0-9])", end or "(?![a-z0-9])")
        self._token = re.compile(f"([a-z2-7]{{{_LENGTH}}})".join(around), re.IGNORECASE)

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

    def find_tokens(self, text: str) -> Iterator[str]:
        """Yield the tokens of all local parts in a text that `address_for` made, in lower case.

        Also within another address: a forwarder writes `SRS0=…=example.org=bounces+token@forwarder.example`.
        """
        if self.has_token:
            for found in self._token.finditer(text):
                yield found[1].lower()
