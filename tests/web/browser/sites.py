"""The pages that the tests in the browser look at, each with content enough to be judged by.

A page is an entry of `PAGES`: its name, and what serves it and yields its address.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from email.message import EmailMessage
from functools import partial
from pathlib import Path

from asyncsmtp.bulk.ledger.interfaces import Refusal, RowState
from asyncsmtp.testing import Maildir, Received
from asyncsmtp.web.local_app import serve_locally
from asyncsmtp.web.mailbox import make_mailbox_app
from asyncsmtp.web.preview import make_preview_app
from asyncsmtp.web.report import Step, render_report
from tests.web.test_preview_page import following
from tests.web.test_preview_page import write as write_campaign
from tests.web.test_report import doubt, statistics

__all__ = ["PAGES", "fill", "make_mail", "serve_mailbox", "serve_message", "serve_preview", "write_report"]

LONG = "a-local-part-that-does-not-fit-into-a-column-of-a-phone"
DOMAIN = f"{'sub.' * 20}example.org"
LINES = [
    f"{'nobody' if row % 3 == 0 else f'recipient{row}@{DOMAIN}'},Name {row}\n" for row in range(1, 150)
]  # more than one page of the list
PEOPLE = "".join(["email,name\n", *LINES[:12]])
HTML = (
    "<h1>Autumn</h1><p style='color: #333'>Dear Ann, <a href='https://shop.example/'>see what is new</a>.</p>"
    "<img src='https://shop.example/pixel.png' alt=''><table><tr><td>one</td><td>two</td></tr></table>"
)


def make_mail(subject: str = "News", *, to: str = "ann@example.org", html: str = HTML, files: int = 0) -> Received:
    """Return a mail as the sandbox receives it."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "News <news@example.org>", to, subject
    message.set_content("Dear Ann,\n\nsee what is new.\n")
    if html:
        message.add_alternative(html, subtype="html")
    for number in range(files):
        message.add_attachment(b"x", maintype="application", subtype="pdf", filename=f"offer {number}.pdf")
    return Received("news@example.org", (to,), message.as_bytes())


def fill(maildir: Maildir) -> str:
    """Put mails of several shapes into a Maildir, more than one page shows; return the name of the newest."""
    for number in range(60):
        maildir.add(make_mail(f"Number {number} of a rehearsal", to=f"recipient{number}@example.org", files=number % 3))
    maildir.add(make_mail("", to=f"{LONG}@{DOMAIN}", html=""))
    maildir.add(make_mail("ein-sehr-langes-Wort" * 20, files=3))
    return maildir.add(make_mail("Autumn is here", files=2))


@asynccontextmanager
async def serve_mailbox(folder: Path, *, full: bool = True, query: str = "") -> AsyncIterator[str]:
    """Serve the list of the sandbox's mails, or of a search."""
    maildir = Maildir(folder / "mails")
    if full:
        fill(maildir)
    async with serve_locally(make_mailbox_app(maildir.path, "welcome")) as url:
        yield url.replace("/?", f"/?{query}&") if query else url


@asynccontextmanager
async def serve_message(folder: Path, view: str, name: str = "") -> AsyncIterator[str]:
    """Serve one mail, as one of its views."""
    maildir = Maildir(folder / "mails")
    newest = fill(maildir)
    async with serve_locally(make_mailbox_app(maildir.path, "welcome")) as url:
        yield url.replace("/?", f"/messages/{name or newest}?view={view}&")


@asynccontextmanager
async def write_report(folder: Path, *, begun: bool = True) -> AsyncIterator[str]:
    """Write a report with every section that there is, or one of a campaign that has not begun."""
    refusals = (
        Refusal(RowState.REJECTED, 550, "5.1.1", "no such user " + "x" * 300, "mx.example.org", 5, 17),
        Refusal(RowState.DEFERRED, 451, "4.7.1", "come back later", "mx.example.net", 2, 23),
    )
    if begun:
        shown = statistics(
            refusals=refusals,
            in_doubt=tuple(doubt(row, f"{LONG}{row}@example.org") for row in range(30)),
            domains=tuple(f"{'sub.' * 12}example{number}.org" for number in range(12)),
            relays=("mx1.example:587", "mx2.example:587"),
        )
    else:
        shown = statistics({RowState.PENDING: 1200})
    step = Step(
        "1,200 recipients are still to be sent to", "asyncsmtp bulk campaigns/autumn/campaign.toml --sessions 4"
    )
    file = folder / "report.html"
    file.write_text(render_report("Autumn", "demo/autumn.ledger", shown, steps=[step]), encoding="utf-8")
    yield file.as_uri()


@asynccontextmanager
async def serve_preview(folder: Path, query: str = "", *, html: str = HTML, people: str = PEOPLE) -> AsyncIterator[str]:
    """Serve the preview of a campaign, once all its rows are read."""
    path = write_campaign(folder, people, html=f"<html><body>{html}</body></html>")
    async with following(path) as live, serve_locally(make_preview_app(live)) as url:
        yield url.replace("/?", f"/?{query}&") if query else url


Serve = Callable[[Path], AbstractAsyncContextManager[str]]
PAGES: Mapping[str, Serve] = {
    "report": write_report,
    "report of a campaign that has not begun": partial(write_report, begun=False),
    "mailbox": serve_mailbox,
    "empty mailbox": partial(serve_mailbox, full=False),
    "search": partial(serve_mailbox, query="q=autumn"),
    "search without a result": partial(serve_mailbox, query="q=nothing"),
    "message as HTML": partial(serve_message, view="html"),
    "message as text": partial(serve_message, view="text"),
    "source of a message": partial(serve_message, view="source"),
    "header fields of a message": partial(serve_message, view="headers"),
    "parts of a message": partial(serve_message, view="parts"),
    "dialogue of a message": partial(serve_message, view="dialogue"),
    "message that is gone": partial(serve_message, view="html", name="gone.eml"),
    "preview": partial(serve_preview, people="".join(["email,name\n", *LINES])),
    "preview on a phone, dark": partial(serve_preview, query="width=phone&dark=1&images=off"),
    "preview as text": partial(serve_preview, query="view=text"),
    "preview of the source": partial(serve_preview, query="view=source"),
    "preview of the header fields": partial(serve_preview, query="view=headers"),
    "preview of the parts": partial(serve_preview, query="view=parts"),
    "preview of a row that cannot be mailed": partial(serve_preview, query="row=3"),
    "preview of a row that is not there": partial(serve_preview, query="row=999"),
    "preview of a broken template": partial(serve_preview, html="<p>\n{{ name\n</p>"),
    "preview of no rows": partial(serve_preview, people="email,name\n"),
    "search in the preview without a result": partial(serve_preview, query="q=nothing"),
}
