"""A template as literals and slots: what is the same for everyone, and what is filled in.

A template that only substitutes becomes text with holes, each hole a column. What needs Jinja2 for each
recipient (a condition, a loop, a filter) is a hole too, rendered by itself; only a template that sets
names, defines macros or extends another is rendered as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from jinja2 import Template, nodes
from markupsafe import escape

from asyncsmtp.errors import MessageError, TemplateError
from asyncsmtp.mail.mime import RowValues
from asyncsmtp.mail.templates.environment import MAX_OUTPUT, TemplateEnvironment
from asyncsmtp.mail.templates.variables import Columns, check_names, column_of, depends_on_row, parse, syntax_of
from asyncsmtp.protocol.replies import safe_text

__all__ = ["RenderedTemplate", "Slot", "SlottedText", "slots"]


class RenderedTemplate:
    """A compiled condition, loop or expression; called with a filling it gives the text.

    Raises:
        MessageError: when called, the row does not fit: a missing value, a failed calculation, too
            much text; with the file and the line of the template.
    """

    __slots__ = ("_file", "_template")

    def __init__(self, tree: nodes.Template, file: str, sandbox: TemplateEnvironment) -> None:
        with syntax_of(file):
            code = sandbox.compile(tree, name=file, filename=file)
        self._file = file
        self._template = Template.from_code(sandbox, code, {})

    def __call__(self, filling: RowValues) -> str:
        try:
            return self._render(filling.variables)
        except Exception as error:  # whatever an expression of the user's may raise
            raise MessageError(f"line {_line(error)}: {_reason(error)}", self._file) from error

    def once(self) -> str:
        """The text of a piece that no column changes; TemplateError if it fails."""
        try:
            return self._render({})
        except Exception as error:
            raise TemplateError(_reason(error), self._file, _line(error)) from error

    def _render(self, variables: dict[str, object]) -> str:
        pieces, size = [], 0
        for piece in self._template.root_render_func(self._template.new_context(variables, shared=True)):
            size += len(piece)
            if size > MAX_OUTPUT:
                raise OverflowError(f"more than {MAX_OUTPUT >> 20} MiB of text come out of it")
            pieces.append(piece)
        return "".join(pieces)


def _reason(error: Exception) -> str:
    return safe_text(str(error) or type(error).__name__, 200)


def _line(error: Exception) -> int:
    """The line of the template in which it went wrong: the innermost frame that is one of Jinja2's."""
    line, step = 1, error.__traceback__
    while step is not None:
        template = step.tb_frame.f_globals.get("__jinja_template__")
        if isinstance(template, Template):
            line = template.get_corresponding_lineno(step.tb_lineno)
        step = step.tb_next
    return line


Slot = Callable[[RowValues], str]

_BINDS = (
    *(nodes.Assign, nodes.AssignBlock, nodes.Macro, nodes.Import, nodes.FromImport),
    *(nodes.Extends, nodes.Block, nodes.CallBlock),
)


class SlottedText:
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

    def __call__(self, filling: RowValues) -> str:
        return "".join([piece if isinstance(piece, str) else piece(filling) for piece in self.pieces])


def _merged(pieces: Iterable[str | Slot]) -> Iterator[str | Slot]:
    for literal, group in groupby(pieces, lambda piece: isinstance(piece, str)):
        if not literal:
            yield from group
        elif joined := "".join(map(str, group)):
            yield joined


def slots(source: str, file: str, columns: Columns, sandbox: TemplateEnvironment) -> SlottedText:
    """Cut a template into literals and slots.

    Raises:
        TemplateError: bad syntax, or a name that is no column, with the line.
    """
    tree = parse(source, file, sandbox)
    check_names(tree, file, columns, sandbox)
    if next(tree.find_all(_BINDS), None):
        return SlottedText([_constant_or_slot(tree, tree.body, file, sandbox)])
    return SlottedText(_piece(node, tree, file, columns, sandbox) for node in _top_level(tree))


def _top_level(tree: nodes.Template) -> Iterator[nodes.Node]:
    for node in tree.body:
        if isinstance(node, nodes.Output):
            yield from node.nodes
        else:
            yield node


def _piece(
    node: nodes.Node, tree: nodes.Template, file: str, columns: Columns, sandbox: TemplateEnvironment
) -> str | Slot:
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


def _constant_or_slot(
    tree: nodes.Template, body: list[nodes.Node], file: str, sandbox: TemplateEnvironment
) -> str | Slot:
    part = nodes.Template(body, lineno=tree.lineno)
    part.set_environment(sandbox)
    rendering = RenderedTemplate(part, file, sandbox)
    return rendering if depends_on_row(part) else rendering.once()
