"""`asyncsmtp forget`: what would go is shown first; then it is gone, from ledgers and lists, and nobody is mailed."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from asyncsmtp import SqliteLedger, SuppressionList
from asyncsmtp.testing import ScriptedRelay
from tests.cli.ended import Command
from tests.cli.serving import serving
from tests.interop.postgres import Postgres

ANN = "ann@example.org"


@pytest.fixture
def sent(campaign: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A campaign of which two of three rows were sent, with a list that has Ann."""
    text = campaign.read_text(encoding="utf-8").replace("[campaign]", '[campaign]\nsuppression = ["no.db", "no.txt"]')
    with serving(ScriptedRelay()) as relay:
        campaign.write_text(f'{text}\n[relay]\nurl = "smtp://127.0.0.1:{relay.port}?security=none"\n', encoding="utf-8")
        command("suppress", "no.db", "--create")
        Path("no.txt").write_text("# by hand\nzoe@example.org,by phone\n", encoding="utf-8")
        assert command("bulk", campaign, "--yes", "--limit", 2).code == 75
    command("suppress", "no.db", "Ann@example.org", "--reason", "asked by ann@example.org")
    Path("no.txt").write_text("# by hand\nzoe@example.org,by phone\nANN@example.org,by phone\n", encoding="utf-8")
    return campaign


def files_with(folder: Path, needle: bytes) -> list[str]:
    return sorted(each.name for each in folder.iterdir() if each.is_file() and needle in each.read_bytes().lower())


def test_nothing_is_removed_until_somebody_agrees(command: Command, sent: Path) -> None:
    """It is shown what would be; without a terminal --yes is needed."""
    before = {each.name: each.read_bytes() for each in sent.parent.iterdir() if each.is_file()}
    ended = command("forget", ANN, sent)
    assert ended.code == 2
    assert "1 row would be removed: 1 accepted" in ended.err
    assert "no.db: 1 entry would be removed; a hash keeps the person suppressed" in ended.err
    assert "--yes" in ended.err
    after = {each.name: each.read_bytes() for each in sent.parent.iterdir() if each.is_file()}
    assert {name for name in before if before[name] != after.get(name)} <= {"campaign.ledger-shm"}


@pytest.mark.parametrize("words", [("campaign.toml",), ("--all", "."), ("--name", "campaign")])
def test_a_person_is_forgotten_and_stays_suppressed(command: Command, sent: Path, words: tuple[str, ...]) -> None:
    """In the ledger, in a list and in a file of text; the files of people are named."""
    name = sent.read_text().partition('name = "')[2].partition('"')[0] or "people"
    ended = command(
        "forget",
        "Ann@Example.org",
        *(word.replace("campaign", name) if word == "campaign" else word for word in words),
        "--yes",
    )
    assert ended.code == 0, ended.err
    assert "the address is still in" in ended.err
    assert files_with(sent.parent, b"ann@example.org") == ["people.csv"]
    assert Path("no.txt").read_text().splitlines()[:2] == ["# by hand", "zoe@example.org,by phone"]
    hashed = SuppressionList("no.db").entries()[0]
    assert (hashed.address[:7], hashed.reason) == ("sha256:", "asked by forgotten")
    assert SuppressionList("no.db").reasons([ANN]) == {ANN: "asked by forgotten"}
    printed = command("results", sent).out
    assert ",accepted,250" in printed
    assert ",forgotten," in printed
    assert "1 row" not in command("forget", ANN, sent, "--yes").err, "there is nothing left"
    # In another campaign the hash is recognised, from the database and from the file of text.
    for list_ in ("no.db", "no.txt"):
        other = sent.with_name(f"other-{list_}.toml")
        text = sent.read_text().replace(
            'suppression = ["no.db", "no.txt"]', f'suppression = "{list_}"\nname = "{list_[:2]}{list_[3]}"'
        )
        other.write_text(
            "\n".join(dict.fromkeys(text.splitlines())).replace(f'\nname = "{name}"', ""), encoding="utf-8"
        )
        assert "1 row on a suppression list, not mailed" in command("bulk", other, "--yes", "--limit", 1).err


def test_a_row_still_to_be_sent_is_not(command: Command, sent: Path) -> None:
    """And the others are."""
    assert command("forget", "cid@example.org", sent, "--yes").code == 0
    with serving(ScriptedRelay()) as relay:
        ended = command("bulk", sent, "--yes", "--relay", f"smtp://127.0.0.1:{relay.port}?security=none")
        assert ended.code == 0, ended.err
        assert relay.received == []
    assert "2 accepted · 1 suppressed" in command("status", sent).out


def test_a_ledger_that_a_run_has_is_not_touched(command: Command, sent: Path) -> None:
    """The others are; the exit code says to come again."""
    shutil.copy("people.csv", "more.csv")
    (ledger,) = sent.parent.glob("*.ledger")

    async def while_open() -> tuple[int, str]:
        async with await SqliteLedger.open(ledger, name=ledger.stem, from_domain="example.org"):
            ended = await asyncio.to_thread(command, "forget", ANN, sent, "--yes")
        return ended.code, ended.err

    code, err = asyncio.run(while_open())
    assert code == 75
    assert "has" in err
    assert "open" in err
    assert SuppressionList("no.db").entries()[0].address.startswith("sha256:")
    assert command("forget", ANN, sent, "--yes").code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "nobody was named"),
        (("ann", "campaign.toml"), "ADDRESS"),
        (("@example.org", "campaign.toml"), "ADDRESS"),
        ((ANN,), "there is no ledger"),
        ((ANN, "--all", "nowhere"), "not a folder"),
        ((ANN, "campaign.toml", "--all", "."), "leave out the campaign"),
        ((ANN, "campaign.toml", "--expired"), "--expired is about everybody"),
    ],
)
def test_bad_input_is_one_sentence(command: Command, campaign: Path, words: tuple[str, ...], said: str) -> None:
    ended = command("forget", *words)
    assert (ended.code, said in ended.err) == (2, True), ended.err


def test_expired_ledgers_are_found_by_their_files_and_by_themselves(command: Command, sent: Path) -> None:
    """`retention` counts from the end of the campaign; `0s` is over at once."""
    with serving(ScriptedRelay()) as relay:
        url = f"smtp://127.0.0.1:{relay.port}?security=none"
        assert "no retention has passed" in command("forget", "--expired", sent.parent).err
        text = sent.read_text(encoding="utf-8")
        sent.write_text(text.replace("[campaign]", '[campaign]\nretention = "0s"'), encoding="utf-8")
        assert "no retention has passed" in command("forget", "--expired", sent).err, "a row is still to be sent"
        assert command("bulk", sent, "--yes", "--relay", url).code == 0
    ended = command("forget", "--expired", sent.parent)
    assert (ended.code, "3 rows would be removed" in ended.err) == (2, True), ended.err
    (ledger,) = sent.parent.glob("*.ledger")
    assert command("forget", "--expired", "--ledger", ledger, "--yes").code == 0
    assert files_with(sent.parent, b"cid@example.org") == ["people.csv"]
    assert "3 rows: 3 accepted" in command("status", sent).out
    assert "no retention has passed" in command("forget", "--expired", "--all", sent.parent).err


def test_a_retention_that_is_none_is_refused(command: Command, campaign: Path) -> None:
    text = campaign.read_text(encoding="utf-8")
    campaign.write_text(text.replace("[campaign]", '[campaign]\nretention = "ever"'), encoding="utf-8")
    ended = command("status", campaign)
    assert (ended.code, "retention: must be a span of time" in ended.err) == (2, True)


def test_every_campaign_of_a_database(command: Command, campaign: Path, postgres: Postgres) -> None:
    """A URL without a campaign's name is about all of them."""
    with serving(ScriptedRelay()) as relay:
        for name in ("one", "two"):
            words = (
                "--ledger",
                postgres.url,
                "--name",
                name,
                "--relay",
                f"smtp://127.0.0.1:{relay.port}?security=none",
            )
            assert command("bulk", campaign, "--yes", *words).code == 0
    ended = command("forget", ANN, "--ledger", postgres.url, "--yes")
    assert ended.code == 0, ended.err
    for name in ("one", "two"):
        assert f"#{name}: 1 row removed: 1 accepted" in ended.err
        assert ANN not in command("results", "--ledger", f"{postgres.url}#{name}").out
