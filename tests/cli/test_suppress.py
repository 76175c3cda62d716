"""`suppress`: a list is kept, and campaigns obey it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from asyncsmtp.bulk.suppression import SuppressionList
from asyncsmtp.errors import SuppressionError
from asyncsmtp.testing import ScriptedRelay, Stage, StageContext
from tests.cli.ended import Command
from tests.cli.serving import serving
from tests.cli.test_bulk import relay_at


def test_a_campaign_obeys_its_lists(command: Command, campaign: Path) -> None:
    """By the campaign file and by the option; status and results tell who got nothing, and why."""
    assert command("suppress", "no.db", "zed@example.org", "bob@EXAMPLE.org", "--reason", "unsubscribed").code == 0
    campaign.write_text(campaign.read_text("utf-8") + 'suppression = "no.db"\n', encoding="utf-8")
    (campaign.parent / "more.txt").write_text("cid@example.org\n", encoding="utf-8")
    with serving(ScriptedRelay()) as relay:
        words = ("bulk", campaign, *relay_at(relay), "--yes")
        ended = command(*words, "--suppression", "no.db", "--suppression", "more.txt", "--limit", 1)
    assert ended.code == 0, ended.err
    assert "2 rows on a suppression list, not mailed" in ended.err
    assert [message.forward_paths for message in relay.received] == [("ann@example.org",)]
    rows = [json.loads(line) for line in command("results", campaign, "--json").out.splitlines()]
    assert [(row["state"], row["reply"]) for row in rows[1:]] == [
        ("suppressed", "on a suppression list: unsubscribed"),
        ("suppressed", "on a suppression list"),
    ]


def test_a_list_is_printed_imported_and_shortened(command: Command, tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text("email,reason\nann@example.org,bounced\nbob@example.org\n", encoding="utf-8")
    ended = command("suppress", "no.db", "--import", "old.csv", "--reason", "moved", "@example.net")
    assert "3 entries added to no.db, 0 there before" in ended.err
    assert command("suppress", "no.db", "bob@example.org", "--remove").err == "1 entry removed from no.db\n"
    printed = command("suppress", "no.db").out.splitlines()
    assert printed == ["address,reason", "@example.net,moved", "ann@example.org,bounced"]
    assert json.loads(command("suppress", "no.db", "--json").out.splitlines()[0])["address"] == "@example.net"


def test_a_printed_list_stops_the_same_people(command: Command, campaign: Path) -> None:
    """`suppress a.db > b.csv`: a domain, and addresses that look like a formula or a remark."""
    people = ["ann@example.edu", "+x@example.com", "#y@example.com"]
    (campaign.parent / "people.csv").write_text("\n".join(["email,name", *(f"{who},A" for who in people)]), "utf-8")
    command("suppress", "a.db", "@example.edu", *people[1:], "--reason", "=left")
    (campaign.parent / "b.csv").write_text(command("suppress", "a.db").out, encoding="utf-8")
    command("bulk", campaign, "--sandbox", "--suppression", "b.csv")
    rows = [json.loads(line) for line in command("results", campaign, "--sandbox", "--json").out.splitlines()]
    assert [(row["state"], row["reply"]) for row in rows] == [("suppressed", "on a suppression list: =left")] * 3


def test_what_is_wrong_is_reported(command: Command, tmp_path: Path) -> None:
    assert command("suppress", "no.db", "nobody").code == 2
    assert "edit it with a text editor" in command("suppress", "no.txt", "ann@example.org").err
    assert "there is no suppression list no.db" in command("suppress", "no.db", "ann@example.org", "--remove").sentence
    assert "nobody was named" in command("suppress", "no.db", "--remove").sentence
    assert not (tmp_path / "no.db").exists()


def test_who_is_listed_in_another_spelling_gets_nothing(command: Command, campaign: Path) -> None:
    """FT-02: rows are mailed in their own spelling, once each; `--remove` finds an entry in any."""
    people = ["Bob@example.org", "Ann@Example.ORG", "ann@example.org", "Jos\u00e9@example.org"]
    (campaign.parent / "people.csv").write_text("\n".join(["email,name", *(f"{who},A" for who in people)]), "utf-8")
    command("suppress", "no.db", "bob@example.org", "jose\u0301@EXAMPLE.org", "zed@example.org")
    assert command("suppress", "no.db", "ZED@example.org", "--remove").err == "1 entry removed from no.db\n"
    with serving(ScriptedRelay()) as relay:
        ended = command("bulk", campaign, *relay_at(relay), "--yes", "--suppression", "no.db")
    assert ended.code == 0, ended.err
    assert [message.forward_paths for message in relay.received] == [("Ann@Example.ORG",)]
    rows = [json.loads(line) for line in command("results", campaign, "--json").out.splitlines()]
    assert [row["reply"] for row in rows if row["state"] == "suppressed"] == [
        "on a suppression list",
        "duplicate of row 2",
        "on a suppression list",
    ]


def test_an_older_campaign_names_the_rows_that_are_one_address(
    command: Command, campaign: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """FT-02: it was begun when case mattered; the second spelling gets nothing, and both rows are named."""
    people = ["email,name", "ann@example.org,A", "Bob@example.org,B", "cid@example.org,C", "bcd@example.org,B"]
    (campaign.parent / "people.csv").write_text("\n".join(people), "utf-8")
    with serving(ScriptedRelay()) as relay:
        command("bulk", campaign, *relay_at(relay), "--yes", "--limit", 1)
        with closing(sqlite3.connect(campaign.parent / "news.ledger", isolation_level=None)) as ledger:
            ledger.execute("UPDATE recipient SET address = 'bob@example.org' WHERE seq = 4")
            ledger.execute("UPDATE recipient SET dedupe = address")
            ledger.execute("DELETE FROM memory WHERE name = 'keys'")
        ended = command("bulk", campaign, *relay_at(relay), "--yes")
    assert ended.code == 0, ended.err
    assert [message.forward_paths for message in relay.received] == [
        ("ann@example.org",),
        ("Bob@example.org",),
        ("cid@example.org",),
    ]
    named = "row 2 (Bob@example.org) and row 4 (bob@example.org) are one address: row 4 is not mailed"
    assert named in caplog.text  # without a handler, as outside of tests, warnings go to standard error
    rows = [json.loads(line) for line in command("results", campaign, "--json").out.splitlines()]
    assert rows[3]["reply"] == "duplicate of row 2 (Bob@example.org)"


REFUSALS = {
    "ann": "550 5.1.1 no such user",
    "bob": "552 5.2.2 over quota",
    "cid": "550 5.7.1 blocked for spam",
    "dan": "550 user unknown",
}


def refuse_by_name(context: StageContext) -> str | None:
    name = context.line.partition(b"<")[2].partition(b"@")[0].decode()
    return REFUSALS.get(name)


@pytest.fixture
def strict(campaign: Path) -> Path:
    """A campaign to five people that lists whom the relay refuses."""
    people = ["email,name", *(f"{name}@example.org,A" for name in (*REFUSALS, "eve"))]
    (campaign.parent / "people.csv").write_text("\n".join(people), "utf-8")
    text = 'suppression = ["old.txt", "no.db"]\nsuppress_rejected = true\n'
    campaign.write_text(campaign.read_text("utf-8") + text, "utf-8")
    (campaign.parent / "old.txt").write_text("zed@example.org\n", "utf-8")
    return campaign


def test_whom_the_relay_refuses_as_unknown_is_listed(command: Command, strict: Path) -> None:
    """`suppress_rejected`: neither a full mailbox nor a blocked sender; the file of text is a person's."""
    command("suppress", "no.db", "--create")
    with serving(ScriptedRelay({Stage.RCPT: refuse_by_name})) as relay:
        command("bulk", strict, *relay_at(relay), "--yes")
    assert command("suppress", "no.db").out.splitlines()[1:] == [
        "ann@example.org,rejected: 5.1.1",
        "dan@example.org,rejected: 550",
    ]
    assert (strict.parent / "old.txt").read_text("utf-8") == "zed@example.org\n"


def test_what_could_not_be_listed_is_listed_by_the_next_run(
    command: Command, strict: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has its result; nothing is sent again."""
    command("suppress", "no.db", "--create")

    def fail(*_: object) -> int:
        raise SuppressionError("the disk is full")

    with serving(ScriptedRelay({Stage.RCPT: refuse_by_name})) as relay:
        words = ("bulk", strict, *relay_at(relay), "--yes")
        with monkeypatch.context() as full:
            full.setattr(SuppressionList, "add", fail)
            ended = command(*words)
        assert "suppress_rejected: the disk is full; the next run does it" in ended.err
        assert "1 accepted" in ended.err
        command(*words)
        assert len(relay.received) == 1
    assert len(command("suppress", "no.db").out.splitlines()) == 3


def test_without_suppress_rejected_and_in_the_sandbox_nobody_is_listed(command: Command, strict: Path) -> None:
    command("suppress", "no.db", "--create")
    command("bulk", strict, "--sandbox")
    strict.write_text(strict.read_text("utf-8").replace("suppress_rejected = true\n", ""), "utf-8")
    with serving(ScriptedRelay({Stage.RCPT: refuse_by_name})) as relay:
        command("bulk", strict, *relay_at(relay), "--yes")
    assert command("suppress", "no.db").out.splitlines() == ["address,reason"]


def test_suppress_rejected_needs_a_list_that_can_be_written(command: Command, strict: Path) -> None:
    """A person keeps the text file; nothing is sent."""
    strict.write_text(strict.read_text("utf-8").replace(', "no.db"', ""), "utf-8")
    with serving(ScriptedRelay()) as relay:
        ended = command("bulk", strict, *relay_at(relay), "--yes")
        assert relay.received == []
    assert ended.code == 2
    assert "suppress_rejected = true needs a suppression list that is no text file" in ended.err


def test_a_relay_that_refuses_everyone_lists_nobody(command: Command, campaign: Path) -> None:
    """FT-31: with the words of an unknown user, too; such a run is halted."""
    people = ["email,name", *(f"u{number}@example{number % 5}.org,A" for number in range(60))]
    (campaign.parent / "people.csv").write_text("\n".join(people), "utf-8")
    text = 'suppression = "no.db"\nsuppress_rejected = true\n'
    campaign.write_text(campaign.read_text("utf-8") + text, "utf-8")
    command("suppress", "no.db", "--create")
    with serving(ScriptedRelay({Stage.RCPT: "550 no mailbox here by that name for you"})) as relay:
        ended = command("bulk", campaign, *relay_at(relay), "--yes")
    assert "--halted" in ended.err
    assert command("suppress", "no.db").out.splitlines() == ["address,reason"]


IMPORTED = {
    "as Excel saves it": "sep=;\r\nName;E-Mail;Reason\r\nAnn;ann@example.org;moved\r\n;;\r\nBob;bob@example.org;\r\n",
    "tabs": "id\tmail\tx\n1\tann@example.org\tmoved\n2\tbob@example.org\t\n",
    "no header": "1;ann@example.org\n2;bob@example.org\n",
    "names and links": "who\nAnn <ann@example.org>\nmailto:bob@example.org\n",
    "lines": "# our list\n\nann@example.org,moved\nbob@example.org\n",
    "a column by its name": "manager,email,reason\nboss@example.org,ann@example.org,moved\n,bob@example.org,\n",
    "as results writes it": "'+id,email,state,reply\n1,ann@example.org,rejected,moved\n2,bob@example.org,deferred,\n",
    "cells of two lines": 'name,email\n"Ann\nSmith",ann@example.org\nBob,bob@example.org\n',
}


@pytest.mark.parametrize("text", IMPORTED.values(), ids=IMPORTED)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_a_file_of_another_program_is_imported(command: Command, tmp_path: Path, text: str, encoding: str) -> None:
    """The address in any column, whatever the delimiter and the encoding."""
    (tmp_path / "in.csv").write_bytes(text.encode(encoding))
    ended = command("suppress", "no.db", "--import", "in.csv")
    assert ended.code == 0, ended.err
    assert "2 entries added to no.db, 0 there before" in ended.err
    rows = [line.split(",") for line in command("suppress", "no.db").out.splitlines()[1:]]
    assert [address for address, _ in rows] == ["ann@example.org", "bob@example.org"]
    assert [reason for _, reason in rows] in (["moved", ""], ["", ""])


def test_what_failed_is_imported_from_the_results(command: Command, campaign: Path) -> None:
    """`asyncsmtp results --failed > failed.csv`, and then the list."""
    with serving(ScriptedRelay({Stage.RCPT: {2: "550 5.1.1 no such user"}})) as relay:
        command("bulk", campaign, *relay_at(relay), "--yes")
    (campaign.parent / "failed.csv").write_text(command("results", campaign, "--failed").out, "utf-8")
    assert "1 entry added" in command("suppress", "no.db", "--import", "failed.csv").err
    assert command("suppress", "no.db").out.splitlines()[1].startswith("bob@example.org,")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("email\nann@example.org\nbob@@example.org\n", 3),
        ("email;name\nann@example.org;A\nbob@ example.org;B\n", 3),
        ('email,name\n"ann@example.org,A\nbob@example.org,B"\n', 3),
        ('name,email\n"Ann\nbob@example.org,B\n",ann@example.org\n', 4),
    ],
)
def test_an_import_that_would_lose_somebody_adds_nobody(command: Command, tmp_path: Path, text: str, line: int) -> None:
    """An @ without an address, or behind a quote that is closed too late; the message has the line."""
    (tmp_path / "in.csv").write_text(text, "utf-8")
    ended = command("suppress", "no.db", "--import", "in.csv")
    assert ended.code == 2
    assert f"in.csv, line {line}: there is an @, but no address" in ended.sentence
    assert not (tmp_path / "no.db").exists()


def test_lines_without_an_address_are_counted(command: Command, tmp_path: Path) -> None:
    """A footer, a row of a person without one."""
    (tmp_path / "in.csv").write_text("name,email\nAnn,ann@example.org\nBob,\nTotal: 2,\n", "utf-8")
    ended = command("suppress", "no.db", "--import", "in.csv")
    assert "2 lines of in.csv without an address: 3, 4" in ended.err
    assert "1 entry added" in ended.err
    (tmp_path / "none.csv").write_text("name\nAnn\n", "utf-8")
    assert "none.csv has no address" in command("suppress", "no.db", "--import", "none.csv").sentence


@pytest.mark.parametrize("data", [b"\0\1\2", b"PK\3\4\0\0", b'email\n"ann@example.org\n', b"e\n" + b"x" * 200_000])
def test_what_is_no_list_is_refused(command: Command, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "in.csv").write_bytes(data)
    ended = command("suppress", "no.db", "--import", "in.csv")
    assert ended.code == 2
    assert ended.sentence
    assert "cannot be read" in command("suppress", "no.db", "--import", "missing.csv").sentence


def test_a_list_is_exported_and_imported_again(command: Command, tmp_path: Path) -> None:
    """Also what looks like a formula or a remark; an older export is replaced, another file is not."""
    people = ["@example.edu", "#y@example.com", "+x@example.com", "ann@example.org"]
    command("suppress", "a.db", *people, "--reason", '=left, "then"')
    for _ in range(2):
        assert "4 entries written to out.csv" in command("suppress", "a.db", "--export", "out.csv").err
    assert "4 entries added to b.db" in command("suppress", "b.db", "--import", "out.csv").err
    assert command("suppress", "b.db").out == command("suppress", "a.db").out
    assert (tmp_path / "out.csv").stat().st_mode & 0o077 == 0
    (tmp_path / "people.csv").write_text("email\n", "utf-8")
    assert "is not an exported list" in command("suppress", "a.db", "--export", "people.csv").sentence
    assert "that is the list itself" in command("suppress", "a.db", "--export", "a.db").sentence
    assert "cannot be written" in command("suppress", "a.db", "--export", "no/out.csv").sentence


@pytest.mark.parametrize("content", [b"email\nann@example.org\0\n", bytes(range(256)) * 4])
def test_what_is_no_text_is_not_imported(command: Command, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in.csv").write_bytes(content)
    ended = command("suppress", "no.db", "--import", "in.csv")
    assert ended.code != 0
    assert "in.csv is no text: save it as CSV, in UTF-8" in ended.sentence
