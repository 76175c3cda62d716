"""The floors hold: imports go down only, and the pure floors know no network, clock or chance."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "asyncsmtp"
FILES = sorted(PACKAGE.rglob("*.py"))

#   cli ─► bulk ─► client ─► mail ─► protocol ─► errors        testing ─► protocol, errors
FLOORS = ("errors", "protocol", "mail", "client", "bulk", "cli")
BELOW = {floor: {*FLOORS[:level], floor} for level, floor in enumerate(FLOORS)}
BELOW |= {
    "testing": {"testing", "protocol", "errors"},
    "__init__": {*FLOORS, "testing"} - {"cli"},
    "__main__": {"cli"},
}
BELOW["cli"] |= {"testing", "__init__"}  # the sandbox is a command; the version is the package's
STOREYS = {  # within a floor, its folders; a file beside them may use them all
    "mail": ("signing", "templates", "converting", "checks"),
    "client": ("settings", "observing", "connection", "session", "pool"),
    "bulk": ("recipients", "bounces", "keeping", "postgres", "sqlite", "rate_limit", "running"),
    "cli": ("output", "campaign", "commands"),
}
PURE = {"errors", "protocol", "mail"}
IMPURE = {"asyncio", "os", "random", "secrets", "socket", "ssl", "subprocess", "tempfile", "threading", "time", "uuid"}
CLOCKS = {"now", "today", "utcnow"}
MAY_RUN_A_COMMAND = {"cli"}  # --password-command, and nothing else


def floor_of(module: str) -> str:
    """The floor of `asyncsmtp.<floor>…`; the package itself is the floor `__init__`."""
    return module.split(".")[1] if "." in module else "__init__"


def storey_of(module: str) -> int:
    """How high the module's folder is within its floor; -1 where the floor has no folders, or it is in none."""
    names = module.split(".")
    storeys = STOREYS.get(floor_of(module), ())
    return storeys.index(names[2]) if len(names) > 3 and names[2] in storeys else -1


def imports(tree: ast.AST, package: str) -> Iterator[tuple[str, bool]]:
    """Each module that is imported, wherever in the file, and whether for the type checker only."""
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *filter(None, [node.module])])
            for alias in node.names:  # `from asyncsmtp import cli` imports a floor by its name
                inside = module == "asyncsmtp" and alias.name in BELOW
                yield (f"asyncsmtp.{alias.name}" if inside else module), id(node) in typing_only


def faults(source: str, module: str) -> list[str]:
    """What in `source` breaks the drawing, one sentence each."""
    floor, tree = floor_of(module), ast.parse(source)
    found = []
    for name, typing_only in imports(tree, module.rpartition(".")[0]):
        top = name.partition(".")[0]
        if top == "asyncsmtp" and floor_of(name) not in BELOW[floor] and not (typing_only and floor == "errors"):
            found.append(f"{floor} looks up to {name}")
        elif (
            top == "asyncsmtp"
            and floor_of(name) == floor
            and not typing_only
            and -1 < storey_of(module) < storey_of(name)
        ):
            found.append(f"{module} looks up to {name}")
        if floor in PURE and top in IMPURE:
            found.append(f"{floor} is pure and imports {name}")
        if top == "smtplib":
            found.append("smtplib hides the protocol that is spoken here")
        if top == "subprocess" and floor not in MAY_RUN_A_COMMAND:
            found.append(f"{floor} runs commands")
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if floor in PURE and node.func.attr in CLOCKS:
                found.append(f"{floor} is pure and asks the clock: {ast.unparse(node)}")
            if ast.unparse(node.func) in {"os.system", "os.popen"}:
                found.append(f"a shell: {ast.unparse(node)}")
        if isinstance(node, ast.keyword) and node.arg == "shell" and ast.unparse(node.value) != "False":
            found.append("a shell: shell=True")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_the_floors_only(path: Path) -> None:
    """A floor that knows the one above cannot be tested, understood or used alone."""
    module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    assert faults(path.read_text(encoding="utf-8"), module) == []


def test_only_one_file_runs_commands() -> None:
    """WO-17: `--password-command` runs what the user typed; nothing else in the package starts a process."""
    runners = [path.name for path in FILES if "subprocess" in path.read_text(encoding="utf-8")]
    assert len(runners) <= 1, runners


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_is_one_idea(path: Path) -> None:
    """At 300 lines there is a second idea in it; 320 leaves room for the last one's docstring."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 320


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("asyncsmtp.protocol.replies", "from asyncsmtp.mail.message import Message"),
        ("asyncsmtp.protocol.replies", "def late():\n    import asyncsmtp.client"),
        ("asyncsmtp.mail.headers", "from ..client import relay"),
        ("asyncsmtp.client.pool.pool", "from asyncsmtp import bulk"),
        ("asyncsmtp.client.session.session", "from asyncsmtp.client.pool.pool import Pool"),
        ("asyncsmtp.bulk.keeping.steps", "from asyncsmtp.bulk.sqlite.writer import Writer"),
        ("asyncsmtp.testing.relay", "from asyncsmtp.mail.message import Message"),
        ("asyncsmtp.bulk.ledger", "if TYPE_CHECKING:\n    from asyncsmtp.cli.main import main"),
        ("asyncsmtp.protocol.client", "import socket"),
        ("asyncsmtp.mail.headers", "from os import urandom"),
        ("asyncsmtp.mail.headers", "date = datetime.now(UTC)"),
        ("asyncsmtp.client.session.session", "import smtplib"),
        ("asyncsmtp.client.config.relay", "import subprocess"),
        ("asyncsmtp.cli.secrets", "run(line, shell=True)"),
    ],
)
def test_the_checker_sees_each_kind_of_fault(module: str, source: str) -> None:
    """A guard that cannot fail guards nothing."""
    assert len(faults(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("asyncsmtp.errors", "if TYPE_CHECKING:\n    from asyncsmtp.protocol.replies import Reply"),
        ("asyncsmtp.client.pool.pool", "from asyncsmtp.client.session.session import Session"),
        ("asyncsmtp.client.session.session", "import asyncio"),
        ("asyncsmtp.bulk.running.runner", "from asyncsmtp.mail.message import Message"),
    ],
)
def test_the_checker_lets_the_drawing_pass(module: str, source: str) -> None:
    """Down, and along one floor, is allowed; so is errors.py naming for the type checker what it carries."""
    assert faults(source, module) == []
