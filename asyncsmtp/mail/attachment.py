"""Attachment: a file that travels with the message."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from mimetypes import MimeTypes

from asyncsmtp.errors import MessageError
from asyncsmtp.mail.headers import encode

__all__ = [
    "OCTETS",
    "Attachment",
    "AttachmentPattern",
    "Reader",
    "base_name",
    "disposition",
    "type_by_content",
    "type_of",
]

OCTETS = "application/octet-stream"  # nobody knows what it is
_KNOWN_LATE = {  # to some of the interpreters we run on, not to others
    ".avif": "image/avif",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".ics": "text/calendar",
    ".md": "text/markdown",
    ".odt": "application/vnd.oasis.opendocument.text",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".webp": "image/webp",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
_LOOKED_AT = 8192  # octets from the beginning
_IN_TEXT = frozenset({0x09, 0x0A, 0x0C, 0x0D, 0x1B, *range(0x20, 0x100)} - {0x7F})
_NO_TEXT = bytes(octet for octet in range(0x100) if octet not in _IN_TEXT)


@cache
def _types() -> MimeTypes:
    types = MimeTypes()
    for suffix, type_ in _KNOWN_LATE.items():
        types.add_type(type_, suffix)
    return types


def type_of(name: str, octets: bytes) -> str:
    """Such as `application/pdf`; what is packed is what it is packed with, or unknown."""
    guessed, packed = _types().guess_type(name)
    if packed:
        return "application/gzip" if packed == "gzip" else OCTETS
    return guessed or type_by_content(octets) or OCTETS


def type_by_content(octets: bytes) -> str | None:
    """What the octets begin with tells; text is what reads as UTF-8 without a control; None for what nobody knows."""
    import filetype

    start = octets[:_LOOKED_AT]
    found: str | None = filetype.guess_mime(start)
    if found == "application/pdf":  # which may be all ASCII
        return found
    return "text/plain" if start and _is_text(start) else found


def _is_text(start: bytes) -> bool:
    if start.translate(None, _NO_TEXT) != start:
        return False
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        return len(start) == _LOOKED_AT and error.start > _LOOKED_AT - 4  # cut within a character
    return True


MAX_NAME = 200  # octets; file systems take 255
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_EDGES = re.compile(r"^[\s.]+|[\s.]+$")  # a system strips them, or hides the file
_SHORT = re.compile(r"[ -~]{1,50}")
_SEGMENT = 60  # octets of a continuation, so that its line stays below 78
_ATTRIBUTE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&+-.^_`{|}~")


def base_name(name: str) -> str:
    """The name without folders and without characters that hide, reorder or break; never empty, never long."""
    name = _EDGES.sub("", _UNSEEN.sub("_", re.split(r"[/\\]", name)[-1])) or "attachment"
    if len(encode(name)) <= MAX_NAME:
        return name
    stem, dot, suffix = name.rpartition(".")
    if not dot or len(encode(suffix)) > 20:
        stem, dot, suffix = name, "", ""
    return _EDGES.sub("", encode(stem)[: MAX_NAME - 21].decode("utf-8", "ignore") + dot + suffix)


def disposition(kind: str, name: str) -> bytes:
    """`Content-Disposition: kind; filename=…` from a base name."""
    if _SHORT.fullmatch(name) and "=?" not in name:
        quoted = re.sub(r'(["\\])', r"\\\1", name)
        return f'Content-Disposition: {kind}; filename="{quoted}"\r\n'.encode("ascii")
    segments = _segments(name)
    if len(segments) == 1:
        parameters = [f"filename*=utf-8''{segments[0]}"]
    else:
        parameters = [f"filename*{number}*={segment}" for number, segment in enumerate(segments)]
        parameters[0] = parameters[0].replace("=", "=utf-8''", 1)
    return f"Content-Disposition: {kind};\r\n ".encode("ascii") + ";\r\n ".join(parameters).encode("ascii") + b"\r\n"


def _segments(name: str) -> list[str]:
    """Percent-encoded, cut between characters (RFC 2231 §3, §4)."""
    segments = [""]
    for character in name:
        written = "".join(chr(octet) if octet in _ATTRIBUTE else f"%{octet:02X}" for octet in encode(character))
        if len(segments[-1]) + len(written) > _SEGMENT:
            segments.append("")
        segments[-1] += written
    return segments


_OPAQUE = ("message/", "multipart/")  # 7bit, 8bit or binary only, RFC 2045 §6.4


@dataclass(frozen=True, slots=True)
class Attachment:
    """Octets with a file name.

    Attributes:
        name: shown to the reader; folders and characters that deceive are taken out of it.
        type: such as `application/pdf`; if it is empty, found by the name, and where that says nothing by the octets.
            A message is `application/octet-stream`, because base64 is not allowed for it.
    """

    name: str
    data: bytes = field(repr=False)
    type: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", base_name(self.name))
        type_ = self.type.lower() or type_of(self.name, self.data)
        object.__setattr__(self, "type", OCTETS if type_.startswith(_OPAQUE) else type_)
        main, slash, sub = self.type.partition("/")
        if not (slash and main.replace("-", "").isalnum() and _is_token(sub) and self.type.isascii()):
            raise MessageError(f"the type of {self.name} must look like image/png")


@dataclass(frozen=True, slots=True)
class AttachmentPattern:
    """The path of a file that may differ from row to row: Jinja2 in a relative path with `/`."""

    path: str


Reader = Callable[[str], bytes]


def _is_token(text: str) -> bool:
    return text.replace("-", "").replace("+", "").replace(".", "").isalnum()
