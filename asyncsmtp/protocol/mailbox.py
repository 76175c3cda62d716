"""Mailboxes: addresses in the form that a path carries them (RFC 5321 §4.1.2; RFC 6531; RFC 5891).

The grammar is our own and strict. Header parsers are lenient by design, differ between interpreters, and may change
the recipient by guessing; nothing here guesses. A domain beyond ASCII is converted to A-labels at once, so that it
also reaches a server without SMTPUTF8.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from asyncsmtp.errors import RecipientError
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Mailbox", "is_address_literal", "is_domain"]

MAX_LOCAL_PART = 64  # bytes, RFC 5321 §4.5.3.1.1
MAX_DOMAIN = 255  # bytes, §4.5.3.1.2
MAX_PATH = 256  # bytes with the angle brackets, §4.5.3.1.3

_UTF8 = "\u00a0-\U0010ffff"  # beyond ASCII and the C1 controls, RFC 6531 §3.3
_ATOM = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~{_UTF8}-]+"
# Kept as text: few addresses need these, and compiling them takes longer than the rest of the module.
_DOT_STRING = rf"{_ATOM}(?:\.{_ATOM})*"
_QUOTED_STRING = rf'"(?:[ !#-\[\]-~{_UTF8}]|\\[ -~])*"'
_PLAIN = re.compile(r"([A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*)@([A-Za-z0-9.-]+)")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_LITERAL = re.compile(r"\[(IPv6:)?([0-9A-Fa-f:.]+)\]", re.IGNORECASE)  # no zone: ipaddress takes any text for one
_INVISIBLE = (
    "[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\ud800-\udfff\ufff9-\ufffb\U000e0000-\U000e0fff]|\\s"
)


@dataclass(frozen=True)
class Mailbox:
    """A checked local-part@domain, made by `Mailbox.parse`.

    Attributes:
        local: the local part as written, quotes included; compared byte for byte (RFC 5321 §2.4).
        domain: the domain in ASCII (A-labels), an address literal, or "" for a bare postmaster.
    """

    local: str
    domain: str

    @classmethod
    def parse(cls, text: str) -> Mailbox:
        """Parse `local@domain` and nothing else: no display name, list, comment, route or surrounding space.

        Raises:
            RecipientError: with the reason.
        """
        if (plain := _PLAIN.fullmatch(text)) is not None and len(
            text
        ) + 2 <= MAX_PATH:  # the fast path: nearly every address
            local, domain = plain.groups()
            if len(local) <= MAX_LOCAL_PART and is_domain(domain):
                return cls(local, domain)
        if len(text) > 4 * MAX_PATH:
            raise RecipientError("this address is too long: a path has at most 256 bytes (RFC 5321 §4.5.3.1.3)")
        if text.lower() == "postmaster":  # RFC 5321 §4.1.1.3: the one name that needs no domain
            return cls(text, "")
        local, at, domain = text.rpartition("@")
        if not at:
            raise _not_an_address(text, "it has no @")
        shown = local.replace(" ", "") if local.startswith('"') else local
        if invisible := re.search(_INVISIBLE, shown) or re.search(_INVISIBLE, domain):
            raise _not_an_address(text, f"it contains {_describe_character(invisible[0])}")
        _check_local_part(text, local)
        mailbox = cls(local, _ascii_domain(text, domain))
        if len(mailbox.address.encode("utf-8")) + 2 > MAX_PATH:
            raise _not_an_address(text, "a path has at most 256 bytes")
        return mailbox

    @property
    def address(self) -> str:
        """The address as it is written in a path, without the angle brackets."""
        return f"{self.local}@{self.domain}" if self.domain else self.local

    @property
    def key(self) -> str:
        """The form shared by all spellings of one mailbox: the local part as it is, the domain in lower case."""
        return f"{self.local}@{self.domain.lower()}"

    @property
    def needs_smtputf8(self) -> bool:
        """True if the local part is not ASCII (RFC 6531); the domain always is, in A-labels."""
        return not self.local.isascii()

    def __str__(self) -> str:
        return self.address


def _check_local_part(text: str, local: str) -> None:
    if not (re.fullmatch(_DOT_STRING, local) or re.fullmatch(_QUOTED_STRING, local)):
        raise _not_an_address(text, "the part before the @ is not a valid local part")
    if len(local.encode("utf-8")) > MAX_LOCAL_PART:
        raise _not_an_address(text, f"the part before the @ has more than {MAX_LOCAL_PART} bytes")


def _ascii_domain(text: str, domain: str) -> str:
    if domain.startswith("["):
        if not is_address_literal(domain):
            raise _not_an_address(text, "the part in brackets is not a valid address literal")
        return domain
    if not domain.isascii():
        domain = _to_a_labels(text, domain)
    if not is_domain(domain):
        raise _not_an_address(text, "the part after the @ is not a valid domain")
    return domain


@lru_cache(maxsize=4096)  # most addresses of a large list are at a few domains
def is_domain(text: str) -> bool:
    """Tell if this is a domain in ASCII (RFC 5321 §4.1.2)."""
    return len(text) <= MAX_DOMAIN and all(map(_LABEL.fullmatch, text.split(".")))


def is_address_literal(text: str) -> bool:
    """Tell if this is an IPv4 or IPv6 address in brackets (RFC 5321 §4.1.3)."""
    literal = _LITERAL.fullmatch(text)
    if literal is None:
        return False
    try:
        IPv6Address(literal[2]) if literal[1] else IPv4Address(literal[2])
    except AddressValueError:
        return False
    return True


def _to_a_labels(text: str, domain: str) -> str:
    import idna  # late: loads 10 ms of tables that most runs never need

    if len(domain) > MAX_DOMAIN:
        raise _not_an_address(text, "the domain is too long")
    try:
        # label by label: encoding the whole would also split at non-ASCII full stops and change the domain
        return b".".join(map(idna.alabel, domain.lower().split("."))).decode("ascii")
    except idna.IDNAError as error:
        raise _not_an_address(text, f"the domain is not valid: {safe_text(str(error), 120)}") from error


def _describe_character(character: str) -> str:
    if character in "\r\n":
        return "a line break"
    return "a space" if character == " " else f"the character U+{ord(character):04X}"


def _not_an_address(text: str, why: str) -> RecipientError:
    return RecipientError(f"“{safe_text(text, 80)}” is not an e-mail address: {why}")
