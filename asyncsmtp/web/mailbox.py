"""The sandbox as a mailbox in the browser: what arrived, newest first, each mail in all its parts, and a JSON API.

    GET    /api/messages?q=&offset=0&limit=50    the mails, newest first
    GET    /api/messages/ID                      one of them, with text, HTML and parts
    DELETE /api/messages/ID, /api/messages       one of them, or all

The HTML of a mail is shown in a frame that runs no script, submits no form and loads nothing from elsewhere, but for
images on request.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from asyncsmtp.protocol.replies import safe_text
from asyncsmtp.testing.received import StoredMail, read_header
from asyncsmtp.web.message_view import MessageView
from asyncsmtp.web.templates import read_page_file, render_page

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["MailIndex", "MailSummary", "make_mailbox_app"]

PAGE_SIZE = 50  # mails of one page
MAX_PAGE = 500  # mails that the API returns at once
MAX_WORD = 300  # characters of a header field in the list
MAX_SEARCHED = 20_000  # characters of a text that are searched
INLINE_TYPES = {"image/png", "image/jpeg", "image/gif", "image/webp", "text/plain", "application/pdf"}
FRAME_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:{remote}; font-src data:; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'self'"
)
FILE_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'"
VIEWS = ("html", "text", "source", "headers", "parts")

_ARRIVED = re.compile(r"(\d{1,12})\.M(\d{6})")


@dataclass(frozen=True, slots=True)
class MailSummary:
    """A line of the list.

    Attributes:
        id: name of the mail's file.
        at: time of arrival, UTC.
        sender: of the header. recipients: of the envelope.
        size: in bytes.
    """

    id: str
    at: datetime
    sender: str
    recipients: tuple[str, ...]
    subject: str
    size: int


class MailIndex:
    """Mails of a Maildir, newest first, each read once for the list and once for the search.

    The methods read files: call them in a thread.

    Args:
        maildir: its folder.
    """

    def __init__(self, maildir: Path) -> None:
        self._folders = (maildir / "new", maildir / "cur")
        self._summaries: dict[str, MailSummary] = {}
        self._texts: dict[str, str] = {}

    def names(self) -> dict[str, Path]:
        """Return the files of the mails by their names, newest first."""
        found = {}
        for folder in self._folders:
            if folder.is_dir():
                found.update({entry.name: Path(entry.path) for entry in os.scandir(folder) if entry.is_file()})
        return dict(sorted(found.items(), reverse=True))

    def find(self, name: str) -> StoredMail | None:
        """Return the mail with this name; None if there is no such mail, also for a name that leads elsewhere."""
        path = self.names().get(name)
        return None if path is None else StoredMail(path)

    def read_page(self, words: str, offset: int, limit: int) -> tuple[list[MailSummary], int]:
        """Return some of the mails in which all of these words occur, and the number of all such mails."""
        names = self.names()
        wanted = words.casefold().split()
        found = [name for name in names if self._matches(name, names[name], wanted)] if wanted else [*names]
        page = (self.summarize(name, names[name]) for name in found[offset : offset + limit])
        return [each for each in page if each is not None], len(found)

    def delete(self, name: str | None = None) -> int:
        """Delete one mail, or all of them; return how many."""
        names = self.names()
        paths = list(names.values()) if name is None else [names[name]] if name in names else []
        for path in paths:
            path.unlink(missing_ok=True)
            self._summaries.pop(path.name, None)
            self._texts.pop(path.name, None)
        return len(paths)

    def summarize(self, name: str, path: Path) -> MailSummary | None:
        """Return the line of a mail; None if it was deleted meanwhile."""
        if name not in self._summaries:
            mail = StoredMail(path)
            try:
                sender, subject = (read_header(mail.message, field) or "" for field in ("From", "Subject"))
            except FileNotFoundError:  # deleted meanwhile
                return None
            self._summaries[name] = MailSummary(
                name,
                _arrival(name, path),
                safe_text(sender, MAX_WORD),
                tuple(safe_text(each, MAX_WORD) for each in mail.forward_paths),
                safe_text(subject, MAX_WORD),
                len(mail.octets),
            )
        return self._summaries[name]

    def _matches(self, name: str, path: Path, words: list[str]) -> bool:
        if name not in self._texts:
            summary = self.summarize(name, path)
            if summary is None:
                return False
            text = MessageView(StoredMail(path)).text[:MAX_SEARCHED]
            self._texts[name] = "\n".join((summary.sender, *summary.recipients, summary.subject, text)).casefold()
        return all(word in self._texts[name] for word in words)


def _arrival(name: str, path: Path) -> datetime:
    match = _ARRIVED.match(name)
    seconds = int(match[1]) + int(match[2]) / 1e6 if match else path.stat().st_mtime
    return datetime.fromtimestamp(seconds, UTC)


def make_mailbox_app(maildir: Path, name: str = "sandbox") -> Starlette:
    """Return the application for a Maildir.

    Args:
        name: title of the pages.
    """
    from starlette.applications import Starlette
    from starlette.routing import Route

    mailbox = _Mailbox(MailIndex(maildir), name)
    return Starlette(
        routes=[
            Route("/", mailbox.show_list),
            Route("/static/{name}", mailbox.send_static),
            Route("/messages/{id}", mailbox.show_message),
            Route("/messages/{id}/html", mailbox.send_html),
            Route("/messages/{id}/raw", mailbox.send_raw),
            Route("/messages/{id}/parts/{number:int}", mailbox.send_part),
            Route("/api/messages", mailbox.list_messages, methods=["GET"]),
            Route("/api/messages", mailbox.delete, methods=["DELETE"]),
            Route("/api/messages/{id}", mailbox.describe_message, methods=["GET"]),
            Route("/api/messages/{id}", mailbox.delete, methods=["DELETE"]),
        ]
    )


class _Mailbox:
    """The handlers of the requests."""

    def __init__(self, index: MailIndex, name: str) -> None:
        self._index = index
        self._name = name

    async def show_list(self, request: Request) -> Response:
        words, offset, _ = _query(request)
        mails, total = await asyncio.to_thread(self._index.read_page, words, offset, PAGE_SIZE)
        pages = {"newer": max(0, offset - PAGE_SIZE) if offset else None}
        pages["older"] = offset + PAGE_SIZE if offset + PAGE_SIZE < total else None
        lines = [(each, f"{each.at.astimezone():%H:%M:%S}", f"{each.at.astimezone():%Y-%m-%d}") for each in mails]
        page = {"title": self._name, "mails": lines, "total": total, "words": words, "offset": offset, "pages": pages}
        return _html("mailbox", **page)

    async def show_message(self, request: Request) -> Response:
        mail = await self._find(request)
        if mail is None:
            return _missing()
        message = MessageView(mail)
        default = "html" if await asyncio.to_thread(lambda: message.has_html) else "text"
        view = request.query_params.get("view", default)
        remote = request.query_params.get("remote") == "1"
        values = await asyncio.to_thread(_message_values, message, view if view in VIEWS else default)
        link = "/messages/" + quote(mail.path.name)
        return _html("message", title=self._name, link=link, views=VIEWS, allowed=remote, **values)

    async def send_html(self, request: Request) -> Response:
        """Send the HTML part alone, for the frame: it has no origin, and its policy forbids nearly everything."""
        from starlette.responses import HTMLResponse

        mail = await self._find(request)
        if mail is None:
            return _missing()
        html = await asyncio.to_thread(lambda: MessageView(mail).html)
        allowed = " http: https:" if request.query_params.get("remote") == "1" else ""
        headers = {"content-security-policy": FRAME_POLICY.format(remote=allowed)}
        return HTMLResponse(html or "<p>The HTML part is too large to be shown here.</p>", headers=headers)

    async def send_raw(self, request: Request) -> Response:
        from starlette.responses import Response

        mail = await self._find(request)
        if mail is None:
            return _missing()
        octets = await asyncio.to_thread(lambda: mail.octets)
        return Response(octets, media_type="message/rfc822", headers=_as_file(f"{mail.path.name.split('.eml')[0]}.eml"))

    async def send_part(self, request: Request) -> Response:
        """Send a part as a file; types that a browser only shows are shown."""
        from starlette.responses import Response

        mail = await self._find(request)
        parts = [] if mail is None else await asyncio.to_thread(lambda: MessageView(mail).parts)
        number = request.path_params["number"]
        if not 1 <= number <= len(parts):
            return _missing()
        part = parts[number - 1]
        shows = part.type in INLINE_TYPES
        headers = _as_file(part.name or f"part-{number}", inline=shows) | {"content-security-policy": FILE_POLICY}
        kind = part.type if shows else "application/octet-stream"
        return Response(part.octets, media_type=kind, headers=headers)

    async def send_static(self, request: Request) -> Response:
        from starlette.responses import Response

        types = {"style.css": "text/css", "mailbox.js": "text/javascript"}
        name = request.path_params["name"]
        return Response(read_page_file(name), media_type=types[name]) if name in types else _missing()

    async def list_messages(self, request: Request) -> Response:
        words, offset, limit = _query(request)
        mails, total = await asyncio.to_thread(self._index.read_page, words, offset, limit)
        return _json({"total": total, "messages": [_record(each) for each in mails]})

    async def describe_message(self, request: Request) -> Response:
        mail = await self._find(request)
        if mail is None:
            return _json({"error": "there is no such message"}, 404)
        return _json(await asyncio.to_thread(_message_record, mail, self._index))

    async def delete(self, request: Request) -> Response:
        name = request.path_params.get("id")
        number = await asyncio.to_thread(self._index.delete, name)
        if name is not None and not number:
            return _json({"error": "there is no such message"}, 404)
        return _json({"deleted": number})

    async def _find(self, request: Request) -> StoredMail | None:
        return await asyncio.to_thread(self._index.find, request.path_params["id"])


def _query(request: Request) -> tuple[str, int, int]:
    """Return the words, the offset and the limit of a request; anything but a number is taken as the default."""

    def number(name: str, default: int, highest: int) -> int:
        text = request.query_params.get(name, "")
        return min(int(text), highest) if text.isascii() and text.isdigit() and len(text) < 10 else default

    return request.query_params.get("q", "")[:200], number("offset", 0, 10**9), number("limit", PAGE_SIZE, MAX_PAGE)


def _message_values(message: MessageView, view: str) -> dict[str, object]:
    """Return what the page of one message needs."""
    return {
        "view": view,
        "subject": message.header("Subject") or "(no subject)",
        "summary": [
            (name, value) for name in ("From", "To", "Cc", "Reply-To", "Date") if (value := message.header(name))
        ],
        "envelope": (safe_text(message.mail.reverse_path, MAX_WORD), [*_recipients(message.mail)]),
        "has_html": message.has_html,
        "remote": message.remote,
        "parts": message.parts,
        "files": sum(not part.inline and bool(part.name) for part in message.parts),
        "body": message.text if view == "text" else message.source if view == "source" else "",
        "fields": message.fields if view == "headers" else [],
    }


def _message_record(mail: StoredMail, index: MailIndex) -> dict[str, object]:
    view = MessageView(mail)
    summary = index.summarize(mail.path.name, mail.path)
    return {
        **(_record(summary) if summary is not None else {}),
        "reverse_path": mail.reverse_path,
        "headers": [{"name": name, "value": value} for name, value in view.fields],
        "text": view.text,
        "html": view.html,
        "parts": [{name: value for name, value in asdict(part).items() if name != "octets"} for part in view.parts],
    }


def _recipients(mail: StoredMail) -> Iterator[str]:
    for each in mail.forward_paths:
        yield safe_text(each, MAX_WORD)


def _record(summary: MailSummary) -> dict[str, object]:
    return {
        "id": summary.id,
        "at": summary.at.isoformat(timespec="milliseconds"),
        "from": summary.sender,
        "recipients": [*summary.recipients],
        "subject": summary.subject,
        "size": summary.size,
    }


def _as_file(name: str, *, inline: bool = False) -> dict[str, str]:
    kind = "inline" if inline else "attachment"
    return {"content-disposition": f"{kind}; filename*=UTF-8''{quote(name, safe='')}"}


def _html(name: str, **values: object) -> Response:
    from starlette.responses import HTMLResponse

    return HTMLResponse(render_page(name, **values))


def _json(record: Mapping[str, object], code: int = 200) -> Response:
    from starlette.responses import JSONResponse

    return JSONResponse(record, code)


def _missing() -> Response:
    from starlette.responses import PlainTextResponse

    return PlainTextResponse("there is no such message\n", 404)
