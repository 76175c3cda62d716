"""The URL of List-Unsubscribe: a look changes nothing, a click is on the disk before it is answered (RFC 8058)."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from asyncsmtp import ConfigError, Mailbox, SqliteLedger, Suppressed, SuppressionList, unsubscribe_token
from asyncsmtp.bulk import UnsubscribeApp
from asyncsmtp.bulk.suppression import unsubscribe_app
from tests.bulk.ledger.ledgers import batches, recipient

OLD, NEW = "0123456789abcdef", "fedcba9876543210"
ONE_CLICK = {"List-Unsubscribe": "One-Click"}
ANN, BOB = "ann@example.net", "Bob@Example.net"


def token(address: str, secret: str = OLD) -> str:
    return unsubscribe_token(secret.encode(), Mailbox.parse(address))


def client(app: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="https://example.org")


def people(folder: Path, *addresses: str) -> Path:
    path = folder / "people.csv"
    path.write_text("\n".join(("email", *addresses)) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def app(tmp_path: Path) -> UnsubscribeApp:
    return UnsubscribeApp(tmp_path / "no.db", people(tmp_path, ANN, BOB), secret=OLD)


def listed(folder: Path) -> list[str]:
    path = folder / "no.db"
    return [entry.address for entry in SuppressionList(path).entries()] if path.exists() else []


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_a_look_unsubscribes_nobody(app: UnsubscribeApp, tmp_path: Path, method: str) -> None:
    """RFC 8058 §3.2, MH-19: scanners of mail follow every link in it."""
    async with client(app) as http:
        for _ in range(2):
            answer = await http.request(method, f"/u/{token(ANN)}")
    assert answer.status_code == (204 if method == "OPTIONS" else 200)
    assert ("<button>Unsubscribe</button>" in answer.text) == (method == "GET")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert listed(tmp_path) == []


@pytest.mark.parametrize(
    "request_",
    [
        {"data": ONE_CLICK},
        {"files": {"List-Unsubscribe": (None, "One-Click")}},
        {"content": b"List-Unsubscribe=One-Click\r\n", "headers": {"content-type": "text/plain"}},
        {"data": {**ONE_CLICK, "campaign": "7"}},
    ],
    ids=["urlencoded", "multipart", "no type", "with another field"],
)
@pytest.mark.parametrize("url", ["/u/{}", "/u?t={}", "/{}/", "/news/{}.html?utm_source=mail"])
async def test_a_click_does(app: UnsubscribeApp, tmp_path: Path, request_: dict[str, Any], url: str) -> None:
    """RFC 8058 §3.2: as multipart/form-data or application/x-www-form-urlencoded; again it is answered the same."""
    async with client(app) as http:
        answers = [await http.post(url.format(token(BOB)), **request_) for _ in range(2)]
    assert [(answer.status_code, "You are unsubscribed." in answer.text) for answer in answers] == [(200, True)] * 2
    assert SuppressionList(tmp_path / "no.db").entries() == [Suppressed("Bob@Example.net", "unsubscribed")]


@pytest.mark.parametrize(
    "body", [b"", b"List-Unsubscribe=Later", b"One-Click", b"a=List-Unsubscribe=One-Click", b"&" * 5000]
)
async def test_a_request_that_is_no_click_unsubscribes_nobody(app: UnsubscribeApp, tmp_path: Path, body: bytes) -> None:
    async with client(app) as http:
        assert (await http.post(f"/u/{token(ANN)}", content=body)).status_code == 400
    assert listed(tmp_path) == []


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "PROPFIND"])
async def test_other_methods_are_refused(app: UnsubscribeApp, tmp_path: Path, method: str) -> None:
    async with client(app) as http:
        answer = await http.request(method, f"/u/{token(ANN)}", data=ONE_CLICK)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS, POST")
    assert listed(tmp_path) == []


@pytest.mark.parametrize(
    "wrong",
    ["", "ann@example.net", token("dan@example.net"), token(ANN, NEW), token(ANN)[:-1], token(ANN) + "a", "a" * 26],
)
async def test_a_wrong_token_tells_nothing(app: UnsubscribeApp, tmp_path: Path, wrong: str) -> None:
    """Whoever it may belong to, and whether he is on the list already: the same answer, to the byte."""
    SuppressionList(tmp_path / "no.db").add([Suppressed("dan@example.net")])
    async with client(app) as http:
        looked = await http.get(f"/u/{wrong}")
        clicked = await http.post(f"/u/{wrong}", data=ONE_CLICK)
        other = await http.post(f"/u/{'b' * 26}", data=ONE_CLICK)
    assert (looked.status_code, clicked.status_code) == (404, 404)
    assert clicked.content == looked.content == other.content
    assert "@" not in clicked.text
    assert listed(tmp_path) == ["dan@example.net"]


async def test_a_body_without_end_is_refused(app: UnsubscribeApp, tmp_path: Path) -> None:
    """It is not read to its end, whatever length it says."""

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"List-Unsubscribe=One-Click&" * 100

    async with client(app) as http:
        assert (await http.post(f"/u/{token(ANN)}", content=endless())).status_code == 413
    assert listed(tmp_path) == []


async def test_a_body_that_does_not_come_is_given_up(
    app: UnsubscribeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsubscribe_app, "BODY_TIMEOUT", 0.05)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": f"/u/{token(ANN)}"}, receive, send)
    assert sent[0]["status"] == 408
    assert listed(tmp_path) == []


@pytest.mark.parametrize("broken", ["locked", "no list", "read-only"])
async def test_what_cannot_be_written_is_asked_for_again(
    app: UnsubscribeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """503, so that the provider tries again; 200 afterwards, and never before."""
    path = tmp_path / "no.db"
    SuppressionList(path).create()
    monkeypatch.setattr("asyncsmtp.bulk.ledger.suppression_list.BUSY_TIMEOUT", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        if broken == "locked":
            other.execute("BEGIN IMMEDIATE")
        elif broken == "no list":
            path.rename(tmp_path / "away.db")
            path.mkdir()
        else:
            connect = sqlite3.connect
            change = lambda place, **named: connect(place.replace("mode=rw", "mode=ro"), **named)  # noqa: E731
            monkeypatch.setattr("asyncsmtp.bulk.ledger.suppression_list.sqlite3.connect", change)
        async with client(app) as http:
            answer = await http.post(f"/u/{token(ANN)}", data=ONE_CLICK)
            assert (answer.status_code, int(answer.headers["retry-after"]) > 0) == (503, True)
            if broken == "locked":
                other.execute("ROLLBACK")
                assert (await http.post(f"/u/{token(ANN)}", data=ONE_CLICK)).status_code == 200
                assert listed(tmp_path) == [ANN]


async def test_an_address_that_cannot_be_looked_up_is_asked_for_again(tmp_path: Path) -> None:
    """404 would lose the click of somebody whose ledger could not be read at that moment."""
    ledger = tmp_path / "news.ledger"
    ledger.write_bytes(b"SQLite format 3\0 and no more" * 100)
    app = UnsubscribeApp(tmp_path / "no.db", ledger, people(tmp_path, ANN), secret=OLD)
    async with client(app) as http:
        assert (await http.post(f"/u/{token(ANN)}", data=ONE_CLICK)).status_code == 503
        ledger.unlink()
        assert (await http.post(f"/u/{token(ANN)}", data=ONE_CLICK)).status_code == 200


async def test_campaigns_of_a_folder_share_an_endpoint(tmp_path: Path) -> None:
    """Also one that begins while it runs: its tokens are looked up when they come."""
    (folder := tmp_path / "campaigns").mkdir()
    app = UnsubscribeApp(tmp_path / "no.db", folder, secret=OLD, refresh=0)
    async with client(app) as http:
        for name, address in (("one", "ann@example.net"), ("two", "dan@example.net")):
            assert (await http.get(f"/u/{token(address)}")).status_code == 404
            opened = await SqliteLedger.open(folder / f"{name}.ledger", name=name, from_domain="example.org")
            async with opened as ledger:
                await ledger.load(batches([recipient(1, address)]))
                assert (await http.get(f"/u/{token(address)}")).status_code == 200, "while it runs"
            assert (await http.post(f"/u/{token(address)}", data=ONE_CLICK)).status_code == 200
    assert listed(tmp_path) == ["ann@example.net", "dan@example.net"]


async def test_unknown_tokens_do_not_have_the_sources_read_each_time(tmp_path: Path) -> None:
    """Else anybody could keep the disk busy."""
    read, now = [], 0.0

    async def addresses() -> AsyncIterator[str]:
        read.append(now)
        yield ANN

    app = UnsubscribeApp(tmp_path / "no.db", addresses, lambda: [BOB], secret=OLD, clock=lambda: now)
    async with client(app) as http:
        for now in (0.0, 1.0, 5.0, 11.0, 12.0):  # noqa: B007 the clock has it
            await http.get(f"/u/{'c' * 26}")
        assert [(await http.get(f"/u/{token(each)}")).status_code for each in (ANN, BOB)] == [200, 200]
    assert read == [0.0, 11.0]


async def test_a_secret_can_be_changed(tmp_path: Path) -> None:
    """Mails with the old one are in mailboxes for years."""
    file = tmp_path / "secret"
    file.write_text(f"{NEW}\n", encoding="utf-8")
    app = UnsubscribeApp(tmp_path / "no.db", people(tmp_path, ANN, BOB), secret=[file, OLD.encode()])
    async with client(app) as http:
        for address, secret in ((ANN, OLD), (BOB, NEW)):
            assert (await http.post(f"/u/{token(address, secret)}", data=ONE_CLICK)).status_code == 200
        assert (await http.post(f"/u/{token(ANN, 'neither of the two')}", data=ONE_CLICK)).status_code == 404
    assert listed(tmp_path) == ["Bob@Example.net", ANN]


CAMPAIGN = """
[campaign]
recipients = "people.csv"
from = "news@{domain}"
subject = "x"
text = "x.txt"
name = "{domain}"
suppression = "{list}"
[unsubscribe]
url = "https://{domain}/u/{{{{ token }}}}"
secret_file = "{domain}.secret"
"""


def campaign_of(folder: Path, domain: str, secret: str, list_: str = "no.db") -> Path:
    (folder / f"{domain}.secret").write_text(secret, encoding="utf-8")
    (folder / f"{domain}.secret").chmod(0o600)
    path = folder / f"{domain}.toml"
    path.write_text(CAMPAIGN.format(domain=domain, list=list_), encoding="utf-8")
    return path


async def test_campaigns_of_two_domains_share_an_endpoint(tmp_path: Path) -> None:
    """Each with its secret; the files say where their ledgers and their list are."""
    app = UnsubscribeApp.from_file(
        campaign_of(tmp_path, "a.example", OLD), campaign_of(tmp_path, "b.example", NEW), done="Erledigt."
    )
    for domain, address in (("a.example", ANN), ("b.example", BOB)):
        opened = await SqliteLedger.open(tmp_path / f"{domain}.ledger", name=domain, from_domain="example.org")
        async with opened as ledger:
            await ledger.load(batches([recipient(1, address)]))
    async with client(app) as http:
        for address, secret in ((ANN, OLD), (BOB, NEW)):
            answer = await http.post(f"/u/{token(address, secret)}", data=ONE_CLICK)
            assert (answer.status_code, "Erledigt." in answer.text) == (200, True)
    assert listed(tmp_path) == ["Bob@Example.net", ANN]


def test_what_is_missing_is_said_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at the first click, years later."""
    monkeypatch.delenv("ASYNCSMTP_UNSUBSCRIBE_SECRET", raising=False)
    first = campaign_of(tmp_path, "a.example", OLD)
    for make, said in (
        (lambda: UnsubscribeApp("no.db"), "no secret"),
        (lambda: UnsubscribeApp("no.db", secret="short"), "less than 16 bytes"),
        (lambda: UnsubscribeApp("no.db", secret=tmp_path / "none"), "cannot be read"),
        (lambda: UnsubscribeApp("no.txt", secret=OLD), "file of text"),
        (lambda: UnsubscribeApp.from_file(first, campaign_of(tmp_path, "b.example", OLD, "2.db")), "different ones"),
    ):
        with pytest.raises(ConfigError, match=said):
            make()


def test_it_is_mounted_in_an_application(app: UnsubscribeApp, tmp_path: Path) -> None:
    """In one of FastAPI, which is Starlette's: it gets no start of its own there."""
    whole = FastAPI()
    whole.mount("/consent", app)
    with TestClient(whole) as http:
        assert http.get(f"/consent/u/{token(ANN)}").status_code == 200
        assert http.post(f"/consent/u/{token(ANN)}", data=ONE_CLICK).status_code == 200
    assert listed(tmp_path) == [ANN]


def test_a_start_that_fails_ends_the_server(tmp_path: Path) -> None:
    """A server that answers 503 to everybody would look well."""
    (tmp_path / "no.db").write_bytes(b"no database, by far" * 100)
    app = UnsubscribeApp(tmp_path / "no.db", people(tmp_path, ANN), secret=OLD)
    with pytest.raises(Exception, match="cannot be used"), TestClient(app):
        pass


MODULE = """
from asyncsmtp.bulk import UnsubscribeApp
app = UnsubscribeApp("no.db", "people.csv", secret="0123456789abcdef")
"""


@contextmanager
def served(folder: Path, workers: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Uvicorn alone, in a group of processes of its own."""
    (folder / "module.py").write_text(MODULE, encoding="utf-8")
    words = [sys.executable, "-m", "uvicorn", "module:app", "--port", "0", "--workers", str(workers), "--no-access-log"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(words, cwd=folder, stderr=log, stdout=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        lines = ("startup complete", "running on http")  # the last line has the port
        while (text := (folder / "log").read_text()).count(lines[0]) < workers or lines[1] not in text:
            assert time.monotonic() < deadline, text
            assert process.poll() is None, text
            time.sleep(0.05)
        yield text.partition("running on ")[2].split()[0], process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.timeout(120)
@pytest.mark.slow
def test_what_was_answered_is_on_the_list_after_kill_9(tmp_path: Path) -> None:
    """A moment after the 200, six times: nothing of it was still to be written."""
    addresses = [f"reader{number}@example.net" for number in range(6)]
    people(tmp_path, *addresses)
    for place, address in enumerate(addresses):
        with served(tmp_path, 1) as (url, process):
            assert httpx2.post(f"{url}/u/{token(address)}", data=ONE_CLICK).status_code == 200
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert listed(tmp_path) == addresses[: place + 1]


@pytest.mark.timeout(120)
@pytest.mark.slow
async def test_several_processes_write_one_list(tmp_path: Path) -> None:
    """Two of a server, and a hundred clicks at once; a campaign may read the list meanwhile."""
    addresses = [f"reader{number:02}@example.net" for number in range(100)]
    people(tmp_path, *addresses)
    with served(tmp_path, 2) as (url, _):
        async with httpx2.AsyncClient(timeout=30) as http:
            clicks = (http.post(f"{url}/u/{token(address)}", data=ONE_CLICK) for address in addresses)
            answers = await asyncio.gather(*clicks)
    assert {answer.status_code for answer in answers} == {200}
    assert listed(tmp_path) == addresses
