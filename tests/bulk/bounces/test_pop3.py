"""RFC 1939, against a server that is played: what it may send, and what a hostile one sends."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
import trustme

from asyncsmtp.bulk.bounces.imap import LoginRefused
from asyncsmtp.bulk.bounces.mime_parser import MAX_DSN_BYTES
from asyncsmtp.bulk.bounces.pop3 import Pop3Mailbox, Pop3Url
from asyncsmtp.errors import CertificateRefused, ConnectFailed, InvalidArgument
from asyncsmtp.protocol.auth.credentials import Secret

Play = Callable[[dict[str, bytes]], tuple[Pop3Url, list[str]]]

ANSWERS = {
    "": b"+OK ready\r\n",
    "USER news": b"+OK\r\n",
    "PASS secret": b"+OK\r\n",
    "STAT": b"+OK 2 300\r\n",
    "RETR 1": b"+OK\r\nSubject: one\r\n\r\n..\r\n.x\r\n.\r\n",
    "RETR 2": b"+OK\r\nSubject: two\r\n\r\nHi\r\n.\r\n",
    "QUIT": b"+OK\r\n",
}


@pytest.fixture
def play(server_tls: ssl.SSLContext) -> Iterator[Play]:
    """A server that answers each command as told, and closes the connection at an answer that is missing."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(20)
    threads: list[threading.Thread] = []

    def serve(answers: dict[str, bytes], heard: list[str]) -> None:
        with suppress(OSError), closing(listening.accept()[0]) as plain:
            plain.settimeout(20)
            with server_tls.wrap_socket(plain, server_side=True) as tls, tls.makefile("rb") as file:
                tls.sendall(answers[""])
                for line in file:
                    heard.append(command := line.decode().strip())
                    if command not in answers:
                        return
                    tls.sendall(answers[command])

    def start(changed: dict[str, bytes]) -> tuple[Pop3Url, list[str]]:
        heard: list[str] = []
        threads.append(threading.Thread(target=serve, args=(ANSWERS | changed, heard)))
        threads[-1].start()
        return Pop3Url("news", "localhost", listening.getsockname()[1]), heard

    yield start
    listening.close()
    for thread in threads:
        thread.join(20)


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return path


def read(url: Pop3Url, ca_file: Path | None, password: str = "secret") -> list[tuple[int, bytes]]:
    with Pop3Mailbox(url, Secret(password), ca_file=ca_file) as mailbox:
        return list(mailbox.messages())


def test_every_message_is_read_the_newest_first_and_none_is_deleted(play: Play, ca_file: Path) -> None:
    """RFC 1939 §3: a line that begins with a dot has one more."""
    url, heard = play({})
    assert read(url, ca_file) == [(2, b"Subject: two\r\n\r\nHi\r\n"), (1, b"Subject: one\r\n\r\n.\r\nx\r\n")]
    assert heard == ["USER news", "PASS secret", "STAT", "RETR 2", "RETR 1", "QUIT"]


def test_a_message_that_is_gone_is_left_out(play: Play, ca_file: Path) -> None:
    url, _ = play({"RETR 2": b"-ERR no such message\r\n"})
    assert [number for number, _ in read(url, ca_file)] == [1]


def test_of_a_large_message_the_beginning_is_kept(play: Play, ca_file: Path) -> None:
    """Also where it is one line; the next one is read as it is."""
    url, _ = play({"RETR 2": b"+OK\r\n" + b"x" * (2 * MAX_DSN_BYTES) + b"\r\n.\r\n"})
    (_, large), (_, small) = read(url, ca_file)
    assert (len(large), small) == (MAX_DSN_BYTES, b"Subject: one\r\n\r\n.\r\nx\r\n")


@pytest.mark.parametrize("command", ["USER news", "PASS secret"])
def test_a_refused_login_says_so_without_the_password(play: Play, ca_file: Path, command: str) -> None:
    """A server may echo what it got."""
    url, _ = play({command: b"-ERR [AUTH] \x1b[31m secret is wrong\r\n"})
    with pytest.raises(LoginRefused, match="the login is refused") as caught:
        read(url, ca_file)
    assert "secret" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({"": b"220 smtp ready\r\n"}, "is not POP3: “220 smtp ready”"),
        ({"": b"-ERR busy\r\n"}, "the server refuses: busy"),
        ({"STAT": b"-ERR locked\r\n"}, "the server refuses: locked"),
        ({"RETR 2": b"* OK\r\n"}, "is not POP3"),
    ],
)
def test_what_is_no_pop3_is_a_connection_that_failed(
    play: Play, ca_file: Path, answers: dict[str, bytes], why: str
) -> None:
    """Whatever the port leads to."""
    url, _ = play(answers)
    with pytest.raises(ConnectFailed, match=why):
        read(url, ca_file)


def test_a_connection_may_break_in_a_message(play: Play, ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read before is what the caller has; the next run reads it all again."""
    monkeypatch.setattr("asyncsmtp.bulk.bounces.pop3.REPLY_TIMEOUT", 0.5)
    url, _ = play({"RETR 1": b"+OK\r\nSubject: cut off\r\n"})
    with Pop3Mailbox(url, Secret("secret"), ca_file=ca_file) as mailbox:
        messages = mailbox.messages()
        assert next(messages)[0] == 2
        with pytest.raises(ConnectFailed, match="timed out"):
            next(messages)


@pytest.mark.parametrize("stat", [b"+OK\r\n", b"+OK x 1\r\n", b"+OK 99999999999999999 1\r\n", b"+OK -1 0\r\n"])
def test_an_odd_number_of_messages_is_none(play: Play, ca_file: Path, stat: bytes) -> None:
    url, _ = play({"STAT": stat})
    assert read(url, ca_file) == []


def test_the_certificate_is_verified(play: Play) -> None:
    url, heard = play({})
    with pytest.raises(CertificateRefused, match="the certificate is refused"):
        read(url, None)
    assert heard == []


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ConnectFailed, match="refused"):
        read(Pop3Url("news", "127.0.0.1", port), None)


def test_a_url_names_a_user_and_a_host() -> None:
    assert Pop3Url.from_url("pop3s://news@mail.example.com") == Pop3Url("news", "mail.example.com", 995)
    assert Pop3Url.from_url("pop3s://news%40example.com@[2001:db8::1]:1995/").user == "news@example.com"
    assert str(Pop3Url("news", "mail.example.com", 995)) == "pop3s://news@mail.example.com:995"


@pytest.mark.parametrize(
    "url",
    [
        "pop3://news@mail.example.com",  # in clear
        "pop3s://mail.example.com",
        "pop3s://news@mail.example.com/INBOX",
        "pop3s://ne%0aws@mail.example.com",
        "pop3s://news@host:0x",
    ],
)
def test_what_is_no_mailbox_or_would_end_a_command_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument):
        Pop3Url.from_url(url)
    with pytest.raises(LoginRefused, match="control character"):
        Pop3Mailbox(Pop3Url("news", "host", 995), Secret("a\r\nDELE 1"), ca_file=None)
