"""Attachments and images whose path differs from row to row."""

from __future__ import annotations

from collections.abc import Callable

from asyncsmtp.errors import MessageError, TemplateError
from asyncsmtp.mail.attachment import Attachment, AttachmentPattern, Reader
from asyncsmtp.mail.mime import Entity, attached
from asyncsmtp.mail.templates.columns import Columns
from asyncsmtp.mail.templates.fields import in_every_row
from asyncsmtp.mail.templates.sandbox import Sandbox
from asyncsmtp.mail.templates.slots import slots
from asyncsmtp.protocol.replies import safe_text

__all__ = ["attachment_part"]

Octets = tuple[bytes, ...]


def attachment_part(
    wanted: Attachment | AttachmentPattern,
    columns: Columns,
    sandbox: Sandbox,
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
