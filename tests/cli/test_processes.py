"""`bulk --processes`: Ctrl-C, the dialogue, standard input, and the ledgers, over several processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asyncsmtp.testing import DEFAULT_REPLY, ScriptedRelay, Stage, Wait
from tests.cli.ended import Command
from tests.cli.serving import serving
from tests.cli.test_bulk import relay_at, running, wait_for
from tests.interop.postgres import Postgres
from tests.kill.processes import list_children

pytestmark = pytest.mark.timeout(120)


def write_people(campaign: Path, number: int) -> None:
    people = "".join(f"p{row}@example.org,P{row}\n" for row in range(number))
    (campaign.parent / "people.csv").write_text("email,name\n" + people, encoding="utf-8")


def wait_until_gone(pids: list[int], parent: int) -> None:
    end = time.monotonic() + 10
    while set(list_children(parent)) & set(pids):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_interruption_drains_all_of_them(command: Command, campaign: Path) -> None:
    """BL-16: Ctrl-C is for the command alone; what is under way is finished in each process, nothing is in doubt."""
    write_people(campaign, 200)
    script = {Stage.DATA: (Wait(0.02), DEFAULT_REPLY)}
    words = ("--yes", "--sessions", 2, "--concurrency", 4, "--processes", 2)
    with serving(ScriptedRelay(script)) as relay, running("bulk", campaign, *relay_at(relay), *words) as process:
        wait_for(lambda: len(relay.received) > 3, process)
        children = list_children(process.pid)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert len(children) == 2
    assert process.returncode == 130, said
    assert "finishing what is under way" in said
    counts = json.loads(command("status", campaign, "--json").out)
    assert counts["accepted"] == len(relay.received) < 200
    assert counts["in doubt"] == counts["sending"] == 0
    with serving(ScriptedRelay()) as rest:
        assert command("bulk", campaign, *relay_at(rest), "--yes").code == 0
    assert len(relay.received) + len(rest.received) == 200


def test_a_second_interruption_aborts_them(command: Command, campaign: Path) -> None:
    """BL-16: a message whose reply has not come is in doubt, the others are pending; no process stays."""
    words = ("--yes", "--sessions", 2, "--processes", 2, "--concurrency", 1)
    with (
        serving(ScriptedRelay({Stage.END_OF_DATA: (Wait(30),)})) as relay,
        running("bulk", campaign, *relay_at(relay), *words) as process,
    ):
        wait_for(lambda: relay.count_stage(Stage.END_OF_DATA) > 0, process)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert any("finishing" in line for line in iter(process.stderr.readline, ""))
        children = list_children(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    wait_until_gone(children, process.pid)
    counts = json.loads(command("status", campaign, "--json").out)
    assert (counts["in doubt"], counts["pending"]) == (1, 2)


def test_their_dialogue_and_their_end_are_printed(command: Command, campaign: Path) -> None:
    """-v prints what they say to the relay; one that is killed is reported in one sentence."""
    write_people(campaign, 60)
    script = {Stage.DATA: (Wait(0.05), DEFAULT_REPLY)}
    words = ("--yes", "-v", "--sessions", 2, "--processes", 2)
    with serving(ScriptedRelay(script)) as relay, running("bulk", campaign, *relay_at(relay), *words) as process:
        wait_for(lambda: len(relay.received) > 5, process)
        killed, _ = list_children(process.pid)
        subprocess.run(["kill", "-KILL", str(killed)], check=True)
        _, said = process.communicate(timeout=60)
    assert "MAIL FROM:<news@example.org>" in said
    assert "a process that sends ended with SIGKILL" in said
    assert "the run goes on with 1" in said
    assert "Traceback" not in said
    counts = json.loads(command("status", campaign, "--json").out)
    assert counts["accepted"] + counts["in doubt"] == 60
    assert process.returncode == (1 if counts["in doubt"] else 0)


def test_recipients_from_standard_input(campaign: Path) -> None:
    """They are saved first, and the other processes read what was saved."""
    with serving(ScriptedRelay()) as relay:
        words = ["bulk", campaign, "--recipients", "-", *relay_at(relay), "--yes", "--processes", "2"]
        ended = subprocess.run(
            [sys.executable, "-m", "asyncsmtp", *map(str, words)],
            input="email,name\nann@example.org,Ann\nbob@example.org,Bob\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr
    assert len(relay.received) == 2


def test_a_rehearsal(command: Command, campaign: Path) -> None:
    """`--sandbox` takes what all of them send."""
    write_people(campaign, 20)
    ended = command("bulk", campaign, "--sandbox", "--processes", 2)
    assert ended.code == 0, ended.err
    assert "20 accepted" in ended.err


def test_a_ledger_in_a_database(command: Command, campaign: Path, postgres: Postgres) -> None:
    """The process of the run has the connection, whatever the ledger is."""
    write_people(campaign, 30)
    with serving(ScriptedRelay()) as relay:
        words = ("--yes", "--ledger", postgres.url, "--processes", 2)
        assert command("bulk", campaign, *relay_at(relay), *words).code == 0
    assert len(relay.received) == 30


@pytest.mark.parametrize("number", ["0", "two", "-1"])
def test_the_number_is_checked(command: Command, campaign: Path, number: str) -> None:
    ended = command("bulk", campaign, "--yes", "--processes", number)
    assert ended.code == 2
    assert "--processes" in ended.sentence
