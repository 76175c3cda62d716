"""Names that a template may use: columns and their identifiers, checked before anything is sent."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, cast

from jinja2 import TemplateError as JinjaError
from jinja2 import TemplateNotFound, TemplateSyntaxError, nodes
from jinja2.meta import find_undeclared_variables

from asyncsmtp.errors import MessageError, RecipientError, SMTPError, TemplateError
from asyncsmtp.mail.list_unsubscribe import UNSUBSCRIBE_URL_VARIABLE
from asyncsmtp.mail.templates.environment import DELIMITERS, Delimiters, TemplateEnvironment, TemplateLoader
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.mail.templates.column_formats import ColumnFormats

__all__ = [
    "Columns",
    "as_template_error",
    "build_columns",
    "check_names",
    "convert_syntax_errors",
    "find_column",
    "is_row_dependent",
    "is_variable_name",
    "parse",
    "split_name_and_address",
    "suggest_spelling",
]

ROW_VARIABLE = "row"  # the variable with all columns, whatever their names
ROWS_VARIABLE = "rows"  # the variable with all rows of a mailbox, in a campaign that groups them
_RESERVED = frozenset({ROW_VARIABLE, "self", "super", "loop", "caller", "varargs", "kwargs", "true", "false", "none"})
_NOT_IN_NAME = re.compile(r"\W+")


@cache
def _written_names(delimiters: Delimiters) -> re.Pattern[str]:
    """Return a pattern for what stands between the marks of a value, if it is nothing but a name."""
    start, end = map(re.escape, delimiters.value)
    return re.compile(rf"{start}-?\s*([^{{}}|()\[\]\"'\n]{{1,200}}?)\s*(?:\|[^{{}}\n]{{0,200}}?)?-?{end}")


class Columns:
    """Column names and the identifiers they are reached by: `E-Mail Address` is also `E_Mail_Address`.

    An identifier that two columns would share belongs to neither; `row["…"]` reaches every column.

    Args:
        aliases: further identifiers of columns; such a name belongs to no other column.
        delimiters: the marks round names in the templates.
    Attributes:
        formats: the dates and amounts among the columns, as checked templates use them; None if they use none.
        names: identifier to column.
        variables: further names that a template may use: `row`, and with `has_rows` also `rows`.
        used: the columns that checked templates name; all of them where one uses `row` in another way than
            `row["…"]`.
    """

    def __init__(
        self,
        columns: Sequence[str],
        aliases: Mapping[str, str] | None = None,
        delimiters: Delimiters = DELIMITERS,
        *,
        has_rows: bool = False,
    ) -> None:
        self.variables = frozenset({ROW_VARIABLE, ROWS_VARIABLE} if has_rows else {ROW_VARIABLE})
        self.delimiters = delimiters
        self.formats: ColumnFormats | None = None
        self._columns = frozenset(columns)
        self.names: Mapping[str, str] = _make_identifiers(columns) | dict(aliases or {})
        self.used: set[str] = set()

    def __contains__(self, column: object) -> bool:
        return column in self._columns

    def environment(self, *, autoescape: bool, load: TemplateLoader | None) -> TemplateEnvironment:
        """Return an environment for templates over these columns."""
        return TemplateEnvironment(autoescape=autoescape, load=load, columns=self, delimiters=self.delimiters)

    def advice(self, unknown: str) -> str:
        """Return advice for an unknown name: the nearest name, or all of them if there are few."""
        same = [name for name in self.names if re.fullmatch(rf"{re.escape(unknown)}_column_[0-9]+", name)]
        if len(same) > 1:
            written = " or ".join(map(self.delimiters.write, same))
            return f"{len(same)} columns have that name: rename them, or write {written}"
        known = {name.lower(): name for name in (*self._columns, *self.names)}
        if near := get_close_matches(unknown.lower(), known, n=1):
            return f"did you mean “{self._spell(known[near[0]])}”?"
        if not known:
            return "there are no columns"
        listed = sorted(map(self._spell, self._columns))
        return "the columns are " + ", ".join(listed[:10]) + (" …" if len(listed) > 10 else "")

    def find_misspelt(self, source: str) -> tuple[int, str, str] | None:
        """Return the line of the first `{{ First Name }}` that is a column, what is written, and how to write it."""
        spelled = {_fold(column): column for column in self._columns}
        for found in _written_names(self.delimiters).finditer(source):
            column = spelled.get(_fold(found[1]))
            if column is not None and not found[1].isidentifier():
                return source.count("\n", 0, found.start()) + 1, found[1], self._spell(column)
        return None

    def add_used(self, tree: nodes.Template, undeclared: set[str]) -> None:
        """Note the columns that a template names, which are all for one that uses `row` as a whole."""
        self.used |= {self.names[name] for name in undeclared & self.names.keys()}
        keyed = [key for node in tree.find_all((nodes.Getitem, nodes.Getattr)) if (key := _row_key(node)) in self]
        self.used.update(key for key in keyed if key is not None)
        if ROW_VARIABLE in undeclared:
            mentions = sum(node.name == ROW_VARIABLE for node in tree.find_all(nodes.Name))
            self.used |= self._columns if mentions != len(keyed) else set()
        if ROWS_VARIABLE in undeclared & self.variables:
            self._add_used_in_rows(tree)

    def _add_used_in_rows(self, tree: nodes.Template) -> None:
        """Note the columns named in `{% for child in rows %}`; all of them where `rows` is used in another way."""
        mentions = sum(node.name == ROWS_VARIABLE for node in tree.find_all(nodes.Name))
        for counted in tree.find_all(nodes.Filter):  # rows|length
            if counted.name in ("count", "length") and isinstance(counted.node, nodes.Name):
                mentions -= counted.node.name == ROWS_VARIABLE
        for loop in tree.find_all(nodes.For):
            target, source = loop.target, loop.iter
            if not (isinstance(target, nodes.Name) and isinstance(source, nodes.Name) and source.name == ROWS_VARIABLE):
                continue
            keyed = [key for node in loop.find_all((nodes.Getitem, nodes.Getattr)) if (key := _key(node, target.name))]
            names = sum(node.name == target.name for node in loop.find_all(nodes.Name))
            known = [self._get_column(key) for key in keyed]
            if names == len(keyed) + 1 and None not in known:
                mentions -= 1
                self.used.update(column for column in known if column is not None)
        self.used |= self._columns if mentions else set()

    def _get_column(self, name: str) -> str | None:
        return name if name in self._columns else self.names.get(name)

    def find_unknown_in_rows(self, tree: nodes.Template) -> tuple[nodes.Node, str] | None:
        """Return the first `child.nmae` in `{% for child in rows %}` that is no column, with its name."""
        if ROWS_VARIABLE not in self.variables:
            return None
        for loop in tree.find_all(nodes.For):
            target, source = loop.target, loop.iter
            if isinstance(target, nodes.Name) and isinstance(source, nodes.Name) and source.name == ROWS_VARIABLE:
                for node in loop.find_all((nodes.Getitem, nodes.Getattr)):
                    key = _key(node, target.name)
                    is_method = isinstance(node, nodes.Getattr) and key in _ROW_METHODS
                    if key is not None and self._get_column(key) is None and not is_method:
                        return node, key
        return None

    def _spell(self, column: str) -> str:
        if column in self.names:
            return column
        return next((name for name, of in self.names.items() if of == column), f'row["{column}"]')


def _fold(name: str) -> str:
    return "".join(unicodedata.normalize("NFC", name).casefold().split())


def build_columns(
    columns: Sequence[str],
    aliases: Mapping[str, str],
    *,
    unsubscribes: bool,
    delimiters: Sequence[str] = (),
    has_rows: bool = False,
) -> Columns:
    """Return the columns, with `unsubscribe_url` and `rows` if they exist.

    Raises:
        TemplateError: a column has such a name.
    """
    marks = Delimiters.parse(delimiters) if delimiters else DELIMITERS
    for name, is_ours in ((UNSUBSCRIBE_URL_VARIABLE, unsubscribes), (ROWS_VARIABLE, has_rows)):
        if is_ours and (name in columns or name in aliases):
            raise TemplateError(f"the recipients have a column “{name}” of their own: rename it", "header")
    shown = (*columns, UNSUBSCRIBE_URL_VARIABLE) if unsubscribes else columns
    return Columns(shown, aliases, marks, has_rows=has_rows)


def is_variable_name(name: str) -> bool:
    """Return whether a column can be reached by that name."""
    return name.isidentifier() and name.lower() not in _RESERVED


def _make_identifiers(columns: Sequence[str]) -> dict[str, str]:
    plain = {column: column for column in columns if column.isidentifier()}
    made: dict[str, list[str]] = {}
    for column in columns:
        name = _NOT_IN_NAME.sub("_", column).strip("_")
        made.setdefault(f"_{name}" if name[:1].isdigit() else name, []).append(column)
    unique = {name: of[0] for name, of in made.items() if len(of) == 1 and name.isidentifier()}
    names = unique | plain  # macOS may decompose “ü”, which a keyboard does not
    composed = {unicodedata.normalize("NFC", name): column for name, column in names.items() if not name.isascii()}
    return {name: column for name, column in (composed | names).items() if name.lower() not in _RESERVED}


_LOADS = (nodes.Include, nodes.Extends, nodes.Import, nodes.FromImport)
_ROW_METHODS = frozenset({"get", "items", "keys", "values"})  # methods of a mapping


@contextmanager
def as_template_error(file: str) -> Iterator[None]:
    """Turn errors in the block, which are faults of every row, into one TemplateError."""
    try:
        yield
    except RecipientError as error:
        raise TemplateError(error.reason, file, field=file) from error
    except MessageError as error:
        raise TemplateError(str(error).removeprefix(f"{file}: "), file, field=error.field or file) from error


@contextmanager
def convert_syntax_errors(file: str) -> Iterator[None]:
    """Turn Jinja2's errors about a template's syntax into a TemplateError with the line."""
    try:
        yield
    except SMTPError:
        raise
    except TemplateSyntaxError as error:
        raise TemplateError(error.message or "bad syntax", file, error.lineno) from error
    except JinjaError as error:
        raise TemplateError(str(error), file) from error
    except (RecursionError, MemoryError, SyntaxError) as error:  # of the interpreter's parser and its compiler
        raise TemplateError("an expression is nested too deeply", file) from error
    except ValueError as error:  # of the interpreter: more than 4,300 digits
        raise TemplateError("a number is too long", file) from error


@contextmanager
def suggest_spelling(source: str, file: str, columns: Columns) -> Iterator[None]:
    """Explain an error in the block by a column whose name is not written as a name of a template."""
    try:
        yield
    except TemplateError as error:
        found = columns.find_misspelt(source) if error.file == file else None
        if found is None:
            raise
        line, written, name = found
        why = f"“{safe_text(written, 60)}” is not a name of a template: write {columns.delimiters.write(name)}"
        raise TemplateError(why, file, line, written) from error


def parse(source: str, file: str, environment: TemplateEnvironment) -> nodes.Template:
    """Return the syntax tree; raise TemplateError for a syntax error, also for a style sheet that looks like one."""
    try:
        with convert_syntax_errors(file):
            tree = environment.parse(source, name=file, filename=file)
    except TemplateError as error:
        if (found := _find_foreign_tag(source)) is not None:
            raise TemplateError(found[1], file, found[0], error.field) from error
        place = _find_in_style_sheet(source, environment)
        if place is None and "comment" in error.why:
            begin = re.search(rf"{re.escape(environment.comment_start_string)}(?=[\w-])", source)
            place = begin and begin.start()
        if place is None:
            raise
        raise _style_sheet_error(source, file, place, f"{error.why}: ") from error
    if environment.comment_start_string in source:
        place = _find_in_style_sheet(source, environment, is_valid=True)
        if place is not None:
            raise _style_sheet_error(source, file, place, "")  # what follows it would be left out as a comment
    return tree


_STYLE_SHEET = re.compile(r"<(?:mj-)?style\b[^>]{0,2000}>(.*?)(?:</(?:mj-)?style|\Z)", re.IGNORECASE | re.DOTALL)
_FOREIGN_TAGS = (
    (re.compile(r"\{\{\{\s*([\w.]+)\s*\}\}\}"), "write {{{{ {} }}}}"),
    (re.compile(r"\{\{\s*[#^]\s*(?:if|unless|each|with)?\s*([\w.]*)"), "write {{% if {} %}} or {{% for … in {} %}}"),
    (re.compile(r"\{\{\s*/\s*(\w+)"), "write {{% endif %}} or {{% endfor %}}"),
)


def _find_foreign_tag(source: str) -> tuple[int, str] | None:
    """Return the line of the first tag of Handlebars or Mustache, and what to write instead."""
    for pattern, advice in _FOREIGN_TAGS:
        if found := pattern.search(source):
            why = f"“{safe_text(found[0], 60)}” is a tag of another program: {advice.format(found[1], found[1])}"
            return source.count("\n", 0, found.start()) + 1, why
    return None


def _find_in_style_sheet(source: str, environment: TemplateEnvironment, *, is_valid: bool = False) -> int | None:
    """Return the place in a style sheet where a rule looks like the beginning of a tag, such as `{#main{`.

    Args:
        is_valid: the template has no syntax error: only what looks like a comment and is a rule counts.
    """
    start, end = re.escape(environment.block_start_string), re.escape(environment.block_end_string)
    raw = re.compile(rf"{start}[-+]?\s*raw\s*-?{end}.*?{start}[-+]?\s*endraw", re.DOTALL)
    source = raw.sub(lambda found: " " * len(found[0]), source)
    rule = re.compile(rf"{re.escape(environment.comment_start_string)}[\w-]+[^{{}}]*\{{")
    tags = (
        (environment.comment_start_string, environment.comment_end_string),
        (environment.variable_start_string, environment.variable_end_string),
        (environment.block_start_string, environment.block_end_string),
    )
    for sheet in _STYLE_SHEET.finditer(source):
        if found := rule.search(sheet[1]):
            return sheet.start(1) + found.start()
        for start, end in () if is_valid else tags:
            for begin in re.finditer(re.escape(start), sheet[1]):
                if not re.match(rf"[^{{}}]*?{re.escape(end)}", sheet[1][begin.end() :]):
                    return sheet.start(1) + begin.start()
    return None


def _style_sheet_error(source: str, file: str, place: int, why: str) -> TemplateError:
    line = source.count("\n", 0, place) + 1
    begin = max(source.rfind("\n", 0, place) + 1, place - 20)
    excerpt = safe_text(source[begin : place + 30].partition("\n")[0].strip(), 60)
    advice = (
        "write {% raw %} before it and {% endraw %} behind it, a blank between the two characters, "
        'or other marks for the whole campaign: [template] delimiters = ["<<", ">>"]'
    )
    return TemplateError(f"{why}“{excerpt}” in a style sheet begins a tag of the template: {advice}", file, line)


def find_column(node: nodes.Node, columns: Columns) -> str | None:
    """Return the column if the expression is nothing but one: `{{ name }}` or `{{ row["Name"] }}`; otherwise None."""
    if isinstance(node, nodes.Name):
        return columns.names.get(node.name)
    key = _row_key(node)
    return key if key in columns else None


def is_row_dependent(tree: nodes.Template) -> bool:
    """Return whether the result may differ between recipients."""
    return bool(find_undeclared_variables(tree)) or next(tree.find_all(_LOADS), None) is not None


def check_names(tree: nodes.Template, file: str, columns: Columns, environment: TemplateEnvironment) -> list[str]:
    """Look at every name, in included files too; return the template's own file and those that it loads.

    Raises:
        TemplateError: the first name that is neither a column nor defined by the templates, with the
            nearest column; or a file that cannot be included.
    """
    trees: dict[str, nodes.Template] = {}
    with convert_syntax_errors(file):  # a tree may be too deep to walk
        _load_all(tree, file, environment, (), trees)
        defined = {name for each in trees.values() for name in _find_defined_names(each)}
        for name, each in trees.items():
            _check_file(each, name, columns, defined)
    return list(trees)


def _load_all(
    tree: nodes.Template,
    file: str,
    environment: TemplateEnvironment,
    path: tuple[str, ...],
    trees: dict[str, nodes.Template],
) -> None:
    """Add the template and, recursively, all that it loads; each file once, whatever the number of its includes."""
    trees[file] = tree
    for node in tree.find_all(_LOADS):
        name = cast(nodes.Include, node).template
        if not (isinstance(name, nodes.Const) and isinstance(name.value, str)):
            raise TemplateError("only a name in quotation marks can be included", file, node.lineno)
        if name.value in path:
            raise TemplateError(f"“{name.value}” includes itself", file, node.lineno)
        if name.value not in trees or not path:
            source = _load_source(name.value, file, node.lineno, environment)
            _load_all(parse(source, name.value, environment), name.value, environment, (*path, name.value), trees)


def _load_source(name: str, file: str, line: int, environment: TemplateEnvironment) -> str:
    if environment.loader is None:
        raise TemplateError(f"“{name}” cannot be included: no folder of templates was given", file, line, name)
    try:
        return environment.loader.get_source(environment, name)[0]
    except TemplateNotFound as error:
        raise TemplateError(f"“{name}” {_explain_load_error(error.__cause__)}", file, line, name) from error


def _explain_load_error(cause: BaseException | None) -> str:
    """Return the reason why a file cannot be included."""
    if isinstance(cause, UnicodeDecodeError):
        line = cause.object.count(b"\n", 0, cause.start) + 1
        return f"cannot be included: its line {line} is not UTF-8: save it as UTF-8"
    if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, FileNotFoundError):
        why = safe_text(cause.strerror[:1].lower() + cause.strerror[1:])
        return f"cannot be included: {why}: copy the file into the folder of the template and make it readable"
    return "was not found in the folder of the template"


def _find_defined_names(tree: nodes.Template) -> Iterator[str]:
    """Yield names that a template sets for itself, for those that it loads and for those that load it."""
    for assign in tree.find_all((nodes.Assign, nodes.AssignBlock)):
        yield from (name.name for name in assign.find_all(nodes.Name) if name.ctx == "store")
    yield from (macro.name for macro in tree.find_all(nodes.Macro))
    yield from (module.target for module in tree.find_all(nodes.Import))
    for imported in tree.find_all(nodes.FromImport):
        yield from (name if isinstance(name, str) else name[1] for name in imported.names)


def _check_file(tree: nodes.Template, file: str, columns: Columns, defined: set[str]) -> None:
    with convert_syntax_errors(file):
        undeclared = find_undeclared_variables(tree)
    columns.add_used(tree, undeclared)
    unknown = undeclared - columns.names.keys() - defined - columns.variables
    for name in tree.find_all(nodes.Name):
        if name.name in unknown:
            why = f"“{name.name}” is not a column: {columns.advice(name.name)}"
            raise TemplateError(why, file, name.lineno, name.name)
    for node in tree.find_all((nodes.Getitem, nodes.Getattr)):
        key = _row_key(node)
        if key is not None and key not in columns and not (isinstance(node, nodes.Getattr) and key in _ROW_METHODS):
            raise TemplateError(f"“{key}” is not a column: {columns.advice(key)}", file, node.lineno, key)
    if found := columns.find_unknown_in_rows(tree):
        raise TemplateError(
            f"“{found[1]}” is not a column: {columns.advice(found[1])}", file, found[0].lineno, found[1]
        )
    for output in tree.find_all(nodes.Output):
        for shown in output.nodes:
            if isinstance(shown, nodes.Name) and shown.name == ROW_VARIABLE and ROW_VARIABLE in undeclared:
                why = '“row” is all columns: write row["…"] for one of them'
                raise TemplateError(why, file, shown.lineno, ROW_VARIABLE)


def _row_key(node: nodes.Node) -> str | None:
    """Return `x` of `row["x"]` and `row.x`; None for anything else."""
    return _key(node, ROW_VARIABLE)


def _key(node: nodes.Node, variable: str) -> str | None:
    if not (isinstance(node, nodes.Getitem | nodes.Getattr) and isinstance(node.node, nodes.Name)):
        return None
    if node.node.name != variable:
        return None
    if isinstance(node, nodes.Getattr):
        return node.attr
    return node.arg.value if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str) else None


def split_name_and_address(source: str) -> tuple[str, str]:
    """Return the display name, without quotation marks around it, and the address."""
    source = source.strip()
    if not source.endswith(">"):
        return "", source
    name, _, address = source[:-1].rpartition("<")
    name = name.strip()
    quoted = len(name) > 1 and name.startswith('"') and name.endswith('"')
    return name[1:-1] if quoted else name, address
