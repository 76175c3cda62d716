"""The command with a ledger in a database: the same commands, by the same names."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.testing import NO_REPLY, Fin, ScriptedRelay, Stage
from tests.bulk.bounces.test_dsn import report
from tests.cli.conftest import CAMPAIGN
from tests.cli.ended import Command
from tests.cli.serving import serving
from tests.cli.test_bounces import TOKEN
from tests.cli.test_bulk import relay_at
from tests.cli.test_halted import printed_command
from tests.cli.test_results import failed_of_two_files
from tests.interop.postgres import Postgres

SECRET = "correct-horse"


def test_a_campaign_is_sent_looked_at_and_decided_about(command: Command, shared: Path) -> None:
    """One row is in doubt; a person has it sent again, and everybody has the message."""
    assert command("status", shared).out == "not begun yet\n"
    with serving(ScriptedRelay({Stage.END_OF_DATA: {1: (NO_REPLY, Fin())}})) as relay:
        ended = command("bulk", shared, *relay_at(relay), "--yes", "--sessions", 1, "--concurrency", 1)
    assert ended.code == 1, ended.err
    counts = json.loads(command("status", shared, "--json").out)
    assert (counts["accepted"], counts["in doubt"]) == (2, 1)
    assert "1 row to be sent again" in command("resolve", shared, "--resend", "--yes").err
    with serving(ScriptedRelay()) as relay:
        assert command("bulk", shared, *relay_at(relay), "--yes").code == 0
    lines = [json.loads(line) for line in command("results", shared, "--json").out.splitlines()]
    assert [(line["email"], line["state"]) for line in lines] == [
        ("ann@example.org", "accepted"),
        ("bob@example.org", "accepted"),
        ("cid@example.org", "accepted"),
    ]
    assert not list(shared.parent.glob("*.ledger*"))


def test_a_halted_run_is_put_right(command: Command, shared: Path) -> None:
    """FT-30, FT-31: rows are chosen in a database as in a file, and the printed command works as printed."""
    people = "".join(f"reader{n}@d{n % 9}.example,Reader {n}\n" for n in range(300))
    (shared.parent / "people.csv").write_text(f"email,name\n{people}", encoding="utf-8")
    with serving(ScriptedRelay({Stage.RCPT: {1: "550 5.1.1 unknown"}, Stage.MAIL: {2: "550 5.7.9 no"}})) as relay:
        assert command("bulk", shared, *relay_at(relay), "--yes", "--limit", 10, "--sessions", 1).code != 69
    with serving(ScriptedRelay({Stage.RCPT: "550 relay not permitted"})) as relay:
        ended = command("bulk", shared, *relay_at(relay), "--yes")
    assert ended.code == 69, ended.err
    assert json.loads(command("status", shared, "--json").out)["rejected"] == 22
    assert command(*printed_command(ended)).code == 0
    assert json.loads(command("status", shared, "--json").out)["rejected"] == 2
    for left, conditions in (
        (2, ("--enhanced-code", "5.7.1")),
        (1, ("--code", 550, "--reply", "UNKNOWN", "--host", "127.0.0.1", "--since", "1h")),
        (0, ("--enhanced-code", "5.7.9")),
    ):
        command("resolve", shared, *conditions, "--resend", "--yes")
        assert json.loads(command("status", shared, "--json").out)["rejected"] == left
    with serving(ScriptedRelay()) as relay:
        assert command("bulk", shared, *relay_at(relay), "--yes").code == 0


def test_a_database_is_named_outright(command: Command, campaign: Path, postgres: Postgres) -> None:
    """Without a campaign file: of the only campaign there is, or of the one behind the #."""
    with serving(ScriptedRelay()) as relay:
        assert command("bulk", campaign, *relay_at(relay), "--yes", "--ledger", postgres.url).code == 0
        assert len(command("results", "--ledger", postgres.url).out.splitlines()) == 4
        campaign.write_text(campaign.read_text().replace('"news"', '"offers"'))
        assert command("bulk", campaign, *relay_at(relay), "--yes", "--ledger", postgres.url, "--limit", 1).code == 75
    ended = command("results", "--ledger", postgres.url)
    assert "several campaigns (news, offers)" in ended.err
    assert json.loads(command("status", "--ledger", f"{postgres.url}#offers", "--json").out)["pending"] == 2
    assert "another campaign than offers" in command("bulk", campaign, "--ledger", f"{postgres.url}#news").err


def test_what_came_back_is_written_into_the_database(command: Command, shared: Path) -> None:
    """By the Message-ID; a second time changes nothing."""
    with serving(ScriptedRelay()) as relay:
        assert command("bulk", shared, *relay_at(relay), "--yes").code == 0
    first = json.loads(command("results", shared, "--json").out.splitlines()[0])
    inbox = shared.parent / "inbox"
    inbox.mkdir()
    text = report("text/rfc822-headers").replace(TOKEN, b"desk@example.org").replace(b"xyz@", b"%s@")
    (inbox / "1").write_bytes(text % first["message_id"].partition("@")[0].encode())
    assert "1 row rejected because of it" in command("bounces", shared, "--inbox", inbox).err
    assert "0 rows rejected because of it" in command("bounces", shared, "--inbox", inbox).err
    assert json.loads(command("status", shared, "--json").out)["rejected"] == 1


def test_rows_of_several_files_have_their_cells_under_their_names(command: Command, shared: Path) -> None:
    with serving(ScriptedRelay()) as relay:
        first, second = failed_of_two_files(command, shared, *relay_at(relay), "--yes")
    assert [first[name] for name in ("email", "name", "no", "state", "state_2")] == [
        "nobody",
        "Bob",
        "2",
        "",
        "rejected",
    ]
    assert [second[name] for name in ("email", "name", "no", "state")] == ["no one", "Cid", "3", "Graz"]


@pytest.mark.parametrize(
    "text", ["postgresql://db1:5432,db2:5432/mail?user=n", "postgresql:///mail", "postgres://n@[::1]:5432/mail#news"]
)
def test_a_url_without_a_password_is_taken(text: str) -> None:
    assert str(Database.parse(text)) == text


def test_a_rehearsal_stays_on_this_machine(command: Command, shared: Path, postgres: Postgres) -> None:
    """The sandbox is for trying out, so nothing of it is in the database."""
    assert command("bulk", shared, "--sandbox").code == 0
    assert command("bulk", shared, "--sandbox").code == 0  # afresh
    assert command("status", shared).out == "not begun yet\n"
    assert (shared.parent / "news.sandbox.ledger").exists()


@pytest.mark.parametrize(
    "place",
    [
        "news:{}@db.example/mail",
        "news:1/{}@db.example/mail",
        "news:?{}#@db.example",
        "db.example/mail?user=news&password={}",
        "db.example/mail?sslpassword={}",
        "news:{}@[::1",
    ],
)
def test_a_password_in_the_url_is_refused_and_not_shown(command: Command, campaign: Path, place: str) -> None:
    """What stands on a command line, or in a file that is kept with others, others can read."""
    text = f"postgresql://{place.format(SECRET)}"
    campaign.write_text(f'{CAMPAIGN}ledger = "{text}"\n', encoding="utf-8")
    for ended in (command("status", "--ledger", text), command("status", campaign), command("bulk", campaign)):
        assert ended.code == 2
        assert "there is a password in the ledger's URL" in ended.err
        assert SECRET not in ended.err + ended.out


def test_a_server_that_is_not_there_is_named(command: Command, campaign: Path) -> None:
    """The ledger, exit 74: nothing was sent."""
    ended = command("bulk", campaign, "--relay", "smtp://127.0.0.1:1?security=none", "--yes", "--ledger",
                    "postgresql://127.0.0.1:1/mail")  # fmt: skip
    assert ended.code == 74
    assert "postgresql://127.0.0.1:1/mail" in ended.err
    assert "see whether the database runs" in ended.err


def test_without_the_driver_it_says_what_to_install(
    command: Command, campaign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("asyncsmtp.bulk.ledger.postgres.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    ended = command("status", "--ledger", "postgresql://127.0.0.1:1/mail")
    assert ended.code == 2
    assert "pip install 'asyncsmtp[postgres]'" in ended.err
