"""What EHLO offered, whatever it wrote, and what a message needs of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.errors import NotOffered
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.extensions import Extensions
from asyncsmtp.protocol.parameters import parameters
from asyncsmtp.protocol.replies import Reply, ReplyReader

PLAIN = Envelope.of("ann@example.org", "bob@example.net")
HELLO = Content.of(b"Subject: hello\r\n\r\n.hi\r\n")


def offered(*lines: str | bytes) -> Extensions:
    octets = (line.encode() if isinstance(line, str) else line for line in lines)
    return Extensions.parse(Reply(250, (b"relay.example greets you", *octets)))


def test_keywords_are_read_in_any_case_with_their_parameters() -> None:
    """wire.md row 16: unknown ones are kept."""
    extensions = offered("size 1000", "Pipelining", "X-Odd  a=b  C", "LIMITS MAILMAX=1000 RCPTMAX=50000")
    assert dict(extensions) == {
        "SIZE": ("1000",),
        "PIPELINING": (),
        "X-ODD": ("a=b", "C"),
        "LIMITS": ("MAILMAX=1000", "RCPTMAX=50000"),
    }
    assert extensions["pipelining"] == ()
    assert "x-odd" in extensions
    assert 7 not in extensions
    assert len(extensions) == 4
    assert repr(offered("DSN")) == "Extensions({'DSN': ()})"


def test_the_first_line_is_the_relays_name() -> None:
    """RFC 5321 §4.1.1.1: a domain that is called like a keyword offers nothing."""
    assert not Extensions.parse(Reply(250, (b"PIPELINING",)))


def test_what_is_offered_is_asked_by_name() -> None:
    """The rest of the package asks so."""
    everything, nothing = offered("PIPELINING", "CHUNKING", "STARTTLS"), Extensions()
    assert (everything.pipelining, everything.chunking, everything.starttls) == (True, True, True)
    assert (nothing.pipelining, nothing.chunking, nothing.starttls) == (False, False, False)


@pytest.mark.parametrize(
    ("lines", "mechanisms"),
    [
        (["AUTH PLAIN LOGIN"], ("PLAIN", "LOGIN")),
        (["AUTH=PLAIN LOGIN", "AUTH CRAM-MD5"], ("PLAIN", "LOGIN", "CRAM-MD5")),
        (["AUTH plain", "AUTH=plain login"], ("PLAIN", "LOGIN")),
        (["AUTH\tPLAIN\tLOGIN"], ("PLAIN", "LOGIN")),
        (["auth=login"], ("LOGIN",)),
        (["AUTH="], ()),
        (["AUTH"], ()),
        ([], ()),
    ],
)
def test_mechanisms_are_the_union_of_what_auth_says(lines: list[str], mechanisms: tuple[str, ...]) -> None:
    """wire.md row 17, WI-16: `AUTH=` is how servers wrote it before RFC 2554 was done."""
    assert offered(*lines).mechanisms == mechanisms


@pytest.mark.parametrize(
    ("line", "limit"),
    [
        ("SIZE 1000", 1000),
        ("SIZE 0", None),
        ("SIZE", None),
        ("SIZE -1", None),
        ("SIZE=-1", None),
        ("SIZE=1000", None),
        ("SIZE x", None),
        ("SIZE ١٠", None),
        ("SIZE ²", None),
        ("SIZE 1e3", None),
        ("SIZE " + "9" * 20, 10**20 - 1),
        ("SIZE " + "9" * 21, None),
        ("SIZE " + "9" * 5000, None),
        ("SIZE 1000 x", 1000),
        ("HELP", None),
    ],
)
def test_a_size_that_is_no_number_is_no_limit(line: str, limit: int | None) -> None:
    """WI-16, RFC 1870 §4: 0 is "no limit", 5,000 digits are no reason to crash."""
    assert offered(line).size == limit


@pytest.mark.parametrize("line", ["", " ", "-X", "é", "\x00", b"\xff\xfe", "=X", "A_B", "\u2028"])
def test_a_line_that_is_no_keyword_is_passed_over(line: str | bytes) -> None:
    """WI-16: smtp-sink's last line is an empty `250 `."""
    assert list(offered("DSN", line, "HELP")) == ["DSN", "HELP"]


def test_the_last_of_two_lines_counts() -> None:
    """WI-16: duplicates are no failure."""
    assert offered("SIZE 1", "SIZE 2").size == 2


def test_ten_thousand_keywords_never_arrive() -> None:
    """WI-16: the reader has its bound, the parser reads what it lets through."""
    octets = b"250-relay\r\n" + b"".join(b"250-X%d\r\n" % n for n in range(254)) + b"250 LAST\r\n"
    (reply,) = ReplyReader().replies(octets)
    assert len(Extensions.parse(reply)) == 255


@given(st.lists(st.binary(max_size=60) | st.text(max_size=30).map(str.encode) | st.just(b"AUTH="), max_size=6))
def test_no_reply_to_ehlo_is_a_crash(lines: list[bytes]) -> None:
    """WI-16, F2: whatever a relay offers, what can be read of it is read."""
    extensions = Extensions.parse(Reply(250, (b"relay", *lines)))
    assert all(key == key.upper() and key.isascii() for key in extensions)
    assert extensions.size is None or extensions.size > 0
    assert all(extensions.mechanisms)


def test_masked_keywords_are_not_offered() -> None:
    """A relay may be known to lie about one of them."""
    extensions = offered("PIPELINING", "SIZE 1").without(["pipelining", "DSN"])
    assert list(extensions) == ["SIZE"]


@pytest.mark.parametrize(
    ("lines", "needed"),
    [
        ([], {}),
        (["PIPELINING", "8BITMIME", "SMTPUTF8"], {}),
        (["SIZE"], {"SIZE": "23"}),
        (["SIZE 23"], {"SIZE": "23"}),
        (["SIZE 0"], {"SIZE": "23"}),
    ],
)
def test_a_plain_message_declares_its_size_only(lines: list[str], needed: dict[str, str | None]) -> None:
    """WO-13, wire.md row 66: before transparency, and only where SIZE is offered."""
    assert HELLO.size == 23
    assert parameters(PLAIN, HELLO, offered(*lines)) == needed


def test_a_message_beyond_the_limit_is_refused_here() -> None:
    """WO-13: 22 octets are offered, 23 are needed; nothing is sent."""
    with pytest.raises(NotOffered, match="the message has 23 octets, the relay takes 22") as refused:
        parameters(PLAIN, HELLO, offered("SIZE 22"))
    assert refused.value.extension == "that SIZE"


EIGHT_BIT = Content.of("Subject: hi\r\n\r\né\r\n")
UTF8 = Content.of("Subject: é\r\n\r\n")
ZOE = Envelope.of("ann@example.org", "zoë@example.net")


@pytest.mark.parametrize(
    ("envelope", "content", "needed"),
    [
        (PLAIN, EIGHT_BIT, {"BODY": "8BITMIME"}),
        (PLAIN, UTF8, {"BODY": "8BITMIME", "SMTPUTF8": None}),
        (ZOE, HELLO, {"SMTPUTF8": None}),
        (Envelope.of(None, "ann@münchen.example"), HELLO, {}),
    ],
)
def test_what_is_beyond_ascii_is_declared(envelope: Envelope, content: Content, needed: dict[str, str | None]) -> None:
    """WO-12, wire.md rows 73 and 76; a domain beyond ASCII needs nothing, it goes in A-labels."""
    assert parameters(envelope, content, offered("8bitmime", "smtputf8")) == needed


@pytest.mark.parametrize(
    ("envelope", "content", "lines", "missing"),
    [
        (PLAIN, EIGHT_BIT, ["SMTPUTF8"], "8BITMIME"),
        (PLAIN, UTF8, ["8BITMIME"], "SMTPUTF8"),
        (ZOE, HELLO, ["8BITMIME"], "SMTPUTF8"),
        (ZOE, EIGHT_BIT, [], "8BITMIME"),
    ],
)
def test_what_is_needed_and_missing_is_said_before_mail(
    envelope: Envelope, content: Content, lines: list[str], missing: str
) -> None:
    """WO-12, wire.md rows 74 and 76: no half-open envelope, no raw octets to a relay that takes 7 bits."""
    with pytest.raises(NotOffered) as refused:
        parameters(envelope, content, offered(*lines))
    assert refused.value.extension == missing
