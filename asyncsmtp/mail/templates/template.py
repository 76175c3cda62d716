"""Template: what a campaign sends, before it is known to whom."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from asyncsmtp.errors import MessageError, TemplateError
from asyncsmtp.mail import headers, mime
from asyncsmtp.mail.attachment import Attachment, AttachmentPattern, Reader
from asyncsmtp.mail.returnpath import ReturnPath
from asyncsmtp.mail.signing.dkim import Signer
from asyncsmtp.mail.signing.smime import Seal
from asyncsmtp.mail.templates.attaching import attachment_part
from asyncsmtp.mail.templates.columns import Columns, known_columns
from asyncsmtp.mail.templates.composer import Composer
from asyncsmtp.mail.templates.fields import Fields, in_every_row
from asyncsmtp.mail.templates.filling import Piece
from asyncsmtp.mail.templates.sandbox import Loader, Sandbox
from asyncsmtp.mail.templates.slots import slots
from asyncsmtp.mail.templates.textpart import text_part
from asyncsmtp.mail.unsubscribe import Unsubscribe
from asyncsmtp.protocol.envelope import Mailbox

__all__ = ["Composer", "Template"]

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
        seal: Seal | None = None,
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
        plain = Sandbox(autoescape=False, load=self.loader)
        author, head = self._head(Fields(known, plain))
        with in_every_row("return_path"):
            returns = None if self.return_path is None else ReturnPath(self.return_path)
        body = self._body(known, plain, read)
        return Composer(
            author, head, body, known.names, signer, unsubscribe=self.unsubscribe, return_path=returns, seal=seal
        )

    def _head(self, fields: Fields) -> tuple[Mailbox, list[Piece]]:
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

    def _body(self, columns: Columns, plain: Sandbox, read: Reader | None) -> mime.Entity:
        text = html = None
        if self.text is not None:
            text = _text("plain", self.text, self.text_name, columns, plain)
        if self.html is not None:
            self._check_images(self.html)
            html = _text("html", self.html, self.html_name, columns, Sandbox(autoescape=True, load=self.loader))
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


def _text(subtype: str, source: str, file: str, columns: Columns, sandbox: Sandbox) -> mime.Entity:
    text = slots(source, file, columns, sandbox)
    with in_every_row(file):
        return text_part(subtype, text, file)
