"""Header fields of a template: bytes if every row has the same, otherwise functions that encode a row's values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from asyncsmtp.errors import MessageError, RecipientError, TemplateError
from asyncsmtp.mail import headers
from asyncsmtp.mail.address import Address, require_domain
from asyncsmtp.mail.mime import Piece, RowValues
from asyncsmtp.mail.templates.environment import TemplateEnvironment
from asyncsmtp.mail.templates.slots import SlottedText, split_slots
from asyncsmtp.mail.templates.variables import Columns
from asyncsmtp.protocol.envelope import Mailbox

__all__ = ["HeaderFields", "as_template_error"]


class HeaderFields:
    """Builder for the header fields of one template, checked against its columns.

    Every method raises TemplateError for a fault of every row. A fault of one row is a MessageError or RecipientError
    of the function that a method returns.
    """

    def __init__(self, columns: Columns, sandbox: TemplateEnvironment) -> None:
        self._columns = columns
        self._sandbox = sandbox

    def text(self, name: str, source: str) -> Piece:
        """Return a field of text, such as Subject."""
        return self._field(self._slots(source, name), name, lambda value: headers.format_field(name, value))

    def date(self) -> Piece:
        """Return the Date field; it is encoded again only for another date, since a campaign has one as a rule."""
        last: tuple[datetime, bytes] | None = None

        def write(filling: RowValues) -> bytes:
            nonlocal last
            if filling.date is None:
                return b""
            if last is None or last[0] is not filling.date:
                last = filling.date, headers.format_date(filling.date)
            return last[1]

        return write

    def author(self, source: str) -> tuple[Mailbox, Piece]:
        """Return the mailbox in From, and the field: the name may differ from row to row, the address may not."""
        name, address = _split_name_and_address(source)
        if _is_template(address):
            raise TemplateError("the address must be the same for every row; only the name may differ", "From")
        with as_template_error("From"):
            mailbox = require_domain(Mailbox.parse(address) if _is_template(name) else Address.parse(source).mailbox)
        if not _is_template(name):
            return mailbox, headers.format_addresses("From", [Address.parse(source)])
        return mailbox, self._named("From", name, lambda filling: mailbox)

    def recipient(self, name: str | None) -> Piece:
        """Return the To field: the mailbox of the row, with an optional display name."""
        return self._named("To", name or "", lambda filling: filling.to)

    def reply_to(self, source: str) -> Piece:
        """Return the Reply-To field: fixed addresses, or one whose name or address differs from row to row."""
        if not _is_template(source):
            with as_template_error("Reply-To"):
                answered = Address.parse_list(source)
                for each in answered:
                    require_domain(each.mailbox)
                return headers.format_addresses("Reply-To", answered)
        name, address = _split_name_and_address(source)
        wanted = self._slots(address, "Reply-To")
        return self._named("Reply-To", name, lambda filling: require_domain(Mailbox.parse(wanted(filling).strip())))

    def _named(self, field: str, name: str, mailbox: Callable[[RowValues], Mailbox]) -> Piece:
        shown = self._slots(name, field)
        with as_template_error(field):
            headers.format_unstructured(field, shown.literals)
        return lambda filling: headers.format_addresses(field, [Address(shown(filling), mailbox(filling))])

    def _field(self, text: SlottedText, name: str, write: Callable[[str], bytes]) -> Piece:
        with as_template_error(name):  # the literal text must be valid, whatever the rows hold
            literal = write(text.literals)
        return literal if text.constant is not None else lambda filling: write(text(filling))

    def _slots(self, source: str, file: str) -> SlottedText:
        return split_slots(source, file, self._columns, self._sandbox)


@contextmanager
def as_template_error(file: str) -> Iterator[None]:
    """Turn errors in the block, which are faults of every row, into one TemplateError."""
    try:
        yield
    except RecipientError as error:
        raise TemplateError(error.reason, file, field=file) from error
    except MessageError as error:
        raise TemplateError(str(error).removeprefix(f"{file}: "), file, field=error.field or file) from error


def _is_template(text: str) -> bool:
    return "{{" in text or "{%" in text or "{#" in text


def _split_name_and_address(source: str) -> tuple[str, str]:
    """Return the display name, without quotation marks around it, and the address."""
    source = source.strip()
    if not source.endswith(">"):
        return "", source
    name, _, address = source[:-1].rpartition("<")
    name = name.strip()
    quoted = len(name) > 1 and name.startswith('"') and name.endswith('"')
    return name[1:-1] if quoted else name, address
