"""A ledger that is not the campaign's: that of another one, or no file at all."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from asyncsmtp.bulk import Campaign
from asyncsmtp.errors import ConfigError, LedgerMismatch
from tests.cli.ended import Command


@pytest.fixture
def other(command: Command, campaign: Path) -> Path:
    """The ledger of a campaign called “other”."""
    assert command("bulk", campaign, "--sandbox", "--name", "other").code == 0
    return campaign.parent / "other.sandbox.ledger"


@pytest.mark.parametrize("words", [("status",), ("results",), ("report",), ("resolve", "--resend", "--yes")])
def test_the_ledger_of_another_campaign_is_refused(
    command: Command, campaign: Path, other: Path, words: tuple[str, ...]
) -> None:
    """Its counts are not those of the campaign that was named, and `bulk` refuses it as well."""
    ended = command(words[0], campaign, "--ledger", other, *words[1:])
    assert ended.code == 2
    assert "is the ledger of the campaign “other”, not of “news”" in ended.sentence
    assert command(words[0], "--ledger", other, *words[1:]).code == 0
    assert command(words[0], campaign, "--name", "other", "--ledger", other, *words[1:]).code == 0


async def test_a_program_is_refused_too(campaign: Path, other: Path) -> None:
    """As a run is."""
    made = Campaign.from_file(campaign, ledger=other)
    with pytest.raises(LedgerMismatch, match="“other”, not of “news”"):
        await made.counts()
    with pytest.raises(LedgerMismatch, match="“other”, not of “news”"):
        await made.resolve("resend")
    with pytest.raises(LedgerMismatch, match="“other”, not of “news”"):
        await anext(made.results())


@pytest.mark.parametrize("words", [("status",), ("bulk", "--yes", "--relay", "smtp://127.0.0.1:9?security=none")])
def test_a_folder_is_no_ledger(command: Command, campaign: Path, words: tuple[str, ...]) -> None:
    """Nor is a pipe or a device; nothing is made beside it."""
    (campaign.parent / "folder").mkdir()
    os.mkfifo(campaign.parent / "pipe")
    for name, expected in (("folder", "folder is a folder, not a ledger"), ("pipe", "no regular file")):
        ended = command(words[0], campaign, "--ledger", name, *words[1:])
        assert ended.code == 2
        assert expected in ended.sentence
        assert "name a file" in ended.err
        assert not (campaign.parent / f"{name}.lock").exists()
    assert command(words[0], campaign, "--ledger", os.devnull, *words[1:]).code == 2


def test_a_program_gets_an_error_of_the_configuration(campaign: Path) -> None:
    """What was passed is wrong, not the disk."""
    with pytest.raises(ConfigError, match="is a folder, not a ledger"):
        asyncio.run(Campaign.from_file(campaign, ledger=campaign.parent).counts())


@pytest.mark.parametrize("words", [("status",), ("bulk", "--yes"), ("campaign load",)])
def test_the_url_of_another_database_is_no_file(command: Command, campaign: Path, words: tuple[str, ...]) -> None:
    """Neither as an option, nor in the campaign file, nor in a program; what follows may hold a password."""
    expected = "mysql:// is not supported: give a file, or postgresql://user@host/database"
    ended = command(*words[0].split(), campaign, *words[1:], "--ledger", "mysql://x:secret@y/z")
    assert (ended.code, ended.sentence) == (2, f"--ledger {expected}")
    campaign.write_text(f'{campaign.read_text("utf-8")}ledger = "mysql://x:secret@y/z"\n', encoding="utf-8")
    ended = command(*words[0].split(), campaign, *words[1:])
    assert ended.code == 2
    assert f"ledger: {expected}" in ended.sentence
    assert "campaign.toml" in ended.sentence
    with pytest.raises(ConfigError, match="ledger= mysql:// is not supported"):
        Campaign(recipients="people.csv", from_="a@example.org", subject="x", text="x", ledger="mysql://x/y")
