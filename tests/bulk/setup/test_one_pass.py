"""The recipients are read once: the check, the digest and the load go together, and a refusal loads nobody."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from asyncsmtp import Campaign, CheckResult, LedgerMismatch, RecipientError
from asyncsmtp.bulk.recipients import file as recipients_file
from asyncsmtp.testing import ScriptedRelay
from tests.bulk.test_campaign import FILE, url
from tests.interop.postgres import Postgres

ROWS = 1200


@pytest.fixture
def file(tmp_path: Path) -> Path:
    lines = "".join(f"a{row}@example.org,Name {row}\n" for row in range(ROWS))
    (tmp_path / "people.csv").write_text(f"email,name\n{lines}", encoding="utf-8")
    (tmp_path / "message.txt").write_text("Hello {{ name }}\n", encoding="utf-8")
    (tmp_path / "campaign.toml").write_text(FILE, encoding="utf-8")
    return tmp_path / "campaign.toml"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The bytes that were read of each file of recipients, by its name."""
    found: Counter[str] = Counter()
    blocks, read_digest = recipients_file._blocks, recipients_file.read_digest

    async def count(path: str, size: int) -> AsyncGenerator[bytes]:
        async for block in blocks(path, size):
            found[Path(path).name] += len(block)
            yield block

    def digest(path: Path) -> str:
        found[Path(path).name] += Path(path).stat().st_size
        return read_digest(path)

    monkeypatch.setattr(recipients_file, "_blocks", count)
    monkeypatch.setattr(recipients_file, "read_digest", digest)
    return found


async def nothing(result: CheckResult) -> None:
    """Agree."""


async def test_a_run_reads_the_recipients_once(file: Path, reads: Counter[str]) -> None:
    """Beside their beginning, which shows columns and encoding; the run that goes on reads them for their digest."""
    people = file.parent / "people.csv"
    beginning = 2 * people.stat().st_size  # a small file is its own beginning: for the encoding, and for the columns
    async with ScriptedRelay() as relay:
        await Campaign.from_file(file, relay=url(relay)).run(limit=1)
        assert reads["people.csv"] == beginning + people.stat().st_size
        reads.clear()
        await Campaign.from_file(file, relay=url(relay)).run(limit=1)
    assert reads["people.csv"] == beginning + people.stat().st_size


async def test_the_digest_is_that_of_what_was_loaded(file: Path) -> None:
    """Though the file was another one when the campaign was opened."""
    people = file.parent / "people.csv"
    campaign = Campaign.from_file(file, relay="smtp://localhost")
    async with campaign.open() as opened:
        with people.open("a", encoding="utf-8") as more:
            more.write("late@example.org,Late\n")
        assert (await opened.load_checked(nothing)).report.rows == ROWS + 1
    with closing(sqlite3.connect(file.parent / "news.ledger")) as connection:
        ((config,),) = connection.execute("SELECT config FROM campaign")
    assert json.loads(config)["parts"]["people.csv"] == hashlib.sha256(people.read_bytes()).hexdigest()
    async with campaign.open() as opened:
        assert opened.has_begun
        assert (await opened.ledger.counts()).total == ROWS + 1


async def test_a_change_after_the_load_is_noticed(file: Path) -> None:
    async with ScriptedRelay() as relay:
        campaign = Campaign.from_file(file, relay=url(relay))
        await campaign.run(limit=1)
        with (file.parent / "people.csv").open("a", encoding="utf-8") as more:
            more.write("late@example.org,Late\n")
        with pytest.raises(LedgerMismatch, match=r"people\.csv changed"):
            await campaign.run()


@pytest.mark.parametrize("how", ["refused", "cancelled", "strict", "file"])
async def test_a_refusal_loads_nobody(file: Path, how: str) -> None:
    """And the same ledger takes them the next time."""
    people, campaign = file.parent / "people.csv", Campaign.from_file(file, relay="smtp://localhost")
    whole = people.read_bytes()

    async def decide(result: CheckResult) -> None:
        assert result.report.rows >= ROWS
        if how == "refused":
            raise RecipientError("no")
        if how == "strict":
            result.report.raise_for_problems()
        if how == "cancelled":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(10)

    if how == "strict":
        people.write_bytes(whole + b"no address,Nobody\n")
    elif how == "file":
        people.write_bytes(whole + b'x@example.org,"Open\n')
    async with campaign.open() as opened:
        with pytest.raises(asyncio.CancelledError if how == "cancelled" else RecipientError):
            await asyncio.ensure_future(opened.load_checked(decide))
        assert not opened.has_begun
        assert (await opened.ledger.counts()).total == 0
    with closing(sqlite3.connect(file.parent / "news.ledger")) as connection:
        assert connection.execute("SELECT count(*) FROM recipient").fetchone() == (0,)
    people.write_bytes(whole)
    async with campaign.open() as opened:
        await opened.begin(strict=True)
        assert await opened.count_ready() == ROWS


async def test_further_recipients_are_loaded_in_the_same_way(file: Path) -> None:
    """All of them or none, behind those that are there."""
    more = file.parent / "more.csv"
    more.write_text("email,name\nnew@example.org,New\na3@example.org,Again\n", encoding="utf-8")

    async def refuse(result: CheckResult) -> None:
        assert result.report.recipients == 2
        raise RecipientError("no")

    campaign = Campaign.from_file(file, relay="smtp://localhost")
    async with campaign.open() as opened:
        await opened.begin()
    async with campaign.open(add=more) as opened:
        with pytest.raises(RecipientError, match="no"):
            await opened.load_checked(refuse)
        assert (await opened.ledger.counts()).total == ROWS
        assert opened.has_rows_to_load
        await opened.load_checked(nothing)
        assert (await opened.ledger.counts()).total == ROWS + 2
        assert not opened.has_rows_to_load
    async with campaign.open(add=more) as opened:
        with suppress(RecipientError):
            await opened.begin()
        assert (await opened.ledger.counts()).total == ROWS + 4  # all duplicates


async def test_a_database_takes_them_in_the_same_way(file: Path, postgres: Postgres) -> None:
    """A refusal leaves it without the campaign's rows."""

    async def refuse(result: CheckResult) -> None:
        raise RecipientError("no")

    campaign = Campaign.from_file(file, relay="smtp://localhost", ledger=postgres.url)
    async with campaign.open() as opened:
        with pytest.raises(RecipientError, match="no"):
            await opened.load_checked(refuse)
        assert not opened.has_begun
    assert postgres.execute("SELECT count(*) FROM asyncsmtp.recipient") == [(0,)]
    async with campaign.open() as opened:
        await opened.begin()
        assert await opened.count_ready() == ROWS
