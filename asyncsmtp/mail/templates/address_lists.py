"""Templates of addresses that differ from row to row: Cc, Bcc, Reply-To, and From where its address does.

A cell may hold none, one or several: `Ann <ann@example.org>; bob@example.org`. A literal beside a cell is part of one
address: in `{{ name }} <{{ address }}>` and in `{{ user }}@example.org` a cell adds no further recipient, whatever it
holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from asyncsmtp.errors import MessageError, RecipientError, TemplateError
from asyncsmtp.mail import headers
from asyncsmtp.mail.address import Address, require_domain
from asyncsmtp.mail.mime import RowValues
from asyncsmtp.mail.templates.environment import Delimiters
from asyncsmtp.mail.templates.slotted_text import SlottedText
from asyncsmtp.mail.templates.variables import as_template_error, split_name_and_address
from asyncsmtp.protocol.envelope import Mailbox
from asyncsmtp.protocol.replies import safe_text

__all__ = ["MAX_COPIES", "AddressList", "Copies", "parse_addresses"]

MAX_COPIES = 100  # Cc and Bcc of one row

_QUOTED = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_SEPARATED = re.compile(rf"{_QUOTED}|<[^<>]*>|\([^()]*\)|[,;]", re.DOTALL)
_BLANK = " \t\u00a0"
_PLAIN_QUOTED = re.compile(r'"[A-Za-z0-9_+-][A-Za-z0-9._+-]*"')


def parse_addresses(text: str) -> tuple[Address, ...]:
    """Parse addresses with commas or semicolons between them; none in blank text.

    Raises:
        RecipientError: one is not valid, or the text has a line break.
    """
    if headers.has_control_character(text):
        what = "a line break: separate addresses by commas" if "\n" in text or "\r" in text else "a control character"
        raise RecipientError(f"“{safe_text(text, 80)}” has {what}")
    pieces = (piece.strip(_BLANK) for piece in _split(text, _SEPARATED))
    return tuple(_parse_one(piece) for piece in pieces if piece)


def _parse_one(text: str) -> Address:
    address = Address.parse(text)
    _check_mailbox(address.mailbox)
    return address


def _check_mailbox(mailbox: Mailbox) -> Mailbox:
    """Return it; as in the column of the recipients, a quoted local part is refused: it can smuggle."""
    if require_domain(mailbox).local[0] == '"' and not _PLAIN_QUOTED.fullmatch(mailbox.local):
        why = "has a quoted local part, which is not accepted from a file"
        raise RecipientError(f"“{safe_text(mailbox.address, 80)}” {why}")
    return mailbox


def _split(text: str, pattern: re.Pattern[str]) -> Iterator[str]:
    """Yield what is between the commas and semicolons that stand outside of quotes, brackets and templates."""
    start = 0
    for found in pattern.finditer(text):
        if found[0] in (",", ";"):
            yield text[start : found.start()]
            start = found.end()
    yield text[start:]


def _split_source(source: str, delimiters: Delimiters) -> list[str]:
    """Return the elements of a template; the comma of a condition separates nothing."""
    if delimiters.statement[0] in source or delimiters.comment[0] in source:
        return [source.strip()]
    start, end = map(re.escape, delimiters.value)
    separated = re.compile(rf"{start}.*?{end}|{_SEPARATED.pattern}", re.DOTALL)
    return [piece.strip() for piece in _split(source, separated) if piece.strip()]


_Split = Callable[[str], SlottedText]  # of a source


class _NamedAddress:
    """`{{ name }} <{{ address }}>`: one address, or none where the cell of the address is blank."""

    def __init__(self, name: SlottedText, address: SlottedText) -> None:
        self._name = name
        self._address = address

    def __call__(self, values: RowValues) -> tuple[Address, ...]:
        address = self._address(values).strip(_BLANK)
        if not address:
            return ()
        return (Address(self._name(values), _check_mailbox(Mailbox.parse(address))),)


class AddressList:
    """A template of addresses. Calling it with the values of a row returns them; a RecipientError names the key.

    Args:
        key: of the campaign, for messages: `cc`.
        split: compiles a piece of the source, see `split_slots`.
        delimiters: the marks in it.
    Attributes:
        constant: the addresses, if they are the same for every row.
    Raises:
        TemplateError: the source is wrong for every row.
    """

    def __init__(self, key: str, source: str, split: _Split, delimiters: Delimiters) -> None:
        self.key = key
        self.constant: tuple[Address, ...] | None = None
        self._elements: list[_NamedAddress | SlottedText] = []
        if delimiters.are_in(source):
            self._elements += [self._compile(element, split) for element in _split_source(source, delimiters)]
            return
        with as_template_error(key):
            self.constant = parse_addresses(source)
        if not self.constant:
            raise TemplateError("there is no address: leave it out, or name one", key)

    def __call__(self, values: RowValues) -> tuple[Address, ...]:
        if self.constant is not None:
            return self.constant
        try:
            return tuple(address for element in self._elements for address in _evaluate(element, values))
        except RecipientError as error:
            raise RecipientError(f"{self.key}: {error.reason}") from error
        except MessageError as error:  # of a condition or a calculation; it names the key
            raise RecipientError(str(error)) from error

    def find_mailbox(self, values: RowValues) -> Mailbox:
        """Return the only mailbox. Raises RecipientError: there are none or several."""
        found = self(values)
        if len(found) != 1:
            what = (
                "there is no address: fill in the cell" if not found else f"there are {len(found)} addresses, not one"
            )
            raise RecipientError(f"{self.key}: {what}")
        return found[0].mailbox

    def format(self, field: str) -> bytes | Callable[[RowValues], bytes]:
        """Return the header field: bytes if it is the same for every row."""
        if self.constant is not None:
            with as_template_error(field):
                return headers.format_addresses(field, self.constant)
        return lambda values: headers.format_addresses(field, self(values))

    def _compile(self, source: str, split: _Split) -> _NamedAddress | SlottedText:
        name, address = split_name_and_address(source)
        if not (source.endswith(">") and "<" in source) or not name + address:
            return split(source)
        text = split(name)
        with as_template_error(self.key):
            headers.format_unstructured(self.key, text.literals)
        return _NamedAddress(text, split(address))


def _evaluate(element: _NamedAddress | SlottedText, values: RowValues) -> Sequence[Address]:
    if isinstance(element, _NamedAddress):
        return element(values)
    text = element(values)
    if len(element.pieces) == 1:
        return parse_addresses(text)
    return (_parse_one(text.strip(_BLANK)),) if text.strip(_BLANK) else ()


class Copies(NamedTuple):
    """The templates of Cc and Bcc."""

    cc: AddressList | None
    bcc: AddressList | None

    def list_mailboxes(self, values: RowValues, key: Callable[[Mailbox], str]) -> list[tuple[str, Mailbox]]:
        """Return `cc` or `bcc`, and the mailbox, for everyone who gets a copy of a row's message, each once.

        The recipient in To has the message, and who is in Cc needs no Bcc.

        Args:
            key: of a mailbox, equal for the same person.
        Raises:
            RecipientError: an address is not valid, or there are too many.
        """
        seen = {key(values.to)}
        found: list[tuple[str, Mailbox]] = []
        for kind, template in (("cc", self.cc), ("bcc", self.bcc)):
            for address in template(values) if template is not None else ():
                if (known := key(address.mailbox)) not in seen:
                    seen.add(known)
                    found.append((kind, address.mailbox))
        if len(found) > MAX_COPIES:
            raise RecipientError(f"cc and bcc have {len(found)} addresses, and {MAX_COPIES} is the limit for a row")
        return found
