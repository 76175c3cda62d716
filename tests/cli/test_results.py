"""`status` and `results`: what the ledger knows, for people, spreadsheets and programs."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import openpyxl
import pytest

from asyncsmtp.bulk.recipients.csv_format import RecordReader
from asyncsmtp.cli.output.formats import OUTCOME
from asyncsmtp.testing import ScriptedRelay, Stage, StageContext
from tests.cli.ended import Command
from tests.cli.serving import serving

PEOPLE = """\
email,name,note
ann@example.org,Ann,"two
lines"
=bob@example.org,=cmd|' /C calc'!A0,@sum
cid@example.org,Çid,x
ann@EXAMPLE.org,Ann again,x
not an address,Nobody,x
"""


def refuse(context: StageContext) -> str | None:
    return "550 5.1.1 no \x1b[31msuch user" if b"<=bob@" in context.line else None


@pytest.fixture
def ran(command: Command, campaign: Path) -> Path:
    """A campaign after its run: one rejected, one duplicate, one that holds no address, two accepted."""
    (campaign.parent / "people.csv").write_text(PEOPLE, encoding="utf-8")
    with serving(ScriptedRelay({Stage.RCPT: refuse})) as relay:
        url = f"smtp://127.0.0.1:{relay.port}?security=none"
        assert command("bulk", campaign, "--relay", url, "--yes").code == 1
    return campaign


def test_status_counts_and_says_why(command: Command, ran: Path) -> None:
    """Every row of the file has an outcome; the relay's words are harmless on a terminal."""
    ended = command("status", ran)
    assert ended.code == 0
    assert "5 rows: 2 accepted · 2 rejected · 1 suppressed" in ended.out
    assert "1 × rejected: 550 5.1.1 no \\x1b[31msuch user" in ended.out
    assert "\x1b" not in ended.out
    assert f"asyncsmtp results {ran} --failed" in ended.err


def test_status_for_a_program_is_one_object(command: Command, ran: Path) -> None:
    """Number of rows by state, every state."""
    counts = json.loads(command("status", ran, "--json").out)
    assert counts == {
        "pending": 0,
        "sending": 0,
        "accepted": 2,
        "deferred": 0,
        "rejected": 2,
        "in doubt": 0,
        "suppressed": 1,
    }


def test_status_before_the_first_run(command: Command, campaign: Path) -> None:
    """No ledger is no failure: nothing was begun."""
    assert command("status", campaign).out == "not begun yet\n"
    assert set(json.loads(command("status", campaign, "--json").out).values()) == {0}


def test_results_are_every_row_in_order(command: Command, ran: Path) -> None:
    """CSV that the standard library reads back."""
    rows = list(csv.DictReader(io.StringIO(command("results", ran).out)))
    assert [(row["row"], row["state"]) for row in rows] == [
        ("1", "accepted"),
        ("2", "rejected"),
        ("3", "accepted"),
        ("4", "suppressed"),
        ("5", "rejected"),
    ]
    assert rows[1]["code"] == "550"
    assert rows[1]["status"] == "5.1.1"
    assert rows[3]["reply"] == "duplicate of row 1"


def test_no_cell_of_a_csv_begins_a_formula(command: Command, ran: Path) -> None:
    """TF-12: what a spreadsheet would calculate is text; NDJSON keeps it as it is."""
    for options in ((), ("--failed",)):
        for cells in csv.reader(io.StringIO(command("results", ran, *options).out)):
            assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)
    records = [json.loads(line) for line in command("results", ran, "--json").out.splitlines()]
    assert records[1]["email"] == "=bob@example.org"


def test_failed_is_the_original_columns_and_why(command: Command, ran: Path) -> None:
    """What a person corrects and sends again: the same columns, with the reason beside them.

    Who is suppressed is not among them: he was left out on purpose, and would be mailed by way of that file.
    """
    rows = list(csv.DictReader(io.StringIO(command("results", ran, "--failed").out)))
    assert [row["name"] for row in rows] == ["'=cmd|' /C calc'!A0", "Nobody"]
    assert list(rows[0]) == ["email", "name", "note", *OUTCOME]
    assert (rows[0]["code"], rows[0]["status"], rows[0]["attempts"]) == ("550", "5.1.1", "1")
    assert rows[0]["reply"].endswith("such user")
    assert rows[0]["host"].startswith("127.0.0.1")
    assert "not an address" in rows[1]["reply"]
    assert (rows[1]["code"], rows[1]["attempts"], rows[1]["first_at"]) == ("", "0", "")
    records = [json.loads(line) for line in command("results", ran, "--failed", "--json").out.splitlines()]
    assert records[0]["fields"] == {"email": "=bob@example.org", "name": "=cmd|' /C calc'!A0", "note": "@sum"}


def test_failed_rows_are_the_same_people_in_the_next_campaign(command: Command, campaign: Path) -> None:
    """The apostrophe that keeps a spreadsheet from calculating is none of the address, nor of any other cell."""
    people = campaign.parent / "people.csv"
    people.write_text("email,name\n+x@example.com,\"-A\nB\"\n'y@example.com,'B\n", encoding="utf-8")
    refusing = ScriptedRelay({Stage.RCPT: lambda context: "550 5.1.1 no such user"})
    with serving(refusing) as relay:
        url = f"smtp://127.0.0.1:{relay.port}?security=none"
        assert command("bulk", campaign, "--relay", url, "--yes", "--subject", "News").code == 1
    failed = command("results", campaign, "--failed").out
    assert "'+x@example.com,\"'-A" in failed
    people.write_text(failed, encoding="utf-8")
    with serving(ScriptedRelay()) as relay:
        url = f"smtp://127.0.0.1:{relay.port}?security=none"
        ended = command("bulk", campaign, "--relay", url, "--yes", "--ledger", "again.ledger", "--subject", "News")
    assert ended.code == 0, ended.err
    sent = {path: message for message in relay.received for path in message.forward_paths}
    assert sorted(sent) == ["'y@example.com", "+x@example.com"]


def test_each_row_has_the_times_of_its_first_attempt_and_last_change(command: Command, campaign: Path) -> None:
    """A row that was deferred and then accepted has two times; one that was never tried has none."""
    began = datetime.now(UTC)
    busy = iter([True])
    with serving(ScriptedRelay({Stage.RCPT: lambda context: "450 4.2.0 busy" if next(busy, False) else None})) as relay:
        url = f"smtp://127.0.0.1:{relay.port}?security=none"
        words = ("bulk", campaign, "--relay", url, "--yes", "--sessions", "1", "--retry-delay", "1s")
        assert command(*words, "--limit", "1").code == 75
        once = json.loads(command("results", campaign, "--json", "--failed").out)
        assert command(*words, "--wait").code == 0
    rows = [json.loads(line) for line in command("results", campaign, "--json").out.splitlines()]
    times = [(datetime.fromisoformat(row["first_at"]), datetime.fromisoformat(row["last_at"])) for row in rows]
    assert all(began.replace(microsecond=0) <= first <= last <= datetime.now(UTC) for first, last in times)
    assert rows[0]["attempts"] == 2
    assert rows[0]["first_at"] == once["first_at"]
    assert rows[0]["last_at"] > once["last_at"]
    table = list(csv.DictReader(io.StringIO(command("results", campaign).out)))
    assert [(row["first_at"], row["last_at"]) for row in table] == [(row["first_at"], row["last_at"]) for row in rows]


def test_every_number_of_the_summary_is_that_of_the_results(command: Command, ran: Path) -> None:
    """The counts of `status`, of its JSON, of CSV, of NDJSON and of --failed are counts of the same rows."""
    said = command("status", ran).out
    counts = Counter(json.loads(command("status", ran, "--json").out))
    as_csv = Counter(row["state"] for row in csv.DictReader(io.StringIO(command("results", ran).out)))
    as_json = Counter(json.loads(line)["state"] for line in command("results", ran, "--json").out.splitlines())
    failed = Counter(row["state"] for row in csv.DictReader(io.StringIO(command("results", ran, "--failed").out)))
    assert +counts == as_csv == as_json
    assert failed == Counter({state: as_csv[state] for state in ("deferred", "rejected", "in doubt") if as_csv[state]})
    assert all(f"{number} {state}" in said for state, number in as_csv.items())
    assert f"{as_csv.total()} rows" in said


def test_a_column_that_the_file_has_already_gets_a_number(command: Command, campaign: Path) -> None:
    """`failed.csv` is the next campaign's recipients, whose own failures must not be mixed up with the last ones'."""
    people = "email,name,state,state_2,code\nnobody,Ann,Vienna,x,y\nbob@example.org,Bob,Graz,x,y\n"
    (campaign.parent / "people.csv").write_text(people, encoding="utf-8")
    assert command("bulk", campaign, "--sandbox").code == 1
    (row,) = csv.DictReader(io.StringIO(command("results", campaign, "--sandbox", "--failed").out))
    assert (row["state"], row["state_2"], row["state_3"]) == ("Vienna", "x", "rejected")
    assert (row["code"], row["code_2"]) == ("y", "")


def failed_of_two_files(command: Command, campaign: Path, *words: str) -> list[dict[str, str]]:
    """The second file has its columns in another order, and one more, by a name of ours."""
    (campaign.parent / "people.csv").write_text(
        "email,name,no\nann@example.org,Ann,1\nnobody,Bob,2\n", encoding="utf-8"
    )
    (campaign.parent / "more.csv").write_text(
        "no,email,state,name\n3,no one,Graz,Cid\n4,dan@example.org,Linz,Dan\n", encoding="utf-8"
    )
    assert command("bulk", campaign, *words).code == 1
    ended = command("bulk", campaign, *words, "--add", "more.csv")
    assert ended.code == 1, ended.err
    return list(csv.DictReader(io.StringIO(command("results", campaign, "--failed").out)))


@pytest.mark.parametrize(
    ("names", "header", "first"),
    [
        ("name,state", "name,state", "Ann,accepted"),
        ("row, EMAIL ,Name", "row,email,name", "1,ann@example.org,Ann"),
        ("state,state", "state", "accepted"),
    ],
)
def test_columns_are_chosen_by_name(command: Command, ran: Path, names: str, header: str, first: str) -> None:
    """Those of the recipients and those of the outcome, in the order that is given; as JSON too."""
    lines = command("results", ran, "--columns", names).out.splitlines()
    assert lines[:2] == [header, first]
    records = [json.loads(line) for line in command("results", ran, "--columns", names, "--json").out.splitlines()]
    assert list(records[0]) == header.split(",")


def test_chosen_columns_of_failed_rows_hold_no_formula(command: Command, ran: Path) -> None:
    rows = list(csv.reader(io.StringIO(command("results", ran, "--failed", "--columns", "name,note,code").out)))
    assert rows == [["name", "note", "code"], ["'=cmd|' /C calc'!A0", "'@sum", "550"], ["Nobody", "x", ""]]


@pytest.mark.parametrize(("names", "told"), [("nmae", "did you mean “name”"), ("email,,state", "no column “”")])
def test_a_column_that_is_not_there_is_refused(command: Command, ran: Path, names: str, told: str) -> None:
    ended = command("results", ran, "--columns", names)
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err
    assert "name some of email, name, note" in ended.err


def test_rows_of_several_files_have_their_cells_under_their_names(command: Command, campaign: Path) -> None:
    """The header has the columns of all of them, by their first appearance; a row that lacks one has an empty cell."""
    with serving(ScriptedRelay()) as relay:
        url = f"smtp://127.0.0.1:{relay.port}?security=none"
        first, second = failed_of_two_files(command, campaign, "--relay", url, "--yes")
    assert list(first) == ["email", "name", "no", "state", "state_2", *OUTCOME[1:]]
    own = ("email", "name", "no", "state", "state_2")
    assert [first[name] for name in own] == ["nobody", "Bob", "2", "", "rejected"]
    assert [second[name] for name in own] == ["no one", "Cid", "3", "Graz", "rejected"]


def test_a_cell_does_nothing_to_a_terminal_and_is_itself_in_a_file(command: Command, campaign: Path) -> None:
    """CT-01: `results --failed` shows cells as they stood in the file: ESC, BEL, OSC and all."""
    hostile = "\x1b]0;owned\x07"
    (campaign.parent / "people.csv").write_text(
        f"email,name\nnobody,{hostile}\nann@example.org,Ann\n", encoding="utf-8"
    )
    assert command("bulk", campaign, "--sandbox").code == 1
    words = [sys.executable, "-m", "asyncsmtp", "results", str(campaign), "--sandbox", "--failed"]
    terminal, stdout = os.openpty()
    try:
        subprocess.run(words, stdout=stdout, check=True, timeout=15)
        shown = os.read(terminal, 4096)
    finally:
        os.close(stdout)
        os.close(terminal)
    assert rb"\x1b]0;owned\x07" in shown
    assert not [octet for octet in shown if octet < 0x20 and octet not in b"\r\n"]
    assert hostile in subprocess.run(words, capture_output=True, check=True, timeout=15, text=True).stdout


def test_results_before_the_first_run_are_one_sentence(command: Command, campaign: Path) -> None:
    """An empty file would look like a campaign without recipients."""
    ended = command("results", campaign)
    assert ended.code == 2
    assert "there is no ledger" in ended.sentence
    assert "asyncsmtp bulk" in ended.err


def test_a_ledger_can_be_named_outright(command: Command, ran: Path) -> None:
    """For a campaign that was made of options."""
    assert json.loads(command("status", "--ledger", "news.ledger", "--json").out)["accepted"] == 2
    ended = command("status")
    assert ended.code == 2
    assert "--ledger" in ended.err


@pytest.mark.parametrize("octets", [b"", b"not a database, surely" * 100, b"SQLite format 3\x00" + b"\xff" * 4080])
@pytest.mark.parametrize("verb", ["status", "results", "resolve", "bulk"])
def test_a_file_that_is_not_a_ledger_ends_with_74(command: Command, campaign: Path, verb: str, octets: bytes) -> None:
    """BL-13: foreign or damaged; it is told, and left as it is."""
    ledger = campaign.parent / "news.ledger"
    ledger.write_bytes(octets)
    options = ("--yes", "--relay", "smtp://127.0.0.1:1") if verb == "bulk" else ()
    ended = command(verb, campaign, *options)
    assert ended.code == 74
    assert "news.ledger" in ended.sentence
    assert ledger.read_bytes() == octets


def test_a_reader_who_leaves_ends_it_quietly(ran: Path) -> None:
    """CT-05: `asyncsmtp results … | head -0`."""
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "asyncsmtp", "results", str(ran)], stdout=writing, stderr=subprocess.PIPE, timeout=15
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_a_full_disk_behind_the_output_ends_with_74(ran: Path) -> None:
    """`asyncsmtp results … > failed.csv` that was cut short must not look complete."""
    with open("/dev/full", "wb") as full:
        words = [sys.executable, "-m", "asyncsmtp", "results", str(ran)]
        ended = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=15)
    assert ended.returncode == 74
    assert ended.stderr.startswith("asyncsmtp: no space left on device\n")
    assert "Exception ignored" not in ended.stderr


def test_failed_rows_hold_no_formula_for_a_spreadsheet_with_other_delimiters(command: Command, campaign: Path) -> None:
    """FT-61: neither their cells nor the names of their columns; a campaign reads both as they were."""
    cell = "x;=cmd|' /C calc'!A0\n\ufeff\uff1d1+1"
    people = io.StringIO()
    csv.writer(people).writerows([["email", "name", "a;=1+1"], ["ann@example.org", "A", ""], ["nobody", "B", cell]])
    (campaign.parent / "people.csv").write_text(people.getvalue(), "utf-8")
    with serving(ScriptedRelay()) as relay:
        command("bulk", campaign, "--relay", f"smtp://127.0.0.1:{relay.port}?security=none", "--yes")
    printed = command("results", campaign, "--failed").out
    for found in re.split(r"[;,|\t\r\n]", printed):
        assert not found.lstrip(' "\ufeff').startswith(("=", "+", "-", "@", "\uff1d"))
    failed = campaign.parent / "failed.csv"
    failed.write_text(printed, "utf-8", newline="")
    header, row = read_back(failed)
    assert header[2] == "a;=1+1"
    assert row[2] == cell


def read_back(path: Path) -> list[list[str]]:
    """The cells of a file, as a campaign reads them."""
    reader = RecordReader(path.name, ",")
    return [record.cells for record in reader.feed(path.read_bytes().decode("utf-8"), final=True)]


# The style of the user's own spreadsheet.


@pytest.mark.parametrize(
    ("encoding", "delimiter", "begins"),
    [
        ("utf-8", ",", "row,email"),
        ("utf-8", ";", "row;email"),
        ("utf-8-sig", ",", "\ufeffrow,email"),
        ("utf-8-sig", ";", "\ufeffrow;email"),
        ("cp1252", ";", "\ufeffrow;email"),
        ("utf-16", "\t", "\ufeffrow\temail"),
    ],
)
def test_results_open_where_the_recipients_did(
    command: Command, campaign: Path, encoding: str, delimiter: str, begins: str
) -> None:
    """The same delimiter; a mark unless the file was plain UTF-8. Read as recipients, they are the same people."""
    rows = [
        ("email", "name"),
        ("ann@example.org", "Jürgen"),
        ("bob@example.org", f"Bo{delimiter}b"),
        ("cid@example.org", "é"),
    ]
    text = "".join(delimiter.join(f'"{cell}"' for cell in row) + "\r\n" for row in rows)
    (campaign.parent / "people.csv").write_bytes(text.encode(encoding))
    campaign.write_text(campaign.read_text("utf-8") + f'encoding = "{encoding}"\n', "utf-8")
    assert command("bulk", campaign, "--sandbox", "--limit", "2").code == 75
    out = command("results", campaign, "--sandbox").out
    assert out.startswith(begins)
    found = list(csv.DictReader(io.StringIO(out.removeprefix("\ufeff")), delimiter=delimiter))
    assert [row["state"] for row in found] == ["accepted", "accepted", "pending"]
    chosen = command("results", campaign, "--sandbox", "--columns", "email,name").out
    (campaign.parent / "people.csv").write_bytes(chosen.encode())
    campaign.write_text(campaign.read_text("utf-8").replace(encoding, "utf-8"), "utf-8")
    assert "3 rows" in command("check", campaign).out


@pytest.mark.parametrize(("point", "begins"), [(",", "\ufeffrow;email"), (".", "\ufeffrow,email")])
def test_results_of_a_workbook_are_those_of_the_locale(
    command: Command, campaign: Path, monkeypatch: pytest.MonkeyPatch, point: str, begins: str
) -> None:
    """A spreadsheet expects a semicolon where numbers have a comma."""
    book = openpyxl.Workbook()
    for row in (("email", "name"), ("ann@example.org", "Ann")):
        book.active.append(row)
    book.save(campaign.parent / "people.xlsx")
    campaign.write_text(campaign.read_text("utf-8").replace("people.csv", "people.xlsx"), "utf-8")
    monkeypatch.setattr("locale.localeconv", lambda: {"decimal_point": point})
    assert command("bulk", campaign, "--sandbox").code == 0
    assert command("results", campaign, "--sandbox").out.startswith(begins)
    assert command("results", campaign, "--sandbox", "--json").out.startswith('{"row"')


def test_a_program_gets_what_it_always_got(command: Command, campaign: Path) -> None:
    """By the ledger alone, or when the recipients' file is gone: commas, and no mark."""
    (campaign.parent / "people.csv").write_bytes("email;name\nann@example.org;Ann\n".encode("utf-8-sig"))
    assert command("bulk", campaign, "--sandbox").code == 0
    assert command("results", "--ledger", "news.sandbox.ledger").out.startswith("row,email")
    (campaign.parent / "people.csv").unlink()
    assert command("results", campaign, "--sandbox").out.startswith("row,email")
