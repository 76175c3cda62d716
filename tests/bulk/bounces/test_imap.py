"""URLs of IMAP folders, and what never gets as far as a server."""

from __future__ import annotations

import pytest

from asyncsmtp.bulk.bounces.imap import ImapFolder, ImapUrl, LoginRefused
from asyncsmtp.errors import InvalidArgument
from asyncsmtp.protocol.auth.credentials import Secret


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("imaps://news@mail.example.com", ImapUrl("news", "mail.example.com", 993, "INBOX")),
        (
            "imaps://news@mail.example.com:1993/Lists/Bounces",
            ImapUrl("news", "mail.example.com", 1993, "Lists/Bounces"),
        ),
        ("imaps://news%40example.com@[2001:db8::1]/a%20b", ImapUrl("news@example.com", "2001:db8::1", 993, "a b")),
    ],
)
def test_a_url_names_a_user_a_host_and_a_folder(url: str, place: ImapUrl) -> None:
    assert ImapUrl.from_url(url) == place


@pytest.mark.parametrize(
    "url",
    [
        "imap://news@mail.example.com/INBOX",  # in clear
        "imaps://mail.example.com/INBOX",
        "imaps://news@mail.example.com/INBOX?x",
        "imaps://news@/INBOX",
        "imaps://news@host:0x/INBOX",
        "imaps://news@host/INBOX%0d%0aA1%20DELETE%20INBOX",
        "imaps://ne%0aws@host/INBOX",
        "imaps://ne%00ws@host/INBOX",
    ],
)
def test_what_is_no_folder_or_would_end_a_command_is_refused(url: str) -> None:
    """In one line, whatever is in it."""
    with pytest.raises(InvalidArgument) as caught:
        ImapUrl.from_url(url)
    assert str(caught.value).isprintable()


def test_a_password_in_the_url_is_not_repeated() -> None:
    with pytest.raises(InvalidArgument) as caught:
        ImapUrl.from_url("imaps://news:secret@mail.example.com/INBOX")
    assert "secret" not in str(caught.value)


def test_a_password_cannot_hold_what_parts_it_from_the_user() -> None:
    """RFC 4616: NUL does."""
    with pytest.raises(LoginRefused) as caught:
        ImapFolder(ImapUrl("a", "b", 993, "INBOX"), Secret("x\0y"), ca_file=None, writable=False)
    assert "x" not in str(caught.value).partition("password")[0]
