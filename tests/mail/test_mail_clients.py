"""What mail programs do not support: which, what, and on which line of the template."""

from __future__ import annotations

import json
import re
import sys
from importlib.resources import files

import pytest

from asyncsmtp.mail.checks.mail_clients import MAX_FEATURES, MAX_FINDINGS, find_unsupported, read_features
from asyncsmtp.mail.checks.rules import FindingLevel
from asyncsmtp.mail.templates.environment import Delimiters


def sentences(html: str, **settings: bool) -> list[str]:
    found = find_unsupported({"m.html": html}, **settings)
    assert all(each.weight is FindingLevel.NOTE and each.rule == "mail-client" for each in found)
    return [each.sentence for each in found]


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ('<p style="max-height: 3px">', "Outlook on Windows does not support max-height"),
        ('<p style="MAX-HEIGHT:3px">', "Outlook on Windows does not support max-height"),
        ("<style>p { max-height: 3px }</style>", "Outlook on Windows does not support max-height"),
        ("<style>@media (min-width: 1px) { p { opacity: 1 } }</style>", "Outlook on Windows does not support opacity"),
        ('<p style="display: flex">', "Outlook on Windows does not support display: flex"),
        ('<p style="width: calc(100% - 3px)">', "Outlook and Yahoo Mail do not support calc()"),
        ('<p style="width: calc(1px + max(1px, 2px))">', "Outlook, Yahoo Mail and Samsung Email do not support max()"),
        ('<p style="color: var(--x)">', "Gmail, Outlook and Yahoo Mail do not support var()"),
        ("<style>:root { --x: 1px }</style>", "Gmail, Outlook and Yahoo Mail do not support variables (--name)"),
        ('<p style="margin: 2rem">', "Outlook on Windows and Yahoo Mail do not support the unit rem"),
        ("<style>@media (prefers-color-scheme: dark) {}</style>", "@media (prefers-color-scheme)"),
        ("<style>a:first-child { color: red }</style>", "Gmail and Outlook on Windows do not support :first-child"),
        ("<style>a:nth-child(2n) { color: red }</style>", "Gmail, Outlook and Yahoo Mail do not support :nth-child"),
        ("<style>a::before { content: 'x' }</style>", "do not support ::before"),
        ("<style>td > a { color: red }</style>", "Outlook on Windows does not support the selector >"),
        ("<style>a[href] { color: red }</style>", "Outlook on Windows does not support the selector []"),
        ("<video src=x></video>", "Gmail, Outlook and Yahoo Mail do not support <video>"),
        ("<svg/>", "do not support <svg>"),
        ('<link rel="stylesheet" href="x.css">', "do not support <link>"),
        ('<img src="https://x.example/a.WEBP?x=1#y">', "Outlook on Windows does not support webP images"),
        ('<img src="data:image/png;base64,AAAA">', "Gmail does not support images in data: URLs"),
        ('<img src="a.jpg" srcset="b.jpg 2x">', "do not support the attribute srcset"),
    ],
)
def test_what_is_not_supported(html: str, expected: str) -> None:
    """Properties, values, functions, units, at-rules, selectors, elements, attributes and images."""
    assert [each for each in sentences(html) if expected in each]


@pytest.mark.parametrize(
    "html",
    [
        '<p style="margin: 0; padding: 3px; color: red; font: 12px Arial">text</p>',
        '<p style="border-radius: 3px; box-shadow: 1px 1px red; transition: all 1s">ornaments</p>',
        "<table><tr><td align=center width=600>x</td></tr></table>",
        '<link rel="icon" href="x.png">',
        "<style>p.note, #x td { color: #fff }</style>",
        '<img src="a.png" width=3 alt="display: flex">',
        "<p>max-height: 3px, <!-- <video> --> calc(1px)</p>",
        "<!--[if mso]><p style='max-height: 3px'><video></video></p><![endif]-->",
        '<img src="{{ picture }}.png"><p style="{{ style }}">',
        "",
        "{% if x %}plain text{% endif %}",
    ],
)
def test_what_every_mail_has_is_no_finding(html: str) -> None:
    """And what is text, a comment, or a value of a row."""
    assert sentences(html) == []


def test_the_line_is_that_of_the_file() -> None:
    """Of a rule, of a declaration in an attribute over several lines, of an element; tags of the template count."""
    html = "{% if x %}\n{# a\ncomment #}\n<style>\np { color: red }\na {\n max-height: 1px }\n</style>\n{% endif %}"
    assert sentences(html) == ["m.html, line 7: Outlook on Windows does not support max-height"]
    html = '<p>\n<p\n class="x"\n style="color: red;\n  opacity: 0.5">'
    assert sentences(html) == ["m.html, line 5: Outlook on Windows does not support opacity"]
    html = "<p>\n\n<video></video>"
    assert sentences(html)[0].startswith("m.html, line 3: ")


def test_features_that_the_same_programs_lack_are_one_note() -> None:
    """A newsletter has few of them; each further feature has its line."""
    html = '<p style="max-height: 1px">\n<p style="opacity: 1; max-height: 2px">\n<p style="float: left">'
    (only,) = find_unsupported({"m.html": html})
    assert only.sentence == (
        "m.html, line 1: Outlook on Windows does not support max-height, opacity (line 2) and float (line 3)"
    )
    assert only.advice == "see that it reads well without; tested 2019 to 2024, https://www.caniemail.com"


def test_one_feature_leads_to_its_page() -> None:
    """With the year of the test: what a program does today may differ."""
    (only,) = find_unsupported({"m.html": '<p style="opacity: 1">'})
    assert only.advice.endswith("tested 2019, https://www.caniemail.com/features/css-opacity/")


def test_what_is_supported_in_part_says_which() -> None:
    """In the words of the test."""
    (only,) = find_unsupported({"m.html": '<p style="display: none">'})
    assert only.sentence == "m.html, line 1: Outlook on Windows supports display: none only in part"
    assert only.advice.startswith("does not inherit onto nested <table> elements; tested 2019")


@pytest.mark.parametrize(
    ("before", "after"), [("<!--[if !mso]><!-->", "<!--<![endif]-->"), ("<![if !mso]>", "<![endif]>")]
)
def test_what_outlook_does_not_read_is_not_its_fault(before: str, after: str) -> None:
    """The usual way to give Outlook something else; what is outside counts again."""
    assert sentences(f'{before}<p style="max-height: 1px">x</p>{after}') == []
    assert "Yahoo Mail does not support object-fit" in sentences(f'{before}<p style="object-fit: none">{after}')[0]
    assert sentences(f'{before}<p>x</p>{after}\n<p style="max-height: 1px">x</p>')[0].startswith("m.html, line 2")


def test_selectors_do_not_matter_when_styles_are_inlined() -> None:
    """With `inline_styles` the rules go into the elements; what they set matters as before."""
    html = "<style>td > a { max-height: 1px }</style>"
    assert "the selector >" in sentences(html)[0]
    assert sentences(html, are_styles_inlined=True) == [
        "m.html, line 1: Outlook on Windows does not support max-height"
    ]


def test_other_marks_of_a_template() -> None:
    """With `delimiters` a value is written in another way, and is no style."""
    found = find_unsupported({"m.html": '<p style="<< "opacity: 1" >>">x'}, Delimiters.parse(["<<", ">>"]))
    assert found == []


def test_each_file_has_its_own() -> None:
    """Included files are named; the same fault in two of them is said twice."""
    html = '<p style="opacity: 1">'
    found = find_unsupported({"a.html": html, "parts/b.html": f"\n{html}"})
    assert [each.sentence.partition(":")[0] for each in found] == ["a.html, line 1", "parts/b.html, line 2"]


def test_a_page_of_everything_has_few_notes() -> None:
    """Whatever a template uses, the notes fit on a screen."""
    html = "".join(
        f"<{key[2:]}>" if key.startswith("e:") else f'<p style="{key[2:].replace("=", ":")}: x">\n'
        for key in read_features()
        if key[:2] in ("p:", "e:")
    )
    found = find_unsupported({"m.html": html})
    assert len(found) == MAX_FINDINGS + 1
    assert all(len(each.sentence) < 600 for each in found)
    assert all(each.sentence.count("(line ") < MAX_FEATURES for each in found)
    assert "more notes on mail programs" in found[-1].sentence


@pytest.mark.parametrize(
    "html",
    [
        "<style>" + "(" * 5000,
        "<style>" + "a{" * 3000 + "opacity: 1",
        f'<p style="width: {"calc(" * 3000}1px">',
        "<![foo[x]]><p style='opacity: 1'>",
        "<style>@media {",
        "<style><!-- p { opacity: 1 } --></style>",
        '<img src="http://[x">',
        "<p style=':'><p style=';;;'><p style='@x {'><style>:{}</style><style>@;",
        "<" * 5000,
        "\x00<p style='\x00'>",
    ],
)
def test_html_that_is_none(html: str) -> None:
    """What comes out of a broken export: no error, whatever is found."""
    find_unsupported({"m.html": html})


def test_text_of_a_template_is_printed_harmlessly() -> None:
    """Names of properties come from the data or are those of the template's own; none has a control character."""
    for each in find_unsupported({"m\x1b[31m.html": '<p style="opacity: 1; max-height: 1px">'}):
        assert "\x1b" not in each.sentence


def test_without_the_extra_nothing_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asked for it: there is no error, and no note about a package."""
    monkeypatch.setitem(sys.modules, "tinycss2", None)
    assert find_unsupported({"m.html": '<p style="opacity: 1">'}) == []


def test_the_data_is_small_and_says_whose_it_is() -> None:
    """The terms are with the data, as these ask; there is a date, and no key is listed that cannot be found."""
    text = (files("asyncsmtp.mail.checks") / "caniemail.json").read_text("utf-8")
    assert len(text.encode()) <= 60_000
    data = json.loads(text)
    assert "Permission is hereby granted" in data["license"]
    assert "HTeuMeuLeu" in data["license"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", data["date"])
    for slug, (keys, name, refused, partial, tested) in data["features"].items():
        assert re.fullmatch(r"(css|html|image)-[a-z0-9-]+", slug)
        assert all(
            key.startswith(("p:", "f:", "u:", "w:", "e:", "a:", "i:", "s:", "@", "prefers", "hover", "orient"))
            for key in keys.split()
        )
        assert name
        assert refused or partial
        assert {*refused, *map(int, partial)} <= {*range(len(data["clients"]))}
        assert 2018 < int(tested) < 2030
