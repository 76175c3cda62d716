"""What is wrong with a template is found when it is compiled, with the line."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, cast

import pytest

from asyncsmtp.errors import RecipientError, TemplateError
from asyncsmtp.mail.attachment import Attachment, AttachmentPattern
from asyncsmtp.mail.templates.template import Template
from asyncsmtp.mail.templates.variables import Columns, is_variable_name
from asyncsmtp.protocol.envelope import Mailbox

DATE = datetime(2025, 11, 3, 9, 0, tzinfo=UTC)
COLUMNS = ("email", "name", "E-Mail Address", "Customer No.", "2nd line", "row", "self")
ROW = {
    "email": "bob@x.example",
    "name": "Bob",
    "E-Mail Address": "bob@work.example",
    "Customer No.": "17",
    "2nd line": "second",
    "row": "a row",
    "self": "himself",
}


def template(**parts: Any) -> Template:
    return Template(**({"from_": "News <news@example.com>", "subject": "Hello", "text_name": "message.txt"} | parts))


def sent(made: Template, row: dict[str, str] | None = None, **compile_with: Any) -> EmailMessage:
    """The message for a row, as the standard library reads it."""
    composer = made.compile(COLUMNS, **compile_with)
    message = composer.compose(
        Mailbox.parse("bob@x.example"), ROW | (row or {}), message_id="1@example.com", date=DATE, row=3
    )
    read = message_from_bytes(bytes(message.content), policy=policy.default)
    assert [part.defects for part in read.walk() if part.defects] == []
    return cast(EmailMessage, read)


def body(made: Template, row: dict[str, str] | None = None, kind: str = "plain", **compile_with: Any) -> str:
    part = sent(made, row, **compile_with).get_body((kind,))
    assert part is not None
    return cast(str, part.get_content()).replace("\r\n", "\n").removesuffix("\n")


def refused(**parts: Any) -> TemplateError:
    with pytest.raises(TemplateError) as caught:
        template(**parts).compile(COLUMNS)
    return caught.value


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("Hello {{ name }}!", "Hello Bob!"),
        ("{{ E_Mail_Address }} {{ Customer_No }} {{ _2nd_line }}", "bob@work.example 17 second"),
        ('{{ row["E-Mail Address"] }} {{ row["row"] }} {{ row["self"] }}', "bob@work.example a row himself"),
        ("{{ name|upper }} {{ name[0] }} {{ name.lower() }}", "BOB B bob"),
        ("{% if name == 'Bob' %}yes{% else %}no{% endif %}", "yes"),
        ("{% for letter in name %}{{ letter }}-{{ loop.index }} {% endfor %}.", "B-1 o-2 b-3 ."),
        ("{% set who = name ~ '!' %}{{ who }}{{ who }}", "Bob!Bob!"),
        ("{% macro hi(x) %}Hi {{ x }}{% endmacro %}{{ hi(name) }}", "Hi Bob"),
        ("{% if name %}{% set x = 1 %}{% endif %}{{ x }}", "1"),
        ("{{ row.get('nick', 'friend') }}{% if 'nick' in row %}!{% endif %}", "friend"),
        ("{{ 6 * 7 }}{# a comment #}{% raw %}{{ name }}{% endraw %}", "42{{ name }}"),
        ("{{ Customer_No|int * 2 + 1 }} {{ '%' }} {{ 7 % 4 }} {{ 2 ** 8 }}", "35 % 3 256"),
        ("{{ name|replace('o', '0') }} {{ ['a', name]|join(', ') }}", "B0b a, Bob"),
        ("", ""),
    ],
)
def test_a_template_says_what_jinja2_would(source: str, text: str) -> None:
    """Names, expressions, conditions, loops and macros: the fast way and the slow way give one text."""
    assert body(template(text=source)) == text


@pytest.mark.parametrize(
    ("source", "line", "field", "advice"),
    [
        ("Hello\n{{ nmae }}", 2, "nmae", "did you mean “name”?"),
        ("\n\n{% if vip %}x{% endif %}", 3, "vip", "the columns are"),
        ("{{ name }}\n{{ row['E-mail address'] }}", 2, "E-mail address", "did you mean “E_Mail_Address”?"),
        ("{{ row.nmae }}", 1, "nmae", "did you mean “name”?"),
        ("{{ Name }}", 1, "Name", "did you mean “name”?"),
        ("{% set a = b %}", 1, "b", "is not a column"),
        ("{{ Row }}", 1, "Row", 'did you mean “row["row"]”?'),
        ("{{ range(3) }}", 1, "range", "is not a column"),
        ("{{ lipsum(n=9) }}", 1, "lipsum", "is not a column"),
        ("{{ row }}", 1, "row", 'row["…"]'),
    ],
)
def test_an_unknown_name_is_an_error_with_its_line(source: str, line: int, field: str, advice: str) -> None:
    """TF-04: found against the header of the file, before the first connection, with the nearest column."""
    error = refused(text=source)
    assert (error.file, error.line, error.field) == ("message.txt", line, field)
    assert advice in str(error)


@pytest.mark.parametrize(
    ("source", "line"),
    [("a\n{{ name", 2), ("\n{% if name %}x", 2), ("{{ name|nofilter }}", 1), ("\n{% nothing %}", 2), ("{{ 1/0 }}", 1)],
)
def test_bad_syntax_is_an_error_with_its_line(source: str, line: int) -> None:
    """So is an expression that fails for every row alike."""
    error = refused(text=source)
    assert (error.file, error.line) == ("message.txt", line)


@pytest.mark.parametrize(
    ("parts", "where"),
    [
        ({"text": None}, "message.txt: there is neither"),
        ({"text": "x", "subject": "Hi {{ nobody }}"}, "Subject, line 1: “nobody” is not a column"),
        ({"text": "x", "subject": "a\nb"}, "Subject: a line break"),
        ({"text": "x", "from_": "nobody"}, "From: “nobody”"),
        ({"text": "x", "from_": "{{ name }} <{{ sender }}>"}, "from, line 1: “sender”"),
        ({"text": "x", "from_": "A, B <a@x.example>"}, "From: “A”"),
        ({"text": "x", "reply_to": "nobody"}, "Reply-To: “nobody”"),
        ({"text": "x", "reply_to": "a@x.example, postmaster"}, "Reply-To: “postmaster”"),
        ({"text": "x", "from_": "postmaster"}, "From: “postmaster”"),
        ({"text": "x", "from_": "{{ name }} <postmaster>"}, "From: “postmaster”"),
        ({"text": "x", "to_name": "{{ nobody }}"}, "To, line 1: “nobody”"),
        ({"text": "x", "headers": {"X-A": "{{ nobody }}"}}, "X-A, line 1: “nobody”"),
        ({"text": "x", "headers": {"Bcc": "a@x.example"}}, "headers: Bcc: this header is written by"),
        ({"text": "x", "headers": {"X:\r\nBcc": "a"}}, "headers: “X:"),
        ({"html": '\n<img src="cid:logo">'}, "html, line 2: there is no image “logo”"),
        (
            {"text": "x", "inline": {"logo": Attachment("a.png", b"")}},
            "html: there are inline images, but no HTML part",
        ),
        ({"text": "x", "attachments": (AttachmentPattern("a.pdf"),)}, "a.pdf: there is no read="),
        (
            {"text": "x", "attachments": (AttachmentPattern("{{ nobody }}.pdf"),)},
            r"\{\{ nobody \}\}\.pdf, line 1: “nobody”",
        ),
        ({"text": "a\0b"}, "message.txt: a NUL"),
        ({"text": "a\ud800b"}, "message.txt: the character U\\+D800"),
        ({"html": "x", "inline": {"a b": Attachment("a.png", b"")}}, "inline: cid: “a b”"),
    ],
)
def test_what_is_wrong_for_every_row_is_an_error_of_the_template(parts: dict[str, Any], where: str) -> None:
    """One sentence that begins with the field or the file, before anything is sent."""
    with pytest.raises(TemplateError, match=f"^{where}"):
        template(**parts).compile(COLUMNS)


def test_two_columns_with_one_identifier_give_it_to_neither() -> None:
    """A guess would mail one customer's data under another's name; row[…] says which."""
    with pytest.raises(TemplateError, match="a_b"):
        template(text="{{ a_b }}").compile(["a b", "a-b"])
    template(text='{{ row["a b"] }}').compile(["a b", "a-b"])


@pytest.mark.parametrize("source", ["{{ row.nothing }}", '{{ row["nothing"] }}', '{{ row["get"] }}', "{{ row.self }}"])
def test_what_is_asked_of_row_is_a_column_or_a_method(source: str) -> None:
    """`row.items()` is a method of a mapping, but `row["items"]` would be a column."""
    known = "self" in source
    if known:
        assert body(template(text=source)) == "himself"
    else:
        with pytest.raises(TemplateError, match=r"^message\.txt, line 1: “(nothing|get)” is not a column"):
            template(text=source).compile(COLUMNS)
    assert body(template(text="{{ row.keys()|length }} {{ row.get('name') }} {{ row.items()|length }}")) == "7 Bob 7"


@pytest.mark.parametrize(
    "name", ["row", "self", "super", "loop", "caller", "varargs", "kwargs", "true", "false", "none"]
)
def test_a_column_named_as_a_word_of_the_language_is_reached_by_row_only(name: str) -> None:
    """Else `{% for … %}{{ loop.index }}` would show a cell; the name may be in capitals, too."""
    for column in (name, name.title()):
        assert not is_variable_name(column)
        composer = template(text=f'{{{{ row["{column}"] }}}}').compile([column])
        made = composer.compose("b@x.example", {column: "cell"}, message_id="1@x.example", date=DATE)
        assert bytes(made.content).endswith(b"\r\n\r\ncell\r\n")
    assert is_variable_name(f"{name}s")
    assert not is_variable_name(f"{name} s")


def test_a_column_that_is_an_identifier_keeps_its_name() -> None:
    """`a b` would be `a_b` too, but that one exists."""
    composer = template(text="{{ a_b }}").compile(["a b", "a_b"])
    made = composer.compose(
        Mailbox.parse("b@x.example"), {"a b": "no", "a_b": "yes"}, message_id="1@x.example", date=DATE
    )
    assert b"yes" in bytes(made.content)


def test_html_is_escaped_and_text_is_not() -> None:
    """TF-05: a cell is text in both; headers are checked by their own rules."""
    cell = {"name": "<b onclick=\"x\">&'Bob'"}
    made = template(
        text="{{ name }}|{{ name|upper }}",
        html="{{ name }}|{{ name|upper }}",
        subject="{{ name }}",
        to_name="{{ name }}",
    )
    assert body(made, cell) == f"{cell['name']}|{cell['name'].upper()}"
    escaped = "&lt;b onclick=&#34;x&#34;&gt;&amp;&#39;Bob&#39;"
    assert body(made, cell, "html") == f"{escaped}|" + "&lt;B ONCLICK=&#34;X&#34;&gt;&amp;&#39;BOB&#39;"
    assert sent(made, cell)["Subject"] == cell["name"]


@pytest.mark.parametrize("source", ["{{ name }}", "{{ name|trim }}", "{% set x = name %}{{ x }}", "{{ row['name'] }}"])
@pytest.mark.parametrize("kind", ["plain", "html"])
def test_a_cell_is_never_rendered(source: str, kind: str) -> None:
    """TF-01, TF-02: `{{7*7}}` in a cell arrives as `{{7*7}}`."""
    cell = "{{7*7}}{% for x in y %}{{ self.__init__ }}{# #}"
    assert body(template(**{"text" if kind == "plain" else "html": source}), {"name": cell}, kind) == cell


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ name.__class__ }}",
    "{{ name['__class__'] }}",
    "{{ row.__init__.__globals__ }}",
    "{{ row|attr('__class__') }}",
    "{{ [name]|map(attribute='__class__')|first }}",
    "{{ name.format }}",
    "{{ '{0.__class__}'.format(name) }}",
    "{{ '{0.__class__}'|format(name) }}",
    "{{ ''.join.__self__ }}",
    "{{ cycler.__init__.__globals__.os }}",
    "{{ self.__init__ }}",
    "{{ row.update({'name': 'x'}) }}",
    "{{ name.encode.__call__ }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_a_template_cannot_reach_pythons_insides(source: str) -> None:
    """TF-01: refused when compiled or, if it needs a row, for that row."""
    with pytest.raises((TemplateError, RecipientError)):
        body(template(text=source))


@pytest.mark.parametrize("source", ESCAPES)
def test_an_escape_in_a_cell_is_text(source: str) -> None:
    """TF-01."""
    assert body(template(text="{{ name }}"), {"name": source}) == source


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 10**9 }}",
        "{{ name * 1000000000 }}",
        "{{ [name] * 1000000000 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ name.center(1000000000) }}",
        "{{ name|center(1000000000) }}",
        "{{ name.ljust(1000000000) }}",
        "{{ name|indent(1000000000) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '\t'.expandtabs(1000000000) }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ name|batch(1000000000, 'x')|list }}",
        "{{ (name * 100000)|replace('', name * 100000) }}",
        "{{ ([name * 100000] * 10000)|join }}",
        "{% for x in range(100000) %}{% for y in range(100000) %}x{% endfor %}{% endfor %}",
        "{{ lipsum(n=100000) }}",
        "{% for a in name * 100 %}{% for b in name * 100 %}{{ name * 1000 }}{% endfor %}{% endfor %}",
    ],
)
def test_no_template_makes_gigabytes(source: str) -> None:
    """TF-03: each is refused in a moment; before, Jinja2's own sandbox had made them."""
    with pytest.raises((TemplateError, RecipientError)):
        body(template(text=source))


def folder(**files: str) -> Callable[[str], str]:
    return files.__getitem__


def test_included_files_come_from_the_folder_and_are_checked_too() -> None:
    """A name that only an included file uses is found as early, in that file and line."""
    made = template(text="{% include 'footer' %}{{ name }}", loader=folder(footer="Bye {{ name }}\n"))
    assert body(made) == "Bye Bob\nBob"
    error = refused(text="{% include 'footer' %}", loader=folder(footer="\n{{ nmae }}"))
    assert (error.file, error.line, error.field) == ("footer", 2, "nmae")


def test_a_template_may_extend_another() -> None:
    """What the child sets is known in the parent."""
    base = "{{ title }}: {% block main %}{% endblock %}"
    child = "{% extends 'base' %}{% set title = name %}{% block main %}for {{ name }}{% endblock %}"
    assert body(template(text=child, loader=folder(base=base))) == "Bob: for Bob"


@pytest.mark.parametrize(
    "source",
    [
        "{% include '../../etc/passwd' %}",
        "{% include '/etc/passwd' %}",
        "{% include 'a\\\\b' %}",
        "{% include 'missing' %}",
        "{% include name %}",
        "{% include 'loop' %}",
        "{% import 'missing' as m %}",
        "{% extends name %}",
    ],
)
def test_nothing_is_included_from_elsewhere(source: str) -> None:
    """TF-06: no path out of the folder, none that a cell chooses, no circle."""

    def load(path: str) -> str:
        assert ".." not in path
        assert not path.startswith("/")
        assert "\\" not in path
        return {"loop": "{% include 'loop' %}"}[path]

    refused(text=source, loader=load)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (UnicodeDecodeError("utf-8", b"a\nGr\xfc", 4, 5, "x"), "“foot” cannot be included: its line 2 is not UTF-8"),
        (
            PermissionError(13, "A symbolic link is on the way"),
            "“foot” cannot be included: a symbolic link is on the way:",
        ),
        (FileNotFoundError(2, "No such file"), "“foot” was not found"),
        (KeyError("foot"), "“foot” was not found"),
    ],
)
def test_an_included_file_that_cannot_be_read_says_why(error: Exception, why: str) -> None:
    def load(path: str) -> str:
        raise error

    said = str(refused(text="\n{% include 'foot' %}", loader=load))
    assert said.startswith(f"message.txt, line 2: {why}")


def test_without_a_folder_nothing_is_included() -> None:
    """The advice says what is missing."""
    assert "no folder" in str(refused(text="{% include 'footer' %}"))


def test_an_attachment_may_differ_from_row_to_row() -> None:
    """One path for all is read once, a pattern for each message."""
    read: list[str] = []

    def reader(path: str) -> bytes:
        read.append(path)
        return path.encode()

    made = template(
        text="x", attachments=(AttachmentPattern("docs/terms.txt"), AttachmentPattern("inv/{{ Customer_No }}.pdf"))
    )
    composer = made.compile(COLUMNS, read=reader)
    assert read == ["docs/terms.txt"]
    for number in ("17", "18"):
        message = composer.compose(
            Mailbox.parse("b@x.example"), ROW | {"Customer No.": number}, message_id="1@x.example", date=DATE
        )
        parsed = cast(EmailMessage, message_from_bytes(bytes(message.content), policy=policy.default))
        files = {part.get_filename(): part.get_payload(decode=True) for part in parsed.iter_attachments()}
        assert files == {"terms.txt": b"docs/terms.txt", f"{number}.pdf": f"inv/{number}.pdf".encode()}
    assert read == ["docs/terms.txt", "inv/17.pdf", "inv/18.pdf"]


@pytest.mark.parametrize(
    "cell", ["../x", "/etc/passwd", "..\\x", "..", "\\\\host\\x", "C:x", "a\0b", "a\nb", "./../x", "a;../x"]
)
def test_a_cell_leads_to_no_file_outside_the_folder(cell: str) -> None:
    """TF-07: refused before anything is opened."""
    made = template(text="x", attachments=(AttachmentPattern("{{ name }}"),))

    def reader(path: str) -> bytes:
        if path == "a":
            return b""
        assert path == "a;../x"  # a name may have a semicolon in it
        raise FileNotFoundError(2, "No such file or directory")

    with pytest.raises(RecipientError, match="row 3"):
        sent(made, {"name": cell}, read=reader)


def test_a_file_that_is_missing_is_an_error_of_its_row() -> None:
    """The others are mailed all the same."""

    def reader(path: str) -> bytes:
        raise FileNotFoundError(2, "No such file or directory")

    made = template(text="x", attachments=(AttachmentPattern("{{ name }}.pdf"),))
    with pytest.raises(RecipientError, match=r"row 3: the attachment Bob\.pdf cannot be read: No such file"):
        sent(made, read=reader)
    with pytest.raises(TemplateError, match=r"terms\.pdf"):
        template(text="x", attachments=(AttachmentPattern("terms.pdf"),)).compile(COLUMNS, read=reader)


@pytest.mark.parametrize(
    ("columns", "unknown", "advice"),
    [
        (["name", "city"], "nmae", "did you mean “name”?"),
        (["E-Mail Address", "city"], "E_Mail_Adress", "did you mean “E_Mail_Address”?"),
        (
            ["name (column 1)", "name (column 3)"],
            "name",
            "2 columns have that name: rename them, or write {{ name_column_1 }} or {{ name_column_3 }}",
        ),
        (["name (column 1)", "x"], "name", "the columns are name_column_1, x"),
        (["b", "a"], "zzz", "the columns are a, b"),
        ([], "zzz", "there are no columns"),
        ([f"c{n:02}" for n in range(10)], "zzz", "the columns are " + ", ".join(f"c{n:02}" for n in range(10))),
        ([f"c{n:02}" for n in range(11)], "zzz", "the columns are " + ", ".join(f"c{n:02}" for n in range(10)) + " …"),
    ],
)
def test_the_advice_for_an_unknown_name(columns: list[str], unknown: str, advice: str) -> None:
    """The nearest name, as a template writes it; or all of them if there are few."""
    assert Columns(columns).advice(unknown) == advice


def test_the_columns_that_a_template_uses_are_known() -> None:
    """A row may lack the others; `row` as a whole may be any of them."""
    for source, used in (
        ("{{ name }} {{ row['Customer No.'] }} {{ row.self }}", {"name", "Customer No.", "self"}),
        ("{{ row['name'] }}{% for each in row %}{{ each }}{% endfor %}", set(COLUMNS)),
        ("{{ row.get('name') }}", set(COLUMNS)),
        ("Hello", set()),
    ):
        assert template(text=source).compile(COLUMNS).used_columns == used
