"""[smime]: read before anything is sent, and what is wrong with it is said with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncsmtp.testing import ScriptedRelay
from tests.cli.ended import Command
from tests.cli.serving import serving
from tests.cli.test_bulk import relay_at
from tests.mail.test_smime import Papers, pem

SECTION = '[smime]\ncertificate = "news.pem"\nkey = "news.key"\nchain = "root.pem"\n'


@pytest.fixture
def sealed(campaign: Path) -> Path:
    """A campaign whose messages are signed."""
    lay(campaign, Papers())
    campaign.write_text(campaign.read_text("utf-8") + SECTION, encoding="utf-8")
    return campaign


def lay(campaign: Path, papers: Papers) -> None:
    for name, octets in (("news.pem", papers.leaf), ("news.key", pem(papers.key)), ("root.pem", papers.root)):
        (campaign.parent / name).write_bytes(octets)
        (campaign.parent / name).chmod(0o600)


def test_every_message_is_signed(command: Command, sealed: Path) -> None:
    with serving(ScriptedRelay()) as relay:
        assert command("bulk", sealed, *relay_at(relay), "--yes").code == 0
    assert {mail.email.get_content_type() for mail in relay.received} == {"multipart/signed"}
    assert len(relay.received) == 3


def test_another_certificate_is_another_content(command: Command, sealed: Path) -> None:
    """TF-10: what was begun goes on as it began."""
    with serving(ScriptedRelay()) as relay:
        assert command("bulk", sealed, *relay_at(relay), "--yes", "--limit", 1).code == 75
        lay(sealed, Papers())
        ended = command("bulk", sealed, *relay_at(relay), "--yes")
    assert ended.code == 2
    assert "smime" in ended.err


def test_what_is_wrong_stops_it_before_the_first_message(command: Command, sealed: Path) -> None:
    """A key that others can read, one that is missing, a certificate that is over, one for another address."""
    folder = sealed.parent
    (folder / "news.key").chmod(0o644)
    assert "other users of this machine can read" in command("bulk", sealed, "--dry-run").sentence
    (folder / "news.key").unlink()
    assert "news.key: does not exist" in command("bulk", sealed, "--dry-run").sentence
    lay(sealed, Papers(days=-1))
    assert "news.pem ended on " in command("bulk", sealed, "--dry-run").sentence
    lay(sealed, Papers())
    sealed.write_text(sealed.read_text("utf-8").replace("<news@", "<other@"), encoding="utf-8")
    ended = command("check", sealed)
    assert "certificate of [smime] is for news@example.org, and From is other@example.org" in ended.out
