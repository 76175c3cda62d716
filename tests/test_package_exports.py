"""Each package exports the public names of its modules, lazily."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ["asyncsmtp.client", "asyncsmtp.mail", "asyncsmtp.protocol", "asyncsmtp.testing"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_exported_name_loads(package: str) -> None:
    """They are loaded when first used: a wrong module would show only then."""
    module = importlib.import_module(package)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
    assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize("package", PACKAGES)
def test_the_stub_has_the_same_names(package: str) -> None:
    """Type checkers and editors read the stub."""
    module = importlib.import_module(package)
    assert module.__file__ is not None
    stub = ast.parse(Path(module.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    promised = {alias.asname: (node.module, alias.name) for node in imports for alias in node.names}
    assert sorted(map(str, promised)) == sorted(module.__all__)
    for name, (home, original) in promised.items():
        assert getattr(module, str(name)) is getattr(importlib.import_module(str(home)), original)


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    heavy = f"import sys, {package}; print(sorted({{'asyncio', 'ssl', 'jinja2', 'email'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_name_that_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        importlib.import_module("asyncsmtp.mail").nothing  # noqa: B018
