"""A received mail, shown on a terminal."""

from __future__ import annotations

from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

from asyncsmtp.testing import Maildir, Received, StoredMail, render


def kept(folder: Path, content: bytes) -> StoredMail:
    maildir = Maildir(folder)
    maildir.add(Received("ann@example.org", ("bob@example.net",), content))
    return next(maildir.mails())


def letter() -> EmailMessage:
    message = EmailMessage(policy=SMTP)
    message["From"] = "Ann Müller <ann@example.org>"
    message["To"] = "bob@example.net"
    message["Subject"] = "Grüße"
    message["Date"] = "Mon, 01 Jan 2024 10:00:00 +0000"
    message["Message-ID"] = "<1@example.org>"
    message.set_content("Guten Morgen,\n\tBob.\n")
    message.add_alternative('<img src="cid:logo">', subtype="html")
    html = message.get_payload()[1]  # type: ignore[index]
    html.add_related(b"\x89PNG", "image", "png", cid="<logo>", disposition="inline", filename="logo.png")  # type: ignore
    message.add_attachment(b"%PDF" * 500, maintype="application", subtype="pdf", filename="terms.pdf")
    return message


def test_headers_parts_and_text_are_shown(tmp_path: Path) -> None:
    """The origin exercise: the mail that arrived, text and image."""
    assert render(kept(tmp_path, letter().as_bytes())) == (
        "From:       Ann Müller <ann@example.org>\n"
        "To:         bob@example.net\n"
        "Subject:    Grüße\n"
        "Date:       Mon, 01 Jan 2024 10:00:00 +0000\n"
        "Message-ID: <1@example.org>\n"
        "Envelope:   <ann@example.org> to bob@example.net\n"
        "\n"
        "multipart/mixed\n"
        "├─ multipart/alternative\n"
        "│  ├─ text/plain, 22 bytes\n"
        "│  └─ multipart/related\n"
        "│     ├─ text/html, 22 bytes\n"
        "│     └─ image/png, 4 bytes, inline, logo.png, <logo>\n"
        "└─ application/pdf, 2,000 bytes, attachment, terms.pdf\n"
        "\n"
        "Guten Morgen,\n"
        "        Bob.\n"
    )


def test_a_hostile_mail_cannot_steer_the_terminal(tmp_path: Path) -> None:
    """CT-01: escapes, C1, overstriking and reversed writing are shown, not obeyed."""
    content = (
        "Subject: \x1b]0;pwn\x07 \u202egpj.exe\r\n"
        'Content-Type: text/plain; charset="utf-8"; name="\x1b[2J"\r\n'
        "Content-Transfer-Encoding: 8bit\r\n"
        "\r\n"
        "a\x1b[31m\x9b31m\x08\r\n"
    ).encode()
    shown = render(kept(tmp_path, content))
    assert all(character.isprintable() or character == "\n" for character in shown)
    assert r"a\x1b[31m\x9b31m\x08" in shown


def test_a_mail_that_is_hardly_one_is_shown_all_the_same(tmp_path: Path) -> None:
    """The sandbox takes what it gets; a broken mail is the one somebody wants to look at."""
    for number, content in enumerate(
        [
            b"",
            b"no header at all",
            b"From: <<>>@@\r\nTo: ,,;:\r\nDate: never\r\nMessage-ID: <\r\n\r\n",
            b"Content-Type: text/plain; charset=klingon\r\n\r\nx\r\n",
            b"Content-Type: multipart/mixed\r\n\r\nno boundary\r\n",
            b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n\r\n",
            b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!\r\n",
            b"Subject: =?utf-8?b?/////?= \xff\r\n\r\n\xff\xfe\r\n",
            b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\ntext\r\n",
        ]
    ):
        assert "Envelope:   <ann@example.org> to bob@example.net" in render(kept(tmp_path / str(number), content))


def test_long_lines_and_long_texts_are_cut(tmp_path: Path) -> None:
    """A screen is not a pager."""
    shown = render(kept(tmp_path, b"Subject: x\r\n\r\n" + b"y" * 2000 + b"\r\n" + b"z\r\n" * 1000))
    assert max(map(len, shown.splitlines())) == 512
    assert shown.endswith("… and 801 more lines\n")
