"""The address fields of messages of the standard library, and the envelope they make (RFC 5321 §2.3.1, RFC 5322 §3.6).

The library's parser differs between Python versions, reads bytes above 127 as U+FFFD, decodes encoded words inside of
addresses, loses quotation marks, and raises IndexError and the like for some texts. So a field is read from its source
by our own parser, whatever kind of message it is in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from email.errors import InvalidHeaderDefect
from email.header import Header, decode_header
from email.headerregistry import AddressHeader
from typing import TYPE_CHECKING, Any

from asyncsmtp.errors import MessageError, RecipientError
from asyncsmtp.mail.address import Address, AddressGroup, flatten_groups, parse_address_list, unquote_local_part
from asyncsmtp.mail.headers import encode_words
from asyncsmtp.protocol.envelope import Envelope, Mailbox, deduplicate
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from email.message import Message as StdlibMessage

__all__ = ["ADDRESS_FIELDS", "extract_envelope", "has_no_address", "parse_address_field"]

ADDRESS_FIELDS = frozenset({"bcc", "cc", "from", "reply-to", "sender", "to"})  # in lower case; Resent- may precede them

_FOLD = re.compile(r"(?:\r\n|\r|\n)(?=[ \t])")
_HARMLESS_DEFECTS = (  # parts of the library's texts
    *("trailing '.' in local part", "repeated '.'", "local-part is not dot-atom, quoted-string, or obs-local-part"),
    *("encoded word inside quoted string", "missing trailing whitespace after encoded-word"),
)


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
    fields: dict[str, list[object]] = {}
    for name, value in message.raw_items():  # as they were set or read, not parsed
        fields.setdefault(name.lower(), []).append(value)
    block = _block(fields)
    reverse_path = _author(fields, block) if sender is None else sender
    forward_paths = _recipients(fields, block) if recipients is None else recipients
    return Envelope.of(reverse_path, forward_paths)


def parse_address_field(value: object) -> tuple[Address | AddressGroup, ...]:
    """Return the addresses and groups of one field, as it was set or read.

    Raises:
        RecipientError: it is not a list of addresses, is ambiguous, or holds bytes that are not UTF-8.
    """
    if not isinstance(value, AddressHeader):
        return parse_address_list(
            _FOLD.sub("", _decode(_read_header_object(value) if isinstance(value, Header) else str(value)))
        )
    tree = getattr(value, "_parse_tree", None)  # the only place where quotation marks and encoded words are kept
    if tree is None or not _is_from_text(value, tree):  # of objects, whose names are literal
        return tuple(_convert_group(group) for group in value.groups)
    found = parse_address_list(_decode("".join(map(_unparse, tree))))
    if any(map(_is_serious, getattr(value, "defects", ()))) or not _is_agreed(value, flatten_groups(found)):
        raise RecipientError(f"“{safe_text(str(value), 80)}” is not a list of addresses, or is ambiguous")
    return found


def has_no_address(value: object) -> bool:
    """Return whether an address field is empty, as after `message["Cc"] = ""`, or has nothing but comments."""
    text = str(value).strip(" \t\r\n,")
    if "(" not in text or "@" in text:
        return not text
    try:
        return not parse_address_field(value)
    except RecipientError:
        return False


def _block(fields: dict[str, list[object]]) -> str:
    """Return the prefix of the fields that count: "Resent-" or nothing."""
    resent = len(fields.get("resent-date", []))
    if resent > 1:
        raise MessageError("it was resent more than once: give sender= and recipients=", "Resent-Date")
    return "Resent-" if resent else ""


def _author(fields: dict[str, list[object]], block: str) -> Mailbox:
    for name in (f"{block}Sender", f"{block}From"):
        found = _named(fields, name)
        if len(found) > 1:
            raise MessageError("there are several: set Sender, or give sender=", name)
        if found:
            return found[0].mailbox
    raise MessageError("there is none, so failures could not be reported: set it, or give sender=", f"{block}From")


def _recipients(fields: dict[str, list[object]], block: str) -> tuple[Mailbox, ...]:
    found = deduplicate(address.mailbox for name in ("To", "Cc", "Bcc") for address in _named(fields, block + name))
    if not found:
        raise MessageError("there is no recipient in To, Cc or Bcc", f"{block}To")
    return found


def _named(fields: dict[str, list[object]], name: str) -> tuple[Address, ...]:
    try:
        return flatten_groups(item for value in fields.get(name.lower(), []) for item in parse_address_field(value))
    except RecipientError as error:
        raise MessageError(error.reason, name) from error


def _decode(text: str) -> str:
    """Return text in which bytes are surrogates, as the library's parser leaves them, with those bytes as UTF-8."""
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError as error:
        raise RecipientError("it holds bytes that are not UTF-8: write the field anew") from error


def _read_header_object(value: Header) -> str:
    """Return the text of a `Header`; bytes of an unknown charset become surrogates, not U+FFFD."""
    if "\N{REPLACEMENT CHARACTER}" not in (text := str(value)):
        return text
    pieces: list[tuple[Any, Any]] = list(decode_header(value))
    known = {None: "utf-8", "unknown-8bit": "utf-8"}
    return " ".join(
        each if isinstance(each, str) else each.decode(known.get(charset, charset), "surrogateescape")
        for each, charset in pieces
    )


def _convert_group(group: Any) -> Address | AddressGroup:
    members = tuple(
        Address(_decode(each.display_name), Mailbox.parse(_decode(each.addr_spec))) for each in group.addresses
    )
    return (
        members[0]
        if group.display_name is None and members
        else AddressGroup(_decode(group.display_name or ""), members)
    )


def _is_from_text(value: AddressHeader, tree: Any) -> bool:
    """Return whether a field was set as text, and not as objects, whose text the library parses too."""
    texts = [(each.display_name or "", each.local_part or "", each.domain or "") for each in tree.all_mailboxes]
    return texts == [(each.display_name, each.username, each.domain) for each in value.addresses]


def _is_serious(defect: Exception) -> bool:
    """Return whether the library has completed or left out something."""
    return isinstance(defect, InvalidHeaderDefect) and not any(each in str(defect) for each in _HARMLESS_DEFECTS)


def _unparse(node: Any) -> str:
    """Return the text that a node of the library's parse tree was made of."""
    kind = node.token_type
    if kind == "encoded-word":
        return " ".join(encode_words(_decode(str(node))))
    if kind == "fws":  # it is empty between encoded words
        return str(node) or " "
    if kind == "obs-local-part":  # with spaces, or once an encoded word, of which nothing is left
        raise RecipientError(f"“{safe_text(str(node), 80)}” is not a valid local part")
    if kind == "local-part" and _has_encoded_word(node):
        raise RecipientError(f"“{safe_text(str(node), 80)}” is not a valid local part: it was an encoded word")
    if isinstance(node, str) or kind in ("comment", "quoted-string"):
        return str(node)
    return "".join(map(_unparse, node))


def _has_encoded_word(node: Any) -> bool:
    kind = node.token_type
    return kind == "encoded-word" or (
        kind != "comment" and not isinstance(node, str) and any(map(_has_encoded_word, node))
    )


def _is_agreed(value: AddressHeader, found: tuple[Address, ...]) -> bool:
    """Return whether the library reads the same mailboxes: its readers see them in `message["To"]`."""
    if len(found) != len(value.addresses):
        return False
    for ours, theirs in zip((each.mailbox for each in found), value.addresses, strict=True):
        local, domain = unquote_local_part(ours.local), _decode(theirs.domain)
        if local != _decode(theirs.username) or (domain.isascii() and domain.lower() != ours.domain.lower()):
            return False
    return True
