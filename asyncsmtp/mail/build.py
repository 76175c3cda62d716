"""One message, built from its parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from asyncsmtp.errors import MessageError, RecipientError
from asyncsmtp.mail import headers as fields
from asyncsmtp.mail import mime
from asyncsmtp.mail.address import Address, each_once, with_domain
from asyncsmtp.mail.attachment import Attachment
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.envelope import Envelope

__all__ = ["build"]

Addresses = str | Iterable[str]


def build(
    *,
    from_: str,
    to: Addresses = (),
    cc: Addresses = (),
    bcc: Addresses = (),
    subject: str = "",
    text: str | None = None,
    html: str | None = None,
    attachments: Iterable[Attachment] = (),
    inline: Mapping[str, Attachment] | None = None,
    headers: Mapping[str, str] | None = None,
    reply_to: Addresses = (),
    message_id: str,
    date: datetime,
) -> Message:
    """A message and its envelope; everything in it is literal, the same arguments give the same octets.

    Args:
        from_: `Name <address>`; also the reverse-path.
        to: `Name <address>`, several with commas between them, or a collection of such texts.
        bcc: recipients that the message does not mention.
        inline: images by the name with which the HTML shows them, `<img src="cid:name">`.
        headers: further header fields.
        message_id: left@right, without angle brackets.
    Raises:
        MessageError: a header or part cannot stand as it is; `field` names it.
    """
    if inline and html is None:
        raise MessageError("there are images, but no HTML to show them: give html, or make them attachments", "inline")
    if text is None and html is None:
        text = ""
    author, answered = _senders("From", from_), _senders("Reply-To", reply_to)
    named = {name: _addresses(name, values) for name, values in (("To", to), ("Cc", cc), ("Bcc", bcc))}
    if len(author) != 1:
        raise MessageError("exactly one address is expected", "From")
    if not any(named.values()):
        raise MessageError("there is no recipient in To, Cc or Bcc", "To")
    fields.check_extras(headers or {})
    shown = {"From": author, "To": named["To"], "Cc": named["Cc"], "Reply-To": answered}
    head = [
        fields.date(date),
        *(fields.addresses(name, values) for name, values in shown.items() if values),
        fields.unstructured("Subject", subject),
        fields.message_id(message_id),
        *(fields.field(name, value) for name, value in (headers or {}).items()),
        b"MIME-Version: 1.0\r\n",
    ]
    body = mime.body(
        None if text is None else mime.text_entity("plain", text),
        None if html is None else mime.text_entity("html", html),
        [mime.inlined(cid, image) for cid, image in (inline or {}).items()],
        [mime.attached(attachment) for attachment in attachments],
        seed=b"".join(head),
    )
    parts = (b"".join(head), *(piece for piece in body if isinstance(piece, bytes)))
    content = Content.trusted(parts, utf8_headers=not parts[0].isascii())
    paths = each_once(address for values in named.values() for address in values)
    return Message(Envelope(author[0].mailbox, paths), content)


def _addresses(name: str, values: Addresses) -> tuple[Address, ...]:
    try:
        texts = [values] if isinstance(values, str) else values
        return tuple(address for text in texts for address in Address.parse_list(text))
    except RecipientError as error:
        raise MessageError(error.reason, name) from error


def _senders(name: str, values: Addresses) -> tuple[Address, ...]:
    found = _addresses(name, values)
    try:
        for address in found:
            with_domain(address.mailbox)
    except RecipientError as error:
        raise MessageError(error.reason, name) from error
    return found
