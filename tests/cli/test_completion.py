"""`completion`: the scripts for the shells, and what they ask the command; `bulk --help` in groups."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from asyncsmtp.cli.commands.bulk import command as bulk
from asyncsmtp.cli.main import COMMANDS
from tests.cli.ended import Command

BASH = shutil.which("bash")


def complete(words: str, number: int) -> list[str]:
    """Ask the command as bash does."""
    environment = os.environ | {"_ASYNCSMTP_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(number)}
    code = "from asyncsmtp.cli.main import main; main([])"
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return [line.partition(",")[2] for line in ended.stdout.splitlines()]


def test_commands_options_and_choices_are_completed() -> None:
    """From the same tree of commands as the help."""
    assert complete("asyncsmtp ", 1) == list(COMMANDS)
    assert complete("asyncsmtp re", 1) == ["results", "report", "resolve"]
    assert complete("asyncsmtp bulk --sum", 2) == ["--summary"]
    assert complete("asyncsmtp bulk --in-doubt ", 3) == ["hold", "resend"]
    assert complete("asyncsmtp completion ", 2) == ["bash", "zsh", "fish"]
    assert "--text" not in complete("asyncsmtp bulk --te", 2)


def test_completing_a_command_imports_none() -> None:
    """Whoever presses Tab waits for it."""
    code = "import sys; from asyncsmtp.cli.main import asyncsmtp as group; import click; "
    code += "group.shell_complete(click.Context(group), 'b'); print(' '.join(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "asyncsmtp.cli.commands.bulk" not in ended.stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(command: Command, shell: str) -> None:
    """It asks this command."""
    ended = command("completion", shell)
    assert (ended.code, ended.err) == (0, "")
    assert f"_ASYNCSMTP_COMPLETE={shell}_complete" in ended.out
    assert f"next: asyncsmtp completion {shell}" not in ended.out


def test_an_unknown_shell_is_one_sentence(command: Command) -> None:
    """The shells that are known are named."""
    ended = command("completion", "tcsh")
    assert ended.code == 2
    assert "'bash', 'zsh', 'fish'" in ended.sentence


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
def test_bash_takes_the_script(command: Command, tmp_path: Path) -> None:
    """What the script makes bash complete, after `asyncsmtp stat`."""
    assert BASH is not None
    (tmp_path / "asyncsmtp.bash").write_text(command("completion", "bash").out, "utf-8")
    (tmp_path / "asyncsmtp").write_text(f'#!/bin/sh\nexec {sys.executable} -m asyncsmtp "$@"\n', "utf-8")
    (tmp_path / "asyncsmtp").chmod(0o755)
    script = "source ./asyncsmtp.bash; COMP_WORDS=(asyncsmtp stat); COMP_CWORD=1; "
    script += '_asyncsmtp_completion ./asyncsmtp stat asyncsmtp; echo "${COMPREPLY[@]}"'
    paths = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    environment = os.environ | {"PATH": paths, "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run([BASH, "-c", script], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert (ended.stdout.split(), ended.stderr) == (["status"], "")


def test_the_options_of_bulk_are_in_groups(command: Command) -> None:
    """Every option once, below a heading; what belongs together stands together."""
    text = command("bulk", "--help").out
    sections = dict(re.findall(r"^(\w[\w ]+):\n((?:  .*\n)+)", text, re.MULTILINE))
    assert list(sections)[:7] == [
        "Message and recipients", "Relay", "Limits and times", "Retries", "This run", "Rehearsal", "Output",
    ]  # fmt: skip
    assert "--relay URL" in sections["Relay"]
    assert "--summary FILE" in sections["Output"]
    assert "--help" in sections["Options"]
    for each in bulk.params:
        if isinstance(each, click.Option) and not each.hidden:
            name = next(name for name in each.opts if name.startswith("--"))
            assert len(re.findall(rf"^  (?:-\w, )?{name}\b(?!-)", text, re.MULTILINE)) == 1, name
