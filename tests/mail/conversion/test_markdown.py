"""Markdown with loops and conditions: tables, lists and numbers come out whole, in the HTML and in the text."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest

from asyncsmtp.bulk.setup.config import load_config
from asyncsmtp.bulk.setup.prepare import prepare

CAMPAIGN = """\
[campaign]
from = "news@example.org"
subject = "News"
recipients = "people.csv"
html = "message.md"
"""
PNG = b"\x89PNG\r\n\x1a\n"


async def compose(folder: Path, markdown: str, name: str = "Ann") -> EmailMessage:
    (folder / "message.md").write_text(markdown, encoding="utf-8")
    (folder / "people.csv").write_text("email,name\na@example.org,Ann\n", encoding="utf-8")
    (folder / "campaign.toml").write_text(CAMPAIGN, encoding="utf-8")
    composer = (await prepare(load_config(folder / "campaign.toml"))).composer
    message = composer.compose("a@example.org", {"email": "a@example.org", "name": name})
    parsed = message_from_bytes(bytes(message.content), policy=policy.default)  # type: ignore[arg-type]
    assert isinstance(parsed, EmailMessage)
    return parsed


def part(message: EmailMessage, kind: str) -> str:
    body = message.get_body((kind,))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("source", "html"),
    [
        ("{% for n in [1, 2] %}\n1. a{{ n }}\n{% endfor %}\n1. b\n", "<ol><li>a1</li><li>a2</li><li>b</li></ol>"),
        ("{% for n in 'xy' %}\n{{ loop.index }}. {{ n }}\n{% endfor %}\n", "<ol><li>x</li><li>y</li></ol>"),
        ("{% for n in 'x' %}\n{{ loop.index + 4 }}) {{ n }}\n{% endfor %}", '<ol start="5"><li>x</li></ol>'),
        ("{% for n in 'xy' %}1. {{ n }}\n{% endfor %}", "<ol><li>x</li><li>y</li></ol>"),
        (
            "{% for n in 'xy' %}\n- {{ n }}\n{% for m in [1, 2] %}\n  1. {{ m }}\n{% endfor %}\n{% endfor %}\n",
            "<ul><li>x<ol><li>1</li><li>2</li></ol></li><li>y<ol><li>1</li><li>2</li></ol></li></ul>",
        ),
        (
            "- a\n{% if name %}\n  - {{ name }}\n{% endif %}\n- b\n",
            "<ul><li>a<ul><li>Ann</li></ul></li><li>b</li></ul>",
        ),
        ("- a\n{% if not name %}\n  - {{ name }}\n{% endif %}\n- b\n", "<ul><li>a</li><li>b</li></ul>"),
    ],
)
async def test_lists_in_loops_go_on(tmp_path: Path, source: str, html: str) -> None:
    assert html in part(await compose(tmp_path, source), "html").replace("\n", "")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% for n in 'xyz' %}\n1. {{ n }}\n{% endfor %}\n", "1. x\n2. y\n3. z\n"),
        ("3. a\n{% for n in 'xy' %}\n3. {{ n }}\n{% endfor %}\n\nText\n\n1. b\n", "3. a\n4. x\n5. y\n\nText\n\n1. b\n"),
        (
            "{% for n in 'xy' %}\n1. {{ n }}\n   1. a\n   1. b\n{% endfor %}",
            "1. x\n   1. a\n   2. b\n2. y\n   1. a\n   2. b\n",
        ),
        ("{% if name %}\n```\n1. a\n1. b\n```\n{% endif %}\n", "```\n1. a\n1. b\n```\n"),
        ("Hello\n{% if name %}\n{{ name }}\n{% endif %}\nBye\n", "Hello\n\nAnn\n\nBye\n"),
        ("| a |\n|:-:|\n{% for n in 'xy' %}\n| {{ n }} |\n{% endfor %}\n", "| a |\n|:-:|\n| x |\n| y |\n"),
        (
            "![our logo](./logo.png) ![](logo.png)![web](https://example.org/a.png)",
            "[our logo] ![web](https://example.org/a.png)\n",
        ),
    ],
)
async def test_the_text_has_the_same_numbers_and_rows(tmp_path: Path, source: str, text: str) -> None:
    """Lines that had nothing but statements do not tear tables and lists apart."""
    (tmp_path / "logo.png").write_bytes(PNG)
    assert part(await compose(tmp_path, source), "plain") == text


async def test_tables_keep_the_alignment_of_their_columns(tmp_path: Path) -> None:
    """In a style attribute, which every mail program obeys, also for rows of a loop and where one is left out."""
    row = "{% if n > 1 %}\n| {{ n }} | {{ name }} | | |\n{% endif %}\n"
    source = "| a | b | c | d |\n|:--|:-:|--:|---|\n{% for n in [1, 2] %}\n" + row + "{% endfor %}\n"
    html = part(await compose(tmp_path, source, "a|b"), "html")
    assert html.count("text-align:left") == html.count("text-align:center") == html.count("text-align:right") == 2
    assert '<td style="text-align:center">a|b</td>' in html
    assert '<td style="text-align:left">2</td>' in html


async def test_images_are_attached_inline_and_shown(tmp_path: Path) -> None:
    """Once, however their path is written; also those in lists, links and loops; those of the web stay there."""
    (tmp_path / "logo.png").write_bytes(PNG)
    (tmp_path / "my pic.png").write_bytes(PNG + b"2")
    source = (
        "![logo](logo.png)\n\n{% for n in [1, 2] %}\n"
        "- [![again](./logo.png)](https://example.org) {{ n }}\n{% endfor %}\n\n"
        '![pic](<my pic.png> "title") ![web](https://example.org/x.png)\n'
    )
    message = await compose(tmp_path, source)
    html = part(message, "html")
    assert html.count('src="cid:logo.png"') == 3
    assert html.count('src="https://example.org/x.png"') == 1
    images = [each for each in message.walk() if each.get_content_type() == "image/png"]
    assert [each["Content-ID"] for each in images] == ["<logo.png>", "<my-pic.png>"]
    assert {each.get_content_disposition() for each in images} == {"inline"}
    assert [each.get_payload(decode=True) for each in images] == [PNG, PNG + b"2"]
