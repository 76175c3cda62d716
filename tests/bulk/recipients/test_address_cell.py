"""The address cell: what is mailed is what it says, or nothing is."""

from __future__ import annotations

import time
from itertools import starmap

import idna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsmtp.bulk.recipients.recipient import find_mixed_scripts, parse_address_cell
from asyncsmtp.errors import RecipientError
from asyncsmtp.protocol.envelope import Mailbox

LONGEST = "l" * 64 + "@" + ".".join(["d" * 60] * 3) + ".org"


@pytest.mark.parametrize(
    "cell",
    ["bob@example.com", "BOB+tag@Example.COM", "=x@example.com", "o'neil@example.com", "b@x", "é@example.com", LONGEST],
)
def test_the_path_is_the_cell_octet_for_octet(cell: str) -> None:
    """MH-07: nothing is folded, unquoted, cut or completed between the file and RCPT."""
    assert parse_address_cell(cell).address == cell


@settings(deadline=None)
@given(st.text("ab@.,;<>()\"' \t\r\n:=+é\u200b", min_size=1, max_size=20))
def test_no_cell_becomes_another_address(cell: str) -> None:
    """MH-07: whatever the cell holds, its path is the cell without the spaces round it (a domain
    beyond ASCII in A-labels), or it is refused.
    """
    try:
        mailbox = parse_address_cell(cell)
    except RecipientError:
        return
    local, _, domain = cell.strip(" \t").rpartition("@")
    assert mailbox.local == local
    assert mailbox.domain == domain if domain.isascii() else idna.decode(mailbox.domain) == domain


def test_spaces_round_an_address_are_not_part_of_it() -> None:
    """Spreadsheets and web pages leave them, a no-break space too."""
    assert parse_address_cell(" \tbob@example.com\u00a0 ").address == "bob@example.com"


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("Bob <bob@example.com>", "keep what is between < and >"),
        ("<bob@example.com>", "keep what is between < and >"),
        ("<bob@example.com", "keep what is between < and >"),
        ("bob@example.com>", "keep what is between < and >"),
        ("a@example.com, b@example.com", "more than one address"),
        ("a@example.com;b@example.com", "more than one address"),
        ("a@example.com b@example.com", "more than one address"),
        ("mailto:a@example.com", "mailto:"),
        ("a@example.com\n", "a line break: keep one address alone in the cell"),
        ("a@example.com\rz@example.com", "a line break: keep one address alone in the cell"),
        ("a@example.com\r\nBcc: z@example.com", "a line break: keep one address alone in the cell"),
        ("a@e@example.com", "not a valid local part"),
        ("@relay.example:b@example.com", "not a valid local part"),
        ("b@example.com (Bob)", "a space"),
        ("friends: a@example.com;", "a space"),
        ("alice@example.org)bob@example.com", "not a valid local part"),
        ('"foo@p> ORCPT=admin@a"@t.example', "between < and >|quoted local part"),
        ('"a b"@example.com', "quoted local part"),
        ('""@example.com', "quoted local part"),
        ('"a.@b"@docomo.ne.jp', "quoted local part"),
        ('".a"@docomo.ne.jp', "quoted local part"),
        (".a@docomo.ne.jp", "not a valid local part"),
        ("=?utf-8?q?a?=@example.com", "encoded word"),
        ("m\ufffdller@example.com", r"U\+FFFD"),
        ("postmaster", "no domain"),
        ("bob", "no @"),
        ("bob@", "not a valid domain"),
        ("bob@example..com", "not a valid domain"),
        ("bob@-example.com", "not a valid domain"),
        ("bob@example.com.", "not a valid domain"),
        ("l" * 65 + "@example.com", "64 bytes"),
        ("a" * 5000 + "@example.com", "too long"),
    ],
)
def test_a_cell_with_anything_else_is_refused_with_the_reason(cell: str, told: str) -> None:
    """MH-06, MH-07, WO-04, WO-16: lists, routes, comments, names, quotes: others guess, and mail somebody else."""
    with pytest.raises(RecipientError, match=told):
        parse_address_cell(cell)


@pytest.mark.parametrize(
    "cell",
    [
        "bob＠example.com",
        "bob@example．com",
        "bob@example。com",
        "bob@example｡com",
        "bob@ｅxample.com",
        "bob@exam\u200bple.com",
        "bob@exam\u200cple.com",
        "bob@exam\u200dple.com",
        "bob@\u2060example.com",
        "bob@\ufeffexample.com",
        "bo\u200bb@example.com",
        "bo\u00adb@example.com",
        "\u202ebob@example.com",
        "bob\u202c@example.com",
        "\u2066bob@example.com",
        "\u200ebob@example.com",
        "bob@example.com\u200f",
        "bo\u2028b@example.com",
        "bo\u3000b@example.com",
        "bo\u0085b@example.com",
        "bob@abא.com",
        "bob@☃.com",
        "bob@ﬁ.com",
        "bob@Ⅷ.com",
        "bob@bu\u0308cher.example",
        "bob@" + "ü" * 60 + ".example",
        "bob@" + "ü" * 300,
        "bob@.example",
        "b\ud800b@example.com",
        "bob@\ud800.com",
    ],
    ids=ascii,
)
def test_what_cannot_be_seen_or_reads_as_another_domain_is_refused(cell: str) -> None:
    """MH-09: full-width forms, zero-width and bidirectional characters; nothing is normalised into an address."""
    with pytest.raises(RecipientError):
        parse_address_cell(cell)


def test_a_hostile_cell_is_refused_at_once() -> None:
    """MH-08: 64 KiB of nested anything is one comparison of a length."""
    cells = ["(" * 65_536 + "a@example.com", "<" * 65_536, "a@" + "ü." * 32_768, ("a@b," * 16_384)]
    for cell in cells:
        begun = time.process_time()
        with pytest.raises(RecipientError):
            parse_address_cell(cell)
        assert time.process_time() - begun < 0.05


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("bob@example.com", "bob@EXAMPLE.com", True),
        ("bob@example.com", " bob@example.com ", True),
        ("bob@bücher.example", "bob@xn--bcher-kva.example", True),
        ("bob@BÜCHER.example", "bob@bücher.example", True),
        ("bob@example.com", "Bob@example.com", False),
        ("bob@example.com", "bob@mail.example.com", False),
        ("bob@faß.example", "bob@fass.example", False),
        ("é@example.com", "e\u0301@example.com", False),
    ],
)
def test_two_spellings_share_a_key_when_they_are_one_mailbox(one: str, other: str, same: bool) -> None:
    """TF-11: the domain's case and form do not count; a local part is its owner's, and compared as it is."""
    assert (parse_address_cell(one).key == parse_address_cell(other).key) is same


@pytest.mark.parametrize(
    "cell", ["abc.@docomo.ne.jp", "a..b@ezweb.ne.jp", '"abc."@docomo.ne.jp', '"a..b"@docomo.ne.jp']
)
def test_dots_that_carriers_gave_out_are_kept(cell: str) -> None:
    """FT-46: with quotation marks or without, as the list has them."""
    assert parse_address_cell(cell).address == cell


def test_a_domain_that_mixes_alphabets_is_remarked() -> None:
    """MH-09: “exаmple” with a Cyrillic “а” is a domain, but rarely the one that was meant."""
    assert "Cyrillic and Latin" in find_mixed_scripts("bob@ex\u0430mple.com")


@pytest.mark.parametrize("cell", ["bob@example.com", "bob@bücher.example", "bob@пример.example", "bob@日本ひらカタ.jp"])
def test_a_domain_in_one_alphabet_is_not_remarked(cell: str) -> None:
    """Half the world writes beyond ASCII; a remark on each would be read by nobody."""
    assert find_mixed_scripts(cell) == ""


def test_the_corpus_of_confused_parsers_has_one_verdict() -> None:
    """MH-06: header parsers read `alice` or nobody from these, by version; there is one answer here."""
    verdicts = starmap(_verdict, _CORPUS)
    assert [text for text, right in verdicts if not right] == []


_CORPUS = [
    ("alice@example.org)bob@example.com", None),
    ("alice@example.org(bob@example.com", None),
    ("alice@example.org<bob@example.com>", None),
    ("alice@example.org@bob@example.com", None),
    ("alice@example.org,bob@example.com", None),
    ("alice@example.org;bob@example.com", None),
    ("alice@example.org:bob@example.com", None),
    ("alice@example.org[bob@example.com", None),
    ("alice@example.org]bob@example.com", None),
    ('alice@example.org"bob@example.com', None),
    ("alice@example.org\\bob@example.com", None),
    ("alice(comment)@example.org", None),
    ("alice@(comment)example.org", None),
    ("alice.@example.org", "alice.@example.org"),
    ("alice@ example.org", None),
    (".alice@example.org", None),
    ("alice.@example.org", "alice.@example.org"),
    ("al..ice@example.org", "al..ice@example.org"),
    ("alice@exa_mple.org", None),
    ("alice@example.org.", None),
    ("alice@[300.1.1.1]", None),
    ("alice@[IPv6:zz]", None),
    ("alice@[", None),
    ("alice@[192.0.2.1]", "alice@[192.0.2.1]"),
    ("alice@[IPv6:2001:db8::1]", "alice@[IPv6:2001:db8::1]"),
    ("!#$%&'*+/=?^_`{|}~-@example.org", "!#$%&'*+/=?^_`{|}~-@example.org"),
    ("1@1.example", "1@1.example"),
    ("用户@例え.jp", "用户@xn--r8jz45g.jp"),
]


def _verdict(text: str, expected: str | None) -> tuple[str, bool]:
    try:
        mailbox: Mailbox | None = parse_address_cell(text)
    except RecipientError:
        mailbox = None
    return text, (mailbox and mailbox.address) == expected
