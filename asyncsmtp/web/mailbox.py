"""The sandbox as a mailbox in the browser: what arrived, newest first, each mail in all its parts, and a JSON API.

GET    /api/messages?q=&offset=0&limit=50    the mails, newest first
GET    /api/messages/ID                      one of them, with envelope, dialogue, text, HTML and parts
DELETE /api/messages/ID, /api/messages       one of them, or all
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from asyncsmtp.protocol.replies import safe_text
from asyncsmtp.testing.received import MailTransaction, StoredMail, remove_transactions
from asyncsmtp.web.mail_index import MAX_WORD, MailIndex, MailSummary
from asyncsmtp.web.mail_text import replace_surrogates
from asyncsmtp.web.message_view import (
    VIEWS,
    WIDTHS,
    FrameChoice,
    MessageView,
    answer_html,
    answer_part,
    answer_raw,
    answer_static,
    read_frame_choice,
)
from asyncsmtp.web.templates import render_page

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["make_mailbox_app"]

PAGE_SIZE = 50  # mails of one page
MAX_PAGE = 500  # mails that the API returns at once
PREPARING = 0.25  # seconds after each request for the list in which mails are read for the search
MAX_SHOWN = 200_000  # characters of a text that are put into a page; a browser takes 0.1 s for them


def make_mailbox_app(maildir: Path, name: str = "sandbox") -> Starlette:
    """Return the application for a Maildir.

    Args:
        name: title of the pages.
    """
    from starlette.applications import Starlette
    from starlette.routing import Route

    mailbox = _Mailbox(maildir, name)
    return Starlette(
        routes=[
            Route("/", mailbox.show_list),
            Route("/count", mailbox.count),
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


@dataclass(frozen=True, slots=True)
class MessageChoice(FrameChoice):
    """The URL parameters of the page of a message."""

    path: str = ""
    view: str = "html"

    def link(self, **changed: object) -> str:
        """Return the address of the page with something else chosen."""
        chosen = replace(self, **changed)  # type: ignore[arg-type]
        return f"{self.path}?" + urlencode({"view": chosen.view, **chosen.frame_values()})

    @property
    def frame(self) -> str:
        """The address of the HTML."""
        values = urlencode({name: value for name, value in self.frame_values().items() if name != "width"})
        return f"{self.path}/html" + (f"?{values}" if values else "")


class _Mailbox:
    """The handlers of the requests."""

    def __init__(self, maildir: Path, name: str) -> None:
        self._maildir = maildir
        self._index = MailIndex(maildir)
        self._name = name
        self._last: tuple[StoredMail, MessageView] | None = None

    def _view(self, mail: StoredMail) -> MessageView:
        """Return the view of a mail; the last one is kept, since a page asks for it several times."""
        last = self._last
        if last is None or last[0] is not mail:
            self._last = last = mail, MessageView(mail)
        return last[1]

    async def show_list(self, request: Request) -> Response:
        words, offset, _ = _query(request)
        mails, total = await asyncio.to_thread(self._index.read_page, words, offset, PAGE_SIZE)
        pages = {"newer": max(0, offset - PAGE_SIZE) if offset else None}
        pages["older"] = offset + PAGE_SIZE if offset + PAGE_SIZE < total else None
        lines = [(each, f"{each.at.astimezone():%H:%M:%S}", f"{each.at.astimezone():%Y-%m-%d}") for each in mails]
        page = {"title": self._name, "mails": lines, "total": total, "words": words, "offset": offset, "pages": pages}
        return await asyncio.to_thread(_html, "mailbox", **page)

    async def count(self, request: Request) -> Response:
        """Tell the list how many mails there are now; it asks each second, and reads itself anew if that changes."""
        from starlette.background import BackgroundTask

        total = await asyncio.to_thread(self._index.count, _query(request)[0])
        return _json({"total": total}, background=BackgroundTask(self._index.prepare, PREPARING))

    async def show_message(self, request: Request) -> Response:
        mail = await self._find(request)
        if mail is None:
            return _missing()
        message = self._view(mail)
        default = await asyncio.to_thread(_default_view, message)
        view = request.query_params.get("view", default)
        views = (*VIEWS, "dialogue")
        view = view if view in views else default
        values = await asyncio.to_thread(_message_values, mail, message, view)
        link = "/messages/" + quote(mail.path.name)
        choice = MessageChoice(path=link, view=view, **read_frame_choice(request.query_params))
        neighbours = await asyncio.to_thread(self._index.neighbours, mail.path.name)
        values |= {"title": self._name, "link": link, "views": views, "choice": choice, "neighbours": neighbours}
        return await asyncio.to_thread(_html, "message", **values)

    async def send_html(self, request: Request) -> Response:
        mail = await self._find(request)
        if mail is None:
            return _missing()
        choice = FrameChoice(**read_frame_choice(request.query_params))
        return await asyncio.to_thread(answer_html, self._view(mail), choice.images, dark=choice.dark)

    async def send_raw(self, request: Request) -> Response:
        mail = await self._find(request)
        if mail is None:
            return _missing()
        octets = await asyncio.to_thread(lambda: mail.octets)
        return answer_raw(octets, f"{mail.path.name.split('.eml')[0]}.eml")

    async def send_part(self, request: Request) -> Response:
        mail = await self._find(request)
        if mail is None:
            return _missing()
        return await asyncio.to_thread(answer_part, self._view(mail), request.path_params["number"]) or _missing()

    async def send_static(self, request: Request) -> Response:
        return answer_static(request.path_params["name"], "mailbox.js") or _missing()

    async def list_messages(self, request: Request) -> Response:
        words, offset, limit = _query(request)
        mails, total = await asyncio.to_thread(self._index.read_page, words, offset, limit)
        return _json({"total": total, "messages": [_record(each) for each in mails]})

    async def describe_message(self, request: Request) -> Response:
        mail = await self._find(request)
        if mail is None:
            return _json({"error": "there is no such message"}, 404)
        return _json(await asyncio.to_thread(_message_record, mail, self._view(mail), self._index))

    async def delete(self, request: Request) -> Response:
        name = request.path_params.get("id")
        number = await asyncio.to_thread(self._index.delete, name)
        await asyncio.to_thread(remove_transactions, self._maildir, None if name is None else [name])
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


def _default_view(message: MessageView) -> str:
    return "source" if message.defect else "html" if message.has_html else "text"


def _message_values(mail: StoredMail, message: MessageView, view: str) -> dict[str, object]:
    """Return what the page of one message needs."""
    return {
        "view": view,
        "subject": message.header("Subject") or "(no subject)",
        "summary": [
            (name, value) for name in ("From", "To", "Cc", "Reply-To", "Date") if (value := message.header(name))
        ],
        "envelope": (safe_text(mail.reverse_path, MAX_WORD), [*_recipients(mail)]),
        "defect": message.defect,
        "facts": _describe_transaction(mail.transaction),
        "has_html": message.has_html,
        "remote": message.remote,
        "widths": WIDTHS,
        "parts": message.parts,
        "files": sum(not part.inline and bool(part.name) for part in message.parts),
        "body": _read_body(mail, message, view),
        "fields": message.fields if view == "headers" else [],
    }


def _read_body(mail: StoredMail, message: MessageView, view: str) -> str:
    """Return the text of a view that is one text; the end of a very long one is left to the file."""
    if view == "dialogue":
        transaction = mail.transaction
        return "\n".join(safe_text(line, 2 * MAX_WORD) for line in transaction.dialogue) if transaction else ""
    text = message.text if view == "text" else message.source if view == "source" else ""
    if len(text) <= MAX_SHOWN:
        return text
    return f"{text[:MAX_SHOWN]}\n\n… This is the beginning. The file has all of it: Download .eml"


def _describe_transaction(transaction: MailTransaction | None) -> str:
    """Return what else is known of the envelope."""
    if transaction is None:
        return ""
    words = [key if value is None else f"{key}={value}" for key, value in transaction.parameters.items()]
    words += [f"connection {transaction.connection}", "over TLS" if transaction.tls else "without TLS"]
    words += [f"logged in as {transaction.user}"] if transaction.user is not None else []
    return safe_text(", ".join(words), 2 * MAX_WORD)


def _message_record(mail: StoredMail, view: MessageView, index: MailIndex) -> dict[str, object]:
    summary = index.summarize(mail.path)
    transaction = mail.transaction
    envelope: dict[str, object] = {"reverse_path": mail.reverse_path, "forward_paths": [*mail.forward_paths]}
    if transaction is not None:
        envelope |= {name: value for name, value in asdict(transaction).items() if name != "dialogue"}
    return {
        **(_record(summary) if summary is not None else {}),
        "reverse_path": mail.reverse_path,
        "envelope": envelope,
        "dialogue": [] if transaction is None else [*transaction.dialogue],
        "headers": [{"name": name, "value": value} for name, value in view.fields],
        "text": view.text,
        "html": view.html_part,
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


def _html(page: str, code: int = 200, /, **values: object) -> Response:
    from starlette.responses import HTMLResponse

    return HTMLResponse(replace_surrogates(render_page(page, **values)), code)


def _json(record: Mapping[str, object], code: int = 200, *, background: BackgroundTask | None = None) -> Response:
    from starlette.responses import Response

    text = replace_surrogates(json.dumps(record, ensure_ascii=False, separators=(",", ":")))
    return Response(text, code, media_type="application/json", background=background)


def _missing() -> Response:
    return _html("missing", 404)
