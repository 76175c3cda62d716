"""The sandbox in the browser: who may ask, what a mail may do to the page, and the JSON API."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx
import pytest

import asyncsmtp
from asyncsmtp.testing import Maildir, Received, Sandbox
from asyncsmtp.web.local_app import LocalGuard, serve_locally
from asyncsmtp.web.mail_index import MailIndex
from asyncsmtp.web.mailbox import make_mailbox_app
from asyncsmtp.web.message_view import MessageView

PORT = 5000
ORIGIN = f"http://127.0.0.1:{PORT}"
HTML_POLICY = "sandbox; default-src 'none'"


def mail(subject: str = "News", *, to: str = "ann@example.org", text: str = "Hello", html: str = "") -> Received:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "News <news@example.org>", to, subject
    message.set_content(text)
    if html:
        message.add_alternative(html, subtype="html")
    return Received("news@example.org", (to,), message.as_bytes())


@pytest.fixture
def maildir(tmp_path: Path) -> Maildir:
    return Maildir(tmp_path / "mails")


@asynccontextmanager
async def browser(maildir: Maildir, *, token: str | None = "right") -> AsyncIterator[httpx.AsyncClient]:
    """A client of the pages, with the token as a program has it."""
    guard = LocalGuard(make_mailbox_app(maildir.path), PORT, "right")
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    transport = httpx.ASGITransport(app=guard)
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers=headers) as client:
        yield client


async def test_without_the_token_nothing_is_shown(maildir: Maildir) -> None:
    """Not the list, a mail, the API or a file; neither with another token."""
    name = maildir.add(mail())
    for token in (None, "wrong", ""):
        async with browser(maildir, token=token) as client:
            for path in ("/", f"/messages/{name}", f"/messages/{name}/html", "/api/messages", "/static/style.css"):
                answer = await client.get(path)
                assert answer.status_code == 401
                assert "News" not in answer.text
            assert (await client.delete("/api/messages")).status_code == 401
    assert len(maildir) == 1


async def test_the_address_that_was_printed_opens_the_list(maildir: Maildir) -> None:
    """The token goes into a cookie and out of the address, where a history would keep it."""
    maildir.add(mail("Autumn"))
    async with browser(maildir, token=None) as client:
        answer = await client.get("/?token=right")
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert "Autumn" in (await client.get("/")).text


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", f"evil.example:{PORT}", f"127.0.0.1:{PORT + 1}", ""])
async def test_another_host_is_refused(maildir: Maildir, host: str) -> None:
    """A name of somebody else that resolves to this machine is not ours (DNS rebinding)."""
    async with browser(maildir) as client:
        assert (await client.get("/", headers={"host": host})).status_code == 421
        assert (await client.get("/", headers={"host": f"localhost:{PORT}"})).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", f"http://127.0.0.1:{PORT + 1}", None])
async def test_another_page_deletes_nothing(maildir: Maildir, origin: str | None) -> None:
    """With the cookie of the browser: only one of our own pages may."""
    maildir.add(mail())
    async with browser(maildir, token=None) as client:
        await client.get("/?token=right")
        headers = {} if origin is None else {"origin": origin}
        assert (await client.delete("/api/messages", headers=headers)).status_code == 403
        assert len(maildir) == 1
        assert (await client.delete("/api/messages", headers={"origin": ORIGIN})).json() == {"deleted": 1}
    assert len(maildir) == 0


async def test_pages_load_nothing_but_their_own(maildir: Maildir) -> None:
    """The policy of every page: no script but ours, and none within the page."""
    name = maildir.add(mail(html="<p>x</p>"))
    async with browser(maildir) as client:
        for path in ("/", f"/messages/{name}", "/?q=nothing", "/messages/none", "/api/messages"):
            answer = await client.get(path)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert not re.search(r"<script(?! src=\"/static/)|\son\w+=|style=", answer.text)


HOSTILE = (
    "<script>fetch('https://evil.example/')</script>",
    "<a href='javascript:alert(1)'>x</a>",
    "<meta http-equiv='refresh' content='0;url=https://evil.example/'>",
    "<form action='https://evil.example/'><button>x</button></form>",
    "<svg onload='alert(1)'><image href='https://evil.example/x'/></svg>",
    "<style>body { background: url(https://evil.example/x) } @import 'https://evil.example/y';</style>",
    "<iframe src='https://evil.example/'></iframe><object data='https://evil.example/'></object>",
    "<base href='https://evil.example/'><link rel=stylesheet href='//evil.example/x'>",
    "</iframe></main><h1>not ours</h1>",
)


@pytest.mark.parametrize("html", HOSTILE)
async def test_the_html_of_a_mail_is_alone_in_its_frame(maildir: Maildir, html: str) -> None:
    """It is in no page of ours; its own answer is sandboxed and may load nothing."""
    name = maildir.add(mail(html=html))
    async with browser(maildir) as client:
        page = await client.get(f"/messages/{name}")
        assert html not in page.text
        assert "evil.example" not in page.text
        assert 'sandbox=""' in page.text
        frame = await client.get(f"/messages/{name}/html")
        policy = frame.headers["content-security-policy"]
        assert policy.startswith(HTML_POLICY)
        assert re.search(r"img-src data:;.*base-uri 'none'; form-action 'none'", policy)
        assert "script-src" not in policy
        allowed = (await client.get(f"/messages/{name}/html?images=all")).headers["content-security-policy"]
        assert allowed == policy.replace("img-src data:", "img-src data: http: https:")


async def test_how_the_html_is_shown_is_chosen_by_the_address(maildir: Maildir) -> None:
    """As in the preview: its width, dark, and with which images; what is no choice is the default."""
    name = maildir.add(mail(html='<p>Hello</p><img src="https://example.org/x.png">'))
    async with browser(maildir) as client:
        page = (await client.get(f"/messages/{name}?width=phone&dark=1&images=off")).text
        assert 'class="frame phone dark"' in page
        frame = re.findall(r'<iframe src="([^"]+)"', page)[0].replace("&amp;", "&")
        assert "img-src 'none'" in (await client.get(frame)).headers["content-security-policy"]
        assert "color-scheme" in (await client.get(frame)).text
        page = (await client.get(f"/messages/{name}?width=9&dark=yes&images=evil")).text
        assert 'class="frame desktop"' in page
        assert f'<iframe src="/messages/{name}/html"' in page
        assert "1 item from elsewhere blocked" in page


@pytest.mark.parametrize("text", [*HOSTILE, "\x1b[31mred", "\u202ereversed", "{{ 7 * 7 }}"])
async def test_texts_of_a_mail_are_text(maildir: Maildir, text: str) -> None:
    """In the list, in each view, and in names of files."""
    message = EmailMessage()
    message["From"] = "news@example.org"
    message["Subject"] = re.sub(r"[\r\n]", "", text)
    message.set_content(text)
    message.add_attachment(b"x", maintype="application", subtype="octet-stream", filename=text.replace("/", "_"))
    name = maildir.add(Received("a@example.org", (f'"{text}"@example.org',), message.as_bytes()))
    async with browser(maildir) as client:
        for view in ("/", *(f"/messages/{name}?view={view}" for view in ("text", "source", "headers", "parts"))):
            page = (await client.get(view)).text
            assert text not in page.replace("{{ 7 * 7 }}", "")
            assert not re.search(
                r"<(?!/?(?:html|head|meta|title|link|script src=\"/static/mailbox.js\"|body|main|nav|a|h1"
                r"|h2|header|section|table|tbody|thead|tr|th|td|div|pre|p|form|label|input|button|ol|li"
                r"|span|time|script|footer|kbd|!doctype)\b)",
                page,
            )
            assert "\x1b" not in page
            assert "\u202e" not in page
            assert "49" not in re.sub(r"<time.*?</time>|\d{3,}|M\d+P\d+", "", page) or "7 * 7" in page


async def test_parts_are_files(maildir: Maildir) -> None:
    """What a browser would run is downloaded; what it shows is sandboxed."""
    message = EmailMessage()
    message["Subject"] = "files"
    message.set_content("text")
    message.add_attachment("<script>alert(1)</script>", subtype="html", filename="a.html")
    message.add_attachment(b"<svg onload='alert(1)'/>", maintype="image", subtype="svg+xml", filename="b.svg")
    message.add_attachment(b"\x89PNG", maintype="image", subtype="png", filename='c"x.png')
    name = maildir.add(Received("", ("ann@example.org",), message.as_bytes()))
    async with browser(maildir) as client:
        answers = [await client.get(f"/messages/{name}/parts/{number}") for number in (2, 3, 4)]
        kinds = [answer.headers["content-type"].partition(";")[0] for answer in answers]
        assert kinds == ["application/octet-stream", "application/octet-stream", "image/png"]
        ways = [answer.headers["content-disposition"].partition(";")[0] for answer in answers]
        assert ways == ["attachment", "attachment", "inline"]
        assert all(answer.headers["content-security-policy"].startswith("sandbox") for answer in answers)
        for number in ("0", "5", "99999999999999999999"):
            assert (await client.get(f"/messages/{name}/parts/{number}")).status_code == 404


async def test_images_of_a_mail_are_in_its_html(maildir: Maildir) -> None:
    """A Content-ID becomes the image itself, so that the frame loads nothing; one that is not there is empty."""
    message = EmailMessage()
    message.set_content("text")
    message.add_alternative('<img src="cid:logo"><img src="cid:none">', subtype="html")
    html = message.get_payload()[1]
    html.add_related(b"\x89PNG", "image", "png", cid="<logo>")
    maildir.add(Received("", ("ann@example.org",), message.as_bytes()))
    [stored] = maildir.mails()
    view = MessageView(stored)
    assert view.html.strip() == '<img src="data:image/png;base64,iVBORw=="><img src="data:,">'
    assert [part.inline for part in view.parts] == [False, False, True]
    assert view.remote == 0


@pytest.mark.parametrize("name", ["..%2F..%2Fpyproject.toml", "%2Fetc%2Fpasswd", "none", "%00"])
async def test_a_name_is_one_of_the_mails(maildir: Maildir, name: str) -> None:
    maildir.add(mail())
    async with browser(maildir) as client:
        for path in ("", "/raw", "/html", "/parts/1"):
            assert (await client.get(f"/messages/{name}{path}")).status_code == 404
        assert (await client.get(f"/api/messages/{name}")).status_code == 404
        assert (await client.delete(f"/api/messages/{name}")).status_code == 404
    assert len(maildir) == 1


async def test_the_api(maildir: Maildir) -> None:
    """List, search, one mail, delete one, delete all."""
    first, second = maildir.add(mail("Spring", to="ann@example.org")), maildir.add(mail("Autumn", to="bob@example.org"))
    async with browser(maildir) as client:
        found = (await client.get("/api/messages")).json()
        assert (found["total"], [each["id"] for each in found["messages"]]) == (2, [second, first])
        assert found["messages"][0] | {"at": "", "size": 0} == {
            "id": second, "at": "", "from": "News <news@example.org>", "recipients": ["bob@example.org"],
            "subject": "Autumn", "size": 0,
        }  # fmt: skip
        one = (await client.get(f"/api/messages/{first}")).json()
        assert (one["reverse_path"], one["text"].strip(), one["html"]) == ("news@example.org", "Hello", "")
        assert {"name": "Subject", "value": "Spring"} in one["headers"]
        assert [part["type"] for part in one["parts"]] == ["text/plain"]
        raw = await client.get(f"/messages/{first}/raw")
        assert raw.content == (maildir.path / "new" / first).read_bytes()
        assert raw.headers["content-disposition"].endswith(".eml")
        assert (await client.delete(f"/api/messages/{first}")).json() == {"deleted": 1}
        assert (await client.get(f"/api/messages/{first}")).status_code == 404
        assert (await client.delete("/api/messages")).json() == {"deleted": 1}
        assert (await client.get("/api/messages")).json() == {"total": 0, "messages": []}


@pytest.mark.parametrize(
    ("words", "found"), [("ann", 1), ("EXAMPLE.ORG", 3), ("grüße", 1), ("autumn bob", 1), ("autumn ann", 0), ("+", 0)]
)
async def test_search(maildir: Maildir, words: str, found: int) -> None:
    """All words, in an address, the subject or the text, whatever their case."""
    maildir.add(mail("Spring", to="ann@example.org"))
    maildir.add(mail("Autumn", to="bob@example.org"))
    maildir.add(mail("Winter", to="cid@example.org", text="Viele Grüße"))
    async with browser(maildir) as client:
        answer = await client.get("/api/messages", params={"q": words})
        assert answer.json()["total"] == found
        page = (await client.get("/", params={"q": words})).text
        assert page.count("<li>") == found


async def test_pages_of_the_list(maildir: Maildir) -> None:
    """The newest first, 50 on a page; numbers that are none are the first page."""
    for number in range(120):
        maildir.add(mail(f"number {number}"))
    async with browser(maildir) as client:
        pages = [(await client.get("/", params={"offset": offset})).text for offset in ("0", "50", "100", "x", "-1")]
    assert [page.count("<li>") for page in pages] == [50, 50, 20, 50, 50]
    assert "number 119<" in pages[0]
    assert "number 0<" in pages[2]
    assert 'rel="prev"' not in pages[0]
    assert 'rel="next"' not in pages[2]


async def test_any_mail_can_be_looked_at(maildir: Maildir) -> None:
    """Broken MIME, unknown charsets, hostile header fields, nothing at all."""
    contents = (
        b"", b"\r\n", b"no header at all", b"Subject: =?utf-8?q?=ff?=\r\n\r\n\xff\xfe",
        b"Content-Type: text/plain; charset=nonsense\r\n\r\nx", b"Content-Type: text/html; charset=zlib\r\n\r\nx",
        b"Content-Type: multipart/mixed\r\n\r\nx", b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n",
        b"From: =?utf-8?b?!!!?= <x\r\nDate: never\r\nContent-Disposition: attachment; filename*=x'y\r\n\r\nx",
        b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nx", b"A: b\r\n" * 3000 + b"\r\nx",
    )  # fmt: skip
    async with browser(maildir) as client:
        for content in contents:
            name = maildir.add(Received("", ("ann@example.org",), content))
            for view in ("html", "text", "source", "headers", "parts", "nonsense"):
                assert (await client.get(f"/messages/{name}?view={view}")).status_code == 200
            assert (await client.get(f"/messages/{name}/html")).status_code == 200
            assert (await client.get(f"/api/messages/{name}")).status_code == 200
        assert (await client.get("/?q=x")).status_code == 200


async def test_a_large_mail_and_many_parts(maildir: Maildir) -> None:
    """20 MB of HTML are not put into the page, and 500 attachments are listed."""
    large = maildir.add(Received("", ("a@x",), b"Content-Type: text/html\r\n\r\n" + b"<p>x</p>" * 2_600_000))
    message = EmailMessage()
    message.set_content("x")
    for number in range(500):
        message.add_attachment(b"x", maintype="application", subtype="pdf", filename=f"{number}.pdf")
    many = maildir.add(Received("", ("a@x",), message.as_bytes()))
    async with browser(maildir) as client:
        assert len((await client.get(f"/messages/{large}")).content) < 20_000
        assert "too large" in (await client.get(f"/messages/{large}/html")).text
        assert "499.pdf" in (await client.get(f"/messages/{many}?view=parts")).text


def test_a_mail_that_is_deleted_while_the_list_is_read(maildir: Maildir) -> None:
    """It is left out."""
    name = maildir.add(mail())
    index = MailIndex(maildir.path)
    path = maildir.path / "new" / name
    path.unlink()
    assert index.summarize(path) is None
    assert index.read_page("", 0, 10) == ([], 0)


async def test_it_listens_on_loopback_with_a_random_token(maildir: Maildir) -> None:
    """Served for real: each time with another token, and gone afterwards."""
    app, urls = make_mailbox_app(maildir.path), []
    for _ in range(2):
        async with serve_locally(app) as url:
            urls.append(url)
            assert url.startswith("http://127.0.0.1:")
            async with httpx.AsyncClient(follow_redirects=True) as client:
                assert "No mail yet" in (await client.get(url)).text
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(url)
    first, second = (url.partition("token=")[2] for url in urls)
    assert first != second
    assert len(first) >= 32


async def test_the_program_of_the_page_reads_and_deletes_mails(maildir: Maildir) -> None:
    """As printed in docs/howto/browser.md; its JavaScript is run in a browser."""
    page = (Path(__file__).parents[2] / "docs/howto/browser.md").read_text("utf-8")
    (program,) = re.findall(r"^```python mails\.py\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(program, names)
    maildir.add(mail("Spring", to="ann@example.org"))
    maildir.add(mail("Autumn", to="bob@example.org", text="Grüße"))
    async with serve_locally(make_mailbox_app(maildir.path)) as url:
        assert [each["subject"] for each in await asyncio.to_thread(names["list_mails"], url)] == ["Autumn", "Spring"]
        [found] = await asyncio.to_thread(names["list_mails"], url, "ann spring")
        assert [each["id"] for each in await asyncio.to_thread(names["list_mails"], url, "grüße")] != [found["id"]]
        read = await asyncio.to_thread(names["read_mail"], url, found["id"])
        assert (read["subject"], read["envelope"]["forward_paths"]) == ("Spring", ["ann@example.org"])
        assert await asyncio.to_thread(names["delete_mails"], url) == 2
        assert await asyncio.to_thread(names["list_mails"], url) == []


async def test_envelope_and_dialogue(tmp_path: Path) -> None:
    """On the page and in the API; deleted with the mail, and unknown for mails from elsewhere."""
    async with Sandbox(tmp_path) as sandbox:
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = "a@example.org", "ann@example.org", "<b>Hi</b>"
        message.set_content("x")
        await asyncsmtp.send(message, relay=sandbox.url)
        await sandbox.wait_until_idle()
    other = Maildir(tmp_path).add(mail())
    async with browser(Maildir(tmp_path)) as client:
        listed = (await client.get("/api/messages")).json()["messages"]
        [name] = [each["id"] for each in listed if each["id"] != other]
        read = (await client.get(f"/api/messages/{name}")).json()
        assert "C: RCPT TO:<ann@example.org>" in read["dialogue"]
        assert read["dialogue"][-1] == f"S: 250 2.0.0 ok: stored as {name}"
        envelope = read["envelope"]
        assert (envelope["reverse_path"], envelope["forward_paths"]) == ("a@example.org", ["ann@example.org"])
        assert (envelope["tls"], envelope["user"], envelope["connection"]) == (False, None, 1)
        assert "SIZE" in envelope["parameters"]
        page = (await client.get(f"/messages/{name}?view=dialogue")).text
        assert "C: MAIL FROM:&lt;a@example.org&gt;" in page
        assert "connection 1, without TLS" in page
        assert "was not kept" in (await client.get(f"/messages/{other}?view=dialogue")).text
        assert (await client.get(f"/api/messages/{other}")).json()["dialogue"] == []
        await client.delete(f"/api/messages/{name}")
    assert "ann@example.org" not in (tmp_path / "transactions.jsonl").read_text("utf-8")
