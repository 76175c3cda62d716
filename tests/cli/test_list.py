"""`list`: the campaigns of a folder, and those commands that find one of them with --name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import CAMPAIGN
from tests.cli.ended import Command
from tests.cli.test_hints import follow, hints


@pytest.fixture
def two(command: Command, campaign: Path) -> Path:
    """A folder with a campaign that was rehearsed, and one that has not begun."""
    (campaign.parent / "second.toml").write_text(CAMPAIGN.replace('"news"', '"autumn sale"'), "utf-8")
    assert command("bulk", campaign, "--sandbox").code == 0
    return campaign.parent


def test_each_campaign_with_its_counts(command: Command, two: Path) -> None:
    """A line for each, by the names of the files."""
    ended = command("list", "--sandbox")
    assert ended.code == 0
    assert ended.out.splitlines() == [
        "news         campaign.toml  3 rows: 3 accepted",
        "autumn sale  second.toml    not begun yet",
    ]
    assert [line.split("  ")[-1] for line in command("list").out.splitlines()] == ["not begun yet"] * 2


def test_for_a_program(command: Command, two: Path) -> None:
    """With --json: an object for each."""
    first, second = map(json.loads, command("list", two, "--sandbox", "--json").out.splitlines())
    assert first["name"] == "news"
    assert first["campaign"] == str(two / "campaign.toml")
    assert first["ledger"] == str(two / "news.sandbox.ledger")
    assert (first["counts"]["accepted"], first["error"]) == (3, None)
    assert (second["name"], second["counts"]) == ("autumn sale", None)


def test_a_ledger_without_a_campaign_file(command: Command, campaign: Path) -> None:
    """What was begun by options alone is listed by its ledger."""
    command("bulk", campaign, "--sandbox")
    campaign.unlink()
    assert command("list", "--sandbox").out == "news  news.sandbox.ledger  3 rows: 3 accepted\n"
    assert command("list").out == ""


def test_one_that_cannot_be_read_does_not_hide_the_others(command: Command, two: Path) -> None:
    """The sentence stands in its line, and in the exit code."""
    (two / "second.toml").write_text("[campaign]\nname = nope\n", "utf-8")
    (two / "pyproject.toml").write_text("[tool.ruff]\n", "utf-8")
    ended = command("list", "--sandbox")
    assert ended.code == 2
    assert "3 accepted" in ended.out
    assert "second.toml is not TOML" in ended.out
    assert "pyproject" not in ended.out
    (two / "broken.sandbox.ledger").write_text("no database", "utf-8")
    ended = command("list", "--sandbox")
    assert ended.code == 74
    assert len(ended.out.splitlines()) == 3


def test_an_empty_folder_says_what_to_do(command: Command) -> None:
    """The command that is printed works."""
    ended = command("list")
    assert ended.code == 0
    assert hints(ended) == ["asyncsmtp init demo"]
    follow(command, ended)
    assert command("list", "demo").out.startswith("welcome  demo/campaign.toml")
    assert command("list", "nowhere").sentence == "nowhere is not a folder"


@pytest.mark.parametrize("words", [("status",), ("results",), ("resolve",)], ids=lambda words: words[0])
def test_a_campaign_is_found_by_its_name(command: Command, two: Path, words: tuple[str, ...]) -> None:
    """As by its file."""
    by_name, by_file = (command(*words, *how, "--sandbox") for how in (("--name", "news"), ("campaign.toml",)))
    assert (by_name.code, by_name.out, by_name.err) == (by_file.code, by_file.out, by_file.err)
    assert by_name.code == 0


def test_a_name_with_an_unknown_campaign(command: Command, two: Path) -> None:
    """The nearest name is said, and the command that lists them."""
    ended = command("status", "--name", "nwes")
    assert ended.code == 2
    assert ended.sentence == "there is no campaign “nwes” in this folder; did you mean “news”?"
    follow(command, ended)
    assert "next: asyncsmtp list" in ended.err


def test_two_files_with_one_name(command: Command, two: Path) -> None:
    """Neither is guessed."""
    (two / "copy.toml").write_bytes((two / "campaign.toml").read_bytes())
    ended = command("status", "--name", "news")
    assert ended.code == 2
    assert ended.sentence == "campaign.toml and copy.toml are both called “news”"


def test_a_name_finds_a_ledger_that_has_no_file(command: Command, campaign: Path) -> None:
    """A campaign by options alone has its ledger by its name."""
    command("bulk", campaign, "--sandbox")
    campaign.unlink()
    assert command("status", "--name", "news", "--sandbox").out == "3 rows: 3 accepted\n"
    assert command("status", "--name", "../news", "--sandbox").code == 2


def test_the_hints_are_about_the_campaign_that_was_named(
    command: Command, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that has not begun: the command that begins it. With another name: the campaign under that name."""
    for words in (("results", "--name", "autumn sale", "--sandbox"), ("status", "--name", "autumn sale", "--sandbox")):
        assert hints(ended := command(*words)) == ["asyncsmtp bulk second.toml --sandbox"]
    for words in (("results", "campaign.toml", "--name", "x"), ("status", "campaign.toml", "--name", "x")):
        ended = command(*words, "--sandbox")
        assert hints(ended) == ["asyncsmtp bulk campaign.toml --name x --sandbox"]
    follow(command, ended)
    ended = command("status", "campaign.toml", "--name", "x", "--sandbox")
    assert ended.out == "3 rows: 3 accepted\n"
    monkeypatch.setenv("ASYNCSMTP_NAME", "x")
    assert command("status", "campaign.toml", "--sandbox").out == ended.out
    assert len(command("list", "--sandbox").out.splitlines()) == 3
