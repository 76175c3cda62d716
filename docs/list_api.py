"""List the public names in docs/api.md from the stub and the docstrings: `python docs/list_api.py`."""

from __future__ import annotations

import ast
import enum
import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from textwrap import wrap
from types import UnionType

import asyncsmtp

PAGE = Path(__file__).with_name("api.md")
STUB = Path(asyncsmtp.__file__).with_name("__init__.pyi")
HEAD = """\
# The public names

Listed from `asyncsmtp/__init__.pyi` and the docstrings by `docs/list_api.py`; a test compares. All are in `asyncsmtp`,
grouped by the floor they live on; a name imports only what is on the floors above it in this list. `help(name)` has the
rest: units, order, what cancelling does, what is raised.
"""
_INTERNAL = "Called by "  # one part of the package by another
FLOORS = {
    "errors": "Errors",
    "protocol": "SMTP: values, no I/O",
    "mail": "Mail: from a text or a template to octets",
    "client": "Client: relays, sessions, pools",
    "bulk": "Bulk: files, ledgers, runs",
}


def page() -> str:
    """The whole of docs/api.md."""
    parts = [HEAD]
    for floor, title in FLOORS.items():
        parts += [f"## {title}", ""]
        for name in sorted(name for name, home in _names() if home.split(".")[1] == floor):
            parts += _entry(name)
        parts.append("")
    return "\n".join(line for part in parts for line in _wrapped(part))


def _wrapped(part: str) -> list[str]:
    indent = " " * (part.find("- ") + 2)
    return wrap(part, 120, subsequent_indent=indent, break_on_hyphens=False) if "- " in part[:4] else [part]


def _names() -> Iterator[tuple[str, str]]:
    """The names in the stub, with the module each comes from."""
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((alias.asname or alias.name, node.module) for alias in node.names)


def _entry(name: str) -> Iterator[str]:
    """One line for the name; below it its fields and methods, or what an enumeration has."""
    made = getattr(asyncsmtp, name)
    if isinstance(made, UnionType):
        yield f"- `{name}`: {' or '.join(f'`{kind.__name__}`' for kind in made.__args__)}"
        return
    if not isinstance(made, type):
        yield f"- `{_signature(name, made)}`: {_first_line(made)}"
        return
    yield f"- **`{name}`**: {_first_line(made)}"
    if issubclass(made, enum.Enum):
        yield f"  - {', '.join(f'`{member.name}`' for member in made)}"
    elif not issubclass(made, Exception):
        if is_dataclass(made):
            yield f"  - has {', '.join(f'`{each.name}`' for each in fields(made) if not each.name.startswith('_'))}"
        for method, value in _members(made).items():
            if not method.startswith("_") and (line := _member(method, value)):
                yield f"  - {line}"


def _members(made: type) -> dict[str, object]:
    """Its own, and what it has from a base that is the package's too."""
    bases = [base for base in made.__mro__ if base.__module__.startswith(f"{asyncsmtp.__name__}.")]
    return {name: value for base in reversed(bases) for name, value in vars(base).items()}


def _member(name: str, value: object) -> str | None:
    if isinstance(value, property):
        return f"`{name}`: {_first_line(value)}" if value.__doc__ else f"`{name}`"
    inner = value.__func__ if isinstance(value, classmethod | staticmethod) else value
    if not inspect.isfunction(inner) or not inner.__doc__ or inner.__doc__.startswith(_INTERNAL):
        return None
    return f"`{_signature(name, inner)}`: {_first_line(inner)}"


def _signature(name: str, function: object) -> str:
    """The names of the parameters, without their types; `await` where it is to be awaited."""
    assert callable(function)
    parameters = inspect.signature(function).parameters.values()
    shown = str(inspect.Signature([_bare(each) for each in parameters if each.name not in {"self", "cls"}]))
    shown = shown.replace("Ellipsis", "…")
    return f"await {name}{shown}" if inspect.iscoroutinefunction(function) else f"{name}{shown}"


def _bare(parameter: inspect.Parameter) -> inspect.Parameter:
    """Without its type; a default that has no short form is an ellipsis."""
    default = parameter.default
    plain = default is parameter.empty or type(default) in {str, bytes, int, float, bool, tuple, type(None)}
    short = plain and not (isinstance(default, tuple) and default)
    return parameter.replace(annotation=parameter.empty, default=default if short else ...)


def _first_line(made: object) -> str:
    """Why it is there, in the words of its docstring."""
    first = (inspect.getdoc(made) or "").partition("\n\n")[0]
    return " ".join(first.split())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
