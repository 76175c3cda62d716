"""The sandbox: takes everything, keeps it, and fails on request."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import aiosmtplib
import pytest

from asyncsmtp.testing import Sandbox
from tests.testing.peer import Peer, codes

MAIL, RCPT = "MAIL FROM:<ann@example.org>\r\n", "RCPT TO:<bob@example.net>\r\n"


async def test_a_mail_is_stored_before_its_250(tmp_path: Path) -> None:
    """“Kept” means kept."""
    async with Sandbox(tmp_path) as sandbox, await Peer.connect(sandbox) as peer:
        await peer.greet()
        await peer.say(MAIL[:-2], RCPT[:-2], "DATA")
        assert (await peer.say("Subject: News\r\n\r\nHello\r\n.")).startswith("250 2.0.0 ok: stored as ")
        [mail] = sandbox.mails()
        assert mail.message["Subject"] == "News"
        assert sandbox.count == 1


async def test_it_has_a_url() -> None:
    """As a relay's URL, security included."""
    async with Sandbox(None) as sandbox:
        assert sandbox.url == f"smtp://127.0.0.1:{sandbox.port}?security=none"


async def test_it_has_a_name_that_nobody_else_has() -> None:
    """RFC 6761 §6.3: below localhost; another may be given."""
    for sandbox, name in ((Sandbox(None), "sandbox.localhost"), (Sandbox(None, name="x.test"), "x.test")):
        async with sandbox, await Peer.connect(sandbox) as peer:
            assert (await peer.reply()).split()[1] == name
            assert (await peer.say("EHLO client.example")).split()[0].removeprefix("250-") == name


async def test_many_clients_are_served_and_each_mail_is_kept_once(tmp_path: Path) -> None:
    """By BDAT, 20 transactions in one write, on ten connections."""

    async def send(number: int) -> None:
        async with await Peer.connect(sandbox) as peer:
            await peer.greet()
            content = [f"Subject: {number}.{row}\r\n\r\n.\r\n" for row in range(20)]
            peer.write("".join(f"{MAIL}{RCPT}BDAT {len(text)} LAST\r\n{text}RSET\r\n" for text in content))
            for _ in range(80):
                assert codes(await peer.reply()) == [250]

    async with Sandbox(tmp_path) as sandbox:
        await asyncio.gather(*map(send, range(10)))
        assert sandbox.count == 200
        subjects = {mail.message["Subject"] for mail in sandbox.mails()}
        assert subjects == {f"{number}.{row}" for number in range(10) for row in range(20)}


async def test_a_mailbox_may_be_refused_on_request(tmp_path: Path) -> None:
    """One address, or a whole domain; the local part as it is, the domain in any case."""
    refuse = {"Gone@Example.net": "550 5.1.1 no such user", "@slow.example": "451 4.7.1 greylisted"}
    async with Sandbox(tmp_path, refuse=refuse) as sandbox, await Peer.connect(sandbox) as peer:
        await peer.greet()
        paths = ["Gone@EXAMPLE.NET", "gone@example.net", "any@Slow.example", "bob@example.net"]
        said = await peer.say(MAIL[:-2], *(f"RCPT TO:<{path}>" for path in paths), "RCPT TO:nonsense")
        assert codes(said) == [250, 550, 250, 451, 250, 501]


async def test_each_third_message_may_fail_on_request(tmp_path: Path) -> None:
    """To rehearse what is deferred."""
    async with Sandbox(tmp_path, fail_every=3) as sandbox, await Peer.connect(sandbox) as peer:
        await peer.greet()
        last = []
        for _ in range(6):
            peer.write(f"{MAIL}{RCPT}BDAT 3 LAST\r\nx\r\nRSET\r\n")
            last.append([codes(await peer.reply())[0] for _ in range(4)][2])
        assert last == [250, 250, 451, 250, 250, 451]
        assert sandbox.count == 4


async def test_a_full_disk_is_a_reply(tmp_path: Path) -> None:
    """452, and the campaign goes on or stops as it would with a real relay."""
    async with Sandbox(tmp_path) as sandbox, await Peer.connect(sandbox) as peer:
        (tmp_path / "new").rmdir()
        await peer.greet()
        await peer.say(MAIL[:-2], RCPT[:-2], "DATA")
        assert (await peer.say("x\r\n.")).startswith("452 4.3.1 the sandbox cannot write")
        assert sandbox.count == 0


@pytest.mark.both_loops
async def test_starttls_and_a_login_can_be_tried_out(
    tmp_path: Path, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """With a certificate and users, as another client sees it."""
    async with Sandbox(tmp_path, tls=server_tls, users={"ann": "secret"}) as sandbox:
        client = aiosmtplib.SMTP(
            hostname=sandbox.host, port=sandbox.port, tls_context=client_tls, username="ann", password="secret"
        )
        async with client:
            await client.sendmail("ann@example.org", ["bob@example.net"], b"Subject: x\r\n\r\n.dot\r\n")
        [mail] = sandbox.mails()
        assert mail.octets.endswith(b"\r\n\r\n.dot\r\n")
