"""Reports of bounces out of a real mailbox: what is read, what is left as it was, and what is refused."""

from __future__ import annotations

import json
import tracemalloc
from datetime import date
from pathlib import Path
from urllib.parse import quote

import pytest

from asyncsmtp.bulk.bounces.dsn import MAX_DSN_BYTES
from asyncsmtp.bulk.bounces.imap import ImapFolder, ImapUrl
from asyncsmtp.protocol.auth.auth import Secret
from tests.bulk.bounces.test_dsn import report
from tests.cli.conftest import campaign, command  # noqa: F401 fixtures
from tests.cli.ended import Command
from tests.cli.test_bounces import TOKEN, sent  # noqa: F401 a fixture
from tests.interop.dovecot import Dovecot
from tests.interop.server import PASSWORD

pytestmark = pytest.mark.interop

ADA = "ada@example.com"


def url(dovecot: Dovecot, folder: str = "INBOX") -> str:
    return f"imaps://{quote(ADA)}@localhost:{dovecot.imaps}/{quote(folder)}"


def folder(dovecot: Dovecot, *, writable: bool = False, name: str = "INBOX") -> ImapFolder:
    place = ImapUrl.from_url(url(dovecot, name))
    return ImapFolder(place, Secret(PASSWORD), ca_file=dovecot.ca_file, writable=writable)


def returned(message_id: str) -> bytes:
    """A report about that message."""
    token = message_id.partition("@")[0].encode()
    return report().replace(TOKEN, b"bounces+" + token + b"@example.org")


def test_reports_are_read_from_a_mailbox_and_marked_only_when_asked(
    dovecot: Dovecot,
    command: Command,  # noqa: F811
    campaign: Path,  # noqa: F811
    sent: dict[str, str],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The row is rejected; a mail that is no report stays unseen; nothing is deleted."""
    monkeypatch.setenv("ASYNCSMTP_PASSWORD", PASSWORD)
    dovecot.put(ADA, [returned(sent["ann@example.org"]), b"Subject: hello\n\nNo report.\n"])
    words = ("bounces", campaign, "--inbox", url(dovecot), "--ca-file", dovecot.ca_file)
    ended = command(*words)
    assert ended.code == 0, ended.err
    assert "1 failure in imaps://ada@example.com@localhost:" in ended.err
    assert "; 1 row rejected because of it" in ended.err
    assert dovecot.flags(ADA) == ["", ""]
    ended = command(*words, "--seen")
    assert "1 failure in " in ended.err
    assert "; 0 rows rejected because of it" in ended.err
    assert dovecot.flags(ADA) == ["S", ""]
    assert "0 failures in " in command(*words, "--seen").err
    assert "1 failure in " in command(*words, "--since", "2020-01-01").err
    states = [json.loads(line)["state"] for line in command("results", campaign, "--json").out.splitlines()]
    assert states == ["rejected", "accepted", "accepted"]
    assert PASSWORD not in ended.err + ended.out


def test_messages_come_one_by_one_each_cut_where_no_report_goes_on(dovecot: Dovecot) -> None:
    """Newest first, no more than a few in memory, whatever their size; without asking nothing can be marked."""
    huge = report() + b"x" * 70 + b"\n"
    huge += (b"y" * 70 + b"\n") * (3 * MAX_DSN_BYTES // 71)
    dovecot.put(ADA, [huge] * 6)
    with folder(dovecot) as inbox:
        tracemalloc.start()
        try:
            found = [(uid, len(octets)) for uid, octets in inbox.messages(date(2020, 1, 1))]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert [size for _, size in found] == [MAX_DSN_BYTES] * 6
        assert peak < 5 * MAX_DSN_BYTES
        assert list(inbox.messages(date(2037, 1, 1))) == []
        inbox.mark_seen([uid for uid, _ in found])  # a folder that was opened to be read: the server itself keeps it so
    assert dovecot.flags(ADA) == [""] * 6


@pytest.mark.parametrize("name", ['a "quoted" folder', "a\\b", "Rückläufer & more", "x) (y"])
def test_a_folder_s_name_is_a_name_whatever_is_in_it(dovecot: Dovecot, name: str) -> None:
    """Quotes, what IMAP writes in its own way, and what would end a list; the server looks for just that one."""
    with pytest.raises(Exception, match="cannot be opened") as caught, folder(dovecot, name=name):
        pass
    assert "doesn't exist" in str(caught.value)


def test_a_wrong_password_a_wrong_authority_and_a_server_that_is_gone_are_reported(
    dovecot: Dovecot,
    command: Command,  # noqa: F811
    campaign: Path,  # noqa: F811
    sent: dict[str, str],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """77, 69 and 69; the password of one who is refused is not printed."""
    assert sent
    monkeypatch.setenv("ASYNCSMTP_PASSWORD", "wrong horse")
    words = ("bounces", campaign, "--inbox", url(dovecot))
    refused = command(*words, "--ca-file", dovecot.ca_file)
    assert refused.code == 77
    assert "the login is refused" in refused.sentence
    assert "wrong horse" not in refused.err
    strange = command(*words)
    assert strange.code == 69
    assert "the certificate is refused" in strange.sentence
    gone = command("bounces", campaign, "--inbox", "imaps://ada@127.0.0.1:1/INBOX")
    assert gone.code == 69
    assert "refused" in gone.sentence
