"""A message of the standard library as octets, checked field by field (RFC 5322).

The library's folding has let through header fields that nobody wrote (CVE-2024-6923 and kin), and it
differs between interpreters. So addresses and text are written by our own code, and whatever the library
still folds must come out as exactly one field, or nothing is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from copy import deepcopy
from email.errors import InvalidHeaderDefect
from email.errors import MessageError as LibraryError
from email.generator import BytesGenerator
from email.header import Header
from email.headerregistry import AddressHeader, UnstructuredHeader
from email.parser import BytesHeaderParser
from email.policy import Compat32, EmailPolicy, default
from hashlib import blake2b
from io import BytesIO
from typing import TYPE_CHECKING, Any

from asyncsmtp.errors import MessageError, RecipientError
from asyncsmtp.mail import headers
from asyncsmtp.mail.address import Address, each_once
from asyncsmtp.mail.mime import MAX_LINE, quoted_printable
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.envelope import Envelope, Mailbox

if TYPE_CHECKING:
    from email.message import Message as ParsedMessage

__all__ = ["addresses_of", "content_of", "content_of_octets", "envelope_of", "head_of"]


def envelope_of(
    message: ParsedMessage,
    sender: str | Mailbox | None = None,
    recipients: Iterable[str | Mailbox] | str | Mailbox | None = None,
) -> Envelope:
    """Sender, or the one From, is the reverse-path; To, Cc and Bcc, all of them, are the forward-paths.

    A message that was resent goes to those in its Resent- fields. An address that is given wins over the
    header; a recipient named twice is mailed once.

    Raises:
        MessageError: no author or recipient, an address that is none or unclear, two Resent- blocks.
    """
    block = _block(message)
    reverse_path = _author(message, block) if sender is None else sender
    forward_paths = _recipients(message, block) if recipients is None else recipients
    return Envelope.of(reverse_path, forward_paths)


def addresses_of(value: object) -> tuple[Address, ...]:
    """The addresses of one header field, groups opened.

    Raises:
        RecipientError: one of them is not an address, or the field can be read in two ways.
    """
    if not isinstance(value, AddressHeader):
        return Address.parse_list(" ".join(str(value).splitlines()))
    if any(isinstance(defect, InvalidHeaderDefect) for defect in getattr(value, "defects", ())):
        raise RecipientError(f"“{value}” is not a list of addresses, or can be read in two ways")
    return tuple(Address(each.display_name or "", Mailbox.parse(each.addr_spec)) for each in value.addresses)


def head_of(octets: bytes) -> ParsedMessage:
    """The header of a finished message, read but not changed."""
    return BytesHeaderParser(policy=default).parsebytes(octets)


def _block(message: ParsedMessage) -> str:
    """The prefix of the fields that count."""
    resent = len(message.get_all("Resent-Date", []))
    if resent > 1:
        raise MessageError("it was resent more than once: give the sender and the recipients", "Resent-Date")
    return "Resent-" if resent else ""


def _author(message: ParsedMessage, block: str) -> Mailbox:
    for name in (f"{block}Sender", f"{block}From"):
        found = _named(message, name)
        if len(found) > 1:
            raise MessageError("there are several: say in Sender, or by sender=, who is responsible", name)
        if found:
            return found[0].mailbox
    raise MessageError("there is none, so nobody would hear of a failure: set it, or give a sender", f"{block}From")


def _recipients(message: ParsedMessage, block: str) -> tuple[Mailbox, ...]:
    found = each_once(address for name in ("To", "Cc", "Bcc") for address in _named(message, block + name))
    if not found:
        raise MessageError("there is no recipient in To, Cc or Bcc", f"{block}To")
    return found


def _named(message: ParsedMessage, name: str) -> list[Address]:
    try:
        return [address for value in message.get_all(name, []) for address in addresses_of(value)]
    except RecipientError as error:
        raise MessageError(error.reason, name) from error


_ADDRESSES = frozenset({"bcc", "cc", "from", "reply-to", "sender", "to"})
_LINE_END = re.compile(rb"\r\n|\r|\n")
_BCC = re.compile(rb"^(?:resent-)?bcc[ \t]*:[^\r]*\r\n(?:[ \t][^\r]*\r\n)*", re.IGNORECASE | re.MULTILINE)


def content_of(message: ParsedMessage) -> Content:
    """Write a message, without Bcc, as canonical octets, of seven bits where that is possible.

    The message itself is not changed.

    Raises:
        MessageError: a header that would become two, a line over 998 octets, an unknown charset.
    """
    written = deepcopy(message)  # writing it sets boundaries; the payloads, being text, are not copied
    del written["Bcc"], written["Resent-Bcc"]
    if message.get_content_type() != "multipart/signed":
        _break_long_lines(written)
    _set_boundaries(written)
    policy = _StrictCompat32 if isinstance(message.policy, Compat32) else _StrictEmailPolicy
    octets = BytesIO()
    try:
        generator = BytesGenerator(octets, mangle_from_=False, policy=policy(linesep="\r\n", cte_type="7bit"))
        generator.flatten(written)
    except MessageError:
        raise
    except (LibraryError, LookupError, ValueError) as error:
        raise MessageError(f"the message cannot be written: {error}") from error
    return Content.of(octets.getvalue())


def content_of_octets(octets: bytes) -> Content:
    """Take a finished message as it is, but for Bcc and line ends that are not CRLF."""
    head, blank, body = _LINE_END.sub(b"\r\n", octets).partition(b"\r\n\r\n")
    return Content.of(_BCC.sub(b"", head + b"\r\n") + blank[2:] + body)


def _break_long_lines(message: ParsedMessage) -> None:
    """Encode again the texts whose lines no relay would take (RFC 5321 §4.5.3.1.6)."""
    for part in message.walk():
        transfer = part.get("Content-Transfer-Encoding", "7bit").lower()
        if part.get_content_maintype() != "text" or transfer not in ("7bit", "8bit"):
            continue
        payload = part.get_payload(decode=True)
        if isinstance(payload, bytes) and max(map(len, _LINE_END.split(payload))) > MAX_LINE:
            del part["Content-Transfer-Encoding"]
            part["Content-Transfer-Encoding"] = "quoted-printable"
            part.set_payload(quoted_printable(_LINE_END.sub(b"\n", payload)).decode("ascii"))


def _set_boundaries(message: ParsedMessage) -> None:
    """Give multiparts the boundary they lack; made from the payloads, it cannot occur in them."""
    wanting = [
        part for part in message.walk() if part.get_content_maintype() == "multipart" and not part.get_boundary()
    ]
    if not wanting:
        return
    payloads = (part.get_payload() for part in message.walk() if not part.is_multipart())
    digest = blake2b(repr(list(payloads)).encode("utf-8"), digest_size=12).hexdigest()
    for number, part in enumerate(wanting):
        part.set_boundary(f"=_{digest}_{number}")


def _field(name: str, value: object) -> bytes | None:
    """The field in our own hand, or None if it stays with the library."""
    if name.lower().removeprefix("resent-") in _ADDRESSES:
        if isinstance(value, AddressHeader) and any(group.display_name for group in value.groups):
            return None
        if isinstance(value, AddressHeader) or not str(value).isascii():
            try:
                return headers.addresses(name, addresses_of(value))
            except RecipientError:
                return None
    return headers.field(name, str(value)) if isinstance(value, UnstructuredHeader) else None


def _one_field(name: str, octets: bytes) -> bytes:
    """Refuse what would be read as more, or as the end of the header section."""
    first, *more = octets.removesuffix(b"\r\n").split(b"\r\n")
    headers.check_name(name)
    begins = first.startswith(name.encode("ascii") + b":")
    if not begins or any(not line.startswith((b" ", b"\t")) for line in more) or _bare(first, *more):
        raise MessageError("a line break in it would begin another header", name)
    return octets


def _bare(*lines: bytes) -> bool:
    return any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines)


class _StrictEmailPolicy(EmailPolicy):
    """What was parsed is passed on unfolded; what a program set is written anew."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(refold_source="none", **settings)

    def fold_binary(self, name: str, value: Any) -> bytes:
        if isinstance(value, Header):
            value = value.encode(linesep=self.linesep)
        return _one_field(name, _field(name, value) or super().fold_binary(name, value))


class _StrictCompat32(Compat32):
    def fold_binary(self, name: str, value: Any) -> bytes:
        return _one_field(name, _field(name, value) or super().fold_binary(name, value))
