"""Templates split into literals, which are the same for everyone, and slots, which are filled for each row.

A template that only substitutes becomes text with slots, each a column. What Jinja2 must evaluate for each recipient (a
condition, a loop, a filter) is a slot too, rendered by itself. Only a template that sets names, defines macros or
extends another is rendered as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from jinja2 import Template, nodes
from jinja2.runtime import Context
from markupsafe import escape

from asyncsmtp.errors import MessageError, TemplateError
from asyncsmtp.mail.headers import encode_utf8
from asyncsmtp.mail.mime import (
    Entity,
    Piece,
    RowValues,
    SlotEncoder,
    TransferEncoding,
    build_text_entity,
    encode_quoted_printable,
    encode_with_soft_break,
    format_text_headers,
    normalize_line_ends,
)
from asyncsmtp.mail.templates.environment import MAX_OUTPUT, TemplateEnvironment
from asyncsmtp.mail.templates.variables import (
    Columns,
    check_names,
    convert_syntax_errors,
    find_column,
    is_row_dependent,
    parse,
    suggest_spelling,
)
from asyncsmtp.protocol.replies import safe_text

__all__ = [
    "CompiledTemplate",
    "Slot",
    "SlottedText",
    "is_indivisible",
    "make_slot",
    "split_slots",
    "text_part",
    "top_level",
]


class CompiledTemplate:
    """A compiled condition, loop or expression; calling it with the values of a row returns the text.

    Raises:
        MessageError: when called: the row does not fit (a missing value, a failed calculation, too much text); with the
            file and the line of the template.
    """

    __slots__ = ("_blocks", "_environment", "_file", "_root")

    def __init__(self, tree: nodes.Template, file: str, environment: TemplateEnvironment) -> None:
        environment.counter.begin(None)  # filters of constants run now
        with convert_syntax_errors(file):
            code = environment.compile(tree, name=file, filename=file)
        template = Template.from_code(environment, code, {})
        self._environment = environment
        self._file = file
        self._root, self._blocks = template.root_render_func, template.blocks

    def __call__(self, values: RowValues) -> str:
        try:
            if self._environment.counter.row is not values:
                self._environment.counter.begin(values)
            return self._render(values.variables)
        except Exception as error:  # whatever an expression of the user's may raise
            raise MessageError(f"line {_line(error)}: {_reason(error)}", self._file) from error

    def render_constant(self, variables: dict[str, object] | None = None) -> str:
        """Return the text of a piece that no column changes; raise TemplateError if it fails."""
        try:
            self._environment.counter.begin(None)
            return self._render(variables or {})
        except Exception as error:
            raise TemplateError(_reason(error), self._file, _line(error)) from error

    def _render(self, variables: dict[str, object]) -> str:
        counter = self._environment.counter
        pieces, size = [], counter.output
        for piece in self._root(Context(self._environment, variables, self._file, self._blocks)):
            size += len(piece)
            if size > MAX_OUTPUT:
                raise OverflowError(f"more than {MAX_OUTPUT >> 20} MiB of text come out of it")
            pieces.append(piece)
        counter.output = size
        return "".join(pieces)


def _reason(error: Exception) -> str:
    return safe_text(str(error) or type(error).__name__, 200)


def _line(error: Exception) -> int:
    """Return the line of the template at which it failed: the innermost frame that is one of Jinja2's."""
    line, step = 1, error.__traceback__
    while step is not None:
        template = step.tb_frame.f_globals.get("__jinja_template__")
        if isinstance(template, Template):
            line = template.get_corresponding_lineno(step.tb_lineno)
        step = step.tb_next
    return line


Slot = Callable[[RowValues], str]

_BINDING_NODES = (
    *(nodes.Assign, nodes.AssignBlock, nodes.Macro, nodes.Import, nodes.FromImport),
    *(nodes.Extends, nodes.Block, nodes.CallBlock),
)


class SlottedText:
    """A sequence of literals and slots, without two literals side by side."""

    __slots__ = ("pieces",)

    def __init__(self, pieces: Iterable[str | Slot]) -> None:
        self.pieces = tuple(_merge_literals(pieces))

    @property
    def constant(self) -> str | None:
        """The text, if it is the same for every recipient."""
        if not self.pieces:
            return ""
        return self.pieces[0] if len(self.pieces) == 1 and isinstance(self.pieces[0], str) else None

    @property
    def literals(self) -> str:
        """The text that is the same for every recipient."""
        return "".join(piece for piece in self.pieces if isinstance(piece, str))

    def __call__(self, values: RowValues) -> str:
        return "".join([piece if isinstance(piece, str) else piece(values) for piece in self.pieces])


def _merge_literals(pieces: Iterable[str | Slot]) -> Iterator[str | Slot]:
    for literal, group in groupby(pieces, lambda piece: isinstance(piece, str)):
        if not literal:
            yield from group
        elif joined := "".join(map(str, group)):
            yield joined


def split_slots(source: str, file: str, columns: Columns, environment: TemplateEnvironment) -> SlottedText:
    """Split a template into literals and slots.

    Raises:
        TemplateError: a syntax error, or an unknown name, with the line.
    """
    with suggest_spelling(source, file, columns):
        tree = parse(source, file, environment)
        check_names(tree, file, columns, environment)
        if is_indivisible(tree):
            return SlottedText([_constant_or_slot(tree, tree.body, file, environment)])
        return SlottedText(make_slot(node, tree, file, columns, environment) for node in top_level(tree))


def is_indivisible(tree: nodes.Template) -> bool:
    """Return whether the template must be rendered as a whole: one part of it sets names that another part uses."""
    return next(tree.find_all(_BINDING_NODES), None) is not None


def top_level(tree: nodes.Template) -> Iterator[nodes.Node]:
    """Yield literals, expressions and statements, those inside of statements excluded."""
    for node in tree.body:
        if isinstance(node, nodes.Output):
            yield from node.nodes
        else:
            yield node


def make_slot(
    node: nodes.Node, tree: nodes.Template, file: str, columns: Columns, environment: TemplateEnvironment
) -> str | Slot:
    """Compile one of the top level; a string is the same for everyone."""
    if isinstance(node, nodes.TemplateData):
        return node.data
    if (column := find_column(node, columns)) is not None:
        return _make_column_slot(column, escaped=bool(environment.autoescape))
    statement = nodes.Output([node], lineno=node.lineno) if isinstance(node, nodes.Expr) else node
    return _constant_or_slot(tree, [statement], file, environment)


def _make_column_slot(column: str, *, escaped: bool) -> Slot:
    return (lambda values: str(escape(values.field(column)))) if escaped else lambda values: values.field(column)


def _constant_or_slot(
    tree: nodes.Template, body: list[nodes.Node], file: str, environment: TemplateEnvironment
) -> str | Slot:
    part = nodes.Template(body, lineno=tree.lineno)
    part.set_environment(environment)
    rendering = CompiledTemplate(part, file, environment)
    return rendering if is_row_dependent(part) else rendering.render_constant()


MAX_RECODED_LITERAL = 120  # characters beside a slot that are encoded again with it for each row
MIN_BLOCK_LENGTH = 80  # shorter literals are encoded again: cutting them saves nothing


def text_part(subtype: str, text: SlottedText, file: str) -> Entity:
    """Return a text part with slots: quoted-printable around them, or base64 if that is shorter for the literals.

    Args:
        file: the name in the MessageError of a slot encoder whose value cannot be encoded.
    """
    if (constant := text.constant) is not None:
        return build_text_entity(subtype, constant)
    pieces = [normalize_line_ends(piece) if isinstance(piece, str) else piece for piece in text.pieces]
    if not (isinstance(pieces[-1], str) and pieces[-1].endswith("\n")):
        pieces.append("\n")
    text = SlottedText(pieces)
    transfer = TransferEncoding.of_any(text.literals)
    if transfer is TransferEncoding.BASE64:
        return format_text_headers(subtype, transfer), _make_slot_encoder(text, transfer.apply, file)
    return format_text_headers(subtype, transfer), *(_encode_block(block, file) for block in _split_blocks(text.pieces))


def _split_blocks(pieces: Sequence[str | Slot]) -> Iterator[SlottedText]:
    """Split into blocks that are encoded apart, at a line end if one is near.

    A literal is cut near its slots: the middle of it becomes a block that never changes and is encoded once.
    """
    # Quoted-printable breaks lines at 76 bytes, so the length of a value shifts the breaks behind it, up to the next
    # line end. Everything from the beginning of a slot's line to its end must therefore be encoded with the value,
    # for each row; text further away is the same for every row. Where no line end is near, the text is cut after
    # MAX_RECODED_LITERAL characters instead and the part before the cut ends with a soft line break, which the reader
    # removes. Either way the next block begins at the beginning of a line, and blocks can be encoded apart.
    block: list[str | Slot] = []
    for index, piece in enumerate(pieces):
        if not isinstance(piece, str):
            block.append(piece)
            continue
        head, tail, far = 0, len(piece), max(len(piece) - MAX_RECODED_LITERAL, 0)
        if index:  # behind the line of the slot before it
            head = piece.find("\n", 0, MAX_RECODED_LITERAL) + 1 or min(MAX_RECODED_LITERAL, len(piece))
        if index < len(pieces) - 1:  # before the line of the slot behind it
            tail = piece.rfind("\n", far) + 1 or far
        if tail - head < MIN_BLOCK_LENGTH:
            block.append(piece)
            continue
        if block or head:
            yield SlottedText([*block, piece[:head]])
        yield SlottedText([piece[head:tail]])
        block = [piece[tail:]] if piece[tail:] else []
    if block:
        yield SlottedText(block)


def _encode_block(block: SlottedText, file: str) -> Piece:
    last = block.pieces[-1]
    encode = encode_quoted_printable if isinstance(last, str) and last.endswith("\n") else encode_with_soft_break
    if block.constant is not None:
        return encode(encode_utf8(block.literals))
    return _make_slot_encoder(block, lambda text: encode(encode_utf8(text)), file)


def _make_slot_encoder(text: SlottedText, write: Callable[[str], bytes], file: str) -> SlotEncoder:
    def fill(values: RowValues) -> bytes:
        filled = text(values)
        try:
            if len(filled) > MAX_OUTPUT:
                raise MessageError(f"the text has more than {MAX_OUTPUT >> 20} MiB")
            return write(normalize_line_ends(filled))
        except MessageError as error:
            raise MessageError(str(error), file) from error

    return fill
