"""Commands: the octets of each, and the one choke point that no line end passes."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asyncsmtp.errors import InvalidArgument, RecipientError, ReplyTimeout
from asyncsmtp.protocol import commands
from asyncsmtp.protocol.commands import Command, Verb
from asyncsmtp.protocol.envelope import Mailbox

ANN = Mailbox.parse("ann@example.org")


@pytest.mark.parametrize(
    ("command", "octets"),
    [
        (commands.ehlo("client.example"), b"EHLO client.example\r\n"),
        (commands.ehlo("[127.0.0.1]"), b"EHLO [127.0.0.1]\r\n"),
        (commands.ehlo("[IPv6:::1]"), b"EHLO [IPv6:::1]\r\n"),
        (commands.helo("client"), b"HELO client\r\n"),
        (commands.mail(None), b"MAIL FROM:<>\r\n"),
        (commands.mail(None, {}), b"MAIL FROM:<>\r\n"),
        (commands.mail(ANN), b"MAIL FROM:<ann@example.org>\r\n"),
        (
            commands.mail(ANN, {"SIZE": "12", "BODY": "8BITMIME", "SMTPUTF8": None}),
            b"MAIL FROM:<ann@example.org> SIZE=12 BODY=8BITMIME SMTPUTF8\r\n",
        ),
        (commands.rcpt(Mailbox.parse("zoë@example.net")), "RCPT TO:<zoë@example.net>\r\n".encode()),
        (commands.rcpt(ANN, {"NOTIFY": "NEVER"}), b"RCPT TO:<ann@example.org> NOTIFY=NEVER\r\n"),
        (commands.rcpt(Mailbox.parse("postmaster")), b"RCPT TO:<postmaster>\r\n"),
        (commands.bdat(0, last=True), b"BDAT 0 LAST\r\n"),
        (commands.bdat(1000, last=False), b"BDAT 1000\r\n"),
        (commands.auth("PLAIN", b"\0a\0b"), b"AUTH PLAIN AGEAYg==\r\n"),
        (commands.auth("EXTERNAL", b""), b"AUTH EXTERNAL =\r\n"),
        (commands.auth("LOGIN"), b"AUTH LOGIN\r\n"),
        (commands.response(b"ann"), b"YW5u\r\n"),
        (commands.response(b""), b"\r\n"),
        (Command(Verb.CANCEL), b"*\r\n"),
        (commands.STARTTLS, b"STARTTLS\r\n"),
        (commands.DATA, b"DATA\r\n"),
        (commands.END_OF_CONTENT, b".\r\n"),
        (commands.RSET, b"RSET\r\n"),
        (commands.NOOP, b"NOOP\r\n"),
        (commands.vrfy("ann"), b"VRFY ann\r\n"),
        (commands.expn("Staff of the house"), b"EXPN Staff of the house\r\n"),
        (commands.QUIT, b"QUIT\r\n"),
    ],
)
def test_each_command_is_one_line(command: Command, octets: bytes) -> None:
    """W-67 and W-68, RFC 5321 §4.1, 3030 §2 (WO-11: `BDAT 0 LAST`), 4954 §4."""
    assert bytes(command) == octets


BREAKERS = ["\r\n", "\r", "\n", "\0", "\t", "\x7f", "\x1b", "\u0085", "\u2028", "\u760d", "\u760a", "\ud800"]


@pytest.mark.parametrize("breaker", [*BREAKERS, " ", ">", "<", "é", ""])
@pytest.mark.parametrize("where", ["{}", "client{}", "{}example", "client{}MAIL FROM:<x>"])
def test_a_client_name_is_a_domain_or_an_address_literal(breaker: str, where: str) -> None:
    """D-25, D-26, WO-01, WO-03, W-69 and W-71: `me XCLIENT ADDR=…` is no name."""
    name = where.format(breaker)
    if breaker == "" and where in ("client{}", "{}example"):
        return
    for greet in (commands.ehlo, commands.helo):
        with pytest.raises(InvalidArgument, match="not a valid name for EHLO"):
            greet(name)


@pytest.mark.parametrize(
    "name",
    ["a b", "-a", "a-", "a..b", ".a", "a.", "a_b", "[x]", "[999.1.1.1]", "[::1]", "[127.0.0.1", "a" * 64, "a." * 150],
)
def test_a_name_must_keep_the_grammar(name: str) -> None:
    """WO-03, RFC 5321 §4.1.2 and §4.1.3."""
    with pytest.raises(InvalidArgument):
        commands.ehlo(name)


@pytest.mark.parametrize("breaker", [*BREAKERS, " ", "=", " AUTH=<x>"])
def test_a_parameter_holds_no_space_and_no_control(breaker: str) -> None:
    """WO-01, WO-02, WO-04, W-69: neither in the keyword nor in the value."""
    for make in (commands.mail, commands.rcpt):
        for parameters in ({"X" + breaker: "v"}, {"X": "v" + breaker}, {"X": breaker}, {breaker: None}):
            if breaker in ("\u2028", "\u760d", "\u760a") and "X" in parameters:
                continue
            with pytest.raises(InvalidArgument, match="is not a valid ESMTP parameter"):
                make(ANN, parameters)


@pytest.mark.parametrize("keyword", ["", "-X", "é", "X Y", "X=Y"])
def test_a_keyword_is_letters_digits_and_hyphens(keyword: str) -> None:
    """RFC 5321 §4.1.2, esmtp-keyword."""
    with pytest.raises(InvalidArgument):
        commands.mail(ANN, {keyword: None})


def test_a_value_beyond_ascii_is_utf8() -> None:
    """RFC 6531 §3.3; WO-02: U+760D keeps both its octets, none of which is a CR."""
    assert bytes(commands.mail(None, {"X": "\u760d"})) == b"MAIL FROM:<> X=\xe7\x98\x8d\r\n"


@pytest.mark.parametrize("mechanism", ["", "plain", "PLAIN X", "PLAIN\r\n", "É", "A" * 21])
def test_a_mechanism_has_a_name_of_sasl(mechanism: str) -> None:
    """WO-01, RFC 4422 §3.1."""
    with pytest.raises(InvalidArgument, match="not a valid SASL mechanism"):
        commands.auth(mechanism)


@pytest.mark.parametrize("octet", [*range(0x20), 0x7F])
@pytest.mark.parametrize("verb", Verb)
def test_no_argument_carries_a_control_character(verb: Verb, octet: int) -> None:
    """WO-01: the choke point is behind every function that makes a command."""
    with pytest.raises(InvalidArgument, match="control character"):
        Command(verb, b"a" + bytes([octet]) + b"b")


@pytest.mark.parametrize(
    ("verb", "limit"), [(Verb.EHLO, 512), (Verb.MAIL, 1024), (Verb.RCPT, 1024), (Verb.AUTH, 12288)]
)
def test_a_command_line_has_a_limit(verb: Verb, limit: int) -> None:
    """WO-16, RFC 5321 §4.5.3.1.4: with its CRLF."""
    room = limit - len(bytes(Command(verb, b"x"))) + 1
    assert len(bytes(Command(verb, b"x" * room))) == limit
    with pytest.raises(InvalidArgument, match="too long for a command line"):
        Command(verb, b"x" * (room + 1))


def test_a_response_may_be_as_long_as_mechanisms_need() -> None:
    """RFC 4954 §4: 12288 octets with the CRLF."""
    assert len(bytes(Command(Verb.RESPONSE, b"x" * 12286))) == 12288
    with pytest.raises(InvalidArgument):
        Command(Verb.RESPONSE, b"x" * 12287)


def test_a_chunk_has_no_negative_size() -> None:
    """WO-11."""
    with pytest.raises(InvalidArgument, match="negative number of bytes"):
        commands.bdat(-1, last=True)


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (commands.auth("PLAIN", b"\0ann\0hunter2"), "AUTH PLAIN ***"),
        (commands.auth("LOGIN"), "AUTH LOGIN ***"),
        (commands.response(b"hunter2"), "***"),
        (commands.mail(ANN), "MAIL FROM:<ann@example.org>"),
        (commands.rcpt(Mailbox.parse("zoë@example.net")), "RCPT TO:<zoë@example.net>"),
        (Command(Verb.RCPT, b"TO:<\xff\xe2\x80\xae>"), "RCPT TO:<\\xff\\u202e>"),
        (commands.END_OF_CONTENT, "."),
        (Command(Verb.CANCEL), "*"),
    ],
)
def test_a_command_is_shown_without_its_secret(command: Command, shown: str) -> None:
    """AU-08, CT-08: the dialogue is logged; AUTH's arguments are masked by what they are, not by what they hold."""
    assert str(command) == shown
    assert "hunter2" not in repr(command)
    assert "aHVudGVy" not in repr(command)


WORDS = st.text(max_size=30) | st.lists(
    st.sampled_from(["\r\n", "\n", "\r", "MAIL FROM:<x@y.z>", "a", "@", "example.org", ">", " ", "\0", "é"]), max_size=6
).map("".join)
POSITIONS: dict[str, Callable[[str], Command]] = {
    "the name of EHLO": commands.ehlo,
    "the name of HELO": commands.helo,
    "the reverse-path": lambda text: commands.mail(Mailbox.parse(text)),
    "the forward-path": lambda text: commands.rcpt(Mailbox.parse(text)),
    "a keyword of MAIL": lambda text: commands.mail(ANN, {text: "v"}),
    "a value of MAIL": lambda text: commands.mail(ANN, {"X": text}),
    "a keyword of RCPT": lambda text: commands.rcpt(ANN, {text: None}),
    "a value of RCPT": lambda text: commands.rcpt(ANN, {"X": text}),
    "the mechanism": commands.auth,
    "the initial response": lambda text: commands.auth("PLAIN", text.encode("utf-8", "surrogatepass")),
    "a response": lambda text: commands.response(text.encode("utf-8", "surrogatepass")),
    "what VRFY asks about": commands.vrfy,
    "what EXPN asks about": commands.expn,
    "any argument": lambda text: Command(Verb.NOOP, text.encode("utf-8", "surrogatepass")),
}


@pytest.mark.parametrize("position", POSITIONS)
@given(WORDS)
@example("ann@example.org\r\nDATA")
@example('"foo@p> ORCPT=admin@a"@t.example')
@example("a@b> AUTH=<x")
def test_as_many_line_ends_as_commands(position: str, text: str) -> None:
    """D-26: P1, WO-01, WO-04, W-69 and W-70: for any text in any place, one line or nothing."""
    try:
        octets = bytes(POSITIONS[position](text))
    except (InvalidArgument, RecipientError):
        return
    assert octets.count(b"\r\n") == octets.count(b"\r") == octets.count(b"\n") == 1
    assert octets.endswith(b"\r\n")
    assert not re.search(rb"[\x00-\x1f\x7f]", octets[:-2])


@pytest.mark.parametrize("position", ["the reverse-path", "the forward-path"])
@pytest.mark.parametrize("high", range(0x01, 0x100, 7))
@pytest.mark.parametrize("low", [0x0A, 0x0D])
def test_no_character_turns_into_a_line_end(position: str, high: int, low: int) -> None:
    """WO-02: a codec that keeps the low byte only would make CR and LF of these."""
    text = f"a{chr(high << 8 | low)}b@example.org"
    try:
        octets = bytes(POSITIONS[position](text))
    except RecipientError:
        return
    assert octets.count(b"\r") == octets.count(b"\n") == 1


def test_a_command_survives_being_copied_and_pickled_and_shows_no_argument() -> None:
    """It is checked when it is made, and a copy is made; what it says may be a secret."""
    command = commands.auth("PLAIN", b"\0ann\0secret")
    for twin in (copy.copy(command), copy.deepcopy(command), pickle.loads(pickle.dumps(command))):
        assert (twin, bytes(twin)) == (command, bytes(command))
    assert repr(command) == f"Command({Verb.AUTH!r})"


def test_a_command_in_an_error_holds_no_secret() -> None:
    """FT-52: errors are pickled between processes, arguments and all."""
    assert commands.auth("PLAIN", b"\0ann\0hunter2").public == commands.auth("PLAIN")
    assert commands.response(b"hunter2").public == commands.response(b"")
    assert commands.NOOP.public is commands.NOOP
    assert ReplyTimeout(commands.auth("PLAIN", b"\0ann\0hunter2"), 1.0, "250-wait").command == commands.auth("PLAIN")
    assert ReplyTimeout(None, 1.0).command is None
