"""The parts of a campaign's message out of several files, each as what it is in the part that it goes into."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.ended import Command


@pytest.fixture
def folder(campaign: Path) -> Path:
    folder = campaign.parent
    (folder / "foot.html").write_text('<p class="f">Bye, <b>us</b></p><img src="logo.png" alt="L">\n', "utf-8")
    (folder / "foot.md").write_text("**Bye** [x](https://example.org)\n", "utf-8")
    (folder / "base.html").write_text(
        '<html><head><style>.f {color: red}</style></head><body><img src="logo.png" alt="L">'
        "{% block body %}{% endblock %}</body></html>\n",
        "utf-8",
    )
    (folder / "logo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


def previewed(command: Command, folder: Path, message: str, source: str, *more: str) -> dict[str, str]:
    """The parts that are shown, by their types; or what is said instead of them, by nothing."""
    (folder / message).write_text(source, "utf-8")
    lines = ["[campaign]", 'name = "n"', 'from = "n@example.org"', 'subject = "s"', 'recipients = "people.csv"']
    (folder / "parts.toml").write_text("\n".join([*lines, f'html = "{message}"', *more]) + "\n", "utf-8")
    ended = command("preview", folder / "parts.toml")
    if ended.code:
        return {"": ended.err}
    parts = [part.partition("\n") for part in ended.out.split("--- ")[1:]]
    return {head.split(",")[0]: body for head, _, body in parts}


def test_what_html_includes_is_text_in_the_text(command: Command, folder: Path) -> None:
    """Its images go along, and styles reach into it."""
    source = '<style>.f {color: red}</style><p>Hi</p>{% include "foot.html" %}'
    parts = previewed(command, folder, "m.html", source, "text_from_html = true", "inline_styles = true")
    assert parts["text/plain"].split() == ["Hi", "Bye,", "us", "[L]"]
    assert '<p class="f" style="color: red;">Bye' in parts["text/html"]
    assert 'src="cid:logo.png"' in parts["text/html"]
    assert "image/png" in parts


def test_what_html_extends_is_text_in_the_text(command: Command, folder: Path) -> None:
    source = '{% extends "base.html" %}\n{% block body %}<p class="f">Hi {{ name }}</p>{% endblock %}'
    parts = previewed(command, folder, "m.html", source, "text_from_html = true", "inline_styles = true")
    assert parts["text/plain"].split() == ["[L]", "Hi", "Ann"]
    assert '<p class="f" style="color: red;">Hi Ann</p>\n</body>' in parts["text/html"]
    assert 'src="cid:logo.png"' in parts["text/html"]


def test_what_markdown_includes_is_html_in_the_html(command: Command, folder: Path) -> None:
    """Markdown is itself in the text, and HTML is made into text."""
    source = '# Hi\n\n{% include "foot.md" %}\n\n{% include "foot.html" %}\n'
    parts = previewed(command, folder, "m.md", source)
    assert parts["text/plain"].split() == ["#", "Hi", "**Bye**", "[x](https://example.org)", "Bye,", "us", "[L]"]
    assert '<p><strong>Bye</strong> <a href="https://example.org">x</a></p>' in parts["text/html"]
    assert parts["text/html"].count("<body>") == 1
    assert 'src="cid:logo.png"' in parts["text/html"]


def test_markdown_may_stand_in_a_page_of_its_own(command: Command, folder: Path) -> None:
    source = '{% extends "base.html" %}\n{% block body %}\n\n# Hi {{ name }}\n\n{% endblock %}\n'
    parts = previewed(command, folder, "m.md", source)
    assert parts["text/plain"].split() == ["[L]", "#", "Hi", "Ann"]
    assert "<h1>Hi Ann</h1>" in parts["text/html"]
    assert parts["text/html"].count("<body>") == 1


def test_what_html_imports_is_converted(command: Command, folder: Path) -> None:
    """Styles reach into the text of a macro; where nothing is converted, it is as it is written."""
    source = '<p>x</p>{% from "foot.html" import x %}{{ x() }}'
    unused = previewed(command, folder, "m.html", source.removesuffix("{{ x() }}"))
    assert unused["text/html"].rstrip() == "<p>x</p>"
    (folder / "foot.html").write_text("{% macro x() %}y{% endmacro %}", "utf-8")
    assert previewed(command, folder, "m.html", source)["text/html"] == "<p>x</p>y\n"
    (folder / "foot.html").write_text(
        '{% macro x() %}<p class="f">y</p><img src="logo.png" alt="">{% endmacro %}', "utf-8"
    )
    styled = "<style>.f {color: red}</style>" + source
    parts = previewed(command, folder, "m.html", styled, "inline_styles = true", "text_from_html = true")
    assert '<p class="f" style="color: red;">y</p>' in parts["text/html"]
    assert parts["text/plain"].split() == ["x", "y"]
    assert "image/png" in parts


@pytest.mark.parametrize("more", [(), ("text_from_html = true",), ("inline_styles = true",)])
@pytest.mark.parametrize("message", ["m.html", "m.md"])
def test_a_wrong_name_is_on_the_line_on_which_it_was_written(
    command: Command, folder: Path, message: str, more: tuple[str, ...]
) -> None:
    """Whatever is made of the file, whose lines are others."""
    said = previewed(command, folder, message, "Hi\n\n\n\n<p>\n\n\n{{ nmae }}</p>\n", *more)[""]
    assert f"{message}, line 8: “nmae” is not a column" in said


def test_what_goes_wrong_for_a_row_is_on_the_line_of_the_file(command: Command, folder: Path) -> None:
    said = previewed(command, folder, "m.md", "a\n\n\n\n\n{{ 1 // (name|length - 3) }}\n", 'text = "message.txt"')[""]
    assert "m.md: line 6: integer division" in said
