"""Extensions in the reply to EHLO, however it is written."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.protocol.replies import Extensions, FutureRelease, Limits, Reply, ReplyReader


def offered(*lines: str | bytes) -> Extensions:
    octets = (line.encode() if isinstance(line, str) else line for line in lines)
    return Extensions.parse(Reply(250, (b"relay.example greets you", *octets)))


def test_keywords_are_read_in_any_case_with_their_parameters() -> None:
    """W-16: unknown ones are kept."""
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


def test_offered_extensions_are_found_by_name() -> None:
    """The rest of the package asks so; each keyword makes one of them true, in any case."""
    names = {
        "PIPELINING": "pipelining",
        "chunking": "chunking",
        "STARTTLS": "starttls",
        "8bitmime": "eight_bit_mime",
        "SMTPUTF8": "smtputf8",
        "dsn": "dsn",
        "REQUIRETLS": "require_tls",
        "DeliverBy": "deliver_by",
        "MT-PRIORITY MIXER": "mt_priority",
        "RRVS": "rrvs",
    }
    for line in names:
        one = offered(line)
        assert [name for name in names.values() if getattr(one, name)] == [names[line]]
    assert not any(getattr(Extensions(), name) for name in names.values())


def test_binary_content_needs_two_of_them() -> None:
    """RFC 3030 §3: BINARYMIME goes by BDAT only."""
    assert offered("BINARYMIME", "CHUNKING").binary_mime
    assert not offered("BINARYMIME").binary_mime
    assert not offered("CHUNKING").binary_mime


@pytest.mark.parametrize(
    ("line", "limits"),
    [
        ("LIMITS RCPTMAX=20 RCPTDOMAINMAX=5 MAILMAX=3", Limits(3, 20, 5)),
        ("limits rcptmax=20", Limits(rcpt_max=20)),
        ("LIMITS MAILMAX=999999", Limits(mail_max=999999)),
        ("LIMITS MAILMAX=1000000 RCPTMAX=5", Limits(rcpt_max=5)),
        ("LIMITS MAILMAX=0 RCPTMAX=-1 RCPTDOMAINMAX=²", Limits()),
        ("LIMITS MAILMAX RCPTMAX= =5 X=7", Limits()),
        ("LIMITS", Limits()),
        ("SIZE 1", None),
    ],
)
def test_limits_are_read(line: str, limits: Limits | None) -> None:
    """RFC 9422 §3, WI-16: six digits, no zero; an unknown or malformed limit does not count."""
    assert offered(line).limits == limits


JUNE = datetime(2031, 6, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "bounds"),
    [
        ("FUTURERELEASE 86400 2031-06-01T12:00:00Z", FutureRelease(86400, JUNE)),
        ("FUTURERELEASE 86400 2031-06-01t14:00:00+02:00", FutureRelease(86400, JUNE)),
        ("FUTURERELEASE 86400 2031-06-01T12:00:00z 7", FutureRelease(86400, JUNE)),
        ("FUTURERELEASE 86400", FutureRelease(86400)),
        ("FUTURERELEASE 86400 2031-06-01T12:00:00", FutureRelease(86400)),
        ("FUTURERELEASE 86400 9999-12-31T23:59:59-01:00", FutureRelease(86400)),
        ("FUTURERELEASE -1 2031-06-01T12:00:00Z", FutureRelease(None, JUNE)),
        ("FUTURERELEASE 1000000000 999999999", FutureRelease()),
        ("FUTURERELEASE", FutureRelease()),
        ("SIZE 1", None),
    ],
)
def test_how_long_a_message_may_be_held_is_read(line: str, bounds: FutureRelease | None) -> None:
    """RFC 4865 §3, WI-16: what is unreadable is no bound, and never a crash."""
    assert offered(line).future_release == bounds


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        ("DELIVERBY 240", 240),
        ("DELIVERBY 240,x", 240),
        ("DELIVERBY ,x", None),
        ("DELIVERBY", None),
        ("DELIVERBY -1", None),
        ("DELIVERBY 1000000000", None),
        ("SIZE 1", None),
    ],
)
def test_the_shortest_time_limit_is_read(line: str, seconds: int | None) -> None:
    """RFC 2852 §2: the first of a list parted by commas."""
    assert offered(line).min_by_time == seconds


def test_xclient_attributes_are_parsed() -> None:
    """Postfix's XCLIENT names its attributes in the reply to EHLO."""
    assert offered("XCLIENT NAME addr Login").xclient == ("NAME", "ADDR", "LOGIN")
    assert offered("SIZE").xclient == ()


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
def test_mechanisms_are_the_union_of_all_auth_lines(lines: list[str], mechanisms: tuple[str, ...]) -> None:
    """W-17, D-16, WI-16: `AUTH=` is how servers wrote it before RFC 2554 was done."""
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
    (reply,) = ReplyReader().receive(octets)
    assert len(Extensions.parse(reply)) == 255


@given(
    st.lists(
        st.binary(max_size=60)
        | st.text(max_size=30).map(str.encode)
        | st.sampled_from([b"AUTH=", b"LIMITS RCPTMAX=", b"FUTURERELEASE 1 1", b"DELIVERBY ,"]),
        max_size=6,
    )
)
def test_no_reply_to_ehlo_is_a_crash(lines: list[bytes]) -> None:
    """WI-16, F2: whatever a relay offers, what can be read of it is read."""
    extensions = Extensions.parse(Reply(250, (b"relay", *lines)))
    assert all(key == key.upper() and key.isascii() for key in extensions)
    assert extensions.size is None or extensions.size > 0
    assert all(extensions.mechanisms)
    assert extensions.min_by_time is None or extensions.deliver_by
    assert all(key == key.upper() for key in extensions.xclient)
    assert (extensions.limits is None) is ("LIMITS" not in extensions)
    assert (extensions.future_release is None) is ("FUTURERELEASE" not in extensions)


def test_masked_keywords_are_not_offered() -> None:
    """A relay may be known to lie about one of them."""
    extensions = offered("PIPELINING", "SIZE 1").without(["pipelining", "DSN"])
    assert list(extensions) == ["SIZE"]


@pytest.mark.parametrize("keyword", ["SIZE", "limits", "FutureRelease", "DSN", "XCLIENT"])
def test_any_keyword_can_be_masked(keyword: str) -> None:
    """Its parameters are removed with it; the others stay."""
    everything = offered("SIZE 1", "LIMITS RCPTMAX=1", "FUTURERELEASE 1", "DSN", "XCLIENT NAME")
    rest = everything.without([keyword])
    assert set(everything) - set(rest) == {keyword.upper()}
    found = {
        "SIZE": rest.size == 1,
        "LIMITS": rest.limits == Limits(rcpt_max=1),
        "FUTURERELEASE": rest.future_release == FutureRelease(1),
        "DSN": rest.dsn,
        "XCLIENT": rest.xclient == ("NAME",),
    }
    assert [key for key, there in found.items() if not there] == [keyword.upper()]
