"""`resolve`: nothing goes twice without a person's word."""

from __future__ import annotations

import json
import os
import pty
import select
import sys
from pathlib import Path

import pytest

from asyncsmtp.testing import NO_REPLY, Fin, ScriptedRelay, Stage
from tests.cli.ended import Command
from tests.cli.serving import serving


def url(relay: ScriptedRelay) -> tuple[str, str]:
    return "--relay", f"smtp://127.0.0.1:{relay.port}?security=none"


@pytest.fixture
def doubtful(command: Command, campaign: Path) -> Path:
    """A campaign of which two rows are in doubt: the relay took them, and hung up without a word."""
    with serving(ScriptedRelay({Stage.END_OF_DATA: {1: (NO_REPLY, Fin()), 2: (NO_REPLY, Fin())}})) as relay:
        assert command("bulk", campaign, *url(relay), "--yes", "--sessions", 1, "--concurrency", 1).code == 1
        assert len(relay.received) == 3
    return campaign


def counts(command: Command, campaign: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads(command("status", campaign, "--json").out)
    return {state: number for state, number in found.items() if number}


def test_without_a_decision_it_lists_them(command: Command, doubtful: Path) -> None:
    """With the Message-ID, to be looked for in the relay's log; nothing is changed."""
    ended = command("resolve", doubtful)
    assert ended.code == 1
    assert "2 rows in doubt:" in ended.out
    assert "row 1  ann@example.org  <" in ended.out
    assert "@example.org>" in ended.out
    assert "--resend, or --skip" in ended.err
    assert counts(command, doubtful) == {"accepted": 1, "in doubt": 2}


def test_resend_makes_them_pending_and_says_the_worst_first(command: Command, doubtful: Path) -> None:
    """CT-09: how many copies there may be at worst; the next run sends them."""
    ended = command("resolve", doubtful, "--resend", "--yes")
    assert ended.code == 0
    assert "2 rows: each recipient may receive up to 2 copies" in ended.err
    assert counts(command, doubtful) == {"accepted": 1, "pending": 2}
    with serving(ScriptedRelay()) as relay:
        assert command("bulk", doubtful, *url(relay), "--yes").code == 0
    assert len(relay.received) == 2


def test_skip_gives_them_up(command: Command, doubtful: Path) -> None:
    """They count as rejected, by a person, and are not sent."""
    assert command("resolve", doubtful, "--skip", "--yes").code == 0
    assert counts(command, doubtful) == {"accepted": 1, "rejected": 2}
    assert "skipped by a person" in command("results", doubtful, "--failed").out


def test_some_rows_only(command: Command, doubtful: Path) -> None:
    """`--row N`, as the list numbers them."""
    ended = command("resolve", doubtful, "--resend", "--row", 2, "--yes")
    assert "1 row: each recipient may receive up to" in ended.err
    assert counts(command, doubtful) == {"accepted": 1, "in doubt": 1, "pending": 1}


def test_a_second_time_there_is_nothing_to_decide(command: Command, doubtful: Path) -> None:
    """CT-09: the command twice is the command once."""
    command("resolve", doubtful, "--resend", "--yes")
    ended = command("resolve", doubtful, "--resend", "--yes")
    assert ended.code == 0
    assert "no row is in doubt" in ended.err


def test_rejected_rows_can_be_tried_again(command: Command, campaign: Path) -> None:
    """After the mailbox was made, or the block lifted."""
    with serving(ScriptedRelay({Stage.RCPT: {1: "550 5.1.1 no such user"}})) as relay:
        command("bulk", campaign, *url(relay), "--yes")
    assert command("resolve", campaign, "--resend", "--state", "rejected", "--yes").code == 0
    with serving(ScriptedRelay()) as relay:
        assert command("bulk", campaign, *url(relay), "--yes").code == 0
    assert len(relay.received) == 1


def test_without_a_terminal_it_needs_yes(command: Command, doubtful: Path) -> None:
    """A script that decides must say so."""
    ended = command("resolve", doubtful, "--resend")
    assert ended.code == 2
    assert "add --yes" in ended.err
    assert counts(command, doubtful)["in doubt"] == 2


@pytest.mark.parametrize(
    ("answer", "left"), [(b"yes\n", {"accepted": 1, "pending": 2}), (b"\n", {"accepted": 1, "in doubt": 2})]
)
def test_on_a_terminal_it_asks(command: Command, doubtful: Path, answer: bytes, left: dict[str, int]) -> None:
    """CT-09, in a real (pseudo-)terminal: the worst case stands above the question."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "asyncsmtp", "resolve", str(doubtful), "--resend"])
    shown = b""
    while b"[y/N]" not in shown:
        assert select.select([terminal], [], [], 15)[0], shown
        shown += os.read(terminal, 4096)
    assert b"2 rows: each recipient may receive up to" in shown
    os.write(terminal, answer)
    os.waitpid(pid, 0)
    os.close(terminal)
    assert counts(command, doubtful) == left
