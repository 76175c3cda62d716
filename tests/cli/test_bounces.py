"""`bounces`: what came back is written into the ledger once, and into the suppression list by the row's own address."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asyncsmtp.testing import ScriptedRelay
from tests.bulk.bounces.test_dsn import report
from tests.cli.ended import Command
from tests.cli.serving import serving
from tests.cli.test_bulk import relay_at

TOKEN = b"bounces+abcdefghijklmnopqrstuvwxyz@example.org"


@pytest.fixture
def sent(command: Command, campaign: Path) -> dict[str, str]:
    """A campaign that was accepted; return the Message-ID of each address."""
    campaign.write_text(campaign.read_text("utf-8") + 'return_path = "bounces+{{ token }}@example.org"\n', "utf-8")
    with serving(ScriptedRelay()) as relay:
        assert command("bulk", campaign, *relay_at(relay), "--yes").code == 0
    rows = [json.loads(line) for line in command("results", campaign, "--json").out.splitlines()]
    return {row["email"]: row["message_id"] for row in rows}


def by_return_path(message_id: str) -> bytes:
    """A report on that message, sent to its return path."""
    return report().replace(TOKEN, b"bounces+" + message_id.partition("@")[0].encode() + b"@example.org")


def test_what_came_back_is_rejected_by_its_return_path_or_its_message_id(
    command: Command, campaign: Path, sent: dict[str, str]
) -> None:
    inbox = campaign.parent / "inbox"
    inbox.mkdir()
    (inbox / "1").write_bytes(by_return_path(sent["ann@example.org"]))
    by_id = report("text/rfc822-headers").replace(TOKEN, b"desk@example.org").replace(b"xyz@", b"%s@")
    (inbox / "2").write_bytes(by_id % sent["bob@example.org"].partition("@")[0].encode())
    (inbox / "3").write_bytes(report())  # somebody made this up
    words = ("bounces", campaign, "--from", inbox, "--suppress", "gone.db")
    ended = command(*words)
    assert ended.code == 0, ended.err
    assert "3 failures in " in ended.err
    assert "2 rows rejected because of it" in ended.err
    rows = [json.loads(line) for line in command("results", campaign, "--json").out.splitlines()]
    assert [row["state"] for row in rows] == ["rejected", "rejected", "accepted"]
    assert rows[0]["reply"].startswith("came back: 550 5.1.1 <ann@example.net>: no such user")
    assert rows[0]["status"] == "5.1.1"
    assert command("suppress", "gone.db").out.splitlines()[1:] == [
        "ann@example.org,bounced: 5.1.1",
        "bob@example.org,bounced: 5.1.1",
    ]
    assert "0 rows rejected because of it" in command(*words).err  # a second time changes nothing
    assert command("status", campaign, "--json").out.count('"rejected": 2') == 1


def test_a_report_that_was_read_does_not_count_for_a_message_sent_since(
    command: Command, campaign: Path, sent: dict[str, str]
) -> None:
    """Both attempts have one Message-ID; a Maildir is read from its beginning each time."""
    inbox = campaign.parent / "inbox"
    inbox.mkdir()
    (inbox / "1").write_bytes(by_return_path(sent["ann@example.org"]))
    assert "1 row rejected because of it" in command("bounces", campaign, "--from", inbox).err
    assert command("resolve", campaign, "--state", "rejected", "--resend", "--yes").code == 0
    with serving(ScriptedRelay()) as relay:
        assert command("bulk", campaign, *relay_at(relay), "--yes").code == 0
    assert "0 rows rejected because of it" in command("bounces", campaign, "--from", inbox).err
    assert command("status", campaign, "--json").out.count('"accepted": 3') == 1
    (inbox / "2").write_bytes(by_return_path(sent["ann@example.org"]) + b"\n")
    assert "1 row rejected because of it" in command("bounces", campaign, "--from", inbox).err


def test_a_mailbox_without_reports_changes_nothing(command: Command, campaign: Path, sent: dict[str, str]) -> None:
    assert "0 failures in people.csv; 0 rows" in command("bounces", campaign, "--from", "people.csv").err
    assert "cannot be read" in command("bounces", campaign, "--from", "none").sentence
    assert sent
