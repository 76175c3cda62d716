"""What `import asyncsmtp` promises."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import asyncsmtp

STUB = Path(asyncsmtp.__file__).with_suffix(".pyi")


def test_every_public_name_loads() -> None:
    """They are loaded when first used: a wrong home would show only then."""
    assert [name for name in asyncsmtp.__all__ if getattr(asyncsmtp, name, None) is None] == []


def test_type_checkers_see_the_same_names() -> None:
    """The stub is written by hand beside the table that loads."""
    imports = [node for node in ast.parse(STUB.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
    promised = {(alias.name, node.module) for node in imports for alias in node.names}
    loaded = {(name, f"asyncsmtp.{home}") for name, home in asyncsmtp._HOME.items()}
    assert promised == loaded


def test_importing_the_package_loads_nothing_heavy() -> None:
    """`asyncsmtp --help` must not wait for ssl, sqlite3 and Jinja2."""
    heavy = "import sys, asyncsmtp; print(sorted({'asyncio', 'ssl', 'sqlite3', 'jinja2', 'email'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
