"""The SMTP transactions that a sandbox keeps beside its mails: complete, in order, without secrets, bounded."""

from __future__ import annotations

import asyncio
import mailbox
import ssl
from base64 import b64encode
from email.message import EmailMessage
from pathlib import Path

import pytest

import asyncsmtp
from asyncsmtp.testing import Maildir, MailTransaction, Received, Sandbox
from asyncsmtp.testing import received as received_module
from asyncsmtp.testing.received import TRANSACTIONS, read_transaction, remove_transactions

OPENING = ("S: 220 sandbox.localhost ESMTP ready", "C: EHLO me")
MAIL = b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n"
CONTENT = b"Subject: x\r\n\r\nx\r\n.\r\n"


async def talk(sandbox: Sandbox, *groups: bytes) -> None:
    """Send groups of commands, each after the replies to the one before, and read until the relay closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
    try:
        await reader.readline()
        for group in groups:
            writer.write(group)
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.write(b"QUIT\r\n")
        await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
        await writer.wait_closed()


def transactions(sandbox: Sandbox) -> list[MailTransaction]:
    found = [mail.transaction for mail in sandbox.mails()]
    assert None not in found
    return [each for each in found if each is not None]


async def test_a_mail_has_its_dialogue(tmp_path: Path) -> None:
    async with Sandbox(tmp_path) as sandbox:
        await talk(sandbox, b"EHLO me\r\n", MAIL, CONTENT)
        [transaction] = transactions(sandbox)
    [mail] = sandbox.mails()
    assert transaction.dialogue[:2] == OPENING
    assert transaction.dialogue[-8:] == (
        "C: MAIL FROM:<a@x.example>", "S: 250 2.1.0 ok", "C: RCPT TO:<b@x.example>", "S: 250 2.1.5 ok",
        "C: DATA", "S: 354 go ahead", "C: .", f"S: 250 2.0.0 ok: stored as {mail.path.name}",
    )  # fmt: skip
    assert (transaction.connection, transaction.tls, transaction.user, transaction.chunked) == (1, False, None, False)


async def test_mails_of_one_connection_have_each_their_own(tmp_path: Path) -> None:
    """Also where the client sends the next transaction with the content of the one before (RFC 2920 §3.1)."""
    async with Sandbox(tmp_path, refuse={"gone@x.example": "550-5.1.1 no\r\n550 5.1.1 such user"}) as sandbox:
        refused = b"MAIL FROM:<c@x.example> SIZE=10\r\nRCPT TO:<gone@x.example>\r\nRCPT TO:<d@x.example>\r\nDATA\r\n"
        await talk(sandbox, b"EHLO me\r\n", MAIL, CONTENT + refused, CONTENT + b"RSET\r\n" + MAIL, CONTENT)
        first, second, third = transactions(sandbox)
    assert all(each.dialogue[:2] == OPENING for each in (first, second, third))
    assert [line for line in second.dialogue if "<" in line] == [
        "C: MAIL FROM:<c@x.example> SIZE=10", "C: RCPT TO:<gone@x.example>", "C: RCPT TO:<d@x.example>"
    ]  # fmt: skip
    place = second.dialogue.index("C: RCPT TO:<gone@x.example>")
    assert second.dialogue[place + 1 : place + 3] == ("S: 550-5.1.1 no", "S: 550 5.1.1 such user")
    assert second.parameters == {"SIZE": "10"}
    assert len(second.rcpt_parameters) == 1
    assert not any("c@x.example" in line or "RSET" in line for line in third.dialogue)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "OAUTHBEARER"])
async def test_no_secret_is_kept(
    tmp_path: Path, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, mechanism: str
) -> None:
    """Neither as it is nor as base64, nor the name that goes with it; that somebody logged in is kept."""
    async with Sandbox(tmp_path, tls=server_tls, users={"ann": "correct horse"}) as sandbox:
        initial = b64encode(b"\0ann\0correct horse").decode()
        login = {"PLAIN": f"AUTH PLAIN {initial}", "LOGIN": "AUTH LOGIN", "OAUTHBEARER": "auth  OAUTHBEARER c2VjcmV0"}
        words = [b64encode(word).decode() for word in (b"ann", b"correct horse")]
        groups = [login[mechanism], *(words if mechanism == "LOGIN" else ())]
        reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
        await reader.readline()
        writer.write(b"EHLO me\r\nSTARTTLS\r\n")
        while b"220 2.0.0" not in (line := await asyncio.wait_for(reader.readline(), 10)):
            assert line
        await writer.start_tls(client_tls, server_hostname="relay.example")
        for group in ("EHLO me", *groups, "MAIL FROM:<>", "RCPT TO:<b@x.example>", "DATA", "Subject: x\r\n\r\n."):
            writer.write(group.encode() + b"\r\n")
            await asyncio.sleep(0.02)
        writer.write(b"QUIT\r\n")
        await asyncio.wait_for(reader.read(), 10)
        writer.close()
        [transaction] = transactions(sandbox)
    kept = (tmp_path / TRANSACTIONS).read_text("utf-8")
    for secret in ("horse", initial, *words, "c2VjcmV0"):
        assert secret not in kept
    assert any(line.startswith("C: ") and line.endswith("***") for line in transaction.dialogue)
    assert transaction.tls
    assert transaction.user == (None if mechanism == "OAUTHBEARER" else "ann")


async def test_a_client_that_never_stops_is_bounded(tmp_path: Path) -> None:
    """Many recipients and long lines: the beginning and the end are kept, and how much is between them."""
    recipients = b"".join(b"RCPT TO:<%d@x.example>\r\n" % number for number in range(2000))
    async with Sandbox(tmp_path) as sandbox:
        begun = b"NOOP " + b"x" * 100 + b"\r\nMAIL FROM:<a@x.example>\r\n" + recipients + b"DATA\r\n"
        await talk(sandbox, b"EHLO me\r\n" * 200, begun, CONTENT)
        [transaction] = transactions(sandbox)
    assert len(transaction.dialogue) < 600
    assert transaction.dialogue[-2] == "C: ."
    assert "C: RCPT TO:<0@x.example>" in transaction.dialogue
    assert "C: RCPT TO:<1999@x.example>" in transaction.dialogue
    assert any(line.endswith("lines are left out") for line in transaction.dialogue)


async def test_our_own_client_and_chunks(tmp_path: Path) -> None:
    async with Sandbox(tmp_path) as sandbox:
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = "a@x.example", "b@x.example", "Grüße"
        message.set_content("x")
        await asyncsmtp.send(message, relay=sandbox.url)
        await sandbox.wait_until_idle()
        [transaction] = transactions(sandbox)
    assert transaction.chunked == any(line.startswith("C: BDAT") for line in transaction.dialogue)
    assert transaction.dialogue[-1].startswith("S: 250 2.0.0 ok: stored as ")


def transaction(number: int = 1) -> MailTransaction:
    return MailTransaction(number, False, None, False, {}, ({},), ("S: 220 x",))


def test_mail_programs_see_no_difference(tmp_path: Path) -> None:
    """A mail that one of them has marked as seen still has its transaction."""
    maildir = Maildir(tmp_path)
    name = maildir.add(Received("a@x", ("b@x",), b"Subject: x\r\n\r\n"))
    maildir.add_transaction(name, transaction())
    program = mailbox.Maildir(str(tmp_path), create=False)
    assert (len(program), program.list_folders()) == (1, [])
    (tmp_path / "new" / name).rename(tmp_path / "cur" / f"{name}:2,S")
    [mail] = maildir.mails()
    assert mail.transaction == transaction()
    assert (tmp_path / TRANSACTIONS).stat().st_mode & 0o777 == 0o600


def test_those_of_one_mail_or_of_all_are_removed(tmp_path: Path) -> None:
    """With the addresses in them."""
    maildir = Maildir(tmp_path)
    for number in range(1, 4):
        maildir.add_transaction(f"name{number}", transaction(number))
    remove_transactions(tmp_path, ["name2", "name4"])
    assert [read_transaction(tmp_path, f"name{n}") for n in (1, 2, 3)] == [transaction(1), None, transaction(3)]
    assert '"connection":2' not in (tmp_path / TRANSACTIONS).read_text()
    remove_transactions(tmp_path)
    assert (tmp_path / TRANSACTIONS).read_bytes() == b""
    maildir.add_transaction("name5", transaction(5))
    assert read_transaction(tmp_path, "name5") == transaction(5)


def test_the_oldest_are_dropped_at_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(received_module, "MAX_TRANSACTIONS", 1000)
    maildir = Maildir(tmp_path)
    for number in range(100):
        maildir.add_transaction(f"name{number}", transaction(number))
    assert sum(file.stat().st_size for file in tmp_path.glob("*.jsonl")) < 2500
    assert read_transaction(tmp_path, "name99") == transaction(99)
    assert read_transaction(tmp_path, "name0") is None


@pytest.mark.parametrize("broken", ["{", '{"connection": 1}', "[]", "null", ""])
def test_a_line_that_is_broken_is_none(tmp_path: Path, broken: str) -> None:
    """The disk was full, say; what comes next is read."""
    maildir = Maildir(tmp_path)
    (tmp_path / TRANSACTIONS).write_text(f"\nname1 {broken}")
    maildir.add_transaction("name2", transaction(2))
    assert read_transaction(tmp_path, "name1") is None
    assert read_transaction(tmp_path, "name2") == transaction(2)
    assert read_transaction(tmp_path / "nowhere", "name2") is None


async def test_a_mail_is_kept_where_its_transaction_cannot_be(tmp_path: Path) -> None:
    (tmp_path / TRANSACTIONS).mkdir()
    async with Sandbox(tmp_path) as sandbox:
        await talk(sandbox, b"EHLO me\r\n", MAIL, CONTENT)
        assert sandbox.count == 1
        assert [mail.transaction for mail in sandbox.mails()] == [None]
