"""Files as people have them, from the command: what was found is told, with the option that sets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.ended import Command

TITLED = "Members;;\n;;\n;email;name\n0;ann@example.org;Ann\n1;bob@example.org\n;;\nTotal;2\n;;\n"


def write(campaign: Path, text: str, message: str = "Hello\n") -> None:
    (campaign.parent / "people.csv").write_text(text, encoding="utf-8")
    (campaign.parent / "message.txt").write_text(message, encoding="utf-8")
    campaign.write_text(campaign.read_text("utf-8").replace("News for {{ name }}", "News"), "utf-8")


def test_a_spreadsheet_with_a_title_and_a_total_is_mailed(command: Command, campaign: Path) -> None:
    """The exit code is 0: nothing that concerns a recipient is wrong."""
    write(campaign, TITLED)
    ended = command("check", campaign, "--json")
    assert "names of the columns are on line 3 (detected; set it with --skip-lines 2)" in ended.err
    assert "row 3 (line 7): left out: it is below the table and has no address" in ended.err
    assert "2 to be mailed" in ended.err
    assert ended.err.count("has 2 cells where the header has 3") == 1
    ended = command("bulk", campaign, "--sandbox")
    assert ended.code == 0, ended.err
    outcomes = command("results", campaign, "--sandbox", "--json").out.splitlines()
    assert [json.loads(line)["state"] for line in outcomes] == ["accepted", "accepted", "suppressed"]


def test_a_short_row_is_a_problem_where_the_template_needs_it(command: Command, campaign: Path) -> None:
    write(campaign, TITLED, "Hello {{ name }}\n")
    ended = command("bulk", campaign, "--dry-run")
    assert ended.code == 1
    assert "row 2 (line 5): has 2 cells where the header has 3: “name” is missing" in ended.out


@pytest.mark.parametrize(("skipped", "told"), [("2", "2 to be mailed"), ("0", "has “Members”"), ("-1", "--skip-lines")])
def test_skip_lines_is_obeyed(command: Command, campaign: Path, skipped: str, told: str) -> None:
    write(campaign, TITLED)
    ended = command("bulk", campaign, "--dry-run", "--skip-lines", skipped)
    assert told in ended.err + ended.out
    assert "detected; set it with --skip-lines" not in ended.out


def test_a_header_that_is_asked_for_is_asked_for_by_the_option(command: Command, campaign: Path) -> None:
    write(campaign, "a,b\nc,d\nemail,name\nann@example.org,Ann\n")
    ended = command("check", campaign)
    assert (ended.code, "set --skip-lines to 2" in ended.err) == (2, True)
