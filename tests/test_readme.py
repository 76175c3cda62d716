"""The README is true: its commands and programs are run unchanged, and its tables are those of the code."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asyncsmtp.bulk.setup.config import read_campaign_file
from asyncsmtp.cli.output.error_messages import ExitCode
from asyncsmtp.testing import ScriptedRelay

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall(README)
ADDRESS = "localhost:2525"  # stands for the reader's relay


def blocks(language: str) -> list[str]:
    return [text for marked, text in BLOCKS if marked == language]


@pytest.fixture
async def relay() -> AsyncIterator[ScriptedRelay]:
    """The relay at the README's localhost:2525."""
    async with ScriptedRelay() as running:
        yield running


async def run(relay: ScriptedRelay, folder: Path, *words: str) -> str:
    """Run a program with the README's address replaced by the relay's; it must end well."""
    here = [word.replace(ADDRESS, f"{relay.host}:{relay.port}") for word in words]
    process = await asyncio.create_subprocess_exec(
        *here,
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    """A block that is not run is wrong sooner or later."""
    assert {marked for marked, _ in BLOCKS} == {"sh", "console", "toml", "python"}
    assert README.count("```") == 2 * len(BLOCKS)


def test_there_are_exactly_two_commands_to_set_up() -> None:
    """Each is one line and complete; the run on a fresh clone executes them word for word."""
    commands = blocks("sh")
    assert len(commands) == 2
    assert all(command.startswith("python3 -m venv .venv && ") and command.count("\n") == 1 for command in commands)


@pytest.mark.parametrize("program", blocks("python"))
async def test_each_program_runs_as_it_stands(program: str, relay: ScriptedRelay, tmp_path: Path) -> None:
    """Copied from the page, it sends to the relay it names."""
    said = await run(relay, tmp_path, sys.executable, "-W", "error", "-c", program)
    assert "accepted" in said
    assert relay.received


async def test_each_command_runs_as_it_stands(relay: ScriptedRelay, tmp_path: Path) -> None:
    """In the order of the page, in one folder; the lines below a command are among those that it prints."""
    shown = [
        block.partition("\n")[::2] for text in blocks("console") for block in re.split(r"^\$ ", text, flags=re.M)[1:]
    ]
    assert len(shown) >= 5
    for line, output in shown:
        printed = await run(relay, tmp_path, "bash", "-c", line)
        assert {*output.splitlines()} <= {*printed.splitlines()}
    assert relay.received[-1].email["Subject"] == "Hello"


async def test_the_dialogue_is_shown_from_220_to_221(relay: ScriptedRelay, tmp_path: Path) -> None:
    """The page promises every line of it."""
    (line,) = [
        line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ asyncsmtp send")
    ]
    said = await run(relay, tmp_path, "bash", "-c", line)
    shown = re.findall(r"\b(220|EHLO|MAIL|RCPT|DATA|354|QUIT|221)\b", said)
    assert list(dict.fromkeys(shown)) == ["220", "EHLO", "MAIL", "RCPT", "DATA", "354", "QUIT", "221"]


def test_the_campaign_file_has_no_key_that_is_unknown(tmp_path: Path) -> None:
    """The file can be copied from the page."""
    (text,) = blocks("toml")
    (tmp_path / "campaign.toml").write_text(text, encoding="utf-8")
    assert read_campaign_file(tmp_path / "campaign.toml")["campaign.name"] == "november-news"


def test_the_exit_codes_are_the_program_s() -> None:
    """Scripts are written from this table; 70 is a bug and promised to nobody."""
    table = README.partition("### Exit codes")[2].partition("###")[0]
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert told == {code.value for code in ExitCode} - {ExitCode.BUG}
