"""The parts of a message that anybody may have written: a MIME parser with limits.

It takes linear time in the bytes it reads, and reads no more than `MAX_DSN_BYTES`, `MAX_DEPTH` levels and `MAX_PARTS`
parts of a message: the parser of the standard library compares each line with the boundaries of all open parts, and
needs a minute for ninety nested ones.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from contextlib import suppress

__all__ = ["HEADERS", "MAX_DSN_BYTES", "MAX_VALUE", "MESSAGES", "Part", "walk_parts"]

MAX_DSN_BYTES = 2 * 1024 * 1024  # of a report that are parsed; the original message may follow
MAX_DEPTH = 8  # levels of multipart or message/rfc822
MAX_PARTS = 100  # of a message, at all levels
MAX_HEADER = 64 * 1024  # bytes of the header of a part
MAX_VALUE = 2000  # characters of a field
MESSAGES = frozenset({"message/rfc822", "message/global"})
HEADERS = frozenset({"text/rfc822-headers", "message/global-headers"})  # of a message, without its body

_BLANK_LINE = re.compile(rb"^[ \t]*\n", re.MULTILINE)
_CONTENT_TYPE = re.compile(r"\s*([\w.+-]+/[\w.+-]+)")
_BOUNDARY = re.compile(r";\s*boundary\s*=\s*(?:\"([^\"]{1,200})\"|([^\s;\"]{1,200}))", re.IGNORECASE)


class Part:
    """A message, or a part of one: its header fields by their names in lower case, and its body with LF line ends."""

    def __init__(self, data: bytes) -> None:
        blank = _BLANK_LINE.search(data, 0, MAX_HEADER)
        end = blank.start() if blank else min(len(data), MAX_HEADER)
        self.body = data[blank.end() :] if blank else b""
        self.fields: dict[str, list[str]] = {}
        for name, value in _fields(data[:end].decode("utf-8", "replace")):
            self.fields.setdefault(name, []).append(value)
        found = _CONTENT_TYPE.match(self.get("content-type"))
        self.content_type = found[1].lower() if found else "text/plain"

    def get(self, name: str) -> str:
        """Return the value of the first field of this name, in one line; "" if there is none."""
        return self.fields.get(name, [""])[0]

    def text(self) -> str:
        """Return the body as text."""
        encoding, data = self.get("content-transfer-encoding").strip().lower(), self.body
        if encoding == "quoted-printable":
            data = binascii.a2b_qp(data)
        elif encoding == "base64":
            with suppress(binascii.Error):  # it is not what it says
                data = binascii.a2b_base64(data)
        return data.decode("utf-8", "replace").replace("\r\n", "\n")

    def split(self) -> Iterator[bytes]:
        """Yield the parts of a multipart body, or the message in a message/rfc822."""
        if self.content_type in MESSAGES:
            yield self.body
        boundary = _BOUNDARY.search(self.get("content-type"))
        if boundary is None or not self.content_type.startswith("multipart/"):
            return
        mark = re.escape((boundary[1] or boundary[2]).encode("utf-8", "replace"))
        start = -1
        for line in re.finditer(rb"^--" + mark + rb"(--)?[ \t]*(?:\n|\Z)", self.body, re.MULTILINE):
            if start >= 0:
                yield self.body[start : line.start()]
            start = line.end()
            if line[1]:
                return
        if start >= 0:
            yield self.body[start:]  # cut off


def walk_parts(data: bytes) -> Iterator[Part]:
    """Yield a message and its parts, each before its own parts."""
    data = data[:MAX_DSN_BYTES].replace(b"\r\n", b"\n")
    if b"\n" not in data:
        data = data.replace(b"\r", b"\n")
    waiting = [(Part(data), 0)]
    left = MAX_PARTS
    while waiting and left:
        part, depth = waiting.pop()
        yield part
        left -= 1
        if depth < MAX_DEPTH:
            inner: list[tuple[Part, int]] = []
            for piece in part.split():
                if len(inner) >= left:
                    break
                inner.append((Part(piece), depth + 1))
            waiting += reversed(inner)


def _fields(text: str) -> Iterator[tuple[str, str]]:
    """Yield the fields of a header, unfolded; what is no field is passed over."""
    name, lines = "", list[str]()
    for line in text.split("\n"):
        if line[:1] in (" ", "\t"):
            lines.append(line.strip())
            continue
        if name:
            yield name, " ".join(lines)[:MAX_VALUE]
        name, colon, value = line.partition(":")
        name, lines = (name.strip().lower() if colon else ""), [value.strip()]
    if name:
        yield name, " ".join(lines)[:MAX_VALUE]
