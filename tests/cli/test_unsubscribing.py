"""[unsubscribe]: the section, its secret, and what must stay the same while a campaign lasts."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncsmtp import Mailbox, unsubscribe_token
from asyncsmtp.testing import ScriptedRelay
from tests.cli.ended import Command
from tests.cli.serving import serving
from tests.cli.test_bulk import relay_at

SECTION = '\n[unsubscribe]\nurl = "https://example.org/u/{{ token }}"\nsecret_file = "secret"\n'
SECRET = "0123456789abcdef"


def with_section(campaign: Path, section: str = SECTION, mode: int = 0o600) -> None:
    campaign.write_text(campaign.read_text("utf-8") + section, encoding="utf-8")
    secret = campaign.parent / "secret"
    secret.write_text(SECRET + "\n", encoding="utf-8")
    secret.chmod(mode)


def test_each_recipient_has_a_way_out_and_a_reverse_path_of_his_own(command: Command, campaign: Path) -> None:
    """MH-19: and the text shows it."""
    with_section(campaign)
    (campaign.parent / "message.txt").write_text("Hello {{ name }}: {{ unsubscribe_url }}\n", encoding="utf-8")
    with serving(ScriptedRelay()) as relay:
        words = ("--yes", "--return-path", "bounces+{{ token }}@example.org")
        ended = command("bulk", campaign, *relay_at(relay), *words)
    assert ended.code == 0, ended.err
    for message in relay.received:
        token = unsubscribe_token(SECRET.encode(), Mailbox.parse(message.forward_paths[0]))
        assert message.email["List-Unsubscribe"] == f"<https://example.org/u/{token}>"
        assert message.email["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        assert token in message.email.get_content()
        assert message.reverse_path == f"bounces+{message.email['Message-ID'][1:].partition('@')[0]}@example.org"


def test_another_secret_is_another_message(command: Command, campaign: Path) -> None:
    """TF-10: what would be sent must stay the same; the ledger does not have the secret (BL-24)."""
    with_section(campaign)
    with serving(ScriptedRelay()) as relay:
        assert command("bulk", campaign, *relay_at(relay), "--yes", "--limit", 1).code == 75
        (campaign.parent / "secret").write_text("another secret of this length", encoding="utf-8")
        ended = command("bulk", campaign, *relay_at(relay), "--yes")
    assert ended.code == 2
    assert "the secret of [unsubscribe]" in ended.err
    assert SECRET.encode() not in (campaign.parent / "news.ledger").read_bytes()


def test_the_secret_may_be_in_the_environment(
    command: Command, campaign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_section(campaign, SECTION.replace('secret_file = "secret"\n', ""))
    assert "set ASYNCSMTP_UNSUBSCRIBE_SECRET" in command("bulk", campaign, "--dry-run").err
    monkeypatch.setenv("ASYNCSMTP_UNSUBSCRIBE_SECRET", SECRET)
    assert command("bulk", campaign, "--dry-run").code == 0


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("[unsubscribe]\n", "url is missing"),
        ('[unsubscribe]\nurl = "https://example.org/{{ token }}"\nsecret = "x"\n', "holds no secrets"),
        ('[unsubscribe]\nurl = "https://example.org/{{ token }}"\none_click = 1\n', "one_click must be true or false"),
        ('[unsubscribe]\nurl = "https://example.org/{{ token }}"\nlink = "x"\n', "unknown key “link”"),
        ("[unsubscribe]\nurl = 3\n", "url must be text, in quotes"),
        (SECTION.replace("https", "http"), "must begin with https://"),
        (SECTION.replace("secret_file", "mailto = 'nobody'\nsecret_file"), "it has no @"),
        (SECTION.replace('"secret"', '"none"'), "does not exist"),
    ],
)
def test_what_is_wrong_with_the_section_is_named(command: Command, campaign: Path, section: str, said: str) -> None:
    with_section(campaign, section)
    ended = command("bulk", campaign, "--dry-run")
    assert (ended.code, said in ended.sentence) == (2, True), ended.err


def test_a_secret_that_others_can_read_is_refused(command: Command, campaign: Path) -> None:
    """TF-15."""
    with_section(campaign, mode=0o644)
    ended = command("bulk", campaign, "--dry-run")
    assert "[unsubscribe] secret_file: other users of this machine can read" in ended.sentence
