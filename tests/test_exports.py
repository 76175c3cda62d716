"""Public names are listed: each module's `__all__` is there, sorted, and true."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "asyncsmtp"
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if not any(part.startswith("_") and part != "__init__.py" for part in path.relative_to(PACKAGE).parts)
    and len(ast.parse(path.read_text(encoding="utf-8")).body) > 1  # a docstring alone exports nothing
)


def rank(name: str) -> tuple[int, str]:
    """CONSTANTS, then Types, then functions: the order that ruff keeps (RUF022)."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2), name


@pytest.mark.parametrize("name", MODULES)
def test_a_public_module_lists_its_names_in_order(name: str) -> None:
    """`from module import *` is nobody's style, but the list is what "public" means here."""
    listed = getattr(importlib.import_module(name), "__all__", None)
    assert listed is not None, f"{name} has no __all__"
    assert list(listed) == sorted(set(listed), key=rank)


@pytest.mark.parametrize("name", MODULES)
def test_each_listed_name_exists(name: str) -> None:
    """A name that is promised and missing is an AttributeError in somebody's program."""
    module = importlib.import_module(name)
    assert [public for public in module.__all__ if not hasattr(module, public)] == []


@pytest.mark.parametrize("name", MODULES)
def test_each_public_thing_says_what_it_is(name: str) -> None:
    """A public class or function without a docstring can only be guessed at."""
    module = importlib.import_module(name)
    made_here = [getattr(module, public) for public in module.__all__]
    made_here = [thing for thing in made_here if getattr(thing, "__module__", None) == name and callable(thing)]
    assert [thing.__name__ for thing in made_here if not (thing.__doc__ or "").strip()] == []


def test_the_stub_has_the_names_of_the_package() -> None:
    """The package loads its names when they are used, so type checkers and editors read the stub."""
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    told = [alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(filter(None, told)) == sorted(importlib.import_module("asyncsmtp").__all__)


def test_every_public_name_is_used_under_strict_types() -> None:
    """`tests/typing/api.py` is what mypy holds the public API against."""
    used = ast.parse((PACKAGE.parent / "tests/typing/api.py").read_text(encoding="utf-8"))
    names = {node.id for node in ast.walk(used) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(used) if isinstance(node, ast.Attribute)}
    assert set(importlib.import_module("asyncsmtp").__all__) - names == set()
