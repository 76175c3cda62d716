"""Every example runs as it stands, and does what it says."""

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

from asyncsmtp import Mailbox, Suppressed, SuppressionList, unsubscribe_token
from asyncsmtp.testing import ScriptedRelay
from tests.cli.serving import serving

EXAMPLES = Path(__file__).parent.parent / "examples"
ARRIVES = {"send_one": 1, "email_message": 1, "pool_in_app": 20, "bulk_from_csv": 2, "campaign_from_rows": 2}
SERVERS = {"campaign_in_fastapi", "unsubscribe_server"}  # what serves until it is ended has a test of its own


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


@pytest.mark.parametrize("name", sorted({path.stem for path in EXAMPLES.glob("*.py")} - SERVERS))
async def test_it_runs_as_it_stands(name: str, relay: ScriptedRelay) -> None:
    """An example that fails teaches the wrong thing; one that is not listed here is not tested."""
    said = await run(name, relay)
    assert "accepted" in said
    assert len(relay.received) == ARRIVES[name]


async def test_the_campaign_is_resumed_and_nobody_is_mailed_twice(relay: ScriptedRelay) -> None:
    """It runs its campaign twice; the row without an address is told each time."""
    said = await run("bulk_from_csv", relay)
    assert said.count("row 3: nobody: rejected") == 2
    assert len({message.forward_paths for message in relay.received}) == 2


async def test_the_image_of_the_first_example_is_one(relay: ScriptedRelay) -> None:
    """Its octets are written by hand: the checksum of each chunk (ISO/IEC 15948 §5.3)."""
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


def test_a_campaign_runs_in_an_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests begin two campaigns and look at them; a bad file begins none; the application's end waits for them."""
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
                time.sleep(0.01)
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
    )
    try:
        assert process.stdout is not None
        base = (await process.stdout.readline()).decode().strip().removesuffix("/u/TOKEN")
        token = unsubscribe_token(b"0123456789abcdef", Mailbox.parse("ann@example.net"))
        kept = SuppressionList(tmp_path / "suppressed.db")
        async with httpx2.AsyncClient(base_url=base) as client:
            assert "Unsubscribe</button>" in (await client.get(f"/u/{token}")).text
            assert not kept.path.exists()
            assert (await client.post(f"/u/{token[:-1]}a2")).status_code == 404
            clicked = await client.post(f"/u/{token}", data={"List-Unsubscribe": "One-Click"})
            assert clicked.text == "you are unsubscribed"
        assert kept.entries() == [Suppressed("ann@example.net", "unsubscribed")]
    finally:
        process.kill()
        await process.wait()
