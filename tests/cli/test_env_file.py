"""`--env-file`: read only when asked for; what is set wins; a hint keeps it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from asyncsmtp.cli.env_file import read_env_file
from asyncsmtp.cli.output.error_messages import CommandError
from asyncsmtp.testing import ScriptedRelay
from tests.cli.ended import Command
from tests.cli.serving import serving
from tests.cli.test_hints import follow, hints

CANARY = "hunter2-c4n4ry"


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    path.chmod(0o600)
    return path


def test_variables_are_read_when_asked_for(command: Command, campaign: Path, tmp_path: Path) -> None:
    """A .env in the folder alone changes nothing."""
    with serving(ScriptedRelay()) as relay:
        url = f"smtp://127.0.0.1:{relay.port}?security=none"
        write(
            tmp_path / ".env", f"# secrets\nexport ASYNCSMTP_RELAY='{url}'\nASYNCSMTP_NAME=from-env\nASYNCSMTP_YES=1\n"
        )
        ended = command("bulk", campaign)
        assert (ended.code, ended.sentence) == (2, "no relay was given")
        before = dict(os.environ)
        assert command("bulk", campaign, "--env-file", ".env", "--nonsense").code == 2
        assert dict(os.environ) == before
        ended = command("bulk", campaign, "--env-file", ".env")
        assert ended.code == 0, ended.err
        assert dict(os.environ) == before
    assert (tmp_path / "from-env.ledger").exists()
    assert len(relay.received) == 3


@pytest.mark.parametrize("where", ["option", "variable"])
def test_what_is_given_wins(
    command: Command, campaign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """An option, then the environment, then the file of variables, then the campaign file."""
    write(tmp_path / ".env", "ASYNCSMTP_NAME=of-the-file\n")
    assert "of-the-file: 3 accepted" in command("bulk", campaign, "--sandbox", "--env-file", ".env").err
    if where == "variable":
        monkeypatch.setenv("ASYNCSMTP_NAME", "mine")
        monkeypatch.setenv("ASYNCSMTP_ENV_FILE", ".env")
        ended = command("bulk", campaign, "--sandbox")
    else:
        ended = command("bulk", campaign, "--sandbox", "--name", "mine", "--env-file", ".env")
    assert "mine: 3 accepted" in ended.err


def test_a_value_is_taken_as_it_stands(tmp_path: Path) -> None:
    """Passwords have dollars, spaces and marks; `$` and `${…}` are not replaced."""
    text = "\ufeffA=p$w#x\nB='a ${HOME} b'  # remark\nC=\"two\\nlines\"\nexport D = plain \nE=\n\n# F=1\n"
    found = read_env_file(write(tmp_path / ".env", text))
    assert found == {"A": "p$w#x", "B": "a ${HOME} b", "C": "two\nlines", "D": "plain", "E": ""}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"A=1\nPASSWORD {CANARY}\n", 2),
        (f"A=1\n\n\n{CANARY}\n", 4),
        (f"A='{CANARY}\n", 1),
        (f"={CANARY}\n", 1),
        (f"A={CANARY}\0\n", 1),
    ],
    ids=["no sign", "a word", "an open quote", "no name", "NUL"],
)
def test_a_line_that_is_none_is_named_and_not_shown(tmp_path: Path, text: str, line: int) -> None:
    """It may hold a password; a line that was passed over would be a setting that is lost in silence."""
    with pytest.raises(CommandError, match=rf"line {line}: this is not NAME=VALUE") as caught:
        read_env_file(write(tmp_path / ".env", text))
    assert CANARY not in str(caught.value) + caught.value.failure.advice


def test_files_that_cannot_be_read(command: Command, campaign: Path, tmp_path: Path) -> None:
    """One sentence that names the option."""
    (tmp_path / "latin").write_bytes(b"A=\xe9\n")
    (tmp_path / "large").write_bytes(b"#" * 2**20 + b"\n")
    for name, why in {"gone": "no such file", ".": "is a directory", "latin": "not UTF-8", "large": "larger"}.items():
        ended = command("check", campaign, "--env-file", name)
        assert ended.code == 2
        assert ended.sentence.startswith("--env-file: ")
        assert why in ended.sentence


def test_without_the_library(command: Command, campaign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "dotenv", None)
    monkeypatch.setitem(sys.modules, "dotenv.parser", None)
    write(campaign.parent / ".env", "A=1\n")
    ended = command("check", campaign, "--env-file", ".env")
    assert ended.code == 2
    assert "pip install 'asyncsmtp[dotenv]'" in ended.sentence


def test_a_password_that_others_can_read_is_a_warning(command: Command, campaign: Path, tmp_path: Path) -> None:
    """Its name is said, its value never; a file without secrets may be read by everyone."""
    path = write(tmp_path / ".env", f"ASYNCSMTP_PASSWORD={CANARY}\n")
    assert "warning" not in command("check", campaign, "--env-file", path).err
    path.chmod(0o644)
    ended = command("check", campaign, "--env-file", path)
    assert "holds ASYNCSMTP_PASSWORD, and other users can read it" in ended.err
    assert CANARY not in ended.err + ended.out
    write(path, "ASYNCSMTP_NAME=x\n").chmod(0o644)
    assert "warning" not in command("check", campaign, "--env-file", path).err


@pytest.mark.parametrize(
    "words", [("status",), ("results",), ("check",), ("bulk", "--limit", "1", "--sandbox")], ids=" ".join
)
def test_hints_keep_the_file(command: Command, campaign: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    """Without it they would be about another ledger."""
    write(
        tmp_path / "my env", "ASYNCSMTP_NAME=other\nASYNCSMTP_RELAY=smtp://127.0.0.1:9?security=none\nASYNCSMTP_YES=1\n"
    )
    ended = command(words[0], campaign, *words[1:], "--env-file", "my env")
    assert hints(ended)
    assert all("--env-file 'my env'" in line for line in hints(ended)), hints(ended)
    follow(command, ended)
