"""Placeholders for the values of a template, so that the rendered text can be converted before they are known.

A template is rendered with a placeholder in place of each value; the result is called its skeleton. Conditions, loops
and filters work with the true values. All recipients for whom the same branches are taken share one skeleton.

In a skeleton each placeholder is a number between two NUL characters, which neither a template nor a cell can contain.
While a library converts the skeleton, each placeholder is a word of letters and digits, which passes through text,
URLs, attributes and style sheets unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from hashlib import blake2b
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from jinja2 import TemplateSyntaxError, nodes, pass_context
from jinja2.runtime import Context
from jinja2.visitor import NodeTransformer
from markupsafe import escape

from asyncsmtp.mail.templates.environment import (
    DELIMITERS,
    MAX_OUTPUT,
    Delimiters,
    StepCodeGenerator,
    TemplateEnvironment,
    TemplateLoader,
    count_calls,
)

if TYPE_CHECKING:
    from asyncsmtp.mail.templates.column_formats import FormattedColumns

__all__ = ["LINE", "REGION", "VALUES", "MarkupLanguage", "PlacedValues", "PlaceholderEnvironment", "PlaceholderWords"]

VALUES = " values"  # the variable that holds the PlacedValues; a name with a space cannot be written in a template
LINE = "\0s\0"  # before a statement that begins a line of Markdown
REGION = re.compile("\0([mhe])\0")  # the text of one file begins (Markdown, HTML) or ends
_CAPTURES = (nodes.Macro, nodes.AssignBlock, nodes.CallBlock, nodes.FilterBlock, nodes.Block)
_CAPTURED = "\0c\0"  # begins the text of a macro or a block: literals with placeholders, not a value
_MARK = re.compile("\0(?:(\\d+)|[a-z])\0")
_PLACE, _NUMBER, _RESOLVE = "place value", "place number", "resolve placeholders"  # no template can name them
_LINE_BEGINS = re.compile(r"(?:\A|\n)[^\S\n]*\Z")
_NUMBER_ENDS = re.compile(r"[.)][^\S\n]")
_FILTERED = "_filtered"  # the name under which a text is kept for the filter over it


class MarkupLanguage(StrEnum):
    """Markup languages that a template can be written in."""

    MARKDOWN = "m"
    HTML = "h"


_MARKUP_BY_SUFFIX = {
    ".md": MarkupLanguage.MARKDOWN,
    ".markdown": MarkupLanguage.MARKDOWN,
    ".htm": MarkupLanguage.HTML,
    ".html": MarkupLanguage.HTML,
}


class PlacedValues:
    """The values of one rendering, encoded for the text that they go into, with the file and line of each.

    `first` is the number of the first placeholder, `size` the characters of all values.
    """

    __slots__ = ("first", "lines", "size", "texts")

    def __init__(self, first: int = 0) -> None:
        self.first = first
        self.size = 0
        self.texts: list[str] = []
        self.lines: list[tuple[str, int]] = []

    def resolve(self, text: str) -> str:
        """Return a captured text with the values in it."""
        return _MARK.sub(lambda found: self.texts[int(found[1]) - self.first] if found[1] else "", text)


class _CodeGenerator(StepCodeGenerator):
    """A code generator that does not escape placeholders once more, as Jinja2 would."""

    def _output_child_pre(self, node: nodes.Expr, frame: Any, finalize: Any) -> None:
        if not _is_placed(node):
            super()._output_child_pre(node, frame, finalize)

    def _output_child_post(self, node: nodes.Expr, frame: Any, finalize: Any) -> None:
        if not _is_placed(node):
            super()._output_child_post(node, frame, finalize)


def _is_placed(node: nodes.Expr) -> bool:
    return isinstance(node, nodes.Filter) and node.name in (_PLACE, _NUMBER)


class PlaceholderEnvironment(TemplateEnvironment):
    """Sandbox in which the template of one part renders to skeletons.

    Args:
        root: the name of the template; `files` are those that it loads.
        markup: the markup language of the template, and of files whose name does not tell it.
    """

    code_generator_class = _CodeGenerator

    def __init__(
        self,
        *,
        autoescape: bool,
        load: TemplateLoader | None,
        root: str,
        markup: MarkupLanguage,
        files: Sequence[str],
        columns: FormattedColumns | None = None,
        delimiters: Delimiters = DELIMITERS,
    ) -> None:
        super().__init__(autoescape=autoescape, load=load, columns=columns, delimiters=delimiters)
        starts = "|".join(map(re.escape, (self.block_start_string, self.comment_start_string)))
        self._statement_line = re.compile(rf"^(?=[^\S\n]*(?:{starts})(?!-))", re.MULTILINE)
        self._root = root
        self._markup = markup
        self._loads = bool(files)
        self._is_mixed = any(self._detect_markup(file) is not markup for file in files)
        self.has_html = self._is_mixed or markup is MarkupLanguage.HTML
        for name, filter_ in ((_PLACE, _place), (_NUMBER, _place_number), (_RESOLVE, _resolve)):
            self.filters[name] = count_calls(self.counter, filter_)

    def preprocess(self, source: str, name: str | None = None, filename: str | None = None) -> str:
        if "\0" in source:
            line = source.count("\n", 0, source.index("\0")) + 1
            raise TemplateSyntaxError("a NUL is not allowed in a text", line, name, filename)
        source = super().preprocess(source, name, filename)
        if self._detect_markup(name) is MarkupLanguage.MARKDOWN:
            source = self._statement_line.sub(LINE, source)
            if name != self._root:  # the tag that includes it stands on a line that ends
                source = source.removesuffix("\n")
        return source

    def _generate(
        self, source: nodes.Template, name: str | None, filename: str | None, defer_init: bool = False
    ) -> str:
        captures = self._loads or next(source.find_all(_CAPTURES), None) is not None
        _PlaceholderTransformer(name or "", captures).visit(source)
        if self._is_mixed:
            self._mark_regions(source, self._detect_markup(name))
        return super()._generate(source, name, filename, defer_init)

    def _detect_markup(self, name: str | None) -> MarkupLanguage:
        if name is None or name == self._root:
            return self._markup
        return _MARKUP_BY_SUFFIX.get(PurePosixPath(name).suffix.lower(), self._markup)

    def _mark_regions(self, tree: nodes.Template, markup: MarkupLanguage) -> None:
        """Mark the text of one file: its blocks, which may stand in another file, and the rest if it is rendered."""
        bodies = [block.body for block in tree.find_all(nodes.Block)]
        if tree.find(nodes.Extends) is None:
            bodies.append(tree.body)
        for body in bodies:
            body.insert(0, _literal(f"\0{markup}\0"))
            body.append(_literal("\0e\0"))


def _literal(text: str) -> nodes.Output:
    return nodes.Output([nodes.TemplateData(text)])


class _PlaceholderTransformer(NodeTransformer):
    """Rewrites a syntax tree: each value that is printed is placed.

    The text that a macro, a `set` block or `super()` returns is part of the skeleton when it is printed, passed on or
    kept under a name. Everything that looks into it (a filter, a test, an operator) is given the true text.
    """

    def __init__(self, file: str, captures: bool) -> None:
        self._file = file
        self._captures = captures

    def visit(self, node: nodes.Node) -> Any:
        match node:
            case nodes.Output():
                numbers = _find_item_numbers(node.nodes)
                node.nodes = [
                    each if isinstance(each, nodes.TemplateData) else self._place(each, is_number=place in numbers)
                    for place, each in enumerate(node.nodes)
                ]
            case nodes.FilterBlock() | nodes.AssignBlock(filter=nodes.Filter()):
                return self._filtered(node)
            case nodes.AssignBlock() | nodes.Macro() | nodes.Block():
                self.generic_visit(node)
                node.body.insert(0, _literal(_CAPTURED))
            case nodes.CallBlock():
                self._pass(node.call)
                scope = self.generic_visit(nodes.Scope(node.body))
                node.body = [_literal(_CAPTURED), *cast(nodes.Scope, scope).body]
            case nodes.Assign():
                node.node = self._pass(cast(nodes.Expr, node.node))
            case nodes.Import() | nodes.FromImport() | nodes.Include():
                node.with_context = True  # else Jinja2 keeps one rendering of it, with the placeholders of one row
            case nodes.Const(value=str(text)) if "\0" in text:
                raise TemplateSyntaxError("a NUL is not allowed in a text", node.lineno, self._file)
            case nodes.Name(ctx="load") | nodes.Call() | nodes.Getattr() | nodes.Getitem() if self._captures:
                return _filter(_RESOLVE, self._pass(cast(nodes.Expr, node)))
            case _:
                return self.generic_visit(node)
        return node

    def _filtered(self, node: nodes.FilterBlock | nodes.AssignBlock) -> list[nodes.Node]:
        """Rewrite a filter over a text: capture the text, then print or keep what the filter makes of it, a value."""
        capture = nodes.AssignBlock(nodes.Name(_FILTERED, "store"), None, node.body, lineno=node.lineno)
        inner = cast(nodes.Filter, node.filter)
        while inner.node is not None:
            inner = cast(nodes.Filter, inner.node)
        inner.node = nodes.Name(_FILTERED, "load", lineno=node.lineno)
        value = cast(nodes.Expr, node.filter)
        target = node.target if isinstance(node, nodes.AssignBlock) else None
        made = nodes.Output([value]) if target is None else nodes.Assign(target, value, lineno=node.lineno)
        return [self.visit(capture), self.visit(made)]

    def _place(self, value: nodes.Expr, *, is_number: bool) -> nodes.Expr:
        return _filter(_NUMBER if is_number else _PLACE, self._pass(value), nodes.Const((self._file, value.lineno)))

    def _pass(self, value: nodes.Expr) -> nodes.Expr:
        """Rewrite an expression whose value is passed on as it is."""
        match value:
            case nodes.Call(node=nodes.Name()):  # a macro
                value.args = [self._pass(each) for each in value.args]
                for keyword in value.kwargs:
                    keyword.value = self._pass(keyword.value)
            case nodes.CondExpr():
                value.test = self.visit(value.test)
                value.expr1 = self._pass(value.expr1)
                value.expr2 = None if value.expr2 is None else self._pass(value.expr2)
            case nodes.Call() | nodes.Getattr() | nodes.Getitem():
                self.generic_visit(value)
            case nodes.Name():
                pass
            case _:
                return cast(nodes.Expr, self.visit(value))
        return value


def _filter(name: str, value: nodes.Expr, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(value, name, list(arguments), [], None, None, lineno=value.lineno)


@pass_context
def _place(context: Context, value: object, line: tuple[str, int]) -> str:
    if isinstance(value, str) and "\0" in value:  # captured: no cell has a NUL, see ConvertedPart
        return value
    text = escape(value) if context.eval_ctx.autoescape else str(value)
    values: PlacedValues = context.parent[VALUES]
    values.size += len(text)
    if values.size > MAX_OUTPUT:  # the limit of Rendering sees placeholders only
        raise OverflowError(f"more than {MAX_OUTPUT >> 20} MiB of text come out of it")
    number = values.first + len(values.texts)
    values.texts.append(text)
    values.lines.append(line)
    return f"\0{number}\0"


def _find_item_numbers(output: Sequence[nodes.Expr]) -> set[int]:
    """Return the places of values that may number an item of a list: `{{ loop.index }}. text`."""
    texts = [each.data if isinstance(each, nodes.TemplateData) else None for each in output]
    return {
        place
        for place, (before, text, after) in enumerate(zip(["", *texts], texts, [*texts[1:], ""], strict=False))
        if text is None and before is not None and _LINE_BEGINS.search(before) and _NUMBER_ENDS.match(after or "")
    }


@pass_context
def _place_number(context: Context, value: object, line: tuple[str, int]) -> str:
    """Return the number of an item as it is, so that the item is one; anything else is placed."""
    if type(value) is int and 0 <= value < 1000:
        return str(value)
    return _place(context, value, line)


@pass_context
def _resolve(context: Context, value: object) -> object:
    if not (isinstance(value, str) and "\0" in value):
        return value
    values: PlacedValues = context.parent[VALUES]
    return type(value)(values.resolve(value))


class PlaceholderWords:
    """Words for the placeholders of one skeleton, while libraries that know nothing of them convert it.

    The words are made from a digest of the skeleton: no text of it can be one, not even when a conversion joins two
    pieces of text or decodes a reference.

    Attributes:
        text: the skeleton with words.
    """

    def __init__(self, skeleton: str) -> None:
        skeleton = skeleton.replace(_CAPTURED, "")
        found, salt = skeleton.lower(), 0
        while (stem := _stem(skeleton, salt)) in found:
            salt += 1
        self._stem = stem
        self._hidden: list[str] = []
        self._word = re.compile(f"{stem}(\\d+)z")
        self.text = re.sub("\0(\\d+)\0", rf"{stem}\1z", skeleton)

    def hide(self, text: str) -> str:
        """Return a word for a text that must not be converted."""
        self._hidden.append(text)
        return f"{self._stem}{len(self._hidden) - 1}y"

    def show(self, html: str) -> str:
        """Put hidden texts back into HTML; a paragraph of nothing else is not one."""
        word = f"{self._stem}\\d+y"
        alone = re.sub(rf"<p>((?:{word}\s*)+)</p>", r"\1", html)
        return re.sub(word, lambda found: self._hidden[int(found[0][len(self._stem) : -1])], alone)

    def with_autolinks(self, markdown: str, convert: Callable[[str], str]) -> str:
        """Convert Markdown in which `<{{ url }}>` is a link: the placeholder has a scheme meanwhile."""
        linked = re.sub(rf"<({self._stem}\d+)z([^\s<>]*)>", r"<\1x:\2>", markdown)
        return re.sub(rf"({self._stem}\d+)x:", r"\1z", convert(linked))

    def without_empty_values(self, html: str) -> str:
        """Take away the empty values that inlining styles gives to attributes that were only a placeholder."""
        source = self.text

        def bare(found: re.Match[str]) -> str:
            return found[0] if f"{found[1]}=" in source else found[1]

        return re.sub(rf'({self._stem}\d+z)=""', bare, html)

    def first_after(self, pattern: str, html: str) -> int | None:
        """Return the first value that stands right behind a match of a pattern."""
        found = re.search(pattern + self._word.pattern, html, re.DOTALL)
        return int(found[1]) if found else None

    def split(self, text: str) -> list[str | int]:
        """Cut a converted text into literals and the numbers of values."""
        return [int(piece) if index % 2 else piece for index, piece in enumerate(self._word.split(text))]


def _stem(skeleton: str, salt: int) -> str:
    digest = blake2b(skeleton.encode("utf-8", "surrogatepass"), digest_size=8, salt=salt.to_bytes(8, "big")).digest()
    left, letters = int.from_bytes(digest, "big"), ""
    for _ in range(6):
        left, letter = divmod(left, 24)
        letters += "abcdefghijklmnopqrstuvwz"[letter]
    return letters
