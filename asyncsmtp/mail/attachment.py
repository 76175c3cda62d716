"""Attachments: content, file name and media type (RFC 2046, RFC 2183, RFC 2231)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from mimetypes import MimeTypes
from pathlib import Path
from typing import Protocol

from asyncsmtp.errors import MessageError, check_type
from asyncsmtp.mail.headers import encode_utf8
from asyncsmtp.protocol.content import check_canonical
from asyncsmtp.protocol.replies import safe_text

__all__ = [
    "Attachment",
    "AttachmentFinder",
    "AttachmentPattern",
    "AttachmentReader",
    "detect_type",
    "format_disposition",
    "format_parameter",
    "format_type",
    "sanitize_filename",
    "with_crlf",
]

OCTET_STREAM = "application/octet-stream"  # the type of unknown content
_EXTRA_TYPES = {  # not in `mimetypes` of every Python version that is supported
    ".avif": "image/avif",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".ics": "text/calendar",
    ".md": "text/markdown",
    ".odt": "application/vnd.oasis.opendocument.text",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".webp": "image/webp",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
_SNIFF_LENGTH = 8192  # bytes from the beginning
_NON_TEXT_BYTES = bytes(byte for byte in (*range(0x20), 0x7F) if byte not in b"\t\n\f\r\x1b")

MAX_NAME_LENGTH = 200  # bytes; file systems allow 255
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_EDGE_CHARACTERS = re.compile(r"^[\s.]+|(?<![\s.])[\s.]+$")  # systems strip them, or hide the file
_TYPE = re.compile(r"-*[A-Za-z0-9][A-Za-z0-9-]*/[-+.]*[A-Za-z0-9][A-Za-z0-9.+-]*")
_PLAIN_NAME = re.compile(r"[ -~]{1,50}")
_MAX_SEGMENT = 56  # bytes of one continuation (RFC 2231 §3), so that its line stays below 78
_ATTRIBUTE_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&+-.^_`{|}~")
_PARAMETER = re.compile(  # with the semicolon before it, RFC 2045 §5.1
    r"""\s*;\s*([!#$%&'*+.^_`{|}~A-Za-z0-9-]+)\s*=\s*("(?:[ -!#-\[\]-~]|\\[ -~])*"|[!#$%&'*+.^_`{|}~A-Za-z0-9-]+)\s*"""
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`{|}~A-Za-z0-9-]+")
_CALENDAR_METHOD = re.compile(rb"^METHOD:([A-Za-z-]{1,40})[ \t\r]*$", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file in a message: name, content and media type.

    Attributes:
        name: the file name shown to the reader. Folders, control characters and invisible characters are removed.
        data: the content.
        type: such as `application/pdf` or `text/calendar; method=REQUEST`; if empty, guessed from the name, then from
            the content. An iCalendar object without `method` gets that of its METHOD line (RFC 6047 §2.4). A message
            (`message/rfc822`) that has a NUL or a line over 998 bytes, and a `multipart/…`, become
            `application/octet-stream`, since base64 is not allowed for them.
    """

    name: str
    data: bytes = field(repr=False)
    type: str = ""

    def __post_init__(self) -> None:
        check_type("name", self.name, str)
        check_type("data", self.data, bytes, bytearray)
        check_type("type", self.type, str)
        object.__setattr__(self, "name", sanitize_filename(self.name))
        type_, parameters = _parse_type(self.type or guess_type(self.name, self.data), self.name)
        if type_.startswith("multipart/") or (type_.startswith("message/") and not _fits_lines(self.data)):
            type_, parameters = OCTET_STREAM, {}
        elif type_ == "text/calendar" and (found := _CALENDAR_METHOD.search(self.data[:_SNIFF_LENGTH])):
            parameters.setdefault("method", found[1].decode("ascii").upper())
        written = [f"{name}={_quote(value)}" for name, value in parameters.items()]
        object.__setattr__(self, "type", "; ".join([type_, *written]))

    @property
    def is_message(self) -> bool:
        """True for a type whose data goes as it is, in 7 or 8 bits (RFC 2045 §6.4)."""
        return self.type.startswith("message/")

    @classmethod
    def from_path(cls, path: str | Path, type: str = "") -> Attachment:  # noqa: A002
        """Read a file. This blocks until all of it is read: in an async program, call it by `asyncio.to_thread`.

        Raises:
            MessageError: the file cannot be read.
        """
        check_type("path", path, str, Path)
        try:
            return cls(Path(path).name, Path(path).read_bytes(), type)
        except (OSError, ValueError) as error:
            if isinstance(error, MessageError):  # of a type that is not valid
                raise
            why = getattr(error, "strerror", None) or error
            raise MessageError(f"the file {safe_text(str(path), 120)} cannot be read: {why}", "attachments") from error


@dataclass(frozen=True, slots=True)
class AttachmentPattern:
    """The relative path of files that may differ from row to row: a Jinja2 template with `/` between folders.

    In the template itself, not in a cell, `*` and `?` stand for any letters of a name: all files that match are
    attached. A cell may name several files, separated by semicolons; an empty one means none.

    Attributes:
        optional: a file that is not there is left out, rather than an error of the row.
    """

    path: str
    optional: bool = False


AttachmentReader = Callable[[str], bytes]


class AttachmentFinder(Protocol):
    """A search below the folder of attachments; paths have `/` between folders."""

    def match(self, pattern: str) -> Sequence[str]:
        """Return the files that a path with `*` and `?` stands for, sorted; `[*]` is the letter `*`."""

    def nearest(self, path: str) -> tuple[str, bool]:
        """Return the file whose name is the nearest to one that is missing, or ""; and whether they are canonically
        equivalent in Unicode, as names are that macOS has written.
        """


def _parse_type(text: str, name: str) -> tuple[str, dict[str, str]]:
    """Return a media type in lower case, and its parameters; raise MessageError for one that is not valid."""
    type_, semicolon, rest = text.partition(";")
    type_, rest = type_.strip().lower(), (semicolon + rest).strip().removesuffix(";")
    parameters: dict[str, str] = {}
    at = 0
    while found := _PARAMETER.match(rest, at):
        attribute, value = found[1].lower(), found[2]
        if attribute in parameters or len(value) > MAX_NAME_LENGTH:
            break
        parameters[attribute] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        at = found.end()
    if not _TYPE.fullmatch(type_) or at < len(rest):
        why = "must look like image/png or text/calendar; method=REQUEST"
        raise MessageError(f"the type of {safe_text(name, 80)} {why}")
    return type_, parameters


def format_type(text: str) -> bytes:
    """Return `Content-Type: …` for the type of an attachment, a line for each parameter if it is long."""
    end = text.find(";")
    words = [text] if end < 0 else [text[:end], *(f"{each[1]}={each[2]}" for each in _PARAMETER.finditer(text, end))]
    short = f"Content-Type: {'; '.join(words)}\r\n"
    return (short if len(short) <= 78 else "Content-Type: " + ";\r\n ".join(words) + "\r\n").encode("ascii")


def _quote(value: str) -> str:
    return value if _TOKEN.fullmatch(value) else '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def _fits_lines(data: bytes) -> bool:
    """Return whether data can go without a transfer encoding, but for its line ends."""
    try:
        check_canonical(with_crlf(data))
    except MessageError:
        return False
    return True


def with_crlf(data: bytes) -> bytes:
    """Return data with each line end as CRLF, and with one at its end."""
    data = re.sub(rb"\r\n|\r|\n", b"\r\n", data)
    return data if data.endswith(b"\r\n") else data + b"\r\n"


def guess_type(name: str, data: bytes) -> str:
    """Return a media type such as `application/pdf`, from the name if it is known, otherwise from the content.

    A compressed file has the type of its compression, if that has one.
    """
    guessed, compression = _types().guess_type(name)
    if compression:
        return "application/gzip" if compression == "gzip" else OCTET_STREAM
    return guessed or detect_type(data) or OCTET_STREAM


def detect_type(data: bytes) -> str | None:
    """Return the media type that the first bytes show, or None; UTF-8 without control characters is `text/plain`."""
    import filetype  # late: slow to load, and rarely needed

    start = data[:_SNIFF_LENGTH]
    found: str | None = filetype.guess_mime(start)
    if found == "application/pdf":  # it may be all ASCII
        return found
    return "text/plain" if start and _is_text(start) else found


def sanitize_filename(name: str) -> str:
    """Return `name` without folders, control characters and invisible characters; not empty, at most 200 bytes."""
    name = _EDGE_CHARACTERS.sub("", _INVISIBLE.sub("_", re.split(r"[/\\]", name)[-1])) or "attachment"
    if len(encode_utf8(name)) <= MAX_NAME_LENGTH:
        return name
    stem, dot, suffix = name.rpartition(".")
    if not dot or len(encode_utf8(suffix)) > 20:
        stem, dot, suffix = name, "", ""
    return _EDGE_CHARACTERS.sub("", encode_utf8(stem)[: MAX_NAME_LENGTH - 21].decode("utf-8", "ignore") + dot + suffix)


def format_disposition(kind: str, name: str) -> bytes:
    """Return `Content-Disposition: kind; filename=…` for a sanitized name."""
    parameters = format_parameter("filename", name)
    fold = " " if parameters[0].endswith('"') else "\r\n "
    return f"Content-Disposition: {kind};{fold}".encode("ascii") + ";\r\n ".join(parameters).encode("ascii") + b"\r\n"


def format_parameter(attribute: str, value: str) -> list[str]:
    """Return a parameter of a MIME field: quoted, or percent-encoded in one or more segments (RFC 2231)."""
    if _PLAIN_NAME.fullmatch(value) and "=?" not in value:
        quoted = re.sub(r'(["\\])', r"\\\1", value)
        return [f'{attribute}="{quoted}"']
    segments = _percent_encode(value)
    if len(segments) == 1:
        return [f"{attribute}*=utf-8''{segments[0]}"]
    parameters = [f"{attribute}*{number}*={segment}" for number, segment in enumerate(segments)]
    return [parameters[0].replace("=", "=utf-8''", 1), *parameters[1:]]


@cache
def _types() -> MimeTypes:
    types = MimeTypes()
    for suffix, type_ in _EXTRA_TYPES.items():
        types.add_type(type_, suffix)
    return types


def _is_text(start: bytes) -> bool:
    if start.translate(None, _NON_TEXT_BYTES) != start:
        return False
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        return len(start) == _SNIFF_LENGTH and error.start > _SNIFF_LENGTH - 4  # cut inside a character
    return True


def _percent_encode(name: str) -> list[str]:
    """Percent-encode a name in segments, cut between characters (RFC 2231 §3, §4)."""
    segments = [""]
    for character in name:
        encoded = "".join(chr(byte) if byte in _ATTRIBUTE_BYTES else f"%{byte:02X}" for byte in encode_utf8(character))
        if len(segments[-1]) + len(encoded) > _MAX_SEGMENT:
            segments.append("")
        segments[-1] += encoded
    return segments
