"""Every command that is printed as the next step works as it is printed."""

from __future__ import annotations

import re
import shlex
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asyncsmtp.testing import NO_REPLY, Fin, ScriptedRelay, Stage
from tests.cli.ended import Command, Ended
from tests.cli.serving import serving
from tests.cli.test_help import serve

HINT = re.compile(r"^(?: +(?:next|or)|asyncsmtp): .*?\b(asyncsmtp [a-z].*)$", re.MULTILINE)
OPTIONS = ("--recipients", "people.csv", "--text-template", "message.txt", "--from", "a@example.org", "--subject", "Hi")


def hints(ended: Ended) -> list[str]:
    return [command for line in HINT.findall(ended.err) for command in line.split(" && ")]


def follow(command: Command, ended: Ended) -> dict[str, Ended]:
    """Run every command that was printed, and those that are printed then, each once, as a person would copy them."""
    found: dict[str, Ended] = {}
    new = hints(ended)
    while new:
        line = new.pop(0)
        words = shlex.split(line)
        assert words[0] == "asyncsmtp"
        if words[1] == "sandbox" and "--show" not in words:
            assert serve([*words, "--port", "0"]) == 0
            continue
        found[line] = ended = command(*words[1:])
        assert ended.code not in (2, 70), f"{line}\n{ended.err}"
        assert len(found) < 30
        new += [each for each in hints(ended) if each not in found and each not in new]
    return found


@pytest.fixture
def relay() -> Iterator[ScriptedRelay]:
    """The first recipient is unknown, the second one's reply is lost; then everybody is accepted."""
    with serving(
        ScriptedRelay({Stage.RCPT: {1: "550 5.1.1 unknown"}, Stage.END_OF_DATA: {1: (NO_REPLY, Fin())}})
    ) as it:
        yield it


@pytest.fixture
def in_file(campaign: Path, relay: ScriptedRelay, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The campaign with its relay in the file, and nobody to ask."""
    monkeypatch.setenv("ASYNCSMTP_YES", "1")
    with campaign.open("a", encoding="utf-8") as file:
        file.write(f'[relay]\nurl = "smtp://127.0.0.1:{relay.port}?security=none"\nsessions = 1\n')
    return campaign


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--name", "other"),
        ("--ledger", "else where.ledger"),
        ("--name", "it's", "--ledger", "x.ledger"),
        ("--sandbox",),
        ("--sandbox", "--name", "other"),
        ("--email-column", "email", "--rate", "1000/s, 5000/day", "--window", "00:00-24:00"),
    ],
    ids=lambda words: " ".join(words) or "plain",
)
def test_a_campaign_s_hints_are_about_its_own_ledger(command: Command, in_file: Path, words: tuple[str, ...]) -> None:
    """FT-71: after one row of three, what is printed leads to this ledger, and to the end of the campaign."""
    if "it's" in words:
        words = tuple(word.replace("it's", "its") for word in words)
    ended = command("bulk", in_file, "--concurrency", 1, "--limit", 1, *words)
    assert ended.code == 75
    lines = hints(ended)
    assert lines
    found = follow(command, ended)
    assert "--limit 1" in lines[0]
    assert not [line for line, ended in found.items() if "there is no ledger" in ended.err], found
    for _ in range(3):
        follow(command, ended := command(*shlex.split(lines[0])[1:]))
    assert "still to send" not in ended.err


def test_hints_after_a_run_from_options_alone(command: Command, in_file: Path, relay: ScriptedRelay) -> None:
    """FT-71: no campaign file: the ledger is named, and the command is repeated."""
    url = f"smtp://127.0.0.1:{relay.port}?security=none"
    ended = command("bulk", *OPTIONS, "--relay", url, "--limit", 2, "--sessions", 1, "--concurrency", 1)
    found = follow(command, ended)
    assert any("results --ledger people.ledger --failed" in line for line in found), found
    assert any(line.startswith("asyncsmtp resolve --ledger people.ledger --resend") for line in found), found


def test_a_folder_with_a_space_is_quoted(command: Command, in_file: Path) -> None:
    """FT-71: a hint is a line for a shell."""
    folder = in_file.parent.rename(in_file.parent.with_name("my news; $HOME"))
    ended = command("bulk", folder / in_file.name, "--limit", 1, "--dry-run")
    assert hints(ended)[0] == f"asyncsmtp bulk '{folder / in_file.name}' --limit 1 --sandbox"
    follow(command, ended)


def dry_run_with_a_further_file(command: Command, campaign: Path) -> Ended:
    assert command("bulk", campaign).code == 1
    (campaign.parent / "more.csv").write_text("email,name\ndora@example.org,Dora\n", encoding="utf-8")
    ended = command("bulk", campaign, "--dry-run", "--add", "more.csv")
    assert hints(ended) == [f"asyncsmtp bulk {campaign} --add more.csv"]
    return ended


def relay_down(command: Command, campaign: Path) -> Ended:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"smtp://127.0.0.1:{free.getsockname()[1]}?security=none"
    ended = command("bulk", campaign, "--relay", url, "--dialogue", "lockstep")
    assert f"check {campaign} --quit-after login --relay '{url}' --dialogue lockstep -v" in ended.err
    return ended


SITUATIONS: dict[str, Callable[[Command, Path], Ended]] = {
    "status of nothing": lambda command, campaign: command("status", campaign),
    "status of no rehearsal": lambda command, campaign: command("status", campaign, "--sandbox"),
    "results of nothing": lambda command, campaign: command("results", campaign),
    "results of another ledger": lambda command, campaign: command("results", campaign, "--ledger", "x.ledger"),
    "a check": lambda command, campaign: command("check", campaign),
    "a relay's check": lambda command, campaign: command("check", "--relay", "smtp://127.0.0.1:9?security=none"),
    "a dry run": lambda command, campaign: command("bulk", campaign, "--dry-run", "--ledger", "x.ledger"),
    "a dry run of options": lambda command, campaign: command("bulk", *OPTIONS, "--dry-run"),
    "a dry run of more": dry_run_with_a_further_file,
    "a relay that is down": relay_down,
    "no such row": lambda command, campaign: command("preview", campaign, "--row", 77),
    "no command": lambda command, campaign: command(),
    "a sample": lambda command, campaign: command("init", "demo"),
    "an option that is unknown": lambda command, campaign: command("bulk", campaign, "--sandbx"),
    "no mail yet": lambda command, campaign: command("sandbox", "--maildir", "its mails", "--show"),
    "no list": lambda command, campaign: command("bulk", campaign, "--suppression", "gone.db"),
}


@pytest.mark.parametrize("situation", SITUATIONS.values(), ids=SITUATIONS)
def test_what_is_printed_can_be_copied(
    command: Command, in_file: Path, situation: Callable[[Command, Path], Ended]
) -> None:
    """FT-71: each hint is run as it is printed, and those that it leads to."""
    ended = situation(command, in_file)
    assert hints(ended) or ended.code == 69, ended.err
    follow(command, ended)


def test_no_hint_has_a_placeholder(command: Command, in_file: Path) -> None:
    """FT-71: `asyncsmtp check --relay URL` is no command."""
    for ended in (command("status", in_file), command("results", "--ledger", "x.ledger"), relay_down(command, in_file)):
        assert not re.search(r"asyncsmtp .*\b(URL|CAMPAIGN\.toml|NAME)\b", ended.err), ended.err


def test_check_does_not_recommend_itself(command: Command) -> None:
    """FT-71: first with the dialogue, then no further."""
    ended = command("check", "--relay", "smtp://127.0.0.1:9?security=none")
    [line] = hints(ended)
    assert line == "asyncsmtp check --relay 'smtp://127.0.0.1:9?security=none' -v"
    assert hints(command(*shlex.split(line)[1:])) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("bulk", "campaign.toml", "--sandbox", "--only-to", "nobody"), "--only-to: “nobody” is not an e-mail address"),
        (
            ("check", "--relay", "smtp://127.0.0.1:9", "--quit-after", "rcpt", "--to", "x"),
            "--to: “x” is not an e-mail address",
        ),
        (("suppress", "no.db", "nobody"), "“nobody” is not an e-mail address"),
    ],
)
def test_a_wrong_address_in_an_option_is_not_about_recipients(
    command: Command, in_file: Path, words: tuple[str, ...], sentence: str
) -> None:
    """FT-71: what to correct is the option."""
    ended = command(*words)
    assert ended.code == 2
    assert sentence in ended.sentence
    assert "recipients" not in ended.err


@pytest.mark.parametrize(
    "words",
    [
        ("--email-column", "nope"),
        ("--email-column=nope",),
        ("--where", "nope"),
        ("--column", "x=nope"),
        ("--from", "nobody"),
        ("--reply-to", "nobody"),
        ("--return-path", "nobody"),
        ("--time-zone-column", "zone", "--window", "Mon-Sun 00:00-24:00 Mars/Base"),
        ("--rate", "fast"),
    ],
    ids=" ".join,
)
def test_a_wrong_option_is_what_is_to_be_corrected(command: Command, in_file: Path, words: tuple[str, ...]) -> None:
    """FT-71: “correct the recipients” sent people to a file in which nothing was wrong."""
    ended = command("bulk", in_file, "--dry-run", *words)
    assert ended.code == 2
    assert not re.search("next: correct the (recipients|template|message|value)", ended.err), ended.err
    assert any(word.partition("=")[0] in ended.err for word in words if word.startswith("--")) or "option" in ended.err


def test_a_wrong_file_is_what_is_to_be_corrected(command: Command, in_file: Path) -> None:
    """FT-71: the option that names the file is right."""
    (in_file.parent / "other.csv").write_text("email,name\nann@example.org,Ann\n", encoding="utf-8")
    (in_file.parent / "other.txt").write_text("Hello {{ nmae }}\n", encoding="utf-8")
    ended = command("bulk", in_file, "--dry-run", "--recipients", "other.csv", "--text-template", "other.txt")
    assert ended.err.endswith("next: correct the template, then run the same command again\n"), ended.err


def test_resolve_repeats_what_was_chosen(command: Command, in_file: Path) -> None:
    """FT-71: the rows that were listed are those that the printed command changes."""
    command("bulk", in_file, "--concurrency", 1)
    ended = command("resolve", in_file, "--state", "rejected", "--row", 1)
    resend, skip = hints(ended)
    assert resend == f"asyncsmtp resolve {in_file} --state rejected --row 1 --resend"
    assert skip == f"asyncsmtp resolve {in_file} --state rejected --row 1 --skip"
    for line in (skip, resend):
        assert command(*shlex.split(line)[1:]).code == 0


@pytest.mark.parametrize("words", [(), ("--sandbox",), ("--ledger", "x.ledger")], ids=" ".join)
def test_the_step_after_a_decision(command: Command, in_file: Path, words: tuple[str, ...]) -> None:
    """FT-87, FT-71: `resolve --resend` says which command sends them, of this ledger."""
    assert command("bulk", in_file, "--concurrency", 1, *words).code in (0, 1)
    assert command("resolve", in_file, "--resend", "--state", "rejected", "--yes", *words)
    ended = command("resolve", in_file, "--resend", "--state", "in-doubt", "--yes", *words)
    if "--sandbox" not in words:
        assert hints(ended) == [" ".join(["asyncsmtp bulk", str(in_file), *words])]
        follow(command, ended)
        assert command("status", in_file, *words).out == "3 rows: 3 accepted\n"


def test_without_a_campaign_file_the_step_after_a_decision_is_in_words(command: Command, in_file: Path) -> None:
    """FT-87: a ledger alone does not tell what to send; nothing is printed that would not work."""
    command("bulk", in_file, "--concurrency", 1)
    ended = command("resolve", "--ledger", "news.ledger", "--resend", "--yes")
    assert ended.err.endswith("  next: run the command that began the campaign again\n")
