"""`sandbox`: a relay to send to, and the mails it got."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.cli.ended import Command

ADDRESSED = ("--from", "ada@example.org", "--to", "bob@example.com", "--subject", "Grüße", "--text", "Hallo")


def test_it_keeps_what_it_gets_until_ctrl_c(command: Command, tmp_path: Path) -> None:
    """Its URL is the one line on stdout, for a script; another command sends to it; `--show` prints the mail."""
    words = [sys.executable, "-m", "asyncsmtp", "sandbox", "--port", "0", "--maildir", "kept"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url.startswith("smtp://127.0.0.1:")
            ended = command("send", "--relay", url, *ADDRESSED)
            assert ended.code == 0, ended.err
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=15)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "kept 1 mail in kept" in said
    shown = command("sandbox", "--maildir", "kept", "--show")
    assert shown.code == 0
    assert "Grüße" in shown.out
    assert "Hallo" in shown.out


def test_the_last_ones_are_shown(command: Command) -> None:
    """`--show N`."""
    command("init", "demo", "--rows", 5)
    command("bulk", "demo/campaign.toml", "--sandbox", "--sessions", 1)
    shown = command("sandbox", "--maildir", "demo/welcome.sandbox.maildir", "--show", 2)
    assert shown.out.count("Subject:") == 2


def test_nothing_to_show_is_one_sentence(command: Command, tmp_path: Path) -> None:
    """And no folder is made by looking."""
    ended = command("sandbox", "--maildir", "nothing", "--show")
    assert ended.code == 2
    assert ended.sentence == "no mail has arrived in nothing"
    assert not (tmp_path / "nothing").exists()


def test_a_port_that_is_taken_is_one_sentence(command: Command) -> None:
    """Another sandbox runs, perhaps."""
    words = [sys.executable, "-m", "asyncsmtp", "sandbox", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip().removesuffix("?security=none").rpartition(":")[2]
            ended = command("sandbox", "--port", port)
        finally:
            process.kill()
    assert ended.code == 2
    assert f"port {port}" in ended.sentence
    assert "--port 0" in ended.err
