"""Hostile mails and texts in a real browser: nothing of them acts, nothing of them leaves the machine."""

from __future__ import annotations

import csv
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from email.message import EmailMessage
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from asyncsmtp.bulk.ledger.interfaces import Refusal, RowState
from asyncsmtp.testing import Maildir, Received
from asyncsmtp.web.local_app import serve_locally
from asyncsmtp.web.mailbox import VIEWS, make_mailbox_app
from asyncsmtp.web.preview import make_preview_app
from asyncsmtp.web.report import Step, render_report
from tests.web.browser.chromium import OpenPage, launch_profile, read_evil, watch
from tests.web.browser.hostile import MAILS, TEXTS, WHOLE
from tests.web.browser.sites import make_mail
from tests.web.test_preview_page import following
from tests.web.test_preview_page import write as write_campaign
from tests.web.test_report import doubt, statistics

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

Open = Callable[..., AbstractAsyncContextManager[OpenPage]]


async def expect_nothing_acted(shown: OpenPage, url: str, title: str) -> None:
    """Expect that the page is where it was, and that nothing has run, asked or opened."""
    assert shown.page.url == url
    assert await shown.page.title() == title
    assert await shown.page.evaluate("window.acted === undefined")
    assert (shown.dialogs, shown.popups, shown.refused) == ([], [], [])
    left_alone = "frame-src: "  # a click on a link, which the policy of the page has stopped
    assert [each for each in (await shown.measure())["violations"] if not each.startswith(left_alone)] == []


@pytest.mark.parametrize("clicks", [False, True], ids=["opened", "clicked"])
async def test_nothing_of_a_hostile_mail_leaves_the_machine(browser: object, tmp_path: Path, clicks: bool) -> None:
    """Opened one after another, and clicked at; what the browser does ahead of a request is in its log.

    A browser connects to the host of a link when the mouse is pressed on it, also where the policy then prevents that
    it is followed. So of the mails that are clicked at, no request is expected.
    """
    maildir, log = Maildir(tmp_path / "mails"), tmp_path / "net.json"
    tricks = {trick: html for trick, html in MAILS.items() if not clicks or WHOLE in html or "usemap" in html}
    names = {maildir.add(make_mail(trick, html=html)): trick for trick, html in tricks.items()}
    app = make_mailbox_app(maildir.path)
    async with serve_locally(app) as url, launch_profile(tmp_path / "profile", log) as context:
        shown = await watch(context, refuses=False)
        await shown.go(url)
        for name, trick in names.items():
            address = url.partition("?")[0] + f"messages/{name}"
            await shown.go(address)
            title = await shown.page.title()
            assert title.startswith(trick)
            box = await shown.page.locator("iframe").bounding_box()
            assert box is not None
            if clicks:
                await shown.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 60)
            await shown.page.wait_for_timeout(50)
            await expect_nothing_acted(shown, address, title)
            assert len(shown.page.frames) >= 2, trick
    assert read_evil(log, kind="URL_REQUEST_START_JOB") == []
    assert clicks or read_evil(log) == []


async def test_a_browser_does_connect_ahead_where_nobody_prevents_it(browser: object, tmp_path: Path) -> None:
    """The same mail as a page of its own; if this fails, the test above shows nothing."""

    async def send(request: object) -> HTMLResponse:
        return HTMLResponse(MAILS["hints"])

    log = tmp_path / "net.json"
    app = Starlette(routes=[Route("/", send)])
    async with serve_locally(app) as url, launch_profile(tmp_path / "profile", log) as context:
        shown = await watch(context, refuses=False)
        await shown.go(url)
        await shown.page.wait_for_timeout(300)
    assert any("pre.evil.example" in event for event in read_evil(log))


@pytest.mark.parametrize("number", range(len(TEXTS)))
async def test_texts_of_a_mail_are_shown_as_text(tmp_path: Path, open_page: Open, number: int) -> None:
    """In the list and in each view: in the subject, names, addresses, the text, header fields and file names."""
    text = TEXTS[number]
    message = EmailMessage()
    message["From"] = '"News" <news@example.org>'
    message["Subject"] = text.replace("\n", " ")
    message["X-Hostile"] = text.replace("\n", " ")
    message.set_content(text)
    message.add_alternative(text, subtype="html")
    message.add_attachment(b"x", maintype="application", subtype="octet-stream", filename=text.replace("/", "_"))
    message.add_attachment(b"x", maintype="application", subtype="x-a", cid=text, filename="x")
    maildir = Maildir(tmp_path / "mails")
    name = maildir.add(Received(f'"{text}"@example.org', (f'"{text}"@example.org',), message.as_bytes()))
    async with serve_locally(make_mailbox_app(maildir.path, text)) as url, open_page() as shown:
        await shown.go(url)
        for path in ("", "?q=hostile", *(f"messages/{name}?view={view}" for view in VIEWS)):
            address = url.partition("?")[0] + path
            await shown.go(address)
            await expect_text(shown, text if path != "?q=hostile" else "hostile")
            await expect_nothing_acted(shown, address, await shown.page.title())


async def expect_text(shown: OpenPage, text: str) -> None:
    """Expect that a text is on the page, and that no element of it is."""
    words = [each for each in text.replace("\u202e", " ").replace("\x1b", " ").split() if each.isascii()]
    body = await shown.page.locator("body").inner_text()
    assert all(word in body for word in words[:1]), (words[:1], body[:400])
    kinds = "[...document.querySelectorAll('*')].map(e => e.localName)"
    kinds_found = set(await shown.page.evaluate(kinds))
    assert not kinds_found & {"img", "b", "font", "object", "basefont"}
    assert await shown.page.evaluate("document.scripts.length") <= 1
    assert not await shown.page.locator("[onerror], [onload], [href^='javascript:'], [href*='evil.example']").count()


async def test_texts_of_a_campaign_are_text_in_its_preview(tmp_path: Path, open_page: Open) -> None:
    """Cells, in the list, the subject and the text, with HTML that tries everything at once."""
    people = tmp_path / "rows.csv"
    with people.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["email", "name"], *([f"{n}@example.org", text] for n, text in enumerate(TEXTS))])
    html = "".join(MAILS[trick] for trick in ("script", "handlers", "frames", "hints", "plug-ins"))
    html = html.replace("src=x", "src='data:image/png,'") + "{{ name }}"  # a campaign attaches a file that is named
    campaign = write_campaign(tmp_path, people.read_text("utf-8"), html, "{{ name }}")
    async with following(campaign) as live, serve_locally(make_preview_app(live)) as url, open_page() as shown:
        await shown.go(url)
        for row, text in enumerate(TEXTS, start=1):
            for view in ("html", "text", "headers") if row == 2 else ("text",):
                address = url.partition("?")[0] + f"?row={row}&view={view}"
                await shown.go(address)
                await expect_text(shown, text if view == "text" else "")
                await expect_nothing_acted(shown, address, await shown.page.title())


async def test_texts_of_a_campaign_are_text_in_its_report(tmp_path: Path, open_page: Open) -> None:
    """Replies, hosts, domains, addresses, Message-IDs, names and commands, all at once."""
    figures = statistics(
        refusals=tuple(Refusal(RowState.REJECTED, 550, text, text, text, 7, 1) for text in TEXTS),
        in_doubt=tuple(doubt(row, text, text) for row, text in enumerate(TEXTS)),
        domains=TEXTS,
        relays=TEXTS,
    )
    steps = [Step(text, text) for text in TEXTS]
    for number, text in enumerate(TEXTS):
        file = tmp_path / f"report{number}.html"
        file.write_text(render_report(text, text, figures, steps=steps, explain=lambda _: TEXTS[1]), encoding="utf-8")
    async with open_page() as shown:
        for number, text in enumerate(TEXTS):
            address = (tmp_path / f"report{number}.html").as_uri()
            await shown.go(address)
            await expect_text(shown, text)
            await expect_nothing_acted(shown, address, await shown.page.title())
            assert await shown.page.evaluate("document.scripts.length") == 0
            assert shown.requests[-1] == address


async def test_a_part_that_could_run_is_downloaded(tmp_path: Path, open_page: Open) -> None:
    """HTML and SVG; what claims to be text is shown as text, whatever it begins with."""
    message = EmailMessage()
    message.set_content(MAILS["script"])
    message.add_attachment(MAILS["script"], subtype="html", filename="a.html")
    message.add_attachment(MAILS["drawing"].encode(), maintype="image", subtype="svg+xml", filename="b.svg")
    maildir = Maildir(tmp_path / "mails")
    name = maildir.add(Received("", ("ann@example.org",), message.as_bytes()))
    async with serve_locally(make_mailbox_app(maildir.path)) as url, open_page() as shown:
        await shown.go(url)
        address = url.partition("?")[0] + f"messages/{name}?view=parts"
        await shown.go(address)
        for text in ("a.html", "b.svg"):
            async with shown.page.expect_download() as downloads:
                await shown.page.click(f"text={text}")
            assert (await downloads.value).suggested_filename == text
        await expect_nothing_acted(shown, address, await shown.page.title())
        await shown.page.click("text=part 1")
        assert "<script>" in await shown.page.locator("body").inner_text()
        assert await shown.page.evaluate("window.acted === undefined")


async def test_a_large_mail_does_not_hold_up_the_page(tmp_path: Path, open_page: Open) -> None:
    """20 MB of text, 20 MB of HTML and 500 attachments: each view is there, and the browser goes on answering."""
    parts = [("text/plain", "x <b>y</b>\r\n" * 1_700_000), ("text/html", "<p>x</p>\r\n" * 2_000_000)]
    parts += [(f"application/pdf; name={number}.pdf", "x") for number in range(500)]
    lines = ["Subject: large", "Content-Type: multipart/mixed; boundary=b", ""]
    lines += [f"--b\r\nContent-Type: {kind}\r\n\r\n{text}" for kind, text in parts]
    maildir = Maildir(tmp_path / "mails")
    name = maildir.add(Received("", ("ann@example.org",), "\r\n".join([*lines, "--b--", ""]).encode()))
    async with serve_locally(make_mailbox_app(maildir.path)) as url, open_page() as shown:
        await shown.go(url)
        for view in VIEWS:  # the last one is that of the parts
            await shown.go(url.partition("?")[0] + f"messages/{name}?view={view}")
            longest = (await shown.measure())["longest"]
            print(f"{view}: {len(await shown.page.content()):,} characters, longest task {longest:.0f} ms")
            assert len(await shown.page.content()) < 1_000_000
        assert await shown.page.locator(".view tbody tr").count() == 502
