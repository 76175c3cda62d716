"""What a person expects of the command: answers, counts, lists, variables, and a plain terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from asyncsmtp.testing import ScriptedRelay, Stage
from tests.cli.ended import Command
from tests.cli.serving import serving
from tests.cli.test_bulk import relay_at


def test_the_summary_does_not_contradict_itself(command: Command, campaign: Path) -> None:
    """FT-75: `0 rejected` stood above `3 rejected`: the run is one line, the whole campaign the other."""
    with serving(ScriptedRelay({Stage.RCPT: "550 5.1.1 unknown"})) as relay:
        command("bulk", campaign, *relay_at(relay), "--yes", "--limit", 2)
        ended = command("bulk", campaign, *relay_at(relay), "--yes")
        again = command("bulk", campaign, *relay_at(relay), "--yes")
    assert "news: 1 rejected, in " in ended.err
    assert "\n  in all 3 rows: 3 rejected\n" in ended.err
    assert "news: nothing was sent\n  in all 3 rows: 3 rejected\n" in again.err
    assert " 0 " not in ended.err.partition("news: ")[2]


def test_two_decisions_are_none(command: Command, campaign: Path) -> None:
    """FT-75: `--resend --skip` skipped them."""
    command("bulk", campaign, "--sandbox")
    for words in (("--resend", "--skip"), ("--skip", "--resend", "--yes")):
        ended = command("resolve", campaign, "--sandbox", *words)
        assert (ended.code, ended.sentence) == (2, "--resend and --skip exclude each other")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--row", 77), "there is no row 77: nothing was changed"),
        (("--row", 2), "row 2 is accepted, not in doubt: nothing was changed"),
        (("--row", 1, "--state", "rejected", "--row", 2), "row 2 is accepted, not rejected: nothing was changed"),
    ],
)
def test_a_row_that_is_not_among_them(
    command: Command, campaign: Path, words: tuple[object, ...], sentence: str
) -> None:
    """FT-75: `resolve --row 77` ended with 0 as if something had been decided."""
    with serving(ScriptedRelay({Stage.RCPT: {1: "550 5.1.1 unknown"}})) as relay:
        command("bulk", campaign, *relay_at(relay), "--yes", "--concurrency", 1)
    for decision in ("--skip", "--resend"):
        ended = command("resolve", campaign, decision, "--yes", *words)
        assert (ended.code, ended.sentence) == (2, sentence)
    assert command("status", campaign, "--json").out.count('"pending": 0') == 1


@pytest.mark.parametrize("name", ["gone.db", "gone.txt"])
@pytest.mark.parametrize("words", [("check",), ("bulk", "--dry-run"), ("bulk", "--sandbox")], ids=" ".join)
def test_a_missing_suppression_list_is_found_by_each_check(
    command: Command, campaign: Path, words: tuple[str, ...], name: str
) -> None:
    """FT-75: who checks first must not hear of it when it is time to send."""
    with campaign.open("a", encoding="utf-8") as file:
        file.write(f'suppression = "{name}"\n')
    ended = command(*words, campaign)
    assert ended.code == 2
    assert f"there is no suppression list {name}" in ended.sentence.replace(f"{campaign.parent}/", "")


def test_a_suppression_list_that_cannot_be_read_is_found_by_each_check(command: Command, campaign: Path) -> None:
    """FT-75: not only one that is missing."""
    with campaign.open("a", encoding="utf-8") as file:
        file.write('suppression = "no.csv"\n')
    (campaign.parent / "no.csv").write_text("ann@example.org\nnobody\n", encoding="utf-8")
    for words in (("check",), ("bulk", "--dry-run")):
        ended = command(*words, campaign)
        assert (ended.code, "no.csv, line 2" in ended.sentence) == (2, True)


def test_to_print_a_list_creates_none(command: Command, tmp_path: Path) -> None:
    """FT-75: a misspelt name is an error; --create is the word for a new one."""
    for words in ((), ("--json",), ("ann@example.org", "--remove")):
        ended = command("suppress", "no.db", *words)
        assert (ended.code, ended.sentence[:40]) == (2, "there is no suppression list no.db: corr")
    assert list(tmp_path.iterdir()) == []
    assert command("suppress", "no.db", "--create").err == "no.db: 0 entries\n"
    assert command("suppress", "no.db").out == "address,reason\n"
    command("suppress", "no.db", "ann@example.org")
    assert command("suppress", "no.db", "--create").err == "no.db: 1 entry\n"


def test_a_relay_s_facts_as_json(command: Command, campaign: Path) -> None:
    """FT-75: `check --relay --json` printed text."""
    with serving(ScriptedRelay()) as relay:
        ended = command("check", *relay_at(relay), "--json", "-v")
        both = command("check", campaign, *relay_at(relay), "--json")
    facts = json.loads(ended.out)
    assert facts["relay"] == f"127.0.0.1:{relay.port}"
    assert "PIPELINING" in facts["offers"]
    assert "-> EHLO" in ended.err
    assert json.loads(both.out.splitlines()[0])["TLS"].startswith("none")
    assert all(json.loads(line) for line in both.out.splitlines())


def test_a_campaign_s_own_relay_is_looked_at(command: Command, campaign: Path) -> None:
    """FT-71: with --quit-after, so that it need not be typed again; its file's settings hold."""
    with serving(ScriptedRelay()) as relay:
        with campaign.open("a", encoding="utf-8") as file:
            file.write(f'[relay]\nurl = "{relay_at(relay)[1]}"\nsource_address = "127.0.0.9"\n')
        ended = command("check", campaign, "--quit-after", "ehlo", "-v")
        assert relay.connections == 1
        command("check", campaign)
        assert relay.connections == 1
    assert "C: EHLO [127.0.0.9]" in relay.dialogue
    assert "3 to be mailed" in ended.out


@pytest.mark.parametrize("words", [("check",), ("preview", "--row", "1"), ("bulk", "--dry-run")], ids=" ".join)
def test_the_environment_is_the_same_for_each_command(
    command: Command, campaign: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """FT-75: ASYNCSMTP_RECIPIENTS was obeyed by `bulk` and by nothing else."""
    (campaign.parent / "one.csv").write_text("email,name\nzoe@example.org,Zoë\n", encoding="utf-8")
    monkeypatch.setenv("ASYNCSMTP_RECIPIENTS", "one.csv")
    monkeypatch.setenv("ASYNCSMTP_SUBJECT", "Hello {{ name }}")
    ended = command(*words, campaign)
    assert ended.code in (0, 1), ended.err
    assert "zoe@example.org" in ended.out
    if "preview" in words:
        assert "Hello Zoë" in ended.out


def test_the_environment_names_the_ledger_for_each_command(
    command: Command, campaign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FT-75: the ledger that `bulk` writes is the one that `status`, `results` and `resolve` read."""
    monkeypatch.setenv("ASYNCSMTP_NAME", "other")
    with serving(ScriptedRelay({Stage.RCPT: {1: "550 5.1.1 unknown"}})) as relay:
        command("bulk", campaign, *relay_at(relay), "--yes")
    assert (campaign.parent / "other.ledger").exists()
    assert "1 rejected" in command("status", campaign).out
    assert "5.1.1" in command("results", campaign, "--failed").out
    assert command("resolve", campaign, "--state", "rejected").code == 1
    monkeypatch.setenv("ASYNCSMTP_CONCURRENCY", "many")
    ended = command("status", campaign)
    assert (ended.code, ended.sentence) == (2, "ASYNCSMTP_CONCURRENCY must be a whole number")


def test_a_terminal_without_unicode_gets_plain_signs(command: Command, campaign: Path) -> None:
    """FT-75: with LANG=C every line was full of \\xb7; names that have no plain form are escaped as ever."""
    (campaign.parent / "people.csv").write_text("email,name\nann@example.org,Ann\n,Çid\n", encoding="utf-8")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = [sys.executable, "-m", "asyncsmtp", "bulk", str(campaign), "--sandbox", "--show", "1"]
    ended = subprocess.run(words, env={**os.environ, **plain}, capture_output=True, timeout=30, check=False)
    assert ended.returncode == 1
    printed = (ended.stdout + ended.stderr).decode("ascii")
    assert "2 rows - 1 to be mailed - 1 cannot be mailed" in printed
    assert 'the addresses are in "email"' in printed
    assert "\\x" not in printed
    assert "\\u" not in printed
