"""`init`: writes a sample, and never over what is there."""

from __future__ import annotations

import stat
from pathlib import Path

from tests.cli.ended import Command


def test_it_writes_a_campaign_and_says_what_to_type(command: Command, tmp_path: Path) -> None:
    """The next command is the one that works at once."""
    ended = command("init", "demo", "--rows", "5")
    assert ended.code == 0
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {
        "campaign.toml",
        "people.csv",
        "message.html",
        "message.txt",
        "logo.png",
        "unsubscribe.secret",
    }
    assert stat.S_IMODE((tmp_path / "demo/unsubscribe.secret").stat().st_mode) == 0o600
    assert len((tmp_path / "demo/people.csv").read_text(encoding="utf-8").splitlines()) == 6
    assert "next: asyncsmtp bulk demo/campaign.toml --sandbox" in ended.err


def test_running_it_again_leaves_changes_alone(command: Command, tmp_path: Path) -> None:
    """A second run is no accident worth a person's edits."""
    command("init", "demo")
    (tmp_path / "demo/message.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "demo/logo.png").unlink()
    ended = command("init", "demo")
    assert ended.code == 0
    assert (tmp_path / "demo/message.txt").read_text(encoding="utf-8") == "mine"
    assert "kept  demo/message.txt" in ended.err
    assert "wrote demo/logo.png" in ended.err


def test_another_number_of_rows_says_how_to_start_afresh(command: Command) -> None:
    """`--rows` that has no effect is told, not swallowed."""
    command("init", "demo", "--rows", "5")
    ended = command("init", "demo", "--rows", "6")
    assert ended.code == 0
    assert "with 5 rows instead of 6" in ended.err
    assert "demo-2 --rows 6" in ended.err
    assert "rows instead" not in command("init", "demo").err


def test_a_link_is_not_written_through(command: Command, tmp_path: Path) -> None:
    """TF-14: a link that waits in a shared folder must not aim our output."""
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/people.csv").symlink_to(tmp_path / "elsewhere")
    command("init", "demo")
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_where_the_folder_should_be_is_one_sentence(command: Command, tmp_path: Path) -> None:
    """No traceback for a name that is taken."""
    (tmp_path / "demo").write_text("")
    ended = command("init", "demo")
    assert ended.code == 2
    assert ended.sentence == "demo is a file, not a folder"


def test_the_folder_is_made_with_those_above_it(command: Command, tmp_path: Path) -> None:
    """One that is there already is used."""
    assert command("init", "news/2026/november").code == 0
    assert (tmp_path / "news/2026/november/campaign.toml").exists()
    (tmp_path / "empty").mkdir()
    assert command("init", "empty").code == 0
    assert (tmp_path / "empty/campaign.toml").exists()
