"""Imports go down only and never in a circle; the pure layers use no network, clock or randomness.

The layout is read from disk, and every file is checked, also one that lies beside its layer's folders.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "asyncsmtp"

#   cli -> web -> bulk -> client -> mail -> protocol -> errors          cli, web -> testing -> protocol, errors
LAYERS = ("_lazy", "errors", "protocol", "mail", "client", "bulk", "web", "cli")
ALLOWED = {layer: {*LAYERS[:level], layer} for level, layer in enumerate(LAYERS)}
ALLOWED |= {
    "testing": {"testing", "protocol", "errors", "_lazy"},
    "__init__": {*LAYERS, "testing"} - {"cli", "web"},
    "__main__": {"cli"},
}
ALLOWED["web"] |= {"testing"}
ALLOWED["cli"] |= {"testing", "__init__"}  # the sandbox is a command; the version is the package's

FOLDERS = {
    "mail": ("signing", "templates conversion", "checks"),
    "client": ("config", "events", "connection", "session", "pool"),
    "bulk": ("recipients", "bounces", "ledger", "rate_limit", "running", "setup", "suppression", "workers"),
    "cli": ("output", "commands"),
}
"""The folders of a layer, lowest first; those in one string are of the same level and may import each other.

A folder may import from those before it, never from those after it. A folder of a layer that is not listed fails a
test, so that a new one gets its place here.
"""
UNORDERED = {"protocol", "testing", "web"}
"""Layers whose folders need no order."""
INDEPENDENT = ({"sqlite", "postgres"},)
"""Folders of which none may import another: parallel implementations."""

PURE = {"_lazy", "errors", "protocol", "mail"}
IMPURE = {"asyncio", "os", "random", "secrets", "socket", "ssl", "subprocess", "tempfile", "threading", "time", "uuid"}
CLOCKS = {"now", "today", "utcnow"}
FILE_ACCESS = {"open", "read_bytes", "read_text", "write_bytes", "write_text"}
MAY_READ_FILES = {("mail", "from_path"), ("mail", "from_file"), ("mail", "_read_package_data")}
"""The exceptions to purity: constructors that read a file at the call, and say so, and data of the package itself."""
MAY_RUN_COMMANDS = {"cli"}  # --password-command, and nothing else
RUN_INTERPRETER = {"asyncsmtp.bulk.recipients.spreadsheet", "asyncsmtp.bulk.running.process_pool"}
"""The modules that start this interpreter, and nothing else: with limits for a workbook, and to send for a run."""
RUNS_WORKERS = "asyncsmtp.cli.commands.workers.work"
"""The module that starts the command itself again, several times."""


@dataclass(frozen=True, slots=True)
class Import:
    """One import statement's target; `type_only` is set inside `if TYPE_CHECKING:`."""

    target: str
    type_only: bool = False


@cache
def modules() -> Mapping[str, Path]:
    """Every module of the package: dotted name -> file."""
    return {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }


@cache
def parse_module(module: str) -> ast.Module:
    """Parse a module of the package."""
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def find_layer(module: str) -> str:
    """Return the layer of `asyncsmtp.<layer>…`; the package itself is the layer `__init__`."""
    return module.split(".")[1] if "." in module else "__init__"


def find_levels(module: str) -> Iterator[tuple[str, int]]:
    """Yield each list of FOLDERS that ranks the module's folders, and the rank: ("bulk", 2), ("bulk/ledger", 0)."""
    names = module.split(".")[1:]
    for depth in range(1, len(names)):
        parent = "/".join(names[:depth])
        for level, folders in enumerate(FOLDERS.get(parent, ())):
            if names[depth] in folders.split():
                yield parent, level


def find_imports(tree: ast.AST, package: str, known: Iterable[str]) -> Iterator[Import]:
    """Yield every import of a file, wherever it stands.

    Args:
        package: the package that relative imports start from.
        known: the modules there are; `from asyncsmtp.mail import headers` imports a module, not a name.
    """
    type_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, id(node) in type_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*parents, *filter(None, [node.module])])
            for alias in node.names:
                whole = f"{origin}.{alias.name}"
                is_module = whole in known or (origin == "asyncsmtp" and alias.name in ALLOWED)
                yield Import(whole if is_module else origin, id(node) in type_only)


def find_faults(source: str, module: str) -> list[str]:
    """Return what in `source` breaks the rules, one sentence each."""
    layer, tree = find_layer(module), ast.parse(source)
    found = []
    for target in find_imports(tree, module.rpartition(".")[0], modules()):
        name, top = target.target, target.target.partition(".")[0]
        if top == "asyncsmtp":
            if find_layer(name) not in ALLOWED[layer] and not (target.type_only and layer == "errors"):
                found.append(f"{layer} imports from a higher layer: {name}")
            elif find_layer(name) == layer and not target.type_only:
                ranks = dict(find_levels(name))
                if any(level < ranks.get(parent, level) for parent, level in find_levels(module)):
                    found.append(f"{module} imports from a higher folder: {name}")
        if any(
            folders & {*module.split(".")[:-1]} and folders & {*name.split(".")[:-1]} - {*module.split(".")}
            for folders in INDEPENDENT
        ):
            found.append(f"{module} imports from a parallel implementation: {name}")
        if layer in PURE and top in IMPURE:
            found.append(f"{layer} is pure and imports {name}")
        if top == "smtplib":
            found.append("smtplib hides the protocol that this package implements")
        if top == "subprocess" and layer not in MAY_RUN_COMMANDS and module not in RUN_INTERPRETER:
            found.append(f"{layer} runs commands")
    return found + list(calls_not_allowed(tree, layer))


def calls_not_allowed(tree: ast.AST, layer: str) -> Iterator[str]:
    """Yield each call that reads a clock or a file in a pure layer, or starts a shell in any."""
    reads_files = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and (layer, node.name) in MAY_READ_FILES
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
            if layer in PURE and isinstance(node.func, ast.Attribute) and name in CLOCKS:
                yield f"{layer} is pure and reads the clock: {ast.unparse(node)}"
            if layer in PURE and name in FILE_ACCESS and id(node) not in reads_files:
                yield f"{layer} is pure and opens a file: {ast.unparse(node)}"
            if ast.unparse(node.func) in {"os.system", "os.popen"}:
                yield f"a shell: {ast.unparse(node)}"
        if isinstance(node, ast.keyword) and node.arg == "shell" and ast.unparse(node.value) != "False":
            yield "a shell: shell=True"


def import_graph(*, with_types: bool = False) -> dict[str, set[str]]:
    """Return module -> modules of the package that it imports, at the top or late.

    Args:
        with_types: with the imports for the type checker too, but for those of `errors`, which may name what its
            errors carry.
    """
    graph = {}
    for module, path in modules().items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        graph[module] = {
            found.target
            for found in find_imports(parse_module(module), package, modules())
            if found.target in modules()
            and found.target != module
            and (not found.type_only or (with_types and module != "asyncsmtp.errors"))
        }
    return graph


def find_folder(module: str) -> str:
    """Return the folder of a layer that a module lies in (`asyncsmtp.mail.templates`), or the module beside them."""
    names = module.split(".")
    return ".".join(names[:3]) if len(names) > 3 else module


def cycles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected components of more than one module, each sorted (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for neighbour in sorted(graph[node]):
            if neighbour not in index:
                visit(neighbour)
                low[node] = min(low[node], low[neighbour])
            elif neighbour in stack:
                low[node] = min(low[node], index[neighbour])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                found.append(sorted(component))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return sorted(found)


@pytest.mark.parametrize("module", modules())
def test_imports_go_down_only(module: str) -> None:
    """A layer that imports from the one above cannot be tested, understood or used alone."""
    path = modules()[module]
    name = f"{module}.__init__" if path.name == "__init__.py" and module != "asyncsmtp" else module
    assert find_faults(path.read_text(encoding="utf-8"), name) == []


@pytest.mark.slow
def test_no_modules_import_each_other() -> None:
    """Modules in a circle, late imports and type-only ones included, can only be read and changed together."""
    assert cycles(import_graph(with_types=True)) == []


def test_no_file_beside_folders_is_in_a_circle_with_one() -> None:
    """A file beside a layer's folders stands above those that it imports and below those that import it."""
    graph: dict[str, set[str]] = {}
    for module, targets in import_graph().items():
        graph.setdefault(find_folder(module), set()).update(map(find_folder, targets))
    assert cycles(graph) == []


def test_every_folder_has_its_place_in_the_order() -> None:
    """A folder without one would be checked against nothing."""
    placed = {(parent, name) for parent, levels in FOLDERS.items() for level in levels for name in level.split()}
    missing = [
        f"{layer}/{folder.name}"
        for layer in (*LAYERS, "testing")
        if layer not in UNORDERED and (PACKAGE / layer).is_dir()
        for folder in sorted((PACKAGE / layer).iterdir())
        if folder.is_dir() and any(folder.rglob("*.py")) and (layer, folder.name) not in placed
    ]
    assert missing == []


def test_every_layer_is_known() -> None:
    """A new layer gets its place among the others before anything imports it."""
    assert {find_layer(module) for module in modules()} - ALLOWED.keys() == set()


def test_only_one_file_runs_commands() -> None:
    """WO-17: `--password-command` runs what the user typed; nothing else in the package starts a program.

    FT-57: workbooks are read by this interpreter, in a process with limits; it also sends for a run of several.
    """
    runners = {module for module, path in modules().items() if "subprocess" in path.read_text(encoding="utf-8")}
    assert runners <= {"asyncsmtp.cli.secret_sources", *RUN_INTERPRETER, RUNS_WORKERS}
    for module in RUN_INTERPRETER:
        calls = [
            node
            for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("subprocess.")
        ]
        assert [ast.unparse(call.args[0]).split(",")[0] for call in calls] == ["[sys.executable"]
        assert not [keyword for call in calls for keyword in call.keywords if keyword.arg == "shell"]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("asyncsmtp.protocol.replies", "from asyncsmtp.mail.message import Message"),
        ("asyncsmtp.protocol.replies", "def late():\n    import asyncsmtp.client"),
        ("asyncsmtp.mail.headers", "from ..client import relay"),
        ("asyncsmtp.client.pool.pool", "from asyncsmtp import bulk"),
        ("asyncsmtp.bulk.suppression", "from asyncsmtp.cli.main import main"),
        ("asyncsmtp.bulk.campaign", "from asyncsmtp.web.app import app"),
        ("asyncsmtp.web.app", "from asyncsmtp.cli.main import main"),
        ("asyncsmtp.client.session.session", "from asyncsmtp.client.pool.pool import Pool"),
        ("asyncsmtp.mail.signing.dkim", "from asyncsmtp.mail.checks.dns_rules import Spf"),
        ("asyncsmtp.bulk.ledger.base", "from asyncsmtp.bulk.running.runner import Run"),
        ("asyncsmtp.bulk.ledger.sqlite.store", "from asyncsmtp.bulk.running.runner import Run"),
        ("asyncsmtp.bulk.ledger.postgres.store", "from asyncsmtp.bulk.ledger.sqlite.writer import Writer"),
        ("asyncsmtp.testing.relay", "from asyncsmtp.mail.message import Message"),
        ("asyncsmtp.bulk.ledger", "if TYPE_CHECKING:\n    from asyncsmtp.cli.main import main"),
        ("asyncsmtp.protocol.client", "import socket"),
        ("asyncsmtp.mail.headers", "from os import urandom"),
        ("asyncsmtp.mail.headers", "date = datetime.now(UTC)"),
        ("asyncsmtp.mail.attachment", "def load(path):\n    return path.read_bytes()"),
        ("asyncsmtp.protocol.content", "def from_path(path):\n    return open(path)"),
        ("asyncsmtp.client.session.session", "import smtplib"),
        ("asyncsmtp.client.config.relay", "import subprocess"),
        ("asyncsmtp.cli.options", "run(line, shell=True)"),
    ],
)
def test_each_kind_of_fault_is_found(module: str, source: str) -> None:
    """A check that cannot fail checks nothing."""
    assert len(find_faults(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("asyncsmtp.errors", "if TYPE_CHECKING:\n    from asyncsmtp.protocol.replies import Reply"),
        ("asyncsmtp.client.pool.pool", "from asyncsmtp.client.session.session import Session"),
        ("asyncsmtp.client.session.session", "import asyncio"),
        ("asyncsmtp.bulk.running.runner", "from asyncsmtp.mail.message import Message"),
        ("asyncsmtp.bulk.ledger.sqlite.store", "from asyncsmtp.bulk.ledger.base import BaseLedger"),
        ("asyncsmtp.web.app", "from asyncsmtp.testing.relay import Sandbox"),
        ("asyncsmtp.mail.attachment", "class A:\n    @classmethod\n    def from_path(cls, p):\n        p.read_bytes()"),
    ],
)
def test_allowed_imports_are_no_fault(module: str, source: str) -> None:
    """Down, and within one folder, is allowed; so is `errors` naming for the type checker what its errors carry."""
    assert find_faults(source, module) == []


def test_a_circle_is_found() -> None:
    """Of two, and of three by way of a detour; a diamond is no circle."""
    assert cycles({"a": {"b"}, "b": {"a"}, "c": set()}) == [["a", "b"]]
    assert cycles({"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": set()}) == [["a", "b", "c"]]
    assert cycles({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}) == []
