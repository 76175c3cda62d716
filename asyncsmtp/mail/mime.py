"""MIME parts: transfer encodings, text parts, files and multiparts (RFC 2045, 2046, 2183, 2387).

An entity is its header fields, an empty line and its body, as a tuple of pieces: bytes that are the same for every
recipient, and functions that encode what differs. Keeping the pieces apart lets all messages of a campaign share the
same bytes.

The results have CRLF and no other CR or LF, lines of at most 76 bytes (7bit and 8bit: 998), and, but for attached
messages, never a line that begins with `--=_`: no boundary made here can occur in them (RFC 2045 §6.7).
"""

from __future__ import annotations

from binascii import b2a_base64, b2a_qp
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from io import BytesIO
from itertools import groupby

from asyncsmtp.errors import MessageError
from asyncsmtp.mail import headers
from asyncsmtp.mail.attachment import Attachment, format_disposition, format_type, with_crlf
from asyncsmtp.mail.headers import MAX_LINE_LENGTH, UnencodableCharacter, encode_utf8
from asyncsmtp.protocol.envelope import Mailbox

__all__ = [
    "AttachedFiles",
    "ConvertingPart",
    "Entity",
    "GroupedFields",
    "Piece",
    "RowValues",
    "SlotEncoder",
    "TransferEncoding",
    "build_body",
    "build_text_entity",
    "encode_attachment",
    "encode_base64",
    "encode_inline_image",
    "encode_quoted_printable",
    "encode_with_soft_break",
    "format_text_headers",
    "join_pieces",
    "join_small_pieces",
    "normalize_line_ends",
]


class GroupedFields(dict[str, str]):
    """The cells of the first row of a mailbox by column, with all its rows as `rows`, the first one included."""

    __slots__ = ("rows",)

    def __init__(self, fields: Mapping[str, str], rows: Sequence[Mapping[str, str]]) -> None:
        super().__init__(fields)
        self.rows = rows


def list_rows(fields: Mapping[str, str]) -> Sequence[Mapping[str, str]]:
    """Return all rows of a mailbox, by the cells of its first one."""
    return fields.rows if isinstance(fields, GroupedFields) else (fields,)


@dataclass(slots=True, eq=False)
class RowValues:
    """The values that one message is filled with: recipient, row, Message-ID and Date.

    Attributes:
        rows: the rows of the mailbox, where templates may name them.
        reader: who gets it, if that is somebody in Cc or Bcc.
    """

    to: Mailbox
    fields: Mapping[str, str]
    message_id: str | None
    date: datetime | None
    names: Mapping[str, str]
    rows: Sequence[Mapping[str, str]] | None = None
    reader: Mailbox | None = None
    placed_values: Sequence[str] = ()  # of the converted part that is being written
    _variables: dict[str, object] | None = None

    @property
    def variables(self) -> dict[str, object]:
        """The names that a template may use; built when the first slot needs more than one field."""
        if self._variables is None:
            fields = self.fields
            self._variables = {name: fields[column] for name, column in self.names.items() if column in fields}
            self._variables["row"] = dict(fields)
            if self.rows is not None:
                self._variables["rows"] = [*map(self._name_cells, self.rows)]
        return self._variables

    def _name_cells(self, fields: Mapping[str, str]) -> dict[str, str]:
        """Return the cells of one of several rows, by column and by every other name of a column."""
        return {**fields, **{name: fields[column] for name, column in self.names.items() if column in fields}}

    def field(self, column: str) -> str:
        """Return the cell of a column; raise MessageError if the row has none."""
        try:
            return self.fields[column]
        except KeyError:
            raise MessageError(f"this row has no value in the column “{column}”") from None


SlotEncoder = Callable[[RowValues], bytes]
Piece = bytes | SlotEncoder


class ConvertingPart:
    """A text part that is converted, which takes long the first time; see `Composer.pending_conversion`."""

    def pieces(self, values: RowValues) -> tuple[Sequence[Piece], bool]:
        """Return the pieces of the part for this row, and whether its bytes have lines that begin with a dot."""
        raise NotImplementedError

    def pending_conversion(self, values: RowValues) -> Callable[[], object] | None:
        """Return the conversion that `pieces` would do first."""
        raise NotImplementedError

    def __call__(self, values: RowValues) -> bytes:
        return b"".join([each if isinstance(each, bytes) else each(values) for each in self.pieces(values)[0]])


_WIDTH = 76  # characters of base64 on a line
_BLOCK = 256 * _WIDTH // 4 * 3
_PLAIN = bytes([0x09, 0x0A, *range(0x20, 0x7F)])


class TransferEncoding(StrEnum):
    """The Content-Transfer-Encoding of a part."""

    SEVEN_BIT = "7bit"
    QUOTED_PRINTABLE = "quoted-printable"
    BASE64 = "base64"

    @classmethod
    def of(cls, text: str) -> TransferEncoding:
        """Return the plainest encoding that can carry this text."""
        if text.isascii() and "=_" not in text:
            octets = text.encode("ascii")
            if not octets.translate(None, _PLAIN) and max(map(len, octets.split(b"\n"))) <= MAX_LINE_LENGTH:
                return cls.SEVEN_BIT
        return cls.of_any(text)

    @classmethod
    def of_any(cls, text: str) -> TransferEncoding:
        """Return quoted-printable or base64, whichever is shorter for this text; both can carry any text."""
        octets = encode_utf8(text)
        escaped = octets.translate(None, _PLAIN)  # each takes 3 octets; base64 takes 4/3 for all
        return cls.QUOTED_PRINTABLE if 6 * len(escaped) <= len(octets) else cls.BASE64

    def apply(self, text: str) -> bytes:
        """Encode text with LF line ends, see `normalize_line_ends`."""
        return _ENCODERS[self](encode_utf8(text))


def normalize_line_ends(text: str) -> str:
    """Return text with LF line ends. Raises UnencodableCharacter: a NUL (RFC 2045 §2.7, RFC 6532 §3.2)."""
    if "\0" in text:
        raise UnencodableCharacter("a NUL is not allowed in a text", "\0")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def encode_quoted_printable(octets: bytes) -> bytes:
    """Encode lines that end with LF; each line is encoded by itself, so texts may be encoded line by line."""
    # White space before a line end must be encoded (RFC 2045 §6.7 (3)). `b2a_qp` does so when the line is broken
    # already, and then makes lines of up to 78 bytes; encoding such lines one by one avoids it.
    if b" \n" in octets or b"\t\n" in octets:
        return b"\r\n".join([b2a_qp(line).replace(b"\n", b"\r\n") for line in octets.split(b"\n")])
    return b2a_qp(octets).replace(b"\n", b"\r\n")


def encode_with_soft_break(octets: bytes) -> bytes:
    """Encode like `encode_quoted_printable`, and end with a soft line break.

    Whatever comes next begins a new line, so two texts that are encoded apart can be put together (RFC 2045 §6.7 (5)).
    """
    # `b2a_qp` writes the added `=` as `=3D`, with room for all of it on the line; without `3D` it is a soft break.
    return encode_quoted_printable(octets + b"=")[:-2] + b"\r\n"


def encode_base64(octets: bytes) -> bytes:
    """Encode any bytes in lines of 76; the last line has its CRLF too."""
    encoded = BytesIO()
    for at in range(0, len(octets), _BLOCK):  # a list of all lines would take three times the memory
        block = b2a_base64(octets[at : at + _BLOCK], newline=False)
        encoded.write(b"".join([block[at : at + _WIDTH] + b"\r\n" for at in range(0, len(block), _WIDTH)]))
    return encoded.getvalue()


def _with_crlf(octets: bytes) -> bytes:
    return octets.replace(b"\n", b"\r\n")


_ENCODERS: dict[TransferEncoding, Callable[[bytes], bytes]] = {
    TransferEncoding.SEVEN_BIT: _with_crlf,
    TransferEncoding.QUOTED_PRINTABLE: encode_quoted_printable,
    TransferEncoding.BASE64: lambda octets: encode_base64(_with_crlf(octets)),  # text has CRLF first, RFC 2045 §6.8
}

Entity = tuple[Piece, ...]


def format_text_headers(subtype: str, transfer: TransferEncoding) -> bytes:
    """Return the header fields of a text part; the charset is UTF-8, of which ASCII is a part."""
    text = f'Content-Type: text/{subtype}; charset="utf-8"\r\nContent-Transfer-Encoding: {transfer}\r\n\r\n'
    return text.encode("ascii")


def build_text_entity(subtype: str, text: str) -> tuple[bytes]:
    """Return a text part that is the same for everyone; it ends with a line end, as the body of a message must."""
    text = normalize_line_ends(text)
    text = text if text.endswith("\n") else text + "\n"
    transfer = TransferEncoding.of(text)
    return (format_text_headers(subtype, transfer) + transfer.apply(text),)


def encode_attachment(attachment: Attachment) -> tuple[bytes, bytes]:
    """Return the part for a file to save, or for a message that is forwarded."""
    return _file_entity(attachment, format_disposition("attachment", attachment.name))


def encode_inline_image(cid: str, image: Attachment) -> tuple[bytes, bytes]:
    """Return the part for a file that the HTML shows with `cid:name`."""
    return _file_entity(image, headers.format_content_id(cid) + format_disposition("inline", image.name))


def _file_entity(attachment: Attachment, fields: bytes) -> tuple[bytes, bytes]:
    if attachment.is_message:  # no other transfer encoding is allowed, RFC 2046 §5.2.1
        data = with_crlf(attachment.data)
        transfer = "7bit" if data.isascii() else "8bit"
    else:
        data, transfer = encode_base64(attachment.data), "base64"
    start = format_type(attachment.type + _charset(attachment))
    return start + f"Content-Transfer-Encoding: {transfer}\r\n".encode("ascii") + fields + b"\r\n", data


def _charset(attachment: Attachment) -> str:
    if not attachment.type.startswith("text/") or "; charset=" in attachment.type:
        return ""
    try:
        attachment.data.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    return '; charset="utf-8"'


def build_body(
    text: Entity | None,
    html: Entity | None,
    inline: Sequence[Entity],
    attachments: Sequence[AttachedFiles],
    seed: bytes,
) -> Entity:
    """Return mixed(alternative(text, related(html, images…)), attachments…), without layers that are not needed.

    Args:
        attachments: for each the parts of its files, or a function that returns them for a row.
        seed: the source of the boundaries: the same seed gives the same bytes.
    """
    fixed = [entity for files in attachments if not callable(files) for entity in files]
    for piece in (piece for entity in (*inline, *fixed) for piece in entity):
        if isinstance(piece, bytes) and b"--=_" in piece:  # of a message that was made here, and may have this boundary
            seed += blake2b(piece).digest()
    digest = blake2b(seed, digest_size=12).hexdigest()
    inline = [tuple(_without_boundary(piece, digest) for piece in entity) for entity in inline]
    if html is not None and inline:
        html = build_multipart('related; type="text/html"', f"=_{digest}_r", [html, *inline])
    shown = [entity for entity in (text, html) if entity is not None]
    whole = shown[0] if len(shown) == 1 else build_multipart("alternative", f"=_{digest}_a", shown)
    if not attachments:
        return whole
    boundary = f"=_{digest}_m"
    *pieces, end = build_multipart("mixed", boundary, [whole])
    for files in attachments:
        if callable(files):
            pieces.append(_join_files(files, boundary, digest))
        else:
            pieces += [piece for entity in files for piece in (_open_part(boundary), *entity)]
    return (*pieces, end)


AttachedFiles = Sequence[Entity] | Callable[[RowValues], Sequence[bytes]]


def _join_files(encode: Callable[[RowValues], Sequence[bytes]], boundary: str, digest: str) -> SlotEncoder:
    opening, mark = _open_part(boundary), digest.encode("ascii")

    def join(values: RowValues) -> bytes:
        return b"".join([piece for part in encode(values) for piece in (opening, _check_boundary(part, mark))])

    return join


def _open_part(boundary: str) -> bytes:
    return f"\r\n--{boundary}\r\n".encode("ascii")


def _without_boundary(piece: Piece, digest: str) -> Piece:
    """Return the piece; one that is encoded for each row is checked each time."""
    if isinstance(piece, bytes):
        return piece

    mark = digest.encode("ascii")

    def encode(values: RowValues) -> bytes:
        return _check_boundary(piece(values), mark)

    return encode


def _check_boundary(encoded: bytes, digest: bytes) -> bytes:
    if digest in encoded:
        raise MessageError("an attached message has the same boundary as this one: compress it", "attachments")
    return encoded


def build_multipart(subtype: str, boundary: str, parts: Iterable[Entity]) -> Entity:
    """Join entities into a multipart (RFC 2046 §5.1.1). `boundary` must not occur in them."""
    pieces: list[Piece] = []
    fold = ";\r\n " if ";" in subtype else "; "
    start = f'Content-Type: multipart/{subtype}{fold}boundary="{boundary}"\r\n\r\n'
    for part in parts:
        pieces.append(f"{start}--{boundary}\r\n".encode("ascii"))
        pieces.extend(part)
        start = "\r\n"
    pieces.append(f"\r\n--{boundary}--\r\n".encode("ascii"))
    return tuple(pieces)


MIN_SHARED_PIECE = 2048  # bytes from which a piece is a part of its own: passing it on is cheaper than copying


def join_small_pieces(pieces: Iterable[Piece]) -> tuple[Piece, ...]:
    """Join small pieces with their neighbours; large bytes and parts that are converted stay by themselves."""
    joined: list[Piece] = []
    for is_small, group in groupby(pieces, _is_small):
        found = list(group)
        joined += [join_pieces(found)] if is_small else found
    return tuple(joined)


def _is_small(piece: Piece) -> bool:
    return not isinstance(piece, ConvertingPart) and not (isinstance(piece, bytes) and len(piece) >= MIN_SHARED_PIECE)


def join_pieces(pieces: Iterable[Piece]) -> Piece:
    """Join pieces into one: bytes if all are bytes, otherwise a function that encodes it."""
    run: list[Piece] = []
    for piece in pieces:
        if run and isinstance(piece, bytes) and isinstance(run[-1], bytes):
            run[-1] += piece
        else:
            run.append(piece)
    if len(run) == 1:
        return run[0]
    return lambda values: b"".join([piece if isinstance(piece, bytes) else piece(values) for piece in run])
