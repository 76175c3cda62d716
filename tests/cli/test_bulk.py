"""`bulk`: the main job, from the file to the exit code."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from asyncsmtp.bulk.ledger.interfaces import RowState, Settlement
from asyncsmtp.bulk.ledger.sqlite.store import SqliteLedger
from asyncsmtp.testing import DEFAULT_REPLY, NO_REPLY, Fin, Rule, ScriptedRelay, Stage, StageContext, Wait
from tests.cli.ended import Command
from tests.cli.serving import serving


def relay_at(relay: ScriptedRelay) -> tuple[str, str]:
    return "--relay", f"smtp://127.0.0.1:{relay.port}?security=none"


def refusing(**replies: str) -> Mapping[Stage, Rule]:
    """A script that answers RCPT by the local part."""

    def rule(context: StageContext) -> str | None:
        return next((reply for local, reply in replies.items() if f"<{local}@".encode() in context.line), None)

    return {Stage.RCPT: rule}


def test_the_campaign_says_by_which_way(command: Command, campaign: Path) -> None:
    """From which address, and to which hosts: the first is gone, and one dead host costs no row."""
    with serving(ScriptedRelay({Stage.GREETING: "421 4.3.2 not now"})) as gone, serving(ScriptedRelay()) as relay:
        url = f"smtp://127.0.0.1:{gone.port},127.0.0.1:{relay.port}?security=none"
        with campaign.open("a", encoding="utf-8") as file:
            file.write(f'\n[relay]\nurl = "{url}"\nsource_address = "127.0.0.9"\n')
        ended = command("bulk", campaign, "--yes")
    assert ended.code == 0, ended.err
    assert len(relay.received) == 3
    assert "C: EHLO [127.0.0.9]" in relay.dialogue
    assert gone.connections == 1


def one_by_one(campaign: Path, relay: ScriptedRelay) -> tuple[object, ...]:
    """The command over one session, with one message in hand."""
    return "bulk", campaign, *relay_at(relay), "--yes", "--sessions", 1, "--concurrency", 1


def test_a_connection_is_replaced_after_so_many_messages(command: Command, campaign: Path) -> None:
    """--max-per-connection: it says QUIT, another follows, and every message arrives."""
    with serving(ScriptedRelay()) as relay:
        assert command(*one_by_one(campaign, relay), "--max-per-connection", 2).code == 0
    assert (len(relay.received), relay.connections, relay.dialogue.count("C: QUIT")) == (3, 2, 2)


@contextmanager
def running(*words: object) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, which does not outlive the block."""
    with subprocess.Popen(
        [sys.executable, "-m", "asyncsmtp", *map(str, words)], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait while the process lives; it and the relay are elsewhere, so there is no event to await."""
    while not condition():
        assert process.poll() is None
        time.sleep(0.002)


def test_everyone_gets_a_message_of_their_own(command: Command, campaign: Path) -> None:
    """The main job: three rows, three messages, exit 0, the summary."""
    with serving(ScriptedRelay()) as relay:
        ended = command("bulk", campaign, *relay_at(relay), "--yes")
    assert ended.code == 0, ended.err
    assert {message.forward_paths for message in relay.received} == {
        ("ann@example.org",),
        ("bob@example.org",),
        ("cid@example.org",),
    }
    assert {message.email["Subject"] for message in relay.received} == {"News for Ann", "News for Bob", "News for Cid"}
    assert "news: 3 accepted" in ended.err
    assert "sent" not in ended.err  # a 2yz reply is accepted, not delivered


def test_options_alone_do(command: Command, campaign: Path) -> None:
    """No campaign file: the same job, and the ledger beside the recipients."""
    with serving(ScriptedRelay()) as relay:
        ended = command(
            *("bulk", "--recipients", "people.csv", "--text-template", "message.txt", "--yes", *relay_at(relay)),
            *("--from", "Ada <ada@example.org>", "--subject", "Hi {{ name }}"),
        )
    assert ended.code == 0, ended.err
    assert relay.received[0].reverse_path == "ada@example.org"
    assert (campaign.parent / "people.ledger").exists()


def test_the_environment_goes_before_the_file_and_an_option_before_both(
    command: Command, campaign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later wins."""
    with serving(ScriptedRelay()) as relay:
        monkeypatch.setenv("ASYNCSMTP_RELAY", relay_at(relay)[1])
        monkeypatch.setenv("ASYNCSMTP_SUBJECT", "from the environment")
        monkeypatch.setenv("ASYNCSMTP_FROM", "env@example.org")
        assert command("bulk", campaign, "--yes", "--from", "option@example.org").code == 0
    assert relay.received[0].email["Subject"] == "from the environment"
    assert relay.received[0].reverse_path == "option@example.org"


def test_a_refused_row_never_stops_the_run(command: Command, campaign: Path) -> None:
    """The others are accepted; the exit code and the summary say that not all were, in the relay's words."""
    with serving(ScriptedRelay(refusing(bob="550 5.1.1 no such user"))) as relay:
        ended = command("bulk", campaign, *relay_at(relay), "--yes")
    assert ended.code == 1
    assert len(relay.received) == 2
    assert "1 × 550 5.1.1 no such user (127.0.0.1:" in ended.err
    assert f"next: who was rejected, and why: asyncsmtp results {campaign} --failed" in ended.err


def test_running_it_again_resumes(command: Command, campaign: Path) -> None:
    """A deferred row ends with 75, is tried again by the same command, and nobody else is."""
    with serving(ScriptedRelay(refusing(bob="451 4.3.0 later"))) as relay:
        ended = command("bulk", campaign, *relay_at(relay), "--yes", "--retry-delay", "0s")
    assert ended.code == 75
    assert f"next: deferred: 1; go on: asyncsmtp bulk {campaign} --relay" in ended.err
    with serving(ScriptedRelay()) as relay:
        ended = command("bulk", campaign, *relay_at(relay), "--yes")
        assert ended.code == 0
        assert [message.forward_paths for message in relay.received] == [("bob@example.org",)]
        assert command("bulk", campaign, *relay_at(relay), "--yes").code == 0  # nothing left: no connection
        assert relay.connections == 1


def test_a_deferred_row_is_not_tried_before_its_time(command: Command, campaign: Path) -> None:
    """BL-20: who starts the command again too early is told when, and no connection is made; status knows it too."""
    with serving(ScriptedRelay(refusing(bob="451 4.7.1 greylisted"))) as relay:
        ended = command("bulk", campaign, *relay_at(relay), "--yes", "--retry-delay", "1h")
        assert ended.code == 75
        assert "deferred: 1; the first is due at " in ended.err
        assert ", in 1 h" in ended.err
        before = relay.connections
        again = command("bulk", campaign, *relay_at(relay))  # nobody is asked, for nothing would be sent
        assert (again.code, relay.connections) == (75, before)
        assert "or: wait for that: asyncsmtp bulk " in again.err
    assert "the first is due at " in command("status", campaign).err
    assert "2 accepted · 1 deferred" in ended.err


def test_wait_stays_until_everybody_has_a_final_outcome(command: Command, campaign: Path) -> None:
    """The relay greylists each recipient once: one command, no error, nobody counted twice."""
    met: set[bytes] = set()

    def greylist(context: StageContext) -> str | None:
        if context.line in met:
            return None
        met.add(context.line)
        return "451 4.7.1 greylisted"

    with serving(ScriptedRelay({Stage.RCPT: greylist})) as relay:
        ended = command("bulk", campaign, *relay_at(relay), "--yes", "--wait", "--retry-delay", "0.2s")
    assert ended.code == 0, ended.err
    assert len(relay.received) == 3
    assert "news: 3 accepted, in " in ended.err
    assert {row["attempts"] for row in results(command, campaign)} == {2}


def test_what_is_refused_for_too_long_is_given_up(command: Command, campaign: Path) -> None:
    """T10: attempts are used up: rejected, with the relay's words and ours."""
    with serving(ScriptedRelay(refusing(bob="451 4.3.0 later"))) as relay:
        words = ("--yes", "--wait", "--retry-delay", "0.1s", "--attempts", 3)
        ended = command("bulk", campaign, *relay_at(relay), *words)
    assert ended.code == 1, ended.err
    (bob,) = [row for row in results(command, campaign) if row["state"] == "rejected"]
    assert (bob["attempts"], bob["code"], bob["reply"]) == (3, 451, "given up after attempt 3: 4.3.0 later")


def test_time_for_further_attempts_is_limited(command: Command, campaign: Path) -> None:
    """--retry-for: the next refusal after that long is the last."""
    with serving(ScriptedRelay(refusing(bob="451 4.3.0 later"))) as relay:
        words = ("--yes", "--wait", "--retry-delay", "0.2s", "--retry-for", "0.1s")
        ended = command("bulk", campaign, *relay_at(relay), *words)
    assert ended.code == 1, ended.err
    (bob,) = [row for row in results(command, campaign) if row["state"] == "rejected"]
    assert (bob["attempts"], bob["reply"]) == (2, "given up after attempt 2: 4.3.0 later")


def test_a_day_s_quota_ends_the_run_and_the_next_one_remembers_it(command: Command, campaign: Path) -> None:
    """`--rate`: 75 and the time at which the same command goes on."""
    with serving(ScriptedRelay()) as relay:
        ended = command("bulk", campaign, *relay_at(relay), "--yes", "--rate", "50/s, 2/day")
        assert (ended.code, len(relay.received)) == (75, 2), ended.err
        assert "still to send: 1; the first is due at " in ended.err
        again = command("bulk", campaign, *relay_at(relay), "--yes", "--rate", "50/s, 2/day")
        assert (again.code, len(relay.received)) == (75, 2)
        assert "or: wait for that: asyncsmtp bulk " in again.err
        assert command("bulk", campaign, *relay_at(relay), "--yes").code == 0
        assert len(relay.received) == 3


def test_a_closed_window_sends_nothing_and_says_when_it_opens(command: Command, campaign: Path) -> None:
    now = datetime.now(UTC)
    later = f"{now + timedelta(hours=2):%H}:00-{now + timedelta(hours=3):%H}:00 UTC"
    with serving(ScriptedRelay()) as relay:
        ended = command("bulk", campaign, *relay_at(relay), "--yes", "--window", later)
    assert (ended.code, relay.received) == (75, [])
    assert "still to send: 3; the first is due at " in ended.err


def test_messages_are_spread_over_the_time_that_is_given(command: Command, campaign: Path) -> None:
    """Also from a start that is waited for."""
    start = datetime.now().astimezone() + timedelta(seconds=0.5)
    words = ("--start-at", start.isoformat(), "--spread-until", (start + timedelta(seconds=1.5)).isoformat())
    with serving(ScriptedRelay()) as relay:
        ended = command("bulk", campaign, *relay_at(relay), "--yes", *words)
    assert ended.code == 0, ended.err
    assert datetime.now().astimezone() >= start + timedelta(seconds=0.9)  # three messages, half a second apart


def results(command: Command, campaign: Path, *words: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in command("results", campaign, "--json", *words).out.splitlines()]


def test_a_deferred_row_weighs_more_than_a_rejected_one(command: Command, campaign: Path) -> None:
    """CT-07: 75 says that running again helps; once it does not, 1 says that some failed."""
    with serving(ScriptedRelay(refusing(ann="550 5.1.1 no", bob="451 4.3.0 later"))) as relay:
        assert command("bulk", campaign, *relay_at(relay), "--yes", "--retry-delay", "0s").code == 75
    with serving(ScriptedRelay()) as relay:
        assert command("bulk", campaign, *relay_at(relay), "--yes").code == 1


def test_a_lost_reply_is_in_doubt_and_held(command: Command, campaign: Path) -> None:
    """BL-05: the relay takes the message and hangs up; nothing goes twice unless a person decides otherwise."""
    script: Mapping[Stage, Rule] = {Stage.END_OF_DATA: {2: (NO_REPLY, Fin())}}
    with serving(ScriptedRelay(script)) as relay:
        ended = command("bulk", campaign, *relay_at(relay), "--yes", "--sessions", 1, "--concurrency", 1)
        assert ended.code == 1
        assert "1 in doubt" in ended.err
        assert f"asyncsmtp resolve {campaign}" in ended.err
        assert command("bulk", campaign, *relay_at(relay), "--yes").code == 1
    assert len(relay.received) == 3


def test_a_limit_stops_and_the_same_command_goes_on(command: Command, campaign: Path) -> None:
    """FT-70: `--limit` is for feeling one's way; 75 says that not everybody was mailed."""
    with serving(ScriptedRelay()) as relay:
        ended = command("bulk", campaign, *relay_at(relay), "--yes", "--limit", 2)
        assert ended.code == 75
        assert "next: still to send: 1; go on: asyncsmtp bulk " in ended.err
        assert command("bulk", campaign, *relay_at(relay), "--yes").code == 0
    assert len(relay.received) == 3


def test_a_dry_run_composes_everything_and_opens_nothing(
    command: Command, campaign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TF-16: no socket, no ledger, and never the word sent for what was only rendered."""

    def refuse(*_: object) -> None:
        raise AssertionError("a dry run connected")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    ended = command("bulk", campaign, "--dry-run", "--relay", "smtp://127.0.0.1:1")
    assert ended.code == 0
    assert "3 rows · 3 to be mailed" in ended.out
    assert "nothing was sent" in ended.err
    assert not list(campaign.parent.glob("*.ledger*"))


def test_json_is_one_object_a_result(command: Command, campaign: Path) -> None:
    """NDJSON on stdout for a program, everything human on stderr."""
    with serving(ScriptedRelay(refusing(bob="550 5.1.1 no such user"))) as relay:
        ended = command("bulk", campaign, *relay_at(relay), "--yes", "--json")
    results = {record["email"]: record for record in map(json.loads, ended.out.splitlines())}
    assert results["ann@example.org"]["state"] == "accepted"
    assert results["bob@example.org"]["state"] == "rejected"
    assert results["bob@example.org"]["code"] == 550
    assert results["bob@example.org"]["status"] == "5.1.1"
    assert len(results) == 3


def test_json_leaves_the_mails_it_shows_to_people(command: Command, campaign: Path) -> None:
    """`--show` beside `--json`: every line of stdout is an object still."""
    ended = command("bulk", campaign, "--sandbox", "--json", "--show", "1")
    assert len([json.loads(line) for line in ended.out.splitlines()]) == 3
    assert "Message-ID:" in ended.err


def test_the_dialogue_can_be_watched(command: Command, campaign: Path) -> None:
    """-v shows it on stderr, marked as swaks does."""
    with serving(ScriptedRelay()) as relay:
        ended = command("bulk", campaign, *relay_at(relay), "--yes", "-v")
    assert "<-  220 " in ended.err
    assert " -> MAIL FROM:<news@example.org>" in ended.err
    assert "<-  221 " in ended.err


def test_only_to_sends_a_row_to_me_and_opens_no_ledger(command: Command, campaign: Path) -> None:
    """Somebody's data, my mailbox; the campaign is as it was."""
    with serving(ScriptedRelay()) as relay:
        ended = command("bulk", campaign, *relay_at(relay), "--only-to", "me@example.com")
        assert ended.code == 0, ended.err
        ended = command("bulk", campaign, *relay_at(relay), "--only-to", "me@example.com", "--limit", 2, "--yes")
    assert ended.code == 0
    assert {message.forward_paths for message in relay.received} == {("me@example.com",)}
    assert [message.email["Subject"] for message in relay.received] == ["News for Ann", "News for Ann", "News for Bob"]
    assert "row 2 (bob@example.org), to me@example.com: accepted" in ended.out
    assert not list(campaign.parent.glob("*.ledger*"))


@pytest.mark.parametrize(("reply", "code"), [("550 5.1.1 no such user", 1), ("450 4.2.1 later", 75)])
def test_only_to_somebody_who_is_refused_is_not_success(
    command: Command, campaign: Path, reply: str, code: int
) -> None:
    with serving(ScriptedRelay(refusing(me=reply))) as relay:
        ended = command("bulk", campaign, *relay_at(relay), "--only-to", "me@example.com")
    assert ended.code == code
    assert reply in ended.out


def test_strict_sends_nothing_if_a_row_is_odd(command: Command, campaign: Path) -> None:
    """Without it the row is reported and the others are mailed."""
    people = campaign.parent / "people.csv"
    people.write_text(people.read_text() + "not an address,Dan\n", encoding="utf-8")
    with serving(ScriptedRelay()) as relay:
        ended = command("bulk", campaign, *relay_at(relay), "--yes", "--strict")
        assert ended.code == 2
        assert "row 4" in ended.sentence
        assert relay.connections == 0
        ended = command("bulk", campaign, *relay_at(relay), "--yes")
    assert ended.code == 1
    assert "row 4 (line 5)" in ended.err
    assert len(relay.received) == 3


def test_without_a_terminal_nothing_leaves_unasked(command: Command, campaign: Path) -> None:
    """CT-06: count, sender and first address are told; --yes is what it takes."""
    with serving(ScriptedRelay()) as relay:
        ended = command("bulk", campaign, *relay_at(relay))
    assert ended.code == 2
    assert relay.connections == 0
    assert "3 messages from Example News <news@example.org>" in ended.sentence
    assert "the first to ann@example.org" in ended.sentence
    assert "add --yes" in ended.err


@pytest.mark.parametrize(("answer", "code", "received"), [(b"y\n", 0, 3), (b"n\n", 2, 0), (b"\x03", 130, 0)])
@pytest.mark.slow
def test_on_a_terminal_a_person_is_asked_once(
    command: Command, campaign: Path, answer: bytes, code: int, received: int
) -> None:
    """CT-06, FT-75, in a real (pseudo-)terminal; no and Ctrl-C leave everything as it was; a no is no interruption."""
    with serving(ScriptedRelay()) as relay:
        words = [sys.executable, "-m", "asyncsmtp", "bulk", str(campaign), *relay_at(relay)]
        pid, terminal = pty.fork()
        if pid == 0:
            os.execv(sys.executable, words)
        shown = b""
        while b"[y/N]" not in shown:
            assert select.select([terminal], [], [], 15)[0], shown
            shown += os.read(terminal, 4096)
        os.write(terminal, answer)
        try:
            while more := os.read(terminal, 4096):
                shown += more
        except OSError:  # the other end is gone: all was read
            pass
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == code, shown
    assert len(relay.received) == received
    assert b"3 messages from Example News <news@example.org>" in shown
    assert (b"interrupted" in shown) == (code == 130)
    assert (b"nothing was sent: the answer was not" in shown) == (code == 2)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.slow
def test_an_interruption_drains_and_the_same_command_goes_on(
    command: Command, campaign: Path, number: signal.Signals, code: int
) -> None:
    """BL-16: what is under way is finished and recorded, the rest is pending, nothing is in doubt."""
    people = "".join(f"p{row}@example.org,P{row}\n" for row in range(200))
    (campaign.parent / "people.csv").write_text("email,name\n" + people, encoding="utf-8")
    with (
        serving(ScriptedRelay({Stage.DATA: (Wait(0.02), DEFAULT_REPLY)})) as relay,
        running(*one_by_one(campaign, relay)) as process,
    ):
        wait_for(lambda: bool(relay.received), process)
        process.send_signal(number)
        _, said = process.communicate(timeout=15)
    assert process.returncode == code
    assert "finishing what is under way" in said
    assert "still to send" in said
    counts = json.loads(command("status", campaign, "--json").out)
    assert counts["accepted"] == len(relay.received) < 200
    assert counts["in doubt"] == counts["sending"] == 0
    with serving(ScriptedRelay()) as rest:
        assert command("bulk", campaign, *relay_at(rest), "--yes").code == 0
    assert len(relay.received) + len(rest.received) == 200


@pytest.mark.parametrize("sessions", [1, 3])
def test_an_interruption_gives_back_the_rows_that_wait(command: Command, campaign: Path, sessions: int) -> None:
    """FT-74: 100 rows have a slot and wait for a session; what is in progress is printed, and nothing else is sent."""
    people = "".join(f"p{row}@example.org,P{row}\n" for row in range(300))
    (campaign.parent / "people.csv").write_text("email,name\n" + people, encoding="utf-8")
    script = {Stage.END_OF_DATA: (Wait(0.3), DEFAULT_REPLY)}
    with serving(ScriptedRelay(script)) as relay:
        words = ("bulk", campaign, *relay_at(relay), "--yes", "--sessions", sessions, "--concurrency", 100)
        with running(*words) as process:
            wait_for(lambda: relay.count_stage(Stage.END_OF_DATA) >= sessions, process)
            before = relay.count_stage(Stage.END_OF_DATA)
            process.send_signal(signal.SIGINT)
            _, printed = process.communicate(timeout=30)
    assert process.returncode == 130
    assert len(relay.received) <= before + 3 * sessions
    assert re.search(
        r"\n\S+   \d message(s|) in progress, for up to 60 s; the rows that have not begun stay pending\n", printed
    )
    counts = json.loads(command("status", campaign, "--json").out)
    assert counts["accepted"] == len(relay.received)
    assert counts["pending"] == 300 - counts["accepted"]


def test_a_second_interruption_aborts_and_reports_who_is_in_doubt(command: Command, campaign: Path) -> None:
    """BL-16: a message whose reply has not come is in doubt, and never pending again by itself."""
    with (
        serving(ScriptedRelay({Stage.END_OF_DATA: (Wait(30),)})) as relay,
        running(*one_by_one(campaign, relay)) as process,
    ):
        wait_for(lambda: relay.count_stage(Stage.END_OF_DATA) > 0, process)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert any("finishing" in line for line in iter(process.stderr.readline, ""))
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 130
    counts = json.loads(command("status", campaign, "--json").out)
    assert counts["in doubt"] == 1
    assert counts["pending"] == 2


def test_a_reader_who_leaves_does_not_end_the_run(command: Command, campaign: Path) -> None:
    """CT-05: `asyncsmtp bulk … --json | head -0` still mails everyone."""
    reading, writing = os.pipe()
    os.close(reading)
    with serving(ScriptedRelay()) as relay:
        words = [sys.executable, "-m", "asyncsmtp", "bulk", str(campaign), *relay_at(relay), "--yes", "--json"]
        ended = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, timeout=15)
    os.close(writing)
    assert ended.returncode == 0, ended.stderr
    assert len(relay.received) == 3


@pytest.mark.slow
def test_a_second_process_on_the_same_campaign_sends_nothing(command: Command, campaign: Path) -> None:
    """BL-11: it ends with 75 at once, and the first goes on undisturbed."""
    script: Mapping[Stage, Rule] = {Stage.END_OF_DATA: {1: (Wait(1.0), DEFAULT_REPLY)}}
    with serving(ScriptedRelay(script)) as relay, running(*one_by_one(campaign, relay)) as process:
        wait_for(lambda: relay.count_stage(Stage.END_OF_DATA) > 0, process)
        with serving(ScriptedRelay()) as other:
            ended = command("bulk", campaign, *relay_at(other), "--yes")
        assert process.wait(15) == 0
    assert ended.code == 75
    assert f"pid {process.pid}" in ended.sentence
    assert other.connections == 0


@pytest.mark.slow
def test_a_report_that_cannot_be_written_does_not_stop_the_mails(command: Command, campaign: Path) -> None:
    """Everyone is mailed and recorded; the exit code says that what was printed is not all."""
    with serving(ScriptedRelay()) as relay, open("/dev/full", "wb") as full:
        words = [sys.executable, "-m", "asyncsmtp", "bulk", str(campaign), *relay_at(relay), "--yes", "--json"]
        ended = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=15)
    assert ended.returncode == 74, ended.stderr
    assert len(relay.received) == 3
    assert "3 accepted" in ended.stderr
    assert json.loads(command("status", campaign, "--json").out)["accepted"] == 3


def test_on_a_terminal_the_bar_leaves_the_results_to_their_file(campaign: Path) -> None:
    """`--json > results.ndjson` with a bar on the terminal: each goes where it belongs."""
    ours, theirs = pty.openpty()
    with serving(ScriptedRelay()) as relay, open(campaign.parent / "results.ndjson", "wb") as results:
        words = [sys.executable, "-m", "asyncsmtp", "bulk", str(campaign), *relay_at(relay), "--yes", "--json"]
        with subprocess.Popen(words, stdout=results, stderr=theirs, env=os.environ | {"TERM": "xterm"}) as process:
            os.close(theirs)
            drawn = b""
            try:
                while octets := os.read(ours, 65536):
                    drawn += octets
            except OSError:  # the other end is gone: all was read
                pass
    os.close(ours)
    assert process.returncode == 0
    assert len((campaign.parent / "results.ndjson").read_bytes().splitlines()) == 3
    assert b'"state"' not in drawn
    assert b"3 accepted" in drawn


@pytest.mark.slow
def test_rows_under_way_in_a_killed_run_are_reported(command: Command, campaign: Path) -> None:
    """With in_doubt = resend it is sent once more, with hold it waits for a person; either way it is said."""
    for policy, code, said in (("hold", 1, "those in doubt: asyncsmtp resolve"), ("resend", 0, "to be sent once more")):
        for leftover in campaign.parent.glob("news.ledger*"):
            leftover.unlink()
        with (
            serving(ScriptedRelay({Stage.END_OF_DATA: (Wait(30),)})) as relay,
            running(*one_by_one(campaign, relay)) as process,
        ):
            wait_for(lambda: relay.count_stage(Stage.END_OF_DATA) > 0, process)
            process.kill()
            process.wait(15)
        with serving(ScriptedRelay()) as relay:
            ended = command("bulk", campaign, *relay_at(relay), "--yes", "--in-doubt", policy)
        assert ended.code == code
        assert "1 row under way when the last run ended: in doubt" in ended.err
        assert said in ended.err
        assert len(relay.received) == (2 if policy == "hold" else 3)


def test_a_template_may_include_another_and_a_change_of_that_counts(command: Command, campaign: Path) -> None:
    """TF-06, TF-10: from the campaign's folder only, and part of the fingerprint."""
    footer = campaign.parent / "footer.txt"
    footer.write_text("Bye, {{ name }}\n", encoding="utf-8")
    (campaign.parent / "message.txt").write_text("Hello\n{% include 'footer.txt' %}", encoding="utf-8")
    with serving(ScriptedRelay()) as relay:
        assert command("bulk", campaign, *relay_at(relay), "--yes", "--limit", 1).code == 75
        footer.write_text("Farewell, {{ name }}\n", encoding="utf-8")
        ended = command("bulk", campaign, *relay_at(relay), "--yes")
    assert relay.received[0].email.get_content().split() == ["Hello", "Bye,", "Ann"]
    assert ended.code == 2
    assert "footer.txt changed" in ended.sentence


def test_a_campaign_may_be_for_some_rows_only(command: Command, campaign: Path) -> None:
    """`--where`, `--offset`; another condition on the second run is another campaign (TF-10)."""
    with serving(ScriptedRelay()) as relay:
        ended = command("bulk", campaign, *relay_at(relay), "--yes", "--where", "name != 'Bob'", "--offset", 1)
        assert ended.code == 0, ended.err
        assert "3 rows · 1 to be mailed · 2 left out" in ended.err
        assert [message.forward_paths for message in relay.received] == [("cid@example.org",)]
        assert command("bulk", campaign, *relay_at(relay), "--yes").code == 2
    assert "there is no column “nom”" in command("bulk", campaign, "--dry-run", "--where", "nom == 'x'").sentence


def test_a_certain_row_s_message_comes_to_me(command: Command, campaign: Path) -> None:
    with serving(ScriptedRelay()) as relay:
        words = ("bulk", campaign, *relay_at(relay), "--only-to", "me@example.net")
        assert command(*words, "--row", 2).code == 0
        assert "people.csv has no row 9" in command(*words, "--row", 9).sentence
    (message,) = relay.received
    assert (message.forward_paths, "Bob" in str(message.email)) == (("me@example.net",), True)
    assert "--row needs --only-to" in command("bulk", campaign, "--row", 2).sentence


def test_markdown_is_html_and_text_and_what_is_missing_is_made(command: Command, campaign: Path) -> None:
    """One file for both parts; or an HTML file with a style sheet, and a text that is made of it."""
    (campaign.parent / "message.md").write_text("# Hello {{ name }}\n\nSome *news*.\n", encoding="utf-8")
    html = "<style>p { color: red }</style><p>Hello {{ name }}</p>"
    (campaign.parent / "message.html").write_text(html, encoding="utf-8")
    settings = campaign.read_text("utf-8")
    for template in ('html = "message.md"', 'html = "message.html"\ntext_from_html = true\ninline_styles = true'):
        campaign.write_text(settings.replace('text = "message.txt"', template), encoding="utf-8")
        with serving(ScriptedRelay()) as relay:
            ended = command("bulk", campaign, *relay_at(relay), "--only-to", "me@example.org")
        assert ended.code == 0, ended.err
        text, page = (part.get_content() for part in relay.received[0].email.iter_parts())
        assert "Hello Ann" in text
        assert "<" not in text
        assert ("<h1>Hello Ann</h1>" in page) or ('<p style="color: red;">Hello Ann</p>' in page)
    (campaign.parent / "message.md").write_text("# Hello\n\n{{ nom }}\n", encoding="utf-8")
    campaign.write_text(settings.replace('text = "message.txt"', 'html = "message.md"'), encoding="utf-8")
    assert "message.md, line 3" in command("bulk", campaign, "--dry-run").sentence


def test_a_campaign_through_several_relays(command: Command, campaign: Path) -> None:
    """FT-32: `[[relays]]`: where one is gone the others take its messages, and it is said, also by the exit code."""
    with serving(ScriptedRelay({Stage.GREETING: "421 4.3.2 gone"})) as gone, serving(ScriptedRelay()) as relay:
        others = "".join(
            f'[[relays]]\nurl = "smtp://127.0.0.1:{one.port}?security=none"\nsessions = 1\n' for one in (gone, relay)
        )
        campaign.write_text(campaign.read_text("utf-8") + others, encoding="utf-8")
        ended = command("bulk", campaign, "--yes")
        assert ended.code == 69, ended.err
        assert len(relay.received) == 3
        assert gone.connections == 1
        dead, alive = (f"127.0.0.1:{each.port}" for each in (gone, relay))
        assert f"the relay {dead} cannot be used; its messages go through the others" in ended.err
        assert f"by {alive}: 3 accepted" in ended.err
        assert f"{dead} cannot be used: the relay refused the greeting: 421 4.3.2 gone" in ended.err
        assert command("bulk", campaign, "--yes").code == 0  # nothing is left, so none of them is asked
    asked = command("bulk", campaign, "--name", "again").err
    assert f"127.0.0.1:{gone.port} and 127.0.0.1:{relay.port}" in asked


def test_several_relays_are_counted_apart(command: Command, campaign: Path) -> None:
    """FT-32: in the summary, in `status` and by `results`; one that is alone is not named."""
    people = "".join(f"reader{n}@example.org,Reader {n}\n" for n in range(20))
    (campaign.parent / "people.csv").write_text(f"email,name\n{people}")
    with serving(ScriptedRelay({Stage.RCPT: {3: "550 5.1.1 no"}})) as one, serving(ScriptedRelay()) as two:
        alone = campaign.parent / "alone.toml"
        alone.write_text(campaign.read_text("utf-8").replace("news", "alone"), encoding="utf-8")
        assert "by 127.0.0.1" not in command("bulk", alone, *relay_at(two), "--yes").err
        assert "by 127.0.0.1" not in command("status", alone).out
        others = "".join(f'[[relays]]\nurl = "smtp://127.0.0.1:{each.port}?security=none"\n' for each in (one, two))
        campaign.write_text(campaign.read_text("utf-8") + others, encoding="utf-8")
        ended = command("bulk", campaign, "--yes")
    assert ended.code == 1, ended.err
    lines = [f"by 127.0.0.1:{one.port}: 9 accepted · 1 rejected", f"by 127.0.0.1:{two.port}: 10 accepted"]
    results = command("results", campaign)
    for text in (ended.err, command("status", campaign).out, results.err):
        assert [line in text for line in lines] == [True, True], text
    assert results.out.count(f"127.0.0.1:{one.port}") == 10


def test_relays_that_are_all_dead_are_said_and_nothing_is_lost(command: Command, campaign: Path) -> None:
    """FT-32: as with one that is dead."""
    with serving(ScriptedRelay({Stage.GREETING: "421 gone"})) as one, serving(ScriptedRelay()) as two:
        pass
    with serving(one):
        others = "".join(f'[[relays]]\nurl = "smtp://127.0.0.1:{each.port}?security=none"\n' for each in (one, two))
        campaign.write_text(campaign.read_text("utf-8") + others, encoding="utf-8")
        ended = command("bulk", campaign, "--yes")
    assert ended.code in (69, 75), ended.err
    for each in (one, two):
        assert f"the relay 127.0.0.1:{each.port} cannot be used" in ended.err
    assert "still to send: 3" in ended.err


def test_recipients_can_be_added_to_a_campaign_that_was_begun(command: Command, campaign: Path) -> None:
    """`--add`: the new ones are mailed, who had the mail already is not, and the results have all."""
    (campaign.parent / "more.csv").write_text(
        "email,name\ndan@example.org,Dan\nANN@EXAMPLE.org,Ann\nann@example.org,A\n"
    )
    (campaign.parent / "other.csv").write_text("email\neve@example.org\n")
    with serving(ScriptedRelay()) as relay:
        words = ("bulk", campaign, *relay_at(relay), "--yes")
        assert "--add is for a campaign that was begun" in command(*words, "--add", "more.csv").sentence
        assert command(*words).code == 0
        ended = command(*words, "--add", "more.csv")
        assert ended.code == 0, ended.err
        assert "3 rows added from more.csv" in ended.err
        assert "lacks the columns “name”" in command(*words, "--add", "other.csv").sentence
    new = {message.forward_paths[0] for message in relay.received[3:]}
    assert {path.partition("@")[0] for path in new} == {"dan"}  # ANN is Ann, who has the mail already
    assert [row["state"] for row in results(command, campaign)] == [*["accepted"] * 4, "suppressed", "suppressed"]


@pytest.mark.slow
def test_recipients_come_from_standard_input(campaign: Path) -> None:
    """They are kept beside the ledger, for their owner alone, so that the same command goes on without them."""
    settings = campaign.read_text("utf-8").replace('"people.csv"', '"-"')
    campaign.write_text(settings, encoding="utf-8")

    def run(typed: str, *more: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "asyncsmtp", "bulk", str(campaign), *relay_at(relay), "--yes", *more]
        return subprocess.run(words, input=typed, capture_output=True, text=True, timeout=30, check=False)

    with serving(ScriptedRelay()) as relay:
        nobody = run("")
        assert (nobody.returncode, "no recipients on standard input" in nobody.stderr) == (2, True)
        assert run("email,name\nann@example.org,Ann\nbob@example.org,Bob\n", "--limit", "1").returncode == 75
        kept = campaign.parent / "news.recipients.csv"
        assert kept.stat().st_mode & 0o777 == 0o600
        assert run("").returncode == 0
        assert len(relay.received) == 2
        assert run("email,name\neve@example.org,Eve\n").returncode == 2  # TF-10: another file
    assert not list(campaign.parent.glob(".news*"))


def test_an_image_may_differ_from_row_to_row(command: Command, campaign: Path) -> None:
    """inline = { photo = "photos/{{ name }}.png" }: read row by row, from the campaign's folder only (TF-07)."""
    folder = campaign.parent
    (folder / "photos").mkdir()
    for name in ("Ann", "Bob"):
        (folder / f"photos/{name}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + name.encode())
    (folder / "message.html").write_text('<p>{{ name }}</p><img src="cid:photo" alt="you">', encoding="utf-8")
    keys = 'html = "message.html"\ninline = { photo = "photos/{{ name }}.png" }\n'
    campaign.write_text(campaign.read_text("utf-8") + keys, encoding="utf-8")
    with serving(ScriptedRelay()) as relay:
        ended = command("bulk", campaign, *relay_at(relay), "--yes")
    assert ended.code == 1  # there is no picture of Cid
    found = [part for mail in relay.received for part in mail.email.walk() if part["Content-ID"] == "<photo>"]
    assert sorted(part.get_payload(decode=True)[8:] for part in found) == [b"Ann", b"Bob"]
    assert "photos/Cid.png cannot be read" in command("results", campaign, "--failed").out


def test_an_image_with_a_path_goes_along(command: Command, campaign: Path) -> None:
    """`<img src="pictures/logo.png">` is shown by cid; one that is missing is an error before anything is sent."""
    folder = campaign.parent
    (folder / "pictures").mkdir()
    (folder / "pictures/logo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "message.html").write_text('<p>{{ name }}</p><img src="pictures/logo.png">', encoding="utf-8")
    campaign.write_text(campaign.read_text("utf-8") + 'html = "message.html"\n', encoding="utf-8")
    with serving(ScriptedRelay()) as relay:
        assert command("bulk", campaign, *relay_at(relay), "--yes", "--limit", 1).code == 75
    (image,) = [part for part in relay.received[0].email.walk() if part.get_content_type() == "image/png"]
    assert image["Content-ID"] == "<pictures-logo.png>"
    assert 'src="cid:pictures-logo.png"' in str(relay.received[0].email.get_body(("html",)).get_content())
    (folder / "pictures/logo.png").unlink()
    assert "pictures/logo.png: does not exist" in command("bulk", campaign, "--name", "b", "--dry-run").sentence


def test_what_the_ledger_could_not_take_is_printed_after_its_last_attempt(
    command: Command, campaign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outcome that was written as the ledger was closed is not printed; one that failed only then is."""
    lost = (Settlement(3, RowState.ACCEPTED, 250, reply="kept"),)
    open_ledger = property(lambda ledger: lost if ledger._queue.closing else (lost[0]._replace(row=2),))
    monkeypatch.setattr(SqliteLedger, "unsettled", open_ledger)
    with serving(ScriptedRelay()) as relay:
        ended = command("bulk", campaign, *relay_at(relay), "--yes")
    assert "the ledger could not take them:\n  row 3: accepted 250 kept\n" in ended.err
    assert "row 2" not in ended.err


def test_status_names_the_ten_most_frequent_reasons(command: Command, campaign: Path) -> None:
    """A relay that words each refusal differently fills no screen."""
    letters = "abcdefghijklm"
    rows = "".join(f"{letter}@example.org,{letter}\n" for letter in letters + "zz")
    campaign.with_name("people.csv").write_text(f"email,name\n{rows}zy@example.org,z\n", encoding="utf-8")
    with serving(ScriptedRelay(refusing(**{each: f"550 5.1.1 no user {each}" for each in letters}))) as relay:
        command("bulk", campaign, *relay_at(relay), "--yes")
    shown = command("status", campaign).out
    assert shown.count("× rejected: ") == 10
