"""The commands and programs of docs/howto/workers.md run against a database, in the order of the page."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from asyncsmtp.testing import ScriptedRelay
from tests.interop.postgres import Postgres
from tests.pages import DOCS, blocks
from tests.test_pages import execute, running

PAGE = DOCS / "howto" / "workers.md"
URL = "postgresql://mail@db.example.com/mail"
ROWS = 30


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A campaign, as the page has it: news.toml, and another in news/campaign.toml."""
    for path, name in ((tmp_path / "news.toml", "news"), (tmp_path / "news" / "campaign.toml", "jobs")):
        path.parent.mkdir(exist_ok=True)
        people = "".join(f"person{row}@example.org\n" for row in range(ROWS))
        path.with_name("people.csv").write_text(f"email\n{people}", "utf-8")
        path.write_text(
            f'[campaign]\nname = "{name}"\nfrom = "news@example.org"\nsubject = "News"\nrecipients = "people.csv"\n'
            'text = "message.txt"\n[relay]\nurl = "smtp://127.0.0.1:25?security=none"\n',
            "utf-8",
        )
        path.with_name("message.txt").write_text("Hello\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=50)


def test_each_command_runs(folder: Path, postgres: Postgres) -> None:
    """`--watch` is left out, since it stays; the first block sends everything."""
    commands = [line for block in blocks(PAGE) if block.language == "sh" for line in block.text.splitlines()]
    assert len(commands) > 6
    with running(ScriptedRelay()) as relay:
        toml = folder / "news.toml"
        toml.write_text(toml.read_text("utf-8").replace(":25?", f":{relay.port}?"), "utf-8")
        for line in commands:
            words = shlex.split(line.replace(URL, postgres.url).replace(" --watch", ""))
            ended = run(*words)
            assert ended.returncode == 0, f"{line}: {ended.stderr}"
    counted = run("asyncsmtp", "status", "news.toml", "--ledger", postgres.url, "--json")
    assert json.loads(counted.stdout)["accepted"] == ROWS == len(relay.received)


def test_each_program_runs(folder: Path, postgres: Postgres) -> None:
    """With the database's address, and in the place of `...` what an application does there."""
    programs = [block.text for block in blocks(PAGE) if block.language == "python"]
    assert len(programs) > 2
    begin = "import procrastinate\nfrom asyncsmtp import Campaign\nfrom asyncsmtp.bulk import ProcrastinateJobs\n"
    begin += f"url = {postgres.url!r}\n"
    opened = "await app.open_async()\nawait app.schema_manager.apply_schema_async()"
    with running(ScriptedRelay()) as relay:
        for toml in folder.rglob("*.toml"):
            toml.write_text(toml.read_text("utf-8").replace(":25?", f":{relay.port}?"), "utf-8")
        for text in programs:
            execute(begin + text.replace("/srv/campaigns", str(folder)).replace("\n...\n", f"\n{opened}\n"))
    assert len(relay.received) == ROWS
