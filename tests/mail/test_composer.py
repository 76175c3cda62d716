"""A message for each recipient out of one compiled template: shared, deterministic, literal."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import formataddr
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jinja2 import Environment

from asyncsmtp.errors import InvalidArgument, RecipientError, TemplateError
from asyncsmtp.mail.attachment import Attachment
from asyncsmtp.mail.list_unsubscribe import Unsubscribe
from asyncsmtp.mail.message import Message
from asyncsmtp.mail.templates.template import Composer, Template
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.envelope import Mailbox

DATE = datetime(2025, 11, 3, 9, 0, tzinfo=UTC)
BOB = Mailbox.parse("bob@x.example")
PARAGRAPH = "<p style='color:#333'>Lorem ipsum dolor sit amet — consectetur adipiscing elit, sed do eiusmod.</p>\n"
HTML = f"<h1>Hello {{{{ name }}}}</h1>\n{PARAGRAPH * 40}<p>{{{{ city }}}}</p>\n<img src='cid:logo'>\n"
NEWS = Template(
    "News <news@example.com>",
    "News for {{ name }}",
    text="Hello {{ name }},\n" + "Lorem ipsum dolor sit amet.\n" * 100,
    html=HTML,
    inline={"logo": Attachment("logo.png", bytes(20_000))},
    attachments=(Attachment("terms.pdf", bytes(9_000)),),
    to_name="{{ name }}",
    headers={"X-City": "{{ city }}"},
)
ROW = {"name": "Bob", "city": "Wien"}


def compose(template: Template, cells: dict[str, str], to: Mailbox = BOB, **given_: Any) -> Message:
    arguments: dict[str, Any] = {"message_id": "1@example.com", "date": DATE} | given_
    return template.compile(list(cells)).compose(to, cells, **arguments)


def parsed(message: Message) -> EmailMessage:
    read = cast(EmailMessage, message_from_bytes(bytes(message.content), policy=policy.default))
    assert [part.defects for part in read.walk() if part.defects] == []
    return read


def text_of(message: Message, kind: str = "plain") -> str:
    part = parsed(message).get_body((kind,))
    assert part is not None
    return cast(str, part.get_content()).replace("\r\n", "\n")


@pytest.fixture(scope="module")
def composer() -> Composer:
    return NEWS.compile(list(ROW))


def test_what_all_messages_share_is_one_object(composer: Composer) -> None:
    """A thousand messages of 40 KB in hand are some MB, not 40; an attachment is encoded once."""
    first = composer.compose(BOB, ROW, message_id="1@example.com", date=DATE).content.parts
    second = composer.compose(BOB, {"name": "Zoë", "city": "Köln"}, message_id="2@example.com", date=DATE).content.parts
    shared = {id(part) for part in first} & {id(part) for part in second}
    octets = sum(len(part) for part in first if id(part) in shared)
    assert octets > 0.95 * sum(map(len, first))
    assert len(first) < 15


def test_the_same_arguments_give_the_same_bytes(composer: Composer) -> None:
    """Also from a template that is compiled again: a retry next week sends what was sent (delivery, DKIM)."""
    first = composer.compose(BOB, ROW, message_id="1@example.com", date=DATE)
    assert first == composer.compose(BOB, dict(ROW), message_id="1@example.com", date=DATE)
    again = NEWS.compile(list(ROW)).compose(BOB, ROW, message_id="1@example.com", date=DATE)
    assert bytes(first.content) == bytes(again.content)


def test_a_composed_message_is_canonical_and_in_seven_bits(composer: Composer) -> None:
    """`Content` is built without a check; the check agrees with it."""
    content = composer.compose(BOB, {"name": "Zoë", "city": "東京"}, message_id="1@example.com", date=DATE).content
    assert Content.of(bytes(content)) == Content((bytes(content),), content.size, False, False)
    assert max(map(len, bytes(content).split(b"\r\n"))) <= 78


def test_the_whole_message_comes_back(composer: Composer) -> None:
    """Header, text, HTML, image and file of one recipient, as the standard library reads them."""
    message = composer.compose(BOB, {"name": "Zoë, Köln", "city": "Wien"}, message_id="17@example.com", date=DATE)
    read = parsed(message)
    assert (read["From"], read["To"]) == ("News <news@example.com>", '"Zoë, Köln" <bob@x.example>')
    assert (read["Subject"], read["X-City"]) == ("News for Zoë, Köln", "Wien")
    assert (read["Message-ID"], read["Date"]) == ("<17@example.com>", "Mon, 03 Nov 2025 09:00:00 +0000")
    assert (read["MIME-Version"], read["Bcc"]) == ("1.0", None)
    assert text_of(message).startswith("Hello Zoë, Köln,\nLorem")
    assert text_of(message, "html") == HTML.replace("{{ name }}", "Zoë, Köln").replace("{{ city }}", "Wien")
    assert [part.get_filename() for part in read.iter_attachments()] == ["terms.pdf"]
    assert str(message.envelope.reverse_path) == "news@example.com"
    assert message.envelope.forward_paths == (BOB,)


SOURCES = [
    "{{ a }}",
    "x {{ a }} y {{ b }} z\n",
    "{{ a }}\n" * 4 + "{{ b }}",
    "Zeile mit ü {{ a }}\n\n.\n{{ b }}\n" * 3,
    "x" * 500 + "{{ a }}" + "y" * 500 + " {{ b }}\n",
    "word " * 200 + "{{ a }}" + " =ü=" * 100 + "{{ b }}" + "  \n",
    "日本語" * 100 + "{{ a }}" + "日本語" * 100 + "{{ b }}\n",
    ("static line of some length that is long enough to be worth a cut\n" * 5 + "{{ a }} and {{ b }} \n") * 4,
    "{% if a %}{{ a }}{% else %}none{% endif %} " + "line\n" * 50 + "{% for x in b %}{{ x }}\n{% endfor %}",
    "{% set c = a ~ b %}" + "line\n" * 50 + "{{ c }}\t\n{{ c }}",
]
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=120) | st.text(
    " =.\n\tü", max_size=100
)


@pytest.mark.parametrize("source", SOURCES)
@given(a=CELLS, b=CELLS)
@example(a="", b="")
@example(a="x" * 75, b="=" * 30)
@example(a=" ", b=" \n.\n ")
def test_a_filled_text_is_what_jinja2_renders(source: str, a: str, b: str) -> None:
    """Cut, encoded apart and put together, for any value: no line over 76 octets, and the text is intact."""
    message = _compiled(source).compose(BOB, {"a": a, "b": b}, message_id="1@example.com", date=DATE)
    rendered = Environment(keep_trailing_newline=True, autoescape=False).from_string(source).render(a=a, b=b)
    assert text_of(message) == rendered + ("" if source.endswith("\n") else "\n")  # a part ends with a line end
    assert max(map(len, bytes(message.content).split(b"\r\n"))) <= 76


_COMPOSERS: dict[str, Composer] = {}


def _compiled(source: str) -> Composer:
    if source not in _COMPOSERS:
        _COMPOSERS[source] = Template("a@x.example", "x", text=source).compile(["a", "b"])
    return _COMPOSERS[source]


@pytest.mark.parametrize("bad", ["\n", "\r", "\r\nBcc: z@x.example", "\0", "\x1b[0m", "\x7f"])
@pytest.mark.parametrize(
    ("field", "parts"),
    [
        ("Subject", {"subject": "For {{ name }}"}),
        ("Subject", {"subject": "{% if name %}{{ name }}{% endif %}"}),
        ("To", {"to_name": "{{ name }}"}),
        ("From", {"from_": "{{ name }} at News <news@example.com>"}),
        ("Reply-To", {"reply_to": "{{ name }} <r@x.example>"}),
        ("X-Name", {"headers": {"X-Name": "{{ name }}"}}),
        ("List-Unsubscribe", {"headers": {"List-Unsubscribe": "<https://x.example/{{ name }}>"}}),
    ],
)
def test_a_cell_cannot_begin_a_header(field: str, parts: dict[str, Any], bad: str) -> None:
    """MH-01: the row is not mailed, and the sentence names row, header and column."""
    template = Template(**({"from_": "a@x.example", "subject": "x", "text": "x"} | parts))
    with pytest.raises(RecipientError) as caught:
        compose(template, {"id": "1", "name": f"Bob{bad}x"}, row=17)
    assert caught.value.row == 17
    assert field in str(caught.value)
    assert "“name”" in str(caught.value)


def test_the_column_named_is_the_one_with_the_character() -> None:
    """A postal address may have lines; the advice must not lead there."""
    template = Template("a@x.example", "For {{ name }}", text="{{ address }}")
    with pytest.raises(RecipientError, match="“name”"):
        compose(template, {"address": "1 High Street\nTown", "name": "Bob\r"})
    compose(template, {"address": "1 High Street\nTown", "name": "Bob"})


@given(name=st.text(st.characters(exclude_categories=["Cs"]), max_size=100))
def test_no_cell_changes_the_number_of_headers(name: str) -> None:
    """MH-01, MH-03: composed or refused, there is never a header that the template does not have."""
    try:
        message = _HEADERS.compose(BOB, {"name": name}, message_id="1@example.com", date=DATE)
    except RecipientError:
        return
    assert parsed(message).keys() == [
        *("Date", "From", "To", "Reply-To", "Subject", "Message-ID", "X-Name", "MIME-Version"),
        *("Content-Type", "Content-Transfer-Encoding"),
    ]
    addresses = [parsed(message)[field].addresses for field in ("From", "To", "Reply-To")]
    assert [[each.addr_spec for each in found] for found in addresses] == [
        ["news@example.com"],
        ["bob@x.example"],
        ["r@x.example"],
    ]


_HEADERS = Template(
    "{{ name }} <news@example.com>",
    "{{ name }}",
    text="x",
    to_name="{{ name }}",
    reply_to="{{ name }} <r@x.example>",
    headers={"X-Name": "{{ name }}"},
).compile(["name"])


def test_an_encoded_word_in_a_cell_is_text() -> None:
    """MH-03: what arrives is what the cell said, not what it would decode to."""
    name = "=?utf-8?q?foo=0D=0ABcc=3A_z=40x?="
    message = _HEADERS.compose(BOB, {"name": name}, message_id="1@example.com", date=DATE)
    assert parsed(message)["Subject"] == name
    assert b"0D=0A" not in bytes(message.content)


@pytest.mark.parametrize(
    "parts", [{"subject": "{{ name }}"}, {"text": "{{ name }}"}, {"html": "{{ name }}"}, {"to_name": "{{ name }}"}]
)
def test_half_a_pair_is_an_error_of_its_row(parts: dict[str, Any]) -> None:
    """MH-17: `\\udcff` in a column; the campaign goes on."""
    template = Template(**({"from_": "a@x.example", "subject": "x", "text": "x"} | parts))
    with pytest.raises(RecipientError, match=r"row 4: .*U\+DCFF.*“name”"):
        compose(template, {"name": "x\udcff"}, row=4)


def test_a_nul_in_a_text_is_an_error_of_its_row() -> None:
    """MH-16: the part is named."""
    template = Template("a@x.example", "x", html="{{ name }}", html_name="message.html")
    with pytest.raises(RecipientError, match=r"row 4: message\.html: a NUL"):
        compose(template, {"name": "x\0"}, row=4)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("a\n{{ name|int / age|int }}", "message.txt: line 2: division by zero"),
        ("{{ row[name] }}", "message.txt: line 1: .*Bob"),
        ("a\n{% if name %}\n{{ name.replace('a', 'b') }}{% endif %}", r"line 3: .*write \|replace"),
        ("{% for a in name * 1000 %}{{ name * 10000 }}{% endfor %}", "10 MiB"),
        ("{% set x = 1 %}\n\n{{ name + x }}", "line 3"),
    ],
)
def test_what_fails_for_a_row_says_where(source: str, reason: str) -> None:
    """The row, the file and the line; no traceback, and the other rows are mailed."""
    template = Template("a@x.example", "x", text=source, text_name="message.txt")
    with pytest.raises(RecipientError, match=reason) as caught:
        compose(template, {"name": "Bob", "age": "0"}, row=2)
    assert caught.value.row == 2


@pytest.mark.parametrize("source", ["{{ name }}", "{{ name|upper }}", "{{ row['name'] }}"])
def test_a_missing_value_is_an_error_of_its_row(source: str) -> None:
    """TF-04: a ragged row; nothing is replaced by nothing."""
    composer = Template("a@x.example", "x", text=source).compile(["name"])
    with pytest.raises(RecipientError, match=r"row 9: .*name"):
        composer.compose(BOB, {}, message_id="1@example.com", date=DATE, row=9)


@pytest.mark.parametrize(
    "cell", ["nobody", "a@x.example, b@x.example", "x <a@x.example>", "a@x.example\r\nBcc: z", "postmaster"]
)
def test_an_address_from_a_cell_is_one_address(cell: str) -> None:
    """MH-07: Reply-To takes an address from the row, and only that."""
    template = Template("a@x.example", "x", text="x", reply_to="{{ agent }} <{{ mail }}>")
    assert parsed(compose(template, {"agent": "A, B", "mail": "r@x.example"}))["Reply-To"] == '"A, B" <r@x.example>'
    with pytest.raises(RecipientError, match="row 5"):
        compose(template, {"agent": "A", "mail": cell}, row=5)


def test_an_address_beyond_ascii_makes_only_its_message_need_smtputf8() -> None:
    """RFC 6531: the relay is asked for what this recipient needs."""
    content = compose(NEWS, ROW, Mailbox.parse("zoë@x.example")).content
    assert (content.utf8_headers, content.eight_bit) == (True, True)
    assert "To: Bob <zoë@x.example>\r\n".encode() in bytes(content)


@pytest.mark.parametrize(
    ("reply_to", "shown"),
    [
        ("", None),
        (" , ", None),
        ("Team: r@x.example, s@x.example;", "Team: r@x.example, s@x.example;"),
        ("=?utf-8?q?Zo=C3=AB?= <r@x.example>", "Zoë <r@x.example>"),
    ],
)
def test_a_fixed_reply_to_is_read_as_in_any_message(reply_to: str, shown: str | None) -> None:
    """FT-40, FT-41, FT-49: an empty one is left out, a group stays one, a name is not encoded twice."""
    assert parsed(compose(replace(NEWS, reply_to=reply_to), ROW))["Reply-To"] == shown


def test_the_author_of_a_template_may_have_an_encoded_name() -> None:
    """FT-49, FT-05: but not an encoded address."""
    message = compose(replace(NEWS, from_=formataddr(("Zoë, x", "z@x.example"))), ROW)
    assert parsed(message)["From"] == '"Zoë, x" <z@x.example>'
    with pytest.raises(TemplateError, match="encoded word"):
        replace(NEWS, from_="=?utf-8?q?z?=@x.example").compile(tuple(ROW))


def test_a_message_id_may_have_its_brackets() -> None:
    """FT-49: `email.utils.make_msgid` returns it with them; the token of the return path is the same."""
    for template in (NEWS, replace(NEWS, return_path="bounces+{{ token }}@example.org")):
        with_brackets = compose(template, ROW, message_id="<a.1@b.example>")
        assert with_brackets == compose(template, ROW, message_id="a.1@b.example")


@pytest.mark.parametrize("message_id", ["", "a", "<a@b", "<<a@b>>", "a@b\r\nX: y", "a b@c"])
def test_an_invalid_message_id_is_refused(message_id: str) -> None:
    """MH-15."""
    with pytest.raises(RecipientError, match="Message-ID"):
        compose(NEWS, ROW, message_id=message_id)


def test_no_cell_can_write_a_boundary() -> None:
    """MH-13: ten thousand messages, and cells that hold the very boundary; the parts stay two."""
    composer = Template("a@x.example", "x", text="{{ name }}", html="{{ name }}").compile(["name"])
    boundary = parsed(composer.compose(BOB, {"name": ""}, message_id="1@example.com", date=DATE)).get_boundary()
    assert boundary is not None
    for number in range(10_000):
        cell = f"{number}\n--{boundary}\n--{boundary}--\n"
        content = composer.compose(BOB, {"name": cell}, message_id=f"{number}@example.com", date=DATE).content
        assert bytes(content).count(b"--" + boundary.encode()) == 3


def test_a_row_in_memory_is_enough_to_compose() -> None:
    """A plain address and a plain mapping; the columns may be the keys of the first row."""
    rows = [{"email": "ann@example.com", "name": "Ann"}, {"email": "bob@example.com", "name": "Bob"}]
    template = Template("News <news@example.org>", "Hi {{ name }}", text="Dear {{ name }}")
    for composer in (template.compile(rows[0].keys()), template.compile(rows[0]), template.compile(["email", "name"])):
        message = composer.compose(rows[0]["email"], rows[0])
        assert [str(path) for path in message.envelope.forward_paths] == ["ann@example.com"]
        assert b"Subject: Hi Ann\r\n" in bytes(message.content)  # type: ignore[arg-type]
        assert b"Date:" not in bytes(message.content)  # type: ignore[arg-type]
        assert message.is_draft


def test_an_address_that_is_not_valid_is_an_error_of_its_row() -> None:
    composer = Template("news@example.org", "Hi", text="x").compile([])
    with pytest.raises(RecipientError) as caught:
        composer.compose("ann", {}, row=7)
    assert caught.value.row == 7


def test_wrong_types_are_named() -> None:
    """A cell is text; columns are a list of names."""
    template = Template("news@example.org", "Hi", text="{{ n }}")
    with pytest.raises(TypeError, match=r"fields\['n'\] must be str, not int"):
        template.compile(["n"]).compose("ann@example.com", {"n": 3})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="columns must be a list of names, not str"):
        template.compile("n")
    with pytest.raises(TypeError, match="columns must be Iterable, not int"):
        template.compile(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="columns must be str, not int"):
        template.compile([5])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="signer must be Signer or None, not str"):
        template.compile(["n"], signer="a.pem")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="smime_signer must be SmimeSigner or None, not str"):
        template.compile(["n"], smime_signer="a.pem")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^aliases must be Mapping or None, not list"):
        template.compile(["n"], aliases=["n"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("subject", 5),
        ("headers", ["X"]),
        ("headers", {"X": 5}),
        ("inline", [Attachment("a.png", b"x")]),
        ("inline", {"a": "a.png"}),
        ("unsubscribe", "https://x"),
        ("loader", 5),
        ("attachments", Attachment("a.png", b"x")),
        ("attachments", "a.png"),
        ("reply_to", 5),
    ],
)
def test_a_template_names_the_parameter_of_a_wrong_type(parameter: str, value: object) -> None:
    with pytest.raises(TypeError, match=rf"^{parameter}\b.* must be "):
        Template(**{"from_": "news@example.org", "subject": "Hi", "text": "x", parameter: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        *(("to", wrong) for wrong in (5, None, b"ann@example.com")),
        *(("fields", wrong) for wrong in (None, ["n"], "n")),
        *(("date", wrong) for wrong in (5, "x")),
        ("message_id", 5),
    ],
)
@pytest.mark.parametrize("unsubscribes", [False, True])
def test_compose_names_the_parameter_of_a_wrong_type(parameter: str, value: object, unsubscribes: bool) -> None:
    unsubscribe = Unsubscribe("https://example.org/{{ token }}", b"x" * 16) if unsubscribes else None
    composer = Template("news@example.org", "{{ n }}", text="x", unsubscribe=unsubscribe).compile(["n"])
    with pytest.raises(TypeError, match=f"^{parameter} must be "):
        composer.compose(**{"to": "ann@example.com", "fields": {"n": "1"}, parameter: value})  # type: ignore[arg-type]


def test_a_display_name_in_to_is_an_error_of_the_row() -> None:
    composer = Template("news@example.org", "Hi", text="x").compile([])
    with pytest.raises(RecipientError, match="is not an e-mail address: it contains a space"):
        composer.compose("Ann <ann@example.com>", {})


def test_a_return_path_with_a_token_needs_the_message_id() -> None:
    composer = Template("news@example.org", "Hi", text="x", return_path="b+{{ token }}@example.org").compile([])
    with pytest.raises(InvalidArgument, match="give message_id="):
        composer.compose("ann@example.com", {})
    fixed = Template("news@example.org", "Hi", text="x", return_path="b@example.org").compile([])
    assert str(fixed.compose("ann@example.com", {}).envelope.reverse_path) == "b@example.org"
