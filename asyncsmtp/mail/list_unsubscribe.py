"""The way out of a list, in one click (RFC 2369, RFC 8058): a URL for each recipient that nobody else can guess."""

from __future__ import annotations

import hmac
import re
from base64 import b32encode
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from asyncsmtp.errors import MessageError
from asyncsmtp.mail import headers
from asyncsmtp.mail.address import Address, with_domain
from asyncsmtp.protocol.envelope import Mailbox
from asyncsmtp.protocol.replies import safe_text

__all__ = ["TOKEN", "UNSUBSCRIBE_URL", "Unsubscribe", "unsubscribe_token"]

UNSUBSCRIBE_URL = "unsubscribe_url"  # the name under which a template finds it
TOKEN = re.compile(r"\{\{ *token *\}\}")
LEAST_SECRET = 16  # octets
_LENGTH = 26  # characters of base 32: 130 bits
_URL = re.compile(r"[!#$%&'()*+\-./0-9:;=?@A-Z\[\]_a-z~]+")


def unsubscribe_token(secret: bytes, mailbox: Mailbox) -> str:
    """What stands for a mailbox in a URL: 26 letters and digits.

    The same for every campaign with the same secret, and not to be traced back to the address: who receives a token
    finds whose it is by comparing it with those of the addresses that it knows.
    """
    digest = hmac.digest(secret, mailbox.key.encode("utf-8"), "sha256")
    return b32encode(digest)[:_LENGTH].decode("ascii").lower()


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """What the List-Unsubscribe of each message says.

    Attributes:
        url: https, with `{{ token }}` where the recipient's token goes.
        secret: the key of the tokens, 16 octets or more.
        mailto: an address that takes unsubscriptions by mail too; the subject of such a mail is the token.
        one_click: whether a POST to the URL unsubscribes at once (RFC 8058). A GET must not: scanners follow links.
    """

    url: str
    secret: bytes = field(repr=False)
    mailto: str | None = None
    one_click: bool = True

    def __post_init__(self) -> None:
        """Raises MessageError: this could not stand in a header, or anybody could unsubscribe anybody."""
        if len(TOKEN.findall(self.url)) != 1:
            raise MessageError(
                "the URL must have {{ token }} in it, once: it says who unsubscribes", "List-Unsubscribe"
            )
        written = TOKEN.sub("token", self.url)
        if not _URL.fullmatch(written) or not _names_a_host(written):
            why = "is no URL: write one such as https://example.org/u/{{ token }}"
            raise MessageError(f"“{safe_text(self.url, 100)}” {why}", "List-Unsubscribe")
        if not written.startswith("https://"):
            raise MessageError("the URL must begin with https:// (RFC 8058 §3.1)", "List-Unsubscribe")
        if len(self.secret) < LEAST_SECRET:
            raise MessageError(
                f"the secret of the tokens has {len(self.secret)} octets: give {LEAST_SECRET} or more",
                "List-Unsubscribe",
            )
        if self.mailto is not None and not with_domain(Address.parse(self.mailto).mailbox).address.isascii():
            raise MessageError("the address for unsubscriptions must be ASCII", "List-Unsubscribe")

    def url_of(self, mailbox: Mailbox) -> str:
        """The URL of one recipient."""
        return TOKEN.sub(unsubscribe_token(self.secret, mailbox), self.url)

    def fields(self, mailbox: Mailbox) -> bytes:
        """List-Unsubscribe, and List-Unsubscribe-Post where one click is enough."""
        ways = [f"<{self.url_of(mailbox)}>"]
        if self.mailto is not None:
            to = Address.parse(self.mailto).mailbox.address
            ways.append(f"<mailto:{to}?subject={unsubscribe_token(self.secret, mailbox)}>")
        octets = headers.tokens("List-Unsubscribe", ", ".join(ways))
        # RFC 8058 §3.1: "The List-Unsubscribe-Post header MUST contain the single key/value pair
        # "List-Unsubscribe=One-Click"."
        return octets + b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" if self.one_click else octets


def _names_a_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets around what is no IPv6 address, a port that is none
        return False
