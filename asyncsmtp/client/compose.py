"""Messages from parts, files and the clock: `build`, and the Date and Message-ID that sending adds.

`build` reads files and blocks while it does; `asyncsmtp.mail.message.build`, which it calls, is pure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from asyncsmtp.errors import check_type
from asyncsmtp.mail import message as pure
from asyncsmtp.mail.address import Address
from asyncsmtp.mail.attachment import Attachment
from asyncsmtp.mail.headers import format_date, format_message_id
from asyncsmtp.mail.message import Addresses, Message
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.envelope import Mailbox

if TYPE_CHECKING:  # the standard library's parser is slow to load
    from email.message import Message as StdlibMessage

    from asyncsmtp.mail.signing.dkim import Signer

__all__ = ["build", "check_signer", "new_message_id", "prepare_for_sending", "prepare_message", "with_date_and_id"]

MAX_AT_ONCE = 65_536  # bytes; converting or hashing more may hold up the event loop for over 1 ms: a thread does it


def new_message_id(domain: str) -> str:
    """Return a unique Message-ID, left@right without angle brackets; `domain` is the right side."""
    return f"{uuid4().hex}@{domain or 'message-id.invalid'}"


def _now() -> datetime:
    return datetime.now(UTC)


def build(
    *,
    from_: str | tuple[str, str] | Address | Mailbox,
    to: Addresses | None = None,
    cc: Addresses | None = None,
    bcc: Addresses | None = None,
    subject: str | None = None,
    text: str | None = None,
    html: str | None = None,
    attachments: Attachment | str | Path | Iterable[Attachment | str | Path] | None = None,
    inline: Mapping[str, Attachment | str | Path] | None = None,
    headers: Mapping[str, str] | None = None,
    reply_to: Addresses | None = None,
    message_id: str | None = None,
    date: datetime | None = None,
) -> Message:
    """Return a message and its envelope, with a Date and a Message-ID; all text is literal.

        build(from_="Ada <ada@example.org>", to=["bob@example.com", ("Cy", "cy@example.com")], subject="Report",
              text="Hello!", attachments=["report.pdf"])

    Files are read at the call, which blocks: in an async program with large files, call it by `asyncio.to_thread`.

    Args:
        from_: the author; also the reverse-path.
        to: a string (several addresses separated by commas), a pair (name, address), or a list of them; the same for
            `cc`, `bcc` and `reply_to`. A tuple of two strings is always a pair.
        bcc: recipients that the message does not mention.
        attachments: files, by their path, or `Attachment` objects.
        inline: images by the name with which the HTML shows them, `<img src="cid:name">`.
        headers: further header fields.
        message_id: left@right, with or without angle brackets; by default made from a UUID and the author's domain.
        date: by default now, in UTC.
    Raises:
        MessageError: a header or part is not valid, or a file cannot be read; `field` names it.
        TypeError: an argument has the wrong type; the message names it.
    """
    if isinstance(attachments, Attachment | str | Path | None):
        attachments = [] if attachments is None else [attachments]
    check_type("attachments", attachments, Iterable)
    if isinstance(attachments, Mapping | bytes):  # they can be iterated, and hold something else
        raise TypeError(f"attachments= must be a list of paths or Attachment objects, not {type(attachments).__name__}")
    check_type("inline", inline, Mapping, None)
    message = pure.build(
        from_=from_,
        to=to,
        cc=cc,
        bcc=bcc,
        subject=subject,
        text=text,
        html=html,
        attachments=[_load("attachments", attachment) for attachment in attachments],
        inline={cid: _load("inline", image) for cid, image in (inline or {}).items()},
        headers=headers,
        reply_to=reply_to,
        message_id=message_id,
        date=date,
    )
    return with_date_and_id(message)


def prepare_message(message: Message | StdlibMessage | bytes) -> Message:
    """Return the message to send: in the library's form, and with a Date and a Message-ID if it is a draft.

    Raises what `Message.of` does, and TypeError.
    """
    if isinstance(message, Message):
        if isinstance(message.content, bytes | str):  # here, since Message itself is made for each row of a campaign
            raise TypeError(f"content must be Content, not {type(message.content).__name__}: use Content.of()")
        return with_date_and_id(message) if message.is_draft else message
    from email.message import Message as ParsedMessage  # loaded late: most senders do not use it

    if not isinstance(message, ParsedMessage | bytes):
        raise TypeError(f"message must be a Message or an EmailMessage, not {type(message).__name__}: see build()")
    return with_date_and_id(Message.of(message))


async def prepare_for_sending(message: Message | StdlibMessage | bytes, signer: Signer | None) -> Message:
    """Return the message to send, as `prepare_message` does, and signed at this moment if there is a signer.

    What is large is converted and signed in a thread; the message must not be changed meanwhile. Cancelled, it leaves
    the thread to finish alone. Raises what `prepare_message` and `Signer.sign` do.
    """
    made = prepare_message(message) if _is_small(message) else await asyncio.to_thread(prepare_message, message)
    if signer is None:
        return made
    if (made.content.size or 0) > MAX_AT_ONCE:
        return await asyncio.to_thread(signer.sign, made, _now())
    return signer.sign(made, _now())


def _is_small(message: Message | StdlibMessage | bytes) -> bool:
    """Return whether a message is converted at once; what is no message is refused at once."""
    if isinstance(message, bytes):
        return len(message) <= MAX_AT_ONCE // 8  # it may be a header section, which takes eight times as long
    if isinstance(message, Message) or not hasattr(message, "get_content_type"):
        return True
    from asyncsmtp.mail.email_message import weight  # late: the standard library's parser is slow to load

    return weight(message) <= MAX_AT_ONCE


def check_signer(signer: object) -> None:
    """Raise TypeError unless it is a `Signer` or None."""
    if signer is not None:
        from asyncsmtp.mail.signing.dkim import Signer  # late: most senders do not sign

        check_type("signer", signer, Signer, None)


def with_date_and_id(
    message: Message, *, clock: Callable[[], datetime] = _now, new_id: Callable[[str], str] = new_message_id
) -> Message:
    """Return a draft with the Date and the Message-ID that it lacks; any other message is returned as it is.

    Args:
        clock: returns the current time.
        new_id: makes an identifier for the domain of the reverse-path.
    """
    content = message.content
    if not message.is_draft or not isinstance(content, Content):
        return message
    head = content.parts[0]
    fields = b"" if _has_field(head, b"date") else format_date(clock())
    if not _has_field(head, b"message-id"):
        reverse_path = message.envelope.reverse_path
        fields += format_message_id(new_id(reverse_path.domain if reverse_path is not None else ""))
    return replace(message, content=_with_fields(content, fields), is_draft=False)


def _with_fields(content: Content, fields: bytes) -> Content:
    """Return the content with fields before its first; the Content of it for lesser relays has them too."""
    downgrade = content.downgrade
    return replace(
        content,
        parts=(fields + content.parts[0], *content.parts[1:]),
        size=content.size + len(fields),
        downgrade=None if downgrade is None else lambda: _with_fields(downgrade(), fields),
    )


def _has_field(head: bytes, name: bytes) -> bool:
    """Return whether the first part of a composed content, which holds the header section, has a field."""
    section = b"\r\n" + head.partition(b"\r\n\r\n")[0].lower()
    return b"\r\n" + name + b":" in section


def _load(parameter: str, file: Attachment | str | Path) -> Attachment:
    check_type(parameter, file, Attachment, str, Path)
    return file if isinstance(file, Attachment) else Attachment.from_path(file)
