"""`preview`: what would be sent, on the terminal or as files, and nothing is sent."""

from __future__ import annotations

import stat
from email import message_from_bytes, policy
from pathlib import Path

import pytest

from tests.cli.ended import Command


@pytest.fixture
def demo(command: Command) -> str:
    assert command("init", "demo").code == 0
    return "demo/campaign.toml"


def test_a_message_is_shown_as_a_person_reads_it(command: Command, demo: str) -> None:
    """The header decoded, the parts as text, an image by its size; nothing that acts on a terminal."""
    ended = command("preview", demo, "--row", 2)
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[0] == "row 2"
    assert any(line.startswith("Subject: ") and "welcome to the news" in line for line in lines)
    assert "--- text/plain" in lines
    assert "--- text/html" in lines
    assert any(line.startswith("--- image/png") and line.endswith(" bytes") for line in lines)
    assert "\x1b" not in ended.out


def test_messages_are_written_as_files_for_their_owner_alone(command: Command, demo: str) -> None:
    """TF-14: new files only, through no link."""
    ended = command("preview", demo, "--output", "out", "--limit", 3)
    assert ended.code == 0, ended.err
    files = sorted(Path("out").iterdir())
    assert [file.name for file in files] == ["row-1.eml", "row-2.eml", "row-3.eml"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert message_from_bytes(files[0].read_bytes(), policy=policy.default)["Subject"]
    again = command("preview", demo, "--output", "out")
    assert (again.code, "row-1.eml is there already" in again.sentence) == (2, True)
    assert len(list(Path("out").iterdir())) == 3
    Path("links").mkdir()
    Path("links/row-2.eml").symlink_to(Path("victim").absolute())
    assert command("preview", demo, "--output", "links", "--row", 2).code == 2
    assert not Path("victim").exists()


def test_a_row_that_cannot_be_shown_says_why(command: Command, campaign: Path) -> None:
    people = campaign.parent / "people.csv"
    people.write_text(people.read_text("utf-8") + "nobody,Dan\n", encoding="utf-8")
    assert "“nobody” is not an e-mail address" in command("preview", campaign, "--row", 4).sentence
    assert "has no row 9" in command("preview", campaign, "--row", 9).sentence
    assert "--limit needs --output" in command("preview", campaign, "--limit", 2).sentence
    first, last = command("preview", campaign, "--output", "out").err.splitlines()
    assert first.startswith("1 row cannot be mailed: row 4 (line 5): “nobody” is not an e-mail address")
    assert last == "3 messages in out; nothing was sent"


@pytest.fixture
def dated(campaign: Path) -> Path:
    """A campaign of four rows whose first two have no day where the text wants one; the third has no address."""
    rows = "a@example.net,soon\nb@example.net,later\nnobody,2026-03-01\nd@example.net,2026-03-01\n"
    (campaign.parent / "people.csv").write_text("email,name\n" + rows, encoding="utf-8")
    (campaign.parent / "message.txt").write_text("Since {{ name.split('-')[2] }}\n", encoding="utf-8")
    return campaign


def test_a_row_that_cannot_be_composed_is_skipped_as_it_will_be(command: Command, dated: Path) -> None:
    """What `bulk` leaves out does not keep the others from being looked at; it is said."""
    ended = command("preview", dated)
    assert (ended.code, ended.out.splitlines()[0]) == (0, "row 4")
    assert "3 rows cannot be mailed: the first is row 1 (line 2): " in ended.err
    assert "list object has no element 2" in ended.err
    ended = command("preview", dated, "--output", "out")
    assert ended.code == 0, ended.err
    assert [file.name for file in Path("out").iterdir()] == ["row-4.eml"]
    assert "3 rows cannot be mailed" in ended.err


def test_the_row_that_was_asked_for_must_be_one_that_can_be_composed(command: Command, dated: Path) -> None:
    ended = command("preview", dated, "--row", 2)
    assert ended.code == 2
    assert "row 2 (line 3): " in ended.sentence
    assert command("preview", dated, "--row", 4).err == ""


def test_where_no_row_can_be_shown_the_first_reason_is_reported(command: Command, dated: Path) -> None:
    (dated.parent / "people.csv").write_text("email,name\na@example.net,soon\n", encoding="utf-8")
    ended = command("preview", dated)
    assert ended.code == 2
    assert "has no row to show" in ended.sentence
    assert "1 row cannot be mailed: row 1 (line 2): " in ended.err
