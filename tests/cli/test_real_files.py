"""Files as people have them, from the command: what was found is told, with the option that sets it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import openpyxl
import pytest

from asyncsmtp.testing import ScriptedRelay, Stage
from tests.cli.ended import Command
from tests.cli.serving import serving

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


ODD = (
    'email,name\n"Ann Doe <ann@example.org>",Ann\nmailto:bob@example.org,Bob\n"cid@example.org; dora@example.org",Cid\n'
)


@pytest.mark.parametrize("words", [("check",), ("bulk", "--dry-run"), ("bulk", "--sandbox", "--name", "odd")])
def test_addresses_that_can_be_repaired_name_the_option(
    command: Command, campaign: Path, words: tuple[str, ...]
) -> None:
    """As a command that works as it is printed, for the same campaign."""
    write(campaign, ODD + "eve (at) example.org,Eve\n")
    ended = command(words[0], campaign, *words[1:])
    assert ended.code != 0
    assert "3 of these addresses can be repaired" in ended.err + ended.out
    [line] = [line for line in ended.err.splitlines() if line.endswith("--repair")]
    assert line.startswith("  next: asyncsmtp bulk ")
    ended = command(*shlex.split(line.removeprefix("  next: asyncsmtp ")))
    told = ended.err + ended.out
    assert "3 address cells repaired, 1 further row:" in told
    assert "row 1 (line 2): “Ann Doe <ann@example.org>” is read as ann@example.org" in told
    assert "row 3 (line 4): “cid@example.org; dora@example.org” is read as cid@example.org, dora@example.org" in told
    assert "row 4 (line 5): “eve (at) example.org” spells out its @ or dots" in told
    assert "can be repaired" not in told


def test_repair_may_stand_in_the_campaign_or_its_environment(
    command: Command, campaign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An option that was not given does not go before the file."""
    write(campaign, ODD)
    monkeypatch.setenv("ASYNCSMTP_REPAIR", "1")
    assert command("bulk", campaign, "--dry-run").code == 0
    assert "3 address cells repaired" in command("check", campaign).out
    monkeypatch.setenv("ASYNCSMTP_REPAIR", "perhaps")
    assert command("bulk", campaign, "--dry-run").code == command("check", campaign).code == 2
    monkeypatch.delenv("ASYNCSMTP_REPAIR")
    assert command("bulk", campaign, "--dry-run").code == 2
    campaign.write_text(campaign.read_text("utf-8").replace("[campaign]", "[campaign]\nrepair = true"), "utf-8")
    assert command("bulk", campaign, "--dry-run").code == 0


CHILDREN = "email,name\nann@example.org,Zoe\nbob@example.org,Max\nAnn@example.org,Tom\n"


@pytest.mark.parametrize(
    ("duplicates", "told", "states"),
    [
        ("first", "3 rows · 2 to be mailed · 1 duplicate", ["accepted", "accepted", "suppressed"]),
        ("send", "3 rows · 3 to be mailed", ["accepted"] * 3),
        ("group", "3 rows · 2 to be mailed · 1 in the message of another row", ["accepted"] * 3),
    ],
)
def test_the_report_says_what_several_rows_of_one_mailbox_get(
    command: Command, campaign: Path, duplicates: str, told: str, states: list[str]
) -> None:
    write(campaign, CHILDREN)
    ended = command("bulk", campaign, "--sandbox", "--duplicates", duplicates)
    assert (ended.code, told in ended.err) == (0, True), ended.err
    fate = {"first": "is left out", "send": "gets a message too", "group": "is in its message"}[duplicates]
    assert f"row 3: names the mailbox of row 1 again, and {fate}" in ended.err
    outcomes = command("results", campaign, "--sandbox", "--json").out.splitlines()
    assert [json.loads(line)["state"] for line in outcomes] == states


def test_a_grouped_campaign_is_previewed_and_sent_to_one(command: Command, campaign: Path) -> None:
    """With all rows, as it will be sent."""
    write(campaign, CHILDREN, "{% for child in rows %}{{ child.name }}.{% endfor %}\n")
    campaign.write_text(campaign.read_text("utf-8").replace("[campaign]", '[campaign]\nduplicates = "group"'), "utf-8")
    assert "Zoe.Tom." in command("preview", campaign).out
    assert command("preview", campaign, "--row", 3).sentence.endswith("row 3 (line 4): in the message of row 1")
    assert "2 to be mailed" in command("check", campaign).out
    assert command("bulk", campaign, "--only-to", "me@example.org", "--sandbox").code == 0


def test_the_failed_rows_of_a_group_are_sent_again_as_a_group(command: Command, campaign: Path) -> None:
    """`results --failed` has each row of the mailbox, with its own cells."""
    write(campaign, CHILDREN, "{% for child in rows %}{{ child.name }}.{% endfor %}\n")
    with serving(ScriptedRelay({Stage.RCPT: {1: "550 5.2.2 full"}})) as relay:
        url = f"smtp://127.0.0.1:{relay.port}?security=none"
        options = ("--relay", url, "--yes", "--duplicates", "group", "--sessions", 1, "--concurrency", 1)
        assert command("bulk", campaign, *options).code == 1
        failed = command("results", campaign, "--failed").out
        assert [line.split(",")[:2] for line in failed.splitlines()[1:]] == [
            ["ann@example.org", "Zoe"],
            ["Ann@example.org", "Tom"],
        ]
        (campaign.parent / "failed.csv").write_text(failed, "utf-8")
        again = command("bulk", campaign, "--recipients", "failed.csv", "--name", "again", *options)
        assert again.code == 0, again.err
        assert relay.received[-1].email.get_content().strip() == "Zoe.Tom."


FRENCH = "email;name\r\nann@example.org;Hélène\r\nbob@example.org;François\r\ncid@example.org;Noël Gruyère\r\n"


@pytest.mark.parametrize("words", [("bulk", "--sandbox", "--yes"), ("bulk", "--dry-run"), ("check",)])
def test_an_encoding_that_is_not_certain_is_asked_for(command: Command, campaign: Path, words: tuple[str, ...]) -> None:
    """Under --yes as well: nothing is sent; the command that is printed reads the names as they are."""
    (campaign.parent / "people.csv").write_bytes(FRENCH.encode("cp1252"))
    ended = command(words[0], campaign, *words[1:])
    assert ended.code == 2
    assert "cp1252 reads “Hélène”, “François”, “Noël Gruyère”" in ended.err
    assert "cp1250 reads “Hélčne”, “François”, “Noël Gruyčre”" in ended.err
    assert "name the right one with --encoding" in ended.err
    hint = next(line for line in ended.err.splitlines() if "next:" in line).partition("next: ")[2]
    assert not list(campaign.parent.rglob("*.ledger"))
    again = command(*shlex.split(hint)[1:])
    assert again.code == 0, again.err
    assert "--encoding cp1252" in hint


def test_a_sheet_that_is_not_certain_is_asked_for(command: Command, campaign: Path) -> None:
    """With the sheets that may be meant; the one that is named is read, by the option and by the key."""
    book = openpyxl.Workbook()
    for sheet, name in ((book.active, "Ann"), (book.create_sheet("Guests"), "Bob")):
        sheet.append(["email", "name"])
        sheet.append([f"{name}@example.org".lower(), name])
    book.save(campaign.parent / "people.xlsx")
    campaign.write_text(campaign.read_text("utf-8").replace("people.csv", "people.xlsx"), "utf-8")
    ended = command("bulk", campaign, "--sandbox")
    assert ended.code == 2
    assert "several sheets have addresses: name one of “Sheet”, “Guests” with --sheet" in ended.err
    hint = next(line for line in ended.err.splitlines() if "next:" in line).partition("next: ")[2]
    assert command(*shlex.split(hint)[1:]).code == 0
    assert "--sheet Sheet" in hint
    text = campaign.read_text("utf-8").replace("[campaign]", "[campaign]\nsheet = 2")
    campaign.write_text(text, "utf-8")
    shown = command("bulk", campaign, "--dry-run")
    assert (shown.code, "bob@example.org" in shown.out + shown.err) == (0, True)
