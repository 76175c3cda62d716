"""What every test of the command uses: the command itself, run here, with its two streams read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncsmtp.cli.main import main
from tests.cli.ended import Command, Ended

if TYPE_CHECKING:
    from tests.interop.postgres import Postgres

CAMPAIGN = """\
[campaign]
name = "news"
from = "Example News <news@example.org>"
subject = "News for {{ name }}"
recipients = "people.csv"
text = "message.txt"
"""


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Run `asyncsmtp` with these arguments in an empty folder; no traceback may ever be printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err + printed.out
        return Ended(code, printed.out, printed.err)

    return run


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    """A small campaign: three people, a text."""
    (tmp_path / "people.csv").write_text(
        "email,name\nann@example.org,Ann\nbob@example.org,Bob\ncid@example.org,Cid\n", encoding="utf-8"
    )
    (tmp_path / "message.txt").write_text("Hello {{ name }}\n", encoding="utf-8")
    path = tmp_path / "campaign.toml"
    path.write_text(CAMPAIGN, encoding="utf-8")
    return path


@pytest.fixture
def shared(campaign: Path, postgres: Postgres) -> Path:
    """The campaign, with its ledger in the database."""
    campaign.write_text(f'{CAMPAIGN}ledger = "{postgres.url}"\n', encoding="utf-8")
    return campaign
