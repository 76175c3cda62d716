"""Runs a page of docs/ from top to bottom, as a reader would: files are written, commands and programs are run.

The words after the opening fence say what is done with a block, in one folder, in the order of the page:

- a file name: the block is written to that file
- `sh`: run by bash, which must end with 0; with `terminal N` it runs in the background until the end of the page
- `sh relay`: the same, with a relay that demands STARTTLS and a login in the place of the provider
- `console`: each line after `$` is run; the lines below it are among those that it prints
- `toml` without a name: it is read as a campaign file
- `python` without a name: run as a program
- `text crontab`: the command of each line is run as cron does
- `text`: a listing for people, not run; `sh docker`: needs a Docker daemon, not run
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from asyncsmtp.bulk.setup.config import read_campaign_file

__all__ = ["DOCS", "GUIDES", "Block", "blocks", "kinds", "run_page"]

DOCS = Path(__file__).parent.parent / "docs"
GUIDES = (
    "tutorials/spreadsheet.md",
    "tutorials/fastapi.md",
    "tutorials/cron.md",
    "howto/addresses.md",
    "howto/switching.md",
    "howto/deployment.md",
    "howto/faq.md",
    "howto/browser.md",
)
_BLOCK = re.compile(r"^```(\w+|\{\w+\})(?: ([^\n]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PORT = re.compile(r"--port (\d+)")
SECONDS = 200  # for one command, on a loaded machine


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the words after it, its text, and the line where it begins."""

    language: str
    words: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page."""
    text = page.read_text(encoding="utf-8")
    assert text.count("\n```") + text.startswith("```") == 2 * len(_BLOCK.findall(text)), "a fence without a language"
    return [
        Block(found[1], found[2] or "", found[3], text[: found.start()].count("\n") + 1)
        for found in _BLOCK.finditer(text)
    ]


def kinds(page: Path) -> set[str]:
    """Return the languages of the blocks of a page."""
    return {block.language for block in blocks(page)}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        assert isinstance(port, int)
        return port


def run_page(page: Path, folder: Path, relay: Mapping[str, str]) -> None:
    """Run the page in a folder, with other ports for background commands; `relay` is the environment of `sh relay`."""
    found = blocks(page)
    words: dict[str, str] = {}
    for block in found:
        if block.words.startswith("terminal"):
            words |= {port: str(free_port()) for port in _PORT.findall(block.text)}
    home = folder / "home"
    home.mkdir()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "HOME": str(home), "XDG_STATE_HOME": str(home / "state")}
    work = folder / "work"
    work.mkdir()
    (home / "nightly").symlink_to(work / "nightly")  # a page may work in the home folder
    with ExitStack() as background:
        for block in found:
            text = block.text
            for word, other in words.items():
                text = re.sub(rf"(?<![\w.]){re.escape(word)}(?![\w.])", other, text)
            try:
                here = env | relay if block.words == "relay" else env
                _run(Block(block.language, block.words, text, block.line), work, here, background)
            except AssertionError as error:
                raise AssertionError(f"{page.name}, line {block.line}: {error}") from None


def _run(block: Block, work: Path, env: dict[str, str], background: ExitStack) -> None:
    match block.language, block.words:
        case "sh", words if words.startswith("terminal"):
            background.enter_context(_running(block.text, work, env))
        case "sh", "docker":
            pass
        case "sh", "" | "relay":
            _shell(block.text, work, env)
        case "console", "":
            for shown in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
                line, _, output = shown.partition("\n")
                printed = [each.strip() for each in _shell(line, work, env).splitlines()]
                missing = [each for each in output.splitlines() if each.strip() and each.strip() not in printed]
                assert not missing, f"{missing} is not among {printed}"
        case "python" | "py", "":
            _command([sys.executable, "-W", "error", "-c", block.text], work, env)
        case "toml", "":
            (work / "block.toml").write_text(block.text, encoding="utf-8")
            assert read_campaign_file(work / "block.toml")
        case "text", "crontab":
            for line in block.text.splitlines():
                command = line.split(None, 5)[5]
                for script in work.rglob("*.sh"):
                    script.chmod(0o755)
                _command(["/bin/sh", "-c", command], work, env)
        case ("text", "") | ("{toctree}" | "{include}", _):
            pass
        case _, name:
            assert re.fullmatch(r"[\w./-]+", name), f"a block of an unknown kind: {block.language} {name}"
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_text(block.text, encoding="utf-8")


def _shell(text: str, work: Path, env: dict[str, str]) -> str:
    return _command(["bash", "-euo", "pipefail", "-c", text], work, env)


def _command(words: list[str], work: Path, env: dict[str, str]) -> str:
    done = subprocess.run(
        words,
        cwd=work,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{words[-1]} ended with {done.returncode}: {done.stdout}"
    return done.stdout


@contextmanager
def _running(text: str, work: Path, env: dict[str, str]) -> Iterator[None]:
    """Run a server until the end of the block, once it listens."""
    with (work / "background.log").open("ab") as log:
        process = subprocess.Popen(["bash", "-euc", f"exec {text}"], cwd=work, env=env, stdout=log, stderr=log)
    try:
        for port in map(int, _PORT.findall(text)):
            until = time.monotonic() + SECONDS
            while not _listens(port):
                assert process.poll() is None, (work / "background.log").read_text()
                assert time.monotonic() < until, f"nothing listens on {port}"
                time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


if shutil.which("bash") is None:  # pragma: no cover
    raise RuntimeError("the pages need bash")
