"""Campaigns, lists and rates that version 0.1.0 stored go on as if nothing had happened.

Each is copied and finished by the command, so that only formats and options are relied on here. A relay that cannot
forget decides about each message; with what it decided for version 0.1.0 it is compared row by row. See
`tests/data/v0.1/README.md`.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from asyncsmtp.cli.main import main
from tests.interop.postgres import Postgres
from tests.kill.processes import OracleProcess, oracle

DATA = Path(__file__).parent.parent / "data" / "v0.1"
FOLDERS = sorted(path.name for path in DATA.iterdir() if path.is_dir())
IN_FILES = [name for name in FOLDERS if name != "postgres"]
PRIVATE = {".pem", ".key", ".secret"}
PART = 900_000_000  # microseconds: the part of a day by which a quota counts
HOUR = 3600.0


class Stored:
    """A copy of one folder, and the command, which runs in it.

    Args:
        words: for every command that opens the ledger, such as `--ledger URL`.
    """

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...] = ()) -> None:
        self.folder, self._capsys, self._words = folder, capsys, words
        self.complaints = ""

    def run(self, *words: str, code: int = 0) -> str:
        """Run the command; return what it printed."""
        self._capsys.readouterr()
        ended = main(list(words))
        printed = self._capsys.readouterr()
        self.complaints = printed.err
        assert ended == code, printed.err
        return printed.out

    def bulk(self, relay: OracleProcess, *words: str, code: int = 0) -> None:
        """Go on with the campaign."""
        url = f"smtp://127.0.0.1:{relay.port}?security=none"
        self.run("bulk", "campaign.toml", "--yes", "--relay", url, *self._words, *words, code=code)

    def resolve(self, *words: str, code: int = 0) -> str:
        """Decide about rows."""
        return self.run("resolve", "campaign.toml", *self._words, *words, code=code)

    def counts(self, *words: str) -> dict[str, int]:
        """How many rows are in each state, of those that have any."""
        found = json.loads(self.run("status", "campaign.toml", "--json", *self._words, *words))
        return {state: number for state, number in found.items() if number}

    def results(self, *words: str) -> list[dict[str, object]]:
        """What the ledger knows of each row."""
        printed = self.run("results", "campaign.toml", "--json", *self._words, *words)
        return [json.loads(line) for line in printed.splitlines()]

    def expected(self) -> list[dict[str, object]]:
        """The same as version 0.1.0 printed it."""
        lines = (self.folder / "results.ndjson").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def rows_in(self, state: str) -> dict[int, str]:
        """Row -> address."""
        return {int(str(row["row"])): str(row["email"]) for row in self.results() if row["state"] == state}

    def accepted_before(self) -> Counter[str]:
        """Address -> how many messages to it the relay accepted when version 0.1.0 sent."""
        lines = (self.folder / "relay.txt").read_text(encoding="utf-8").splitlines()
        return Counter(line.split()[2] for line in lines if line.startswith("accepted "))


Copy = Callable[..., Stored]


@pytest.fixture
def copy(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Copy:
    """Copy a folder of the data, and change into the copy."""

    def make(name: str, *words: str) -> Stored:
        folder = tmp_path / name
        shutil.copytree(DATA / name, folder)
        for path in folder.rglob("*"):
            if path.suffix in PRIVATE:
                path.chmod(0o600)  # as it was; git keeps no such thing
        monkeypatch.chdir(folder)
        return Stored(folder, capsys, words)

    return make


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[OracleProcess]:
    """A relay that accepts all but `nobody`, and remembers it."""
    with oracle(tmp_path / "oracle") as found:
        yield found


def accepted_by(relay: OracleProcess) -> Counter[str]:
    """Address -> how many messages to it the relay accepted."""
    assert not [verdict for verdict in relay.verdicts() if verdict.word == "mixed-up"]
    return Counter(verdict.recipient for verdict in relay.verdicts() if verdict.word == "accepted")


def newest(connection: sqlite3.Connection) -> int:
    """When a ledger was last written, in microseconds since 1970."""
    (found,) = connection.execute(
        "SELECT max(coalesce(max(updated_us), 0), (SELECT max(created_us) FROM campaign)) FROM delivery"
    ).fetchone()
    return int(found)


def shift(ledger: Path, ago: float = 0.0) -> None:
    """Move the times in a ledger, as if its run had ended `ago` seconds before now, or up to a quarter of an hour more.

    Quotas are counted by parts of the clock, so all moves by whole parts.
    """
    with closing(sqlite3.connect(ledger, isolation_level=None)) as connection:
        parts = (time.time_ns() // 1000 - int(ago * 1e6) - newest(connection)) // PART
        for table, column in (
            ("campaign", "created_us"),
            ("delivery", "first_us"),
            ("delivery", "updated_us"),
            ("delivery", "next_us"),
        ):
            connection.execute(f"UPDATE {table} SET {column} = {column} + ?", (parts * PART,))
        for name, value in connection.execute("SELECT name, value FROM memory").fetchall():
            lanes = json.loads(value)
            moved = {
                lane: {
                    rate: {str(int(part) + parts): number for part, number in counted.items()}
                    for rate, counted in rates.items()
                }
                for lane, rates in lanes.items()
            }
            connection.execute("UPDATE memory SET value = ? WHERE name = ?", (json.dumps(moved), name))


def shift_rates(path: Path, relay: OracleProcess) -> None:
    """Move the times in a file of shared rates to the last quarter of an hour, and its relay to this one."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        (last,) = connection.execute("SELECT max(part) FROM counted").fetchone()
        parts = time.time_ns() // 1000 // PART - int(last)
        connection.execute("UPDATE counted SET part = part + ?", (parts,))
        connection.execute("UPDATE spaced SET next_us = next_us + ?", ((parts - 1) * PART,))  # never ahead of now
        for table in ("counted", "spaced"):
            connection.execute(f"UPDATE {table} SET relay = replace(relay, ':2525', ?)", (f":{relay.port}",))


@pytest.mark.parametrize("name", [name for name in IN_FILES if name != "rehearsal"])
def test_results_are_those_that_were_printed_then(copy: Copy, name: str) -> None:
    """Every field of every row: states, replies, Message-IDs, attempts, times."""
    stored = copy(name)
    assert stored.results() == stored.expected()
    states = Counter(str(row["state"]) for row in stored.expected())
    assert stored.counts() == states


def test_a_loaded_campaign_is_sent_under_its_message_ids(copy: Copy, relay: OracleProcess) -> None:
    """The recipients and their Message-IDs are those of the ledger, made when the campaign was loaded."""
    stored = copy("loaded")
    stored.bulk(relay)
    assert stored.counts() == {"accepted": 5}
    sent = {(verdict.recipient, verdict.message_id) for verdict in relay.verdicts()}
    assert sent == {(row["email"], row["message_id"]) for row in stored.expected()}
    assert len(relay.verdicts()) == 5


@pytest.mark.parametrize("local", ["=?x?q?victim=40corp.example=3e=00?=foo", "j\ufffdrg", "a\u2028b"])
def test_an_address_that_is_refused_by_now_does_not_stop_a_campaign(
    copy: Copy, relay: OracleProcess, local: str
) -> None:
    """FT-01, FT-05: version 0.1.0 took it; its row is rejected with the reason, and the others are sent."""
    stored = copy("loaded")
    with closing(sqlite3.connect(stored.folder / "news.ledger", isolation_level=None)) as connection:
        connection.execute("UPDATE recipient SET address = ? WHERE seq = 2", (f"{local}@example.com",))
    stored.bulk(relay, code=1)
    assert stored.counts() == {"accepted": 4, "rejected": 1}
    (row,) = (row for row in stored.results() if row["state"] == "rejected")
    assert row["row"] == 2
    assert "is not an e-mail address" in str(row["reply"])
    assert len(relay.verdicts()) == 4


def test_a_killed_campaign_leaves_doubts_and_sends_the_rest_once(copy: Copy, relay: OracleProcess) -> None:
    """What was under way is in doubt; a person decides by the relay's log, and everyone has the message once."""
    stored = copy("killed")
    assert (stored.folder / "news.ledger-wal").stat().st_size > 0
    finish_killed(stored, relay)


def finish_killed(stored: Stored, relay: OracleProcess) -> None:
    """Finish a campaign of 16 rows that was killed; two are rejected."""
    under_way = {int(str(row["row"])) for row in stored.expected() if row["state"] == "sending"}
    assert under_way
    stored.bulk(relay, code=1)
    doubts = stored.rows_in("in doubt")
    assert doubts.keys() == under_way
    assert stored.counts() == {"accepted": 14 - len(doubts), "rejected": 2, "in doubt": len(doubts)}
    listed = stored.resolve(code=1)
    for row, address in doubts.items():
        assert any(str(row) in line.split() and address in line.split() for line in listed.splitlines())
    before = stored.accepted_before()
    arrived = [row for row, address in doubts.items() if before[address]]
    lost = [row for row in doubts if row not in arrived]
    for row in arrived:
        stored.resolve("--skip", "--yes", "--row", str(row))
    for row in lost:
        stored.resolve("--resend", "--yes", "--row", str(row))
    stored.bulk(relay, code=1)
    assert stored.counts() == {"accepted": 14 - len(arrived), "rejected": 2 + len(arrived)}
    after = accepted_by(relay)
    assert before + after == Counter({str(row["email"]): 1 for row in stored.results() if "somebody" in str(row)})
    ids = {row["email"]: row["message_id"] for row in stored.expected()}
    assert all(
        ids[verdict.recipient] == verdict.message_id for verdict in relay.verdicts() if verdict.word != "rejected"
    )


def test_a_killed_campaign_may_send_its_doubts_again(copy: Copy, relay: OracleProcess) -> None:
    """`in_doubt = resend`: nobody is left out, and only those in doubt may have it twice."""
    stored = copy("killed")
    doubts = [str(row["email"]) for row in stored.expected() if row["state"] == "sending"]
    stored.bulk(relay, "--in-doubt", "resend", code=1)
    assert stored.counts() == {"accepted": 14, "rejected": 2}
    copies = stored.accepted_before() + accepted_by(relay)
    assert len(copies) == 14
    assert all(number == 1 or (number == 2 and address in doubts) for address, number in copies.items())
    counted = {str(row["email"]): row["doubts"] for row in stored.results()}
    assert [address for address, number in counted.items() if number] == doubts


def test_deferred_rows_are_sent_when_they_are_due(copy: Copy, relay: OracleProcess) -> None:
    """An hour later: the second attempt of two rows, the first of three; what was decided stays."""
    stored = copy("outcomes")
    shift(stored.folder / "news.ledger", HOUR)
    deferred = stored.rows_in("deferred")
    assert len(deferred) == 2
    stored.bulk(relay, code=1)
    assert stored.counts() == {"accepted": 11, "rejected": 3, "in doubt": 1, "suppressed": 1}
    again = {row["row"]: row["attempts"] for row in stored.results() if row["row"] in deferred}
    assert again == dict.fromkeys(deferred, 2)
    lost = stored.rows_in("in doubt").values()
    assert stored.accepted_before() + accepted_by(relay) == Counter([*stored.rows_in("accepted").values(), *lost]), (
        "nobody twice, and nobody left out"
    )
    stored.resolve("--skip", "--yes")
    stored.bulk(relay, code=1)
    assert stored.counts() == {"accepted": 11, "rejected": 4, "suppressed": 1}
    assert sum(accepted_by(relay).values()) == 5


def test_deferred_rows_wait_until_they_are_due(copy: Copy, relay: OracleProcess) -> None:
    """Moved an hour ahead, their time is still to come: exit code 75, and nothing more to them."""
    stored = copy("outcomes")
    shift(stored.folder / "news.ledger", -HOUR)
    stored.bulk(relay, code=75)
    assert stored.counts() == {"accepted": 9, "deferred": 2, "rejected": 3, "in doubt": 1, "suppressed": 1}
    assert not accepted_by(relay).keys() & set(stored.rows_in("deferred").values())


def test_deferred_rows_are_given_up_after_their_time(copy: Copy, tmp_path: Path) -> None:
    """When the first attempt was made is stored too: five days later the next refusal is the last."""
    stored = copy("outcomes")
    shift(stored.folder / "news.ledger", 5 * 24 * HOUR)
    with oracle(tmp_path / "refusing", "--defer", "1") as relay:
        stored.bulk(relay, code=75)
    assert stored.counts() == {"accepted": 6, "deferred": 3, "rejected": 5, "in doubt": 1, "suppressed": 1}


def test_rejected_rows_can_be_sent_again(copy: Copy, relay: OracleProcess) -> None:
    """`resolve --state rejected`: the two that the relay refused, and not the one that is no address."""
    stored = copy("outcomes")
    shift(stored.folder / "news.ledger", HOUR)
    stored.resolve("--state", "rejected", "--resend", "--yes")
    stored.bulk(relay, code=1)
    refused = [verdict.recipient for verdict in relay.verdicts() if verdict.word == "rejected"]
    assert sorted(refused) == ["nobody3@example.net", "nobody7@example.com"]


def test_failed_rows_have_their_own_columns(copy: Copy) -> None:
    """The cells of the CSV are in the ledger, with what became of the row behind them."""
    printed = copy("outcomes").run("results", "campaign.toml", "--failed")
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert [(row["email"], row["name"], row["city"], row["state"]) for row in rows] == [
        ("nobody3@example.net", "Name 3", "Wien", "rejected"),
        ("somebody5@example.com", "Name 5", "Wien", "deferred"),
        ("somebody6@example.net", "Name 6", "Graz", "in doubt"),
        ("nobody7@example.com", "Name 7", "Wien", "rejected"),
        ("somebody10@example.com", "Name 10", "Graz", "deferred"),
        ("not an address", "Odd", "Wien", "rejected"),
    ]


def test_a_file_that_was_added_goes_on_too(copy: Copy, relay: OracleProcess) -> None:
    """Rows of both files are sent once; the same file again adds nobody."""
    stored = copy("added")
    stored.bulk(relay, "--add", "more.csv")
    before = stored.expected()
    assert [row["email"] for row in stored.results()[: len(before)]] == [row["email"] for row in before]
    assert stored.counts()["accepted"] == 8
    assert stored.counts().keys() == {"accepted", "suppressed"}
    copies = stored.accepted_before() + accepted_by(relay)
    assert len(copies) == 8
    assert set(copies.values()) == {1}


def test_a_quota_that_was_used_up_holds(copy: Copy, relay: OracleProcess) -> None:
    """Four a day, of which four were sent within the last hour: nobody today."""
    stored = copy("remembered_rates")
    shift(stored.folder / "news.ledger")
    stored.bulk(relay, code=75)
    assert relay.verdicts() == []
    assert stored.counts() == {"accepted": 4, "pending": 5}


def test_a_quota_that_was_used_up_is_free_a_day_later(copy: Copy, relay: OracleProcess) -> None:
    """Four more, and one of them to the domain that has a limit of its own."""
    stored = copy("remembered_rates")
    shift(stored.folder / "news.ledger", 25 * HOUR)
    stored.bulk(relay, code=75)
    sent = accepted_by(relay)
    assert sum(sent.values()) == 4
    assert sum(address.endswith("@example.net") for address in sent) == 1
    assert not sent.keys() & stored.accepted_before().keys()


def test_a_rehearsal_goes_on(copy: Copy) -> None:
    """The two that were rehearsed are not rehearsed again, and the campaign itself has not begun."""
    stored = copy("rehearsal")
    assert stored.results("--sandbox") == stored.expected()
    stored.run("bulk", "campaign.toml", "--sandbox")
    assert len(list((stored.folder / "news.sandbox.maildir" / "new").iterdir())) == 3
    assert stored.counts("--sandbox") == {"accepted": 5}
    assert stored.counts() == {}


def test_suppression_lists_are_read_and_added_to(copy: Copy, relay: OracleProcess) -> None:
    """Of each kind; who is on one gets nothing, also by an entry of today, and keeps the reason of then."""
    stored = copy("suppression")
    assert stored.run("suppress", "suppressed.db").splitlines() == [
        "address,reason",
        "@example.edu,unsubscribed",
        "Somebody1@EXAMPLE.com,unsubscribed",
        "somebody2@example.com,complained",
    ]
    stored.run("suppress", "suppressed.db", "somebody7@example.com", "somebody2@example.com", "--reason", "by phone")
    stored.run("suppress", "suppressed.db", "--remove", "@example.edu")
    printed = stored.run("suppress", "suppressed.db", "--json").splitlines()
    assert [json.loads(line) for line in printed] == [
        {"address": "Somebody1@EXAMPLE.com", "reason": "unsubscribed"},
        {"address": "somebody2@example.com", "reason": "complained"},
        {"address": "somebody7@example.com", "reason": "by phone"},
    ]
    with (stored.folder / "gone.txt").open("a", encoding="utf-8") as file:
        file.write("somebody8@example.com\n")
    suppressed = stored.rows_in("suppressed")
    stored.bulk(relay)
    assert stored.rows_in("suppressed").keys() == suppressed.keys() | {7, 8}
    assert accepted_by(relay) + stored.accepted_before() == Counter(stored.rows_in("accepted").values())
    assert stored.counts() == {"accepted": 10 - len(suppressed) - 2, "suppressed": len(suppressed) + 2}


def test_an_entry_keeps_when_it_was_made(copy: Copy) -> None:
    """To the microsecond, whatever is added later."""
    stored = copy("suppression")

    def entries() -> dict[str, tuple[str, int]]:
        with closing(sqlite3.connect(stored.folder / "suppressed.db")) as connection:
            found = connection.execute("SELECT key, reason, at_us FROM suppression").fetchall()
        return {key: (reason, at) for key, reason, at in found}

    before = entries()
    stored.run("suppress", "suppressed.db", *before, "new@example.org", "--reason", "other")
    after = entries()
    assert after.pop("new@example.org")[0] == "other"
    assert after == before


def test_what_was_sent_today_counts_for_the_next_campaign(copy: Copy, relay: OracleProcess) -> None:
    """Three of five were used by version 0.1.0, so that two are left to another campaign through that relay."""
    stored = copy("shared_rates")
    shift_rates(stored.folder / "rates.db", relay)
    url = f"smtp://127.0.0.1:{relay.port}?security=none"
    stored.run("bulk", "second.toml", "--yes", "--relay", url, code=75)
    assert sum(accepted_by(relay).values()) == 2
    assert json.loads(stored.run("status", "second.toml", "--json"))["pending"] == 2
    stored.run("bulk", "second.toml", "--yes", "--relay", url, code=75)
    assert sum(accepted_by(relay).values()) == 2


@pytest.mark.parametrize(("name", "left"), [("everything", 2), ("smime", 2)])
def test_a_campaign_is_the_same_to_its_fingerprint(copy: Copy, relay: OracleProcess, name: str, left: int) -> None:
    """Settings, templates, what they include, attachments, keys and secrets: no part is named otherwise today."""
    stored = copy(name)
    stored.bulk(relay)
    assert stored.counts()["accepted"] == 3
    assert sum(accepted_by(relay).values()) == left
    assert not accepted_by(relay).keys() & stored.accepted_before().keys()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("everything", "message.html"),
        ("everything", "head.txt"),
        ("everything", "terms.txt"),
        ("everything", "local.png"),
        ("everything", "campaign.toml"),
        ("everything", "unsubscribe.secret"),
        ("everything", "people.csv"),
        ("standard_input", "news.recipients.csv"),
    ],
)
def test_a_changed_file_is_refused(
    copy: Copy, relay: OracleProcess, monkeypatch: pytest.MonkeyPatch, name: str, file: str
) -> None:
    """TF-10: half of the recipients would get another message, so nothing is sent."""
    stored = copy(name)
    path = stored.folder / file
    if file == "campaign.toml":
        path.write_text(path.read_text(encoding="utf-8").replace("News for", "Offers for"), encoding="utf-8")
    else:
        path.write_bytes(path.read_bytes() + b"\n.\n")
    monkeypatch.setattr("sys.stdin", None)
    words = ["--recipients", "-"] if name == "standard_input" else []
    stored.bulk(relay, *words, code=2)
    assert relay.verdicts() == []
    assert (file if file != "campaign.toml" else "subject") in stored.complaints.replace("[unsubscribe]", file)


def test_links_that_were_sent_are_still_made(copy: Copy) -> None:
    """The token of a recipient is the same, so that whoever clicks today is found."""
    stored = copy("everything")
    shown = stored.run("preview", "campaign.toml", "--row", "5").splitlines()
    links = (stored.folder / "unsubscribe.txt").read_text(encoding="utf-8").splitlines()
    assert len(links) == 1
    assert links[0] in shown


def test_recipients_that_came_by_a_pipe_are_found(
    copy: Copy, relay: OracleProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in a file beside the ledger; there is nothing on standard input now."""
    stored = copy("standard_input")
    monkeypatch.setattr("sys.stdin", None)
    stored.bulk(relay, "--recipients", "-")
    assert stored.counts() == {"accepted": 4}
    assert set((stored.accepted_before() + accepted_by(relay)).values()) == {1}


@pytest.fixture
def database(postgres: Postgres) -> Postgres:
    """The database with what version 0.1.0 left in it."""
    for statement in (DATA / "postgres" / "dump.sql").read_text(encoding="utf-8").split(";\n"):
        if statement.strip() and not statement.startswith("SE"):  # SET and SELECT are about the session alone
            postgres.execute(statement.replace("%", "%%"))
    return postgres


def test_results_of_a_database_are_those_that_were_printed_then(copy: Copy, database: Postgres) -> None:
    stored = copy("postgres", "--ledger", database.url)
    assert stored.results() == stored.expected()
    assert stored.counts() == Counter(str(row["state"]) for row in stored.expected())


def test_a_killed_campaign_in_a_database_goes_on(copy: Copy, relay: OracleProcess, database: Postgres) -> None:
    """As one in a file does."""
    finish_killed(copy("postgres", "--ledger", database.url), relay)


def test_the_data_is_all_there() -> None:
    """A folder that is missing would not be tested."""
    lines = (DATA / "README.md").read_text("utf-8").splitlines()
    assert sorted(line.split("`")[1] for line in lines if line.startswith("| `")) == FOLDERS
