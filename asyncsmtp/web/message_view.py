"""One received mail as a browser shows it: header fields, text, HTML that reaches nothing outside, and the other parts.

Any mail can be looked at, however broken. What cannot be decoded is replaced, and what is too large is left to the
download of the part.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from functools import cached_property
from itertools import islice

from asyncsmtp.protocol.replies import safe_text
from asyncsmtp.testing.received import StoredMail, read_header

__all__ = ["MAX_HTML", "MAX_TEXT", "MailPart", "MessageView"]

MAX_TEXT = 1_000_000  # characters of a text that is shown
MAX_HTML = 2_000_000  # characters of an HTML part that is shown
MAX_IMAGES = 10_000_000  # bytes of the images that are put into the HTML
MAX_FIELDS = 500  # header fields that are listed
MAX_VALUE = 4000  # characters of a header field
MAX_PARTS = 1000  # parts that are listed

_CID = re.compile(r"""(?i)\bcid:([^\s"'<>)]{1,300})""")
_REMOTE = re.compile(
    r"""(?i)(?:\b(?:src|background|poster|data)\s*=\s*["']?\s*|url\(\s*["']?\s*|@import\s+["']?)(?:https?:)?//"""
)
_IMAGES = {"image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp", "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class MailPart:
    """A part that has no parts itself.

    Attributes:
        number: from 1, in the order of the mail.
        name: of the file; "" if it has none.
        inline: it belongs to the HTML.
    """

    number: int
    type: str
    name: str
    size: int
    inline: bool
    octets: bytes = field(repr=False)


class MessageView:
    """A stored mail, parsed when it is looked at.

    Args:
        mail: from a Maildir.
    """

    def __init__(self, mail: StoredMail) -> None:
        self.mail = mail

    def header(self, name: str) -> str:
        """Return a header field, decoded; "" if there is none."""
        return safe_text(read_header(self.mail.message, name) or "", MAX_VALUE)

    @cached_property
    def fields(self) -> list[tuple[str, str]]:
        """All header fields in their order, decoded."""
        fields = islice(self.mail.message.raw_items(), MAX_FIELDS)
        return [(safe_text(name, 200), safe_text(self._decode(name, value), MAX_VALUE)) for name, value in fields]

    def _decode(self, name: str, value: str) -> str:
        try:
            return str(self.mail.message.policy.header_fetch_parse(name, value))
        except Exception:  # the parser of structured fields raises various exceptions for hostile ones
            return str(value)

    @cached_property
    def parts(self) -> list[MailPart]:
        """The parts that have no parts themselves, in the order of the mail."""
        found = []
        for number, part in enumerate(self._leaves(), start=1):
            payload = part.get_payload(decode=True)
            octets = payload if isinstance(payload, bytes) else b""
            try:
                name = safe_text(part.get_filename() or "", 200)
            except Exception:
                name = ""
            inline = bool(read_header(part, "Content-ID")) and part.get_content_disposition() != "attachment"
            found.append(MailPart(number, safe_text(part.get_content_type(), 100), name, len(octets), inline, octets))
            if number == MAX_PARTS:
                break
        return found

    def _leaves(self) -> Iterator[EmailMessage]:
        for part in self.mail.message.walk():
            if not part.is_multipart() and isinstance(part, EmailMessage):
                yield part

    @property
    def text(self) -> str:
        """The plain text; "" if there is none. Control characters are replaced."""
        return _visible(self._body("plain")[:MAX_TEXT])

    @property
    def source(self) -> str:
        """The mail as it was received, as text."""
        return _visible(self.mail.octets[: 2 * MAX_TEXT].decode("utf-8", "replace"))

    @cached_property
    def html(self) -> str:
        """The HTML part, with the images of the mail inside; "" if there is none, or if it is too large."""
        html = self._body("html")
        if not html or len(html) > MAX_HTML:
            return ""
        images = self._images()
        left = MAX_IMAGES

        def replace(match: re.Match[str]) -> str:
            nonlocal left
            kind, octets = images.get(match[1].strip("<>"), ("", b""))
            left -= len(octets)
            return f"data:{kind};base64,{b64encode(octets).decode()}" if octets and left >= 0 else "data:,"

        return _CID.sub(replace, html)

    @property
    def has_html(self) -> bool:
        """True if there is an HTML part, also one that is too large to be shown."""
        return bool(self._body("html"))

    @property
    def remote(self) -> int:
        """Number of things in the HTML part that would be loaded from elsewhere."""
        return len(_REMOTE.findall(self._body("html")[:MAX_HTML]))

    def _body(self, subtype: str) -> str:
        for part in self._leaves():
            if part.get_content_type() == f"text/{subtype}" and part.get_content_disposition() != "attachment":
                payload = part.get_payload(decode=True)
                octets = payload if isinstance(payload, bytes) else b""
                try:
                    return octets.decode(part.get_content_charset("utf-8"), "replace")
                except (LookupError, ValueError):  # a charset that nobody knows, or one that is no text
                    return octets.decode("utf-8", "replace")
        return ""

    def _images(self) -> dict[str, tuple[str, bytes]]:
        """Return type and bytes of the images in the mail, by their Content-IDs."""
        found = {}
        for part in self._leaves():
            kind = part.get_content_type()
            identifier = (read_header(part, "Content-ID") or "").strip().strip("<>")
            payload = part.get_payload(decode=True)
            if identifier and kind in _IMAGES and isinstance(payload, bytes):
                found[identifier] = kind, payload
        return found


def _visible(text: str) -> str:
    """Return a text of several lines without characters that act: controls, and those that turn the writing."""
    return "\n".join(safe_text(line.expandtabs(), MAX_TEXT) for line in text.splitlines())
