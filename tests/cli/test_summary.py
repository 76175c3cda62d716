"""`bulk` for cron and for programs: --summary, --quiet, --log-file, and times where stderr is no terminal."""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import fields
from pathlib import Path

import pytest

from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.run_stats import RunStats, show_progress
from asyncsmtp.cli.output.run_summary import RunSummary
from asyncsmtp.testing import ScriptedRelay, Stage
from tests.cli.ended import Command
from tests.cli.serving import serving
from tests.cli.test_bulk import relay_at

ROOT = Path(__file__).parents[2]
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d"


def read(path: Path) -> dict[str, object]:
    found = json.loads(path.read_text("ascii"))
    assert isinstance(found, dict)
    assert list(found) == [field.name for field in fields(RunSummary)]
    return found


def test_the_summary_as_one_object(command: Command, campaign: Path, tmp_path: Path) -> None:
    """Every field is there, and says what the lines say."""
    with serving(ScriptedRelay({Stage.RCPT: {1: "550 5.1.1 unknown"}})) as relay:
        ended = command("bulk", campaign, *relay_at(relay), "--yes", "--concurrency", 1, "--summary", "run.json")
    assert ended.code == 1
    found = read(tmp_path / "run.json")
    assert (found["campaign"], found["exit_code"], found["error"]) == ("news", 1, None)
    assert found["ledger"] == str(tmp_path / "news.ledger")
    assert found["run"] == {"accepted": 2, "deferred": 0, "rejected": 1, "in doubt": 0}
    assert (found["rows"]["accepted"], found["total"], found["halted"]) == (2, 3, 0)  # type: ignore[index]
    assert [each["number"] for each in found["replies"]] == [1]  # type: ignore[attr-defined]
    assert "5.1.1 unknown" in str(found["replies"])
    assert str(found["started_at"]) <= str(found["ended_at"])
    assert stat.S_IMODE((tmp_path / "run.json").stat().st_mode) == 0o600
    assert not list(tmp_path.glob("*.new"))


def test_the_page_names_every_field_of_the_summary() -> None:
    """A program is written by docs/reference/output.md."""
    page = (ROOT / "docs" / "reference" / "output.md").read_text("utf-8")
    table = page.split("## The summary of a run")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [field.name for field in fields(RunSummary)]


@pytest.mark.parametrize(
    ("words", "code"),
    [(("--template", "gone.html"), 2), (("--relay", "smtp://127.0.0.1:1?security=none", "--yes"), 69), ((), 2)],
    ids=["a file that is missing", "no relay there", "no relay given"],
)
def test_an_error_is_in_the_summary(command: Command, campaign: Path, words: tuple[str, ...], code: int) -> None:
    """A program that reads the file of the last run must not take it for this one."""
    path = campaign.parent / "run.json"
    path.write_text('{"exit_code": 0}', "utf-8")
    ended = command("bulk", campaign, "--summary", path, *words)
    assert ended.code == code
    found = read(path)
    assert (found["exit_code"], found["error"]) == (code, ended.sentence)


def test_a_rehearsal_and_a_dry_run_have_a_summary(command: Command, campaign: Path, tmp_path: Path) -> None:
    """Of the former with its ledger; the latter has no rows."""
    assert command("bulk", campaign, "--sandbox", "--summary", "a.json").code == 0
    assert read(tmp_path / "a.json")["total"] == 3
    assert command("bulk", campaign, "--dry-run", "--summary", "b.json").code == 0
    assert (read(tmp_path / "b.json")["total"], read(tmp_path / "b.json")["exit_code"]) == (None, 0)


def test_a_summary_that_cannot_be_written_stops_the_run_before_it_begins(command: Command, campaign: Path) -> None:
    """Nobody is mailed by a job whose report would be lost."""
    ended = command("bulk", campaign, "--sandbox", "--summary", "nowhere/run.json")
    assert ended.code == 2
    assert "nowhere/run.json" in ended.sentence
    assert not (campaign.parent / "news.sandbox.ledger").exists()
    (campaign.parent / "run.json.new").symlink_to(campaign)
    assert command("bulk", campaign, "--sandbox", "--summary", "run.json").code == 2
    assert "[campaign]" in campaign.read_text("utf-8")


def test_a_pipe_gets_the_summary(command: Command, campaign: Path) -> None:
    """`--summary /dev/fd/3` writes what is open there."""
    reader, writer = os.pipe()
    assert command("bulk", campaign, "--sandbox", "--summary", f"/dev/fd/{writer}").code == 0
    os.close(writer)
    with open(reader, encoding="ascii") as file:
        assert json.load(file)["total"] == 3


def test_quiet_prints_nothing_when_all_is_well(command: Command, campaign: Path) -> None:
    """Cron sends a mail for whatever is printed."""
    ended = command("bulk", campaign, "--sandbox", "--quiet")
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_quiet_prints_what_is_wrong(command: Command, campaign: Path) -> None:
    """The summary if somebody was not accepted; every error with its next step; a question nobody can be asked."""
    with serving(ScriptedRelay({Stage.RCPT: {1: "550 5.1.1 unknown"}})) as relay:
        ended = command("bulk", campaign, *relay_at(relay), "--quiet")
        assert ended.code == 2
        assert "no terminal to ask at" in ended.sentence
        ended = command("bulk", campaign, *relay_at(relay), "--yes", "--quiet")
    assert ended.code == 1
    assert ended.err.startswith("news: 2 accepted · 1 rejected")
    assert "asyncsmtp results" in ended.err
    ended = command("bulk", "gone.toml", "--quiet")
    assert (ended.code, ended.sentence) == (2, "there is no campaign file gone.toml")
    assert "no command was given" in command().err  # the next command is not quiet


def test_the_log_file_has_every_line_with_its_time(command: Command, campaign: Path, tmp_path: Path) -> None:
    """Also with --quiet; it is appended to, and has errors as well."""
    log = tmp_path / "run.log"
    assert command("bulk", campaign, "--sandbox", "--quiet", "-v", "--log-file", log).code == 0
    assert command("bulk", campaign, "--quiet", "--log-file", log).code == 2
    lines = log.read_text("utf-8").splitlines()
    assert all(re.match(STAMP + " ", line) for line in lines)
    text = "\n".join(line.split(" ", 1)[1] for line in lines)
    assert "news: 3 accepted" in text
    assert " -> RCPT TO:<ann@example.org>" in text
    assert "asyncsmtp: no relay was given" in text
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    command("status", campaign)
    assert len(log.read_text("utf-8").splitlines()) == len(lines)


def test_a_log_file_that_cannot_be_opened(command: Command, campaign: Path) -> None:
    """Before anything is sent."""
    ended = command("bulk", campaign, "--sandbox", "--log-file", "nowhere/run.log")
    assert (ended.code, ended.sentence) == (2, "nowhere/run.log: no such file or directory")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_the_log_file_stops_nobody(command: Command, campaign: Path) -> None:
    """It is said once."""
    ended = command("bulk", campaign, "--sandbox", "--quiet", "--log-file", "/dev/full")
    assert ended.code == 0
    assert ended.err.count("the log file cannot be written (no space left on device)") == 1


def test_what_happens_during_a_run_has_its_time(command: Command, campaign: Path) -> None:
    """A file of lines says when; what can be copied afterwards begins its line as on a terminal."""
    ended = command("bulk", campaign, "--sandbox", "-v")
    assert ended.code == 0
    assert re.search(rf"^{STAMP}  -> RCPT TO:<ann@example.org>", ended.err, re.MULTILINE)
    assert re.search(r"^news: 3 accepted", ended.err, re.MULTILINE)


async def test_lines_of_progress_have_their_time(capsys: pytest.CaptureFixture[str]) -> None:
    """Outside of a run nothing is stamped."""
    import asyncio

    with console.stamp_lines():
        async with show_progress(RunStats(5), line_interval=0.001):
            await asyncio.sleep(0.05)
    console.print_info("done")
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"{STAMP} 0 of 5 .*", lines[0])
    assert lines[-1] == "done"
