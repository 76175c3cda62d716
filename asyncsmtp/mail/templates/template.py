"""Templates of campaigns: compiled once, then composed into a message for each recipient."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from asyncsmtp.errors import InvalidArgument, MessageError, RecipientError, TemplateError, check_type
from asyncsmtp.mail import headers, mime
from asyncsmtp.mail.address import Address, require_domain
from asyncsmtp.mail.attachment import Attachment, AttachmentPattern, AttachmentReader
from asyncsmtp.mail.headers import UnencodableCharacter
from asyncsmtp.mail.list_unsubscribe import UNSUBSCRIBE_URL_VARIABLE, ReturnPath, Unsubscribe
from asyncsmtp.mail.message import Message
from asyncsmtp.mail.mime import ConvertingPart, Entity, Piece, RowValues, encode_attachment
from asyncsmtp.mail.signing.dkim import Signer
from asyncsmtp.mail.signing.smime import SmimeSigner
from asyncsmtp.mail.templates.environment import TemplateEnvironment, TemplateLoader
from asyncsmtp.mail.templates.slots import SlottedText, split_slots, text_part
from asyncsmtp.mail.templates.variables import Columns, build_columns
from asyncsmtp.protocol.content import Content, has_leading_dots
from asyncsmtp.protocol.envelope import Envelope, Mailbox
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.mail.conversion.convert import Conversion

__all__ = ["Composer", "HeaderFields", "Template", "as_template_error", "build_attachment_part", "gather_pieces"]


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


Octets = tuple[bytes, ...]


def build_attachment_part(
    wanted: Attachment | AttachmentPattern,
    columns: Columns,
    sandbox: TemplateEnvironment,
    read: AttachmentReader | None,
    write: Callable[[Attachment], Octets] = encode_attachment,
) -> Entity:
    """Return the part for a file: encoded now if it is the same for all, otherwise for each row."""
    if isinstance(wanted, Attachment):
        return write(wanted)
    path = split_slots(wanted.path, wanted.path, columns, sandbox)
    if read is None:
        raise TemplateError("there is no read= to read this attachment with", wanted.path)
    if path.constant is None:
        return (lambda filling: b"".join(write(_read(path(filling), read))),)
    with as_template_error(wanted.path):
        return write(_read(path.constant, read))


def _read(path: str, read: AttachmentReader) -> Attachment:
    """Read the file at a path below the folder of attachments; a cell must not lead out of it."""
    steps = path.split("/")
    if not path.isprintable() or "\\" in path or ":" in steps[0] or not {"", ".", ".."}.isdisjoint(steps):
        raise MessageError(f"“{safe_text(path, 120)}” is not a path below the folder of attachments")
    try:
        return Attachment(steps[-1], read(path))
    except OSError as error:
        raise MessageError(f"the attachment {path} cannot be read: {error.strerror or error}") from error


SHARED = 2048  # bytes from which a piece is a part of its own: passing it on is cheaper than copying


class Composer:
    """A compiled template, made by `Template.compile`.

    The bytes that all messages share are the same `bytes` objects in all of them.
    """

    def __init__(
        self,
        author: Mailbox,
        head: Sequence[Piece],
        body: Sequence[Piece],
        names: Mapping[str, str],
        signer: Signer | None = None,
        *,
        unsubscribe: Unsubscribe | None = None,
        return_path: ReturnPath | None = None,
        smime_signer: SmimeSigner | None = None,
    ) -> None:
        self._author = author
        self._head = _join_pieces(head)
        self._body = gather_pieces(body)
        self._converting = [piece for piece in body if isinstance(piece, ConvertingPart)]
        self._rendered: tuple[Mailbox, Mapping[str, str], RowValues] | None = None
        self._dotted = any(has_leading_dots(piece) for piece in self._body if isinstance(piece, bytes))
        self._names = names
        self._signer = signer
        self._unsubscribe = unsubscribe
        self._return_path = return_path
        self._smime_signer = smime_signer

    @property
    def author(self) -> Mailbox:
        """The mailbox in From, which is also the reverse-path unless there is a return path."""
        return self._author

    def _check_draft(self, message_id: str | None) -> None:
        if self._signer is not None:
            raise InvalidArgument(
                "a message needs its Date and Message-ID before it is signed: give message_id= and date="
            )
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
            message_id: left@right, without angle brackets. If it or `date` is None, the field is left out, the message
                is a draft, and sending it adds the field.
            row: the number that an error names.
        Raises:
            RecipientError: this row cannot be composed: an address that is not valid, a line break in a header, a
                missing value, a character that no encoding can carry, a condition or calculation that fails.
            InvalidArgument: the messages are signed or have a return path with a token, which needs `message_id` and
                `date`.
            TypeError: a cell is not a string.
        """
        if isinstance(to, str):
            to = _parse_recipient(to, row)
        if is_draft := message_id is None or date is None:
            self._check_draft(message_id)
        rendered = self._rendered
        if rendered is not None and rendered[0] is to and rendered[1] is fields:
            filling = rendered[2]
            filling.message_id, filling.date = message_id, date
        else:
            filling = self._filling(to, fields, message_id, date)
        self._rendered = None
        try:
            head = _fill(self._head, filling)
            parts = [head]
            needs_dot_stuffing = self._dotted or has_leading_dots(head)
            for piece in self._body:
                if isinstance(piece, bytes):
                    parts.append(piece)
                elif isinstance(piece, ConvertingPart):
                    pieces, has_dotted_piece = piece.pieces(filling)
                    needs_dot_stuffing = needs_dot_stuffing or has_dotted_piece
                    for each in pieces:
                        if isinstance(each, bytes):
                            parts.append(each)
                        else:
                            parts.append(filled := each(filling))
                            needs_dot_stuffing = needs_dot_stuffing or has_leading_dots(filled)
                else:
                    parts.append(filled := piece(filling))
                    needs_dot_stuffing = needs_dot_stuffing or has_leading_dots(filled)
        except RecipientError as error:
            raise RecipientError(error.reason, row) from error
        except MessageError as error:
            raise RecipientError(f"{error}{_suspect(error, filling.fields)}", row) from error
        except TypeError:
            _check_cells(fields)
            raise
        beyond_ascii = not head.isascii()  # bodies always are ASCII: they are encoded
        content = Content(
            tuple(parts), sum(map(len, parts)), beyond_ascii, beyond_ascii, needs_dot_stuffing=needs_dot_stuffing
        )
        if self._smime_signer is not None:
            content = self._smime_signer.sign_content(content)
        if self._signer is not None:  # after S/MIME, which changes the body
            content = self._signer.sign_content(content, date)
        reverse_path = self._author if self._return_path is None else self._return_path.address_for(message_id)
        return Message(Envelope(reverse_path, (to,)), content, is_draft)

    def pending_conversion(self, to: Mailbox, fields: Mapping[str, str]) -> Callable[[], None] | None:
        """Return the conversion that `compose` would have to do first for this row; None if there is none.

        It may take many milliseconds: a coroutine runs it in a thread, one at a time. `compose` for the same row and
        for all with the same skeleton is fast then. The answer itself costs little: `compose`, called next with the
        same `fields`, goes on from it.
        """
        if not self._converting:
            return None
        filling = self._filling(to, fields, "", datetime.min)  # compose knows them
        pending = []
        try:
            for part in self._converting:
                if (conversion := part.pending_conversion(filling)) is not None:
                    pending.append(conversion)
        except MessageError:
            return None  # compose says it, with the row
        self._rendered = to, fields, filling
        return partial(_convert, pending) if pending else None

    def _filling(
        self, to: Mailbox, fields: Mapping[str, str], message_id: str | None, date: datetime | None
    ) -> RowValues:
        if self._unsubscribe is not None:
            fields = {**fields, UNSUBSCRIBE_URL_VARIABLE: self._unsubscribe.url_for(to)}
        return RowValues(to, fields, message_id, date, self._names)


def _convert(pending: Sequence[Callable[[], object]]) -> None:
    with suppress(MessageError):  # compose says it, with the row
        for conversion in pending:
            conversion()


def _parse_recipient(to: str, row: int | None) -> Mailbox:
    try:
        return Mailbox.parse(to)
    except RecipientError as error:
        raise RecipientError(error.reason, row) from error


def _check_cells(fields: Mapping[str, str]) -> None:
    for column, value in fields.items():
        check_type(f"fields[{column!r}]", value, str)


def _fill(piece: Piece, filling: RowValues) -> bytes:
    return piece if isinstance(piece, bytes) else piece(filling)


def gather_pieces(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """Join small pieces with their neighbours; large bytes and parts that are converted stay by themselves."""
    gathered: list[Piece] = []
    run: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, ConvertingPart) or (isinstance(piece, bytes) and len(piece) >= SHARED):
            gathered += [_join_pieces(run), piece] if run else [piece]
            run = []
        else:
            run.append(piece)
    return (*gathered, _join_pieces(run)) if run else tuple(gathered)


def _join_pieces(pieces: Sequence[Piece]) -> Piece:
    """Join pieces into one: bytes if all are bytes, otherwise a function that fills it."""
    run: list[Piece] = []
    for piece in pieces:
        if run and isinstance(piece, bytes) and isinstance(run[-1], bytes):
            run[-1] += piece
        else:
            run.append(piece)
    if all(isinstance(piece, bytes) for piece in run):
        return b"".join(piece for piece in run if isinstance(piece, bytes))
    return lambda filling: b"".join([piece if isinstance(piece, bytes) else piece(filling) for piece in run])


def _suspect(error: BaseException | None, fields: Mapping[str, str]) -> str:
    """Return a note that names the column with the character that an error is about."""
    while error is not None and not isinstance(error, UnencodableCharacter):
        error = error.__cause__
    columns = [] if error is None else [column for column, value in fields.items() if error.character in value]
    return f" (look at the column “{columns[0]}”)" if columns else ""


_SHOWN = re.compile(  # in HTML, and as ![…](cid:…) in Markdown
    r"""(?:(?:\b(?:src|background|href)\s*=|\burl\()\s*["']?|\]\(\s*<?)cid:([^"'\s<>(){}]+)""", re.IGNORECASE
)


@dataclass(frozen=True)
class Template:
    """The Jinja2 sources of a message, with attachments and headers. Cells are values, never part of a source.

    A column is reached by its name if that is an identifier (`{{ name }}`), by the identifier made from
    it (`{{ E_Mail_Address }}`), and always by `{{ row["E-Mail Address"] }}`.

    Attributes:
        from_: `Name <address>`; the name may be a template.
        subject: one line.
        text: the plain text, `html` the HTML, in which cells are escaped; at least one of them.
        text_name: the file that a TemplateError names.
        text_conversion: makes the plain text from the rendered `text`, which is HTML or includes it;
            `html_conversion` makes the HTML from the rendered `html`. None: it is sent as it is rendered.
        attachments: files for all recipients, or paths that differ from row to row.
        inline: images by the name with which the HTML shows them: `<img src="cid:name">`.
        headers: further header fields; the values are templates.
        reply_to: `Name <address>`, both may be templates; or a list without templates.
        to_name: the display name in To, a template; by default To has the address only.
        unsubscribe: settings for List-Unsubscribe and `{{ unsubscribe_url }}`.
        return_path: the address for bounces, with `{{ token }}` for one address a message; by default the author's.
        loader: returns the source of a file that a template includes, see `TemplateEnvironment`.
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
    unsubscribe: Unsubscribe | None = None
    return_path: str | None = None
    loader: TemplateLoader | None = None

    def compile(
        self,
        columns: Iterable[str],
        *,
        read: AttachmentReader | None = None,
        signer: Signer | None = None,
        smime_signer: SmimeSigner | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> Composer:
        """Return a composer: everything that does not depend on the recipient is done once, here.

        Args:
            columns: the names of the columns, for example a list or the first row; any other name in a template is an
                error.
            read: returns the content of an attachment by its path; called once for a path that is the same for all,
                otherwise for each message. Raises OSError.
            signer: signs every message with DKIM, dated as the message is; use one signer for one template.
            smime_signer: signs every body with S/MIME, before the signer.
            aliases: further names of columns: `{"name": "Full name"}`.
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
        known = build_columns(tuple(columns), aliases or {}, unsubscribes=self.unsubscribe is not None)
        plain = TemplateEnvironment(autoescape=False, load=self.loader)
        author, head = self._head(HeaderFields(known, plain))
        with as_template_error("return_path"):
            returns = None if self.return_path is None else ReturnPath(self.return_path)
        body = self._body(known, plain, read)
        return Composer(
            author,
            head,
            body,
            known.names,
            signer,
            unsubscribe=self.unsubscribe,
            return_path=returns,
            smime_signer=smime_signer,
        )

    def _head(self, fields: HeaderFields) -> tuple[Mailbox, list[Piece]]:
        """Return the author's mailbox, and the fields before those of the body."""
        author, from_ = fields.author(self.from_)
        head: list[Piece] = [fields.date(), from_, fields.recipient(self.to_name)]
        if self.reply_to is not None:
            head.append(fields.reply_to(self.reply_to))
        head.append(fields.text("Subject", self.subject))
        head.append(_write_message_id)
        if (unsubscribe := self.unsubscribe) is not None:
            head.append(lambda filling: unsubscribe.fields(filling.to))
        with as_template_error("headers"):
            headers.check_extra_headers(self.headers)
        for name, source in self.headers.items():
            with as_template_error("headers"):
                if self.unsubscribe is not None and name.lower().startswith("list-unsubscribe"):
                    raise MessageError("this header is written from [unsubscribe] already: remove one of them", name)
            head.append(fields.text(name, source))
        head.append(b"MIME-Version: 1.0\r\n")
        return author, head

    def _body(self, columns: Columns, plain: TemplateEnvironment, read: AttachmentReader | None) -> mime.Entity:
        text = html = None
        if self.text is not None:
            text = self._text("plain", self.text, self.text_name, columns, plain, self.text_conversion)
        if self.html is not None:
            self._check_images(self.html)
            escaping = TemplateEnvironment(autoescape=True, load=self.loader)
            html = self._text("html", self.html, self.html_name, columns, escaping, self.html_conversion)
        with as_template_error("inline"):
            images = [
                build_attachment_part(image, columns, plain, read, partial(mime.encode_inline_image, cid))
                for cid, image in self.inline.items()
            ]
        files = [build_attachment_part(wanted, columns, plain, read) for wanted in self.attachments]
        return mime.build_body(text, html, images, files, self._seed())

    def __post_init__(self) -> None:
        check_type("from_", self.from_, str)
        check_type("subject", self.subject, str)
        for parameter in ("text", "html", "reply_to", "to_name", "return_path"):
            check_type(parameter, getattr(self, parameter), str, None)
        for attachment in self.attachments:
            check_type("attachments", attachment, Attachment, AttachmentPattern)

    def _text(
        self,
        subtype: str,
        source: str,
        file: str,
        columns: Columns,
        sandbox: TemplateEnvironment,
        conversion: Conversion | None,
    ) -> mime.Entity:
        if conversion is not None:
            return conversion.compile(subtype, source, file, columns, self.loader)
        text = split_slots(source, file, columns, sandbox)
        with as_template_error(file):
            return text_part(subtype, text, file)

    def _check_images(self, html: str) -> None:
        for shown in _SHOWN.finditer(html):
            if shown[1] not in self.inline:
                line = html.count("\n", 0, shown.start()) + 1
                raise TemplateError(f"there is no image “{shown[1]}” to show: add it to inline", self.html_name, line)

    def _seed(self) -> bytes:
        return "\0".join((self.from_, self.subject, self.text or "", self.html or "")).encode("utf-8", "replace")


def _write_message_id(values: RowValues) -> bytes:
    return b"" if values.message_id is None else headers.format_message_id(values.message_id)
