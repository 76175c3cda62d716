"""Limits of the protocol at their exact values: the last that is accepted, and the first that is not."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable

import pytest

from asyncsmtp.errors import AuthenticationRefused, InvalidArgument, RecipientError
from asyncsmtp.protocol.auth.auth import MAX_CHALLENGE, Channel, Password, Secret, log_in
from asyncsmtp.protocol.client import ClientProtocol
from asyncsmtp.protocol.commands import ehlo, mail, rcpt
from asyncsmtp.protocol.envelope import (
    MAX_DOMAIN,
    MAX_ENVID,
    MAX_LOCAL_PART,
    MAX_ORCPT,
    MAX_PATH,
    MAX_SECONDS,
    ByMode,
    DeliverBy,
    Mailbox,
    MailOptions,
    RcptOptions,
)
from asyncsmtp.protocol.opening_handshake import MAX_NAME, XClient


def domain_of(length: int) -> str:
    """A domain of so many characters, in labels of at most 63."""
    labels = "x" * length
    return ".".join(labels[start : start + 63] for start in range(0, length, 64))[:length].ljust(length, "x")


@pytest.mark.parametrize("local", ["a", "a.b", '"a b"', "ä"])
def test_a_path_of_256_bytes_is_the_longest(local: str) -> None:
    """FT-86: RFC 5321 §4.5.3.1.3 counts the angle brackets, and bytes rather than characters."""
    room = MAX_PATH - len("<@>") - len(local.encode())
    assert len(Mailbox.parse(f"{local}@{domain_of(room)}").address.encode()) + 2 == MAX_PATH
    with pytest.raises(RecipientError, match="256 bytes"):
        Mailbox.parse(f"{local}@{domain_of(room + 1)}")


@pytest.mark.parametrize("letter", ["a", "ä"])
def test_a_local_part_of_64_bytes_is_the_longest(letter: str) -> None:
    """FT-86: RFC 5321 §4.5.3.1.1, in bytes."""
    longest = letter * (MAX_LOCAL_PART // len(letter.encode()))
    assert Mailbox.parse(f"{longest}@a.example").local == longest
    with pytest.raises(RecipientError, match="more than 64 bytes"):
        Mailbox.parse(f"{longest}x@a.example")


def test_a_label_of_63_characters_is_the_longest() -> None:
    """FT-86: RFC 1035 §2.3.4."""
    assert Mailbox.parse(f"a@{'x' * 63}.example").domain == "x" * 63 + ".example"
    with pytest.raises(RecipientError, match="not a valid domain"):
        Mailbox.parse(f"a@{'x' * 64}.example")
    assert len(domain_of(MAX_DOMAIN)) == MAX_DOMAIN


@pytest.mark.parametrize(
    "parameters",
    [
        {"SIZE": "1 RET"},
        {"SIZE": "1\r\nRSET"},
        {"SIZE": "²"},
        {"SIZE": "١"},
        {"SIZE": ""},
        {"SIZE": "-1 "},
        {"SIZE=1 RET": "2"},
        {"SIZE ": "1"},
        {"BODY RET": "12"},
        {"": "12"},
        {"-SIZE": "12"},
        {"BY": "1 2"},
    ],
)
def test_digits_exempt_no_parameter_from_the_grammar(parameters: dict[str, str | None]) -> None:
    """FT-86: the short cut is for SIZE and ASCII digits alone; nothing else gets a blank or a command into the line."""
    odd = parameters == {"SIZE": "²"} or parameters == {"SIZE": "١"}  # allowed by RFC 6531's grammar, and no number
    if odd:
        assert bytes(mail(None, parameters)).count(b" ") == 2
        return
    for make in (lambda: mail(None, parameters), lambda: rcpt(Mailbox("a", "b.example"), parameters)):
        with pytest.raises(InvalidArgument, match="not a valid ESMTP parameter"):
            make()


@pytest.mark.parametrize("letter", ["A", "B", "C"])
def test_a_challenge_of_8192_bytes_is_the_longest(letter: str) -> None:
    """FT-86: the limit counts the base64 of all lines, and the longest one still reaches the mechanism."""
    for length in (MAX_CHALLENGE, MAX_CHALLENGE + 4):
        protocol = ClientProtocol()
        list(protocol.receive(b"220 relay\r\n"))
        protocol.send(ehlo("client.example"))
        list(protocol.receive(b"250-relay\r\n250 AUTH CRAM-MD5\r\n"))
        steps = log_in(
            protocol, Password("a", Secret("hunter2")), Channel("relay.example", 587, None, "a-nonce"), ("CRAM-MD5",)
        )
        protocol.send(next(steps))
        octets = (letter * length).encode()
        lines = [octets[start : start + 1024] for start in range(0, length, 1024)]
        text = b"".join(b"334" + (b"-" if line is not lines[-1] else b" ") + line + b"\r\n" for line in lines)
        (answered,) = protocol.receive(text)
        command = steps.send(answered.reply)
        if length == MAX_CHALLENGE:
            assert bytes(command).startswith(b64encode(b"a ")[:2])
            continue
        assert bytes(command) == b"*\r\n"
        protocol.send(command)
        (answered,) = protocol.receive(b"501 cancelled\r\n")
        with pytest.raises(AuthenticationRefused, match="the challenge is longer than 8192 bytes"):
            steps.send(answered.reply)


@pytest.mark.parametrize(
    ("make", "largest", "beyond"),
    [
        (lambda value: MailOptions(envid="x" * value), MAX_ENVID, MAX_ENVID + 1),
        (lambda value: MailOptions(envid="+" + "x" * value), MAX_ENVID - 3, MAX_ENVID - 2),  # “+” is +2B
        (lambda value: MailOptions(hold_for=value), MAX_SECONDS, MAX_SECONDS + 1),
        (lambda value: MailOptions(hold_for=value), 1, 0),
        (lambda value: MailOptions(priority=value), 9, 10),
        (lambda value: MailOptions(priority=value), -9, -10),
        (lambda value: RcptOptions(orcpt="rfc822;" + "x" * value), MAX_ORCPT - 7, MAX_ORCPT - 6),
        (lambda value: DeliverBy(value), MAX_SECONDS, MAX_SECONDS + 1),
        (lambda value: DeliverBy(value), 1, 0),
        (lambda value: DeliverBy(value, ByMode.NOTIFY), -MAX_SECONDS, -MAX_SECONDS - 1),
        (lambda value: XClient(helo="x" * value), MAX_NAME, MAX_NAME + 1),
        (lambda value: XClient(port=value), 65535, 65536),
        (lambda value: XClient(port=value), 1, 0),
    ],
)
def test_options_have_a_last_value_that_is_accepted(make: Callable[[int], object], largest: int, beyond: int) -> None:
    """FT-86: RFC 3461 §4.2 and §5.4, RFC 2852 §4, RFC 4865 §3, RFC 6710 §2."""
    assert make(largest)
    with pytest.raises(InvalidArgument):
        make(beyond)
