"""Write docs/reference/api.md, the public names, from the stubs and the docstrings: `python docs/list_api.py`."""

from __future__ import annotations

import ast
import enum
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from textwrap import wrap
from types import ModuleType, UnionType

import asyncsmtp

PAGE = Path(__file__).parent / "reference" / "api.md"
STUB = Path(asyncsmtp.__file__).with_name("__init__.pyi")
HEAD = """\
# Public names

`docs/list_api.py` writes this page from the stubs and the docstrings; a test compares them. The names of the first five
sections are in `asyncsmtp`, those of the others in the package that the section names. `help(name)` has the details:
units, order, what cancelling leaves behind, what is raised.
"""
_INTERNAL = "Called by "  # one part of the package by another
LAYERS = {
    "errors": "Errors",
    "protocol": "SMTP values",
    "mail": "Messages and templates",
    "client": "Relays, sessions and pools",
    "bulk": "Campaigns",
}
PACKAGES = {
    "bulk": "the parts of a campaign",
    "client": "types in signatures, and telemetry",
    "mail": "checks, and types in signatures",
    "protocol": "SMTP without I/O",
    "testing": "tools for tests; see [testing.md](../howto/testing.md)",
}


def page() -> str:
    """Return the text of docs/reference/api.md."""
    parts = [HEAD]
    names = sorted(_names())
    for layer, title in LAYERS.items():
        parts += [f"## {title}", ""]
        for name in (name for name, home in names if home.split(".")[1] == layer):
            parts += _entry(name, getattr(asyncsmtp, name))
        parts.append("")
    listed = {name for name, _ in names}
    for package, title in PACKAGES.items():
        module = import_module(f"asyncsmtp.{package}")
        if further := sorted({*getattr(module, "__all__", ())} - listed, key=str.lower):
            parts += [f"## `asyncsmtp.{package}`: {title}", "", *_summaries(module, further), ""]
    return "\n".join(line for part in parts for line in _wrapped(part))


def _summaries(module: ModuleType, names: Iterable[str]) -> Iterator[str]:
    """Yield a line for each class and function, without its members, and one with all other names."""
    others = []
    for name in names:
        value = getattr(module, name)
        if isinstance(value, type) and value.__module__.startswith("asyncsmtp."):
            yield f"- **`{name}`**: {_first_line(value)}"
        elif inspect.isfunction(value):
            yield f"- `{_signature(name, value)}`: {_first_line(value)}"
        else:
            others.append(f"`{name}`")
    if others:
        yield f"- Type aliases and constants: {', '.join(others)}"


def _wrapped(part: str) -> list[str]:
    indent = " " * (part.find("- ") + 2)
    return wrap(part, 120, subsequent_indent=indent, break_on_hyphens=False) if "- " in part[:4] else [part]


def _names() -> Iterator[tuple[str, str]]:
    """Yield the names in the stub, each with its module."""
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((alias.asname or alias.name, node.module) for alias in node.names)


def _entry(name: str, made: object) -> Iterator[str]:
    """Yield the line of a name, then those of its fields and methods, or of the members of an enumeration."""
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
            yield f"  - fields: {', '.join(f'`{each.name}`' for each in fields(made) if not each.name.startswith('_'))}"
        for method, value in _members(made).items():
            if not method.startswith("_") and (line := _member(method, value)):
                yield f"  - {line}"


def _members(made: type) -> dict[str, object]:
    """Return the members of a class, those of its bases in the package included."""
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
    """Return a call with the names of the parameters, without types; `await` before that of a coroutine."""
    assert callable(function)
    parameters = inspect.signature(function).parameters.values()
    shown = str(inspect.Signature([_bare(each) for each in parameters if each.name not in {"self", "cls"}]))
    shown = shown.replace("Ellipsis", "…")
    return f"await {name}{shown}" if inspect.iscoroutinefunction(function) else f"{name}{shown}"


def _bare(parameter: inspect.Parameter) -> inspect.Parameter:
    """Remove the type of a parameter, and a default that is not short."""
    default = parameter.default
    plain = default is parameter.empty or type(default) in {str, bytes, int, float, bool, tuple, type(None)}
    short = plain and not (isinstance(default, tuple) and default)
    return parameter.replace(annotation=parameter.empty, default=default if short else ...)


def _first_line(made: object) -> str:
    """Return the first paragraph of a docstring."""
    first = (inspect.getdoc(made) or "").partition("\n\n")[0]
    return " ".join(first.split())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
