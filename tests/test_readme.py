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


@pytest.mark.timeout(300)
@pytest.mark.slow
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


def test_figures_beside_another_program_say_what_bounds_them() -> None:
    """FT-77: the rate of a C program is that of the server where that is the limit; CPU of both sides is given."""
    table = README.partition("## Speed and memory")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")
    ]
    rates = [row for row in rows if "messages/s" in row[0] and "smtp-source" in row[2]]
    assert [(row[0].partition("; ")[2], row[3]) for row in rates] == [("the server is the limit", "–")]
    cpu = [row for row in rows if "CPU µs a message" in row[0] and "smtp-source" in row[2]]
    assert [[float(re.findall(r"[0-9.]+", cell)[0]) for cell in row[1:]] for row in cpu] == [[63, 45, 1.4]]
    assert "is faster where the processor of the client is the\nlimit" in table


def test_a_rate_beside_a_python_program_has_its_cpu_below_it() -> None:
    """FT-77: one session, and the whole command: messages a second, then the CPU time of both."""
    table = README.partition("## Speed and memory")[2].partition("\n## ")[0]
    names = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    for name in ("one session, ready-made messages of 1 KB, messages/s", "the whole command, 20,000 rows"):
        [at] = [number for number, each in enumerate(names) if each.startswith(name)]
        assert names[at + 1].startswith("the same, CPU µs a message")


def test_every_figure_says_what_bounds_it() -> None:
    """FT-77: no figure is a promise for another machine."""
    text = " ".join(README.partition("## Speed and memory")[2].partition("\n## ")[0].split())
    for words in (
        "A rate is bounded by what is slowest",
        "Your figures will differ",
        "measures asyncsmtp on your machine",
    ):
        assert words in text


def test_the_exit_codes_are_the_program_s() -> None:
    """Scripts are written from this table; 70 is a bug and promised to nobody."""
    table = README.partition("### Exit codes")[2].partition("###")[0]
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert told == {code.value for code in ExitCode} - {ExitCode.BUG}
