"""A template as literals and slots: what is the same for everyone, and what is filled in.

A template that only substitutes becomes text with holes, each hole a column. What needs Jinja2 for each
recipient (a condition, a loop, a filter) is a hole too, rendered by itself; only a template that sets
names, defines macros or extends another is rendered as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from jinja2 import nodes
from markupsafe import escape

from asyncsmtp.mail.templates.columns import Columns
from asyncsmtp.mail.templates.filling import Filling
from asyncsmtp.mail.templates.names import check_names, column_of, depends_on_row, parse
from asyncsmtp.mail.templates.rendering import Rendering
from asyncsmtp.mail.templates.sandbox import Sandbox

__all__ = ["Slot", "Text", "slots"]

Slot = Callable[[Filling], str]

_BINDS = (
    *(nodes.Assign, nodes.AssignBlock, nodes.Macro, nodes.Import, nodes.FromImport),
    *(nodes.Extends, nodes.Block, nodes.CallBlock),
)


class Text:
    """Literals and slots in turn, never two literals side by side."""

    __slots__ = ("pieces",)

    def __init__(self, pieces: Iterable[str | Slot]) -> None:
        self.pieces = tuple(_merged(pieces))

    @property
    def constant(self) -> str | None:
        """The text, if it is the same for every recipient."""
        if not self.pieces:
            return ""
        return self.pieces[0] if len(self.pieces) == 1 and isinstance(self.pieces[0], str) else None

    @property
    def literals(self) -> str:
        """All that is the same for every recipient, to judge the text by."""
        return "".join(piece for piece in self.pieces if isinstance(piece, str))

    def __call__(self, filling: Filling) -> str:
        return "".join([piece if isinstance(piece, str) else piece(filling) for piece in self.pieces])


def _merged(pieces: Iterable[str | Slot]) -> Iterator[str | Slot]:
    for literal, group in groupby(pieces, lambda piece: isinstance(piece, str)):
        if not literal:
            yield from group
        elif joined := "".join(map(str, group)):
            yield joined


def slots(source: str, file: str, columns: Columns, sandbox: Sandbox) -> Text:
    """Cut a template into literals and slots.

    Raises:
        TemplateError: bad syntax, or a name that is no column, with the line.
    """
    tree = parse(source, file, sandbox)
    check_names(tree, file, columns, sandbox)
    if next(tree.find_all(_BINDS), None):
        return Text([_constant_or_slot(tree, tree.body, file, sandbox)])
    return Text(_piece(node, tree, file, columns, sandbox) for node in _top_level(tree))


def _top_level(tree: nodes.Template) -> Iterator[nodes.Node]:
    for node in tree.body:
        if isinstance(node, nodes.Output):
            yield from node.nodes
        else:
            yield node


def _piece(node: nodes.Node, tree: nodes.Template, file: str, columns: Columns, sandbox: Sandbox) -> str | Slot:
    if isinstance(node, nodes.TemplateData):
        return node.data
    if (column := column_of(node, columns)) is not None:
        return _escaped_column(column) if sandbox.autoescape else _column(column)
    statement = nodes.Output([node], lineno=node.lineno) if isinstance(node, nodes.Expr) else node
    return _constant_or_slot(tree, [statement], file, sandbox)


def _column(column: str) -> Slot:
    return lambda filling: filling.field(column)


def _escaped_column(column: str) -> Slot:
    return lambda filling: str(escape(filling.field(column)))


def _constant_or_slot(tree: nodes.Template, body: list[nodes.Node], file: str, sandbox: Sandbox) -> str | Slot:
    part = nodes.Template(body, lineno=tree.lineno)
    part.set_environment(sandbox)
    rendering = Rendering(part, file, sandbox)
    return rendering if depends_on_row(part) else rendering.once()
