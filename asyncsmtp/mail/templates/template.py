"""Template: what a campaign sends, before it is known to whom."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

from asyncsmtp.errors import MessageError, RecipientError, TemplateError
from asyncsmtp.mail import headers, mime
from asyncsmtp.mail.attachment import Attachment, AttachmentPattern, Reader
from asyncsmtp.mail.headers import UnencodableCharacter
from asyncsmtp.mail.list_unsubscribe import UNSUBSCRIBE_URL, Unsubscribe
from asyncsmtp.mail.message import Message
from asyncsmtp.mail.mime import Entity, Piece, RowValues, attached
from asyncsmtp.mail.signing.dkim import Signer
from asyncsmtp.mail.signing.smime import SmimeSigner
from asyncsmtp.mail.templates.environment import Loader, TemplateEnvironment
from asyncsmtp.mail.templates.header_fields import HeaderFields, in_every_row
from asyncsmtp.mail.templates.slots import slots
from asyncsmtp.mail.templates.text_part import text_part
from asyncsmtp.mail.templates.variables import Columns, known_columns
from asyncsmtp.mail.verp import ReturnPath
from asyncsmtp.protocol.content import Content, has_leading_dots
from asyncsmtp.protocol.envelope import Envelope, Mailbox
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.mail.list_unsubscribe import Unsubscribe
    from asyncsmtp.mail.signing.dkim import Signer
    from asyncsmtp.mail.signing.smime import SmimeSigner
    from asyncsmtp.mail.verp import ReturnPath

__all__ = ["Composer", "Template", "attachment_part"]

Octets = tuple[bytes, ...]


def attachment_part(
    wanted: Attachment | AttachmentPattern,
    columns: Columns,
    sandbox: TemplateEnvironment,
    read: Reader | None,
    write: Callable[[Attachment], Octets] = attached,
) -> Entity:
    """The part for a file: encoded now if it is the same for all, otherwise when it is filled."""
    if isinstance(wanted, Attachment):
        return write(wanted)
    path = slots(wanted.path, wanted.path, columns, sandbox)
    if read is None:
        raise TemplateError("nothing was given to read this attachment with", wanted.path)
    if path.constant is None:
        return (lambda filling: b"".join(write(_read(path(filling), read))),)
    with in_every_row(wanted.path):
        return write(_read(path.constant, read))


def _read(path: str, read: Reader) -> Attachment:
    """The file at a path below the folder of attachments; a cell must not lead out of it."""
    steps = path.split("/")
    if not path.isprintable() or "\\" in path or ":" in steps[0] or not {"", ".", ".."}.isdisjoint(steps):
        raise MessageError(f"“{safe_text(path, 120)}” is no path below the folder of attachments")
    try:
        return Attachment(steps[-1], read(path))
    except OSError as error:
        raise MessageError(f"the attachment {path} cannot be read: {error.strerror or error}") from error


SHARED = 2048  # octets from which a piece is a part of its own: handing it on beats copying it


class Composer:
    """Made by `Template.compile`. The octets that all messages share are the same `bytes` in all of them."""

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
        seal: SmimeSigner | None = None,
    ) -> None:
        self._author = author
        self._head = _joined(head)
        self._body = tuple(_gathered(body))
        self._dotted = any(has_leading_dots(piece) for piece in self._body if isinstance(piece, bytes))
        self._names = names
        self._signer = signer
        self._unsubscribe = unsubscribe
        self._return_path = return_path
        self._seal = seal

    @property
    def author(self) -> Mailbox:
        """The mailbox in From, which is the reverse-path as well unless there is a return path."""
        return self._author

    def compose(
        self, to: Mailbox, fields: Mapping[str, str], *, message_id: str, date: datetime, row: int | None = None
    ) -> Message:
        """The message for one recipient; the same arguments give the same octets.

        Args:
            fields: column to cell, as text. A cell is a value: nothing in it is interpreted.
            message_id: left@right, without angle brackets.
            row: named by the error, if there is one.
        Raises:
            RecipientError: this row cannot be composed: a line break in a header, a missing value, a
                character no encoding can carry, a condition or calculation that fails.
        """
        if self._unsubscribe is not None:
            fields = {**fields, UNSUBSCRIBE_URL: self._unsubscribe.url_of(to)}
        filling = RowValues(to, fields, message_id, date, self._names)
        try:
            head = _filled(self._head, filling)
            parts = [head]
            needs_dot_stuffing = self._dotted or has_leading_dots(head)
            for piece in self._body:
                if isinstance(piece, bytes):
                    parts.append(piece)
                else:
                    parts.append(filled := piece(filling))
                    needs_dot_stuffing = needs_dot_stuffing or has_leading_dots(filled)
        except RecipientError as error:
            raise RecipientError(error.reason, row) from error
        except MessageError as error:
            raise RecipientError(f"{error}{_suspect(error, fields)}", row) from error
        beyond_ascii = not head.isascii()  # bodies never are: the encodings see to it
        content = Content(
            tuple(parts), sum(map(len, parts)), beyond_ascii, beyond_ascii, needs_dot_stuffing=needs_dot_stuffing
        )
        if self._seal is not None:
            content = self._seal.signed(content)
        if self._signer is not None:  # over what became of the body
            content = self._signer.signed(content, date)
        reverse_path = self._author if self._return_path is None else self._return_path.of(message_id)
        return Message(Envelope(reverse_path, (to,)), content)


def _filled(piece: Piece, filling: RowValues) -> bytes:
    return piece if isinstance(piece, bytes) else piece(filling)


def _gathered(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Large octets by themselves; what is small, or filled, joined with its neighbours."""
    for shared, group in groupby(pieces, lambda piece: isinstance(piece, bytes) and len(piece) >= SHARED):
        if shared:
            yield from group
        else:
            yield _joined(list(group))


def _joined(pieces: Sequence[Piece]) -> Piece:
    """One piece of many: octets if all are, otherwise a filler."""
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
    """The column that holds the character an error is about, for the sentence that complains."""
    while error is not None and not isinstance(error, UnencodableCharacter):
        error = error.__cause__
    columns = [] if error is None else [column for column, value in fields.items() if error.character in value]
    return f" (look at the column “{columns[0]}”)" if columns else ""


_SHOWN = re.compile(r"""(?:\b(?:src|background|href)\s*=|\burl\()\s*["']?cid:([^"'\s<>(){}]+)""", re.IGNORECASE)


@dataclass(frozen=True)
class Template:
    """Sources in Jinja2 and what goes with them. Cells are values in it, never part of it.

    A column is reached by its name if that is an identifier (`{{ name }}`), by the identifier made from
    it (`{{ E_Mail_Address }}`), and always by `{{ row["E-Mail Address"] }}`.

    Attributes:
        from_: `Name <address>`; the name may be a template.
        subject: one line.
        text: the plain text, `html` the HTML, in which cells are escaped; at least one of them.
        text_name: the file a TemplateError names.
        attachments: files for all, or a path for each row.
        inline: images by the name with which the HTML shows them: `<img src="cid:name">`.
        headers: further header fields, values are templates.
        reply_to: `Name <address>`, both may be templates; or a list without templates.
        to_name: the display name in To, a template; without it To has the address only.
        unsubscribe: the way out of the list, in the header and as `{{ unsubscribe_url }}`.
        return_path: where bounces go, with `{{ token }}` for an address of each message; without it to the author.
        loader: gives the source of a file that a template includes, see `Sandbox`.
    """

    from_: str
    subject: str
    text: str | None = None
    html: str | None = None
    text_name: str = "text"
    html_name: str = "html"
    attachments: tuple[Attachment | AttachmentPattern, ...] = ()
    inline: Mapping[str, Attachment | AttachmentPattern] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    reply_to: str | None = None
    to_name: str | None = None
    unsubscribe: Unsubscribe | None = None
    return_path: str | None = None
    loader: Loader | None = None

    def compile(
        self,
        columns: Sequence[str],
        *,
        read: Reader | None = None,
        signer: Signer | None = None,
        seal: SmimeSigner | None = None,
        called: Mapping[str, str] | None = None,
    ) -> Composer:
        """Do all that does not depend on the recipient, once.

        Args:
            columns: the names a row has; any other name in a template is an error.
            read: gives the octets of an attachment by its path; called once for a path that is the same
                for all, otherwise for each message. Raises OSError.
            signer: signs every message with DKIM, dated as the message is; one signer for one template.
            seal: signs every body with S/MIME, before the signer.
            called: further names of columns: `{"name": "Full name"}`.
        Raises:
            TemplateError: with the file, the line and the name it is about.
        """
        if self.text is None and self.html is None:
            raise TemplateError("there is neither a text nor an HTML part", self.text_name)
        if self.inline and self.html is None:
            raise TemplateError("there are images to show inline, but no HTML part to show them in", self.html_name)
        known = known_columns(columns, called or {}, unsubscribes=self.unsubscribe is not None)
        plain = TemplateEnvironment(autoescape=False, load=self.loader)
        author, head = self._head(HeaderFields(known, plain))
        with in_every_row("return_path"):
            returns = None if self.return_path is None else ReturnPath(self.return_path)
        body = self._body(known, plain, read)
        return Composer(
            author, head, body, known.names, signer, unsubscribe=self.unsubscribe, return_path=returns, seal=seal
        )

    def _head(self, fields: HeaderFields) -> tuple[Mailbox, list[Piece]]:
        """The mailbox of the author and the fields before the body's own."""
        author, from_ = fields.author(self.from_)
        head: list[Piece] = [fields.date(), from_, fields.recipient(self.to_name)]
        if self.reply_to is not None:
            head.append(fields.reply_to(self.reply_to))
        head.append(fields.text("Subject", self.subject))
        head.append(lambda filling: headers.message_id(filling.message_id))
        if (unsubscribe := self.unsubscribe) is not None:
            head.append(lambda filling: unsubscribe.fields(filling.to))
        with in_every_row("headers"):
            headers.check_extras(self.headers)
        for name, source in self.headers.items():
            with in_every_row("headers"):
                if self.unsubscribe is not None and name.lower().startswith("list-unsubscribe"):
                    raise MessageError("this header is written from [unsubscribe] already: take one of them out", name)
            head.append(fields.text(name, source))
        head.append(b"MIME-Version: 1.0\r\n")
        return author, head

    def _body(self, columns: Columns, plain: TemplateEnvironment, read: Reader | None) -> mime.Entity:
        text = html = None
        if self.text is not None:
            text = _text("plain", self.text, self.text_name, columns, plain)
        if self.html is not None:
            self._check_images(self.html)
            html = _text(
                "html", self.html, self.html_name, columns, TemplateEnvironment(autoescape=True, load=self.loader)
            )
        with in_every_row("inline"):
            images = [
                attachment_part(image, columns, plain, read, partial(mime.inlined, cid))
                for cid, image in self.inline.items()
            ]
        files = [attachment_part(wanted, columns, plain, read) for wanted in self.attachments]
        return mime.body(text, html, images, files, self._seed())

    def _check_images(self, html: str) -> None:
        for shown in _SHOWN.finditer(html):
            if shown[1] not in self.inline:
                line = html.count("\n", 0, shown.start()) + 1
                raise TemplateError(f"there is no image “{shown[1]}” to show: add it to inline", self.html_name, line)

    def _seed(self) -> bytes:
        return "\0".join((self.from_, self.subject, self.text or "", self.html or "")).encode("utf-8", "replace")


def _text(subtype: str, source: str, file: str, columns: Columns, sandbox: TemplateEnvironment) -> mime.Entity:
    text = slots(source, file, columns, sandbox)
    with in_every_row(file):
        return text_part(subtype, text, file)
