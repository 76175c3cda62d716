"""One part of a message made from another: HTML from Markdown, text from HTML, styles inlined into the elements.

The rendered text is converted, not the template: see `placeholders`. So a condition or a loop may stand anywhere. A
conversion takes milliseconds (8 KB of Markdown: 13), so its result is kept for each skeleton.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from jinja2 import nodes

from asyncsmtp.errors import MessageError, MissingDependency, SMTPError, TemplateError
from asyncsmtp.mail.conversion.images import ImagePaths
from asyncsmtp.mail.conversion.placeholders import (
    LINE,
    REGION,
    VALUES,
    MarkupLanguage,
    PlacedValues,
    PlaceholderEnvironment,
    PlaceholderWords,
)
from asyncsmtp.mail.headers import UnencodableCharacter
from asyncsmtp.mail.mime import ConvertingPart, Entity, Piece, RowValues, join_small_pieces
from asyncsmtp.mail.templates.environment import TemplateEnvironment, TemplateLoader
from asyncsmtp.mail.templates.slotted_text import (
    CompiledTemplate,
    Slot,
    SlottedText,
    is_indivisible,
    make_slot,
    text_part,
    top_level,
)
from asyncsmtp.mail.templates.variables import (
    Columns,
    as_template_error,
    check_names,
    is_row_dependent,
    parse,
    suggest_spelling,
)
from asyncsmtp.protocol.content import has_leading_dots
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Conversion", "ConvertedPart", "html_to_text", "inline_styles", "markdown_to_html"]

MAX_SKELETON = 1 << 20  # characters: a cell must not decide how long a conversion takes
MAX_VARIANTS = 256  # skeletons of one part whose conversion is kept
MAX_VARIANT_BYTES = 16 << 20  # of all of them

_TO_TEXT, _TO_STYLES = "making a text of HTML", "inlining style sheets"
_PAGE = '<!doctype html>\n<html>\n<head><meta charset="utf-8"></head>\n<body>\n{}</body>\n</html>\n'
_TABLE = re.compile(r"\s*(?:\|\s*)?:?-+:?\s*(?:\|\s*:?-+:?\s*)*(?:\|\s*)?")
_ITEM = re.compile(r"\s*(?:[-+*]|\d{1,9}[.)])(?:\s|$)")
_ELEMENT = re.compile(r"\s*</?[a-z][a-z0-9]*[\s/>]", re.IGNORECASE)
_NUMBERED = re.compile(r"\s*(\d{1,9})([.)])(?=\s)")
_FENCE = re.compile(r" {0,3}(```|~~~)")
_IMAGE = re.compile(r"!\[([^\]\n]{0,1000})\]\((?![a-z][a-z0-9+.-]*:|//|[/#])[^()\n]*\)", re.IGNORECASE)
_BETWEEN_CELLS = (
    r"(?i:<(?:table|thead|tbody|tfoot|tr|/td|/th|/tr|/thead|/tbody|/tfoot|/caption)\b[^>]*>(?:\s|<!--.*?-->)*)"
)


def markdown_to_html(source: str, page: str = _PAGE) -> str:
    """Return a page made from Markdown (CommonMark with tables and strikethrough).

    Args:
        page: the HTML around it, with `{}` for it; `"{}"` for a part of a page.
    """
    from markdown_it import MarkdownIt  # late: most campaigns have no Markdown, and it is a tenth of a start

    return page.format(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(source))


def html_to_text(source: str) -> str:
    """Return a text made from HTML: paragraphs, lists, tables; links with their addresses, images by their `alt`.

    Raises:
        MissingDependency: the extra `html` is missing.
    """
    settings = _import_extra(_TO_TEXT, "inscriptis.model.config").ParserConfig(display_links=True, display_images=True)
    made: str = _import_extra(_TO_TEXT, "inscriptis").get_text(source, settings)
    return "\n".join(line.rstrip() for line in made.splitlines()).strip() + "\n"


def inline_styles(source: str) -> str:
    """Return HTML with the rules of its `<style>` in the elements, for mail programs that ignore style sheets.

    Rules that have no place there, such as those for small screens, stay in a `<style>`.

    Raises:
        MissingDependency: the extra `html` is missing.
    """
    css_inline = _import_extra(_TO_STYLES, "css_inline")
    inliner = css_inline.CSSInliner(load_remote_stylesheets=False, keep_at_rules=True)
    inlined: str = inliner.inline(source)
    return inlined


@dataclass(frozen=True, slots=True)
class Conversion:
    """The conversions that one part of a message needs.

    Attributes:
        markup: the markup language of the template.
        styles: whether style sheets are inlined.
        images: paths of images that become `cid:` URLs in HTML made from Markdown.
    """

    markup: MarkupLanguage
    styles: bool = False
    images: ImagePaths | None = None

    def compile(self, subtype: str, source: str, file: str, columns: Columns, load: TemplateLoader | None) -> Entity:
        """Compile the template of a part; see `ConvertedPart` for the arguments and errors."""
        part = ConvertedPart(self, subtype, source, file, columns, load)
        with as_template_error(file):
            return part.constant() or (part,)


class ConvertedPart(ConvertingPart):
    """A text part whose template is rendered, converted, and filled with the values of a recipient.

    Its pieces include its header fields. The conversion of each skeleton is kept, up to MAX_VARIANTS and
    MAX_VARIANT_BYTES; the ones that were not used for the longest time go first. A pending conversion may run in a
    thread while the part is used in another: it only adds to what is kept.

    Args:
        subtype: `html`, or `plain`: the text of HTML, and Markdown as it is written, with numbered lists.
    Raises:
        TemplateError: with the file and the line. MissingDependency: the extra `html` is missing.
    """

    def __init__(
        self,
        conversion: Conversion,
        subtype: str,
        source: str,
        file: str,
        columns: Columns,
        load: TemplateLoader | None,
    ) -> None:
        if subtype != "plain" and conversion.styles:
            _import_extra(_TO_STYLES, "css_inline")
        self._conversion = conversion
        self._subtype = subtype
        self._file = file
        self._variants: OrderedDict[tuple[str, ...], _Variant] = OrderedDict()
        self._last: tuple[RowValues, tuple[str, ...], PlacedValues] | None = None
        plain = columns.environment(autoescape=subtype == "html", load=load)
        with suggest_spelling(source, file, columns):
            tree = parse(source, file, plain)
            files = check_names(tree, file, columns, plain)[1:]
        environment = PlaceholderEnvironment(
            autoescape=subtype == "html",
            load=load,
            root=file,
            markup=conversion.markup,
            files=files,
            columns=columns,
            delimiters=columns.delimiters,
        )
        if subtype == "plain" and environment.has_html:
            _import_extra(_TO_TEXT, "inscriptis")
        tree = parse(source, file, environment)
        self._slots: list[str | Slot] = []  # values that are printed outside of any statement, one for each placeholder
        self._lines: list[tuple[str, int]] = []
        self._pieces: list[str | CompiledTemplate] = []
        for node in [tree] if is_indivisible(tree) else top_level(tree):
            if isinstance(node, nodes.TemplateData):
                self._pieces.append(node.data)
            elif isinstance(node, nodes.Expr):
                self._pieces.append(f"\0{len(self._slots)}\0")
                self._slots.append(make_slot(node, tree, file, columns, plain))
                self._lines.append((file, node.lineno))
            else:
                self._pieces.append(self._rendering(node, environment))
        self._statements = [piece for piece in self._pieces if not isinstance(piece, str)]

    def constant(self) -> Entity | None:
        """Return the entity if every recipient has the same skeleton."""
        return None if self._statements else self._converted(self._skeleton(()), self._lines).pieces

    def pieces(self, values: RowValues) -> tuple[Sequence[Piece], bool]:
        key, placed = self._render(values)
        variant = self._variants.get(key)
        if variant is None:
            variant = self._convert(key, placed.lines)
        else:
            try:  # noqa: SIM105 - this way it costs nothing
                self._variants.move_to_end(key)
            except KeyError:  # a thread that converts another one has just dropped it
                pass
        values.placed_values = placed.texts
        return variant.pieces, variant.needs_dot_stuffing

    def pending_conversion(self, values: RowValues) -> Callable[[], object] | None:
        key, placed = rendered = self._render(values)
        self._last = (values, *rendered)
        return None if key in self._variants else partial(self._convert, key, placed.lines)

    def _rendering(self, node: nodes.Node, environment: TemplateEnvironment) -> CompiledTemplate:
        part = node if isinstance(node, nodes.Template) else nodes.Template([node], lineno=1)
        part.set_environment(environment)
        depends = is_row_dependent(part)  # before it is compiled, which changes it
        rendering = CompiledTemplate(part, self._file, environment)
        if not depends:
            rendering.render_constant({VALUES: PlacedValues()})  # what fails here fails in every row
        return rendering

    def _render(self, values: RowValues) -> tuple[tuple[str, ...], PlacedValues]:
        """Return what the statements render to for a row, and the values in it; see `pending_conversion`."""
        if self._last is not None and self._last[0] is values:
            return self._last[1:]
        if "\0" in "".join(values.fields.values()):  # it would look like a placeholder
            raise UnencodableCharacter("a NUL is not allowed in a text", "\0", self._file)
        placed = PlacedValues(len(self._slots))
        values.variables[VALUES] = placed
        return tuple([statement(values) for statement in self._statements]), placed

    def _skeleton(self, key: tuple[str, ...]) -> str:
        rendered = iter(key)
        return "".join([piece if isinstance(piece, str) else next(rendered) for piece in self._pieces])

    def _convert(self, key: tuple[str, ...], lines: list[tuple[str, int]]) -> _Variant:
        if (variant := self._variants.get(key)) is not None:
            return variant
        try:
            variant = self._converted(self._skeleton(key), self._lines + lines)
        except TemplateError as error:
            raise MessageError(f"line {error.line}: {error.why}", error.file) from error
        self._variants[key] = variant
        sizes = [each.size for each in list(self._variants.values())]
        total = sum(sizes)
        while len(sizes) > MAX_VARIANTS or (total > MAX_VARIANT_BYTES and len(sizes) > 1):
            total -= sizes.pop(0)
            self._variants.popitem(last=False)
        return variant

    def _converted(self, skeleton: str, lines: list[tuple[str, int]]) -> _Variant:
        if len(skeleton) > MAX_SKELETON:
            raise MessageError(f"more than {MAX_SKELETON >> 20} MiB of text to convert", self._file)
        try:
            made = self._convert_skeleton(skeleton, lines)
        except SMTPError:
            raise
        except Exception as error:  # whatever a library makes of HTML that it cannot read
            why = safe_text(str(error) or type(error).__name__, 200)
            raise MessageError(f"it cannot be converted: {why}", self._file) from error
        text = SlottedText(piece if isinstance(piece, str) else self._slot(piece) for piece in made)
        size = len(skeleton) + sum(len(piece) for piece in text.pieces if isinstance(piece, str))
        pieces = join_small_pieces(text_part(self._subtype, text, self._file))
        return _Variant(pieces, any(has_leading_dots(piece) for piece in pieces if isinstance(piece, bytes)), size)

    def _convert_skeleton(self, skeleton: str, lines: list[tuple[str, int]]) -> list[str | int]:
        """Return literals and the numbers of values; `lines` has the file and line of each value."""
        words = PlaceholderWords(skeleton)
        root = _Region.parse(words.text, self._conversion.markup)
        if self._subtype == "plain":
            return words.split(root.to_text(words).lstrip("\n"))
        html = root.to_page(words)
        if self._conversion.images is not None:
            html = self._conversion.images.replace(html, add=False)
        if self._conversion.styles:
            if (between := words.first_after(_BETWEEN_CELLS, html)) is not None:
                why = "a value stands where inlining styles would move it out of the table: write it into a cell"
                raise TemplateError(why, *lines[between])
            html = words.without_empty_values(inline_styles(html))
        return words.split(html)

    def _slot(self, index: int) -> str | Slot:
        if index < len(self._slots):
            return self._slots[index]
        index -= len(self._slots)
        return lambda values: values.placed_values[index]


@dataclass(frozen=True, slots=True)
class _Variant:
    """The conversion of one skeleton: the pieces of a part, and about how many bytes they take."""

    pieces: tuple[Piece, ...]
    needs_dot_stuffing: bool
    size: int


@dataclass(frozen=True, slots=True)
class _Region:
    """Text of files in one markup language, with the text of files in the other that they include or are in."""

    markup: MarkupLanguage
    pieces: list[str | _Region]

    @classmethod
    def parse(cls, text: str, markup: MarkupLanguage) -> _Region:
        """Find the regions of a skeleton; text of the same language joins the text around it."""
        root = cls(markup, [])
        open_ = [root]
        for index, piece in enumerate(REGION.split(text)):
            if not index % 2:
                open_[-1].pieces.append(piece)
            elif piece == "e":
                open_ = open_[:-1] or [root]
            elif piece == open_[-1].markup:
                open_.append(open_[-1])
            else:
                inner = cls(MarkupLanguage(piece), [])
                open_[-1].pieces.append(inner)
                open_.append(inner)
        return root

    def to_page(self, words: PlaceholderWords) -> str:
        """Return the HTML of a part: a page around Markdown, unless its files have one."""
        texts = [each.replace(LINE, "") for each in self.pieces if isinstance(each, str)]
        return self._html(words, _PAGE if "".join(texts).strip() else "{}")

    def to_text(self, words: PlaceholderWords) -> str:
        """Return the plain text: Markdown, the text of HTML in it; or the text of the whole HTML."""
        if self.markup is MarkupLanguage.HTML:
            return html_to_text(self.to_page(words))
        source = "".join(each if isinstance(each, str) else each._text(words) for each in self.pieces)
        return _IMAGE.sub(_show_alternative, _number_items(_without_marks(source)))

    def _text(self, words: PlaceholderWords) -> str:
        hidden = [each if isinstance(each, str) else words.hide(each.to_text(words)) for each in self.pieces]
        return words.show(html_to_text("".join(hidden)))

    def _html(self, words: PlaceholderWords, page: str = "{}") -> str:
        if self.markup is MarkupLanguage.HTML:
            return "".join(each if isinstance(each, str) else each._html(words) for each in self.pieces)
        source = "".join(each if isinstance(each, str) else words.hide(each._html(words)) for each in self.pieces)
        return words.show(words.with_autolinks(_without_marks(source), lambda text: markdown_to_html(text, page)))


def _without_marks(source: str) -> str:
    """Take away the lines that had nothing but statements.

    Such a line parts paragraphs, as an empty one does. Between the rows of a table, the items of a list and the lines
    of an HTML block it is no line at all.
    """
    if LINE not in source:
        return source
    lines: list[str] = []
    pending = in_table = in_list = False
    for marked in source.split("\n"):
        line = marked.replace(LINE, "")
        if line != marked and not line.strip():
            pending = True
            continue
        in_html = bool(lines) and _ELEMENT.match(lines[-1]) is not None and _ELEMENT.match(line) is not None
        if pending and not ((in_table and "|" in line) or (in_list and _ITEM.match(line)) or in_html):
            if line.strip() and lines and lines[-1].strip():
                lines.append("")
            in_table = in_list = False
        pending = False
        lines.append(line)
        if not line.strip():
            in_table = in_list = False
        in_table = in_table or ("|" in line and _TABLE.fullmatch(line) is not None)
        in_list = in_list or _ITEM.match(line) is not None
    return "\n".join([*lines, ""] if pending else lines)


def _number_items(source: str) -> str:
    """Number the items of lists as HTML does: each one more than the one before it, whatever is written."""
    lines, numbers, fence = source.split("\n"), dict[int, tuple[int, str]](), ""
    for place, line in enumerate(lines):
        if found := _FENCE.match(line):
            fence = "" if fence and line.strip().startswith(fence) else fence or found[1]
        indent = len(line) - len(line.lstrip())
        item = None if fence else _NUMBERED.match(line)
        if line.strip():  # what is further left, or no item, ends the lists that were begun there
            numbers = {left: last for left, last in numbers.items() if left < indent or (left == indent and item)}
        if item is not None:
            last, mark = numbers.get(indent, (int(item[1]) - 1, item[2]))
            number = last + 1 if mark == item[2] else int(item[1])
            numbers[indent] = number, item[2]
            lines[place] = f"{line[:indent]}{number}{line[item.end(1) :]}"
    return "\n".join(lines)


def _show_alternative(image: re.Match[str]) -> str:
    """Return what a text shows of an image that is attached."""
    return f"[{image[1]}]" if image[1] else ""


def _import_extra(purpose: str, name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise MissingDependency(purpose, "asyncsmtp[html]") from None
