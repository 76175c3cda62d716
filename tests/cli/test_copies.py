"""`to_name`, `cc`, `bcc` and `from` of each row by the command: check, preview, rehearsals, results, bounces."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from asyncsmtp.testing import Fin, ScriptedRelay, Stage
from tests.bulk.bounces.test_dsn import report
from tests.cli.ended import Command
from tests.cli.serving import serving
from tests.cli.test_bulk import refusing, relay_at
from tests.cli.test_webhook import hooking, with_webhook

PEOPLE = """\
email,name,boss
ann@example.org,Ann,"Boss <boss@example.net>; vice@example.net"
bob@example.org,"Doe, Bob",
cid@example.org,Cid,boss@example.net
"""
KEYS = """\
to_name = "{{ name }}"
cc = "{{ boss }}"
bcc = "archive@example.com"
"""
GONE = "550 5.1.1 no such user"
EVERYONE = 3 + 3 + 3  # To, Cc and Bcc


@pytest.fixture
def copying(campaign: Path) -> Path:
    """The small campaign, with Cc of some rows and an archive."""
    (campaign.parent / "people.csv").write_text(PEOPLE, encoding="utf-8")
    campaign.write_text(campaign.read_text("utf-8") + KEYS, encoding="utf-8")
    return campaign


def records(command: Command, campaign: Path, *options: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in command("results", campaign, "--json", *options).out.splitlines()]


def test_check_counts_copies_and_names_who_gets_many(command: Command, copying: Path) -> None:
    """An archive is a normal wish, somebody in Cc of all rows by mistake is not: both are shown."""
    ended = command("check", copying)
    assert ended.out.splitlines()[0].endswith("people.csv: 3 rows · 3 to be mailed · 6 copies for Cc and Bcc")
    assert "  archive@example.com is Bcc of 3 rows, and gets as many copies\n" in ended.out
    assert "  boss@example.net is Cc of 2 rows, and gets as many copies\n" in ended.out
    assert "vice" not in ended.out


def test_dry_run_names_row_and_key_of_a_wrong_address(command: Command, copying: Path) -> None:
    """Nothing is sent; the exit code is that of a row which cannot be mailed."""
    people = copying.parent / "people.csv"
    people.write_text(PEOPLE + "dan@example.org,Dan,boss at example.net\n", encoding="utf-8")
    ended = command("bulk", copying, "--dry-run")
    assert ended.code == 1
    assert "row 4 (line 5): cc: “boss at example.net” is not an e-mail address" in ended.out


def test_preview_shows_who_gets_copies(command: Command, copying: Path) -> None:
    """Bcc is in no header, so it is told beside the message."""
    lines = command("preview", copying).out.splitlines()
    assert lines[:2] == ["row 1", "copies: Cc boss@example.net, Cc vice@example.net, Bcc archive@example.com"]
    assert "To: Ann <ann@example.org>" in lines
    assert "Cc: Boss <boss@example.net>, vice@example.net" in lines
    assert not any(line.startswith("Bcc") for line in lines)
    assert "copies: Bcc archive@example.com" in command("preview", copying, "--row", 2).out
    assert command("preview", copying, "--output", "eml").code == 0
    assert b"archive" not in (copying.parent / "eml" / "row-1.eml").read_bytes()


def test_only_to_sends_no_copies(command: Command, copying: Path) -> None:
    """One message to the one address, and who would have got a copy."""
    with serving(ScriptedRelay()) as relay:
        ended = command("bulk", copying, *relay_at(relay), "--only-to", "me@example.org")
    assert (ended.code, [message.forward_paths for message in relay.received]) == (0, [("me@example.org",)])
    assert "not sent with --only-to: Cc boss@example.net, Cc vice@example.net, Bcc archive@example.com" in ended.err


def test_options_are_keys_too(command: Command, campaign: Path) -> None:
    """`--cc` and the like, without a key in the file."""
    with serving(ScriptedRelay()) as relay:
        ended = command(
            *("bulk", campaign, *relay_at(relay), "--yes", "--to-name", "{{ name }}"),
            *(
                "--cc",
                "boss@example.net",
                "--bcc",
                "{{ name|lower }}@example.com",
                "--reply-to",
                "{{ name }}@example.com",
            ),
        )
    assert ended.code == 0
    assert {address for message in relay.received for address in message.forward_paths} == {
        *("ann@example.org", "bob@example.org", "cid@example.org", "boss@example.net"),
        *("ann@example.com", "bob@example.com", "cid@example.com"),
    }
    assert {message.email["Reply-To"] for message in relay.received} == {
        *("Ann@example.com", "Bob@example.com", "Cid@example.com")
    }


def test_the_question_and_the_summary_count_everyone(command: Command, copying: Path) -> None:
    """Nine messages of three rows."""
    with serving(ScriptedRelay()) as relay:
        assert "this would send 9 messages from" in command("bulk", copying, *relay_at(relay)).err
        ended = command("bulk", copying, *relay_at(relay), "--yes", "--limit", 4)
        assert "4 accepted" in ended.err
        ended = command("bulk", copying, *relay_at(relay), "--yes", "--json")
    assert len(relay.received) == EVERYONE
    assert "in all 9 rows: 9 accepted" in ended.err
    found = [json.loads(line) for line in ended.out.splitlines()]
    assert {(each["row"], each.get("kind"), each["email"]) for each in found} == {
        *((2, None, "bob@example.org"), (2, "bcc", "archive@example.com")),
        *((3, None, "cid@example.org"), (3, "cc", "boss@example.net"), (3, "bcc", "archive@example.com")),
    }
    assert json.loads(command("status", copying, "--json").out)["accepted"] == EVERYONE


def test_results_have_everyone_under_their_row(command: Command, copying: Path) -> None:
    """The CSV has a column for it where there are copies; NDJSON has `kind` of copies."""
    with serving(ScriptedRelay(refusing(boss=GONE))) as relay:
        assert command("bulk", copying, *relay_at(relay), "--yes").code == 1
    rows = list(csv.DictReader(io.StringIO(command("results", copying).out)))
    assert [(row["row"], row["kind"], row["email"], row["state"]) for row in rows] == [
        ("1", "to", "ann@example.org", "accepted"),
        ("1", "cc", "boss@example.net", "rejected"),
        ("1", "cc", "vice@example.net", "accepted"),
        ("1", "bcc", "archive@example.com", "accepted"),
        ("2", "to", "bob@example.org", "accepted"),
        ("2", "bcc", "archive@example.com", "accepted"),
        ("3", "to", "cid@example.org", "accepted"),
        ("3", "cc", "boss@example.net", "rejected"),
        ("3", "bcc", "archive@example.com", "accepted"),
    ]
    assert len({row["message_id"] for row in rows}) == 3
    assert [each.get("kind") for each in records(command, copying)][:4] == [None, "cc", "cc", "bcc"]


def test_failed_rows_mail_nobody_twice(command: Command, copying: Path) -> None:
    """The line of a copy is that copy's: read as recipients again, it does not go to the one in To."""
    with serving(ScriptedRelay(refusing(vice=GONE, cid=GONE))) as relay:
        assert command("bulk", copying, *relay_at(relay), "--yes").code == 1
    text = command("results", copying, "--failed").out
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["email"], row["name"], row["boss"], row["kind"]) for row in rows] == [
        ("vice@example.net", "Ann", "", "cc"),
        ("cid@example.org", "Cid", "boss@example.net", "to"),
    ]
    (copying.parent / "failed.csv").write_text(text, encoding="utf-8")
    with serving(ScriptedRelay()) as relay:
        words = ("--recipients", "failed.csv", "--name", "again", "--email-column", "email", "--yes")
        assert command("bulk", copying, *relay_at(relay), *words).code == 0
    got = [address for message in relay.received for address in message.forward_paths]
    assert "ann@example.org" not in got
    assert got.count("vice@example.net") == 1


def test_resolve_lists_a_copy_in_doubt_and_decides_by_row(command: Command, copying: Path) -> None:
    """The kind is told; the decision is about who of the row is in doubt."""
    with serving(ScriptedRelay({Stage.END_OF_DATA: {1: Fin()}})) as relay:
        command("bulk", copying, *relay_at(relay), "--yes", "--limit", 2)
    (doubt,) = [each for each in records(command, copying) if each["state"] == "in doubt"]
    shown = command("resolve", copying).out
    assert f"row {doubt['row']}  {'cc ' if 'kind' in doubt else ''}{doubt['email']}  <" in shown
    assert "row 3 is pending" in command("resolve", copying, "--resend", "--row", 3, "--yes").err
    ended = command("resolve", copying, "--resend", "--row", doubt["row"], "--yes")
    assert (ended.code, "1 row to be sent again" in ended.err) == (0, True)


def test_a_webhook_gets_the_outcome_of_each(command: Command, copying: Path) -> None:
    """Each has an id of its own; `kind` tells a copy."""
    with hooking() as hook, serving(ScriptedRelay()) as relay:
        with_webhook(copying, hook)
        assert command("bulk", copying, *relay_at(relay), "--yes").code == 0
    assert len({str(each["id"]) for each in hook.posted}) == len(hook.posted) == EVERYONE
    assert sorted((each["row"], each.get("kind", "to"), each["email"]) for each in hook.posted)[:4] == [
        (1, "bcc", "archive@example.com"),
        (1, "cc", "boss@example.net"),
        (1, "cc", "vice@example.net"),
        (1, "to", "ann@example.org"),
    ]
    assert len({each["message_id"] for each in hook.posted}) == 3


TOKEN = b"bounces+abcdefghijklmnopqrstuvwxyz@example.org"


@pytest.mark.parametrize("by_return_path", [True, False])
def test_a_bounce_is_about_the_copy_that_failed(command: Command, copying: Path, by_return_path: bool) -> None:
    """By the token of its own return path, or by the row's Message-ID and the address; it goes on the list, once."""
    if by_return_path:
        text = copying.read_text("utf-8").replace(
            "[campaign]\n", '[campaign]\nreturn_path = "bounces+{{ token }}@example.org"\n'
        )
        copying.write_text(text, "utf-8")
    with serving(ScriptedRelay()) as relay:
        assert command("bulk", copying, *relay_at(relay), "--yes").code == 0
    (message,) = [each for each in relay.received if each.forward_paths == ("vice@example.net",)]
    inbox = copying.parent / "inbox"
    inbox.mkdir()
    if by_return_path:
        content = report().replace(TOKEN, message.reverse_path.encode())
    else:
        token = str(message.email["Message-ID"])[1:].partition("@")[0].encode()
        content = report("text/rfc822-headers").replace(TOKEN, b"desk@example.org").replace(b"xyz@", token + b"@")
        content = content.replace(b"ann@example.net", b"vice@example.net")
    (inbox / "1").write_bytes(content)
    words = ("bounces", copying, "--inbox", inbox, "--suppression", "gone.db")
    ended = command(*words)
    assert (ended.code, "1 row rejected because of it" in ended.err) == (0, True), ended.err
    assert [each["email"] for each in records(command, copying) if each["state"] == "rejected"] == ["vice@example.net"]
    assert command("suppress", "gone.db").out.splitlines()[1:] == ["vice@example.net,bounced: 5.1.1"]
    assert "0 rows rejected because of it" in command(*words).err


def test_rejected_copies_are_suppressed_as_rows_are(command: Command, copying: Path) -> None:
    """`suppress_rejected`: whoever is gone gets nothing in the next campaign, as a recipient or in Cc."""
    command("suppress", "gone.db", "--create")
    text = copying.read_text("utf-8").replace(
        "[campaign]\n", '[campaign]\nsuppress_rejected = true\nsuppression = "gone.db"\n'
    )
    copying.write_text(text, "utf-8")
    with serving(ScriptedRelay(refusing(vice=GONE))) as relay:
        assert command("bulk", copying, *relay_at(relay), "--yes").code == 1
    assert "vice@example.net" in command("suppress", "gone.db").out
    with serving(ScriptedRelay()) as relay:
        assert command("bulk", copying, *relay_at(relay), "--yes", "--name", "next").code == 0
    assert len(relay.received) == EVERYONE - 1
    assert not any("vice@example.net" in message.forward_paths for message in relay.received)
