"""One mail as a browser shows it: header fields, text, HTML that reaches nothing outside, and the other parts.

The HTML is shown in a frame that runs no script, submits no form and loads nothing from elsewhere, but for images on
request. Any mail can be looked at, however broken. What cannot be decoded is replaced, and what is too large is left to
the download of the part.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesHeaderParser, BytesParser
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import quote

from asyncsmtp.protocol.replies import safe_text
from asyncsmtp.web.mail_text import MAIL_POLICY, count_remote, decode_text, replace_surrogates
from asyncsmtp.web.templates import read_page_file

if TYPE_CHECKING:
    from starlette.responses import Response

__all__ = [
    "MAX_HTML",
    "MAX_TEXT",
    "VIEWS",
    "WIDTHS",
    "FrameChoice",
    "MailPart",
    "MailSource",
    "MessageView",
    "answer_html",
    "answer_part",
    "answer_raw",
    "answer_static",
    "read_frame_choice",
]

VIEWS = ("html", "text", "source", "headers", "parts")
WIDTHS = ("desktop", "tablet", "phone")
INLINE_TYPES = {"image/png", "image/jpeg", "image/gif", "image/webp", "text/plain", "application/pdf"}
FRAME_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src {images}; font-src data:; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'self'"
)
IMAGES = {"own": "data:", "all": "data: http: https:", "off": "'none'"}
FILE_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'"

MAX_TEXT = 1_000_000  # characters of a text that is shown
MAX_HTML = 2_000_000  # characters of an HTML part that is shown
MAX_IMAGES = 10_000_000  # bytes of the images that are put into the HTML
MAX_FIELDS = 500  # header fields that are listed
MAX_VALUE = 4000  # characters of a header field
MAX_PARTS = 1000  # parts that are listed

_CID = re.compile(r"""(?i)\bcid:([^\s"'<>)]{1,300})""")
# A browser looks up hosts, and connects to them, for a link with `dns-prefetch` or `preconnect` and for a frame in the
# mail, although the policy of the mail then forbids to load anything (Chromium 150, by its own log). So a `link`
# becomes a `basefont`, which is parsed alike and does nothing; to give it another `rel` is not enough, since what looks
# ahead in the text reads both. Of two attributes with one name the first holds, so frames and objects are empty.
_REACHING = re.compile(r"(?i)<(link|iframe|frame|object|embed)(?=[\s/>])")
_INERT = {
    "link": "<basefont",
    "iframe": '<iframe srcdoc=""',
    "frame": '<frame src="about:blank"',
    "object": '<object data=""',
    "embed": '<embed src=""',
}
_IMAGES = {"image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp", "image/svg+xml"}


class MailSource(Protocol):
    """A mail as bytes."""

    @property
    def octets(self) -> bytes: ...


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
    """A mail, parsed when it is looked at."""

    def __init__(self, mail: MailSource) -> None:
        self.mail = mail

    @cached_property
    def _parsed(self) -> tuple[EmailMessage, str]:
        """The mail, and why it has no parts: "" if it has."""
        octets = self.mail.octets
        try:
            return _as_email(BytesParser(policy=MAIL_POLICY).parsebytes(octets)), ""
        except RecursionError:
            defect = "its parts are nested too deeply to be shown"
        except Exception:  # the parser of the standard library fails for some hostile mails
            defect = "it cannot be taken apart into its parts"
        return _as_email(BytesHeaderParser(policy=MAIL_POLICY).parsebytes(octets)), defect

    @property
    def defect(self) -> str:
        """Why only the source and the header fields can be shown; "" if there is more."""
        return self._parsed[1]

    def header(self, name: str) -> str:
        """Return a header field, decoded; "" if there is none."""
        return safe_text(_read_header(self._parsed[0], name), MAX_VALUE)

    @cached_property
    def fields(self) -> list[tuple[str, str]]:
        """All header fields in their order, decoded."""
        fields = islice(self._parsed[0].raw_items(), MAX_FIELDS)
        decode = MAIL_POLICY.header_fetch_parse
        return [(safe_text(name, 200), safe_text(str(decode(name, value)), MAX_VALUE)) for name, value in fields]

    @cached_property
    def parts(self) -> list[MailPart]:
        """The parts that have no parts themselves, in the order of the mail."""
        found = []
        for number, part in enumerate(islice(self._leaves, MAX_PARTS), start=1):
            octets = _octets(part)
            name = safe_text(_ask(part.get_filename, None) or "", 200)
            inline = bool(_read_header(part, "Content-ID")) and not _is_attached(part)
            found.append(MailPart(number, safe_text(_type(part), 100), name, len(octets), inline, octets))
        return found

    @cached_property
    def _leaves(self) -> list[EmailMessage]:
        """The parts that have no parts themselves; `Message.walk` calls itself once for each level."""
        message, defect = self._parsed
        found, left = [], [] if defect else [message]
        while left:
            part = left.pop()
            if part.is_multipart():
                inner = part.get_payload()
                left += [each for each in reversed(inner) if isinstance(each, EmailMessage)]  # type: ignore[arg-type]
            else:
                found.append(part)
        return found

    @property
    def text(self) -> str:
        """The plain text; "" if there is none. Control characters are replaced."""
        return _visible(self._body("plain")[:MAX_TEXT])

    @property
    def source(self) -> str:
        """The mail as it was received, as text."""
        return _visible(decode_text(self.mail.octets[: 2 * MAX_TEXT]))

    @cached_property
    def html(self) -> str:
        """The HTML part, with the images of the mail inside; "" if there is none, or if it is too large.

        It connects to nothing, whatever a browser does before it asks the policy of a page.
        """
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

        return _REACHING.sub(lambda found: _INERT[found[1].lower()], _CID.sub(replace, html))

    @property
    def html_part(self) -> str:
        """The HTML part as it was sent, decoded; "" if there is none."""
        return self._body("html")[:MAX_HTML]

    @property
    def has_html(self) -> bool:
        """True if there is an HTML part, also one that is too large to be shown."""
        return bool(self._body("html"))

    @property
    def remote(self) -> int:
        """Number of things in the HTML part that would be loaded from elsewhere."""
        return count_remote(self._body("html")[:MAX_HTML])

    def _body(self, subtype: str) -> str:
        for part in self._leaves:
            if _type(part) == f"text/{subtype}" and not _is_attached(part):
                return decode_text(_octets(part), _ask(part.get_content_charset, None) or "utf-8")
        return ""

    def _images(self) -> dict[str, tuple[str, bytes]]:
        """Return type and bytes of the images in the mail, by their Content-IDs."""
        found = {}
        for part in self._leaves:
            kind = _type(part)
            if kind in _IMAGES and (identifier := _read_header(part, "Content-ID").strip().strip("<>")):
                found[identifier] = kind, _octets(part)
        return found


_T = TypeVar("_T")


def _ask(question: Callable[[], _T], default: _T) -> _T:
    """Return what the standard library answers; the default if it fails at what a mail contains."""
    try:
        return question()
    except Exception:
        return default


def _as_email(message: object) -> EmailMessage:
    assert isinstance(message, EmailMessage)
    return message


def _read_header(part: EmailMessage, name: str) -> str:
    return replace_surrogates(str(_ask(lambda: part[name], None) or ""))


def _type(part: EmailMessage) -> str:
    return _ask(part.get_content_type, "application/octet-stream")


def _is_attached(part: EmailMessage) -> bool:
    return _ask(part.get_content_disposition, None) == "attachment"


def _octets(part: EmailMessage) -> bytes:
    payload = _ask(lambda: part.get_payload(decode=True), None)
    return payload if isinstance(payload, bytes) else b""


def _visible(text: str) -> str:
    """Return a text of several lines without characters that act: controls, and those that turn the writing."""
    return "\n".join(safe_text(line.expandtabs(), MAX_TEXT) for line in text.splitlines())


# Answers to requests; each view is read where it does not hold up the event loop.


_TOO_LARGE = "The HTML part is too large to be shown here."
_DARK = "<style>:root { color-scheme: dark }</style>"
_SCHEME = re.compile(r"(?i)\(\s*prefers-color-scheme\s*:\s*(dark|light)\s*\)")


@dataclass(frozen=True, slots=True)
class FrameChoice:
    """The URL parameters that choose how the HTML of a message is shown.

    Attributes:
        images: "own", those of the mail; "all", also those from elsewhere; "off".
    """

    width: str = "desktop"
    images: str = "own"
    dark: bool = False

    def frame_values(self) -> dict[str, str]:
        """Return what an address says of it: what is not the default."""
        values = {"width": self.width, "images": self.images, "dark": "1" if self.dark else ""}
        return {name: value for name, value in values.items() if value not in ("", "desktop", "own")}


def read_frame_choice(given: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a `FrameChoice` in an address; what is not valid there is the default."""
    width, images = given.get("width", ""), given.get("images", "")
    return {
        "width": width if width in WIDTHS else "desktop",
        "images": images if images in IMAGES else "own",
        "dark": given.get("dark") == "1",
    }


def answer_html(view: MessageView, images: str = "own", *, dark: bool = False) -> Response:
    """Return the HTML part alone, for the frame: it has no origin, and its policy forbids nearly everything.

    Args:
        images: `own`: those in the mail; `all`: those from elsewhere too; `off`: none.
        dark: with the mail's own styles for that, on a dark ground, whatever the browser prefers.
    """
    from starlette.responses import HTMLResponse

    reason = f"The HTML part cannot be shown: {view.defect}." if view.defect else _TOO_LARGE
    html = view.html or f"<p>{reason}</p>"
    if dark:
        html = _SCHEME.sub(lambda found: f"({'min' if found[1].lower() == 'dark' else 'max'}-width: 0px)", html) + _DARK
    return HTMLResponse(html, headers={"content-security-policy": FRAME_POLICY.format(images=IMAGES[images])})


def answer_raw(octets: bytes, name: str) -> Response:
    """Return a mail as a file."""
    from starlette.responses import Response

    return Response(octets, media_type="message/rfc822", headers=_as_file(name))


def answer_part(view: MessageView, number: int) -> Response | None:
    """Return a part as a file; types that a browser only shows are shown. None: there is no such part."""
    from starlette.responses import Response

    if not 1 <= number <= len(view.parts):
        return None
    part = view.parts[number - 1]
    shows = part.type in INLINE_TYPES
    headers = _as_file(part.name or f"part-{number}", inline=shows) | {"content-security-policy": FILE_POLICY}
    return Response(part.octets, media_type=part.type if shows else "application/octet-stream", headers=headers)


def answer_static(name: str, scripts: str) -> Response | None:
    """Return the style sheet, or the script of the page; None for any other name."""
    from starlette.responses import Response

    types = {"style.css": "text/css", scripts: "text/javascript"}
    return Response(read_page_file(name), media_type=types[name]) if name in types else None


def _as_file(name: str, *, inline: bool = False) -> dict[str, str]:
    kind = "inline" if inline else "attachment"
    return {"content-disposition": f"{kind}; filename*=UTF-8''{quote(replace_surrogates(name), safe='')}"}
