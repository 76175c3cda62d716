"""Every example runs as it stands, and does what it says."""

from __future__ import annotations

import asyncio
import struct
import sys
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asyncsmtp.testing import ScriptedRelay

EXAMPLES = Path(__file__).parent.parent / "examples"
ARRIVES = {"send_one": 1, "email_message": 1, "pool_in_app": 20, "bulk_from_csv": 2}


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


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
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
