"""`suppress`: a list is kept, and campaigns obey it."""

from __future__ import annotations

import json
from pathlib import Path

from asyncsmtp.testing import ScriptedRelay
from tests.cli.ended import Command
from tests.cli.serving import serving
from tests.cli.test_bulk import relay_at


def test_a_campaign_obeys_its_lists(command: Command, campaign: Path) -> None:
    """By the campaign file and by the option; status and results tell who got nothing, and why."""
    assert command("suppress", "no.db", "ANN@example.org", "bob@EXAMPLE.org", "--reason", "unsubscribed").code == 0
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
