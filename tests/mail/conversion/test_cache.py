"""Conversions take milliseconds: how many there are, what is kept of them, and how a caller moves one to a thread."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from asyncsmtp.errors import RecipientError
from asyncsmtp.mail.conversion import convert
from asyncsmtp.mail.conversion.convert import Conversion
from asyncsmtp.mail.conversion.placeholders import MarkupLanguage
from asyncsmtp.mail.list_unsubscribe import Unsubscribe
from asyncsmtp.mail.templates.template import Composer, Template
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.envelope import Mailbox

TO = Mailbox.parse("bob@example.com")
DATE = datetime(2026, 3, 1, tzinfo=UTC)
CONDITION = "# {{ a }}\n{% if a == '1' %}\n*{{ a|upper }}*\n{% endif %}\n{{ a }}\n"
LOOP = "{% for x in a %}\n- {{ x }}\n{% endfor %}\n"
LARGE = "\n\n" + "Lorem ipsum dolor sit amet.\n" * 200 + "\n"


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources that were converted from Markdown, in order."""
    sources: list[str] = []
    make = convert.markdown_to_html

    def count(source: str, page: str) -> str:
        sources.append(source)
        return make(source, page)

    monkeypatch.setattr(convert, "markdown_to_html", count)
    return sources


def compiled(source: str, unsubscribe: Unsubscribe | None = None) -> Composer:
    conversion = Conversion(MarkupLanguage.MARKDOWN)
    template = Template("n@example.org", "s", html=source, html_conversion=conversion, unsubscribe=unsubscribe)
    return template.compile(("a",))


def octets(composer: Composer, a: str, fields: dict[str, str] | None = None) -> bytes:
    return bytes(content(composer, a, fields))


def content(composer: Composer, a: str, fields: dict[str, str] | None = None) -> Content:
    made = composer.compose(TO, fields or {"a": a}, message_id="a@b.example", date=DATE).content
    assert isinstance(made, Content)
    return made


def test_a_template_that_only_has_values_is_converted_when_it_is_compiled(conversions: list[str]) -> None:
    composer = compiled("# {{ a }}\n\n{{ a|upper }} {{ row.a }}\n")
    assert len(conversions) == 1
    assert composer.pending_conversion(TO, {"a": "x"}) is None
    assert b"<p>B B B" not in octets(composer, "b")
    assert b"<h1>b</h1>" in octets(composer, "b")
    assert len(conversions) == 1


def test_a_condition_costs_one_conversion_for_each_of_its_sides(conversions: list[str]) -> None:
    composer = compiled(CONDITION)
    for number in range(20):
        made = octets(composer, str(number % 3))
        assert (b"<em>1</em>" in made) == (number % 3 == 1)
    assert len(conversions) == 2


def test_what_is_kept_is_bounded_by_count_and_by_bytes(conversions: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The variant that was not used for the longest time goes first; the last one stays, however large it is."""
    monkeypatch.setattr(convert, "MAX_VARIANTS", 2)
    composer = compiled(LOOP)
    for a in ("1", "12", "2", "123", "3"):
        octets(composer, a)
    assert len(conversions) == 3
    octets(composer, "12")
    assert len(conversions) == 4
    monkeypatch.setattr(convert, "MAX_VARIANT_BYTES", 1)
    composer = compiled(LOOP)
    for a in ("1", "2", "12", "21", "3"):
        octets(composer, a)
    assert len(conversions) == 7


@pytest.mark.parametrize("unsubscribe", [None, Unsubscribe("https://e.org/{{ token }}", b"x" * 32)])
def test_a_pending_conversion_may_be_done_elsewhere(conversions: list[str], unsubscribe: Unsubscribe | None) -> None:
    """Then composing converts nothing; the octets are the same either way."""
    composer, other = compiled(CONDITION, unsubscribe), compiled(CONDITION, unsubscribe)
    fields = {"a": "1"}
    convert_ = composer.pending_conversion(TO, fields)
    assert convert_ is not None
    assert conversions == []
    convert_()
    assert len(conversions) == 1
    assert composer.pending_conversion(TO, fields) is None
    made = octets(composer, "1", fields)
    assert len(conversions) == 1
    assert made == octets(other, "1") == octets(composer, "1")


def test_a_row_between_a_question_and_its_message_changes_neither() -> None:
    composer = compiled(CONDITION)
    one, two = {"a": "1"}, {"a": "2"}
    composer.pending_conversion(TO, one)
    assert b"<h1>2</h1>" in octets(composer, "2", two)
    composer.pending_conversion(TO, two)
    assert b"<h1>1</h1>" in octets(composer, "1", one)
    assert b"<h1>2</h1>" in octets(composer, "2", two)


def test_what_goes_wrong_is_said_by_compose_with_the_row() -> None:
    composer = compiled("{% if a %}{{ 1 // (a|length - 1) }}{% endif %}")
    assert composer.pending_conversion(TO, {"a": "x"}) is None
    with pytest.raises(RecipientError, match="row 7: html: line 1: integer division"):
        composer.compose(TO, {"a": "x"}, message_id="a@b.example", date=DATE, row=7)


def test_octets_that_no_value_changes_are_shared() -> None:
    """Those of one variant are the same `bytes` in all its messages, so that DKIM hashes them once."""
    composer = compiled(LARGE + CONDITION + LARGE)
    one, two, other = (content(composer, a).parts for a in ("1", "1", "2"))
    assert [part for part in one if len(part) > 2048]
    assert all(mine is theirs for mine, theirs in zip(one, two, strict=True) if len(mine) > 2048)
    assert len(b"".join(other)) < len(b"".join(one))


@pytest.mark.parametrize("code", ["x\n.x", "x\n{{ a }}x"])
def test_a_line_that_begins_with_a_dot_is_found(code: str) -> None:
    """Wherever it comes from: what sends it must know (RFC 5321 section 4.5.2)."""
    composer = compiled(f"{{% if a %}}{{% endif %}}\n\n```\n{code}\n```\n")
    for _ in range(2):
        made = content(composer, ".")
        assert made.needs_dot_stuffing == (b"\n." in bytes(made)) is True
