"""The group: what it says without a command, and what its list of commands promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from asyncsmtp.cli.main import COMMANDS, load_command
from tests.cli.ended import Command

ROOT = Path(__file__).parents[2]


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
    command = load_command(name)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert (command.help or "").splitlines()[0] == COMMANDS[name]


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_every_help_ends_with_an_example(command: Command, name: str) -> None:
    """`--help` shows what to type, last."""
    ended = command(*filter(None, [name]), "--help")
    assert ended.code == 0
    examples = re.split(r"^ *Examples?:\n", ended.out, flags=re.MULTILINE)[-1].strip().splitlines()
    assert examples
    assert all(line.strip().startswith(f"asyncsmtp {name}".strip()) for line in examples)


def test_python_dash_m_is_the_command() -> None:
    """`python -m asyncsmtp` works where the scripts' folder is not on the path."""
    ended = subprocess.run([sys.executable, "-m", "asyncsmtp", "--version"], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("asyncsmtp 0.")


def test_help_starts_within_150_ms_of_the_bare_interpreter() -> None:
    """A command that is slow to say its options is not used; CPU time, best of several: the machine is shared."""

    def best_of(*arguments: str) -> float:
        times = []
        for _ in range(5):
            process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            assert process.returncode == 0
            times.append(used.ru_utime + used.ru_stime)
        return min(times)

    assert best_of("-m", "asyncsmtp", "--help") - best_of("-c", "pass") < 0.150


def test_help_imports_nothing_heavy() -> None:
    """The cause of a slow start is an import; these are the slow ones."""
    code = "import sys; from asyncsmtp.cli.main import main; main(['--help']); sys.stderr.write(' '.join(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not ({"asyncio", "ssl", "jinja2", "rich", "sqlite3", "aiofiles", "email"} | EXTRAS) & {*ended.stderr.split()}


EXTRAS = {"starlette", "uvicorn", "watchfiles", "watchdog", "tinycss2", "css_inline", "playwright", "selenium", "httpx"}
EXTRAS |= {"psycopg", "cryptography", "dns", "keyring", "babel", "markupsafe", "asyncsmtp.web"}


def imported_by(*arguments: object, folder: Path | None = None) -> set[str]:
    """Return the modules that the command has imported when it ends."""
    words = [str(each) for each in arguments]
    code = f"import sys; from asyncsmtp.cli.main import main; main({words!r}); print(*sys.modules, file=sys.stderr)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)
    return {*ended.stderr.splitlines()[-1].split()}


@pytest.mark.parametrize("name", ["bulk", "send", "check", "report", "preview", "sandbox", "status", "results"])
def test_help_of_a_command_imports_nothing_heavy(name: str) -> None:
    """Pages, charts and checks are imported by what shows them."""
    assert not (EXTRAS | {"jinja2", "sqlite3", "rich"}) & imported_by(name, "--help")


def test_a_run_imports_no_page_and_no_check(campaign: Path) -> None:
    """`bulk` without --open, of a campaign of a text, needs no extra; its templates take Jinja2."""
    loaded = imported_by("bulk", campaign, "--sandbox", "--yes", folder=campaign.parent)
    assert "jinja2" in loaded
    assert not (EXTRAS - {"markupsafe"}) & loaded
    assert not [name for name in loaded if name.startswith(("asyncsmtp.web.", "asyncsmtp.mail.checks.mail_clients"))]


def test_the_core_has_no_further_dependency() -> None:
    """Pages, charts and the data of mail programs came without one: what they need is in extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = {re.match(r"[\w-]+", each)[0] for each in project["dependencies"]}  # type: ignore[index]
    assert names == {
        "aiofiles",
        "charset-normalizer",
        "click",
        "filetype",
        "idna",
        "jinja2",
        "markdown-it-py",
        "publicsuffixlist",
        "rich",
    }
