"""The commands of workers: `campaign`, `work` and `status --workers`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from asyncsmtp.testing import ScriptedRelay, Stage
from tests.cli.ended import Command, Ended
from tests.cli.serving import serving
from tests.cli.test_bulk import relay_at
from tests.cli.test_reference import fields
from tests.interop.postgres import Postgres


def work(command: Command, campaign: Path, relay: ScriptedRelay, *options: object) -> Ended:
    return command("work", campaign, *relay_at(relay), "--until-idle", *options)


def test_a_campaign_is_loaded_looked_at_and_sent(command: Command, shared: Path) -> None:
    """No relay is needed to load it, and no recipients to send it."""
    ended = command("campaign", "load", shared)
    assert (ended.code, ended.out) == (0, "news: 3 pending\n")
    assert "nothing was sent" in ended.err
    (shared.parent / "people.csv").unlink()
    with serving(ScriptedRelay()) as relay:
        ended = work(command, shared, relay)
        assert ended.code == 0, ended.err
    assert "this worker of news: 3 accepted" in ended.err
    seen = json.loads(command("status", shared, "--workers", "--json").out)
    assert [*seen] == fields("status --workers --json")
    assert (seen["state"], seen["batches"], seen["batches_done"]) == ("running", 1, 1)
    assert [(worker["state"], worker["batches"], worker["lease"]) for worker in seen["workers"]] == [("left", 0, 30.0)]
    assert seen["rows"]["accepted"] == 3


def test_outcomes_are_printed_for_a_program(command: Command, shared: Path) -> None:
    command("campaign", "load", shared)
    with serving(ScriptedRelay()) as relay:
        lines = [json.loads(line) for line in work(command, shared, relay, "--json").out.splitlines()]
    assert sorted(line["email"] for line in lines) == ["ann@example.org", "bob@example.org", "cid@example.org"]
    assert {line["state"] for line in lines} == {"accepted"}


def test_loading_again_changes_nothing_and_something_else_is_refused(command: Command, shared: Path) -> None:
    command("campaign", "load", shared)
    with serving(ScriptedRelay()) as relay:
        assert work(command, shared, relay).code == 0
    assert command("campaign", "load", shared).out == "news: 3 accepted\n"
    (shared.parent / "message.txt").write_text("Another {{ name }}\n", encoding="utf-8")
    ended = command("campaign", "load", shared)
    assert (ended.code, "message.txt changed" in ended.sentence) == (2, True)


@pytest.mark.parametrize("change", ["template", "setting", "included"])
def test_a_host_with_other_files_or_settings_refuses(command: Command, shared: Path, change: str) -> None:
    """The odd one of two hosts; nothing is sent by it."""
    command("campaign", "load", shared)
    if change == "template":
        (shared.parent / "message.txt").write_text("Hi {{ name }}\n", encoding="utf-8")
    elif change == "setting":
        shared.write_text(shared.read_text("utf-8").replace("News for", "The news for"), encoding="utf-8")
    else:
        shared.write_text(shared.read_text("utf-8") + 'reply_to = "other@example.org"\n', encoding="utf-8")
    with serving(ScriptedRelay()) as relay:
        ended = work(command, shared, relay)
    assert ended.code == 2
    assert "since the campaign “news” was loaded: give this host the same files and settings" in ended.sentence
    assert json.loads(command("status", shared, "--json").out)["pending"] == 3


def test_a_campaign_of_bulk_goes_on_with_workers_and_the_other_way_round(command: Command, shared: Path) -> None:
    with serving(ScriptedRelay()) as relay:
        assert command("bulk", shared, *relay_at(relay), "--yes", "--limit", 1).code == 75
        assert work(command, shared, relay).code == 0
    (shared.parent / "more.csv").write_text("email,name\ndan@example.org,Dan\n", encoding="utf-8")
    with serving(ScriptedRelay()) as relay:
        assert command("bulk", shared, *relay_at(relay), "--yes", "--add", "more.csv", "--limit", 1).code == 0
    assert json.loads(command("status", shared, "--json").out)["accepted"] == 4


def test_what_the_relay_refuses_for_now_is_left_with_its_time(command: Command, shared: Path) -> None:
    command("campaign", "load", shared)
    with serving(ScriptedRelay({Stage.RCPT: {1: "451 4.7.1 greylisted"}})) as relay:
        ended = work(command, shared, relay, "--sessions", 1)
    assert (ended.code, "the next row may be tried at" in ended.err) == (75, True)
    assert json.loads(command("status", shared, "--json").out)["deferred"] == 1


@pytest.mark.parametrize(("action", "again"), [("pause", "resume"), ("cancel", "start")])
def test_bulk_sends_nothing_of_a_campaign_that_was_paused(
    command: Command, shared: Path, action: str, again: str
) -> None:
    """It is no failure of the ledger; the hint works as it is printed."""
    command("campaign", "load", shared)
    command("campaign", action, shared)
    with serving(ScriptedRelay()) as relay:
        ended = command("bulk", shared, *relay_at(relay), "--yes")
        assert (ended.code, ended.sentence.startswith("the campaign “news” was ")) == (2, True)
        (hint,) = [line for line in ended.err.splitlines() if f"asyncsmtp campaign {again} news --ledger" in line]
        assert command(*shlex.split(hint.partition("asyncsmtp ")[2])).code == 0
        assert command("bulk", shared, *relay_at(relay), "--yes").code == 0
    assert len(relay.received) == 3


def test_a_worker_of_a_cancelled_campaign_says_so_and_is_not_to_be_started_again(
    command: Command, shared: Path
) -> None:
    """75 means that it is: services and jobs would start it for ever."""
    command("campaign", "load", shared)
    command("campaign", "cancel", shared)
    with serving(ScriptedRelay()) as relay:
        ended = work(command, shared, relay)
        assert (ended.code, ended.sentence) == (2, "the campaign “news” was cancelled")
        (hint,) = [line for line in ended.err.splitlines() if "asyncsmtp campaign start news --ledger" in line]
        assert command(*shlex.split(hint.partition("asyncsmtp ")[2])).code == 0
        assert work(command, shared, relay).code == 0
    assert len(relay.received) == 3


def test_a_campaign_that_was_not_loaded_says_so(command: Command, shared: Path) -> None:
    with serving(ScriptedRelay()) as relay:
        ended = work(command, shared, relay)
    assert (ended.code, "load the campaign first" in ended.sentence) == (2, True)
    assert f"asyncsmtp campaign load {shared}" in ended.err


def test_a_ledger_in_a_file_has_no_workers(command: Command, campaign: Path) -> None:
    for words in (("campaign", "load", campaign), ("work", campaign, "--relay", "smtp://localhost")):
        ended = command(*words)
        assert (ended.code, "workers need a ledger in PostgreSQL" in ended.sentence) == (2, True)
    ended = command("status", campaign, "--workers")
    assert (ended.code, "is a file, which only one process can use" in ended.sentence) == (2, True)


@pytest.mark.parametrize(("span", "words"), [("1s", "give at least 2 s"), ("soon", "not a span of time")])
def test_a_lease_that_is_no_lease_is_refused(command: Command, shared: Path, span: str, words: str) -> None:
    command("campaign", "load", shared)
    with serving(ScriptedRelay()) as relay:
        ended = work(command, shared, relay, "--lease", span)
    assert (ended.code, words in ended.err) == (2, True)


def test_a_campaign_is_paused_resumed_cancelled_and_started_by_its_name(
    command: Command, shared: Path, postgres: Postgres
) -> None:
    command("campaign", "load", shared, "--paused")
    by_name = ("news", "--ledger", postgres.url)
    assert command("campaign", "pause", *by_name).out == "news: paused already\n"
    assert command("campaign", "resume", *by_name).out == "news: running (it was paused)\n"
    assert command("campaign", "cancel", *by_name).out == "news: cancelled (it was running)\n"
    ended = command("campaign", "resume", *by_name)
    assert (ended.code, "was cancelled" in ended.sentence) == (2, True)
    with serving(ScriptedRelay()) as relay:
        assert work(command, shared, relay).code == 2
    assert command(*shlex.split(ended.err.rpartition("next: ")[2])[1:]).out == "news: started (it was cancelled)\n"
    with serving(ScriptedRelay()) as relay:
        assert work(command, shared, relay).code == 0


def test_lists_that_changed_are_stored_at_a_start(command: Command, shared: Path, postgres: Postgres) -> None:
    (shared.parent / "gone.txt").write_text("", encoding="utf-8")
    shared.write_text(shared.read_text("utf-8") + 'suppression = ["gone.txt"]\n', encoding="utf-8")
    command("campaign", "load", shared)
    (shared.parent / "gone.txt").write_text("bob@example.org\n", encoding="utf-8")
    assert "1 entry of suppression lists" in command("campaign", "start", shared).err
    assert "bob" not in str(postgres.execute("SELECT * FROM asyncsmtp.suppressed"))  # whom `forget` need not look for
    (shared.parent / "gone.txt").unlink()
    with serving(ScriptedRelay()) as relay:
        work(command, shared, relay)
    counts = json.loads(command("status", shared, "--json").out)
    assert (counts["accepted"], counts["suppressed"]) == (2, 1)


def test_the_table_of_workers_is_text_where_there_is_no_terminal(command: Command, shared: Path) -> None:
    command("campaign", "load", shared)
    with serving(ScriptedRelay()) as relay:
        work(command, shared, relay)
    heading, columns, *rows = command("status", shared, "--workers").out.splitlines()
    assert heading.startswith("running, 0 workers, 1 of 1 batches done, 0 taken; 3 rows: 3 accepted")
    assert columns.split()[:3] == ["run", "worker", "state"]
    assert len(rows) == 1
    ended = command("status", shared, "--watch")
    assert (ended.code, "--watch is for --workers" in ended.sentence) == (2, True)
