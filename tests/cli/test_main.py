"""The group: what it says without a command, and what its list of commands promises."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib import import_module

import click
import pytest

from asyncsmtp.cli.main import COMMANDS
from tests.cli.ended import Command


def test_without_a_command_it_says_what_to_type(command: Command) -> None:
    """The first run says what is missing and the one command that fixes it."""
    ended = command()
    assert ended.code == 2
    assert "asyncsmtp init demo" in ended.err
    assert ended.out == ""


def test_a_misspelt_command_is_guessed(command: Command) -> None:
    """One clear sentence, with the nearest name."""
    ended = command("blk")
    assert ended.code == 2
    assert ended.sentence == "there is no command “blk”; did you mean “bulk”?"


def test_an_unknown_option_is_one_sentence(command: Command) -> None:
    """click's usage block is not what a person needs first."""
    ended = command("init", "--rwos", "3")
    assert ended.code == 2
    assert "--rwos" in ended.sentence
    assert "next: asyncsmtp init --help" in ended.err


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_command_says_of_itself(name: str) -> None:
    """The list is written by hand so that no command is imported for it; it must not drift."""
    command = import_module(f"asyncsmtp.cli.{name}").command
    assert isinstance(command, click.Command)
    assert command.name == name
    assert (command.help or "").splitlines()[0] == COMMANDS[name]


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_every_help_ends_with_an_example(command: Command, name: str) -> None:
    """`--help` shows what to type, last."""
    ended = command(*filter(None, [name]), "--help")
    assert ended.code == 0
    lines = ended.out.rstrip().splitlines()
    assert lines[-2].strip() == "Example:" or lines[-3].strip() in ("Example:", "Examples:")
    assert lines[-1].strip().startswith(f"asyncsmtp {name}".strip())


def test_python_dash_m_is_the_command() -> None:
    """`python -m asyncsmtp` works where the scripts' folder is not on the path."""
    ended = subprocess.run([sys.executable, "-m", "asyncsmtp", "--version"], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("asyncsmtp 0.")


def test_help_starts_within_150_ms_of_the_bare_interpreter() -> None:
    """A command that is slow to say its options is not used; best of several, the machine is shared."""

    def best_of(*arguments: str) -> float:
        times = []
        for _ in range(5):
            begun = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
            times.append(time.perf_counter() - begun)
        return min(times)

    assert best_of("-m", "asyncsmtp", "--help") - best_of("-c", "pass") < 0.150


def test_help_imports_nothing_heavy() -> None:
    """The cause of a slow start is an import; these are the slow ones."""
    code = "import sys; from asyncsmtp.cli.main import main; main(['--help']); sys.stderr.write(' '.join(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"asyncio", "ssl", "jinja2", "rich", "sqlite3", "aiofiles", "email"} & set(ended.stderr.split())
