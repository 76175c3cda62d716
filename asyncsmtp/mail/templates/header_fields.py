"""Header fields of a template: octets where every row has the same, fillers where not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from asyncsmtp.errors import MessageError, RecipientError, TemplateError
from asyncsmtp.mail import headers
from asyncsmtp.mail.address import Address, with_domain
from asyncsmtp.mail.mime import Piece, RowValues
from asyncsmtp.mail.templates.environment import TemplateEnvironment
from asyncsmtp.mail.templates.slots import SlottedText, slots
from asyncsmtp.mail.templates.variables import Columns
from asyncsmtp.protocol.envelope import Mailbox

__all__ = ["HeaderFields", "in_every_row"]


class HeaderFields:
    """Writes the header fields of one template, checked against its columns.

    Every method raises TemplateError for what is wrong in every row. What is wrong in one row is a
    MessageError or RecipientError of the filler.
    """

    def __init__(self, columns: Columns, sandbox: TemplateEnvironment) -> None:
        self._columns = columns
        self._sandbox = sandbox

    def text(self, name: str, source: str) -> Piece:
        """A field of text, such as the Subject."""
        return self._field(self._slots(source, name), name, lambda value: headers.field(name, value))

    def date(self) -> Piece:
        """Date: as a rule one moment for a whole campaign, so it is written again only for another one."""
        last: tuple[datetime, bytes] | None = None

        def write(filling: RowValues) -> bytes:
            nonlocal last
            if last is None or last[0] is not filling.date:
                last = filling.date, headers.date(filling.date)
            return last[1]

        return write

    def author(self, source: str) -> tuple[Mailbox, Piece]:
        """From, and the mailbox in it: the name may differ from row to row, the address may not."""
        name, address = _halves(source)
        if _is_template(address):
            raise TemplateError("the address must be the same for every row; only the name may differ", "From")
        with in_every_row("From"):
            mailbox = with_domain(Mailbox.parse(address) if _is_template(name) else Address.parse(source).mailbox)
        if not _is_template(name):
            return mailbox, headers.addresses("From", [Address.parse(source)])
        return mailbox, self._named("From", name, lambda filling: mailbox)

    def recipient(self, name: str | None) -> Piece:
        """To: the mailbox of the row, with an optional display name."""
        return self._named("To", name or "", lambda filling: filling.to)

    def reply_to(self, source: str) -> Piece:
        """Reply-To: addresses as they stand, or one whose name or address differs from row to row."""
        if not _is_template(source):
            with in_every_row("Reply-To"):
                answered = Address.parse_list(source)
                for each in answered:
                    with_domain(each.mailbox)
                return headers.addresses("Reply-To", answered)
        name, address = _halves(source)
        wanted = self._slots(address, "Reply-To")
        return self._named("Reply-To", name, lambda filling: with_domain(Mailbox.parse(wanted(filling).strip())))

    def _named(self, field: str, name: str, mailbox: Callable[[RowValues], Mailbox]) -> Piece:
        shown = self._slots(name, field)
        with in_every_row(field):
            headers.unstructured(field, shown.literals)
        return lambda filling: headers.addresses(field, [Address(shown(filling), mailbox(filling))])

    def _field(self, text: SlottedText, name: str, write: Callable[[str], bytes]) -> Piece:
        with in_every_row(name):  # what is literal must be able to stand there, whatever the rows hold
            literal = write(text.literals)
        return literal if text.constant is not None else lambda filling: write(text(filling))

    def _slots(self, source: str, file: str) -> SlottedText:
        return slots(source, file, self._columns, self._sandbox)


@contextmanager
def in_every_row(file: str) -> Iterator[None]:
    """What is wrong here is wrong in every row: a TemplateError, not one error for each recipient."""
    try:
        yield
    except RecipientError as error:
        raise TemplateError(error.reason, file, field=file) from error
    except MessageError as error:
        raise TemplateError(str(error).removeprefix(f"{file}: "), file, field=error.field or file) from error


def _is_template(text: str) -> bool:
    return "{{" in text or "{%" in text or "{#" in text


def _halves(source: str) -> tuple[str, str]:
    """The display name, without quotation marks around it, and the address."""
    source = source.strip()
    if not source.endswith(">"):
        return "", source
    name, _, address = source[:-1].rpartition("<")
    name = name.strip()
    quoted = len(name) > 1 and name.startswith('"') and name.endswith('"')
    return name[1:-1] if quoted else name, address
