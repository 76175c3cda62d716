"""Lazy loading of public names: a package imports a module when one of its names is first used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module

__all__ = ["lazy_names", "map_names", "public_names"]


def map_names(modules: Mapping[str, str]) -> dict[str, str]:
    """Return the module of each name, from a table of modules with their names separated by spaces."""
    return {name: module for module, names in modules.items() for name in names.split()}


def public_names(homes: Mapping[str, str]) -> list[str]:
    """Return the names for `__all__`: constants, types, functions."""
    return sorted(homes, key=lambda name: (0 if name.isupper() else 1 if name[:1].isupper() else 2, name))


def lazy_names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a package, from a table of names with their modules.

    Args:
        package: its `__name__`.
        homes: module by name, relative to the package.
    """

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return load, names
