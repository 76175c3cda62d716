"""Style sheets that look like template tags are explained, and a campaign may have other marks for its tags."""

from __future__ import annotations

from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest

from asyncsmtp.bulk import Campaign
from asyncsmtp.bulk.setup.config import load_config
from asyncsmtp.bulk.setup.prepare import prepare
from asyncsmtp.errors import ConfigError, InvalidArgument, TemplateError
from asyncsmtp.mail.templates.environment import Delimiters
from asyncsmtp.mail.templates.template import Template

CSS = "@media(max-width:600px){#main{width:100%}.a{color:red}}"


def compiled(html: str, **settings: Any) -> str:
    template = Template(from_="n@example.org", subject="News", html=html, html_name="message.html", **settings)
    message = template.compile(["name"]).compose("a@b.example", {"name": "Ann & Bob"})
    return str(message_from_bytes(bytes(message.content), policy=policy.default).get_content())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "html",
    [
        f"<p>\n<style>{CSS}</style>{{{{ name }}}}",
        f"<p>\n<style>{CSS}</style>{{{{ name }}}}{{# a comment #}}",
        f"<p>\n<mj-style inline='inline'>{CSS}",
        "<p>\n<style>.a{{color:red}</style>",
        "<p>\n<style>@keyframes x{%{top:0}}</style>{{ name }}",
        f"<p>\n{CSS}",
        f"<p>\n<STYLE type='text/css'>a{{b:c}}{CSS}</STYLE><b>#}}</b>",
    ],
)
def test_css_that_looks_like_a_tag_is_explained(html: str) -> None:
    """Also where Jinja2 would take all that follows, up to a comment's end, for a comment."""
    with pytest.raises(TemplateError) as caught:
        compiled(html)
    said = str(caught.value)
    assert said.startswith("message.html, line 2: ")
    assert "in a style sheet begins a tag of the template: write {% raw %} before it" in said
    assert '[template] delimiters = ["<<", ">>"]' in said
    assert "{#main{" in said or "{{color" in said or "{%{top" in said


@pytest.mark.parametrize(
    "html",
    [
        "<style>{# a {b} comment #}.a{color:{{ name }}}{% if name %}b{c:d}{% endif %}{#note#}</style>",
        "<style>{% raw %}" + CSS + "{% endraw %}</style>",
        "<style>@media(max-width:600px){ #main{width:100%}}</style>",
        "{#main {b} #}<p>x",
    ],
)
def test_tags_in_style_sheets_are_fine(html: str) -> None:
    assert compiled(html)


@pytest.mark.parametrize(
    ("html", "advice"),
    [
        ("\n{{{name}}}", "“{{{name}}}” is a tag of another program: write {{ name }}"),
        ("\n{{#if name}}x{{/if}}", "“{{#if name” is a tag of another program: write {% if name %}"),
        ("\n{{ name }}{{/each}}", "“{{/each” is a tag of another program: write {% endif %} or {% endfor %}"),
    ],
)
def test_tags_of_handlebars_are_explained(html: str, advice: str) -> None:
    with pytest.raises(TemplateError) as caught:
        compiled(html)
    assert str(caught.value).startswith("message.html, line 2: ")
    assert advice in str(caught.value)


def test_a_campaign_may_have_other_marks() -> None:
    marks = {"delimiters": ["<<", ">>"]}
    html = f"<style>{CSS}</style><% if name %><b><< name|upper >></b><% endif %><# none #>{{{{ name }}}}"
    assert compiled(html, **marks).strip() == f"<style>{CSS}</style><b>ANN &amp; BOB</b>{{{{ name }}}}"
    assert "Ann" in compiled("[[ name ]][% if name %]x[% endif %]", delimiters=["[[", "]]"])
    six = ["<%", "%>", "<!", "!>", "<#", "#>"]
    assert compiled("<% name %><! if name !>x<! endif !><# y #>", delimiters=six).strip() == "Ann &amp; Bobx"
    with pytest.raises(TemplateError, match="“nam” is not a column: did you mean “name”"):
        compiled("<< nam >>", **marks)
    with pytest.raises(TemplateError, match="write << name >>"):
        compiled("<< Na me >>", **marks)


@pytest.mark.parametrize(
    "wrong", [["<<"], ["<<", ">>", "x"], ["a", "b"], ["<%", "%>"], ["<", ">"], ["<<", " "], ['"', '"']]
)
def test_marks_that_do_not_tell_are_refused(wrong: list[str]) -> None:
    with pytest.raises(InvalidArgument):
        Delimiters.parse(wrong)


CAMPAIGN = """\
[campaign]
name = "news"
from = "<< name >> <news@example.org>"
subject = "For << name >>"
recipients = "people.csv"
html = "message.md"
attachments = ["files/<< name >>.pdf"]
[template]
delimiters = {}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "people.csv").write_text("email,name\na@example.org,Ann\n", encoding="utf-8")
    source = "# << name >>\n\n| a | b |\n|---|---|\n<% for n in [1, 2] %>\n| << n >> | << name >> |\n<% endfor %>\n"
    (tmp_path / "message.md").write_text(source + "\n![logo](logo.png) <# no #>{{ x }}{% raw %}\n", encoding="utf-8")
    (tmp_path / "logo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "Ann.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "campaign.toml").write_text(CAMPAIGN.format('["<<", ">>"]'), encoding="utf-8")
    return tmp_path


async def test_all_templates_of_a_campaign_have_the_marks(folder: Path) -> None:
    """Subject, names, Markdown with its loops and images, and paths of attachments."""
    prepared = await prepare(load_config(folder / "campaign.toml"))
    message = prepared.composer.compose("a@example.org", {"email": "a@example.org", "name": "Ann"})
    parsed = message_from_bytes(bytes(message.content), policy=policy.default)  # type: ignore[arg-type]
    assert (parsed["Subject"], str(parsed["From"])) == ("For Ann", "Ann <news@example.org>")
    body = parsed.get_body(("html",))
    assert body is not None
    html = body.get_content()
    assert "<h1>Ann</h1>" in html
    assert html.count("<td>Ann</td>") == 2
    assert 'src="cid:logo.png"' in html
    assert "no" not in html.partition("logo.png")[2]
    assert [part.get_filename() for part in parsed.iter_attachments()] == ["Ann.pdf"]


async def test_the_marks_are_part_of_the_fingerprint(folder: Path) -> None:
    first = await prepare(load_config(folder / "campaign.toml"))
    (folder / "campaign.toml").write_text(
        CAMPAIGN.replace("<<", "[[").replace(">>", "]]").format('["[[", "]]"]'), encoding="utf-8"
    )
    text = (folder / "message.md").read_text(encoding="utf-8")
    changed = text.replace("<<", "[[").replace(">>", "]]").replace("<%", "[%").replace("%>", "%]")
    (folder / "message.md").write_text(changed.replace("<#", "[#").replace("#>", "#]"), encoding="utf-8")
    second = await prepare(load_config(folder / "campaign.toml"))
    assert first.parts["delimiters"] != second.parts["delimiters"]


async def test_wrong_marks_name_the_key(folder: Path) -> None:
    (folder / "campaign.toml").write_text(CAMPAIGN.format('["<%", "%>"]'), encoding="utf-8")
    with pytest.raises(ConfigError, match="delimiters: must tell values, statements and comments apart: write all six"):
        load_config(folder / "campaign.toml")
    with pytest.raises(ConfigError, match="delimiters= must be the marks round a value"):
        Campaign(
            recipients=[{"email": "a@b.example"}],
            from_="n@example.org",
            subject="x",
            text="x",
            name="n",
            delimiters=["<<"],
        )
