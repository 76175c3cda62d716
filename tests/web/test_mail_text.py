"""Hostile mails in the mailbox: whatever one contains, it can be looked at, and the others stay in the list."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from asyncsmtp.testing import Maildir, Received
from asyncsmtp.web.mail_text import count_remote, decode_text, decode_words, replace_surrogates, strip_tags
from asyncsmtp.web.mailbox import make_mailbox_app
from asyncsmtp.web.message_view import MessageView, answer_html
from asyncsmtp.web.preview import ComposedMail

LONG = 200_000


@pytest.fixture
def maildir(tmp_path: Path) -> Maildir:
    return Maildir(tmp_path / "mails")


def mail(text: str = "x") -> Received:
    return Received("", ("ann@example.org",), f"Subject: News\r\n\r\n{text}".encode())


def nested(kind: bytes, depth: int) -> bytes:
    head = b"Content-Type: " + kind
    return b"".join(head.replace(b"#", b"%d" % level) for level in range(depth)) + b"\r\nhi\r\n"


HOSTILE = {
    "UTF-7 text": b"Content-Type: text/plain; charset=utf-7\r\n\r\nhi +2AA- there",
    "UTF-7 HTML": b"Content-Type: text/html; charset=utf-7\r\n\r\n<b>hi +2AA- there</b>",
    "escapes": b"Content-Type: text/html; charset=unicode_escape\r\n\r\nhi \\ud800",
    "UTF-7 subject": b"Subject: =?utf-7?q?+2AA-?=\r\n\r\nx",
    "UTF-7 name": b"Content-Disposition: attachment; filename*=utf-7''+2AA-\r\n\r\nx",
    "NUL in a charset": b"Content-Type: text/plain; charset*=a\0''b\r\n\r\nx",
    "base64 that is none": b"Subject: =?utf-8?b?a?=\r\nContent-Transfer-Encoding: base64\r\n\r\na",
    "long reference": b"Content-Type: text/html\r\n\r\n&#" + b"9" * 5000 + b";",
    "multiparts": nested(b"multipart/mixed; boundary=b#\r\n\r\n--b#\r\n", 1500),
    "mails in mails": nested(b"message/rfc822\r\n\r\n", 1500),
    "long parameters": b'Content-Type: text/plain;"' + b";" * LONG + b"\r\n\r\nx",
    "encoded words": b"Subject: " + b"=?a?q?" * (LONG // 6) + b"\r\n\r\nx",
    "comments": b"To: " + b"(" * LONG + b"\r\n\r\nx",
    "recipients": b"To: " + b", ".join(b"a%d@example.org" % number for number in range(10_000)) + b"\r\n\r\nx",
    "date": b"Date: Tue, 99 Foo 999999999 99:99:99 +9999\r\n\r\nx",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_mail_stops_the_list_or_its_own_page(maildir: Maildir, name: str) -> None:
    """Each page of it is answered, and mails that come later are found."""
    hostile = maildir.add(Received("", ("ann@example.org",), HOSTILE[name]))
    client = TestClient(make_mailbox_app(maildir.path), raise_server_exceptions=False)
    pages = ["/", "/count?q=hello", "/?q=hello", f"/api/messages/{hostile}", f"/messages/{hostile}/raw"]
    pages += [f"/messages/{hostile}{rest}" for rest in ("", "/html", "?view=text", "?view=headers", "?view=parts")]
    assert {page: client.get(page).status_code for page in pages} == dict.fromkeys(pages, 200)
    assert client.get(f"/messages/{hostile}/parts/1").status_code in (200, 404)
    maildir.add(mail(text="Hello"))
    assert client.get("/count?q=hello").json() == {"total": 1}
    assert client.get("/api/messages").json()["total"] == 2


def test_a_mail_with_too_many_levels_shows_its_source(maildir: Maildir) -> None:
    """With the reason, also in place of the HTML."""
    name = maildir.add(Received("", ("ann@example.org",), b"Subject: deep\r\n" + HOSTILE["mails in mails"]))
    client = TestClient(make_mailbox_app(maildir.path))
    page = client.get(f"/messages/{name}").text
    assert "its parts are nested too deeply to be shown" in page
    assert "<h1>deep</h1>" in page
    assert "Content-Type: message/rfc822" in page
    assert "nested too deeply" in client.get(f"/messages/{name}/html").text


def test_names_that_no_file_can_have(maildir: Maildir) -> None:
    """They are not found; a file whose name is no text is left out of the list."""
    maildir.add(mail())
    (maildir.path / "new" / os.fsdecode(b"1700000000.M000001.\xff")).write_bytes(b"\r\n")
    client = TestClient(make_mailbox_app(maildir.path), raise_server_exceptions=False)
    for name in ("a" * 300, "%00", "a" * 5000):
        assert client.get(f"/messages/{name}").status_code == 404
        assert client.get(f"/api/messages/{name}").status_code == 404
    assert client.get("/api/messages").json()["total"] == 1


def test_a_failed_change_of_the_index_is_taken_back(maildir: Maildir, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next request begins anew."""
    maildir.add(mail(text="Hello"))
    client = TestClient(make_mailbox_app(maildir.path), raise_server_exceptions=False)
    with monkeypatch.context() as patch:
        patch.setattr("asyncsmtp.web.mail_index._read_searched", lambda path: "\ud800")
        assert client.get("/count?q=hello").status_code == 500
    maildir.add(mail(text="Hello"))
    assert client.get("/api/messages?q=hello").json()["total"] == 2


@pytest.mark.parametrize(
    ("octets", "charset", "text"),
    [
        (b"+2AA-", "utf-7", "\ufffd"), (b"\\ud800", "unicode_escape", "\\ud800"),
        (b"Gr\xfc\xdfe", "ISO-8859-1", "Grüße"),
        (b"\x80", "Windows-1252", "€"), (b"\xff", "x\0y", "\ufffd"), (b"x", "zlib", "x"), (b"x", "a" * 99_999, "x"),
        (b"\x1b$B$\"\x1b(B", "ISO-2022-JP", "あ"), (b"\xa4\xa4", "gb2312", "い"), (b"x", "../os", "x"),
    ],
)  # fmt: skip
def test_decoded_text_is_text(octets: bytes, charset: str, text: str) -> None:
    """In the charset of the mail if mails use it, and without surrogates."""
    assert decode_text(octets, charset) == text


def test_tags_are_left_out() -> None:
    """Styles, scripts, titles and comments too; what has no end is text."""
    html = "a<b>c</b><STYLE x>d</style >e<!-- f -->g<title>h</title>&lt;i<script>j"
    assert " ".join(strip_tags(html).split()) == "a c e g <i j"
    assert strip_tags("1 < 2 <!-- x") == "1 < 2 <!-- x"


def test_things_from_elsewhere_are_counted() -> None:
    html = (
        """<img src="//a"><img src= ' http://a'><p style="background:url( 'https://a')">@import "//a" <a href="//a">"""
    )
    assert count_remote(html) == 4


def show_html(html: str) -> object:
    """Answer the request of the frame, in the dark."""
    octets = f"Content-Type: text/html; charset=utf-8\r\n\r\n{html}".encode("utf-8", "replace")
    return answer_html(MessageView(ComposedMail(octets)), dark=True)


SCANNERS: list[Callable[[str], object]] = [strip_tags, count_remote, decode_words, replace_surrogates, show_html]
UNITS = (
    "<", "<!--", "<style ", "</style ", "<script>", "<a ", "url(", "src=", "cid:", "(prefers-color-scheme", "<link",
    "@import ", "=?a?q?", "&#", "&", " ", "\t",
    "\r\n", '"', "'", "(", "\ud800",
)  # fmt: skip


@pytest.mark.parametrize("scan", SCANNERS)
def test_foreign_text_is_read_in_time_that_grows_with_its_length(scan: Callable[[str], object]) -> None:
    """By the square, most of these would take minutes."""
    for unit in UNITS:
        for text in (unit * (LONG // len(unit)), f"{unit}{' ' * LONG}x", f"<img src={unit}{' ' * LONG}x"):
            began = time.process_time()
            scan(text)
            assert time.process_time() - began < 5, unit
