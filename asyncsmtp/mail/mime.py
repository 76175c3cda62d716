"""Bodies and attachments as trees of parts (RFC 2045, 2046, 2183, 2387), encoded once.

An entity is its header fields, an empty line and its body, cut into pieces: octets that are the same for
every recipient, and fillers that write what differs. A tree keeps the pieces apart, so that a message
can share the octets with all the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

from asyncsmtp.mail import headers
from asyncsmtp.mail.attachment import Attachment
from asyncsmtp.mail.filenames import disposition
from asyncsmtp.mail.templates.filling import Piece
from asyncsmtp.mail.transfer import Transfer, base64, lines

__all__ = ["Entity", "attached", "body", "inlined", "text_entity", "text_fields"]

Entity = tuple[Piece, ...]


def text_fields(subtype: str, transfer: Transfer) -> bytes:
    """The header of a text part; the charset is UTF-8, of which ASCII is a part."""
    return f'Content-Type: text/{subtype}; charset="utf-8"\r\nContent-Transfer-Encoding: {transfer}\r\n\r\n'.encode(
        "ascii"
    )


def text_entity(subtype: str, text: str) -> tuple[bytes]:
    """A text that is the same for everyone; it ends with a line end, as the body of a message must."""
    text = lines(text)
    text = text if text.endswith("\n") else text + "\n"
    transfer = Transfer.of(text)
    return (text_fields(subtype, transfer) + transfer.apply(text),)


def attached(attachment: Attachment) -> tuple[bytes, bytes]:
    """A file for the reader to save."""
    return _base64_entity(attachment, disposition("attachment", attachment.name))


def inlined(cid: str, image: Attachment) -> tuple[bytes, bytes]:
    """A file that the HTML shows with `cid:name`."""
    return _base64_entity(image, headers.content_id(cid) + disposition("inline", image.name))


def _base64_entity(attachment: Attachment, fields: bytes) -> tuple[bytes, bytes]:
    type_ = attachment.type + _charset(attachment)
    start = f"Content-Type: {type_}\r\nContent-Transfer-Encoding: base64\r\n".encode("ascii")
    return start + fields + b"\r\n", base64(attachment.data)


def _charset(attachment: Attachment) -> str:
    if not attachment.type.startswith("text/"):
        return ""
    try:
        attachment.data.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    return '; charset="utf-8"'


def body(
    text: Entity | None,
    html: Entity | None,
    inline: Sequence[Entity],
    attachments: Sequence[Entity],
    seed: bytes,
) -> Entity:
    """mixed(alternative(text, related(html, images…)), attachments…), with only the layers that are needed.

    Args:
        seed: what the boundaries are made from: the same seed, the same octets.
    """
    digest = blake2b(seed, digest_size=12).hexdigest()
    if html is not None and inline:
        html = multipart("related", f"=_{digest}_r", [html, *inline])
    shown = [entity for entity in (text, html) if entity is not None]
    whole = shown[0] if len(shown) == 1 else multipart("alternative", f"=_{digest}_a", shown)
    return multipart("mixed", f"=_{digest}_m", [whole, *attachments]) if attachments else whole


def multipart(subtype: str, boundary: str, parts: Iterable[Entity]) -> Entity:
    """Entities one after the other (RFC 2046 §5.1.1). `boundary` must not occur in them."""
    pieces: list[Piece] = []
    start = f'Content-Type: multipart/{subtype}; boundary="{boundary}"\r\n\r\n'
    for part in parts:
        pieces.append(f"{start}--{boundary}\r\n".encode("ascii"))
        pieces.extend(part)
        start = "\r\n"
    pieces.append(f"\r\n--{boundary}--\r\n".encode("ascii"))
    return tuple(pieces)
