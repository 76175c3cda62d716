"""Messages of the standard library and finished messages in bytes: their envelope and content (RFC 5322).

The library's folding has let through header fields that nobody wrote (CVE-2024-6923 and others), and it differs between
Python versions. So addresses and text are written by our own code, and whatever the library still folds must come out
as exactly one field, or the message is refused.
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
from asyncsmtp.mail.address import Address
from asyncsmtp.mail.mime import encode_quoted_printable
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.envelope import Envelope, Mailbox, deduplicate

if TYPE_CHECKING:
    from email.message import Message as StdlibMessage

__all__ = ["content_from_bytes", "content_from_message", "extract_envelope", "parse_header_section"]


def extract_envelope(
    message: StdlibMessage,
    sender: str | Mailbox | None = None,
    recipients: Iterable[str | Mailbox] | str | Mailbox | None = None,
) -> Envelope:
    """Return the envelope of a message: Sender, or the only From, and all of To, Cc and Bcc.

    A message that was resent goes to the addresses in its Resent- fields. Given addresses replace those of the header;
    a recipient named twice is sent to once.

    Raises:
        MessageError: no author or recipient, an address that is not valid or is ambiguous, or two Resent- blocks.
    """
    block = _block(message)
    reverse_path = _author(message, block) if sender is None else sender
    forward_paths = _recipients(message, block) if recipients is None else recipients
    return Envelope.of(reverse_path, forward_paths)


def parse_address_field(value: object) -> tuple[Address, ...]:
    """Return the addresses of one field, groups opened. Raises RecipientError: one is not valid, or ambiguous."""
    if not isinstance(value, AddressHeader):
        return Address.parse_list(" ".join(str(value).splitlines()))
    if any(isinstance(defect, InvalidHeaderDefect) for defect in getattr(value, "defects", ())):
        raise RecipientError(f"“{value}” is not a list of addresses, or is ambiguous")
    return tuple(Address(each.display_name or "", Mailbox.parse(each.addr_spec)) for each in value.addresses)


def parse_header_section(octets: bytes) -> StdlibMessage:
    """Parse the header of a finished message."""
    return BytesHeaderParser(policy=default).parsebytes(octets)


def _block(message: StdlibMessage) -> str:
    """Return the prefix of the fields that count: "Resent-" or nothing."""
    resent = len(message.get_all("Resent-Date", []))
    if resent > 1:
        raise MessageError("it was resent more than once: give sender= and recipients=", "Resent-Date")
    return "Resent-" if resent else ""


def _author(message: StdlibMessage, block: str) -> Mailbox:
    for name in (f"{block}Sender", f"{block}From"):
        found = _named(message, name)
        if len(found) > 1:
            raise MessageError("there are several: set Sender, or give sender=", name)
        if found:
            return found[0].mailbox
    raise MessageError("there is none, so failures could not be reported: set it, or give sender=", f"{block}From")


def _recipients(message: StdlibMessage, block: str) -> tuple[Mailbox, ...]:
    found = deduplicate(address.mailbox for name in ("To", "Cc", "Bcc") for address in _named(message, block + name))
    if not found:
        raise MessageError("there is no recipient in To, Cc or Bcc", f"{block}To")
    return found


def _named(message: StdlibMessage, name: str) -> list[Address]:
    try:
        return [address for value in message.get_all(name, []) for address in parse_address_field(value)]
    except RecipientError as error:
        raise MessageError(error.reason, name) from error


_ADDRESSES = frozenset({"bcc", "cc", "from", "reply-to", "sender", "to"})
_UNFOLDED = re.compile(rb"[\r\n\0]")
_LINE_END = re.compile(rb"\r\n|\r|\n")
_BCC = re.compile(rb"^(?:resent-)?bcc[ \t]*:[^\r]*\r\n(?:[ \t][^\r]*\r\n)*", re.IGNORECASE | re.MULTILINE)


def content_from_message(message: StdlibMessage) -> Content:
    """Serialize a message without Bcc, as canonical bytes, 7-bit if possible; the message is not changed.

    Raises:
        MessageError: a header that would become two, a line over 998 bytes, or an unknown charset.
    """
    written = deepcopy(message)  # serializing sets boundaries; payloads are strings, which are not copied
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
        raise MessageError(f"the message cannot be serialized: {error}") from error
    return Content.of(octets.getvalue())


def content_from_bytes(octets: bytes) -> Content:
    """Return a finished message without Bcc and with CRLF line ends, otherwise unchanged."""
    head, blank, body = _LINE_END.sub(b"\r\n", octets).partition(b"\r\n\r\n")
    return Content.of(_BCC.sub(b"", head + b"\r\n") + blank[2:] + body)


def _break_long_lines(message: StdlibMessage) -> None:
    """Encode texts again whose lines are longer than a relay must accept (RFC 5321 §4.5.3.1.6)."""
    for part in message.walk():
        transfer = part.get("Content-Transfer-Encoding", "7bit").lower()
        if part.get_content_maintype() != "text" or transfer not in ("7bit", "8bit"):
            continue
        payload = part.get_payload(decode=True)
        if isinstance(payload, bytes) and max(map(len, _LINE_END.split(payload))) > headers.MAX_LINE_LENGTH:
            del part["Content-Transfer-Encoding"]
            part["Content-Transfer-Encoding"] = "quoted-printable"
            part.set_payload(encode_quoted_printable(_LINE_END.sub(b"\n", payload)).decode("ascii"))


def _set_boundaries(message: StdlibMessage) -> None:
    """Add missing boundaries; they are a hash of the payloads, so they cannot occur in them."""
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
    """Return the field written by our own code, or None to leave it to the library."""
    if name.lower().removeprefix("resent-") in _ADDRESSES:
        if isinstance(value, AddressHeader) and any(group.display_name for group in value.groups):
            return None
        if isinstance(value, AddressHeader) or not str(value).isascii():
            try:
                return headers.format_addresses(name, parse_address_field(value))
            except RecipientError:
                return None
    return headers.format_field(name, str(value)) if isinstance(value, UnstructuredHeader) else None


def _one_field(name: str, octets: bytes) -> bytes:
    """Refuse bytes that would be read as several fields, or as the end of the header section."""
    first, *more = octets.removesuffix(b"\r\n").split(b"\r\n")
    headers.check_header_name(name)
    begins = first.startswith(name.encode("ascii") + b":")
    if (
        not begins
        or any(not line.startswith((b" ", b"\t")) for line in more)
        or _UNFOLDED.search(b"".join([first, *more]))
    ):
        raise MessageError("a line break in it would begin another header", name)
    return octets


class _StrictEmailPolicy(EmailPolicy):
    """A policy that passes parsed fields on unfolded, and writes fields that a program set anew."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(refold_source="none", **settings)

    def fold_binary(self, name: str, value: Any) -> bytes:
        if isinstance(value, Header):
            value = value.encode(linesep=self.linesep)
        return _one_field(name, _field(name, value) or super().fold_binary(name, value))


class _StrictCompat32(Compat32):
    """The same check for messages with the library's older policy."""

    def fold_binary(self, name: str, value: Any) -> bytes:
        return _one_field(name, _field(name, value) or super().fold_binary(name, value))
