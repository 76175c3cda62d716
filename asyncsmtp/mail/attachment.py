"""Attachment: a file that travels with the message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from mimetypes import MimeTypes

from asyncsmtp.errors import MessageError
from asyncsmtp.mail.filenames import base_name

__all__ = ["Attachment", "AttachmentPattern", "Reader"]

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
_ANYTHING = "application/octet-stream"
_OPAQUE = ("message/", "multipart/")  # 7bit, 8bit or binary only, RFC 2045 §6.4


@dataclass(frozen=True, slots=True)
class Attachment:
    """Octets with a file name.

    Attributes:
        name: shown to the reader; folders and characters that deceive are taken out of it.
        type: such as `application/pdf`; guessed from the name if it is empty. A message is
            `application/octet-stream`, because base64 is not allowed for it.
    """

    name: str
    data: bytes = field(repr=False)
    type: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", base_name(self.name))
        type_ = self.type.lower() or _type_of(self.name)
        object.__setattr__(self, "type", _ANYTHING if type_.startswith(_OPAQUE) else type_)
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


@cache
def _types() -> MimeTypes:
    types = MimeTypes()
    for suffix, type_ in _KNOWN_LATE.items():
        types.add_type(type_, suffix)
    return types


def _type_of(name: str) -> str:
    guessed, packed = _types().guess_type(name)
    if packed:
        return "application/gzip" if packed == "gzip" else _ANYTHING
    return guessed or _ANYTHING
