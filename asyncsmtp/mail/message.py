"""Message: an envelope with its content, and `build`, which makes one from parts (RFC 5321 §2.3.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from asyncsmtp.errors import MessageError, RecipientError, check_type
from asyncsmtp.mail import headers as header
from asyncsmtp.mail import mime
from asyncsmtp.mail.address import Address, AddressGroup, flatten_groups, parse_address_list, require_domain
from asyncsmtp.mail.attachment import Attachment
from asyncsmtp.protocol.content import AnyContent, Content
from asyncsmtp.protocol.envelope import Envelope, Mailbox, MailOptions, RcptOptions, deduplicate

if TYPE_CHECKING:  # the standard library's parser is slow to load
    from email.message import Message as StdlibMessage

__all__ = ["Addresses", "Message", "build"]

_OneAddress: TypeAlias = str | tuple[str, str] | Address | Mailbox
Addresses: TypeAlias = _OneAddress | Iterable[_OneAddress]
"""A string (`Name <address>`, several with commas between them), a pair `("Ann", "ann@x.example")`, or a list of them.

A tuple of two strings is always a pair: two recipients are a list.
"""


@dataclass(frozen=True, slots=True)
class Message:
    """A message to send: the envelope, which says from whom and to whom, and the content.

    Attributes:
        is_draft: the message was made without a Date or a Message-ID, and sending adds them.
    """

    envelope: Envelope
    content: AnyContent
    is_draft: bool = field(default=False, compare=False)

    def __repr__(self) -> str:
        size = "streamed" if self.content.size is None else f"{self.content.size} bytes"
        return f"<Message to {self.envelope.summary}, {size}>"

    @classmethod
    def of(
        cls,
        message: Message | StdlibMessage | bytes,
        *,
        sender: str | Mailbox | None = None,
        recipients: Iterable[str | Mailbox] | str | Mailbox | None = None,
        mail_options: MailOptions | None = None,
        rcpt_options: RcptOptions | Sequence[RcptOptions | None] = (),
    ) -> Message:
        """Return a Message made from any form of message; a Message without further arguments is returned as it is.

        An `email.message.Message` or `EmailMessage` is serialized without Bcc and left unchanged; what was parsed is
        written as it was. Its 8-bit parts stay as they are for a relay with 8BITMIME, and are encoded for any other. It
        is a draft if it has no Date or no Message-ID. Bytes are a finished message: only Bcc is removed, and line ends
        become CRLF. What a signature covers is never changed: where it would have to be, it is an error.

        Args:
            sender: the reverse-path; by default Sender or From. "" or "<>" is the null reverse-path.
            recipients: the forward-paths; by default To, Cc and Bcc, or the Resent- fields.
            mail_options: ESMTP options for the message; by default those it has.
            rcpt_options: ESMTP options for the recipients: one for all, or a sequence with one for each.
        Raises:
            MessageError: there is no author or recipient, or the message cannot be serialized as it is.
            RecipientError: a given address is not valid.
            InvalidArgument: `rcpt_options` and recipients differ in number.
            TypeError: `message` is something else.
        """
        made = cls._addressed(message, sender, recipients)
        if mail_options is None and not rcpt_options:
            return made
        envelope = made.envelope.with_options(mail_options or made.envelope.mail_options, rcpt_options)
        return cls(envelope, made.content, made.is_draft)

    @classmethod
    def _addressed(
        cls,
        message: Message | StdlibMessage | bytes,
        sender: str | Mailbox | None,
        recipients: Iterable[str | Mailbox] | str | Mailbox | None,
    ) -> Message:
        if isinstance(message, Message):
            return message if sender is None and recipients is None else message._readdressed(sender, recipients)
        if not isinstance(message, bytes) and not hasattr(message, "get_content_type"):
            raise TypeError(f"message must be Message, EmailMessage or bytes, not {type(message).__name__}")
        from asyncsmtp.mail import address_fields, email_message  # late: the standard library's parser is slow to load

        if isinstance(message, bytes):
            head = email_message.parse_header_section(message)
            envelope = address_fields.extract_envelope(head, sender, recipients)
            return cls(envelope, email_message.content_from_bytes(message))
        envelope = address_fields.extract_envelope(message, sender, recipients)
        is_draft = not (("Date" in message and "Message-ID" in message) or email_message.is_signed(message))
        return cls(envelope, email_message.content_from_message(message), is_draft)

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
        return Message(envelope, self.content, self.is_draft)


def build(
    *,
    from_: _OneAddress,
    to: Addresses | None = None,
    cc: Addresses | None = None,
    bcc: Addresses | None = None,
    subject: str | None = None,
    text: str | None = None,
    html: str | None = None,
    attachments: Iterable[Attachment] | None = None,
    inline: Mapping[str, Attachment] | None = None,
    headers: Mapping[str, str] | None = None,
    reply_to: Addresses | None = None,
    message_id: str | None = None,
    date: datetime | None = None,
) -> Message:
    """Return a message and its envelope; all text is literal, and the same arguments give the same bytes.

    Args:
        from_: the author; also the reverse-path.
        to: see `Addresses`; the same for `cc`, `bcc` and `reply_to`.
        bcc: recipients that the message does not mention.
        inline: images by the name with which the HTML shows them, `<img src="cid:name">`.
        headers: further header fields.
        message_id: left@right, with or without angle brackets. If it or `date` is None, the field is left out, the
            message is a draft, and sending it adds the field.
    Raises:
        MessageError: a header or part is not valid; `field` names it.
        TypeError: an argument has the wrong type; the message names it.
    """
    for parameter, value in (("subject", subject), ("text", text), ("html", html), ("message_id", message_id)):
        check_type(parameter, value, str, None)
    check_type("date", date, datetime, None)
    for parameter, mapping in (("headers", headers), ("inline", inline)):
        check_type(parameter, mapping, Mapping, None)
        for name in mapping or ():
            check_type(f"the name {name!r} in {parameter}", name, str)
    for name, value in (headers or {}).items():
        check_type(f"headers[{name!r}]", value, str)
    if message_id is not None:
        message_id = header.strip_brackets(message_id)
    if inline and html is None:
        raise MessageError("inline images need HTML that shows them: give html=, or use attachments=", "inline")
    if text is None and html is None:
        text = ""
    author, reply = _parse_senders("from_", "From", from_), _parse_senders("reply_to", "Reply-To", reply_to)
    named = {
        name: _parse_addresses(name.lower(), name, values) for name, values in (("To", to), ("Cc", cc), ("Bcc", bcc))
    }
    if len(author) != 1 or not isinstance(author[0], Address):
        raise MessageError("exactly one address is expected", "From")
    paths = deduplicate(address.mailbox for values in named.values() for address in flatten_groups(values))
    if not paths:
        raise MessageError("there is no recipient in To, Cc or Bcc", "To")
    header.check_extra_headers(headers or {})
    visible = {"From": author, "To": named["To"], "Cc": named["Cc"], "Reply-To": reply}
    head = [
        b"" if date is None else header.format_date(date),
        *(header.format_addresses(name, values) for name, values in visible.items() if values),
        header.format_unstructured("Subject", subject or ""),
        b"" if message_id is None else header.format_message_id(message_id),
        *(header.format_field(name, value) for name, value in (headers or {}).items()),
        b"MIME-Version: 1.0\r\n",
    ]
    inline, files = inline or {}, list(attachments or ())
    for parameter, given in (("inline", inline.values()), ("attachments", files)):
        for attachment in given:
            check_type(parameter, attachment, Attachment)
    body = mime.build_body(
        None if text is None else mime.build_text_entity("plain", text),
        None if html is None else mime.build_text_entity("html", html),
        [mime.encode_inline_image(cid, image) for cid, image in inline.items()],
        [[mime.encode_attachment(file) for file in files]] if files else [],
        seed=b"".join(head),
    )
    parts = (b"".join(head), *(piece for piece in body if isinstance(piece, bytes)))
    content = Content.from_canonical(parts, utf8_headers=not parts[0].isascii())
    if content.eight_bit:
        content = replace(content, downgrade=partial(_downgrade, content))
    return Message(Envelope(author[0].mailbox, paths), content, message_id is None or date is None)


def _downgrade(content: Content) -> Content:
    from asyncsmtp.mail.email_message import downgrade  # late: the standard library's parser is slow to load

    return downgrade(content)


def _parse_addresses(parameter: str, name: str, values: Addresses | None) -> tuple[Address | AddressGroup, ...]:
    """Return the addresses and groups of one argument; `name` is the header field that errors name."""
    if values is None:
        return ()
    is_pair = _is_pair(values)
    if is_pair and ("@" in values[0] or "@" not in values[1]):  # type: ignore[index]
        raise MessageError("a tuple of two strings is (name, address): write several recipients as a list", name)
    single = is_pair or isinstance(values, str | Address | Mailbox)
    if not single and (not isinstance(values, Iterable) or isinstance(values, Mapping | bytes)):
        form = "str, a pair (name, address) or a list of them"
        raise TypeError(f"{parameter} must be {form}, not {type(values).__name__}")
    try:
        given = [values] if single else values
        return tuple(item for value in given for item in _parse_one(parameter, value))  # type: ignore[union-attr]
    except RecipientError as error:
        raise MessageError(error.reason, name) from error


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(text, str) for text in value)


def _parse_one(parameter: str, value: object) -> tuple[Address | AddressGroup, ...]:
    match value:
        case str():
            return parse_address_list(value)
        case Address():
            return (value,)
        case Mailbox():
            return (Address("", value),)
        case (str(name), str(address)):
            return (Address(name, Mailbox.parse(address)),)
    raise TypeError(f"{parameter} must hold str or pairs (name, address), not {type(value).__name__}")


def _parse_senders(parameter: str, name: str, values: Addresses | None) -> tuple[Address | AddressGroup, ...]:
    found = _parse_addresses(parameter, name, values)
    try:
        for address in flatten_groups(found):
            require_domain(address.mailbox)
    except RecipientError as error:
        raise MessageError(error.reason, name) from error
    return found
