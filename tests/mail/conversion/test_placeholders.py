"""Templates rendered with placeholders: filled in, they give what Jinja2 gives, whatever they are made of."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsmtp.errors import MessageError, RecipientError, TemplateError
from asyncsmtp.mail.conversion.convert import Conversion
from asyncsmtp.mail.conversion.placeholders import MarkupLanguage, PlaceholderWords
from asyncsmtp.mail.templates.environment import TemplateEnvironment
from asyncsmtp.mail.templates.variables import Columns, check_names, parse
from tests.mail.conversion.composed import composed

HTML, MARKDOWN = Conversion(MarkupLanguage.HTML), Conversion(MarkupLanguage.MARKDOWN)

FILES = {
    "foot": "Bye {{ a }}\n",
    "sets": "{% set a = 'other' %}<{{ a }}>",
    "deep": "[{% include 'foot' %}]",
    "base": "<{% block head %}H{% endblock %}|{% block body %}B{% block in %}I{% endblock %}{% endblock body %}>\n",
    "child": "{% extends 'base' %}{% block in scoped %} child {{ super() }}{% endblock %}",
    "strict": "{% block x required %}{% endblock %}",
    "macros": "{% macro bold(x) %}<b>{{ x }}</b>{% endmacro %}{% set hr %}<hr>{{ 1 }}{% endset %}",
    "foot.md": "**Bye** {{ a }}",
    "row.md": "| x | {{ a }} |\n",
    "foot.html": "<p>a\n\n    *b* {{ a }}</p>",
}


@pytest.mark.parametrize(
    "source",
    [
        "x {% include 'foot' %} y",
        'x {%- include "./foot" -%} y',
        "{% include 'deep' %}{% include 'deep' ignore missing with context %}",
        "{% include 'sets' %}{{ a }}",
        "{% raw %}{% include 'foot' %}{% endraw %}{# {% include 'foot' %} #}{{ '{% include' }}",
        "{% if a %}{% include 'foot' %}{% endif %}",
        "{% extends 'base' %} {# c #} nobody reads this {% block head %}{{ a }}{% endblock %}",
        "{% extends 'base' %}{% block body -%} {{ super() }} {% include 'foot' %} {%- endblock %}",
        "{% extends 'child' %}{% block in %}({{ super() }}){% endblock %}{% block none %}n{% endblock %}",
        "{% extends 'base' %}{% block body %}{% block in %}J{% endblock %}{% endblock %}",
        "{% extends 'base' %}{% set b = a ~ 'x' %}\n{% block head %}{{ b }}{% endblock %}",
        "{% extends 'strict' %}{% block x %}x{% endblock %}",
        "{% import 'macros' as m %}{{ m.bold(a) }}{{ m.hr }}",
        "{% extends 'base' %}{% macro b() %}c{% endmacro %}",
        "{% if a %}{% extends 'base' %}{% endif %}",
        "{% extends 'base' %}{% block in %}{{ self.head() }}{% endblock %}",
        "{% from 'macros' import bold %}{{ bold(a) }}{{ bold(bold(a)) }}{{ bold(a)|length }}{{ bold(a)|upper }}",
        "{% set x %}<i>{{ a }}</i>{% endset %}{{ x }}{{ x|length }}{% if x == '<i>A</i>' %}!{% endif %}{{ x ~ x[3] }}",
        "{% set x | upper %}<i>{{ a }}</i>{% endset %}{{ x }}{{ 'yes' if x else x }}{{ x if x else '' }}",
        "{% set x %}{{ '' }}{% endset %}{% if x %}wrong{% else %}empty{% endif %}{{ x or a }}",
        "{% set x %}{{ a }}{% endset %}{% set y = x %}{{ y }}{% set z = [x] %}{{ z[0] }}{{ z|join('-') }}{{ x in z }}",
        "{% filter upper %}<b>{{ a }}b</b>{% filter lower %}B{{ a }}{% endfilter %}{% endfilter %}",
        "{% macro box(t) %}<p>{{ t }}{{ caller(t) }}</p>{% endmacro %}{% call(u) box(a) %}<i>{{ u }}</i>{% endcall %}",
        (
            "{% macro box() %}{{ caller() }}{% endmacro %}{% call box() %}{% filter upper %}b{{ a }}"
            "{% endfilter %}{% endcall %}"
        ),
        "{% for c in a ~ 'bc' if c != 'b' %}{{ loop.index }}{{ c }}{{ loop.last }}{% else %}none{% endfor %}",
        "{% autoescape false %}{{ a }}{{ '<' }}{% endautoescape %}{{ '<' }}{{ a|safe }}{{ a|e }}{{ ('<' ~ a)|e }}",
        "{% with x = a %}{{ x }}{{ x is defined }}{{ y is defined }}{{ y|default('d') }}{% set y = 1 %}{% endwith %}",
        "{{ '{{' }}{{ a.startswith('A') }}{{ -1 }}{{ none }}{{ 1.5 + 2 }}{{ row['a'] }}{{ row.a|lower }}",
        "{% macro r(n) %}{{ n }}{% if n %}{{ r(n - 1) }}{% endif %}{% endmacro %}{{ r(3) }}{{ a if r(0) == '0' }}",
        "{% include 'macros' without context %}{% import 'macros' as m with context %}{{ m.hr }}{{ m.hr|upper }}",
        "{%- if a -%} x {{- a -}} y {%+ endif %}\n{{ a }}\n",
    ],
)
@pytest.mark.parametrize("a", ["A", "<A>&", ""])
def test_it_gives_the_same_as_without_placeholders(source: str, a: str) -> None:
    plain = composed(source, files=FILES, a=a)["html"]
    made = composed(source, to_html=HTML, files=FILES, a=a)["html"]
    assert made.rstrip("\n") == plain.rstrip("\n")


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["0", "1", "z", "y", "\x01", "c", "<b>", "**", "{{", "|", " ", "\n", "é"])).map("".join)
)
@pytest.mark.slow
def test_a_value_is_shown_as_it_is(cell: str) -> None:
    """TF-05: nothing in it is taken for a placeholder, for Markdown or for HTML."""
    source = "{% if a %}{% endif %}{% set x %}{{ a }}{% endset %}<p>[{{ x }}][{{ a }}]</p>"
    made = composed("{% autoescape false %}" + source + "{% endautoescape %}", to_html=HTML, a=cell)["html"]
    assert made == f"<p>[{cell}][{cell}]</p>\n"
    escaped = composed("<p>x {{ a }}{{ a|upper }} x</p>", a=cell)["html"]
    assert escaped in composed("x {{ a }}{{ a|upper }} x", to_html=MARKDOWN, a=cell)["html"]


def test_a_cell_cannot_be_a_placeholder() -> None:
    """What marks a placeholder in a rendered text costs a row that has it, with the name of the column."""
    with pytest.raises(RecipientError, match=r"a NUL is not allowed in a text .*“a”"):
        composed("{% if b %}{{ a }}{% endif %}", to_html=HTML, a="\x000\x00", b="1")
    for source in ("{{ a }}\n{{ '\\0' }}", "{{ a }}\n\0c\0", "{% set x %}{{ a }}{% endset %}\n{{ '\\x00' ~ x }}"):
        with pytest.raises((TemplateError, MessageError, RecipientError), match="a NUL is not allowed in a text"):
            composed(source, to_html=HTML, a="")


def test_no_text_of_a_template_is_a_word_for_a_placeholder() -> None:
    """Not even by accident: the words are made of the text, and none of them is in it."""
    seen = set()
    for text in ("a", "b\x000\x00", "\x000\x00\x001\x00"):
        words = PlaceholderWords(text)
        assert words.split(words.text) == PlaceholderWords(text).split(words.text)
        seen.add(words.text.removesuffix("0z"))
    assert len(seen) == 3
    again = PlaceholderWords(f"{PlaceholderWords('x').hide('')} x")
    assert again.split(again.text) == [again.text]


def test_markdown_in_html_and_html_in_markdown_are_each_converted() -> None:
    """By the names of the files, before they are put in place; Markdown in Markdown is one text."""
    html = composed("<div>{% include 'foot.md' %}</div>", to_html=HTML, files=FILES, a="*A*")["html"]
    assert html == "<div><p><strong>Bye</strong> *A*</p>\n</div>\n"
    source = "# {{ a }}\n\n{% include 'foot.html' %}\n\nand {% include 'foot.md' %}"
    parts = composed(source, source, to_html=MARKDOWN, to_text=MARKDOWN, files=FILES, a="*A*")
    assert "<h1>*A*</h1>\n<p>a\n\n    *b* *A*</p>\n<p>and <strong>Bye</strong> *A*</p>" in parts["html"]
    assert parts["plain"] == "# *A*\n\na *b* *A*\n\n\nand **Bye** *A*\n"
    page = "<p>{% include 'foot.md' %}</p>"
    assert composed(None, page, to_text=HTML, files=FILES, a="*A*")["plain"].split() == ["Bye", "*A*"]
    rows = "| x | y |\n|---|---|\n{% for x in a %}\n{% include 'row.md' %}{% endfor %}"
    assert composed(rows, to_html=MARKDOWN, files=FILES, a="uv")["html"].count("<tr>") == 3


def test_markdown_that_only_shows_files_is_the_page_of_those() -> None:
    """One that has a text of its own is put into a page."""
    files = {"page.html": "<html><body>{{ a }}</body></html>"}
    only = composed("\n{% include 'page.html' %}\n", to_html=MARKDOWN, files=files, a="*A*")["html"]
    assert only.strip() == "<html><body>*A*</body></html>"
    both = composed("Hi\n\n{% include 'page.html' %}", to_html=MARKDOWN, files=files, a="*A*")["html"]
    assert both.count("<html") == 2


def test_all_that_is_loaded_is_known() -> None:
    source = "{% extends 'child' %}{% from 'foot' import x %}{# {% include 'sets' %} #}"
    sandbox = TemplateEnvironment(autoescape=True, load=FILES.__getitem__)
    files = check_names(parse(source, "m", sandbox), "m", Columns(("a",)), sandbox)
    assert sorted(files) == ["base", "child", "foot", "m"]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("\n{{ nmae }}", "html, line 2: “nmae” is not a column"),
        ("a\n\n{{ a|nope }}", "html, line 3: No filter named 'nope'"),
        ("a\n{% if a %}", "html, line 2: "),
        ("a\n{% if 1 // 0 %}{% endif %}", "html, line 2: integer division"),
    ],
)
def test_what_is_wrong_in_a_template_is_known_before_the_first_row(source: str, why: str) -> None:
    with pytest.raises(TemplateError) as raised:
        composed(source, to_html=MARKDOWN, a="")
    assert why in str(raised.value)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("a\n\n{{ 1 // (a|length) }}", "html: line 3: integer division"),
        ("a\n{% if a %}{% else %}\n{{ 1 // (a|length) }}{% endif %}", "html: line 3: integer division"),
        ("{% include 'deep.md' %}", "html: line 2: integer division"),
        (
            "{% set b = 'x' * 100000 %}{% for i in [1] * 110 %}{{ b }}{% endfor %}{{ a }}",
            "10 MiB of text come out of it",
        ),
        ("{% for i in [1] * 50000 %}" + "x" * 30 + "{% endfor %}{{ a }}", "1 MiB of text to convert"),
    ],
)
def test_what_is_wrong_in_a_row_names_the_file_and_its_line(source: str, why: str) -> None:
    """TF-03: however long a rendered text is, it is not converted for longer than some seconds."""
    files = {"deep.md": "b\n{{ 1 // (a|length) }}"}
    with pytest.raises((RecipientError, TemplateError)) as raised:
        composed(source, to_html=MARKDOWN, files=files, a="")
    assert why in str(raised.value)
