"""What providers object to: a good message passes every rule, and a bad one trips each."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from asyncsmtp.mail.attachment import Attachment
from asyncsmtp.mail.checks.parsed_message import parse_message
from asyncsmtp.mail.checks.rules import RULES, FindingLevel, check_message
from asyncsmtp.mail.list_unsubscribe import Unsubscribe
from asyncsmtp.mail.message import Message
from asyncsmtp.mail.signing.smime import SmimeSigner
from asyncsmtp.mail.templates.template import Template
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.envelope import Envelope, Mailbox
from tests.mail.test_smime import Papers

WAY = Unsubscribe("https://example.org/u/{{ token }}", b"0123456789abcdef")
SIGNED = (
    b"DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=s1;\r\n"
    b" h=From:List-Unsubscribe:List-Unsubscribe-Post; b=x\r\n"
)
TEXT = "The news of this week, in as many words as it takes to say something to somebody who reads.\n"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(30)
HTML = f'<p>{TEXT}</p><img src="https://example.org/logo.png" alt="Example"><a href="https://example.org/">more</a>'
GOOD: dict[str, object] = {
    "from_": "News <news@example.org>",
    "subject": "News of the week",
    "text": TEXT,
    "html": HTML,
    "unsubscribe": WAY,
}


def message(signature: bytes = SIGNED, *, seal: SmimeSigner | None = None, **changed: object) -> Message:
    composer = Template(**{**GOOD, **changed}).compile((), smime_signer=seal)  # type: ignore[arg-type]
    made = composer.compose(
        Mailbox.parse("ann@example.net"), {}, message_id="a@example.org", date=datetime(2026, 3, 1, tzinfo=UTC)
    )
    return Message(made.envelope, Content.of(signature + bytes(made.content)))  # type: ignore[arg-type]


def found(given: Message) -> set[str]:
    return {finding.rule for finding in check_message(given)}


def test_a_good_message_passes_every_rule() -> None:
    assert check_message(message()) == []
    assert check_message(message(text=TEXT, html=None)) == []


BAD = {
    "unsubscribe": message(unsubscribe=None),
    "one-click": message(unsubscribe=Unsubscribe(WAY.url, WAY.secret, one_click=False)),
    "unsubscribe-signed": message(SIGNED.replace(b":List-Unsubscribe-Post", b"")),
    "text-part": message(text=None),
    "unsigned": message(b""),
    "aligned": message(SIGNED.replace(b"d=example.org", b"d=relay.example")),
    "return-path": message(b"", return_path="bounces@relay.example"),
    "filler-text": message(html=HTML + "<p>Write your\nmessage here.</p>"),
    "image-only": message(html='<p>News</p><img src="https://example.org/all.png" alt="everything">'),
    "alternatives": message(html=HTML.replace(' alt="Example"', "")),
    "disguised-file": message(attachments=(Attachment("terms.pdf", PNG),)),
    "large": message(attachments=(Attachment("film.bin", b"x" * 9_000_000),)),
    "long-html": message(html=HTML + "<p>and more</p>" * 7_000),
    "eight-bit": Message(
        Envelope.of("news@example.org", ["ann@example.net"]),
        Content.of(bytes(message().content).replace(b"News of the week", "Käse".encode())),  # type: ignore[arg-type]
    ),
    "insecure-link": message(html=HTML.replace('href="https', 'href="HTTP')),
    "script": message(html=HTML.replace('https://example.org/"', 'javascript:alert(1)"')),
    "relative-link": message(html=HTML.replace('href="https://example.org/"', 'href="offers.html"')),
    "relative-image": message(html=HTML.replace("https://example.org/logo.png", "logo.png")),
    "form": message(html=HTML + '<form action="/answer"><input name="answer"></form>'),
    "active-file": message(attachments=(Attachment("invoice.pdf.EXE", b"MZ"),)),
    "subject": message(subject="BUY THIS NOW"),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_bad_message_trips_the_rule(rule: str) -> None:
    """Each rule by itself; what it says has an advice, and nothing that acts on a terminal."""
    assert rule in found(BAD[rule])
    (finding,) = [one for one in check_message(BAD[rule]) if one.rule == rule]
    assert finding.weight in FindingLevel
    assert finding.advice
    assert str(finding).isprintable()


@pytest.mark.parametrize("text", ["LOREM  ipsum dolor sit amet", f"{TEXT}\nWrite your message here.\n"])
def test_a_template_that_nobody_has_filled_in(text: str) -> None:
    """In the text part as well, however it is wrapped."""
    (finding,) = check_message(message(text=text))
    assert finding.rule == "filler-text"


def test_no_message_is_bad_for_more_than_its_own_reason() -> None:
    """A rule that fires with another's fault would send its reader the wrong way."""
    allowed = {"return-path": {"unsigned"}, "large": set(), "unsubscribe-signed": set()}
    for rule, bad in BAD.items():
        assert found(bad) - {rule} <= allowed.get(rule, set()), rule


@pytest.mark.parametrize(
    ("domain", "aligned"), [("example.org", True), ("mail.example.org", True), ("ample.org", False)]
)
@pytest.mark.parametrize("author", ["example.org", "news.example.org"])
def test_a_signature_is_aligned_by_a_domain_of_the_same_organisation(domain: str, aligned: bool, author: str) -> None:
    """RFC 7489 §3.1.1, as far as it goes without the list of public suffixes."""
    signature = SIGNED.replace(b"d=example.org", f"d={domain}".encode())
    assert found(message(signature, from_=f"News <news@{author}>")) == (set() if aligned else {"aligned"})


def test_bounces_may_go_to_another_host_of_the_same_organisation() -> None:
    """RFC 7489 §3.1.2; without a signature the reverse-path is all that DMARC has."""
    made = message(b"", from_="News <news@news.example.org>", return_path="b@bounces.example.org")
    assert found(made) == {"unsigned"}


def way_out(list_unsubscribe: str, post: str = "List-Unsubscribe=One-Click") -> Message:
    """With a way out that the campaign wrote by itself."""
    return message(unsubscribe=None, headers={"List-Unsubscribe": list_unsubscribe, "List-Unsubscribe-Post": post})


@pytest.mark.parametrize(
    "written",
    [
        "<https://example.org/u>",
        "<mailto:leave@example.org>, <https://example.org/u>",
        "<HTTPS://example.org/u> (by hand)",
    ],
)
def test_list_unsubscribe_may_be_written_by_hand(written: str) -> None:
    assert check_message(way_out(written)) == []
    assert check_message(way_out(written, "list-unsubscribe=one-click")) == []


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        ("unsubscribe", way_out("https://example.org/u")),
        ("unsubscribe", way_out("<https://example.org/u>, mailto:leave@example.org")),
        ("unsubscribe", way_out("<leave@example.org>")),
        ("one-click", way_out("<https://example.org/u>", "yes")),
        ("one-click", way_out("<mailto:leave@example.org>")),
        ("one-click", way_out("<http://example.org/u>")),
    ],
)
def test_a_faulty_list_unsubscribe_is_found(rule: str, bad: Message) -> None:
    """RFC 2369 §2: URLs in angle brackets. RFC 8058 §3.1: one of them https, and one value of List-Unsubscribe-Post."""
    assert found(bad) == {rule}


@pytest.mark.parametrize(
    ("rule", "more"),
    [
        ("script", "<script>alert(1)</script>"),
        ("script", '<script src="x.js"></script>'),
        ("script", '<p onclick="x()">and</p>'),
        ("script", "<svg ONLOAD=x()></svg>"),
        ("script", '<a href="vbscript:x">and</a>'),
        ("form", "<form></form>"),
        ("relative-link", '<a href="/offers">and</a>'),
        ("relative-link", '<a href="//example.org/offers">and</a>'),
        ("relative-link", '<a href="www.example.org">and</a>'),
        ("relative-link", '<a href="file:///C:/offers.html">and</a>'),
        ("relative-image", '<img src="/logo.png" alt="">'),
        ("relative-image", '<img src=logo.png alt="">'),
        ("relative-image", '<img src="file:///C:/logo.png" alt="">'),
        ("relative-image", r'<img src="C:\logo.png" alt="">'),
        (
            "relative-image",
            '<img src="https://example.org/a.png" srcset="https://example.org/b.png 1x,c.png 2x" alt="">',
        ),
        ("relative-image", '<table background="logo.png"></table>'),
        ("relative-image", """<div style="background: URL( 'logo.png' )"></div>"""),
        ("relative-image", "<style>p { background: url(logo.png) }</style>"),
        ("insecure-link", '<table background="http://example.org/logo.png"></table>'),
    ],
)
def test_html_that_mail_programs_cannot_show_is_found(rule: str, more: str) -> None:
    assert found(message(html=HTML + more)) == {rule}


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ("<script>alert(1)</script>", "the HTML has <script>, and"),
        ('<p onclick="x()">and</p>', "the HTML has onclick=, and"),
        ("<a href='vbscript:x'>and</a>", "the link vbscript:x runs a script"),
    ],
)
def test_a_script_is_named(more: str, named: str) -> None:
    [finding] = check_message(message(html=HTML + more))
    assert named in str(finding)


@pytest.mark.parametrize(
    "more",
    [
        '<a href="#top">up</a><a href="mailto:a@example.org">write</a><a href="tel:+43123">call</a><a name="top"></a>',
        '<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" alt>',
        '<img src="https://example.org/a,b.png" srcset="https://example.org/c,d 1x, https://example.org/e 2x" alt="">',
        """<p style="background: url('https://example.org/a.png')" on Online>and</p>""",
        "<style>v\\:* { behavior: url(#default#VML) } p { background: url() }</style>",
        '<script type="application/ld+json">{"@type": "Order"}</script>',
        "<!-- <script></script> <img src=logo.png> --><!--[if mso]><p onclick=x()><![endif]-->",
    ],
)
def test_html_that_mailboxes_show_passes(more: str) -> None:
    assert check_message(message(html=HTML + more)) == []


@pytest.mark.parametrize(
    "head",
    [
        "<!doctype html><head><title>News</title><style>p {}</style><body>",
        "<head><meta charset=utf-8><title>News</title>",
        "<html><head></head><body>",
    ],
)
def test_a_head_ends_where_the_body_begins(head: str) -> None:
    """The HTML standard leaves `</head>` and `<body>` to whoever likes to write them."""
    assert check_message(message(html=head + HTML)) == []


def test_a_head_says_nothing_to_a_reader() -> None:
    html = f'<head><title>{TEXT}</title><style>/* {TEXT} */</style></head><img src="https://example.org/a.png" alt="">'
    assert found(message(html=html)) == {"image-only"}


@pytest.mark.parametrize(
    "name", ["a.hta", "a.vbe", "a.apk", "a.dll", "a.pif", "a.cpl", "a.chm", "a.xll", "a.reg", "a.exe."]
)
def test_a_file_that_providers_refuse_is_found(name: str) -> None:
    """By its name alone, and once: that it is a program is no disguise."""
    program = b"MZ" + bytes(100)
    assert found(message(attachments=(Attachment(name, program, type="application/octet-stream"),))) == {"active-file"}


@pytest.mark.parametrize("name", ["terms.pdf", "list.csv", "price.js.txt", "day.ics", "report.docx", "all.zip", "exe"])
def test_a_file_that_people_send_passes(name: str) -> None:
    assert check_message(message(attachments=(Attachment(name, b"one,two\n"),))) == []


@pytest.mark.parametrize("bad", ["active-file", "disguised-file"])
def test_what_smime_signs_is_looked_at(bad: str) -> None:
    """RFC 8551 §3.5.3: all of the body is the first part of multipart/signed, and its signature is a file as well."""
    file = {"active-file": Attachment("a.exe", b"MZ"), "disguised-file": Attachment("a.pdf", PNG)}[bad]
    seal = Papers().seal()
    assert found(message(seal=seal, attachments=(file,))) == {bad}
    assert check_message(message(seal=seal, attachments=(Attachment("a.png", PNG),))) == []


def test_an_image_within_the_html_is_looked_at() -> None:
    html = HTML.replace("https://example.org/logo.png", "cid:logo")
    assert check_message(message(html=html, inline={"logo": Attachment("logo.png", PNG)})) == []
    assert found(message(html=html, inline={"logo": Attachment("logo.gif", PNG)})) == {"disguised-file"}


def test_hostile_html_is_no_trap() -> None:
    """What a template's author pasted from anywhere: unclosed, nested, endless."""
    html = "<" * 5000 + "<a href=" + '"' * 300 + "<style>" * 100 + TEXT
    assert "image-only" not in found(message(html=html))


NOTES = {"unsigned", "alternatives", "long-html", "eight-bit"}


@pytest.mark.parametrize("rule", RULES)
def test_a_note_is_what_no_provider_refuses(rule: str) -> None:
    """An objection makes `check` fail, a note does not."""
    (finding,) = [one for one in check_message(BAD[rule]) if one.rule == rule]
    assert finding.weight == (FindingLevel.NOTE if rule in NOTES else FindingLevel.OBJECTION)
    assert str(finding).startswith(f"{'note' if rule in NOTES else 'objection'} ({rule}): {finding.sentence}: ")


def test_a_message_may_have_ten_mebibytes() -> None:
    """The size is that of the whole message as it is sent."""
    small = message(attachments=(Attachment("film.bin", b"x" * 57 * 130_000),))
    assert isinstance(small.content, Content)
    missing = 10 * 1024 * 1024 - small.content.size
    for extra, rules in ((0, set()), (1, {"large"})):
        lines, rest = divmod(missing + extra, 500)
        padding = b"x" * (rest + 498) + b"\r\n" + (b"x" * 498 + b"\r\n") * (lines - 1)
        padded = Content.of(bytes(small.content) + padding)
        assert padded.size == 10 * 1024 * 1024 + extra
        assert found(Message(small.envelope, padded)) == rules


def test_html_may_have_100_kib() -> None:
    """Before it is encoded."""
    begun = HTML.replace("\n", "") + "<p>"
    longest = begun + "x" * (100 * 1024 - len(begun) - len("\r\n"))
    assert parse_message(message(html=longest)).html_size == 100 * 1024
    assert found(message(html=longest)) == set()
    assert found(message(html=longest + "x")) == {"long-html"}


@pytest.mark.parametrize(("length", "rules"), [(60, set()), (59, {"image-only"}), (0, {"image-only"})])
def test_sixty_characters_beside_an_image_are_text(length: int, rules: set[str]) -> None:
    html = f'<p>{"x" * length}</p><img src="https://example.org/a.png" alt="a">'
    assert found(message(html=html)) == rules
    assert found(message(html=html[: html.index("<img")])) == set()


@pytest.mark.parametrize(
    ("subject", "is_bad"),
    [("BUY NOW!", False), ("BUY THIS!", True), ("BUY THIs!", False), ("1234567890", False), ("ÜBER ALLES", True)],
)
def test_a_long_subject_in_capitals_is_shouted(subject: str, is_bad: bool) -> None:
    """Eight characters may be a name."""
    assert found(message(subject=subject)) == ({"subject"} if is_bad else set())
    assert found(message(subject=" ")) == {"subject"}


@pytest.mark.parametrize("name", ["To", "Reply-To", "From"])
def test_an_address_beyond_ascii_needs_its_bytes(name: str) -> None:
    """A mailbox `zoë@` cannot be written otherwise; a subject can."""
    octets = bytes(message().content)  # type: ignore[arg-type]
    lines = [line for line in octets.split(b"\r\n") if not line.startswith(name.encode() + b":")]
    octets = f"{name}: zoë@example.org\r\n".encode() + b"\r\n".join(lines)
    assert "eight-bit" not in found(Message(Envelope.of("news@example.org", ["a@example.net"]), Content.of(octets)))
