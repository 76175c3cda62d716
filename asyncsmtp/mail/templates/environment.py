"""The sandboxed Jinja2 environment of templates: no code, no files, limits on the size and the steps of a row.

Templates come from people who write mails, cells from anybody. Cells are values and are never compiled. Jinja2's
sandbox keeps templates away from Python's internals; it has no limits on size or time. So steps are counted, without a
clock: each round of a loop, each call of a macro, a block, a filter, a test or a method is one, and the values that
it is given and returns count by their size. Filters and methods that make a long result at once are removed or checked
first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import wraps
from typing import TYPE_CHECKING, Any, Self, cast

from jinja2 import (
    BaseLoader,
    Environment,
    FunctionLoader,
    StrictUndefined,
    TemplateNotFound,
    Undefined,
    nodes,
    pass_context,
    pass_environment,
    pass_eval_context,
)
from jinja2.compiler import CodeGenerator, Frame, operators
from jinja2.exceptions import SecurityError
from jinja2.filters import do_join, do_replace, do_round, make_attrgetter
from jinja2.loaders import split_template_path
from jinja2.nodes import EvalContext
from jinja2.runtime import Context, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from asyncsmtp.errors import InvalidArgument

if TYPE_CHECKING:
    from asyncsmtp.mail.templates.column_formats import FormattedColumns

__all__ = [
    "DELIMITERS",
    "MAX_OUTPUT",
    "Delimiters",
    "StepCodeGenerator",
    "TemplateEnvironment",
    "TemplateLoader",
    "count_calls",
]

_MAX_DIGITS = 30
_COLUMN_FILTERS = frozenset({"date", "money", "number"})  # of column_formats, which is loaded for them only

MAX_OUTPUT = 10 << 20  # characters of one part
MAX_VALUE = 1 << 20  # characters or items of the result of an operator
MAX_BITS = 256  # of a number that is the result of an operator
MAX_STEPS = 100_000  # of one part for one row: about a second
_STEP_SIZE = 256  # characters of a value that are one step
_ITEM_SIZE = 16  # an item of a list counts as so many characters
_STEP_COMPARISONS = 1 << 14  # comparisons of two characters that are one step


@dataclass(frozen=True, slots=True)
class Delimiters:
    """The marks round values, statements and comments in templates; those of Jinja2 as a rule."""

    value: tuple[str, str] = ("{{", "}}")
    statement: tuple[str, str] = ("{%", "%}")
    comment: tuple[str, str] = ("{#", "#}")

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Self:
        """Make them of two texts round values, from which the others follow; or of four or six texts.

        `["<<", ">>"]` means `<% %>` for statements and `<# #>` for comments.

        Raises:
            InvalidArgument: they are not distinct marks of punctuation.
        """
        given = list(texts)
        if len(given) not in (2, 4, 6) or not all(_MARK.fullmatch(each) for each in given):
            raise InvalidArgument('must be the marks round a value, such as ["<<", ">>"]: punctuation, no quotes')
        start, end = given[:2]
        can_derive = len(start) > 1 and len(end) > 1
        for letter in ("%", "#")[len(given) // 2 - 1 :]:
            given += [start[:-1] + letter, letter + end[1:]] if can_derive else ["", ""]
        starts, ends = given[::2], given[1::2]
        if "" in given or len({*starts}) < 3 or len({*starts, *ends}) < 4:
            example = '["<%", "%>", "<!", "!>", "<#", "#>"]'
            raise InvalidArgument(f"must tell values, statements and comments apart: write all six, such as {example}")
        return cls((starts[0], ends[0]), (starts[1], ends[1]), (starts[2], ends[2]))

    def are_in(self, text: str) -> bool:
        """Return whether a text is a template."""
        return self.value[0] in text or self.statement[0] in text or self.comment[0] in text

    def write(self, name: str) -> str:
        """Return how a template names a value."""
        return f"{self.value[0]} {name} {self.value[1]}"


_MARK = re.compile(r"[^\w\s\"'`\\]{1,10}")
DELIMITERS = Delimiters()


TemplateLoader = Callable[[str], str]

# They make long results from short input, differ from run to run, or reach attributes.
_REMOVED_FILTERS = ("attr", "batch", "center", "format", "indent", "pprint", "random", "slice", "tojson", "xmlattr")
_QUADRATIC_FILTERS = ("striptags", "urlize", "wordwrap")  # in the length of a text without spaces, or of many tags
_SLOW_FILTERS = frozenset({*_QUADRATIC_FILTERS, "title", "wordcount"})
_SMALL_TYPES = frozenset({bool, int, float, type(None), Decimal, Context, EvalContext})  # apart from short texts
_SMALL_TEXT = 64  # characters
_SLOWER = 8  # times as many steps for a text
_BLOCK_STEPS = 10
_FORBIDDEN_METHODS = frozenset(
    {
        *("center", "decode", "encode", "expandtabs", "format", "format_map", "from_bytes", "hex", "join", "ljust"),
        *("maketrans", "replace", "rjust", "striptags", "to_bytes", "translate", "zfill"),
    }
)
_SEARCHES = frozenset({"in", "notin"})
# Filters that no template can name.
_ITEMS = " items"  # counts what a loop runs over
_ARITY = " %s/%d"  # a filter that is called with so many values
_SIZED = frozenset({list, tuple, dict, str, Markup, range})


class StepCounter:
    """The steps and the output of the row that a template is rendered for."""

    __slots__ = ("output", "row", "steps")

    def __init__(self) -> None:
        self.begin(None)

    def begin(self, row: object) -> None:
        """Begin anew, for a row or for what is the same for all."""
        self.row, self.steps, self.output = row, 0, 0

    def add(self, steps: int) -> None:
        """Count steps. Raises SecurityError: there are too many."""
        self.steps += steps
        if self.steps > MAX_STEPS:
            raise SecurityError(f"more than {MAX_STEPS:,} steps for one row: use fewer loops, macros and filters")

    def add_values(self, values: Iterable[object], factor: int = 1) -> None:
        """Count a call with these values: one step, more for large values, and for two texts that it may compare.

        Args:
            factor: of the steps for the size.
        """
        size, texts = 0, []
        for value in values:
            if isinstance(value, str | bytes):
                size += len(value)
                texts.append(len(value))
            elif isinstance(value, list | tuple | dict):
                size += _measure(value)
        compared = texts[0] * sum(texts[1:]) if len(texts) > 1 else 0
        self.add(1 + factor * size // _STEP_SIZE + compared // _STEP_COMPARISONS)

    def add_result(self, value: Any) -> Any:
        """Return a result, whose size counts. Raises SecurityError: it is too large."""
        if isinstance(value, str | bytes | list | tuple | dict):
            self.add(_measure(value) // _STEP_SIZE)
        return value


class StepCodeGenerator(CodeGenerator):
    """The code generator of Jinja2, with code that counts steps."""

    def visit_Template(self, node: nodes.Template, frame: Frame | None = None) -> None:  # noqa: N802 - the name that Jinja2 looks up
        for filter_ in node.find_all(nodes.Filter):
            if not (filter_.kwargs or filter_.dyn_args or filter_.dyn_kwargs):
                name = _ARITY % (filter_.name, 1 + len(filter_.args))
                filter_.name = name if name in self.environment.filters else filter_.name
        for each in node.find_all((nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block)):
            if isinstance(each, nodes.For) and not each.recursive:
                each.iter = nodes.Filter(each.iter, _ITEMS, [], [], None, None, lineno=each.lineno)
                each.iter.set_environment(self.environment)
                continue
            name = "block_step" if isinstance(each, nodes.Block) else "step"
            step = nodes.ExprStmt(nodes.EnvironmentAttribute(name), lineno=each.lineno)
            cast(nodes.Block, each).body.insert(0, step.set_environment(self.environment))
            if isinstance(each, nodes.For) and each.test is not None:
                each.test = nodes.And(nodes.EnvironmentAttribute("step"), each.test, lineno=each.lineno)
                each.test.set_environment(self.environment)
        super().visit_Template(node, frame)

    # What is printed is counted by whoever takes it; only what a macro or a block collects must be counted before.

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        super()._output_child_pre(node, frame, finalize if frame.buffer else finalize._replace(src=None))

    def _output_child_post(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        super()._output_child_post(node, frame, finalize if frame.buffer else finalize._replace(src=None))

    def visit_Include(self, node: nodes.Include, frame: Frame) -> None:  # noqa: N802 - the name that Jinja2 looks up
        self.writeline("environment.step", node)
        super().visit_Include(node, frame)

    def visit_Import(self, node: nodes.Import, frame: Frame) -> None:  # noqa: N802 - the name that Jinja2 looks up
        self.writeline("environment.step", node)
        super().visit_Import(node, frame)

    def visit_FromImport(self, node: nodes.FromImport, frame: Frame) -> None:  # noqa: N802 - the name that Jinja2 looks up
        self.writeline("environment.step", node)
        super().visit_FromImport(node, frame)

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:  # noqa: N802 - the name that Jinja2 looks up
        compared = [node.expr, *(operand.expr for operand in node.ops)]
        if _SEARCHES.isdisjoint(operand.op for operand in node.ops) and any(
            isinstance(each, nodes.Const) for each in compared
        ):
            super().visit_Compare(node, frame)
            return
        self.write("(environment.counted(")
        self.visit(node.expr, frame)
        for operand in node.ops:
            self.write(f") {operators[operand.op]} environment.counted(")
            self.visit(operand.expr, frame)
        self.write("))")

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - the name that Jinja2 looks up
        self.write("environment.concatenate(context.eval_ctx.autoescape, (")
        for each in node.nodes:
            self.visit(each, frame)
            self.write(", ")
        self.write("))")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:  # noqa: N802 - the name that Jinja2 looks up
        if all(isinstance(each, nodes.Const) for each in node.items):
            super().visit_List(node, frame)
            return
        self.write("environment.counted(")
        super().visit_List(node, frame)
        self.write(")")

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802 - the name that Jinja2 looks up
        if node.ctx != "load" or all(isinstance(each, nodes.Const) for each in node.items):
            super().visit_Tuple(node, frame)
            return
        self.write("environment.counted(")
        super().visit_Tuple(node, frame)
        self.write(")")

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802 - the name that Jinja2 looks up
        self.write("environment.counted({")
        for item in node.items:
            self.write("environment.counted(")
            self.visit(item.key, frame)
            self.write("): ")
            self.visit(item.value, frame)
            self.write(", ")
        self.write("})")


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """The Jinja2 environment of the templates of one campaign.

    Args:
        autoescape: True for HTML.
        load: returns the source of an included file by its path below the template's folder; raises OSError or KeyError
            if there is none. It must not leave the folder, not by a link either.
        columns: those of the recipients, whose dates and amounts are read by the whole column.
        delimiters: the marks round values, statements and comments.
    Attributes:
        counter: the steps and the output of the row that is being rendered; for one thread at a time.
    """

    intercepted_binops = frozenset({"*", "**", "%", "+"})
    code_generator_class: type[CodeGenerator] = StepCodeGenerator

    def __init__(
        self,
        *,
        autoescape: bool,
        load: TemplateLoader | None = None,
        columns: FormattedColumns | None = None,
        delimiters: Delimiters = DELIMITERS,
    ) -> None:
        self.counter = StepCounter()
        self._columns = columns
        super().__init__(
            *delimiters.statement,
            *delimiters.value,
            *delimiters.comment,
            autoescape=autoescape,
            undefined=StrictUndefined,
            finalize=self.counted,
            keep_trailing_newline=True,
            loader=load and _confined_loader(load),
        )
        for name in _REMOVED_FILTERS:
            self.filters.pop(name, None)
        self.filters |= {"join": _join, "replace": _replace, "round": _round, "sum": _sum}
        for name in _QUADRATIC_FILTERS:
            self.filters[name] = _limit_length(self.counter, self.filters[name])
        for name, each in [*self.filters.items()]:
            self._add_filter(name, cast(Any, each))
        self.tests = {name: count_calls(self.counter, cast(Any, each)) for name, each in self.tests.items()}
        self.filters[_ITEMS] = self._count_items
        self.concat = self._join_output  # type: ignore[method-assign]
        self.globals.clear()

    def _add_filter(self, name: str, function: Callable[..., Any]) -> None:
        """Add a filter that counts steps."""
        call = count_calls(self.counter, function, _SLOWER if name in _SLOW_FILTERS else 1)
        self.filters[name] = call
        if not hasattr(call, "jinja_pass_arg"):
            self.filters[_ARITY % (name, 1)] = _count_calls_with_one(self.counter, call)
            self.filters[_ARITY % (name, 2)] = _count_calls_with_two(self.counter, call)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        if any(map(_is_column_filter, tree.find_all(nodes.Filter))):
            from asyncsmtp.mail.templates.column_formats import bind_filters  # late: few templates need it

            bind_filters(tree, name or "", self._columns, self._add_filter)
        return tree

    @pass_context  # so that it is never called in advance
    def _count_items(self, _: Context, items: Any) -> Any:
        """Return what a loop runs over; each item is one step."""
        if type(items) not in _SIZED:
            return self._count_each(items)
        self.counter.add(len(items))
        return items

    def _count_each(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.counter.add(1)
            yield item

    @property
    def step(self) -> bool:
        """True; to read it is one step. Raises SecurityError: there are too many."""
        counter = self.counter
        counter.steps += 1
        if counter.steps > MAX_STEPS:
            counter.add(0)
        return True

    @property
    def block_step(self) -> bool:
        """True; as `step`, for a block, which takes longer."""
        self.counter.add(_BLOCK_STEPS)
        return True

    def counted(self, value: Any) -> Any:
        """Return a value that is printed or compared, whose size counts."""
        kind = type(value)
        if (len(value) > _STEP_SIZE) if kind is str or kind is Markup else kind not in _SMALL_TYPES:
            self.counter.add_values((value,))
        return value

    def concatenate(self, is_markup: bool, values: tuple[object, ...]) -> str:
        """Return what `~` makes of values."""
        self.counter.add_values(values)
        if sum(map(_measure, values)) > MAX_VALUE:
            raise SecurityError("this ~ makes a text that is too long for a mail")
        return (markup_join if is_markup else str_join)(values)

    def _join_output(self, pieces: Iterable[str]) -> str:
        """Return the output of a macro, or of a block that sets a name; it is not longer than that of a part."""
        found, size = [], 0
        for piece in pieces:
            size += len(piece)
            if size > MAX_OUTPUT:
                raise SecurityError(f"more than {MAX_OUTPUT >> 20} MiB of text come out of a macro or block")
            found.append(piece)
        self.counter.add(size // _STEP_SIZE)
        return "".join(found)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        is_forbidden = isinstance(obj, str | bytes | int | float) and attr in _FORBIDDEN_METHODS
        return not is_forbidden and super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """Return a value that raises an error with advice when it is used."""
        filter_ = f": write |{attribute}" if attribute in self.filters else ""
        return self.undefined(f"“.{attribute}” is not available in a template{filter_}", exc=SecurityError)

    def wrap_str_format(self, value: Any) -> None:
        """Return no formatter: a format width makes gigabytes of nothing."""

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _check_operands(operator, left, right)
        self.counter.add_values((left, right))
        return self.counter.add_result(super().call_binop(context, operator, left, right))

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        owner = getattr(obj, "__self__", None)
        if type(owner) is str and not kwargs and len(owner) <= _STEP_SIZE and _are_small(args):
            self.counter.add(1)
        else:
            owners = () if isinstance(owner, dict) else (owner,)  # a dict is only looked up
            self.counter.add_values((*owners, *args, *kwargs.values()))
        result = super().call(context, obj, *args, **kwargs)
        if type(result) is list and type(owner) is str:  # parts of the text
            self.counter.add(len(result) * _ITEM_SIZE // _STEP_SIZE)
            return result
        return self.counter.add_result(result)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(argument, tuple):
            self.counter.add_values((argument,))  # it is hashed
        return super().getitem(obj, argument)


def count_calls(counter: StepCounter, function: Callable[..., Any], factor: int = 1) -> Callable[..., Any]:
    """Return a filter or a test that counts its calls, its arguments and its results."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs or not _are_small(args):
            counter.add_values((*args, *kwargs.values()), factor)
        else:
            counter.add(1)
        return counter.add_result(function(*args, **kwargs))

    return call


def _count_calls_with_one(counter: StepCounter, call: Callable[..., Any]) -> Callable[[Any], Any]:
    """Return a filter of `count_calls` that is called with one value: most are, and it is faster without `*args`."""
    function = cast(Any, call).__wrapped__

    def call_with_one(value: Any) -> Any:
        if type(value) is not str or len(value) > _SMALL_TEXT:
            return call(value)
        counter.steps += 1
        if counter.steps > MAX_STEPS:
            counter.add(0)
        result = function(value)
        return result if type(result) is str and len(result) < _STEP_SIZE else counter.add_result(result)

    return call_with_one


def _count_calls_with_two(counter: StepCounter, call: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """Return a filter of `count_calls` that is called with a value and one argument, such as a form."""
    function = cast(Any, call).__wrapped__

    def call_with_two(value: Any, argument: Any) -> Any:
        if (
            type(value) is not str
            or type(argument) is not str
            or len(value) > _SMALL_TEXT
            or len(argument) > _SMALL_TEXT
        ):
            return call(value, argument)
        counter.steps += 1
        if counter.steps > MAX_STEPS:
            counter.add(0)
        result = function(value, argument)
        return result if type(result) is str and len(result) < _STEP_SIZE else counter.add_result(result)

    return call_with_two


def _are_small(values: Iterable[object]) -> bool:
    """Return whether values are so small that a call with them is one step."""
    for value in values:
        if (len(value) > _SMALL_TEXT) if isinstance(value, str) else type(value) not in _SMALL_TYPES:
            return False
    return True


def _limit_length(counter: StepCounter, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter whose steps grow with the square of its text, as its time may."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        values = [value for value in (*args, *kwargs.values()) if isinstance(value, str)]
        counter.add(len(values[0]) * sum(map(len, values)) >> 20 if values else 0)
        return function(*args, **kwargs)

    return call


def _measure(value: object) -> int:
    """Return the characters of a value as text, about. Raises SecurityError: too many for a mail."""
    size, left = 0, [value]
    while left:
        each = left.pop()
        if isinstance(each, str | bytes):
            size += len(each)
        elif isinstance(each, list | tuple | dict):
            size += _ITEM_SIZE * (len(each) + 1)
            left.extend(each if size <= MAX_OUTPUT else ())
            left.extend(each.values() if isinstance(each, dict) else ())
        if size > MAX_OUTPUT:
            raise SecurityError("a value in it is too long for a mail")
    return size


def _is_column_filter(filter_: nodes.Filter) -> bool:
    named = filter_.args[:1] if filter_.name == "map" else []
    return filter_.name in _COLUMN_FILTERS or any(
        isinstance(each, nodes.Const) and each.value in _COLUMN_FILTERS for each in named
    )


def _size(value: object) -> int:
    return len(value) if isinstance(value, str | bytes | list | tuple) else 0


def _check_operands(operator: str, left: object, right: object) -> None:
    """Refuse an operation whose result could be far longer than its operands."""
    numbers = (left, right) if isinstance(left, int) and isinstance(right, int) else None
    if operator == "*":
        for value, times in ((left, right), (right, left)):
            if isinstance(times, int) and _size(value) * times > MAX_VALUE:
                raise SecurityError("this multiplication makes a text that is too long for a mail")
        if numbers and numbers[0].bit_length() + numbers[1].bit_length() > MAX_BITS:
            raise SecurityError("this multiplication makes a number that is too long for a mail")
    elif operator == "**" and numbers and numbers[0].bit_length() * abs(numbers[1]) > MAX_BITS:
        raise SecurityError("this power makes a number that is too long for a mail")
    elif operator == "%" and isinstance(left, str | bytes):
        raise SecurityError("% between texts is not available: write the value into the text")
    elif operator == "+" and _size(left) + _size(right) > MAX_VALUE:
        raise SecurityError("this + makes a text that is too long for a mail")


@pass_eval_context
def _replace(context: EvalContext, text: str, old: str, new: str, count: int | None = None) -> str:
    found = str(text).count(str(old))
    if found * len(str(new)) > MAX_VALUE:
        raise SecurityError("this |replace makes a text that is too long for a mail")
    return do_replace(context, text, old, new, count)


@pass_eval_context
def _join(context: EvalContext, values: Iterable[Any], between: str = "", attribute: str | int | None = None) -> str:
    listed = list(values)
    if sum(map(_measure, listed)) + len(listed) * len(str(between)) > MAX_VALUE:
        raise SecurityError("this |join makes a text that is too long for a mail")
    joined: str = do_join(context, listed, between, attribute)
    return joined


def _round(value: float, precision: int = 0, method: str = "common") -> float:
    if abs(precision) > _MAX_DIGITS:
        raise SecurityError(f"this |round has more than {_MAX_DIGITS} digits")
    return do_round(value, precision, method)  # type: ignore[arg-type]


@pass_environment
def _sum(environment: Environment, values: Iterable[Any], attribute: str | int | None = None, start: Any = 0) -> Any:
    get = (lambda item: item) if attribute is None else make_attrgetter(environment, attribute)
    total = start
    for number in map(get, values):
        if not isinstance(number, int | float | Decimal) or not isinstance(total, int | float | Decimal):
            raise SecurityError("|sum adds numbers only: use |join for texts")
        total += number  # type: ignore[operator]
    return total


def _confined_loader(load: TemplateLoader) -> BaseLoader:
    def source(path: str) -> str:
        parts = split_template_path(path)  # refuses `..`
        if path.startswith("/") or "\\" in path or "\0" in path:
            raise TemplateNotFound(path)
        try:
            return load("/".join(parts))
        except (OSError, LookupError, ValueError) as error:
            raise TemplateNotFound(path) from error

    return FunctionLoader(source)
