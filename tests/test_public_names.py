"""The promises of `import asyncsmtp` and of its packages: public names, lazily loaded."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import asyncsmtp
from asyncsmtp import errors, protocol

LAZY = [asyncsmtp, protocol]


@pytest.mark.parametrize("package", LAZY, ids=lambda package: package.__name__)
def test_every_public_name_loads(package: ModuleType) -> None:
    """They are loaded when first used: a wrong module would show only then."""
    assert [name for name in package.__all__ if getattr(package, name, None) is None] == []
    assert set(package.__all__) <= set(dir(package))


@pytest.mark.parametrize("package", LAZY, ids=lambda package: package.__name__)
def test_type_checkers_see_the_same_names(package: ModuleType) -> None:
    """The stub stands beside the table that loads."""
    stub = Path(package.__file__ or "").with_suffix(".pyi")
    imports = [node for node in ast.parse(stub.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
    promised = {(alias.name, node.module) for node in imports for alias in node.names}
    loaded = {(name, f"{package.__name__}.{home}") for name, home in package._HOMES.items()}
    assert promised == loaded


@pytest.mark.parametrize("package", LAZY, ids=lambda package: package.__name__)
def test_an_unknown_name_is_an_attribute_error(package: ModuleType) -> None:
    """It names the package, as Python's own does."""
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'sendmail'"):
        package.sendmail  # noqa: B018


def test_the_version_is_that_of_the_distribution() -> None:
    """It is written once, in pyproject.toml."""
    pyproject = (Path(asyncsmtp.__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{asyncsmtp.__version__}"\n' in pyproject


def test_types_in_signatures_of_the_protocol_are_public() -> None:
    """Whoever annotates a variable must be able to import its type from the package."""
    missing = set()
    for name in protocol.__all__:
        made = getattr(protocol, name)
        functions = (
            [value for value in vars(made).values() if inspect.isfunction(value)] if isinstance(made, type) else []
        )
        for function in [*functions, *([made] if inspect.isfunction(made) else [])]:
            if not function.__name__.startswith("_") or function.__name__ == "__init__":
                words = {word for text in function.__annotations__.values() for word in re.findall(r"\w+", str(text))}
                own = vars(sys.modules[function.__module__])
                missing |= {
                    word
                    for word in words
                    if getattr(own.get(word), "__module__", "").startswith("asyncsmtp.protocol")
                    and word not in protocol.__all__
                }
    assert missing == set()


def test_all_errors_are_listed() -> None:
    """One that is not in `__all__` cannot be found in the documentation."""
    made = [name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)]
    assert sorted(errors.__all__) == sorted(made)


def test_importing_the_package_loads_nothing_heavy() -> None:
    """`asyncsmtp --help` must not wait for ssl, sqlite3 and Jinja2."""
    heavy = "import sys, asyncsmtp; print(sorted({'asyncio', 'ssl', 'sqlite3', 'jinja2', 'email'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
