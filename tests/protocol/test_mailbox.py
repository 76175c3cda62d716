"""Mailboxes: a strict grammar of addresses that guesses nothing, the same on every interpreter."""

from __future__ import annotations

from time import process_time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asyncsmtp.errors import RecipientError
from asyncsmtp.protocol.envelope import Mailbox, is_address_literal, is_domain, to_a_labels


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        ("ann@ÅNGSTRÖM.example", "ann@xn--ngstrm-hua5l.example"),
        ("ann@example.org", None),
        ("a.b+c@example.org", None),
        ("=x@example.org", None),
        ("!#$%&'*+-/=?^_`{|}~@example.org", None),
        ("ann@localhost", None),
        ("ann@EXAMPLE.org", None),
        ("ann@xn--mnchen-3ya.example", None),
        ("ann@[192.0.2.1]", None),
        ("ann@[IPv6:2001:db8::1]", None),
        ("ann@[ipv6:::1]", None),
        ('"a b"@example.org', None),
        ('"a>b"@example.org', None),
        ('"a\\"b"@example.org', None),
        ('"a@b"@example.org', None),
        ('""@example.org', None),
        ('"foo@p> ORCPT=admin@a"@t.example', None),
        ("postmaster", None),
        ("Postmaster", None),
        ("zoë@example.org", None),
        ('"zoë b"@example.org', None),
        ("ann@münchen.example", "ann@xn--mnchen-3ya.example"),
        ("ann@MÜNCHEN.example", "ann@xn--mnchen-3ya.example"),
        ("ann@straße.example", "ann@xn--strae-oqa.example"),
        ("ann@例え.example", "ann@xn--r8jz45g.example"),
        ("a" * 64 + "@example.org", None),
    ],
)
def test_an_address_is_sent_as_it_is_written(text: str, wire: str | None) -> None:
    """N-09, D-22, WO-04, MH-07, W-68 and W-72: but for a domain beyond ASCII, which goes in A-labels."""
    mailbox = Mailbox.parse(text)
    assert mailbox.address == str(mailbox) == (wire or text)
    assert Mailbox.parse(str(mailbox)) == mailbox


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it has no @"),
        ("ann", "it has no @"),
        ("postmaster ", "it has no @"),
        ("@example.org", "not a valid local part"),
        ("ann@", "not a valid domain"),
        ("ann @example.org", "a space"),
        (" ann@example.org", "a space"),
        ("ann@example.org ", "a space"),
        ("ann@ example.org", "a space"),
        ("a b@example.org", "a space"),
        ("ann@example.org\r\n", "a line break"),
        ("an\nn@example.org", "a line break"),
        ("an\rn@example.org", "a line break"),
        ("ann\0@example.org", "not a valid local part"),
        ("ann\t@example.org", "the character U+0009"),
        ("ann\x7f@example.org", "not a valid local part"),
        ('"a\x7fb"@example.org', "not a valid local part"),
        ("ann\x85@example.org", "the character U+0085"),
        ("ann\x9b@example.org", "not a valid local part"),
        ("ann@example.org\x00", "not a valid domain"),
        ("ann@b> AUTH=<x", "a space"),
        ("ann@b>", "not a valid domain"),
        ("<ann@example.org>", "not a valid local part"),
        ("Ann <ann@example.org>", "a space"),
        ("ann@example.org,bob@example.org", "not a valid local part"),
        ("a@e@g", "not a valid local part"),
        ("@relay:ann@example.org", "not a valid local part"),
        ("(x)ann@example.org", "not a valid local part"),
        ("alice@example.org)bob@example.com", "not a valid local part"),
        (".ann@example.org", "not a valid local part"),
        ("..ann@example.org", "not a valid local part"),
        ("...@example.org", "not a valid local part"),
        ('"ann@example.org', "not a valid local part"),
        ('ann"@example.org', "not a valid local part"),
        ('"a"b"@example.org', "not a valid local part"),
        ('"a\\"@example.org', "not a valid local part"),
        ('a."b"@example.org', "not a valid local part"),
        ("a" * 65 + "@example.org", "more than 64 bytes"),
        ("é" * 33 + "@example.org", "more than 64 bytes"),
        ("a" * 64 + "@" + "b." * 95 + "org", "at most 256 bytes"),
        ("ann@" + "b." * 127 + "org", "not a valid domain"),
        ("ann@" + "b" * 64 + ".org", "not a valid domain"),
        ("ann@" + "ü" * 300, "the domain is too long"),
        ("ann@" + "x" * 2000, "too long"),
        ("ann@example..org", "not a valid domain"),
        ("ann@example.org.", "not a valid domain"),
        ("ann@-example.org", "not a valid domain"),
        ("ann@example-.org", "not a valid domain"),
        ("ann@exa_mple.org", "not a valid domain"),
        ("ann@ü..org", "the domain is not valid"),
        ("ann@ü_.org", "the domain is not valid"),
        ("ann@exa。mple.ü", "the domain is not valid"),
        ("ann@ｅxample.org", "the domain is not valid"),
        ("ann＠example.org", "it has no @"),
        ("ann@[", "not a valid address literal"),
        ("ann@[]", "not a valid address literal"),
        ("ann@[192.0.2.1", "not a valid address literal"),
        ("ann@[192.0.2]", "not a valid address literal"),
        ("ann@[192.0.2.256]", "not a valid address literal"),
        ("ann@[192.0.2.01]", "not a valid address literal"),
        ("ann@[１.2.3.4]", "not a valid address literal"),
        ("ann@[::1]", "not a valid address literal"),
        ("ann@[IPv6:1]", "not a valid address literal"),
        ("ann@[IPv6:192.0.2.1]", "not a valid address literal"),
        ("ann@[IPv6:fe80::1%eth0]", "not a valid address literal"),
        ("ann@[IPv6:::1%x>]", "not a valid address literal"),
        ("ann@[IPv6:::1%é]", "not a valid address literal"),
        ("ann@[IPv6:::1%\x01]", "not a valid address literal"),
        ("ann@[x-tag:whatever]", "not a valid address literal"),
        ("ann\u200b@example.org", "the character U+200B"),
        ("ann@exam\u200bple.org", "the character U+200B"),
        ("ann\u202e@example.org", "the character U+202E"),
        ("ann\u00ad@example.org", "the character U+00AD"),
        ("ann\ufeff@example.org", "the character U+FEFF"),
        ("ann\u034f@example.org", "the character U+034F"),
        ("ann\u206f@example.org", "the character U+206F"),
        ("ann\U000e0041@example.org", "the character U+E0041"),
        ("ann\u00a0@example.org", "the character U+00A0"),
        ("ann\u3000@example.org", "the character U+3000"),
        ("ann\udcff@example.org", "the character U+DCFF"),
        ("ann@example\udcff.org", "the character U+DCFF"),
        ('"a\u2028b"@example.org', "the character U+2028"),
    ],
)
def test_an_invalid_address_is_refused_with_the_reason(text: str, why: str) -> None:
    """MH-06, MH-07, MH-09, WO-01, WO-04, WO-16, W-69 and W-70: nothing is cut, mapped or completed."""
    with pytest.raises(RecipientError) as refused:
        Mailbox.parse(text)
    assert why in str(refused.value)
    assert str(refused.value).isprintable()


ENCODED = [
    "=?x?q?victim=40corp.example=3e=00?=foo@x.example",
    "=?utf-8?q?victim=40corp.example?=@x.example",
    "=?utf-8?b?dmljdGlt?=@x.example",
    "a.=?utf-8?q?b?=@x.example",
    "a=?utf-8*en?q?b?=c@x.example",
    '"=?utf-8?q?victim=40corp.example=3e?="@x.example',
    '"a =?x?y?z?= b"@x.example',
    '"=\\?utf-8?q\\?b?="@x.example',
    "zoë=?utf-8?q?b?=@x.example",
]


@pytest.mark.parametrize("text", ENCODED)
def test_an_encoded_word_in_a_local_part_is_refused(text: str) -> None:
    """FT-05: readers of a header decode it, and see another address; RFC 2047 §5 forbids it there."""
    with pytest.raises(RecipientError, match=r"encoded word|not a valid local part"):
        Mailbox.parse(text)


@pytest.mark.parametrize("local", ["=?a", "a?=", "a=?=b", "?=?", "a=b?c", "what?"])
def test_the_characters_of_an_encoded_word_are_allowed(local: str) -> None:
    """FT-05: RFC 5322 §3.2.3; such a local part decodes to nothing else."""
    assert Mailbox.parse(f"{local}@x.example").local == local


@pytest.mark.parametrize("text", ["abc.@docomo.ne.jp", "a..b@docomo.ne.jp", "a...b..@ezweb.ne.jp", "zoë.@x.example"])
def test_dots_that_carriers_gave_out_are_kept(text: str) -> None:
    """FT-46: with quotation marks it is the form of RFC 5321, and is kept too."""
    assert Mailbox.parse(text).address == text
    local, _, domain = text.partition("@")
    assert Mailbox.parse(f'"{local}"@{domain}').address == f'"{local}"@{domain}'


@pytest.mark.parametrize("text", ["\ufffd@x.example", "a\ufffdb@x.example", '"\ufffd"@x.example', "b@\ufffd.example"])
def test_what_was_not_decoded_is_no_address(text: str) -> None:
    """FT-01: U+FFFD stands for bytes that were lost, so two people would become one."""
    with pytest.raises(RecipientError, match=r"U\+FFFD"):
        Mailbox.parse(text)


@pytest.mark.parametrize(
    "domain",
    [
        "loc\u00adalhost",
        "ｌｏｃａｌｈｏｓｔ",
        "\u212aey.example",
        "boo\u212a.example",
        "ｅxample.org",
        "①.example",
        "a\u200db.example",
    ],
)
def test_a_domain_that_becomes_another_is_refused(domain: str) -> None:
    """FT-06: what IDNA 2003 or lower case would map to ASCII letters; U+212A is the Kelvin sign."""
    with pytest.raises(RecipientError):
        Mailbox.parse(f"ann@{domain}")
    with pytest.raises(ValueError, match="domain"):
        to_a_labels(domain)


def test_two_spellings_of_a_domain_have_one_key() -> None:
    """TF-11: the local part is the relay's business, RFC 5321 §2.4."""
    assert Mailbox.parse("Ann@EXAMPLE.org").key == Mailbox.parse("Ann@example.ORG").key == "Ann@example.org"
    assert Mailbox.parse("ann@example.org").key != Mailbox.parse("Ann@example.org").key
    assert Mailbox.parse("ann@münchen.example").key == Mailbox.parse("ann@xn--mnchen-3ya.EXAMPLE").key


@pytest.mark.parametrize(
    ("text", "needed"),
    [("ann@example.org", False), ("zoë@example.org", True), ("ann@münchen.example", False), ("postmaster", False)],
)
def test_only_a_local_part_beyond_ascii_needs_smtputf8(text: str, needed: bool) -> None:
    """W-73 and W-74: a domain has A-labels."""
    mailbox = Mailbox.parse(text)
    assert mailbox.needs_smtputf8 is needed
    assert mailbox.domain.isascii()


@given(
    st.one_of(
        st.text(max_size=80),
        st.lists(
            st.sampled_from(["a", ".", "@", '"', "\\", "ü", "[", "]", "IPv6:", "::1", "1.2.3.4", "%", "-", ">", " "]),
            max_size=16,
        ).map("".join),
        st.emails(),
    )
)
@example("ann@[IPv6:::1%x>]")
def test_a_parsed_address_is_sent_and_parsed_the_same(text: str) -> None:
    """WO-04: parse(str(mailbox)) is the mailbox, and nothing but RecipientError comes of any text."""
    try:
        mailbox = Mailbox.parse(text)
    except RecipientError:
        return
    assert Mailbox.parse(str(mailbox)) == mailbox
    assert mailbox.local == text.rpartition("@")[0] or mailbox.domain == ""
    outside = mailbox.address.replace(mailbox.local, "") if mailbox.local.startswith('"') else mailbox.address
    assert not set(outside) & set("<> \r\n\0\t,;")


@pytest.mark.parametrize("text", ["@" * 65536, '"' * 65536, "a@" + "a-" * 32768, "a" * 65536 + "@b", "a@" + "ü" * 1000])
def test_a_hostile_address_costs_little(text: str) -> None:
    """MH-08, MH-09: no pattern of ours runs away, whatever the length."""
    began = process_time()
    with pytest.raises(RecipientError):
        Mailbox.parse(text)
    assert process_time() - began < 0.5


def test_domains_and_literals_serve_ehlo_as_well() -> None:
    """WO-03: one grammar for both."""
    assert is_domain("a" * 63 + ".b-c.d")
    assert not is_domain("")
    assert is_address_literal("[127.0.0.1]")
    assert not is_address_literal("127.0.0.1")
