"""The names a template uses, held against the columns before anything is sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from jinja2 import TemplateError as JinjaError
from jinja2 import TemplateNotFound, TemplateSyntaxError, nodes
from jinja2.meta import find_undeclared_variables

from asyncsmtp.errors import TemplateError
from asyncsmtp.mail.templates.columns import ROW, Columns
from asyncsmtp.mail.templates.sandbox import Sandbox
from asyncsmtp.protocol.replies import safe_text

__all__ = ["check_names", "column_of", "depends_on_row", "parse", "syntax_of"]

_LOADS = (nodes.Include, nodes.Extends, nodes.Import, nodes.FromImport)
_OF_A_ROW = frozenset({"get", "items", "keys", "values"})  # a mapping's own


@contextmanager
def syntax_of(file: str) -> Iterator[None]:
    """Turn what Jinja2 says of a template's syntax into a TemplateError with its line."""
    try:
        yield
    except TemplateSyntaxError as error:
        raise TemplateError(error.message or "bad syntax", file, error.lineno) from error
    except (JinjaError, RecursionError) as error:
        raise TemplateError(str(error), file) from error


def parse(source: str, file: str, sandbox: Sandbox) -> nodes.Template:
    """The syntax tree; TemplateError if there is none."""
    with syntax_of(file):
        return sandbox.parse(source, name=file, filename=file)


def column_of(node: nodes.Node, columns: Columns) -> str | None:
    """The column, if the expression is nothing but one: `{{ name }}` or `{{ row["Name"] }}`."""
    if isinstance(node, nodes.Name):
        return columns.names.get(node.name)
    key = _key_of_row(node)
    return key if key in columns else None


def depends_on_row(tree: nodes.Template) -> bool:
    """Whether the result may differ between recipients."""
    return bool(find_undeclared_variables(tree)) or next(tree.find_all(_LOADS), None) is not None


def check_names(tree: nodes.Template, file: str, columns: Columns, sandbox: Sandbox) -> None:
    """Look at every name, in included files too.

    Raises:
        TemplateError: the first name that is no column and nothing the templates define, with the
            nearest column; or a file that cannot be included.
    """
    trees = dict(_closure(tree, file, sandbox, ()))
    defined = {name for each in trees.values() for name in _defined(each)}
    for name, each in trees.items():
        _check_file(each, name, columns, defined)


def _closure(
    tree: nodes.Template, file: str, sandbox: Sandbox, path: tuple[str, ...]
) -> Iterator[tuple[str, nodes.Template]]:
    """The template and, in depth, all that it loads."""
    yield file, tree
    for node in tree.find_all(_LOADS):
        name = cast(nodes.Include, node).template
        if not (isinstance(name, nodes.Const) and isinstance(name.value, str)):
            raise TemplateError("only a name between quotation marks can be included", file, node.lineno)
        if name.value in path:
            raise TemplateError(f"“{name.value}” includes itself", file, node.lineno)
        source = _source(name.value, file, node.lineno, sandbox)
        yield from _closure(parse(source, name.value, sandbox), name.value, sandbox, (*path, name.value))


def _source(name: str, file: str, line: int, sandbox: Sandbox) -> str:
    if sandbox.loader is None:
        raise TemplateError(f"“{name}” cannot be included: no folder of templates was given", file, line, name)
    try:
        return sandbox.loader.get_source(sandbox, name)[0]
    except TemplateNotFound as error:
        raise TemplateError(f"“{name}” {_why(error.__cause__)}", file, line, name) from error


def _why(cause: BaseException | None) -> str:
    """What is wrong with a file that cannot be included."""
    if isinstance(cause, UnicodeDecodeError):
        line = cause.object.count(b"\n", 0, cause.start) + 1
        return f"cannot be included: its line {line} is not UTF-8: save it as UTF-8"
    if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, FileNotFoundError):
        why = safe_text(cause.strerror[:1].lower() + cause.strerror[1:])
        return f"cannot be included: {why}: put the file itself into the folder of the template, for you to read"
    return "is not to be found in the folder of the template"


def _defined(tree: nodes.Template) -> Iterator[str]:
    """Names that a template sets for itself and for those it loads or that load it."""
    for assign in tree.find_all((nodes.Assign, nodes.AssignBlock)):
        yield from (name.name for name in assign.find_all(nodes.Name) if name.ctx == "store")
    yield from (macro.name for macro in tree.find_all(nodes.Macro))
    yield from (module.target for module in tree.find_all(nodes.Import))
    for imported in tree.find_all(nodes.FromImport):
        yield from (name if isinstance(name, str) else name[1] for name in imported.names)


def _check_file(tree: nodes.Template, file: str, columns: Columns, defined: set[str]) -> None:
    with syntax_of(file):
        undeclared = find_undeclared_variables(tree)
    unknown = undeclared - columns.names.keys() - defined - {ROW}
    for name in tree.find_all(nodes.Name):
        if name.name in unknown:
            raise TemplateError(
                f"“{name.name}” is no column: {columns.advice(name.name)}", file, name.lineno, name.name
            )
    for node in tree.find_all((nodes.Getitem, nodes.Getattr)):
        key = _key_of_row(node)
        if key is not None and key not in columns and not (isinstance(node, nodes.Getattr) and key in _OF_A_ROW):
            raise TemplateError(f"“{key}” is no column: {columns.advice(key)}", file, node.lineno, key)
    for output in tree.find_all(nodes.Output):
        for shown in output.nodes:
            if isinstance(shown, nodes.Name) and shown.name == ROW and ROW in undeclared:
                raise TemplateError('“row” is all columns: write row["…"] for one', file, shown.lineno, ROW)


def _key_of_row(node: nodes.Node) -> str | None:
    """`x` in `row["x"]` and `row.x`."""
    if not (isinstance(node, nodes.Getitem | nodes.Getattr) and isinstance(node.node, nodes.Name)):
        return None
    if node.node.name != ROW:
        return None
    if isinstance(node, nodes.Getattr):
        return node.attr
    return node.arg.value if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str) else None
