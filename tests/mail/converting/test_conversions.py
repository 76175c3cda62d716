"""Markdown to HTML, HTML to text, styles into elements: once for a campaign, with every tag of Jinja2 in its place."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from email import message_from_bytes, policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.errors import MissingDependency, TemplateError
from asyncsmtp.mail.converting.conversions import html_from_markdown, styles_inlined, text_from_html
from asyncsmtp.mail.converting.protecting import Protected
from asyncsmtp.mail.templates.template import Template
from asyncsmtp.protocol.envelope import Mailbox

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


def composed(html: str | None, text: str | None, **fields: str) -> dict[str, str]:
    template = Template(from_="n@example.org", subject="s", html=html, text=text)
    message = template.compile(tuple(fields)).compose(
        Mailbox.parse("a@example.net"), fields, message_id="a@b.example", date=datetime(2026, 3, 1, tzinfo=UTC)
    )
    parsed = message_from_bytes(bytes(message.content), policy=policy.default)  # type: ignore[arg-type]
    return {
        part.get_content_subtype(): part.get_content().replace("\r\n", "\n")
        for part in parsed.walk()
        if not part.is_multipart()
    }


def test_markdown_is_a_page_and_a_text() -> None:
    """The text is the Markdown itself; a statement on a line of its own makes no paragraph."""
    parts = composed(html_from_markdown(MARKDOWN), MARKDOWN, name="Ann", city="Graz", no="7", vip="yes")
    assert "<h1>Hello Ann</h1>" in parts["html"]
    assert '<a href="https://example.org/7">the page</a>' in parts["html"]
    assert "<p>Thank you.</p>" in parts["html"]
    assert "<p></p>" not in parts["html"]
    assert "<td>Ann</td>" in parts["html"]
    assert parts["plain"].startswith("# Hello Ann\n\nThis is **news** for Graz")
    assert "Thank you" not in composed(html_from_markdown(MARKDOWN), MARKDOWN, name="", city="", no="", vip="")["html"]


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
    assert html in composed(html_from_markdown(markdown), None, u="https://e.org/?a=1&b")["html"]


def test_a_cell_is_neither_markdown_nor_html() -> None:
    """TF-05: what stands in a cell is shown as it is."""
    html = composed(html_from_markdown("Hello {{ name }}"), None, name="**<b>x</b>** [a](javascript:b)")["html"]
    assert "**&lt;b&gt;x&lt;/b&gt;** [a](javascript:b)" in html


def test_a_text_is_made_of_html() -> None:
    """Paragraphs, lists, links with their addresses; tags where they were; nothing of the style sheet."""
    html = (
        "<html><head><style>p { color: red }</style></head><body><h1>Hello {{ name }}</h1><p>See <a "
        'href="https://example.org/{{ no }}">the page</a>.</p><ul>{% for x in row %}<li>{{ x }}</li>{% endfor %}</ul>'
        '<img src="cid:logo" alt="Example"></body></html>'
    )
    text = composed(html.replace('<img src="cid:logo" alt="Example">', ""), text_from_html(html), name="A<n", no="7")
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
    inlined = styles_inlined(html)
    assert "@media" in inlined
    made = composed(inlined, None, name="A", no="7")["html"]
    assert made.count('style="padding: 1px;"') == 2
    assert [words in made for words in ('title="no"', 'class="on"', ">no</td></tr></tbody></table>")] == [True] * 3


def test_a_tag_that_would_be_lost_is_an_error() -> None:
    html = "<html><head><style>p { color: {{ colour }} }</style></head><body><p>x</p><p>y</p></body></html>"
    with pytest.raises(TemplateError, match=r"colour .* move it out of the style sheet"):
        styles_inlined(html)


@pytest.mark.parametrize(
    ("html", "made"),
    [
        ('<table><tr {% if 4 > 3 %}bgcolor="red"{% endif %}><td>z</td></tr></table>', '<tr bgcolor="red" >'),
        ('<a title="a > b" {% if a %}href="b"{% endif %}>x</a>', '<a title="a > b" href="b" >x</a>'),
        ("<title>{% if a %}News{% endif %}</title>", "<title>News</title>"),
        ("<textarea>{% if a %}x{% endif %}</textarea>", "<textarea>x</textarea>"),
        ("<!--[if mso]>{% if a %}<table>{% endif %}<![endif]-->", "<!--[if mso]><table><![endif]-->"),
        ('<p title="{{ "a>b" }}" {% if a %}hidden{% endif %}>x</p>', '<p title="a&gt;b" hidden style="color: red;">'),
    ],
)
def test_inlining_styles_leaves_a_condition_where_it_is(html: str, made: str) -> None:
    """In a tag, in what has no markup and in a comment it is a word; only between tags can it be a comment."""
    inlined = styles_inlined(f"<html><head><style>p {{color: red}}</style></head><body>{html}</body></html>")
    assert made in composed(inlined, None, a="y")["html"]


@pytest.mark.parametrize(
    "html",
    [
        "<table>\n{{ a|safe }}<tr><td>x</td></tr></table>",
        '<p>\n<b {% if a %} title="1" {% else %} title="2" {% endif %}>x</b></p>',
        '<i>\n<p {% if a %} style="margin: 0" {% endif %}>x</p></i>',
        '<i>\n<p {% if a %}style="margin: 0"{% endif %}>x</p></i>',
    ],
)
def test_inlining_styles_never_moves_a_tag_silently(html: str) -> None:
    """A parser takes text out of a table, drops a second attribute, and a style written into one may be conditional."""
    with pytest.raises(TemplateError, match="inlining styles would") as raised:
        styles_inlined(f"<html><head><style>p {{color: red}}</style></head><body>{html}</body></html>", "m.html")
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
        ("<table><tr><td>a</td>{% if vip %}<td>b</td>{% endif %}</tr></table>", "a    b\n", "a\n"),
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
    """Between rows and items what makes the text discards words; what nobody reads, it may discard."""
    text = text_from_html(html)
    made = [composed(None, text, vip=cell)["plain"] for cell in ("x", "")]
    assert [re.sub(r"[^\S\n]+\n", "\n", each).strip("\n") + "\n" for each in made] == [vip, plain]


@pytest.mark.parametrize("made", [text_from_html, styles_inlined])
def test_braces_that_are_shown_are_no_tags(made: Callable[[str], str]) -> None:
    """Written as references in the HTML, they are characters in what is made of it."""
    html = "<p>&#123;&#123; a &#125;&#125; &#123;% if &#123;# &#123;{{ a }}</p>"
    parts = composed(made(html), made(html), a="x")
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


@given(_PIECES, st.sampled_from(["", "1"]))
def test_a_text_filled_in_is_the_text_of_what_was_filled_in(html: str, a: str) -> None:
    """Apart from white space; or it is an error before anything is sent."""
    columns = {"a": a, "b": "mn"}
    try:
        text = text_from_html(html)
    except TemplateError:
        return
    filled = composed(f"{html}<p>.</p>", None, **columns)["html"]
    expected = text_from_html(filled).split()[:-1]
    assert "".join(composed(None, text, **columns)["plain"].split()) == "".join(expected)


@pytest.mark.parametrize(
    "html",
    [
        "\n<ol>{% if a %}<li>x</li>{% endif %}</ol>",
        '\n<a {% if a %} href="x" {% endif %}>y</a>',
        "\n<!-- {% if a %} -->x<!-- {% endif %} -->",
        '\n<p style="{% if a %}display: none{% endif %}">y</p>',
        "\n<table><tr><td>{% if a %}x<br>y{% endif %}</td><td>z</td></tr></table>",
        "<p>\n<!-- {% set b = 1 %} --></p>",
        "<table><tr><td>x<br>\n{% set b = 1 %}y</td><td>{{ b }}<br>z</td></tr></table>",
    ],
)
def test_a_condition_that_a_text_would_lose_is_an_error(html: str) -> None:
    """What it guards would go to everyone, or what it does not guard would not."""
    with pytest.raises(TemplateError, match=r'a text of your own(: text = "message.txt")?$') as raised:
        text_from_html(html, "m.html")
    assert (raised.value.file, raised.value.line) == ("m.html", 2)


@pytest.mark.parametrize(("module", "make"), [("inscriptis", text_from_html), ("css_inline", styles_inlined)])
def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, module: str, make: object) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependency, match=r"asyncsmtp\[html\]"):
        make("<p>x</p>")  # type: ignore[operator]


@given(
    st.lists(
        st.sampled_from(
            [
                "{{ a }}",
                "{% if b %}",
                "{% endif %}",
                "{# c #}",
                "{% raw %}",
                "{% endraw %}",
                "text",
                "jinja",
                "<p>",
                "\n",
                "jinja0z",
            ]
        )
    )
)
def test_what_is_protected_comes_back(pieces: list[str]) -> None:
    source = "".join(pieces)
    for comments in (False, True):
        protected = Protected(source, statements_as_comments=comments)
        assert "{" not in protected.text
        assert protected.restored(protected.text) == source
        assert protected.lost(protected.text) is None
