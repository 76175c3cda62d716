"""What works on a system without POSIX modules, as Windows: all that needs no ledger; the rest says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from asyncsmtp.testing.plugin import RelayInThread

WITHOUT = "import sys; sys.modules.update(dict.fromkeys(['fcntl', 'grp', 'pwd', 'resource', 'termios'])); "
COMMAND = "from asyncsmtp.cli.main import main; sys.exit(main(sys.argv[1:]))"


def run(program: str, *words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT + program, *map(str, words)],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    assert run(COMMAND, "init", "demo", cwd=tmp_path).returncode == 0
    return tmp_path / "demo" / "campaign.toml"


def test_the_library_sends(smtp_relay: RelayInThread, tmp_path: Path) -> None:
    """By `send` and by a pool."""
    program = (
        "import asyncio, asyncsmtp\n"
        "async def main():\n"
        "    message = asyncsmtp.build(from_='a@example.org', to='b@example.org', subject='x', text='y')\n"
        "    assert await asyncsmtp.send(message, relay=sys.argv[1])\n"
        "    async with asyncsmtp.Pool(sys.argv[1]) as pool:\n"
        "        assert await pool.send(message)\n"
        "asyncio.run(main())"
    )
    ended = run(program, smtp_relay.url, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(smtp_relay.wait_for(2)) == 2


@pytest.mark.parametrize("words", [("preview", "--row", "1"), ("bulk", "--dry-run")], ids=" ".join)
def test_commands_without_a_ledger_run(words: tuple[str, ...], campaign: Path) -> None:
    command, *options = words
    ended = run(COMMAND, command, campaign, *options, cwd=campaign.parent)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("words", [("bulk", "--sandbox", "--yes"), ("status",), ("results", "--sandbox")], ids=" ".join)
def test_a_ledger_says_what_it_needs(words: tuple[str, ...], campaign: Path) -> None:
    """One sentence with what to do, and nothing was sent."""
    command, *options = words
    ended = run(COMMAND, command, campaign, *options, cwd=campaign.parent)
    assert ended.returncode == 74
    assert "use the Windows Subsystem for Linux" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list(campaign.parent.glob("*.maildir/new/*"))
