"""The preview of a campaign in the browser: rows, messages, findings, errors, and what a hostile campaign cannot do."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from email import message_from_bytes, policy
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from asyncsmtp.bulk.campaign import Campaign
from asyncsmtp.bulk.recipients.preflight import PreflightReport
from asyncsmtp.bulk.recipients.recipient import Recipient
from asyncsmtp.bulk.setup.config import CampaignConfig, load_config
from asyncsmtp.bulk.setup.prepare import PreparedCampaign
from asyncsmtp.web.live_campaign import LiveCampaign, SendResult, open_live_campaign
from asyncsmtp.web.local_app import LocalGuard
from asyncsmtp.web.preview import make_preview_app
from tests.web.test_mailbox import HOSTILE as HOSTILE_HTML

PORT = 5000
ORIGIN = f"http://127.0.0.1:{PORT}"
SETTINGS = {
    "name": '"news"',
    "from": '"Example News <news@example.org>"',
    "subject": '"News for {{ name }}"',
    "recipients": '"people.csv"',
    "text": '"message.txt"',
    "html": '"message.html"',
}
PEOPLE = "email,name\nann@example.org,Ann\nbob@example.org,Bob\ncid@example.org,Cid\n"
HTML = "<html><body><p>Hello {{ name }}</p></body></html>\n"


def write(
    folder: Path, people: str = PEOPLE, html: str = HTML, text: str = "Hello {{ name }}\n", **settings: str
) -> Path:
    """Write a campaign; return its file."""
    (folder / "people.csv").write_text(people, encoding="utf-8")
    (folder / "message.html").write_text(html, encoding="utf-8")
    (folder / "message.txt").write_text(text, encoding="utf-8")
    lines = [f"{name} = {value}" for name, value in (SETTINGS | settings).items()]
    path = folder / "campaign.toml"
    path.write_text("\n".join(["[campaign]", *lines, ""]), encoding="utf-8")
    return path


class Sent:
    """The messages that were to be sent, and how that ends."""

    def __init__(self) -> None:
        self.found: list[tuple[int, str]] = []
        self.result = SendResult("accepted", "accepted by mx.example: 250 2.0.0 queued")

    async def send(
        self, config: CampaignConfig, prepared: PreparedCampaign, row: Recipient, address: str
    ) -> SendResult:
        self.found.append((row.row, address))
        return self.result


def describe(name: str, report: PreflightReport) -> Iterable[str]:
    yield f"{name}: {report.rows} rows, {report.recipients} to be mailed"


@asynccontextmanager
async def following(path: Path, sent: Sent | None = None) -> AsyncIterator[LiveCampaign]:
    """The campaign, with all its rows read."""
    send = (sent or Sent()).send
    async with open_live_campaign(path, lambda: load_config(path), describe=describe, send=send) as live:
        await settle(live)
        yield live


async def settle(live: LiveCampaign, version: int = 1) -> None:
    """Wait until this reading of the files, or a later one, is complete."""
    async with asyncio.timeout(60):  # on a busy machine
        async with aclosing(live.changes(1)) as changes:
            async for state in changes:
                if state.version >= version and state.complete:
                    return


def client_of(live: LiveCampaign, token: str | None = "right") -> httpx.AsyncClient:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    transport = httpx.ASGITransport(app=LocalGuard(make_preview_app(live), PORT, "right"))
    return httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers=headers)


@asynccontextmanager
async def page(path: Path, sent: Sent | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the page, with the token as a program has it, once all rows are read."""
    async with following(path, sent) as live, client_of(live) as client:
        yield client


async def read(client: httpx.AsyncClient, **chosen: object) -> str:
    answer = await client.get("/", params={name: str(value) for name, value in chosen.items()})
    assert answer.status_code == 200
    return answer.text


def rows(html: str) -> list[int]:
    """The numbers of the rows that are listed."""
    return [int(row) for row in re.findall(r'data-row="(\d+)"(?: aria-current="true")?>', html.partition("<main")[0])]


def part(html: str, name: str) -> str:
    """The text of a part of the page, without its tags."""
    found = re.search(rf'<(\w+) id="{name}".*?(?=<\w+ id="(?!previous|next|of-|sent|to)|</main>)', html, re.DOTALL)
    assert found, name
    return " ".join(re.sub(r"<[^>]*>", " ", found[0]).split())


async def test_the_first_row_is_shown_with_all_that_is_chosen_in_the_address(tmp_path: Path) -> None:
    """A row, a view, a width, the colours and the images; what is not valid is the default."""
    async with page(write(tmp_path)) as client:
        html = await read(client)
        assert rows(html) == [1, 2, 3]
        assert "News for Ann" in part(html, "facts")
        assert "from <news@example.org> to <ann@example.org>" in part(html, "facts").replace("&lt;", "<").replace(
            "&gt;", ">"
        )
        assert "all can be mailed" in part(html, "state")
        assert 'sandbox=""' in html
        html = await read(client, row=2, view="text")
        assert "Hello Bob" in part(html, "body")
        assert "Subject" in part(await read(client, row=2, view="headers"), "body")
        assert "Content-Type: text/html" in part(await read(client, row=2, view="source"), "body")
        assert 'class="frame phone dark"' in await read(client, width="phone", dark=1)
        html = await read(client, row="x", view="nonsense", width="9", order="?", offset="-1", images="no")
        assert "News for Ann" in part(html, "facts")
        assert "News for Ann" in part(await read(client, row="0" * 5000 + "2"), "facts")
        assert "There is no row 9" in part(await read(client, row=9), "fault")


async def test_the_frame_has_the_html_in_the_chosen_colours_and_images(tmp_path: Path) -> None:
    """Dark: the mail's own styles for that apply, whatever the browser prefers. No images: not even its own."""
    style = "<style>@media (prefers-color-scheme: dark) { p { color: red } }</style>"
    async with page(write(tmp_path, html=HTML.replace("<body>", f"<body>{style}"))) as client:
        light = await client.get("/rows/1/html")
        assert "prefers-color-scheme: dark" in light.text
        dark = await client.get("/rows/1/html?dark=1")
        assert "@media (min-width: 0px)" in dark.text
        assert "color-scheme: dark" in dark.text
        images = {name: (await client.get(f"/rows/1/html?images={name}")).headers for name in ("own", "all", "off")}
        policies = {name: headers["content-security-policy"] for name, headers in images.items()}
        assert "img-src data:;" in policies["own"]
        assert "img-src data: http: https:;" in policies["all"]
        assert "img-src 'none';" in policies["off"]


async def test_a_message_is_composed_as_it_will_be_sent(tmp_path: Path) -> None:
    """Byte for byte, but for the Message-ID and the date of a preview."""
    path = write(tmp_path, attachments='["terms.txt"]')
    (tmp_path / "terms.txt").write_text("terms", encoding="utf-8")
    async with page(path) as client:
        raw = await client.get("/rows/2/raw")
        assert raw.headers["content-disposition"].endswith("row-2.eml")
    date = parsedate_to_datetime(message_from_bytes(raw.content, policy=policy.default)["Date"])
    prepared = await Campaign.from_file(path).prepare()
    sent = prepared.composer.compose(
        "bob@example.org", {"email": "bob@example.org", "name": "Bob"}, message_id="preview.2@example.org", date=date
    )
    assert raw.content == bytes(sent.content)  # type: ignore[arg-type]


async def test_attachments_are_listed_and_opened(tmp_path: Path) -> None:
    path = write(tmp_path, attachments='["invoices/{{ name }}.txt"]')
    (tmp_path / "invoices").mkdir()
    for name in ("Ann", "Bob"):
        (tmp_path / "invoices" / f"{name}.txt").write_text(f"to pay: {name}", encoding="utf-8")
    async with page(path) as client:
        html = await read(client, row=2, view="parts")
        assert "Attachments (1)" in part(html, "views")
        assert "Bob.txt" in part(html, "body")
        [link] = re.findall(r'href="(/rows/2/parts/\d+)"[^>]*>Bob.txt', html)
        opened = await client.get(link)
        assert opened.text == "to pay: Bob"
        assert opened.headers["content-disposition"].startswith("inline")
        html = await read(client, row=3)  # nobody has written that invoice
        assert "cannot be mailed" in part(html, "fault")
        assert "Cid.txt" in part(html, "fault")


MIXED = (
    "email,name\nann@example.org,Ann\nnobody,Bad\nann@example.org,Twice\nout@example.org,Out\n"
    "eve@exаmple.org,Eve\ncid@example.org,Cid\n"
)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A row without an address, a duplicate, a suppressed one, and one with a remark."""
    (tmp_path / "stop.txt").write_text("out@example.org\n", encoding="utf-8")
    return write(tmp_path, MIXED, suppression='"stop.txt"')


async def test_rows_with_problems_are_first(mixed: Path) -> None:
    """Those that cannot be mailed, then those that a person should look at, with the reasons; or as in the file."""
    async with page(mixed) as client:
        html = await read(client)
        assert rows(html) == [2, 3, 4, 5, 1, 6]
        assert "1 cannot be mailed" in part(html, "state")
        listed = part(html, "rows")
        assert "“nobody” is not an e-mail address" in listed
        assert "names the mailbox of row 1 again, and is left out" in listed
        assert "is on a suppression list, and gets nothing" in listed
        assert "mixes Cyrillic and Latin letters" in listed
        assert "News for Ann" in part(html, "facts")  # but the first that gets a message is shown
        assert rows(await read(client, order="file")) == [1, 2, 3, 4, 5, 6]


async def test_the_findings_of_a_row_have_its_line(mixed: Path) -> None:
    async with page(mixed) as client:
        html = await read(client, row=4)
        assert "row 4, line 5 of the recipients" in part(html, "findings")
        assert "people.csv: 6 rows, 4 to be mailed" in part(html, "findings").replace(str(mixed.parent) + "/", "")
        html = await read(client, row=2)
        fault = part(html, "fault")
        assert "people.csv, line 3" in fault
        assert "nobody,Bad" in fault
        assert "the campaign does not sign with DKIM" in part(html, "findings")


async def test_rows_that_are_left_out_say_why(tmp_path: Path) -> None:
    """By a condition, or because they are in the message of another row, which has them all."""
    people = "email,name\nann@example.org,Ann\nbob@example.org,Bob\nann@example.org,Again\n"
    text = "{% for each in rows %}* {{ each.name }}\n{% endfor %}"
    path = write(tmp_path, people, text=text, duplicates='"group"', where="'name != \"Bob\"'")
    async with page(path) as client:
        assert "* Ann * Again" in part(await read(client, view="text"), "body")
        assert "Row 2 gets no message left out: not name != “Bob”" in part(await read(client, row=2), "fault").replace(
            "&#34;Bob&#34;", "“Bob”"
        )
        assert "Row 3 gets no message in the message of row 1" in part(await read(client, row=3), "fault")


async def test_who_gets_a_copy_is_shown(tmp_path: Path) -> None:
    """Bcc is in no header field."""
    path = write(tmp_path, cc='"boss@example.org"', bcc='"archive@example.org"')
    async with page(path) as client:
        facts = part(await read(client), "facts")
        assert "Cc boss@example.org Bcc archive@example.org" in facts
        assert b"archive@example.org" not in (await client.get("/rows/1/raw")).content


async def test_a_row_whose_message_cannot_be_composed_says_why(tmp_path: Path) -> None:
    """The others are shown; the list knows once all are composed."""
    people = "email,name\nann@example.org,2026-03-01\nbob@example.org,soon\n"
    async with page(write(tmp_path, people, text="{{ name.split('-')[2] }}\n")) as client:
        html = await read(client)
        assert rows(html) == [2, 1]
        assert "list object has no element 2" in part(html, "rows")
        fault = part(await read(client, row=2), "fault")
        assert "Row 2 cannot be mailed" in fault
        assert "list object has no element 2" in fault


async def test_next_and_previous_follow_the_list(mixed: Path) -> None:
    """In its order, within the search, and over its pages."""
    async with page(mixed) as client:
        html = await read(client, row=4)
        assert 'id="previous" rel="prev" href="/?row=3"' in html
        assert 'id="next" rel="next" href="/?row=5"' in html
        html = await read(client, row=4, order="file")
        assert 'id="next" rel="next" href="/?row=5&amp;order=file"' in html
        html = await read(client, row=1, q="ann@")
        assert 'id="previous" rel="prev" href="/?row=3&amp;q=ann%40"' in html
        assert 'id="next"' not in html


@pytest.mark.parametrize(
    ("words", "found"),
    [("BOB", [2]), ("example.org", [1, 2, 3]), ("bob@ cid@", []), ("3", [3]), ("'; DROP TABLE entry", []), ("%", [])],
)
async def test_search(tmp_path: Path, words: str, found: list[int]) -> None:
    """All words, in a cell or the reason, whatever their case; or the number of the row."""
    async with page(write(tmp_path)) as client:
        html = await read(client, q=words)
        assert rows(html) == found
        assert "No row has all of these words" not in html or not found
        assert "News for Ann" in html  # the message stays


async def test_many_rows_are_paged(tmp_path: Path) -> None:
    """A hundred at a time; a row that is chosen is on its page; the answers stay small and fast."""
    people = "".join(f"person{number}@example.org,Name {number}\n" for number in range(1, 10_001))
    async with page(write(tmp_path, "email,name\n" + people)) as client:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        html = await read(client, row=9_950, order="file")
        taken = loop.time() - begun
        assert rows(html) == [*range(9_901, 10_001)]
        assert len(html) < 60_000
        assert "News for Name 9950" in part(html, "facts")
        assert "10,000 rows" in part(html, "state")
        assert 'href="/?row=9950&amp;order=file&amp;offset=9800"' in html
        assert rows(await read(client, order="file", offset=100)) == [*range(101, 201)]
        assert rows(await read(client, order="file", offset=10**9)) == [*range(9_901, 10_001)]
        assert rows(await read(client, q="person777@"))[0] == 777
        assert taken < 2


async def test_the_loop_of_the_browser_is_not_held_up(tmp_path: Path) -> None:
    """While twenty thousand rows are read and composed elsewhere, it runs every few milliseconds."""
    people = "".join(f"person{number}@example.org,Name {number}\n" for number in range(20_000))
    path = write(tmp_path, "email,name\n" + people)
    loop, lags = asyncio.get_running_loop(), list[float]()
    async with open_live_campaign(path, lambda: load_config(path), describe=describe, send=Sent().send) as live:
        while not live.state.complete:
            begun = loop.time()
            await asyncio.sleep(0.001)
            lags.append(loop.time() - begun - 0.001)
    assert live.state.checked == 20_000
    assert len(lags) > 50
    assert sorted(lags)[len(lags) // 2] < 0.01


# What is not valid, where that is, and what becomes of the page.


BROKEN: Mapping[str, tuple[Mapping[str, str], str, str]] = {  # files, place, the line that is marked
    "syntax": ({"message.html": "<p>\n{% if name %}\n<b>{{ name }</b>\n"}, "message.html, line 3", "<b>{{ name }</b>"),
    "unknown name": ({"message.txt": "Hello\n{{ nmae }}\n"}, "message.txt, line 2", "{{ nmae }}"),
    "include": ({"message.html": "<p>\n{% include 'none.html' %}\n"}, "message.html, line 2", "none.html"),
    "in an include": (
        {"message.html": "{% include 'part.html' %}", "part.html": "<p>\n\n{{ oops"},
        "part.html, line 3",
        "{{ oops",
    ),
    "subject": ({"campaign.toml": 'subject = "{{ nmae }}"'}, "campaign.toml, line 4", "subject = "),
    "TOML": ({"campaign.toml": 'subject = "x'}, "campaign.toml, line 4", "subject = "),
    "key": ({"campaign.toml": 'subjekt = "x"'}, "", ""),
    "type": ({"campaign.toml": "subject = 3"}, "campaign.toml, line 4", "subject = 3"),
    "quote": ({"people.csv": 'email,name\nann@example.org,Ann\n"bob@example.org,Bob\n'}, "people.csv, line 3", '"bob@'),
    "no column": ({"people.csv": "who,name\nx,y\n"}, "", ""),
    "no file": ({"people.csv": ""}, "", ""),
}


def break_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        if name == "campaign.toml":
            lines = path.read_text("utf-8").splitlines()
            text = "\n".join([*lines[:3], text, *lines[4:], ""])
        if name == "people.csv" and not text:
            path.unlink()
        else:
            path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("kind", BROKEN)
async def test_an_error_is_shown_where_it_is_until_it_is_repaired(tmp_path: Path, kind: str) -> None:
    """The file, the line and its neighbours instead of a blank page; the rows and the chosen one stay."""
    files, place, marked = BROKEN[kind]
    path = write(tmp_path)
    kept = {name: (tmp_path / name).read_text("utf-8") for name in files if (tmp_path / name).exists()}
    async with following(path) as live, client_of(live) as client:
        version = live.state.version
        break_files(tmp_path, files)
        await settle(live, version + 1)
        html = await read(client, row=2)
        fault = part(html, "fault")
        assert 'role="alert"' in html
        assert place in fault
        if marked:
            wrong = re.search(r'class="wrong".*?<code>(.*?)</code>', html)
            assert wrong
            assert marked in wrong[1].replace("&#34;", '"').replace("&#39;", "'").replace("&lt;", "<").replace(
                "&gt;", ">"
            )
        if kind not in ("quote", "no file", "no column"):
            assert rows(html) == [1, 2, 3]
        version = live.state.version
        for name, text in kept.items():
            (tmp_path / name).write_text(text, encoding="utf-8")
        await settle(live, version + 1)
        html = await read(client, row=2)
        assert "News for Bob" in part(html, "facts")
        assert part(html, "fault") == ""


async def test_a_campaign_that_is_broken_from_the_start_is_shown_when_it_is_repaired(tmp_path: Path) -> None:
    path = write(tmp_path, html="{{ oops")
    async with following(path) as live, client_of(live) as client:
        assert "message.html, line 1" in part(await read(client), "fault")
        assert (await client.get("/rows/1/html")).status_code == 404
        (tmp_path / "message.html").write_text(HTML, encoding="utf-8")
        await settle(live, 2)
        assert "News for Ann" in part(await read(client), "facts")


async def test_a_bug_is_reported_and_does_not_end_it(tmp_path: Path) -> None:
    """Whatever is raised while the files are read."""
    path, calls = write(tmp_path), 0

    def load() -> CampaignConfig:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("<b>boom</b>")
        return load_config(path)

    async with open_live_campaign(path, load, describe=describe, send=Sent().send) as live, client_of(live) as client:
        await settle(live)
        html = await read(client)
        assert "a bug of asyncsmtp: RuntimeError: &lt;b&gt;boom&lt;/b&gt;" in html
        path.write_text(path.read_text("utf-8") + "\n", encoding="utf-8")
        await settle(live, 2)
        assert "News for Ann" in await read(client)


@pytest.mark.parametrize("people", ["email,name\n", "email,name\nnobody,Ann\n"])
async def test_nobody_to_be_mailed(tmp_path: Path, people: str) -> None:
    async with page(write(tmp_path, people)) as client:
        assert "Nobody would be mailed" in part(await read(client), "fault")


# Sending one of them.


async def test_a_message_is_sent_to_one_address(tmp_path: Path) -> None:
    """The row that is shown, to the address in the form; how it ended is in the answer, as text."""
    sent = Sent()
    async with page(write(tmp_path), sent) as client:
        answer = await client.post("/rows/2/send", json={"to": " me@example.org "})
        assert answer.json() == {"state": "accepted", "sentence": sent.result.sentence, "advice": ""}
        assert sent.found == [(2, "me@example.org")]
        sent.result = SendResult("rejected", "rejected by mx: 550 \x1b[31mno", "ask")
        assert (await client.post("/rows/1/send", json={"to": "me@example.org"})).json()["sentence"].count("\x1b") == 0
        answer = await client.post("/rows/9/send", json={"to": "me@example.org"})
        assert (answer.json()["state"], "there is no message of row 9" in answer.json()["sentence"]) == ("failed", True)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"to": 3}', b'{"to": ""}', b'{"to": "' + b"x" * 5000 + b'"}', b"[" * 3000]
)
async def test_a_request_without_an_address_sends_nothing(tmp_path: Path, body: bytes) -> None:
    sent = Sent()
    async with page(write(tmp_path), sent) as client:
        answer = await client.post("/rows/1/send", content=body)
        assert (answer.status_code, answer.json()["state"]) == (400, "failed")
    assert sent.found == []


# Who may ask, and what a hostile campaign cannot do.


@pytest.mark.parametrize("origin", ["http://evil.example", "null", f"http://127.0.0.1:{PORT + 1}", None])
async def test_another_page_sends_nothing(tmp_path: Path, origin: str | None) -> None:
    """With the cookie of the browser: only the page itself may."""
    sent = Sent()
    async with following(write(tmp_path), sent) as live, client_of(live, None) as client:
        await client.get("/?token=right")
        headers = {} if origin is None else {"origin": origin}
        answer = await client.post("/rows/1/send", json={"to": "me@example.org"}, headers=headers)
        assert (answer.status_code, sent.found) == (403, [])
        answer = await client.post("/rows/1/send", json={"to": "me@example.org"}, headers={"origin": ORIGIN})
        assert (answer.status_code, sent.found) == (200, [(1, "me@example.org")])
        assert (await client.get("/rows/1/send")).status_code == 405


async def test_without_the_token_nothing_is_shown(tmp_path: Path) -> None:
    sent = Sent()
    async with following(write(tmp_path), sent) as live:
        for token in (None, "wrong"):
            async with client_of(live, token) as client:
                for path in ("/", "/events", "/rows/1/html", "/rows/1/raw", "/rows/1/parts/1", "/static/preview.js"):
                    answer = await client.get(path)
                    assert (answer.status_code, "Ann" in answer.text) == (401, False)
                assert (await client.post("/rows/1/send", json={"to": "me@example.org"})).status_code == 401
        async with client_of(live) as client:
            assert (await client.get("/", headers={"host": "evil.example"})).status_code == 421
    assert sent.found == []


async def test_the_page_loads_nothing_but_its_own(tmp_path: Path) -> None:
    async with page(write(tmp_path)) as client:
        for path in ("/", "/?row=2&view=source", "/?row=9", "/static/preview.js", "/static/none", "/rows/99/html"):
            answer = await client.get(path)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
            assert not re.search(r"<script(?! src=\"/static/)|\son\w+=|style=", answer.text.partition("use strict")[0])


HOSTILE = (*HOSTILE_HTML, "</iframe></main><h1>not ours</h1><!--")


@pytest.mark.parametrize("html", HOSTILE)
async def test_the_html_of_a_campaign_is_alone_in_its_frame(tmp_path: Path, html: str) -> None:
    """It is in no page of ours; its own answer is sandboxed and may load nothing."""
    async with page(write(tmp_path, html=f"<p>{html}</p>")) as client:
        shown = await client.get("/")
        body = part(shown.text, "body")
        assert html not in shown.text
        assert "evil.example" not in body
        assert 'sandbox=""' in shown.text
        for address in ("/rows/1/html", "/rows/1/html?dark=1", "/rows/1/html?images=all"):
            frame = await client.get(address)
            allowed = frame.headers["content-security-policy"]
            assert allowed.startswith("sandbox; default-src 'none'")
            assert "base-uri 'none'; form-action 'none'" in allowed
            assert not re.search("script-src|connect-src|allow-", allowed)


OURS = """
    html head meta title link script body main nav a h1 h2 header section table tbody thead tr th td div pre p form
    label input button ol ul li span em strong code kbd output footer iframe
"""


class Elements(HTMLParser):
    """The elements of a page; none may be another than ours, or have an attribute that acts."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in OURS.split()
        for name, value in attrs:
            assert not name.startswith("on")
            assert name != "style"
            if name in ("href", "src", "action"):
                assert re.match(r"/(?!/)|#|data:,$", value or ""), value
        if tag == "script":
            assert dict(attrs)["src"] == "/static/preview.js"
        if tag == "meta":
            assert "http-equiv" not in dict(attrs)


@pytest.mark.parametrize("text", [*HOSTILE, "\x1b[31mred", "\u202ereversed", "{{ 7 * 7 }}", '"><img src=x onerror=y>'])
async def test_texts_of_a_campaign_are_text(tmp_path: Path, text: str) -> None:
    """In cells, subjects, names, reasons, excerpts, names of files, and what is searched for."""
    cell = json.dumps(text)
    people = tmp_path / "people.jsonl"
    records = [{"email": "ann@example.org", "name": text}, {"email": text, "name": text}]
    path = write(tmp_path, recipients='"people.jsonl"', attachments='["files/{{ name }}"]', to_name='"{{ name }}"')
    people.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    (tmp_path / "files").mkdir()
    async with following(path) as live, client_of(live) as client:
        for chosen in ({"row": 1}, {"row": 2}, {"row": 1, "view": "source"}, {"q": text}, {"row": 1, "order": "file"}):
            check_text(await read(client, **chosen), text)
        version = live.state.version
        (tmp_path / "message.txt").write_text(f"{{{{ nmae }}}} {text}\n{cell}\n", encoding="utf-8")
        await settle(live, version + 1)
        check_text(await read(client), text)


def check_text(html: str, text: str) -> None:
    assert text not in html.replace("{{ 7 * 7 }}", "")
    Elements().feed(html)
    assert "\x1b" not in html
    assert "\u202e" not in html


async def test_a_large_part_and_many_attachments(tmp_path: Path) -> None:
    """HTML of more than two megabytes and a part of twenty are not put into the page; 500 attachments are listed."""
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(500):
        (folder / f"{number}.pdf").write_bytes(b"%PDF-1.4 x")
    (folder / "large.pdf").write_bytes(b"%PDF-1.4" + b"x" * 20_000_000)
    path = write(tmp_path, html="<p>x</p>" * 300_000, attachments='["files/*.pdf"]')
    async with page(path) as client:
        html = await read(client, view="parts")
        assert "499.pdf" in html
        assert "20,000,008" in html
        assert "Attachments (501)" in html
        assert len(await read(client)) < 60_000
        assert "too large" in (await client.get("/rows/1/html")).text
        assert len((await client.get("/rows/1/parts/503")).content) > 0


async def test_findings_of_the_templates_have_their_lines(tmp_path: Path) -> None:
    """What mail programs do not support, cells that are empty, and marks of other programs."""
    html = "<p>\n<style>p { display: grid }</style>\n<b style='position: fixed'>*|FNAME|* {{ name }}</b>\n"
    async with page(write(tmp_path, "email,name\nann@example.org,\nbob@example.org,Bob\n", html=html)) as client:
        shown = await read(client)
        found = part(shown, "findings")
    result = await Campaign.from_file(tmp_path / "campaign.toml").check()
    assert len(result.findings) > 3
    for each in result.findings:
        assert each.sentence.split(": ")[0].split("“")[0] in found.replace("&#39;", "'"), each
    assert 'class="excerpt"' in shown


async def test_a_name_of_a_row_or_part_is_one_that_is_there(tmp_path: Path) -> None:
    async with page(write(tmp_path)) as client:
        for path in (
            "/rows/0/html",
            "/rows/99999999999999999999/raw",
            "/rows/1/parts/0",
            "/rows/1/parts/99",
            "/rows/x/raw",
        ):
            assert (await client.get(path)).status_code == 404, path
        for path in ("/static/..%2Fpreview.py", "/static/style.css%00", "/static/message.html"):
            assert (await client.get(path)).status_code == 404, path
