"""Attachment: a file that travels with the message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from asyncsmtp.errors import MessageError
from asyncsmtp.mail.contenttype import OCTETS, type_of
from asyncsmtp.mail.filenames import base_name

__all__ = ["Attachment", "AttachmentPattern", "Reader"]

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
