"""Bodies and attachments as trees of parts (RFC 2045, 2046, 2183, 2387), encoded once.

An entity is its header fields, an empty line and its body, cut into pieces: octets that are the same for
every recipient, and fillers that write what differs. A tree keeps the pieces apart, so that a message
can share the octets with all the others.

The results have CRLF and no other CR or LF, lines of at most 76 octets (7bit: 998), and never a line
that begins with `--=_`: no boundary of ours can occur in them (RFC 2045 §6.7).
"""

from __future__ import annotations

from binascii import b2a_base64, b2a_qp
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from io import BytesIO

from asyncsmtp.errors import MessageError
from asyncsmtp.mail import headers
from asyncsmtp.mail.attachment import Attachment, disposition
from asyncsmtp.mail.headers import UnencodableCharacter, encode
from asyncsmtp.protocol.envelope import Mailbox

__all__ = [
    "Entity",
    "Piece",
    "RowValues",
    "SlotEncoder",
    "TransferEncoding",
    "attached",
    "base64",
    "body",
    "inlined",
    "lines",
    "quoted_printable",
    "soft_broken",
    "text_entity",
    "text_fields",
]


class RowValues:
    """What one message is filled with: the recipient, the fields of its row, its Message-ID and Date."""

    __slots__ = ("_names", "_variables", "date", "fields", "message_id", "to")

    def __init__(
        self, to: Mailbox, fields: Mapping[str, str], message_id: str, date: datetime, names: Mapping[str, str]
    ) -> None:
        self.to = to
        self.fields = fields
        self.message_id = message_id
        self.date = date
        self._names = names
        self._variables: dict[str, object] | None = None

    @property
    def variables(self) -> dict[str, object]:
        """The names a template may use, built when the first slot needs more than one field."""
        if self._variables is None:
            fields = self.fields
            self._variables = {name: fields[column] for name, column in self._names.items() if column in fields}
            self._variables["row"] = dict(fields)
        return self._variables

    def field(self, column: str) -> str:
        try:
            return self.fields[column]
        except KeyError:
            raise MessageError(f"the column “{column}” has no value in this row") from None


SlotEncoder = Callable[[RowValues], bytes]
Piece = bytes | SlotEncoder

MAX_LINE = 998  # octets of a line of 7bit, RFC 2045 §2.7
_OCTETS_OF_A_LINE = 57  # they make 76 of base64
_BLOCK = 256 * _OCTETS_OF_A_LINE
_PLAIN = bytes([0x09, 0x0A, *range(0x20, 0x7F)])


class TransferEncoding(StrEnum):
    """How the octets of a part travel."""

    SEVEN_BIT = "7bit"
    QUOTED_PRINTABLE = "quoted-printable"
    BASE64 = "base64"

    @classmethod
    def of(cls, text: str) -> TransferEncoding:
        """The plainest that carries this text as it is."""
        if text.isascii() and "=_" not in text and _is_plain(text.encode("ascii")):
            return cls.SEVEN_BIT
        return cls.of_any(text)

    @classmethod
    def of_any(cls, text: str) -> TransferEncoding:
        """The shorter of the two that carry any text, judged by this one."""
        octets = encode(text)
        escaped = octets.translate(None, _PLAIN)  # each takes 3 octets; base64 takes 4/3 for all
        return cls.QUOTED_PRINTABLE if 6 * len(escaped) <= len(octets) else cls.BASE64

    def apply(self, text: str) -> bytes:
        """Encode text whose line ends are LF, see `lines`."""
        return _ENCODERS[self](encode(text))


def _is_plain(octets: bytes) -> bool:
    return not octets.translate(None, _PLAIN) and max(map(len, octets.split(b"\n"))) <= MAX_LINE


def lines(text: str) -> str:
    """Bring all line ends to LF, the form the encoders take.

    Raises:
        UnencodableCharacter: a NUL, which text cannot hold (RFC 2045 §2.7, RFC 6532 §3.2).
    """
    if "\0" in text:
        raise UnencodableCharacter("a NUL cannot stand in a text", "\0")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def seven_bit(octets: bytes) -> bytes:
    return octets.replace(b"\n", b"\r\n")


def quoted_printable(octets: bytes) -> bytes:
    """Encode lines that end with LF; each line by itself, so that texts may be encoded line by line."""
    if b" \n" in octets or b"\t\n" in octets:  # b2a_qp would make these lines too long
        return b"\r\n".join([b2a_qp(line).replace(b"\n", b"\r\n") for line in octets.split(b"\n")])
    return b2a_qp(octets).replace(b"\n", b"\r\n")


def soft_broken(octets: bytes) -> bytes:
    """The same, ending with a soft line break: whatever comes next begins a line (RFC 2045 §6.7 (5)).

    An `=` is always written `=3D` with room for it on its line, and its `=` is a soft break in itself.
    """
    return quoted_printable(octets + b"=")[:-2] + b"\r\n"


def base64(octets: bytes) -> bytes:
    """Encode any octets, in lines of 76; the last has its CRLF too."""
    encoded = BytesIO()
    for at in range(0, len(octets), _BLOCK):  # not at once: half a million lines apart are three times an attachment
        encoded.write(_base64_lines(octets[at : at + _BLOCK]))
    return encoded.getvalue()


def _base64_lines(octets: bytes) -> bytes:
    encoded = b2a_base64(octets, newline=False)
    width = _OCTETS_OF_A_LINE // 3 * 4
    return b"".join([encoded[at : at + width] + b"\r\n" for at in range(0, len(encoded), width)])


def _base64_text(octets: bytes) -> bytes:
    return base64(octets.replace(b"\n", b"\r\n"))  # the canonical form of text has CRLF, RFC 2045 §6.8


_ENCODERS: dict[TransferEncoding, Callable[[bytes], bytes]] = {
    TransferEncoding.SEVEN_BIT: seven_bit,
    TransferEncoding.QUOTED_PRINTABLE: quoted_printable,
    TransferEncoding.BASE64: _base64_text,
}

Entity = tuple[Piece, ...]


def text_fields(subtype: str, transfer: TransferEncoding) -> bytes:
    """The header of a text part; the charset is UTF-8, of which ASCII is a part."""
    return f'Content-Type: text/{subtype}; charset="utf-8"\r\nContent-Transfer-Encoding: {transfer}\r\n\r\n'.encode(
        "ascii"
    )


def text_entity(subtype: str, text: str) -> tuple[bytes]:
    """A text that is the same for everyone; it ends with a line end, as the body of a message must."""
    text = lines(text)
    text = text if text.endswith("\n") else text + "\n"
    transfer = TransferEncoding.of(text)
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
