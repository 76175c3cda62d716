"""A relay that refuses everyone: the run stops, and one printed command makes pending who was rejected before."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from asyncsmtp.testing import Action, Fin, ScriptedRelay, Stage, StageContext
from tests.cli.ended import Command, Ended
from tests.cli.serving import serving
from tests.cli.test_bulk import relay_at
from tests.cli.test_resolve import counts

ROWS = 1000
ACCEPTED = 100  # before the relay refuses everyone
HANG_UP = Fin()


@pytest.fixture
def thousand(campaign: Path) -> Path:
    """A campaign with a thousand people at forty domains."""
    rows = "".join(f"reader{n}@d{n % 40}.example,Reader {n}\n" for n in range(1, ROWS + 1))
    (campaign.parent / "people.csv").write_text(f"email,name\n{rows}", encoding="utf-8")
    return campaign


def turning(stage: Stage, words: Callable[[StageContext, int], Action | None], after: int = ACCEPTED) -> ScriptedRelay:
    """A relay that accepts so many messages, and from then on answers with `words` of a context and its number."""

    def rule(context: StageContext) -> Action | None:
        return words(context, context.occurrence) if len(relay.received) >= after else None

    relay = ScriptedRelay({stage: rule})
    return relay


def rejected(command: Command, campaign: Path) -> set[str]:
    """Return the addresses of the rows that are rejected."""
    lines = command("results", campaign).out.splitlines()[1:]
    return {line.split(",")[1] for line in lines if line.split(",")[2] == "rejected"}


def printed_command(ended: Ended) -> list[str]:
    """Return the arguments of the command that the summary prints."""
    found = re.findall(r"pending again: (asyncsmtp resolve .*)$", ended.err, re.MULTILINE)
    assert len(found) == 1, ended.err
    return shlex.split(found[0])[1:]


REFUSALS: list[tuple[Stage, str]] = [
    # the quota is used up
    (Stage.END_OF_DATA, "550 5.4.5 Daily user sending limit exceeded. {number}-id.1 - gsmtp"),
    (Stage.RCPT, "550 Domain news.example has exceeded the max emails per hour ({number}/100 (120%)) allowed"),
    (Stage.MAIL, "552 you have sent enough for today [{id}]"),
    (Stage.RCPT, "554 Nachrichtenkontingent für heute erschöpft, Vorgang {id}"),
    # it is not allowed to relay
    (Stage.RCPT, "550 relay not permitted"),
    (Stage.RCPT, "513 Relaying denied."),
    (Stage.RCPT, "554 5.7.1 <{address}>: Relay access denied"),
    (Stage.RCPT, "550 {local}: we do not relay for you"),
    # the dialogue
    (Stage.DATA, "503 5.5.1 Bad sequence of commands"),
    (Stage.MAIL, "501 5.5.4 Syntax error in parameters"),
    (Stage.RCPT, "500 unrecognized command"),
    # the sender
    (Stage.MAIL, "553 5.1.8 Domain of sender address does not exist"),
    (Stage.RCPT, "550 5.1.7 <news@example.org>: Invalid sender"),
    (Stage.END_OF_DATA, "554 5.2.252 SendAsDenied; not allowed to send as news@example.org [id={id}]"),
    (Stage.END_OF_DATA, "554 5.7.60 SMTP; Client does not have permissions to send as this sender {id}"),
]


@pytest.mark.parametrize(("stage", "words"), REFUSALS)
def test_a_relay_that_refuses_everyone_stops_the_run_and_nobody_is_lost(
    command: Command, thousand: Path, stage: Stage, words: str
) -> None:
    """FT-30, FT-31: at most 25 of 1,000 are rejected, and the printed command makes those pending and no others."""

    def say(context: StageContext, number: int) -> Action:
        address = context.line.decode().partition("<")[2].partition(">")[0]
        local = address.partition("@")[0]
        return words.format(address=address, local=local, number=number, id=f"1tX{number}-0003Fg-Qz")

    with serving(turning(stage, say)) as relay:
        ended = command("bulk", thousand, *relay_at(relay), "--yes")
    assert ended.code == 69, ended.err
    assert "the campaign stops: " in ended.err
    before, refused = counts(command, thousand), rejected(command, thousand)
    assert before["accepted"] == len(relay.received)
    assert 0 < len(refused) <= 25
    assert "rejected before the run was halted" in command("status", thousand).err
    assert command(*printed_command(ended)).code == 0
    after = counts(command, thousand)
    assert after["pending"] == before["pending"] + before.pop("rejected")
    assert {**after, "pending": 0} == {**before, "pending": 0}
    assert "rejected before the run was halted" not in command("status", thousand).err
    with serving(ScriptedRelay()) as mended:
        assert command("bulk", thousand, *relay_at(mended), "--yes").code == 0
    taken = Counter(path for each in (*relay.received, *mended.received) for path in each.forward_paths)
    assert len(taken) == ROWS
    assert set(taken.values()) == {1}


@pytest.mark.parametrize("words", ["550 5.1.1 user unknown", "550 5.2.1 mailbox disabled", "556 5.1.10 null MX"])
def test_a_stale_list_does_not_stop(command: Command, thousand: Path, words: str) -> None:
    """FT-30: six hundred unknown users in a row, and then those who are there."""
    numbers = re.compile(rb"reader(\d+)@")

    def unknown(context: StageContext) -> Action | None:
        found = numbers.search(context.line)
        return words if found is not None and int(found[1]) <= 600 else None

    with serving(ScriptedRelay({Stage.RCPT: unknown})) as relay:
        ended = command("bulk", thousand, *relay_at(relay), "--yes")
    assert ended.code == 1, ended.err
    assert counts(command, thousand) == {"accepted": 400, "rejected": 600}
    assert "halted" not in ended.err


def test_what_is_given_up_after_its_last_attempt_stops_the_run_too(command: Command, thousand: Path) -> None:
    """FT-30: a 4xx is no refusal for ever, but the last one that a campaign waits for is."""
    with serving(
        turning(Stage.END_OF_DATA, lambda *_: "454 Throttling failure: daily message quota exceeded")
    ) as relay:
        ended = command("bulk", thousand, *relay_at(relay), "--yes", "--attempts", 1)
    assert ended.code == 69, ended.err
    assert len(rejected(command, thousand)) <= 25
    assert command(*printed_command(ended)).code == 0
    assert rejected(command, thousand) == set()


def test_who_was_rejected_for_another_reason_stays_so(command: Command, thousand: Path) -> None:
    """FT-31: the printed command is not about users that do not exist, whenever the relay said so."""

    def say(context: StageContext, number: int) -> Action | None:
        return "550 5.1.1 user unknown" if number % 3 == 0 else "550 5.4.5 quota exceeded"

    with serving(turning(Stage.RCPT, say)) as relay:
        ended = command("bulk", thousand, *relay_at(relay), "--yes")
    assert ended.code == 69
    listed = command(*printed_command(ended)[:2], "--halted").out
    assert "20 rows rejected" in listed
    assert "user unknown" not in listed
    command(*printed_command(ended))
    left = command("results", thousand, "--failed").out
    assert left.count("user unknown") == counts(command, thousand)["rejected"] > 0
    assert ",rejected,550,5.4.5" not in left


def test_a_row_that_was_tried_again_is_not_named_any_more(command: Command, thousand: Path) -> None:
    """FT-31: the command, used twice, and after a later run, concerns nobody whose case is another one by now."""
    with serving(turning(Stage.RCPT, lambda *_: "550 relay not permitted")) as relay:
        printed = printed_command(command("bulk", thousand, *relay_at(relay), "--yes"))
    command(*printed)
    assert "no row is rejected" in command(*printed).err
    with serving(ScriptedRelay({Stage.RCPT: dict.fromkeys(range(1, 1000), "550 5.1.1 user unknown")})) as relay:
        command("bulk", thousand, *relay_at(relay), "--yes")
    assert counts(command, thousand)["rejected"] > 800
    assert "no row is rejected among those named" in command(*printed).err


def test_two_halted_runs_are_put_right_together(command: Command, thousand: Path) -> None:
    """FT-31: the rows of the first run are not forgotten by the second."""
    for words in ("550 5.4.5 quota", "550 relay not permitted"):
        with serving(turning(Stage.RCPT, lambda *_, words=words: words, after=0)) as relay:  # type: ignore[misc]
            ended = command("bulk", thousand, *relay_at(relay), "--yes")
        assert ended.code == 69, ended.err
    assert len(rejected(command, thousand)) == 40
    command(*printed_command(ended))
    assert rejected(command, thousand) == set()


def test_keep_going_goes_on_all_the_same(command: Command, thousand: Path) -> None:
    """FT-31: whoever knows better uses up the list, and is told once."""
    with serving(turning(Stage.RCPT, lambda *_: "550 relay not permitted")) as relay:
        ended = command("bulk", thousand, *relay_at(relay), "--yes", "--keep-going")
    assert ended.code == 1, ended.err
    found = counts(command, thousand)
    assert found == {"accepted": len(relay.received), "rejected": ROWS - len(relay.received)}
    assert found["rejected"] > 800
    assert ended.err.count("the campaign stops") == 0
    assert ended.err.count("20 of the last 20 messages were refused with the same words") == 1


def test_a_relay_that_hangs_up_at_every_message_ends_the_run_with_the_reason(command: Command, thousand: Path) -> None:
    """FT-18: within seconds, and everybody stays to be mailed."""
    with serving(ScriptedRelay({Stage.MAIL: HANG_UP})) as relay:
        ended = command("bulk", thousand, *relay_at(relay), "--yes")
    assert ended.code == 69, ended.err
    assert "messages lost their connection before the relay answered" in ended.err
    assert "hung up" in ended.err
    assert relay.connections < 100
    found = counts(command, thousand)
    assert found.keys() <= {"pending", "deferred"}
    assert sum(found.values()) == ROWS


def test_a_relay_that_hangs_up_at_pipelined_commands_gets_everything(command: Command, thousand: Path) -> None:
    """FT-18: in lockstep, which is said."""
    rule = {Stage.MAIL: lambda context: HANG_UP if context.pipelined_input else None}
    with serving(ScriptedRelay(rule)) as relay:
        ended = command("bulk", thousand, *relay_at(relay), "--yes")
    assert ended.code == 0, ended.err
    assert len(relay.received) == ROWS
