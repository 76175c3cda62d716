"""The media type of a file: by its name where that says something, else by its octets."""

from __future__ import annotations

from functools import cache
from mimetypes import MimeTypes

__all__ = ["OCTETS", "type_by_content", "type_of"]

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
