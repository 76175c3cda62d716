"""The command as it was typed, and the commands that hints make of it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from asyncsmtp.cli.command_line import CommandLine
from asyncsmtp.cli.main import asyncsmtp


def typed(line: str) -> CommandLine:
    return CommandLine(tuple(shlex.split(line)), asyncsmtp)


BULK = "bulk my/campaign.toml --relay smtp://mx.example -v --limit=5 --ledger x.ledger"


def test_a_command_is_repeated_with_other_options() -> None:
    """What stands there already is not doubled, and nothing is put behind `--`."""
    assert typed(BULK).repeat() == f"asyncsmtp {BULK}"
    assert typed(BULK).repeat("--wait", "-v") == f"asyncsmtp {BULK} --wait"
    assert typed(BULK).repeat(without=("--limit", "--relay")) == (
        "asyncsmtp bulk my/campaign.toml -v --ledger x.ledger"
    )
    assert typed("bulk --yes -- -x.toml").repeat("--wait") == "asyncsmtp bulk --yes --wait -- -x.toml"
    assert typed("suppress 'my list.db' -").repeat() == "asyncsmtp suppress 'my list.db' -"


@pytest.mark.parametrize(
    ("line", "campaign"),
    [
        (BULK, "my/campaign.toml"),
        ("bulk --relay smtp://mx.example campaign.toml", "campaign.toml"),
        ("-- bulk x.toml", None),
        ("bulk --recipients people.csv", None),
        ("bulk -- x.toml", None),
        ("send --to ann@example.org", None),
        ("nonsense x.toml", None),
        ("", None),
    ],
)
def test_the_campaign_is_the_file_that_was_typed(line: str, campaign: str | None) -> None:
    """The value of an option is not."""
    assert typed(line).campaign == (None if campaign is None else Path(campaign))
    assert CommandLine(tuple(shlex.split(line))).campaign is None


def test_a_campaign_is_begun_by_the_command_that_it_was_typed_for() -> None:
    """With what says where its ledger is, and nothing else."""
    assert typed(f"status {BULK.removeprefix('bulk ')}").begin() == (
        "asyncsmtp bulk my/campaign.toml --ledger x.ledger"
    )
    assert typed("status --name news").begin() == ""


@pytest.mark.parametrize(
    ("line", "check"),
    [
        (BULK, "check my/campaign.toml --quit-after login --relay smtp://mx.example -v"),
        ("bulk x.toml", "check x.toml --quit-after login -v"),
        ("status x.toml", ""),
        ("send --relay=smtp://mx.example --from ann@example.org --to b@x", "check --relay=smtp://mx.example -v"),
        ("send --provider gmail --from ann@example.org", "check --provider gmail --from ann@example.org -v"),
        ("send --env-file .env --to b@x", "check --env-file .env -v"),
        ("check --relay smtp://mx.example", "check --relay smtp://mx.example -v"),
        ("check --relay smtp://mx.example -v", ""),
        ("check --relay smtp://mx.example --verbose", ""),
    ],
)
def test_the_relay_of_a_command_is_looked_at_with_its_dialogue(
    line: str, check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay may also be in the environment; the command itself is no advice."""
    for name in ("ASYNCSMTP_RELAY", "ASYNCSMTP_PROVIDER"):
        monkeypatch.delenv(name, raising=False)
    assert typed(line).check_relay() == (f"asyncsmtp {check}" if check else "")
    for name in ("ASYNCSMTP_RELAY", "ASYNCSMTP_PROVIDER"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "x")
            assert typed("send --to b@x").check_relay() == "asyncsmtp check -v"
    assert typed("send --to b@x").check_relay() == ""


def test_a_sentence_is_about_the_option_whose_name_or_value_it_has() -> None:
    line = typed("bulk x.toml --delimiter : --column 'name=Full name' --limit=5 -v")
    assert line.find_option("--delimiter must be one of , ; | tab") == "--delimiter"
    assert line.find_option("there is no column “Full name”") == "--column"
    assert line.find_option("“5” is too many") == "--limit"
    assert line.find_option("“x.toml” is not there") == ""
    assert line.find_option("-v") == ""
    assert line.find_option("something else") == ""


def test_the_value_of_an_option_is_found() -> None:
    line = typed(BULK)
    assert line.find_value("--relay") == "smtp://mx.example"
    assert line.find_value("--limit") == "5"
    assert line.find_value("-v") == ""
    assert line.find_value("--sessions") == ""
    assert typed("bulk x --env-file a --env-file=b").env_file == ["--env-file", "a", "--env-file=b"]
    assert line.env_file == []
    assert line.help == "asyncsmtp bulk --help"
    assert typed("").help == typed("--version").help == "asyncsmtp --help"
