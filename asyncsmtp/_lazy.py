"""Lazy exports: a package's public names, each imported from its module when it is first used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module

__all__ = ["lazy_exports"]


def lazy_exports(
    package: str, modules: Mapping[str, str]
) -> tuple[list[str], Callable[[str], object], Callable[[], list[str]]]:
    """Return `__all__`, `__getattr__` and `__dir__` for a package, so that importing it takes almost no time.

    Args:
        package: the package's `__name__`.
        modules: by module, relative to the package, its public names with spaces between them. The package's `.pyi`
            imports the same names for type checkers.
    """
    homes = {name: module for module, names in modules.items() for name in names.split()}

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)  # from now on found without this function
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    public = sorted(homes, key=lambda name: (0 if name.isupper() else 1 if name[:1].isupper() else 2, name))
    return public, load, names
