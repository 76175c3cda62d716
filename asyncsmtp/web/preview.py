"""The preview of a campaign in the browser: its rows, the message of each, what was found, and a message to oneself.

GET  /?row=&q=&order=&offset=&view=&width=&images=&dark=    the page; all that is chosen is in its address
GET  /events                                                a line of JSON whenever something has changed
GET  /rows/ROW/html, /raw, /parts/NUMBER                    the message of a row
POST /rows/ROW/send                                         {"to": ADDRESS}: send it to this address only
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from asyncsmtp.protocol.replies import safe_text
from asyncsmtp.web.campaign_files import Fault
from asyncsmtp.web.live_campaign import ComposedRow, LiveCampaign
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
from asyncsmtp.web.row_index import PAGE_SIZE, RowQuery
from asyncsmtp.web.templates import render_page

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["make_preview_app"]

KEEP_ALIVE = 15  # seconds after which a silent stream of events gets a comment
MAX_BODY = 4096  # bytes of a request
MAX_KEPT = 2  # messages that are kept parsed: a page, its frame and its attachments ask for the same one
MAX_DIGITS = 12  # of the number of a row
ORDERS = {"problems": "Problems first", "file": "As in the file"}
_ROW = re.compile(r"row ([0-9,]{1,15})\b")
_TITLES = {"html": "HTML", "text": "Text", "source": "Source", "headers": "Headers", "parts": "Attachments"}


@dataclass(frozen=True)
class ComposedMail:
    """A composed message as a `MailSource`."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class PageChoice(FrameChoice):
    """The URL parameters of a page of the preview."""

    row: int | None = None
    words: str = ""
    order: str = "problems"
    offset: int | None = None
    view: str = "html"

    @classmethod
    def read(cls, request: Request) -> PageChoice:
        """Read it from an address; what is not valid there is taken as the default."""
        given = request.query_params

        def number(name: str) -> int | None:
            text = given.get(name, "")
            return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else None

        def word(name: str, words: tuple[str, ...]) -> str:
            return text if (text := given.get(name, "")) in words else words[0]

        return cls(
            row=number("row"),
            words=safe_text(given.get("q", ""), 200),
            order=word("order", tuple(ORDERS)),
            offset=number("offset"),
            view=word("view", VIEWS),
            **read_frame_choice(given),
        )

    def link(self, **changed: object) -> str:
        """Return the address of the page with something else chosen."""
        chosen = replace(self, **changed)  # type: ignore[arg-type]
        values = {
            "row": chosen.row,
            "q": chosen.words,
            "order": "" if chosen.order == "problems" else chosen.order,
            "offset": chosen.offset,
            "view": "" if chosen.view == "html" else chosen.view,
            **chosen.frame_values(),
        }
        return "/?" + urlencode({name: value for name, value in values.items() if value not in (None, "")})


def make_preview_app(campaign: LiveCampaign, row: int | None = None) -> Starlette:
    """Return the application for a campaign.

    Args:
        row: shown first; None: the first one that gets a message.
    """
    from starlette.applications import Starlette
    from starlette.routing import Route

    preview = _Preview(campaign, row)
    return Starlette(
        routes=[
            Route("/", preview.show_page),
            Route("/events", preview.send_events),
            Route("/static/{name}", preview.send_static),
            Route("/rows/{row:int}/html", preview.send_html),
            Route("/rows/{row:int}/raw", preview.send_raw),
            Route("/rows/{row:int}/parts/{number:int}", preview.send_part),
            Route("/rows/{row:int}/send", preview.send_message, methods=["POST"]),
        ]
    )


class _Preview:
    """The handlers of the requests."""

    def __init__(self, campaign: LiveCampaign, row: int | None) -> None:
        self._campaign = campaign
        self._row = row
        self._views: dict[int, tuple[ComposedRow, MessageView]] = {}  # the last few, by row
        self._sending = asyncio.Lock()

    async def show_page(self, request: Request) -> Response:
        from starlette.responses import HTMLResponse

        choice = PageChoice.read(request)
        query = RowQuery(choice.words, choice.order, choice.offset)
        page, shown = await self._campaign.read_page(query, choice.row or self._row)
        composed, view = (None, None) if shown is None else await self._view(shown)
        state = self._campaign.state
        choice = replace(choice, row=shown)
        values: dict[str, object] = {"page": page, "state": state, "choice": choice, "page_size": PAGE_SIZE}
        values |= {"views": _TITLES, "widths": WIDTHS, "orders": ORDERS, "message": None}
        values["lines"] = [_link_row(line) for line in state.lines]
        values["fault"] = composed if isinstance(composed, Fault) and composed is not state.fault else None
        if isinstance(composed, ComposedRow) and view is not None:
            values |= await asyncio.to_thread(_message_values, composed, view, choice)
        return HTMLResponse(await asyncio.to_thread(render_page, "preview", **values))

    async def send_events(self, request: Request) -> Response:
        """Send the state, and again whenever it changes, as server-sent events."""
        from starlette.responses import StreamingResponse

        return StreamingResponse(self._events(), media_type="text/event-stream")

    async def _events(self) -> AsyncIterator[str]:
        last = None
        async with aclosing(self._campaign.changes(KEEP_ALIVE)) as changes:
            async for state in changes:
                if state is last:
                    yield ": still here\n\n"
                    continue
                last = state
                facts: dict[str, object] = {"version": state.version, "progress": state.progress}
                facts |= {"complete": state.complete, "checked": state.checked}
                facts["fault"] = state.fault.sentence if state.fault else ""
                yield f"data: {json.dumps(facts)}\n\n"

    async def send_static(self, request: Request) -> Response:
        return answer_static(request.path_params["name"], "preview.js") or _missing()

    async def send_html(self, request: Request) -> Response:
        _, view = await self._view(request.path_params["row"])
        if view is None:
            return _missing()
        choice = PageChoice.read(request)
        return await asyncio.to_thread(answer_html, view, choice.images, dark=choice.dark)

    async def send_raw(self, request: Request) -> Response:
        row = request.path_params["row"]
        composed, _ = await self._view(row)
        return answer_raw(composed.octets, f"row-{row}.eml") if isinstance(composed, ComposedRow) else _missing()

    async def send_part(self, request: Request) -> Response:
        _, view = await self._view(request.path_params["row"])
        if view is None:
            return _missing()
        return await asyncio.to_thread(answer_part, view, request.path_params["number"]) or _missing()

    async def send_message(self, request: Request) -> Response:
        from starlette.responses import JSONResponse

        address = await _read_address(request)
        if not address:
            return _record("failed", "there is no address to send to", "write one into the field: you@example.org", 400)
        async with self._sending:  # a second press sends after the first
            result = await self._campaign.send(request.path_params["row"], address)
        shown = {"state": result.state, "sentence": result.sentence, "advice": result.advice}
        return JSONResponse({name: safe_text(text, 1000) for name, text in shown.items()})

    async def _view(self, row: int) -> tuple[ComposedRow | Fault | None, MessageView | None]:
        """Return the message of a row, and its view; it is parsed once for all that a page asks for."""
        composed = await self._campaign.compose(row) if 0 < row < 10**MAX_DIGITS else None
        if not isinstance(composed, ComposedRow):
            return composed, None
        kept = self._views.pop(row, None)
        view = (
            MessageView(ComposedMail(composed.octets))
            if kept is None or kept[0].octets is not composed.octets
            else kept[1]
        )
        self._views[row] = kept = composed, view
        while len(self._views) > MAX_KEPT:
            del self._views[next(iter(self._views))]
        return kept


def _message_values(composed: ComposedRow, view: MessageView, choice: PageChoice) -> Mapping[str, object]:
    """Return what the page needs of one message."""
    chosen = choice.view if choice.view != "html" or view.has_html else "text"
    return {
        "message": view,
        "view": chosen,
        "subject": view.header("Subject") or "(no subject)",
        "summary": [(name, value) for name in ("From", "To", "Reply-To", "Date") if (value := view.header(name))],
        "envelope": (safe_text(composed.sender, 300), safe_text(composed.recipient, 300)),
        "copies": [(kind.title(), safe_text(address, 300)) for kind, address in composed.copies],
        "found": composed.remarks,
        "files": sum(bool(part.name) and not part.inline for part in view.parts),
        "body": view.text if chosen == "text" else view.source if chosen == "source" else "",
        "frame": f"/rows/{choice.row}/html?"
        + urlencode({"images": choice.images, "dark": int(choice.dark), "as": _digest(view.html)}),
    }


def _link_row(line: str) -> tuple[int | None, str, str]:
    """Return the row that a line of the pre-flight begins with, these words, and the rest of the line."""
    found = _ROW.match(line)
    return (None, "", line) if found is None else (int(found[1].replace(",", "")), found[0], line[found.end() :])


def _digest(html: str) -> str:
    """Return what the address of the frame has, so that it is loaded again for another HTML part only."""
    return blake2b(html.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


async def _read_address(request: Request) -> str:
    """Return the address in the body of a request; "" if there is none."""
    body = b""
    async for block in request.stream():
        body += block
        if len(body) > MAX_BODY:
            return ""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    address = given.get("to", "") if isinstance(given, dict) else ""
    return address.strip()[:400] if isinstance(address, str) else ""


def _record(state: str, sentence: str, advice: str, code: int) -> Response:
    from starlette.responses import JSONResponse

    return JSONResponse({"state": state, "sentence": sentence, "advice": advice}, code)


def _missing() -> Response:
    from starlette.responses import PlainTextResponse

    return PlainTextResponse("there is no such message\n", 404)
