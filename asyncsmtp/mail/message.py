"""The mail object: an envelope and its content (RFC 5321 §2.3.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from asyncsmtp.errors import MessageError, RecipientError
from asyncsmtp.mail import headers as fields
from asyncsmtp.mail import mime
from asyncsmtp.mail.address import Address, each_once, with_domain
from asyncsmtp.mail.attachment import Attachment
from asyncsmtp.protocol.content import AnyContent, Content
from asyncsmtp.protocol.envelope import Envelope, Mailbox
from asyncsmtp.protocol.esmtp_options import MailOptions, RcptOptions

if TYPE_CHECKING:
    from email.message import Message as ParsedMessage

__all__ = ["Message", "build"]


@dataclass(frozen=True, slots=True)
class Message:
    """What is handed to a relay: who to whom, and the octets."""

    envelope: Envelope
    content: AnyContent

    @classmethod
    def of(
        cls,
        message: Message | ParsedMessage | bytes,
        *,
        sender: str | Mailbox | None = None,
        recipients: Iterable[str | Mailbox] | str | Mailbox | None = None,
        mail_options: MailOptions | None = None,
        rcpt_options: RcptOptions | Sequence[RcptOptions | None] = (),
    ) -> Message:
        """Take a message in any form; what is one already is given back as it is.

        An `email.message.Message` or `EmailMessage` is written without Bcc and left unchanged. Octets are
        a finished message: nothing of it is changed but Bcc, which goes, and line ends, which become CRLF.

        Args:
            sender: the reverse-path; without it, Sender or From. "" or "<>" is the null reverse-path.
            recipients: the forward-paths; without them, To, Cc and Bcc, or the Resent- fields.
            wishes: what is asked of the relay for the message; without them, what was asked before.
            recipient_wishes: the same for its recipients: one for all, or one for each.
        Raises:
            MessageError: it has no author or recipient, or cannot be written as it is.
            RecipientError: a given address is not one.
            InvalidArgument: there are more recipient wishes than recipients, or fewer.
        """
        made = cls._addressed(message, sender, recipients)
        if mail_options is None and not rcpt_options:
            return made
        return cls(made.envelope.with_options(mail_options or made.envelope.mail_options, rcpt_options), made.content)

    @classmethod
    def _addressed(
        cls,
        message: Message | ParsedMessage | bytes,
        sender: str | Mailbox | None,
        recipients: Iterable[str | Mailbox] | str | Mailbox | None,
    ) -> Message:
        if isinstance(message, Message):
            return message if sender is None and recipients is None else message._readdressed(sender, recipients)
        from asyncsmtp.mail import email_message  # the library's parser is slow to load

        if isinstance(message, bytes):
            head = email_message.head_of(message)
            return cls(email_message.envelope_of(head, sender, recipients), email_message.content_of_octets(message))
        return cls(email_message.envelope_of(message, sender, recipients), email_message.content_of(message))

    def _readdressed(
        self, sender: str | Mailbox | None, recipients: Iterable[str | Mailbox] | str | Mailbox | None
    ) -> Message:
        before = self.envelope
        envelope = Envelope.of(
            before.reverse_path if sender is None else sender,
            before.forward_paths if recipients is None else recipients,
            mail_options=before.mail_options,
            rcpt_options=before.rcpt_options if recipients is None else (),
            all_or_nothing=before.all_or_nothing,
        )
        return Message(envelope, self.content)


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
    content = Content.from_canonical(parts, utf8_headers=not parts[0].isascii())
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
