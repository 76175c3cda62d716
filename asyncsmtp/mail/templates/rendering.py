"""A piece of a template that needs Jinja2 for each recipient."""

from __future__ import annotations

from jinja2 import Template, nodes

from asyncsmtp.errors import MessageError, TemplateError
from asyncsmtp.mail.templates.filling import Filling
from asyncsmtp.mail.templates.names import syntax_of
from asyncsmtp.mail.templates.sandbox import MAX_OUTPUT, Sandbox
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Rendering"]


class Rendering:
    """A compiled condition, loop or expression; called with a filling it gives the text.

    Raises:
        MessageError: when called, the row does not fit: a missing value, a failed calculation, too
            much text; with the file and the line of the template.
    """

    __slots__ = ("_file", "_template")

    def __init__(self, tree: nodes.Template, file: str, sandbox: Sandbox) -> None:
        with syntax_of(file):
            code = sandbox.compile(tree, name=file, filename=file)
        self._file = file
        self._template = Template.from_code(sandbox, code, {})

    def __call__(self, filling: Filling) -> str:
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
