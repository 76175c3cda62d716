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
from tests.cli.test_bulk import relay_at


@pytest.fixture
def doubtful(command: Command, campaign: Path) -> Path:
    """A campaign of which two rows are in doubt: the relay took them, and hung up without a word."""
    with serving(ScriptedRelay({Stage.END_OF_DATA: {1: (NO_REPLY, Fin()), 2: (NO_REPLY, Fin())}})) as relay:
        assert command("bulk", campaign, *relay_at(relay), "--yes", "--sessions", 1, "--concurrency", 1).code == 1
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
    assert f"send them again: asyncsmtp resolve {doubtful} --resend\n" in ended.err
    assert f"give them up: asyncsmtp resolve {doubtful} --skip\n" in ended.err
    assert counts(command, doubtful) == {"accepted": 1, "in doubt": 2}


def test_resend_makes_them_pending_and_says_the_worst_first(command: Command, doubtful: Path) -> None:
    """CT-09: how many copies there may be at worst; the next run sends them."""
    ended = command("resolve", doubtful, "--resend", "--yes")
    assert ended.code == 0
    assert "2 rows: each recipient may receive up to 2 copies" in ended.err
    assert counts(command, doubtful) == {"accepted": 1, "pending": 2}
    with serving(ScriptedRelay()) as relay:
        assert command("bulk", doubtful, *relay_at(relay), "--yes").code == 0
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
        command("bulk", campaign, *relay_at(relay), "--yes")
    assert command("resolve", campaign, "--resend", "--state", "rejected", "--yes").code == 0
    with serving(ScriptedRelay()) as relay:
        assert command("bulk", campaign, *relay_at(relay), "--yes").code == 0
    assert len(relay.received) == 1


REPLIES = ("550 5.7.1 blocked by policy", "554 5.2.2 Mailbox full", "550 no such user")  # of ann, bob and cid


@pytest.fixture
def refused(command: Command, campaign: Path) -> Path:
    """A campaign of which each row was rejected in other words."""
    with serving(ScriptedRelay({Stage.RCPT: dict(enumerate(REPLIES, 1))})) as relay:
        assert command("bulk", campaign, *relay_at(relay), "--yes", "--sessions", 1, "--concurrency", 1).code == 1
    return campaign


@pytest.mark.parametrize(
    ("conditions", "chosen"),
    [
        (("--code", 550), [1, 3]),
        (("--code", 550, "--code", 554), [1, 2, 3]),
        (("--code", 551), []),
        (("--enhanced-code", "5.7.1"), [1]),
        (("--enhanced-code", "5.7.1", "--enhanced-code", "5.2.2"), [1, 2]),
        (("--enhanced-code", "5.7.10"), []),
        (("--state", "rejected", "--reply", "MAILBOX"), [2]),
        (("--state", "rejected", "--reply", "user"), [3]),
        (("--state", "rejected", "--reply", "%"), []),
        (("--reply", "user"), []),  # in doubt, if nothing else is said
        (("--state", "rejected", "--since", "1h"), [1, 2, 3]),
        (("--state", "rejected", "--since", "2020-01-01"), [1, 2, 3]),
        (("--state", "rejected", "--since", "2020-01-01T00:00:00+05:00"), [1, 2, 3]),
        (("--state", "rejected", "--since", "2999-12-31 23:59"), []),
        (("--state", "rejected", "--host", "127.0.0.1"), [1, 2, 3]),
        (("--state", "rejected", "--host", "127.0.0.2"), []),
        (("--state", "rejected", "--host", "127.0.0"), []),
        (("--state", "rejected", "--row", 2, "--code", 550), []),
        (("--code", 550, "--row", 3, "--reply", "no such"), [3]),
        (("--halted",), []),
    ],
)
def test_rows_are_chosen_by_what_is_known_of_them(
    command: Command, refused: Path, conditions: tuple[object, ...], chosen: list[int]
) -> None:
    """FT-31: a row must meet all conditions; the list and the decision are about the same rows."""
    listed = command("resolve", refused, *conditions).out
    assert [row for row in (1, 2, 3) if f"row {row}  " in listed] == chosen
    assert command("resolve", refused, *conditions, "--resend", "--yes").code == 0
    assert counts(command, refused).get("pending", 0) == len(chosen)


def test_the_relay_is_chosen_with_its_port_or_without(command: Command, campaign: Path) -> None:
    """FT-31: as `results` shows it."""
    with serving(ScriptedRelay({Stage.RCPT: "550 no"})) as relay:
        command("bulk", campaign, *relay_at(relay), "--yes")
    place = f"127.0.0.1:{relay.port}"
    assert "3 rows rejected" in command("resolve", campaign, "--state", "rejected", "--host", place).out
    assert "no row is rejected among those" in command("resolve", campaign, "--code", 550, "--host", f"{place}0").err


@pytest.mark.parametrize(
    ("condition", "sentence"),
    [
        (("--since", "yesterday"), "--since: “yesterday” is not a time"),
        (("--since", "25:00"), "--since: “25:00” is not a time"),
        (("--since", "\x1b[31m"), "--since: “\\x1b[31m” is not a time"),
        (("--enhanced-code", "5.7"), "--enhanced-code: “5.7” is not an enhanced code"),
        (("--enhanced-code", "550"), "--enhanced-code: “550” is not an enhanced code"),
        (("--code", "5.7.1"), "invalid value for '--code'"),
    ],
)
def test_a_wrong_condition_changes_nothing(
    command: Command, refused: Path, condition: tuple[str, str], sentence: str
) -> None:
    """FT-31: it is named."""
    ended = command("resolve", refused, *condition, "--resend", "--yes")
    assert ended.code == 2
    assert sentence in ended.sentence
    assert counts(command, refused) == {"rejected": 3}


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
