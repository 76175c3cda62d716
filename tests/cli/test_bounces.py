"""`bounces`: what came back is written into the ledger once, and into the suppression list by the row's own address."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import imapclient
import pytest

from asyncsmtp.bulk.bounces import imap, pop3
from asyncsmtp.bulk.suppression import Suppressed, SuppressionList
from asyncsmtp.errors import SuppressionError
from asyncsmtp.testing import ScriptedRelay
from tests.bulk.bounces.test_dsn import report
from tests.bulk.bounces.test_feedback import REPORT as FEEDBACK
from tests.bulk.bounces.test_feedback import TOKEN as FEEDBACK_TOKEN
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
    words = ("bounces", campaign, "--inbox", inbox, "--suppression", "gone.db")
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
    assert "1 row rejected because of it" in command("bounces", campaign, "--inbox", inbox).err
    assert command("resolve", campaign, "--state", "rejected", "--resend", "--yes").code == 0
    with serving(ScriptedRelay()) as relay:
        assert command("bulk", campaign, *relay_at(relay), "--yes").code == 0
    assert "0 rows rejected because of it" in command("bounces", campaign, "--inbox", inbox).err
    assert command("status", campaign, "--json").out.count('"accepted": 3') == 1
    (inbox / "2").write_bytes(by_return_path(sent["ann@example.org"]) + b"\n")
    assert "1 row rejected because of it" in command("bounces", campaign, "--inbox", inbox).err


def test_a_mailbox_without_reports_changes_nothing(command: Command, campaign: Path, sent: dict[str, str]) -> None:
    assert "0 failures in people.csv; 0 rows" in command("bounces", campaign, "--inbox", "people.csv").err
    assert "cannot be read" in command("bounces", campaign, "--inbox", "none").sentence
    assert sent


def about(message_id: str, status: str = "5.1.1", words: str = "550 5.1.1 no such user") -> bytes:
    """A report on that message."""
    fields = f"Action: failed\nStatus: {status}\nDiagnostic-Code: smtp; {words}\n"
    head, tail = report().split(b"Action: failed\n", 1)
    data = head + fields.encode() + tail[tail.index(b"\nFinal-Recipient") :]
    return data.replace(TOKEN, b"bounces+" + message_id.partition("@")[0].encode() + b"@example.org")


def listed(command: Command) -> list[str]:
    return command("suppress", "gone.db").out.splitlines()[1:]


def states(command: Command, campaign: Path) -> list[str]:
    return [json.loads(line)["state"] for line in command("results", campaign, "--json").out.splitlines()]


def write_inbox(campaign: Path, *reports: bytes) -> Path:
    inbox = campaign.parent / "inbox"
    inbox.mkdir(exist_ok=True)
    for number, data in enumerate(reports):
        (inbox / str(number)).write_bytes(data)
    return inbox


def test_nobody_is_listed_for_the_fault_of_the_sender(command: Command, campaign: Path, sent: dict[str, str]) -> None:
    """FT-03: all three are rejected, with the more exact code; one is listed."""
    inbox = write_inbox(
        campaign,
        about(sent["ann@example.org"], "5.1.8", "553 5.1.8 domain of sender does not exist"),
        about(sent["bob@example.org"], "5.1.1", "552 5.2.2 over quota"),
        about(sent["cid@example.org"], "5.0.0", "550 5.1.1 user unknown"),
    )
    ended = command("bounces", campaign, "--from", inbox, "--suppress", "gone.db")
    assert "3 rows rejected because of it" in ended.err
    assert "1 entry added to gone.db" in ended.err
    rows = [json.loads(line) for line in command("results", campaign, "--json").out.splitlines()]
    assert [row["status"] for row in rows] == ["5.1.8", "5.2.2", "5.1.1"]
    assert listed(command) == ["cid@example.org,bounced: 5.1.1"]


@pytest.mark.parametrize("first", ["5.1.1", "5.2.2"])
def test_of_two_reports_on_a_row_each_counts(
    command: Command, campaign: Path, sent: dict[str, str], first: str
) -> None:
    """FT-03: whichever comes first; the one that shows that nobody is there lists the address."""
    codes = {"5.1.1": "550 5.1.1 no such user", "5.2.2": "552 5.2.2 over quota"}
    (second,) = codes.keys() - {first}
    reports = [about(sent["ann@example.org"], code, codes[code]) for code in (first, second)]
    inbox = write_inbox(campaign, *reports)
    ended = command("bounces", campaign, "--from", inbox, "--suppress", "gone.db")
    assert "2 failures in " in ended.err
    assert "1 row rejected because of it" in ended.err
    assert listed(command) == ["ann@example.org,bounced: 5.1.1"]


@pytest.mark.parametrize("broken", ["add", "mark"])
def test_what_was_interrupted_is_done_by_the_same_command(
    command: Command, campaign: Path, sent: dict[str, str], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """FT-66: the ledger is written, and then the list cannot be, or the connection to the mailbox breaks."""
    folder = Mailbox({1: about(sent["ann@example.org"])})
    folder.replace_client(monkeypatch)

    def fail(*_: object) -> int:
        raise SuppressionError("the disk is full")

    words = ("bounces", campaign, "--from", URL, "--suppress", "gone.db", "--seen")
    with monkeypatch.context() as broken_here:
        if broken == "add":
            broken_here.setattr(SuppressionList, "add", fail)
        else:
            broken_here.setattr(imap.ImapFolder, "mark_seen", fail)
        assert command(*words).code != 0
    assert states(command, campaign) == ["rejected", "accepted", "accepted"]
    assert folder.seen == set()
    ended = command(*words)
    assert "0 rows rejected because of it" in ended.err
    assert listed(command) == ["ann@example.org,bounced: 5.1.1"]
    assert folder.seen == {1}


def test_whoever_was_taken_off_the_list_is_on_it_again(command: Command, campaign: Path, sent: dict[str, str]) -> None:
    """FT-66: the same command has the same result, with another list as well."""
    words = ("bounces", campaign, "--from", write_inbox(campaign, about(sent["ann@example.org"])), "--suppress")
    for name in ("gone.db", "gone.db", "other.db"):
        assert command(*words, name).code == 0
        assert command("suppress", name).out.splitlines()[1:] == ["ann@example.org,bounced: 5.1.1"]
        assert command("suppress", name, "ann@example.org", "--remove").code == 0


def test_a_person_s_decision_to_send_again_is_not_undone_by_an_old_report(
    command: Command, campaign: Path, sent: dict[str, str]
) -> None:
    """FT-66: the row was sent again and accepted; what its first message met is no reason any more."""
    inbox = write_inbox(campaign, about(sent["ann@example.org"]))
    words = ("bounces", campaign, "--from", inbox, "--suppress", "gone.db")
    command(*words)
    command("suppress", "gone.db", "ann@example.org", "--remove")
    command("resolve", campaign, "--state", "rejected", "--resend", "--yes")
    with serving(ScriptedRelay()) as relay:
        command("bulk", campaign, *relay_at(relay), "--yes")
    assert "0 entries added to gone.db" in command(*words).err
    assert states(command, campaign) == ["accepted"] * 3


class Mailbox:
    """A folder of an IMAP server, behind the library that talks to it.

    Attributes:
        seen: UIDs of the messages that are marked. calls: of `add_flags`, in order.
    """

    def __init__(self, messages: dict[int, bytes]) -> None:
        self.messages = messages
        self.seen: set[int] = set()
        self.flagged: list[tuple[int, ...]] = []
        self.writable = False

    def replace_client(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the program connect to this folder."""
        monkeypatch.setenv("ASYNCSMTP_PASSWORD", "secret")
        monkeypatch.setattr(imapclient, "IMAPClient", lambda *_, **__: self)

    def plain_login(self, user: str, password: str) -> None:
        assert (user, password) == ("news", "secret")

    def select_folder(self, name: str, readonly: bool) -> dict[bytes, int]:
        assert name == "INBOX"
        self.writable = not readonly
        return {b"EXISTS": len(self.messages)}

    def search(self, criteria: Sequence[object]) -> list[int]:
        _, *rest = criteria
        assert rest == ["UNSEEN"] or rest == ["SINCE", date(2026, 1, 1)]
        return [uid for uid in self.messages if rest[0] == "SINCE" or uid not in self.seen]

    def fetch(self, uids: Sequence[int], parts: Sequence[str]) -> dict[int, dict[bytes, bytes]]:
        assert parts[0].startswith("BODY.PEEK[]<0.")
        return {uid: {b"BODY[]<0>": self.messages[uid]} for uid in uids}

    def add_flags(self, uids: Sequence[int], flags: Sequence[bytes], silent: bool) -> None:
        assert self.writable
        assert flags == [rb"\Seen"]
        assert silent
        self.flagged.append(tuple(uids))
        self.seen.update(uids)

    def __exit__(self, *_: object) -> None:
        pass

    def shutdown(self) -> None:
        pass


URL = "imaps://news@mail.example.org/INBOX"


@pytest.fixture
def second(command: Command, campaign: Path, sent: dict[str, str]) -> tuple[Path, str]:
    """Another campaign to the same people; the file, and the Message-ID to ann."""
    assert sent
    other = campaign.with_name("offers.toml")
    other.write_text(campaign.read_text("utf-8").replace('"news"', '"offers"'), "utf-8")
    with serving(ScriptedRelay()) as relay:
        assert command("bulk", other, *relay_at(relay), "--yes").code == 0
    return other, json.loads(command("results", other, "--json").out.splitlines()[0])["message_id"]


def test_only_what_was_written_into_this_ledger_is_seen(
    command: Command, campaign: Path, sent: dict[str, str], second: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """FT-04, FT-80: each of two campaigns reads and marks its own reports, in whatever order they run."""
    other, message_id = second
    delayed = report().replace(b"Action: failed", b"Action: delayed")
    folder = Mailbox(
        {
            1: about(sent["ann@example.org"]),
            2: about(message_id),
            3: b"Subject: hello\n\nNo report.\n",
            4: about(sent["bob@example.org"], "5.2.2", "552 5.2.2 over quota"),
            5: report(),  # about a message of neither
            6: delayed.replace(
                TOKEN, b"bounces+" + sent["cid@example.org"].partition("@")[0].encode() + b"@example.org"
            ),
        }
    )
    folder.replace_client(monkeypatch)
    words = ("--from", URL, "--seen", "--suppress", "gone.db")
    ended = command("bounces", campaign, *words)
    assert ended.code == 0, ended.err
    assert folder.flagged == [(1, 4)]
    assert (
        "6 messages read: 2 on rows of this campaign, 2 on nobody here, 1 without a failure, 1 not understood"
        in ended.err
    )
    ended = command("bounces", other, *words)
    assert folder.flagged == [(1, 4), (2,)]
    assert "4 messages read: 1 on rows of this campaign, 1 on nobody here, 1 without a failure, 1 not" in ended.err
    assert states(command, other) == ["rejected", "accepted", "accepted"]
    assert states(command, campaign) == ["rejected", "rejected", "accepted"]


def test_nothing_is_seen_unless_it_is_asked_for(
    command: Command, campaign: Path, sent: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """FT-80: without --seen; a report that an earlier command recorded is marked by a later one with it."""
    folder = Mailbox({7: about(sent["ann@example.org"])})
    folder.replace_client(monkeypatch)
    assert "1 row rejected" in command("bounces", campaign, "--from", URL).err
    assert (folder.flagged, folder.writable) == ([], False)
    assert "0 rows rejected" in command("bounces", campaign, "--from", URL, "--seen", "--since", "2026-01-01").err
    assert folder.flagged == [(7,)]
    assert "0 failures in" in command("bounces", campaign, "--from", URL, "--seen").err


def test_a_report_is_seen_last(
    command: Command, campaign: Path, sent: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """FT-66, FT-04: when it is marked, the ledger and the list have what follows from it."""
    folder = Mailbox({1: about(sent["ann@example.org"]), 2: about(sent["bob@example.org"])})
    folder.replace_client(monkeypatch)
    then: list[object] = []
    mark: Callable[..., None] = folder.add_flags

    def look(*arguments: object, **named: object) -> None:
        then.extend(SuppressionList("gone.db").entries())
        mark(*arguments, **named)

    monkeypatch.setattr(folder, "add_flags", look)
    assert command("bounces", campaign, "--from", URL, "--seen", "--suppress", "gone.db").code == 0
    assert then == [Suppressed(f"{name}@example.org", "bounced: 5.1.1") for name in ("ann", "bob")]
    assert folder.seen == {1, 2}


def test_a_large_mailbox_is_read_in_batches(
    command: Command, campaign: Path, sent: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """FT-04, FT-80: each batch is marked when it is recorded; several reports on one row are in several."""
    monkeypatch.setattr("asyncsmtp.cli.commands.suppression.bounces.BATCH_SIZE", 2)
    ids = [sent[f"{name}@example.org"] for name in ("ann", "ann", "bob", "cid", "cid")]
    folder = Mailbox({uid: about(found, words=f"550 5.1.1 no such user {uid}") for uid, found in enumerate(ids)})
    folder.replace_client(monkeypatch)
    ended = command("bounces", campaign, "--from", URL, "--seen")
    assert "5 failures in" in ended.err
    assert "3 rows rejected because of it" in ended.err
    assert folder.flagged == [(0,), (1,), (2, 3), (4,)]


def without_token(recipient: str, status: str = "5.1.1") -> bytes:
    """A report to a fixed address that has nothing of the message but the address that it was for."""
    data = report().replace(TOKEN, b"desk@example.org").replace(b"Message-ID: <xyz@example.org>\n", b"")
    return data.replace(b"ann@example.net", recipient.encode()).replace(b"5.1.1", status.encode())


def test_without_a_token_the_address_of_who_is_gone_names_the_row(
    command: Command, campaign: Path, sent: dict[str, str]
) -> None:
    """A relay that writes a Message-ID of its own leaves nothing else; where the return path has a token it does."""
    inbox = write_inbox(
        campaign,
        without_token("ANN@example.org"),
        without_token("bob@example.org", "5.7.1"),  # perhaps about another message
        without_token("stranger@example.org"),
    )
    words = ("bounces", campaign, "--inbox", inbox, "--suppression", "gone.db")
    assert sent
    assert "0 rows rejected because of it" in command(*words).err
    text = campaign.read_text("utf-8")
    campaign.write_text(text.replace("bounces+{{ token }}@", "desk@"), "utf-8")
    ended = command(*words)
    assert "1 row rejected because of it" in ended.err
    assert "3 messages read: 1 on rows of this campaign, 2 on nobody here" in ended.err
    assert states(command, campaign) == ["rejected", "accepted", "accepted"]
    assert listed(command) == ["ann@example.org,bounced: 5.1.1"]
    assert "0 rows rejected because of it" in command(*words).err


def test_without_a_return_path_reports_come_to_the_sender_and_are_matched_by_address(
    command: Command, campaign: Path
) -> None:
    """That is what a first campaign is like; by its ledger alone nobody knows what its return path was."""
    with serving(ScriptedRelay()) as relay:
        assert command("bulk", campaign, *relay_at(relay), "--yes").code == 0
    inbox = write_inbox(campaign, without_token("cid@example.org"))
    assert "1 row rejected because of it" in command("bounces", campaign, "--inbox", inbox).err
    assert states(command, campaign) == ["accepted", "accepted", "rejected"]


def test_whoever_complained_is_listed_and_the_row_stays_accepted(
    command: Command, campaign: Path, sent: dict[str, str]
) -> None:
    """RFC 5965: the message arrived."""
    ours = FEEDBACK.replace(FEEDBACK_TOKEN.encode(), sent["bob@example.org"].partition("@")[0].encode())
    inbox = write_inbox(campaign, ours, FEEDBACK)
    words = ("bounces", campaign, "--inbox", inbox)
    ended = command(*words)
    assert "0 failures in" in ended.err
    assert "2 complaints; --suppression keeps these people from further mail" in ended.err
    assert "2 messages read: 1 on rows of this campaign, 1 on nobody here" in ended.err
    for number in (1, 0):
        assert f"{number} entr{'y' if number == 1 else 'ies'} added" in command(*words, "--suppression", "gone.db").err
    assert listed(command) == ["bob@example.org,complaint"]
    assert states(command, campaign) == ["accepted"] * 3


def test_a_mailbox_by_pop3_is_read(
    command: Command, campaign: Path, sent: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 1939 knows no marks, so `--seen` and `--since` are about IMAP."""
    messages = [about(sent["ann@example.org"])]
    monkeypatch.setenv("ASYNCSMTP_PASSWORD", "secret")
    monkeypatch.setattr(pop3.Pop3Mailbox, "__enter__", lambda self: self)
    monkeypatch.setattr(pop3.Pop3Mailbox, "messages", lambda self: iter(enumerate(messages, 1)))
    words = ("bounces", campaign, "--inbox", "pop3s://news@mail.example.org", "--suppression", "gone.db")
    for rejected in ("1 row rejected", "0 rows rejected"):
        ended = command(*words)
        assert f"1 failure in pop3s://news@mail.example.org:995; {rejected} because of it" in ended.err
    assert listed(command) == ["ann@example.org,bounced: 5.1.1"]
    assert "POP3 reads all messages" in command(*words, "--seen").err


def test_one_mailbox_serves_all_campaigns_of_a_folder(
    command: Command, campaign: Path, sent: dict[str, str], second: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--all`: each marks its own reports; a campaign that has not begun and another program's file are left out."""
    other, message_id = second
    campaign.with_name("pyproject.toml").write_text("[project]\n", "utf-8")
    campaign.with_name("later.toml").write_text(campaign.read_text("utf-8").replace('"news"', '"later"'), "utf-8")
    folder = Mailbox({1: about(sent["ann@example.org"]), 2: about(message_id), 3: report()})
    folder.replace_client(monkeypatch)
    ended = command("bounces", "--all", campaign.parent, "--inbox", URL, "--seen", "--suppression", "gone.db")
    assert ended.code == 0, ended.err
    assert ended.err.count("1 row rejected because of it") == 2
    assert folder.seen == {1, 2}
    assert states(command, campaign) == states(command, other) == ["rejected", "accepted", "accepted"]
    assert "leave out the campaign" in command("bounces", campaign, "--all", ".", "--inbox", URL).err
    empty = campaign.parent / "empty"
    empty.mkdir()
    assert "has no campaign that has begun" in command("bounces", "--all", empty, "--inbox", URL).sentence


def test_watch_reads_again_and_outlives_a_server_that_is_away(
    command: Command, campaign: Path, sent: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--watch`: until Ctrl-C; what came meanwhile is read, and a wrong password ends it."""
    folder = Mailbox({})
    folder.replace_client(monkeypatch)
    pauses: list[float] = []

    def away(*_: object, **__: object) -> Mailbox:
        raise ConnectionRefusedError(111, "Connection refused")

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 1:
            monkeypatch.setattr(imapclient, "IMAPClient", away)
        elif len(pauses) == 2:
            folder.messages[1] = about(sent["ann@example.org"])
            folder.replace_client(monkeypatch)
        else:
            raise KeyboardInterrupt

    monkeypatch.setattr("asyncsmtp.cli.commands.suppression.bounces.time.sleep", pause)
    words = ("bounces", campaign, "--inbox", URL, "--watch", "60")
    ended = command(*words)
    assert (ended.code, pauses) == (130, [60, 60, 60])
    assert "onnection refused" in ended.err
    assert "1 row rejected because of it" in ended.err
    assert "reading again in 60 s" in ended.err
    del pauses[:]
    assert command("bounces", campaign, "--inbox", "none", "--watch", "60").code == 2
    assert pauses == []
