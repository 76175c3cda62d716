"""Templates of campaigns: compiled once, then composed into a message for each recipient."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING

from asyncsmtp.errors import InvalidArgument, MessageError, RecipientError, TemplateError, check_type
from asyncsmtp.mail import headers, mime
from asyncsmtp.mail.address import Address, flatten_groups, parse_address_list, require_domain
from asyncsmtp.mail.attachment import Attachment, AttachmentFinder, AttachmentPattern, AttachmentReader
from asyncsmtp.mail.list_unsubscribe import UNSUBSCRIBE_URL_VARIABLE, ReturnPath, Unsubscribe
from asyncsmtp.mail.message import Message
from asyncsmtp.mail.mime import ConvertingPart, Entity, Piece, RowValues, encode_attachment, list_rows
from asyncsmtp.mail.signing.dkim import Signer
from asyncsmtp.mail.signing.smime import SmimeSigner
from asyncsmtp.mail.templates.environment import TemplateEnvironment, TemplateLoader
from asyncsmtp.mail.templates.slotted_text import SlottedText, split_slots, text_part
from asyncsmtp.mail.templates.variables import Columns, as_template_error, build_columns, split_name_and_address
from asyncsmtp.protocol.content import Content, has_leading_dots
from asyncsmtp.protocol.envelope import Envelope, Mailbox

if TYPE_CHECKING:
    from asyncsmtp.mail.conversion.convert import Conversion
    from asyncsmtp.mail.templates.address_lists import AddressList, Copies
    from asyncsmtp.mail.templates.column_formats import ColumnFormats

__all__ = ["Composer", "HeaderFields", "Template"]


class HeaderFields:
    """Builder for the header fields of one template, checked against its columns.

    Every method raises TemplateError for a fault of every row. A fault of one row is a MessageError or RecipientError
    of the function that a method returns.
    """

    def __init__(self, columns: Columns, environment: TemplateEnvironment) -> None:
        self._columns = columns
        self._environment = environment

    def text(self, name: str, source: str) -> Piece:
        """Return a field of text, such as Subject."""
        text = self._slots(source, name)
        with as_template_error(name):  # the literal text must be valid, whatever the rows hold
            literal = headers.format_field(name, text.literals)
        return literal if text.constant is not None else lambda values: headers.format_field(name, text(values))

    def date(self) -> Piece:
        """Return the Date field; it is encoded again only for another date, since a campaign has one as a rule."""
        last: tuple[datetime, bytes] | None = None

        def write(values: RowValues) -> bytes:
            nonlocal last
            if values.date is None:
                return b""
            if last is None or last[0] is not values.date:
                last = values.date, headers.format_date(values.date)
            return last[1]

        return write

    def addresses(self, key: str, source: str) -> AddressList:
        """Return a template of addresses, for the key `cc` and the like."""
        from asyncsmtp.mail.templates.address_lists import AddressList  # late: few campaigns have one

        return AddressList(key, source, lambda piece: self._slots(piece, key), self._columns.delimiters)

    def copies(self, cc: str | None, bcc: str | None) -> Copies | None:
        """Return the templates of Cc and Bcc; None if there are neither."""
        if cc is None and bcc is None:
            return None
        from asyncsmtp.mail.templates.address_lists import Copies  # late, as above

        made = (None if source is None else self.addresses(key, source) for key, source in (("cc", cc), ("bcc", bcc)))
        return Copies(*made)

    def author(self, source: str) -> tuple[Mailbox, Piece]:
        """Return the mailbox in From, and the field, where at most the name differs from row to row."""
        name, address = split_name_and_address(source)
        with as_template_error("From"):
            mailbox = require_domain(
                Mailbox.parse(address) if self.is_template(name) else Address.parse(source).mailbox
            )
        if not self.is_template(name):
            return mailbox, headers.format_addresses("From", [Address.parse(source)])
        return mailbox, self._named("From", name, lambda values: mailbox)

    def recipient(self, name: str | None) -> Piece:
        """Return the To field: the mailbox of the row, with an optional display name."""
        return self._named("To", name or "", lambda values: values.to)

    def reply_to(self, source: str) -> Piece:
        """Return the Reply-To field: fixed addresses, or those of a row."""
        if not self.is_template(source):
            with as_template_error("Reply-To"):
                answered = parse_address_list(source)
                for each in flatten_groups(answered):
                    require_domain(each.mailbox)
                return headers.format_addresses("Reply-To", answered)
        return self.addresses("reply_to", source).format("Reply-To")

    def _named(self, field: str, name: str, mailbox: Callable[[RowValues], Mailbox]) -> Piece:
        shown = self._slots(name, field)
        with as_template_error(field):
            headers.format_unstructured(field, shown.literals)
        return lambda values: headers.format_addresses(field, [Address(shown(values), mailbox(values))])

    def is_template(self, text: str) -> bool:
        """Return whether a text may differ from row to row."""
        return self._columns.delimiters.are_in(text)

    def _slots(self, source: str, file: str) -> SlottedText:
        return split_slots(source, file, self._columns, self._environment)


def build_file_part(
    wanted: Attachment | AttachmentPattern,
    columns: Columns,
    environment: TemplateEnvironment,
    read: AttachmentReader | None,
    write: Callable[[Attachment], tuple[bytes, ...]],
) -> Entity:
    """Return the part for an image: encoded now if it is the same for all, otherwise for each row."""
    if isinstance(wanted, Attachment):
        return write(wanted)
    from asyncsmtp.mail.templates.attached_files import FilePattern  # late: most campaigns have no such files

    pattern = FilePattern(wanted, columns, environment, read)
    if pattern.is_constant:
        with as_template_error(wanted.path):
            return write(pattern.read_one(None))
    return (lambda values: b"".join(write(pattern.read_one(values))),)


class Composer:
    """A compiled template, made by `Template.compile`.

    The bytes that all messages share are the same `bytes` objects in all of them.

    Attributes:
        author: the mailbox in From, which is also the reverse-path unless there is a return path; None if it differs
            from row to row.
        has_copies: whether there are Cc or Bcc, whom `list_copies` names.
        reads_files: whether attachments differ from row to row, so that `compose` reads and encodes them.
        used_columns: the columns that the template names; the others may be empty or missing.
        formats: the dates and amounts in columns, to be read before the first row; None if there are none.
    """

    def __init__(
        self,
        author: Mailbox | AddressList,
        head: Sequence[Piece],
        body: Sequence[Piece],
        names: Mapping[str, str],
        signer: Signer | None,
        smime_signer: SmimeSigner | None,
        unsubscribe: Unsubscribe | None,
        return_path: ReturnPath | None,
        reads_files: bool = False,
        used_columns: frozenset[str] = frozenset(),
        formats: ColumnFormats | None = None,
        copies: Copies | None = None,
        has_rows: bool = False,
    ) -> None:
        self.author = author if isinstance(author, Mailbox) else None
        self.has_copies = copies is not None
        self.formats = formats
        self._list_rows = list_rows if has_rows else lambda fields: None
        self._find_author: Callable[[RowValues], Mailbox] = (
            (lambda values: author) if isinstance(author, Mailbox) else author.find_mailbox
        )
        self._copies = copies
        self.used_columns = used_columns
        self.reads_files = reads_files
        self._head = mime.join_pieces(head)
        self._body = mime.join_small_pieces(body)
        self._converting = [piece for piece in body if isinstance(piece, ConvertingPart)]
        self._rendered: tuple[Mailbox, Mapping[str, str], RowValues] | None = None
        self._dotted = any(has_leading_dots(piece) for piece in self._body if isinstance(piece, bytes))
        self._eight_bit = any(not piece.isascii() for piece in self._body if isinstance(piece, bytes))
        self._names = names
        self._signer = signer
        self._unsubscribe = unsubscribe
        self._return_path = return_path
        self._smime_signer = smime_signer

    def __repr__(self) -> str:
        return f"<Composer from {self.author or 'an address of each row'}: {len(self._names)} columns>"

    def _check_draft(self, message_id: str | None) -> None:
        if self._signer is not None:
            why = "a message needs its Date and Message-ID before it is signed"
            raise InvalidArgument(f"{why}: give message_id= and date=")
        if message_id is None and self._return_path is not None and self._return_path.has_token:
            raise InvalidArgument("the token of the return path is made from the Message-ID: give message_id=")

    def compose(
        self,
        to: str | Mailbox,
        fields: Mapping[str, str],
        *,
        message_id: str | None = None,
        date: datetime | None = None,
        row: int | None = None,
    ) -> Message:
        """Return the message for one recipient; the same arguments give the same bytes.

            composer.compose("ann@example.com", {"name": "Ann"})

        Args:
            to: the recipient's address.
            fields: column to cell, as text. A cell is a value: nothing in it is interpreted.
            message_id: left@right, with or without angle brackets. If it or `date` is None, the field is left out, the
                message is a draft, and sending it adds the field.
            row: the number that an error names.
        Raises:
            RecipientError: this row cannot be composed: an address that is not valid, a line break in a header, a
                missing value, a character that no encoding can carry, a condition or calculation that fails.
            InvalidArgument: the messages are signed or have a return path with a token, which needs `message_id` and
                `date`.
            TypeError: an argument or a cell has the wrong type; the message names it.
        """
        if is_draft := message_id is None or date is None:
            self._check_draft(message_id)
        rendered, self._rendered = self._rendered, None
        try:
            if isinstance(to, str):
                to = Mailbox.parse(to)
            if message_id is not None and message_id.startswith("<"):
                message_id = headers.strip_brackets(message_id)
            if rendered is not None and rendered[0] is to and rendered[1] is fields:
                values = rendered[2]
                values.message_id, values.date = message_id, date
            else:
                values = self._row_values(to, fields, message_id, date)
            head = self._head if isinstance(self._head, bytes) else self._head(values)
            parts = [head]
            author = self.author or self._find_author(values)
            pieces, needs_dot_stuffing = self._pieces(values) if self._converting else (self._body, self._dotted)
            needs_dot_stuffing = needs_dot_stuffing or has_leading_dots(head)
            eight_bit = self._eight_bit  # only an attached message is; whatever else is in a body is encoded
            for piece in pieces:
                if isinstance(piece, bytes):
                    parts.append(piece)
                else:
                    parts.append(encoded := piece(values))
                    needs_dot_stuffing = needs_dot_stuffing or has_leading_dots(encoded)
                    eight_bit = eight_bit or not encoded.isascii()
        except RecipientError as error:
            raise RecipientError(error.reason, row) from error
        except MessageError as error:
            raise RecipientError(f"{error}{headers.name_column(error, fields)}", row) from error
        except (AttributeError, TypeError):  # the types are checked here, since most messages have the right ones
            _check_arguments(to, fields, message_id, date)
            raise
        utf8 = not head.isascii()
        size = sum(map(len, parts))
        content = Content(tuple(parts), size, eight_bit or utf8, utf8, needs_dot_stuffing=needs_dot_stuffing)
        if self._smime_signer is not None:
            content = self._smime_signer.sign_content(content)
        if self._signer is not None:  # after S/MIME, which changes the body
            content = self._signer.sign_content(content, date)
        reverse_path = author if self._return_path is None else self._return_path.address_for(message_id)
        return Message(Envelope(reverse_path, (to,)), content, is_draft)

    def compose_copy(
        self,
        to: Mailbox,
        fields: Mapping[str, str],
        *,
        recipient: Mailbox,
        token: str,
        message_id: str,
        date: datetime,
        row: int | None = None,
    ) -> Message:
        """Return the message of a row for somebody in Cc or Bcc: the same one, in an envelope for `recipient`.

        The links for unsubscribing are those of `recipient`, so that nobody unsubscribes the one in To.

        Args:
            to, fields, date, row: as of `compose`.
            token: in the return path, to tell the bounces of a row's recipients apart.
            message_id: of the message to the one in To.
        Raises:
            RecipientError: as `compose` does.
        """
        values = self._row_values(to, fields, message_id, date, recipient)
        self._rendered = to, fields, values
        message = self.compose(to, fields, message_id=message_id, date=date, row=row)
        sender = message.envelope.reverse_path if self._return_path is None else self._return_path.address_for(token)
        return Message(Envelope(sender, (recipient,)), message.content)

    def list_copies(
        self, to: Mailbox, fields: Mapping[str, str], key: Callable[[Mailbox], str] = attrgetter("key")
    ) -> Sequence[tuple[str, Mailbox]]:
        """Return `cc` or `bcc`, and the mailbox, of everyone beside `to` who gets the message of a row, each once.

        Args:
            key: of a mailbox, equal for the same person.
        Raises:
            RecipientError: an address is not valid; the reason names the key.
        """
        values = RowValues(to, fields, None, None, self._names, self._list_rows(fields))
        return [] if self._copies is None else self._copies.list_mailboxes(values, key)

    def find_author(self, to: Mailbox, fields: Mapping[str, str]) -> Mailbox:
        """Return the mailbox in From of a row's message. Raises RecipientError: it is not valid."""
        return self.author or self._find_author(RowValues(to, fields, None, None, self._names, self._list_rows(fields)))

    def pending_conversion(self, to: Mailbox, fields: Mapping[str, str]) -> Callable[[], None] | None:
        """Return the conversion that `compose` would have to do first for this row; None if there is none.

        A conversion may take many milliseconds: a coroutine runs it in a thread, one at a time. After it, `compose` is
        fast for this row and all with the same skeleton. `compose`, called next with the same `fields`, reuses what
        was rendered here.
        """
        if not self._converting:
            return None
        values = self._row_values(to, fields, "", datetime.min)  # compose knows them
        try:
            pending = [found for part in self._converting if (found := part.pending_conversion(values)) is not None]
        except MessageError:
            return None  # compose reports it, with the row
        self._rendered = to, fields, values
        return partial(_convert, pending) if pending else None

    def _pieces(self, values: RowValues) -> tuple[list[Piece], bool]:
        """Return the body with converted parts for a row, and whether its bytes have lines that begin with a dot."""
        pieces: list[Piece] = []
        is_dotted = self._dotted
        for piece in self._body:
            if isinstance(piece, ConvertingPart):
                converted, has_dots = piece.pieces(values)
                pieces += converted
                is_dotted = is_dotted or has_dots
            else:
                pieces.append(piece)
        return pieces, is_dotted

    def _row_values(
        self,
        to: Mailbox,
        fields: Mapping[str, str],
        message_id: str | None,
        date: datetime | None,
        reader: Mailbox | None = None,
    ) -> RowValues:
        rows = self._list_rows(fields)
        if self._unsubscribe is not None:
            fields = {**fields, UNSUBSCRIBE_URL_VARIABLE: self._unsubscribe.url_for(reader or to)}
        return RowValues(to, fields, message_id, date, self._names, rows, reader)


def _convert(pending: Sequence[Callable[[], object]]) -> None:
    with suppress(MessageError):  # compose reports it, with the row
        for conversion in pending:
            conversion()


def _check_arguments(to: object, fields: Mapping[str, str], message_id: object, date: object) -> None:
    check_type("to", to, str, Mailbox)
    check_type("fields", fields, Mapping)
    check_type("message_id", message_id, str, None)
    check_type("date", date, datetime, None)
    for column, value in fields.items():
        check_type(f"fields[{column!r}]", value, str)


_CID_REFERENCE = re.compile(  # in HTML, and as ![…](cid:…) in Markdown
    r"""(?:(?:\b(?:src|background|href)\s*=|\burl\()\s*["']?|\]\(\s*<?)cid:([^"'\s<>(){}]+)""", re.IGNORECASE
)


_TYPES: dict[str, tuple[type | None, ...]] = {  # of the fields of a Template
    **dict.fromkeys(("from_", "subject", "text_name", "html_name"), (str,)),
    **dict.fromkeys(("text", "html", "reply_to", "to_name", "cc", "bcc", "return_path"), (str, None)),
    **dict.fromkeys(("attachments", "delimiters"), (Sequence,)),
    "inline": (Mapping,),
    "headers": (Mapping,),
    "unsubscribe": (Unsubscribe, None),
    "loader": (Callable, None),  # type: ignore[dict-item]
}


@dataclass(frozen=True)
class Template:
    """The Jinja2 sources of a message, with attachments and headers. Cells are values, never part of a source.

    A column is reached by its name if that is an identifier (`{{ name }}`), by the identifier made from
    it (`{{ E_Mail_Address }}`), and always by `{{ row["E-Mail Address"] }}`.

    Attributes:
        from_: `Name <address>`; both may be templates.
        subject: one line.
        text: the plain text, `html` the HTML, in which cells are escaped; at least one of them.
        text_name: the file that a TemplateError names.
        text_conversion: makes the plain text from the rendered `text`, which is HTML or includes it;
            `html_conversion` makes the HTML from the rendered `html`. None: it is sent as it is rendered.
        attachments: files for all recipients, or paths that differ from row to row.
        inline: images by the name with which the HTML shows them: `<img src="cid:name">`.
        headers: further header fields; the values are templates.
        reply_to: `Name <address>`, or several with commas between them; all may be templates.
        to_name: the display name in To, a template; by default To has the address only.
        cc, bcc: further recipients, as in `reply_to`; nobody where the cell is blank. See `Composer.list_copies`.
        unsubscribe: settings for List-Unsubscribe and `{{ unsubscribe_url }}`.
        return_path: the address for bounces, with `{{ token }}` for one address a message; by default the author's.
        loader: returns the source of a file that a template includes, see `TemplateEnvironment`.
        delimiters: the marks round values in all templates, such as `("<<", ">>")`; then `<% %>` are those of
            statements and `<# #>` those of comments. By default those of Jinja2.
    """

    from_: str
    subject: str
    text: str | None = None
    html: str | None = None
    text_name: str = "text"
    html_name: str = "html"
    text_conversion: Conversion | None = None
    html_conversion: Conversion | None = None
    attachments: Sequence[Attachment | AttachmentPattern] = ()
    inline: Mapping[str, Attachment | AttachmentPattern] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    reply_to: str | None = None
    to_name: str | None = None
    cc: str | None = None
    bcc: str | None = None
    unsubscribe: Unsubscribe | None = None
    return_path: str | None = None
    loader: TemplateLoader | None = None
    delimiters: Sequence[str] = ()

    def compile(
        self,
        columns: Iterable[str],
        *,
        read: AttachmentReader | None = None,
        find: AttachmentFinder | None = None,
        signer: Signer | None = None,
        smime_signer: SmimeSigner | None = None,
        aliases: Mapping[str, str] | None = None,
        has_rows: bool = False,
    ) -> Composer:
        """Return a composer: everything that does not depend on the recipient is done once, here.

        Args:
            columns: the names of the columns, for example a list or the first row; any other name in a template is an
                error.
            read: returns the content of an attachment by its path; called once for a path that is the same for all,
                otherwise for each message. Raises OSError.
            find: returns the paths that `*` and `?` in a path stand for, and those that are nearly a given one; without
                it a path is taken as it is.
            signer: signs every message with DKIM, dated as the message is; use one signer for one template.
            smime_signer: signs every body with S/MIME, before the signer.
            aliases: further names of columns: `{"name": "Full name"}`.
            has_rows: templates may use `rows`, all rows of the recipient's mailbox, which a campaign groups.
        Raises:
            TemplateError: with the file, the line and the name.
        """
        if self.text is None and self.html is None:
            raise TemplateError("there is neither a text nor an HTML part", self.text_name)
        if self.inline and self.html is None:
            raise TemplateError("there are inline images, but no HTML part that shows them", self.html_name)
        check_type("columns", columns, Iterable)
        if isinstance(columns, str):
            raise TypeError("columns must be a list of names, not str")
        columns = tuple(columns)
        for column in columns:
            check_type("columns", column, str)
        check_type("aliases", aliases, Mapping, None)
        check_type("signer", signer, Signer, None)
        check_type("smime_signer", smime_signer, SmimeSigner, None)
        known = build_columns(
            columns,
            aliases or {},
            unsubscribes=self.unsubscribe is not None,
            delimiters=self.delimiters,
            has_rows=has_rows,
        )
        plain = known.environment(autoescape=False, load=self.loader)
        fields = HeaderFields(known, plain)
        copies = fields.copies(self.cc, self.bcc)
        author, head = self._head(fields, copies)
        with as_template_error("return_path"):
            returns = None if self.return_path is None else ReturnPath(self.return_path)
        body = self._body(known, plain, read, find)
        files = (*self.attachments, *self.inline.values())
        reads = any(isinstance(file, AttachmentPattern) and known.delimiters.are_in(file.path) for file in files)
        return Composer(
            author,
            head,
            body,
            known.names,
            signer,
            smime_signer,
            self.unsubscribe,
            returns,
            reads,
            frozenset(known.used),
            known.formats,
            copies,
            has_rows,
        )

    def _head(self, fields: HeaderFields, copies: Copies | None) -> tuple[Mailbox | AddressList, list[Piece]]:
        """Return the author's mailbox, or its template, and the fields before those of the body."""
        author: Mailbox | AddressList
        if fields.is_template(split_name_and_address(self.from_)[1]):
            author = fields.addresses("from", self.from_)
            from_ = author.format("From")
        else:
            author, from_ = fields.author(self.from_)
        head: list[Piece] = [fields.date(), from_, fields.recipient(self.to_name)]
        if copies is not None and copies.cc is not None:
            head.append(copies.cc.format("Cc"))
        if self.reply_to is not None:
            head.append(fields.reply_to(self.reply_to))
        head.append(fields.text("Subject", self.subject))
        head.append(lambda values: b"" if values.message_id is None else headers.format_message_id(values.message_id))
        if (unsubscribe := self.unsubscribe) is not None:
            head.append(lambda values: unsubscribe.fields(values.reader or values.to))
        with as_template_error("headers"):
            headers.check_extra_headers(self.headers)
        for name, source in self.headers.items():
            with as_template_error("headers"):
                if self.unsubscribe is not None and name.lower().startswith("list-unsubscribe"):
                    raise MessageError("this header is written from [unsubscribe] already: remove one of them", name)
            head.append(fields.text(name, source))
        head.append(b"MIME-Version: 1.0\r\n")
        return author, head

    def _body(
        self, columns: Columns, plain: TemplateEnvironment, read: AttachmentReader | None, find: AttachmentFinder | None
    ) -> mime.Entity:
        text, html = self._text("plain", columns), self._text("html", columns)
        with as_template_error("inline"):
            images = [
                build_file_part(image, columns, plain, read, partial(mime.encode_inline_image, cid))
                for cid, image in self.inline.items()
            ]
        files = self._attachments(columns, plain, read, find)
        seed = "\0".join((self.from_, self.subject, self.text or "", self.html or ""))
        return mime.build_body(text, html, images, files, seed.encode("utf-8", "replace"))

    def _attachments(
        self, columns: Columns, plain: TemplateEnvironment, read: AttachmentReader | None, find: AttachmentFinder | None
    ) -> list[mime.AttachedFiles]:
        """Return the parts of each attachment, which may be none or several for a row."""
        made: list[mime.AttachedFiles] = []
        for wanted in self.attachments:
            if isinstance(wanted, Attachment):
                made.append([encode_attachment(wanted)])
                continue
            from asyncsmtp.mail.templates.attached_files import FilePattern  # late: most campaigns have no such files

            pattern = FilePattern(wanted, columns, plain, read, find)
            if pattern.is_constant:
                with as_template_error(wanted.path):
                    made.append([encode_attachment(file) for file in pattern.read(None)])
            else:
                made.append(pattern.encode)
        return made

    def __post_init__(self) -> None:
        for parameter, kinds in _TYPES.items():
            check_type(parameter, getattr(self, parameter), *kinds)
        for parameter, files in (("attachments", self.attachments), ("inline", self.inline.values())):
            for attachment in files:
                check_type(parameter, attachment, Attachment, AttachmentPattern)
        for name, value in self.headers.items():
            check_type(f"the name {name!r} in headers", name, str)
            check_type(f"headers[{name!r}]", value, str)

    def _text(self, subtype: str, columns: Columns) -> mime.Entity | None:
        """Return the plain text or the HTML; None if there is none."""
        source, file, conversion = self.text, self.text_name, self.text_conversion
        if is_html := subtype == "html":
            source, file, conversion = self.html, self.html_name, self.html_conversion
        if source is None:
            return None
        if is_html:
            self._check_images(source)
        if conversion is not None:
            return conversion.compile(subtype, source, file, columns, self.loader)
        text = split_slots(source, file, columns, columns.environment(autoescape=is_html, load=self.loader))
        with as_template_error(file):
            return text_part(subtype, text, file)

    def _check_images(self, html: str) -> None:
        for shown in _CID_REFERENCE.finditer(html):
            if shown[1] not in self.inline:
                line = html.count("\n", 0, shown.start()) + 1
                raise TemplateError(f"there is no image “{shown[1]}” to show: add it to inline", self.html_name, line)
