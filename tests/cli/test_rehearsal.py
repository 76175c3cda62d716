"""`bulk --sandbox`: the whole job against a relay inside the command, and nothing of it counts."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from asyncsmtp.testing.received import Maildir
from tests.cli.ended import Command


def arrived(campaign: Path) -> list[str]:
    """Who got a mail, in order of arrival; the session that was first may differ."""
    mails = Maildir(campaign.parent / "news.sandbox.maildir").mails()
    return sorted(path for mail in mails for path in mail.forward_paths)


def test_the_sample_works_at_once(command: Command, tmp_path: Path) -> None:
    """The README's first command in small: text, HTML and an inline image for each, and one of them shown."""
    command("init", "demo", "--rows", 30)
    ended = command("bulk", "demo/campaign.toml", "--sandbox", "--yes", "--show", 1)
    assert ended.code == 0, ended.err
    assert "welcome: 30 accepted" in ended.err
    assert "nothing left this machine" in ended.err
    for part in ("Subject:", "welcome to the news", "text/plain", "text/html", "image/png", "logo.png", "Welcome, "):
        assert part in ended.out
    mails = list(Maildir(tmp_path / "demo/welcome.sandbox.maildir").mails())
    assert len(mails) == 30
    (image,) = [part for part in mails[0].message.walk() if part.get_content_type() == "image/png"]
    assert image.get_content() == (tmp_path / "demo/logo.png").read_bytes()


def test_a_rehearsal_never_marks_the_real_ledger(command: Command, campaign: Path) -> None:
    """What the sandbox accepted was mailed to nobody."""
    assert command("bulk", campaign, "--sandbox").code == 0
    assert json.loads(command("status", campaign, "--sandbox", "--json").out)["accepted"] == 3
    assert json.loads(command("status", campaign, "--json").out)["accepted"] == 0


def test_a_complete_rehearsal_begins_afresh(command: Command, campaign: Path) -> None:
    """Again means again: everyone, once, and the mails of the time before are gone."""
    for _ in range(2):
        assert command("bulk", campaign, "--sandbox").code == 0
        assert arrived(campaign) == ["ann@example.org", "bob@example.org", "cid@example.org"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--recipients", "nobody.csv"), "cannot be read"),
        (("--recipients", "-"), "no recipients on standard input"),
        (("--recipients", "empty.csv"), "nobody would be mailed"),
        (("--strict", "--recipients", "twice.csv"), "has the mailbox of row 1"),
    ],
)
def test_a_rehearsal_that_cannot_begin_leaves_the_last_one(
    command: Command, campaign: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], expected: str
) -> None:
    """Its ledger and its mails stay until the new recipients are checked; also where the last one is not complete."""
    (campaign.parent / "empty.csv").write_text("email,name\nnobody,Ann\n", encoding="utf-8")
    (campaign.parent / "twice.csv").write_text("email,name\n" + "ann@example.org,Ann\n" * 2, encoding="utf-8")
    for first, number in ((("--limit", 2), 2), ((), 3)):
        command("bulk", campaign, "--sandbox", *first)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
        ended = command("bulk", campaign, "--sandbox", *options)
        assert ended.code == 2
        assert expected in ended.err
        assert json.loads(command("status", campaign, "--sandbox", "--json").out)["accepted"] == number
        assert len(arrived(campaign)) == number


def test_rows_are_added_to_a_complete_rehearsal(command: Command, campaign: Path) -> None:
    """It does not begin afresh: there would be nothing to add them to."""
    (campaign.parent / "more.csv").write_text("email,name\ndan@example.org,Dan\n", encoding="utf-8")
    assert command("bulk", campaign, "--sandbox").code == 0
    assert command("bulk", campaign, "--sandbox", "--add", "more.csv").code == 0
    assert json.loads(command("status", campaign, "--sandbox", "--json").out)["accepted"] == 4


def test_an_incomplete_rehearsal_goes_on(command: Command, campaign: Path) -> None:
    """As the real campaign would."""
    assert command("bulk", campaign, "--sandbox", "--limit", 2).code == 75
    assert len(arrived(campaign)) == 2
    ended = command("bulk", campaign, "--sandbox")
    assert "resuming: " in ended.err
    assert arrived(campaign) == ["ann@example.org", "bob@example.org", "cid@example.org"]


def test_a_changed_campaign_begins_afresh(command: Command, campaign: Path) -> None:
    """One rehearses in order to change things; the real campaign refuses this (TF-10)."""
    command("bulk", campaign, "--sandbox", "--limit", 2)
    (campaign.parent / "message.txt").write_text("Changed, {{ name }}\n", encoding="utf-8")
    ended = command("bulk", campaign, "--sandbox")
    assert ended.code == 0
    assert "changed since the last rehearsal" in ended.err
    mails = list(Maildir(campaign.parent / "news.sandbox.maildir").mails())
    assert len(mails) == 3
    assert all(mail.text.startswith("Changed") for mail in mails)


def test_a_maildir_of_mine_is_never_emptied(command: Command, campaign: Path) -> None:
    """Only the one that the rehearsal chose itself is."""
    for times in (1, 2):
        assert command("bulk", campaign, "--sandbox", "--maildir", "mine").code == 0
        assert len(Maildir(campaign.parent / "mine")) == 3 * times


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--show", 1), "add --sandbox"),
        (("--maildir", "m"), "add --sandbox"),
        (("--sandbox", "--ledger", "x"), "--ledger"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    command: Command, campaign: Path, options: tuple[object, ...], expected: str
) -> None:
    """Silently ignored, they would be believed."""
    ended = command("bulk", campaign, *options)
    assert ended.code == 2
    assert expected in ended.err
