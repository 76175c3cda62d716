"""The envelope that the header of a finished message asks for (RFC 5322 §3.6.2, §3.6.3, §3.6.6)."""

from __future__ import annotations

from collections.abc import Iterable
from email.errors import InvalidHeaderDefect
from email.headerregistry import AddressHeader
from email.parser import BytesHeaderParser
from email.policy import default
from typing import TYPE_CHECKING

from asyncsmtp.errors import MessageError, RecipientError
from asyncsmtp.mail.address import Address, each_once
from asyncsmtp.protocol.envelope import Envelope, Mailbox

if TYPE_CHECKING:
    from email.message import Message as ParsedMessage

__all__ = ["addresses_of", "envelope_of", "head_of"]


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
