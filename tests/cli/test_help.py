"""The examples that the help ends with are run, in the order of the commands."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncsmtp.cli.main import COMMANDS, load_command
from asyncsmtp.testing import ScriptedRelay
from tests.cli.ended import Command
from tests.cli.serving import serving


def examples(command: Command) -> Iterator[str]:
    """Every line below “Example:”, from the group's help to the last command's."""
    for name in ("", *COMMANDS):
        text = command(*filter(None, [name]), "--help").out
        yield from map(str.strip, re.split(r"^ *Examples?:\n", text, flags=re.MULTILINE)[-1].strip().splitlines())


def test_the_help_lists_every_command(command: Command) -> None:
    """With what it does."""
    lines = [" ".join(line.split()) for line in command("--help").out.splitlines()]
    for name, text in COMMANDS.items():
        assert any(line.startswith(f"{name} {text.split()[0]}") for line in lines), name


def test_every_example_runs(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copied from the help, each ends well; where one names the port of a relay, ours is put."""
    with serving(ScriptedRelay()) as relay:
        monkeypatch.setenv("ASYNCSMTP_RELAY", f"smtp://127.0.0.1:{relay.port}?security=none")
        lines = list(examples(command))
        assert len(lines) > len(COMMANDS)
        for line in lines:
            if "postgresql://" in line:  # of an example: tests/cli/test_workers.py has a database
                continue
            words = shlex.split(line.partition(" > ")[0].replace("127.0.0.1:2525", f"127.0.0.1:{relay.port}"))
            if words[1] == "status":
                assert command("bulk", "demo/campaign.toml", "--yes").code == 0
            ended = serve(words) if words[1] == "sandbox" else command(*words[1:]).code
            assert ended == 0, line


def serve(words: list[str]) -> int:
    """A sandbox runs until Ctrl-C; any free port will do."""
    arguments = [word.replace("2525", "0") for word in words[1:]]
    with subprocess.Popen([sys.executable, "-m", "asyncsmtp", *arguments], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"smtp://127.0.0.1:")
            process.send_signal(signal.SIGINT)
            return process.wait(15)
        finally:
            process.kill()


def test_every_option_says_what_it_is_for(command: Command) -> None:
    """A name alone explains itself only to who gave it."""
    for name in COMMANDS:
        for option in load_command(name).params:
            if option.param_type_name == "option" and not option.hidden:
                assert option.help, f"{name} {option.name}"
