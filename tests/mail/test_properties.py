"""What holds for any message: it reads back as what was meant (P8), and no codec minds where it is cut (P3)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import EmailMessage

from hypothesis import example, given, settings
from hypothesis import strategies as st

from asyncsmtp.mail.attachment import Attachment
from asyncsmtp.mail.list_unsubscribe import Unsubscribe
from asyncsmtp.mail.signing.dkim import BodyHash
from asyncsmtp.mail.templates.template import Template
from asyncsmtp.protocol.content import Content, ContentNormalizer, DotStuffer, dot_stuff_content, split_chunks
from asyncsmtp.protocol.envelope import Mailbox

LINE = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=120)
TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"], include_characters="\n"), max_size=400)
NAMES = st.sampled_from(
    ["X-Campaign", "X-City", "Feedback-ID", "List-ID", "References", "Auto-Submitted", "Precedence"]
)
OURS = ["Date", "From", "To", "Subject", "Message-ID", "MIME-Version", "Content-Type"]
WAY = Unsubscribe("https://example.org/{{ token }}", b"0123456789abcdef")


def words(text: str) -> str:
    return " ".join(text.split())


def unfolded(value: object) -> str:
    return str(make_header(decode_header("".join(str(value).splitlines()))))


@settings(max_examples=500, deadline=None)
@example("", "", {}, None, "\n", [], False)
@given(
    LINE,
    LINE,
    st.dictionaries(NAMES, LINE, max_size=4),
    st.none() | TEXT,
    st.none() | TEXT,
    st.lists(st.tuples(LINE.filter(str.strip), st.binary(max_size=200)), max_size=3),
    st.booleans(),
)
def test_a_message_has_the_headers_and_parts_that_were_meant_and_no_others(
    subject: str,
    name: str,
    extra: dict[str, str],
    text: str | None,
    html: str | None,
    files: list[tuple[str, bytes]],
    way_out: bool,
) -> None:
    """P8: names, their number and their order; values; the texts; the names and octets of the files."""
    tokens = {"References", "Feedback-ID", "Auto-Submitted", "Precedence"}  # of ASCII, by their grammar
    extra = {key: "x" if key in tokens and not value.isascii() else value for key, value in extra.items()}
    cells = {"subject": subject, "name": name, "text": text or "", "html": html or ""}
    cells |= {f"c{number}": value for number, value in enumerate(extra.values())}
    template = Template(
        from_="News <news@example.org>",
        subject="{{ subject }}",
        to_name="{{ name }}",
        text="{{ text }}" if text is not None or html is None else None,
        html=None if html is None else "{{ html|safe }}",
        headers={key: f"{{{{ c{number} }}}}" for number, key in enumerate(extra)},
        attachments=tuple(Attachment(file, data, "application/octet-stream") for file, data in files),
        unsubscribe=WAY if way_out else None,
    )
    message = template.compile(tuple(cells)).compose(
        Mailbox.parse("bob@x.example"), cells, message_id="a@x.example", date=datetime(2026, 3, 1, tzinfo=UTC)
    )
    assert isinstance(message.content, Content)
    old = message_from_bytes(bytes(message.content), policy=policy.compat32)
    expected = [*OURS[:5], *(["List-Unsubscribe", "List-Unsubscribe-Post"] if way_out else []), *extra, *OURS[5:]]
    found = [field for field in old if field != "Content-Transfer-Encoding"]
    assert found == expected
    assert unfolded(old["Subject"]) == subject.strip(" \t")
    for key, value in extra.items():
        assert words(unfolded(old[key])) == words(value)
    new = message_from_bytes(bytes(message.content), policy=policy.default)
    assert isinstance(new, EmailMessage)
    check_parts(new, text if text is not None or html is not None else "", html, files)


def check_parts(parsed: EmailMessage, text: str | None, html: str | None, files: list[tuple[str, bytes]]) -> None:
    for kind, meant in (("plain", text), ("html", html)):
        part = parsed.get_body((kind,))
        assert (part is None) == (meant is None)
        if part is not None and meant is not None:
            # A line end follows the last column of a text, whatever is in it.
            assert part.get_content().replace("\r\n", "\n") == meant + "\n"
    octets = [part.get_payload(decode=True) for part in parsed.iter_attachments()]
    assert octets == [data for _, data in files]


@settings(max_examples=500, deadline=None)
@given(st.text("ab .\t\r\n\x00é", max_size=80).map(str.encode), st.lists(st.integers(0, 120), max_size=8))
def test_no_codec_minds_where_its_octets_are_cut(octets: bytes, places: list[int]) -> None:
    """P3: transparency, line ends, the hash of a body, chunks: the same of one piece as of many."""
    octets = octets.replace(b"\0", b"")
    pieces = list(cut(octets, places))
    dots, whole_dots = DotStuffer(), DotStuffer()
    assert (
        b"".join(map(dots.feed, pieces))
        == whole_dots.feed(octets)
        == dot_stuff_content(Content.from_canonical(tuple(pieces)))
    )
    mended, whole = ContentNormalizer(fix_eols=True), ContentNormalizer(fix_eols=True)
    assert b"".join([*map(mended.feed, pieces), mended.end()]) == whole.feed(octets) + whole.end()
    assert (mended.size, mended.eight_bit, mended.utf8_headers) == (whole.size, whole.eight_bit, whole.utf8_headers)
    lines = octets.replace(b"\r", b"").replace(b"\n", b"\r\n")
    hashed, at_once = BodyHash(), BodyHash()
    for piece in cut(lines, places):
        hashed.update(piece)
    at_once.update(lines)
    assert hashed.digest() == at_once.digest()
    for size in (1, 7, 100):
        assert list(split_chunks(pieces, size)) == list(split_chunks([octets], size))


def cut(octets: bytes, places: list[int]) -> Iterator[bytes]:
    begin = 0
    for place in sorted(places):
        yield octets[begin : max(begin, place)]
        begin = max(begin, min(place, len(octets)))
    yield octets[begin:]
