"""Markdown to HTML, HTML to text, styles into elements: the rendered text is converted, not the template."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsmtp.errors import MissingDependency, RecipientError, TemplateError
from asyncsmtp.mail.conversion.convert import Conversion, html_to_text, inline_styles
from asyncsmtp.mail.conversion.placeholders import MarkupLanguage
from asyncsmtp.mail.templates.template import Template
from tests.mail.conversion.composed import composed

HTML, STYLED, MARKDOWN_TO_HTML = (
    Conversion(MarkupLanguage.HTML),
    Conversion(MarkupLanguage.HTML, styles=True),
    Conversion(MarkupLanguage.MARKDOWN),
)

MARKDOWN = """\
# Hello {{ name }}

This is **news** for {{ city }}, see [the page](https://example.org/{{ no }}).

{% if vip %}
Thank you.
{% endif %}

| a | b |
|---|---|
| {{ name }} | 2 |
"""


def test_markdown_is_a_page_and_a_text() -> None:
    """The text is the Markdown itself; a statement on a line of its own makes no paragraph."""
    parts = composed(MARKDOWN, MARKDOWN, to_html=MARKDOWN_TO_HTML, name="Ann", city="Graz", no="7", vip="yes")
    assert "<h1>Hello Ann</h1>" in parts["html"]
    assert '<a href="https://example.org/7">the page</a>' in parts["html"]
    assert "<p>Thank you.</p>" in parts["html"]
    assert "<p></p>" not in parts["html"]
    assert "<td>Ann</td>" in parts["html"]
    assert parts["plain"].startswith("# Hello Ann\n\nThis is **news** for Graz")
    others = composed(MARKDOWN, MARKDOWN, to_html=MARKDOWN_TO_HTML, name="", city="", no="", vip="")
    assert "Thank you" not in others["html"]


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        (
            "Out: <{{ u }}>, *now*",
            '<p>Out: <a href="https://e.org/?a=1&amp;b">https://e.org/?a=1&amp;b</a>, <em>now</em></p>',
        ),
        ("<{{ u }}>\n*x*", '<p><a href="https://e.org/?a=1&amp;b">https://e.org/?a=1&amp;b</a>\n<em>x</em></p>'),
        ("<{{ u }}/a>", '<a href="https://e.org/?a=1&amp;b/a">https://e.org/?a=1&amp;b/a</a>'),
        ("`<{{ u }}>` {{ u }}:", "<p><code>&lt;https://e.org/?a=1&amp;b&gt;</code> https://e.org/?a=1&amp;b:</p>"),
        ("<{% if u %}b{% endif %}>x</b>", "<b>x</b>"),
    ],
)
def test_an_address_between_angle_brackets_is_a_link(markdown: str, html: str) -> None:
    """Without its value nothing says that it is one."""
    assert html in composed(markdown, to_html=MARKDOWN_TO_HTML, u="https://e.org/?a=1&b")["html"]


def test_a_cell_is_neither_markdown_nor_html() -> None:
    """TF-05: what stands in a cell is shown as it is."""
    cell = "**<b>x</b>** [a](javascript:b)"
    html = composed("Hello {{ name }}", to_html=MARKDOWN_TO_HTML, name=cell)["html"]
    assert "**&lt;b&gt;x&lt;/b&gt;** [a](javascript:b)" in html


def test_a_text_is_made_of_html() -> None:
    """Paragraphs, lists, links with their addresses; tags where they were; nothing of the style sheet."""
    html = (
        "<html><head><style>p { color: red }</style></head><body><h1>Hello {{ name }}</h1><p>See <a "
        'href="https://example.org/{{ no }}">the page</a>.</p><ul>{% for x in row %}<li>{{ x }}</li>{% endfor %}</ul>'
        '<img src="cid:logo" alt="Example"></body></html>'
    )
    text = composed(None, html, to_text=HTML, name="A<n", no="7")
    assert text["plain"].startswith("Hello A<n\n\nSee [the page](https://example.org/7).\n")
    assert "* name" in text["plain"]
    assert "[Example]" in text["plain"]
    assert "color" not in text["plain"]


def test_styles_go_into_the_elements_and_tags_stay_where_they_are() -> None:
    """Also between the rows of a table, where text cannot stand, and in attributes."""
    html = (
        "<html><head><style>td { padding: 1px } @media (max-width: 9px) { td { padding: 0 } }</style></head><body>"
        '<table><tbody>{% for x in row %}<tr><td title="{{ x }}" class="{% if x %}on{% endif %}">{{ x }}</td></tr>'
        "{% endfor %}"
        "</tbody></table></body></html>"
    )
    made = composed(html, to_html=STYLED, name="A", no="7")["html"]
    assert "@media" in made
    assert made.count('style="padding: 1px;"') == 2
    assert [words in made for words in ('title="no"', 'class="on"', ">no</td></tr></tbody></table>")] == [True] * 3


def test_a_value_in_a_style_sheet_goes_into_the_elements() -> None:
    """Escaped as in an attribute; where a condition stands in the style sheet, each variant is inlined by itself."""
    source = "<style>p { color: {{ colour }} }{% if big %} p { width: {{ big }}px }{% endif %}</style><p>x</p><p>y</p>"
    made = composed(source, to_html=STYLED, colour='"red', big="9")["html"]
    assert made.count("color: &#34;red;width: 9px;") == 2
    assert "width" not in composed(source, to_html=STYLED, colour="red", big="")["html"]


@pytest.mark.parametrize(
    ("html", "made"),
    [
        ('<table><tr {% if 4 > 3 %}bgcolor="red"{% endif %}><td>z</td></tr></table>', '<tr bgcolor="red">'),
        ('<a title="a > b" {% if a %}href="b"{% endif %}>x</a>', '<a title="a > b" href="b">x</a>'),
        ("<title>{% if a %}News{% endif %}</title>", "<title>News</title>"),
        ("<textarea>{% if a %}x{% endif %}</textarea>", "<textarea>x</textarea>"),
        ("<!--[if mso]>{% if a %}<table>{% endif %}<![endif]-->", "<!--[if mso]><table><![endif]-->"),
        (
            '<p title="{{ "a>b" }}" {% if a %}hidden{% endif %}>x</p>',
            '<p title="a&gt;b" hidden="" style="color: red;">',
        ),
        ("<p {{ a }} {% if a %}{{ a }}{% endif %}>x</p>", '<p y y style="color: red;">'),
        ('<b {% if a %} title="1" {% else %} title="2" {% endif %}>x</b>', '<b title="1">x</b>'),
        ('<p {% if a %} style="margin: 0" {% endif %}>x</p>', '<p style="color: red;margin: 0">x</p>'),
        ('<p {% if not a %}style="margin: 0"{% endif %}>x</p>', '<p style="color: red;">x</p>'),
    ],
)
def test_inlining_styles_leaves_a_condition_where_it_is(html: str, made: str) -> None:
    """Among attributes, in elements without markup, in a comment and around a whole attribute."""
    source = f"<html><head><style>p {{color: red}}</style></head><body>{html}</body></html>"
    assert made in composed(source, to_html=STYLED, a="y")["html"]


@pytest.mark.parametrize(
    "html",
    [
        "<table>\n{{ a|safe }}<tr><td>x</td></tr></table>",
        "<table>\n{{ a|safe }}{{ row.a }}</table><p>x</p>",
        "<TABLE><tr><td>x</td>\n<!-- c -->{{ row.a }}</tr></TABLE>",
        "<table><tr><td>x</td></tr>\n {{ row.a }}<tr><td>x</td></tr></table>",
    ],
)
@pytest.mark.parametrize("statement", ["", "{% if a %}{% endif %}"])
def test_inlining_styles_never_moves_a_value_silently(html: str, statement: str) -> None:
    """A parser takes text out of a table: rows in a value would not be rows any more."""
    source = f"<html><head><style>p {{color: red}}</style></head><body>{statement}{html}</body></html>"
    if statement:
        with pytest.raises(RecipientError, match=r"m\.html: line 2: .* inlining styles would"):
            composed(source, to_html=STYLED, html_name="m.html", a="<tr></tr>")
        return
    with pytest.raises(TemplateError, match="inlining styles would") as raised:
        composed(source, to_html=STYLED, html_name="m.html", a="<tr></tr>")
    assert (raised.value.file, raised.value.line) == ("m.html", 2)


@pytest.mark.parametrize(
    ("html", "vip", "plain"),
    [
        (
            "<table><tr><td>a</td></tr>{% if vip %}<tr><td>b</td></tr>{% else %}<tr><td>c</td></tr>{% endif %}</table>",
            "a\nb\n",
            "a\nc\n",
        ),
        ("c<ul>{% if vip %}<li>a</li>{% endif %}<li>b</li></ul>d", "c\n  * a\n  * b\nd\n", "c\n  * b\nd\n"),
        ("c<ul><li>a<ul>{% if vip %}<li>b</li>{% endif %}</ul></li></ul>", "c\n  * a\n      + b\n", "c\n  * a\n"),
        ("<table><tr><td>a</td>{% if vip %}<td>b</td>{% endif %}</tr></table>", "a  b\n", "a\n"),
        ("<table><tr><td>{% if vip %}a</td></tr>{% endif %}<tr><td>b</td></tr></table>", "a\nb\n", "b\n"),
        ("<table>{% for x in row %}<tr><td>{{ x }}</td></tr>{% endfor %}</table>", "vip\n", "vip\n"),
        ("<p>{% raw %}<b>{{ a }}{% if %}</b>{% endraw %}</p>", "{{ a }}{% if %}\n", "{{ a }}{% if %}\n"),
        ("{# c #}{% set v = vip %}\n<html><body><p>{{ v }}a</p></body></html>", "xa\n", "a\n"),
        ('<p class="{% if vip %}a{% endif %}">b</p><!-- {% if vip %}x{% endif %} -->', "b\n", "b\n"),
        ('<a href="{% if vip %}a{% else %}b{% endif %}">{% if vip %}c{% endif %}d</a>', "[cd](a)\n", "[d](b)\n"),
        ('<div style="display:none">{% if vip %}x{% else %}y{% endif %}</div>z{# c #}', "z\n", "z\n"),
    ],
)
def test_a_condition_holds_in_the_text_what_it_holds_in_the_html(html: str, vip: str, plain: str) -> None:
    made = [composed(None, html, to_text=HTML, vip=cell)["plain"] for cell in ("x", "")]
    assert [re.sub(r"[^\S\n]+\n", "\n", each).strip("\n") + "\n" for each in made] == [vip, plain]


def test_braces_that_are_shown_are_no_tags() -> None:
    """Written as references in the HTML, they are characters in what is made of it."""
    html = "<p>&#123;&#123; a &#125;&#125; &#123;% if &#123;# &#123;{{ a }}</p>"
    parts = composed(html, html, to_html=STYLED, to_text=HTML, a="x")
    assert all("{{ a }} {% if {# {x" in part for part in parts.values())


_PIECES = st.recursive(
    st.sampled_from(["x", "<br>", "{{ b }}", "<p>y</p>", '<a href="u">z</a>']),
    lambda inner: st.lists(
        st.builds(
            str.replace,
            st.sampled_from(
                [
                    "@",
                    "<table><tr><td>@</td></tr></table>",
                    "<table>{% if a %}<tr><td>@</td></tr>{% endif %}<tr><td>v</td><td>w</td></tr></table>",
                    "<table><tr><td>v<br>w</td>{% if a %}<td>@</td>{% else %}<td>u</td>{% endif %}</tr></table>",
                    "<ul><li>v</li>{% if not a %}<li>@</li>{% endif %}</ul>",
                    "{% if a %}@{% else %}t{% endif %}",
                    "{% for i in b %}<div>@</div>{% endfor %}",
                    '<p class="{% if a %}s{% endif %}">@</p>',
                ]
            ),
            st.just("@"),
            inner,
        ),
        max_size=3,
    ).map("".join),
    max_leaves=8,
)


@settings(deadline=None)
@given(_PIECES, st.sampled_from(["", "1"]))
def test_a_text_filled_in_is_the_text_of_what_was_filled_in(html: str, a: str) -> None:
    """Apart from white space."""
    columns = {"a": a, "b": "mn"}
    filled = composed(f"{html}<p>.</p>", **columns)["html"]
    expected = html_to_text(filled).split()[:-1]
    made = composed(None, html, to_text=HTML, **columns)["plain"]
    assert "".join(made.split()) == "".join(expected)


@pytest.mark.parametrize(
    ("html", "with_a", "without"),
    [
        ("<ol>{% if a %}<li>x</li>{% endif %}<li>y</li></ol>", "1. x\n 2. y\n", "1. y\n"),
        ('<a {% if a %} href="x" {% endif %}>y</a>', "[y](x)\n", "y\n"),
        ("<!-- {% if a %} -->x<!-- {% endif %} -->y", "xy\n", "y\n"),
        ('<p style="{% if a %}display: none{% endif %}">y</p>z', "z\n", "y\n\nz\n"),
        ("<table><tr><td>{% if a %}x<br>y{% endif %}</td><td>z</td></tr></table>", "x  z\ny\n", "z\n"),
        ("<p><!-- {% set b = a %} -->{{ b }}.</p>", "1.\n", ".\n"),
        ("<table><tr><td>x<br>{% set b = a %}y</td><td>{{ b }}<br>z</td></tr></table>", "x  1\ny  z\n", "x\ny  z\n"),
    ],
)
def test_a_condition_may_stand_where_a_text_made_of_the_template_would_lose_it(
    html: str, with_a: str, without: str
) -> None:
    """Each variant is converted by itself."""
    made = [composed(None, html, to_text=HTML, a=cell)["plain"].strip() for cell in ("1", "")]
    assert [_squeeze(each) for each in made] == [with_a, without]


def _squeeze(text: str) -> str:
    """One line end for the last line, two spaces between columns."""
    return re.sub(r"[^\S\n]{2,}", "  ", re.sub(r"[^\S\n]+\n", "\n", text)) + "\n"


def _cells(html: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    return [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in rows]


@pytest.mark.parametrize(
    "rows",
    [
        "{% for x in items.split() %}\n| {{ x }} | {{ x|upper }} |\n{% endfor %}\n",
        "{% for x in items.split() -%}\n| {{ x }} | {{ x|upper }} |\n{% endfor %}\n",
        "{% for x in items.split() %}| {{ x }} | {{ x|upper }} |\n{% endfor %}\n",
        "  {% for x in items.split() %}\n  {# r #}\n  {% if x %}\n{{ x }}|{{ x|upper }}\n {% endif %}\n{% endfor %}\n",
    ],
)
def test_a_loop_makes_the_rows_of_a_markdown_table(rows: str) -> None:
    """One table, whatever the lines of the statements look like; what is in a cell of the file ends no column."""
    source = f"Before\n\n| a | b |\n|---|---|\n{rows}\nBehind\n"
    html = composed(source, to_html=MARKDOWN_TO_HTML, items="x y|z *q*")["html"]
    assert _cells(html) == [["a", "b"], ["x", "X"], ["y|z", "Y|Z"], ["*q*", "*Q*"]]
    assert [html.count(tag) for tag in ("<table>", "<p>Before</p>", "<p>Behind</p>")] == [1, 1, 1]
    none = composed(source, to_html=MARKDOWN_TO_HTML, items="")["html"]
    assert (_cells(none), "<p>Behind</p>" in none) == ([["a", "b"]], True)


@pytest.mark.parametrize(
    ("row", "after"),
    [
        ("| {{ x }} | n |", "| t | n |\n"),
        ("|{{ x }}|{% if x == 'u' %}1{% endif %}|", "{% if items %}\n|t|n|\n{% endif %}\n"),
    ],
)
def test_a_table_of_markdown_keeps_the_alignment_of_its_columns(row: str, after: str) -> None:
    source = f"| a | b |\n|:--|--:|\n{{% for x in items.split() %}}\n{row}\n{{% endfor %}}\n{after}"
    html = composed(source, to_html=MARKDOWN_TO_HTML, items="u v")["html"]
    assert html.count('<td style="text-align:left">') == html.count('<td style="text-align:right">') == 3
    assert html.count("<table>") == 1


@pytest.mark.parametrize("mark", ["-", "*", "1.", "1)"])
@pytest.mark.parametrize("item", ["{{ x }}", "**{{ x }}**\n  more"])
def test_a_loop_makes_the_items_of_a_markdown_list(mark: str, item: str) -> None:
    """One list, with the numbers of all its items; its end is the end of the list."""
    source = f"{{% for x in items.split() %}}\n{mark} {item}\n{{% endfor %}}\nBehind\n"
    html = composed(source, to_html=MARKDOWN_TO_HTML, items="u 2.")["html"]
    assert html.count("<ol>" if mark[0] == "1" else "<ul>") == 1
    assert html.count("<li>") == 2
    assert "<p>Behind</p>" in html
    assert "<li>2.</li>" in html or "<strong>2.</strong>" in html


def test_a_list_in_a_list_and_its_last_item_may_be_in_loops() -> None:
    source = "1. one\n{% for x in a.split() %}\n   - {{ x }}\n{% endfor %}\n{% if a %}\n2. two\n{% endif %}\n"
    html = composed(source, to_html=MARKDOWN_TO_HTML, a="u v")["html"]
    squeezed = "".join(html.split())
    assert "<ol><li>one<ul><li>u</li><li>v</li></ul></li><li>two</li></ol>" in squeezed


def test_a_statement_on_a_line_of_its_own_parts_paragraphs() -> None:
    """As an empty line does; also where the condition is false."""
    source = "a\n{% if b %}\nc\n{% endif %}\nd | e\n{% if b %}{% endif %}\nf | g\n"
    html = composed(source, to_html=MARKDOWN_TO_HTML, b="1")["html"]
    assert re.findall("<p>(.*?)</p>", html) == ["a", "c", "d | e", "f | g"]
    html = composed(source, to_html=MARKDOWN_TO_HTML, b="")["html"]
    assert re.findall("<p>(.*?)</p>", html) == ["a", "d | e", "f | g"]


def test_a_loop_makes_the_rows_of_a_table_of_html_in_markdown() -> None:
    source = "<table>\n{% for x in a.split() %}\n    <tr><td>{{ x }}</td></tr>\n{% endfor %}\n</table>\n"
    html = composed(source, to_html=MARKDOWN_TO_HTML, a="*u* v")["html"]
    assert _cells(html) == [["*u*"], ["v"]]
    assert "<code>" not in html


@pytest.mark.parametrize(
    ("html", "with_a", "without"),
    [
        (
            (
                "<table><tr><td>n</td>{% if a %}<td>p</td>{% endif %}<td>q</td>"
                "<tr><td>1</td>{% if a %}<td>2</td>{% endif %}<td>3</td></tr></table>"
            ),
            "n  p  q\n1  2  3\n",
            "n  q\n1  3\n",
        ),
        (
            (
                "<table><tr>{% for x in a %}<td>{{ x }}</td>{% endfor %}<td>e</td></tr>"
                "<tr>{% for x in a %}<td>f</td>{% else %}<td>g</td>{% endfor %}<td>h</td></tr></table>"
            ),
            "1  e\nf  h\n",
            "e\ng  h\n",
        ),
        ("<table><tr><td>a</td><td>{% if a %}<b>2</b>{% endif %}</td><td>c</td></tr></table>", "a  2  c\n", "a  c\n"),
    ],
)
def test_a_condition_around_columns_keeps_the_columns_of_the_text(html: str, with_a: str, without: str) -> None:
    made = [composed(None, html, to_text=HTML, a=cell)["plain"].strip() for cell in ("1", "")]
    assert [re.sub("[^\\S\n]{2,}", "  ", _squeeze(each)) for each in made] == [with_a, without]


@pytest.mark.parametrize(("module", "make"), [("inscriptis", html_to_text), ("css_inline", inline_styles)])
def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, module: str, make: object) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependency, match=r"asyncsmtp\[html\]"):
        make("<p>x</p>")  # type: ignore[operator]


@pytest.mark.parametrize(("module", "part"), [("inscriptis", "text"), ("css_inline", "html")])
def test_a_template_that_needs_the_extra_is_not_compiled_without_it(
    monkeypatch: pytest.MonkeyPatch, module: str, part: str
) -> None:
    """Also where nothing is converted before the first row is known."""
    monkeypatch.setitem(sys.modules, module, None)
    source = "{% if a %}<p>x</p>{% endif %}"
    parts = {"html": source, "html_conversion": STYLED} if part == "html" else {"text": source, "text_conversion": HTML}
    with pytest.raises(MissingDependency, match=r"asyncsmtp\[html\]"):
        Template(from_="n@example.org", subject="s", **parts).compile(("a",))  # type: ignore[arg-type]
