"""Campaigns over PostgreSQL, for workers of every kind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asyncsmtp.testing import ScriptedRelay


@pytest.fixture
async def relay() -> AsyncIterator[ScriptedRelay]:
    async with ScriptedRelay() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path, relay: ScriptedRelay) -> Path:
    """A folder with the campaign news, of three batches."""
    (tmp_path / "news").mkdir()
    people = "email\n" + "".join(f"a{row}@example.org\n" for row in range(1200))
    (tmp_path / "news" / "people.csv").write_text(people, encoding="utf-8")
    (tmp_path / "news" / "message.txt").write_text("Hello\n", encoding="utf-8")
    (tmp_path / "news" / "campaign.toml").write_text(
        f"""\
[campaign]
name = "news"
from = "News <news@example.org>"
subject = "News"
recipients = "people.csv"
text = "message.txt"

[relay]
url = "smtp://127.0.0.1:{relay.port}?security=none"
""",
        encoding="utf-8",
    )
    return tmp_path
