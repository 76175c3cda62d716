"""Every example runs as it stands, and does what its docstring says."""

from __future__ import annotations

import asyncio
import importlib
import os
import sqlite3
import struct
import sys
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest
from fastapi.testclient import TestClient

from asyncsmtp import Mailbox, Retry, Suppressed, SuppressionList, unsubscribe_token
from asyncsmtp.testing import NO_REPLY, Action, Fin, ScriptedRelay, Stage, StageContext
from tests.cli.serving import serving

EXAMPLES = Path(__file__).parent.parent / "examples"
ARRIVES = {"send_one": 1, "email_message": 1, "pool_in_app": 20, "bulk_from_csv": 2, "campaign_from_rows": 2}
SERVERS = {"campaign_in_fastapi", "fastapi_app", "unsubscribe_server"}  # servers have tests of their own
QUEUES = {"celery_app", "procrastinate_app"}  # in tests/test_job_queues.py
REPLIES = {b"<gone@": "550 5.1.1 no such user", b"<later@": "451 4.3.0 later"}


@pytest.fixture
async def relay() -> AsyncIterator[ScriptedRelay]:
    async with ScriptedRelay() as running:
        yield running


async def run(name: str, relay: ScriptedRelay) -> str:
    """Run an example against the relay; every warning is an error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), f"{relay.url}"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


@pytest.mark.parametrize("name", sorted({path.stem for path in EXAMPLES.glob("*.py")} - SERVERS - QUEUES))
async def test_it_runs_as_it_stands(name: str, relay: ScriptedRelay) -> None:
    """An example that fails teaches the wrong thing; one that is not listed here is not tested."""
    said = await run(name, relay)
    assert "accepted" in said
    assert len(relay.received) == ARRIVES[name]


async def test_the_campaign_is_resumed_and_nobody_is_mailed_twice(relay: ScriptedRelay) -> None:
    """It runs its campaign twice; the row without an address is reported each time."""
    said = await run("bulk_from_csv", relay)
    assert said.count("row 3: no address: rejected") == 2
    assert len({message.forward_paths for message in relay.received}) == 2


async def test_the_image_of_the_first_example_is_one(relay: ScriptedRelay) -> None:
    """Its bytes are written by hand: the checksum of each chunk (ISO/IEC 15948 §5.3)."""
    await run("send_one", relay)
    (image,) = [part for part in relay.received[0].email.walk() if part.get_content_type() == "image/png"]
    octets = image.get_content()
    assert octets.startswith(b"\x89PNG\r\n\x1a\n")
    at = 8
    while at < len(octets):
        (length,) = struct.unpack_from(">I", octets, at)
        assert struct.unpack_from(">I", octets, at + 8 + length) == (zlib.crc32(octets[at + 4 : at + 8 + length]),)
        at += 12 + length
    assert at == len(octets)


def reply_by_recipient(context: StageContext) -> Action | None:
    return next((reply for address, reply in REPLIES.items() if address in context.line), None)


def lose_reply(context: StageContext) -> Action | None:
    return (NO_REPLY, Fin()) if b"Hello Lost" in context.content else None


def test_an_application_sends_a_mail_for_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal, a bad address and a lost reply have answers of their own; the relay's reply is passed on."""
    with serving(ScriptedRelay({Stage.RCPT: reply_by_recipient, Stage.END_OF_DATA: lose_reply})) as relay:
        monkeypatch.setenv("RELAY", str(relay.url))
        monkeypatch.syspath_prepend(EXAMPLES)
        module = importlib.import_module("fastapi_app")
        monkeypatch.setattr(module, "RETRY", Retry(attempts=2, delay=0.01))
        with TestClient(module.app) as client:

            def welcome(to: str, name: str) -> tuple[int, str]:
                response = client.post("/welcome", params={"to": to, "name": name})
                return response.status_code, response.text

            assert [welcome(f"ann{n}@example.net", "Ann")[0] for n in range(5)] == [200] * 5
            for address, name, status, text in (
                ("gone@example.net", "Gone", 422, "550 5.1.1 no such user"),
                ("later@example.net", "Later", 503, "451 4.3.0 later"),
                ("nobody", "Nobody", 422, "it has no @"),
                ("ann@example.net", "Lost", 504, "may have been sent"),
            ):
                answered = welcome(address, name)
                assert (answered[0], text in answered[1]) == (status, True), answered
        assert [str(message.email["Subject"]) for message in relay.received] == ["Welcome"] * 6
    with TestClient(module.app) as client:  # the relay is gone
        response = client.post("/welcome", params={"to": "ann@example.net", "name": "Ann"})
        assert (response.status_code, "not delivered" in response.text) == (503, True)


def test_a_campaign_runs_in_an_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests start two campaigns and read their counts; a bad file starts none; the end of the application waits."""
    with serving(ScriptedRelay()) as relay:
        monkeypatch.setenv("RELAY", str(relay.url))
        monkeypatch.setenv("CAMPAIGNS", str(tmp_path))
        monkeypatch.syspath_prepend(EXAMPLES)
        module = importlib.import_module("campaign_in_fastapi")
        people = "email,name\n" + "".join(f"reader{n}@example.net,Reader {n}\n" for n in range(200))
        with TestClient(module.app) as client:
            for name in ("one", "two"):
                assert client.post(f"/campaigns/{name}", content=people).json() == {"recipients": 200, "problems": 0}
            assert client.post("/campaigns/one", content=people).status_code == 409
            bad = client.post("/campaigns/bad", content="email,nom\nann@example.net,Ann\n")
            assert (bad.status_code, "name" in bad.json()["detail"]) == (422, True)
            assert client.get("/campaigns/none").status_code == 404
            while client.get("/campaigns/one").json() != {"accepted": 200}:
                time.sleep(0.1)  # each look opens the ledger
        assert len(relay.received) >= 200
    for name in ("one", "two"):
        with closing(sqlite3.connect(tmp_path / f"{name}.ledger")) as ledger:
            states = dict(ledger.execute("SELECT state, count(*) FROM delivery GROUP BY state").fetchall())
        assert states.get(2, 0) + states.get(0, 0) == 200  # accepted, or left for the next start: none in doubt


async def test_a_link_asks_and_a_click_unsubscribes(tmp_path: Path) -> None:
    """MH-19: a GET changes nothing; a POST by RFC 8058 does, for the one whose token it is."""
    (tmp_path / "people.csv").write_text("email\nann@example.net\nbob@example.net\n", encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", str(EXAMPLES / "unsubscribe_server.py"), "people.csv", "0"),
        cwd=tmp_path,
        env=os.environ | {"ASYNCSMTP_UNSUBSCRIBE_SECRET": "0123456789abcdef"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        base = ""
        while "running on " not in base:
            base = (await process.stdout.readline()).decode()
        base = base.partition("running on ")[2].split()[0]
        token = unsubscribe_token(b"0123456789abcdef", Mailbox.parse("ann@example.net"))
        kept = SuppressionList(tmp_path / "suppressed.db")
        async with httpx2.AsyncClient(base_url=base) as client:
            assert "Unsubscribe</button>" in (await client.get(f"/u/{token}")).text
            assert kept.entries() == []
            assert (await client.post(f"/u/{token[:-1]}a2")).status_code == 404
            clicked = await client.post(f"/u/{token}", data={"List-Unsubscribe": "One-Click"})
            assert (clicked.status_code, "You are unsubscribed." in clicked.text) == (200, True)
        assert kept.entries() == [Suppressed("ann@example.net", "unsubscribed")]
    finally:
        process.kill()
        await process.wait()
