"""The command against a real server: a campaign of 500 rows, and the dialogue of one message."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.interop.postfix import Postfix

pytestmark = pytest.mark.interop

ROWS = 500
CAMPAIGN = """
[campaign]
name = "interop"
from = "Example News <news@example.org>"
subject = "Grüße an {{{{ name }}}}"
recipients = "people.csv"
email = "email"
text = "message.txt"
html = "message.html"
inline = {{ logo = "logo.png" }}

[relay]
url = "smtp://{user}@localhost:{port}"
ca_file = "{ca_file}"
sessions = 4
"""
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c63f8cfc0f01f0005000201a2b4d4b10000000049454e44ae426082"
)


async def asyncsmtp(*words: str, password: str = Postfix.password) -> tuple[int, str, str]:
    """Run the command; its exit code, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "asyncsmtp",
        *words,
        env={**os.environ, "ASYNCSMTP_PASSWORD": password},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def write_campaign(folder: Path, postfix: Postfix) -> str:
    people = [f"person{row}@example.com" for row in range(ROWS)]
    people[100], people[200] = "nobody@example.com", "busy@example.com"
    lines = [f"{address},Zoë {row}" for row, address in enumerate(people)]
    (folder / "people.csv").write_text("\n".join(["email,name", *lines]), encoding="utf-8")
    (folder / "message.txt").write_text("Dear {{ name }},\n.\nsee you\n", encoding="utf-8")
    (folder / "message.html").write_text("<p>Dear {{ name }}</p><img src='cid:logo'>", encoding="utf-8")
    (folder / "logo.png").write_bytes(PIXEL)
    values = {"user": postfix.user, "port": postfix.submission, "ca_file": postfix.ca_file}
    (folder / "campaign.toml").write_text(CAMPAIGN.format(**values), encoding="utf-8")
    return str(folder / "campaign.toml")


async def test_five_hundred_rows_by_starttls_and_auth(postfix: Postfix, tmp_path: Path) -> None:
    """Every Message-ID of the ledger is in the mailbox; who was refused or deferred is so in the server's words."""
    campaign = write_campaign(tmp_path, postfix)
    code, _, said = await asyncsmtp("bulk", campaign, "--yes")
    assert code == 75, said  # one is rejected, one deferred: the same command has something left to do
    _, out, _ = await asyncsmtp("results", campaign, "--json")
    results = [json.loads(line) for line in out.splitlines()]
    by_state: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        by_state.setdefault(result["state"], []).append(result)
    assert {state: len(found) for state, found in by_state.items()} == {"accepted": 498, "rejected": 1, "deferred": 1}

    mails = postfix.wait_for(498)
    assert sorted(str(mail["Message-ID"]) for mail in mails) == sorted(
        f"<{result['message_id']}>" for result in by_state["accepted"]
    )
    assert all("ESMTPSA" in str(mail["Received"]) for mail in mails)  # TLS, and a login
    refused, deferred = by_state["rejected"][0], by_state["deferred"][0]
    assert (refused["email"], refused["code"], refused["status"]) == ("nobody@example.com", 550, "5.1.1")
    assert "No such user here" in refused["reply"]
    assert (deferred["email"], deferred["code"], deferred["status"]) == ("busy@example.com", 450, "4.2.1")
    assert "come back later" in deferred["reply"]


async def test_running_it_again_tries_the_deferred_one_only(postfix: Postfix, tmp_path: Path) -> None:
    """Resuming is running the same command; what was accepted is not sent twice."""
    campaign = write_campaign(tmp_path, postfix)
    await asyncsmtp("bulk", campaign, "--yes", "--retry-delay", "0s")
    postfix.wait_for(498)
    before = len(re.findall("busy@example.com", postfix.log))
    await asyncsmtp("bulk", campaign, "--yes")
    assert len(re.findall("busy@example.com", postfix.log)) > before
    assert len(postfix.mails()) == 498


async def test_each_mail_is_one_person_s_own_and_parses(postfix: Postfix, tmp_path: Path) -> None:
    """Text, HTML and the image, as the standard library's parser sees them after a real server's handling."""
    await asyncsmtp("bulk", write_campaign(tmp_path, postfix), "--yes", "--limit", "3")
    mails = sorted(postfix.wait_for(3), key=lambda mail: str(mail["To"]))
    for row, mail in enumerate(mails):
        assert mail.defects == []
        assert (mail["To"], mail["Subject"]) == (f"person{row}@example.com", f"Grüße an Zoë {row}")
        text, html = mail.get_body(("plain",)), mail.get_body(("html",))
        assert text is not None
        assert text.get_content() == f"Dear Zoë {row},\n.\nsee you\n"
        assert html is not None
        assert f"<p>Dear Zoë {row}</p>" in html.get_content()
        (image,) = [part for part in mail.walk() if part.get_content_type() == "image/png"]
        assert image["Content-ID"] == "<logo>"
        assert image.get_content() == PIXEL


async def test_a_wrong_password_sends_nothing(postfix: Postfix, tmp_path: Path) -> None:
    """Exit 77, the server's words, not the password, and one attempt only: some servers lock an account after three."""
    before = postfix.log.count("authentication failed")
    code, out, said = await asyncsmtp("bulk", write_campaign(tmp_path, postfix), "--yes", password="wrong horse")
    assert code == 77, said
    assert "535" in said
    assert "wrong horse" not in out + said
    assert postfix.log.count("authentication failed") == before + 1
    assert postfix.mails() == []


async def test_the_dialogue_of_the_exercise_line_by_line(postfix: Postfix, tmp_path: Path) -> None:
    """Connect, 220, EHLO, MAIL, RCPT, DATA, 354, the message, its 250, QUIT, 221: each shown, in clear and in order."""
    code, out, said = await asyncsmtp(
        *("send", "-v", "--relay", f"smtp://localhost:{postfix.plain}?security=none"),
        *("--from", "ada@example.org", "--to", "bob@example.com", "--subject", "hello", "--text", "hello, Bob"),
    )
    assert code == 0, said
    dialogue = [line for line in (out + said).splitlines() if line.lstrip().startswith(("->", "<-"))]
    expected = (
        r"<-.*220 relay.test ESMTP",
        r"->.*EHLO",
        r"<-.*250.PIPELINING",
        r"->.*MAIL FROM:<ada@example.org>",
        r"->.*RCPT TO:<bob@example.com>",
        r"->.*DATA",
        r"<-.*250 2.1.0 Ok",
        r"<-.*250 2.1.5 Ok",
        r"<-.*354",
        r"<-.*250 2.0.0 Ok: queued as",
        r"->.*QUIT",
        r"<-.*221 2.0.0 Bye",
    )
    at = 0
    for pattern in expected:
        found = next((n for n, line in enumerate(dialogue[at:], at) if re.search(pattern, line)), None)
        assert found is not None, f"{pattern} after line {at}:\n" + "\n".join(dialogue)
        at = found + 1
    assert len(postfix.wait_for(1)) == 1


async def test_text_and_an_image_by_tls_and_a_login(postfix: Postfix, tmp_path: Path) -> None:
    """The two optional parts of the exercise, in one mail; the password is nowhere in the dialogue."""
    (tmp_path / "logo.png").write_bytes(PIXEL)
    code, out, said = await asyncsmtp(
        *("send", "-v", "--relay", f"smtp://{postfix.user}@localhost:{postfix.submission}"),
        *("--ca-file", str(postfix.ca_file), "--from", "ada@example.org", "--to", "bob@example.com"),
        *("--subject", "a picture", "--text", "see the picture", "--html", "<img src='cid:logo'>"),
        *("--inline", f"logo={tmp_path / 'logo.png'}"),
    )
    assert code == 0, said
    assert "STARTTLS" in out + said
    assert Postfix.password not in out + said
    (mail,) = postfix.wait_for(1)
    text = mail.get_body(("plain",))
    assert text is not None
    assert text.get_content().strip() == "see the picture"
    (image,) = [part for part in mail.walk() if part.get_content_type() == "image/png"]
    assert image.get_content() == PIXEL
