"""One part of a message made from another, before anything is known of the recipients: once for a campaign.

What is made are templates again: the tags of Jinja2 stand in them as they did in the source.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module

from asyncsmtp.errors import MissingDependency, TemplateError
from asyncsmtp.mail.converting.around import first_moved
from asyncsmtp.mail.converting.enclosing import check_enclosed
from asyncsmtp.mail.converting.protecting import Protected
from asyncsmtp.mail.converting.rows import Rows

__all__ = ["html_from_markdown", "styles_inlined", "text_from_html"]

_PAGE = '<!doctype html>\n<html>\n<head><meta charset="utf-8"></head>\n<body>\n{}</body>\n</html>\n'


def html_from_markdown(source: str, page: str = _PAGE) -> str:
    """A page from Markdown (CommonMark, and tables); the Markdown itself is a good text part.

    A cell is a value in it, as in every HTML template: neither Markdown nor HTML in a cell means anything. A statement
    (`{% if vip %}`) on a line of its own parts paragraphs, as an empty line does; it cannot stand between the rows of a
    table: write such a table in HTML. `<{{ url }}>` is a link, as `<https://example.org>` is.

    Args:
        page: what is around it, with `{}` for it; `"{}"` for a part of a page.
    """
    from markdown_it import MarkdownIt  # most campaigns have none: a tenth of what a start takes

    protected = Protected(source)
    markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    source, schemeless = _with_autolinks(protected)
    lines = [f"\n{line}\n" if protected.is_only_statements(line) else line for line in source.split("\n")]
    tokens = markdown.parse("\n".join(lines))
    for opening, inline, closing in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if opening.type == "paragraph_open" and protected.is_only_statements(inline.content):
            opening.hidden = closing.hidden = True  # {% if … %} on a line of its own is no paragraph
    return protected.restored(schemeless(page.format(markdown.renderer.render(tokens, markdown.options, {}))))


def _with_autolinks(protected: Protected) -> tuple[str, Callable[[str], str]]:
    """The text in which `<{{ url }}>` is an autolink, by a scheme that its word lacks; and what takes it out again."""
    linked: list[str] = []

    def with_scheme(found: re.Match[str]) -> str:
        if not protected.tags[int(found[2])].startswith("{{"):
            return found[0]
        linked.append(found[1])
        return f"<{found[1]}:{found[3]}>"

    text = re.sub(rf"<({protected.word.pattern})([^\s<>]*)>", with_scheme, protected.text)
    schemes = re.compile(rf"({'|'.join(linked) or '(?!)'}):")
    return text, lambda made: schemes.sub(r"\1", made)


def text_from_html(source: str, file: str = "html") -> str:
    """A text to read from HTML: paragraphs, lists, tables; links with their addresses, images by their alt.

    A condition holds in the text what it holds in the HTML, whether it stands in a paragraph or around rows of a table.

    Raises:
        MissingDependency: what does it is optional, and not there.
        TemplateError: a condition would be lost, or would hold something else.
    """
    try:
        inscriptis = import_module("inscriptis")
        config = import_module("inscriptis.model.config")
    except ImportError:
        raise MissingDependency("making a text of HTML", "asyncsmtp[html]") from None
    protected = Protected(source)
    rows = Rows(protected, file)
    settings = config.ParserConfig(display_links=True, display_images=True)
    check_enclosed(protected, rows.text, lambda html: str(inscriptis.get_text(html, settings)), file)
    made: str = inscriptis.get_text(rows.text, settings)
    text = "\n".join(line.rstrip() for line in made.splitlines()).strip() + "\n"
    return protected.restored(rows.taken_out(text))


def styles_inlined(source: str, file: str = "html") -> str:
    """The same HTML with the rules of its `<style>` in the elements, for mail programs that know no style sheets.

    Rules that have no place there, such as those for small screens, stay in a `<style>`. A loop over the rows of a
    table wants a `<tbody>` around it, as one is put there otherwise.

    Raises:
        MissingDependency: what does it is optional, and not there.
        TemplateError: a part of the template would be lost.
    """
    try:
        css_inline = import_module("css_inline")
    except ImportError:
        raise MissingDependency("inlining style sheets", "asyncsmtp[html]") from None
    protected = Protected(source, statements_as_comments=True)
    inliner = css_inline.CSSInliner(load_remote_stylesheets=False, keep_at_rules=True)
    inlined: str = inliner.inline(protected.text)
    if (lost := protected.lost(inlined)) is not None:
        why = "stands where inlining styles would lose or move it"
        raise TemplateError(
            f"{protected.tags[lost]} {why}: move it out of the style sheet, or into a cell of the table",
            file,
            protected.line(lost),
        )
    if (moved := first_moved(protected, inlined)) is not None:
        why = "is around attributes that inlining styles would write elsewhere"
        raise TemplateError(
            f'{protected.tags[moved]} {why}: write it into the value, class="{{% if … %}}big{{% endif %}}"',
            file,
            protected.line(moved),
        )
    return protected.restored(inlined)
