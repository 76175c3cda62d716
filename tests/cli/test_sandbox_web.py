"""`sandbox --web` and `bulk --sandbox --open`: the page is there while the command runs, and gone afterwards."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from tests.cli.ended import Command


@contextmanager
def running(folder: Path, *words: str) -> Iterator[str]:
    """Run the command until it has printed the address; end it by Ctrl-C, and expect that it ends."""
    env = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")}
    line = [sys.executable, "-m", "asyncsmtp", *words]
    with subprocess.Popen(
        line, cwd=folder, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as run:
        assert run.stderr is not None
        try:
            yield next(found[1] for each in run.stderr if (found := re.search(r"look at them: (http://\S+)", each)))
        finally:
            try:
                run.send_signal(signal.SIGINT)
                _, rest = run.communicate(timeout=30)
            finally:
                run.kill()
    assert run.returncode in (0, 130), rest


def read(address: str) -> str:
    """As a program reads it, with the token."""
    base, _, token = address.partition("/?token=")
    with urlopen(Request(f"{base}/", headers={"Authorization": f"Bearer {token}"})) as answer:
        text: str = answer.read().decode()
        return text


def test_the_mails_of_a_rehearsal(campaign: Path) -> None:
    """They are listed when the run has ended, until Ctrl-C."""
    words = ("bulk", "campaign.toml", "--sandbox", "--yes", "--open")
    with running(campaign.parent, *words) as address:
        for _ in range(300):
            if (page := read(address)).count("<li>") == 3:
                break
        assert page.count("<li>") == 3
        assert "News for Ann" in page
    with pytest.raises(URLError):
        read(address)


CTRL_C_AT_THE_END = """
import os, signal, sys
from asyncsmtp.bulk.running.runner import Run
from asyncsmtp.cli.main import main

run_all = Run.run

async def run(self):
    await run_all(self)
    os.kill(os.getpid(), signal.SIGINT)

Run.run = run
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_when_all_was_sent(campaign: Path) -> None:
    """Nothing is left to stop but the page: it ends, and no second Ctrl-C is waited for."""
    words = [sys.executable, "-c", CTRL_C_AT_THE_END, "bulk", "campaign.toml", "--sandbox", "--yes", "--open"]
    env = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")}
    ended = subprocess.run(words, cwd=campaign.parent, env=env, capture_output=True, text=True, timeout=40)
    assert ended.returncode == 0, ended.stderr
    assert "3 accepted" in ended.stderr
    assert "until Ctrl-C" not in ended.stderr


def test_the_mails_of_any_program(tmp_path: Path) -> None:
    with running(tmp_path, "sandbox", "--port", "0", "--web", "--maildir", "mails") as address:
        assert "No mail yet" in read(address)


def test_options_that_do_not_go_together(command: Command, campaign: Path) -> None:
    ended = command("bulk", campaign, "--open")
    assert ended.code == 2
    assert ended.sentence == "--maildir, --show and --open are about the sandbox"


def test_a_port_that_is_taken(command: Command, tmp_path: Path) -> None:
    """One sentence; the relay does not stay."""
    with running(tmp_path, "sandbox", "--port", "0", "--web") as address:
        port = address.partition("127.0.0.1:")[2].partition("/")[0]
        ended = command("sandbox", "--port", "0", "--web", "--web-port", port)
    assert ended.code == 2
    assert f"port {port} of 127.0.0.1 cannot be used" in ended.sentence


def test_without_the_extra(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, with the command that installs it."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    ended = command("sandbox", "--port", "0", "--web")
    assert ended.code == 2
    assert "pip install 'asyncsmtp[web]'" in ended.sentence
