"""A random sample of small changes to the package, and how many of them the tests notice.

`python -m tests.mutants.sample --count 300 --seed 7` runs the tests once with coverage, to learn which tests run which
lines (`--coverage FOLDER` keeps that for the next time), then makes one change after the other in a copy of the
project, and runs the tests that run the changed line until one fails. It prints the survivors as they are found, and
the figures by layer. Whoever reads a survivor decides whether it changes behaviour at all; many do not.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
import queue
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import venv
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from coverage.numbits import numbits_to_nums

__all__ = ["Change", "TestMap", "changes_of_source", "main"]

ROOT = Path(__file__).parents[2]
COPIED = ("asyncsmtp", "tests", "docs", "examples", "benchmarks", ".ci")
LEFT_OUT = ("__pycache__", ".hypothesis", "*.pyc")

COMPARED = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
COMPUTED = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "//", ast.Div: "*", ast.FloorDiv: "*", ast.Mod: "//",
    ast.BitOr: "&", ast.BitAnd: "|", ast.LShift: ">>", ast.RShift: "<<",
}  # fmt: skip

COVERAGE = """\
[run]
source = asyncsmtp
branch = false
parallel = true
sigterm = true
context = ${{PYTEST_CURRENT_TEST-}}
data_file = {data}
"""

QUICK = 60
"""So many of the quickest tests run first, in a process of their own."""

SECONDS = 60.0
"""So long the tests of one change may take, as measured when all were run."""


@dataclass(frozen=True)
class Change:
    """A part of a source file's text, and what is written in its place."""

    file: str
    line: int
    start: int
    end: int
    new: str
    kind: str
    run_by: frozenset[int]
    """The lines whose tests are to notice: the changed ones, or those of the functions that an imported line serves."""

    @property
    def layer(self) -> str:
        """The folder of the package, or the file directly in it."""
        return Path(self.file).parts[1]

    def apply(self, source: bytes) -> bytes:
        """Return the changed source."""
        return source[: self.start] + self.new.encode() + source[self.end :]

    def describe(self, source: bytes) -> str:
        """Return place and change in one line."""
        old = " ".join(source[self.start : self.end].decode().split())
        return f"{self.file}:{self.line} {self.kind}: {old[:90]!r} -> {' '.join(self.new.split())[:90]!r}"


def changes_of_source(file: str, source: bytes) -> Iterator[Change]:
    """Yield every small change of one source file that is to be noticed: no annotation, docstring, message, assert."""
    tree = ast.parse(source)
    begins = [0]
    for line in source.splitlines(keepends=True):
        begins.append(begins[-1] + len(line))

    in_functions = frozenset(line for function in ast.walk(tree) for line in body_lines(function))
    served, users = [in_functions], lines_by_name(tree)

    def place(node: ast.AST) -> tuple[int, int]:
        first = begins[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        return first, begins[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]

    def change(node: ast.AST, new: str, kind: str, part: tuple[int, int] | None = None) -> Change:
        start, end = part or place(node)
        lines = frozenset(range(node.lineno, node.end_lineno + 1))  # type: ignore[attr-defined]
        return Change(file, node.lineno, start, end, new, kind, lines & in_functions or served[-1])  # type: ignore[attr-defined]

    def text(node: ast.AST) -> str:
        start, end = place(node)
        return source[start:end].decode()

    def between(node: ast.AST, left: ast.AST, right: ast.AST, new: str, kind: str) -> Iterator[Change]:
        start, end = place(left)[1], place(right)[0]
        old = source[start:end].decode()
        if "#" not in old:  # a comment between the operands: leave it
            brackets = old.count(")"), old.count("(")
            yield change(node, ")" * brackets[0] + f" {new} " + "(" * brackets[1], kind, (start, end))

    def visit(node: ast.AST) -> Iterator[Change]:
        if isinstance(node, (ast.Assert, ast.Import, ast.ImportFrom)) or is_for_types(node):
            return
        match node:
            case ast.Compare(left=left, ops=[operator], comparators=[right]):
                yield from between(node, left, right, COMPARED[type(operator)], "comparison")
            case ast.BoolOp(op=operator, values=[left, right, *_]):
                new = "or" if isinstance(operator, ast.And) else "and"
                yield from between(node, left, right, new, "and, or")
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in COMPUTED:
                yield from between(node, left, right, COMPUTED[type(operator)], "arithmetic")
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield change(node, f"bool({text(operand)})", "not left out")
            case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
                yield change(test, f"(not ({text(test)}))", "condition reversed")
            case ast.Constant(value=bool(value)):
                yield change(node, str(not value), "constant")
            case ast.Constant(value=int(value) | float(value)):
                yield change(node, f"({value} + 1)", "constant")
            case ast.Constant(value=bytes(value)) if value and b" " not in value:
                yield change(node, repr(value + b"X"), "constant")
            case ast.Constant(value=str(value)) if value and value == value.strip() and " " not in value:
                yield change(node, repr(value + "X"), "constant")
            case ast.Return(value=ast.expr() as value) if not is_none(value):
                yield change(value, "None", "result")
            case ast.Expr(value=ast.Call() | ast.Await()) | ast.Raise() | ast.AugAssign() | ast.Delete():
                yield change(node, "pass", "statement left out")
            case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
                yield change(node, "pass", "statement left out")
            case ast.Continue():
                yield change(node, "break", "continue, break")
            case ast.Break():
                yield change(node, "continue", "continue, break")
        if own := body_lines(node) or lines_that_use(node, users):
            served.append(own)
        yield from (found for child in children(node) for found in visit(child))
        if own:
            served.pop()

    yield from visit(tree)


def body_lines(node: ast.AST) -> frozenset[int]:
    """Return the lines of a function's body, which run when it is called; nothing for other nodes."""
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return frozenset()
    return frozenset(range(node.body[0].lineno, (node.end_lineno or 0) + 1))


def lines_by_name(tree: ast.Module) -> dict[str, frozenset[int]]:
    """Return the lines of the functions that use each name which the module assigns, also by way of other names."""
    users: dict[str, frozenset[int]] = {}
    statements = [(assigned_names(each), each) for each in tree.body]
    for _ in range(3):  # a constant is made of others, which are made of others
        for assigned, statement in statements:
            own = [users.get(name, frozenset()) for name in assigned]
            for part in [statement] if assigned else [each for each in ast.walk(statement) if body_lines(each)]:
                lines = body_lines(part).union(*own)
                for used in ast.walk(part):
                    if isinstance(used, ast.Name):
                        users[used.id] = users.get(used.id, frozenset()) | lines
    return users


def lines_that_use(node: ast.AST, users: dict[str, frozenset[int]]) -> frozenset[int]:
    """Return the lines of the functions that use what a statement of the module assigns."""
    return frozenset().union(*(users.get(name, frozenset()) for name in assigned_names(node) if name.isidentifier()))


def assigned_names(node: ast.AST) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def is_for_types(node: ast.AST) -> bool:
    """Say whether a node is there for the type checker, or for readers."""
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__" | "__slots__")]) | ast.JoinedStr():
            return True
        case ast.FunctionDef(decorator_list=[ast.Name(id="overload"), *_]):
            return True
        case ast.ClassDef(bases=[ast.Name(id="Protocol"), *_]):
            return True
        case ast.Call(func=ast.Name(id="TypeVar" | "cast" | "NewType")):
            return True
    return False


def children(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes below, without annotations."""
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "type_params"}:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child


DECLARATIONS = (
    *("tests/test_exports.py", "tests/test_public_names.py", "tests/bulk/setup/test_config.py"),
    *("tests/cli/test_options.py", "tests/test_docs.py"),
)
"""Tests of what the modules declare, for what runs at an import only."""


class TestMap:
    """The tests that run each line of the package, with the seconds that each test takes."""

    __test__ = False

    def __init__(self, folder: Path) -> None:
        self._seconds: dict[str, float] = json.loads((folder / "seconds.json").read_text())
        self._lines: dict[str, list[tuple[str, frozenset[int]]]] = {}
        self._breadth = Counter[str]()  # lines of the package that a test runs
        with contextlib.closing(sqlite3.connect(folder / "coverage")) as database:
            contexts = dict(database.execute("select id, context from context"))
            files = "select f.path, l.context_id, l.numbits from line_bits l join file f on f.id = l.file_id"
            for path, context, numbits in database.execute(files):
                name = contexts[context].removesuffix(" (call)").removesuffix(" (setup)")
                if name in self._seconds:
                    file = f"asyncsmtp/{path.rpartition('/asyncsmtp/')[2]}"
                    lines = frozenset(numbits_to_nums(numbits))
                    self._lines.setdefault(file, []).append((name, lines))
                    self._breadth[name] += len(lines)

    def tests_of(self, change: Change) -> list[str]:
        """Return tests that run the lines, for at most SECONDS, those that run little else first.

        For what runs at an import these are the tests of declarations and those whose file has a word of the module's
        name in its own, before the others; if no test runs the lines, those of the folder that mirrors the file's.
        """
        found = {name for name, lines in self._lines.get(change.file, ()) if lines & change.run_by}
        folder, words = "/".join(("tests", *Path(change.file).parts[1:2])), list[str]()
        kept, total = [], 0.0
        if change.line not in change.run_by:
            kept = sorted(name for name in self._seconds if name.startswith(DECLARATIONS))
            total = sum(self._seconds[name] for name in kept)
            words = Path(change.file).stem.split("_")
        near = {
            name for name in self._seconds
            if name.startswith(folder) and any(word in name.partition("::")[0] for word in words)
        }  # fmt: skip
        found = found | near or {name for name in self._seconds if name.startswith(folder)}

        def order(name: str) -> tuple[bool, float, str]:
            return name not in near, self._breadth[name] * (0.05 + self._seconds[name]), name

        for name in sorted(found.difference(kept), key=order):
            if total + self._seconds[name] <= SECONDS:
                total += self._seconds[name]
                kept.append(name)
        return kept


class Workplace:
    """A copy of the project, with an environment whose Python imports the copy."""

    def __init__(self, home: Path) -> None:
        self.home = home
        for name in COPIED:
            if (ROOT / name).exists():
                shutil.copytree(ROOT / name, home / name, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
        for path in ROOT.iterdir():
            if path.is_file() and path.suffix != ".pyc":
                shutil.copy(path, home)
        venv.create(home / ".venv", symlinks=True)
        packages = next((home / ".venv" / "lib").glob("python3*/site-packages"))
        others = [path for path in sys.path if path.endswith("site-packages")]
        start = "import os; 'COVERAGE_PROCESS_START' in os.environ and __import__('coverage').process_startup()"
        (packages / "copy.pth").write_text("\n".join([str(home), *others, start]))

    def pytest(self, *arguments: str, seconds: float | None = None, **environment: str) -> str | None:
        """Run pytest in the copy and return what it prints, or None after so many seconds."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COVERAGE_"))}
        kept |= {"PYTHONPATH": str(self.home), **environment}
        process = subprocess.Popen(
            [self.home / ".venv/bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
            cwd=self.home,
            env=kept,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            return process.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def first_failure(self, change: Change, tests: Sequence[str]) -> str:
        """Make the change, run the tests and return the first that fails, or nothing."""
        path = self.home / change.file
        source = path.read_bytes()
        path.write_bytes(change.apply(source))
        try:
            for some in (tests[:QUICK], tests[QUICK:]):
                names = self.home / "names.txt"
                names.write_text("\n".join(some))
                files = sorted({name.partition("::")[0] for name in some})
                only = ("-p", "tests.mutants.contexts", "-x", "--timeout=40")
                printed = some and self.pytest(*only, *files, seconds=8 * SECONDS, ASYNCSMTP_ONLY_TESTS=str(names))
                if printed is None:
                    return "the tests did not end"
                for line in (printed or "").splitlines():
                    if line.startswith(("FAILED ", "ERROR ", "INTERNALERROR>", "ImportError")):
                        return line
                if printed and " passed" not in printed and " skipped" not in printed:
                    return printed.strip()[-200:].replace("\n", " ")  # the plugins or the collection failed
            return ""
        finally:
            path.write_bytes(source)


def run_with_coverage(work: Workplace, folder: Path, jobs: int) -> None:
    """Run the tests, but not those that kill processes, and keep in the folder which test ran which line."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = work.home / "coverage.ini"
    settings.write_text(COVERAGE.format(data=folder / "coverage"))
    work.pytest(
        "-m", "not kill", "-n", str(jobs), "-p", "tests.mutants.contexts",
        "--ignore=tests/mutants", "--ignore=tests/kill", "--ignore=tests/fuzz",
        COVERAGE_PROCESS_START=str(settings), ASYNCSMTP_TEST_SECONDS=str(folder / "seconds.json"),
    )  # fmt: skip
    subprocess.run(
        [sys.executable, "-m", "coverage", "combine", "-q", f"--rcfile={settings}"], cwd=work.home, check=True
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the changes of a sample and print the survivors and the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.sample", description=__doc__)
    parser.add_argument("--count", type=int, default=300, help="changes to make (300)")
    parser.add_argument("--seed", type=int, default=1, help="of the random choice (1)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="changes at a time")
    parser.add_argument("--only", default="asyncsmtp/", help="files whose name begins so, asyncsmtp/protocol say")
    parser.add_argument("--coverage", type=Path, help="a folder that keeps which test runs which line")
    parser.add_argument("--list", action="store_true", help="print the changes and make none")
    options = parser.parse_args(arguments)

    files = sorted(path for path in (ROOT / "asyncsmtp").rglob("*.py"))
    sources = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in files}
    sources = {file: source for file, source in sources.items() if file.startswith(options.only)}
    changes = [change for file, source in sources.items() for change in changes_of_source(file, source)]
    changes = [change for change in changes if is_code(change.apply(sources[change.file]))]
    chosen = random.Random(options.seed).sample(changes, min(options.count, len(changes)))
    print(f"{len(changes)} changes are possible, {len(chosen)} are made, seed {options.seed}", flush=True)
    if options.list:
        print(*(change.describe(sources[change.file]) for change in chosen), sep="\n")
        return 0

    with tempfile.TemporaryDirectory(prefix="asyncsmtp-sample-") as folder, ThreadPoolExecutor(options.jobs) as pool:
        places: queue.SimpleQueue[Workplace] = queue.SimpleQueue()
        for number in range(options.jobs):
            (home := Path(folder) / str(number)).mkdir()
            places.put(Workplace(home))
        kept = options.coverage or Path(folder) / "kept"
        if not (kept / "coverage").exists():
            run_with_coverage(work := places.get(), kept, options.jobs)
            places.put(work)
        tests = TestMap(kept)

        def judge(change: Change) -> bool:
            work = places.get()
            try:
                failure = work.first_failure(change, wanted := tests.tests_of(change))
            finally:
                places.put(work)
            survived = "" if failure else f"SURVIVED {len(wanted)} tests"
            print(survived or "noticed", change.describe(sources[change.file]), failure[:120], flush=True)
            return bool(failure)

        noticed = list(pool.map(judge, chosen))

    total, found = Counter[str](), Counter[str]()
    for change, seen in zip(chosen, noticed, strict=True):
        for layer in (change.layer, "in all"):
            total[layer] += 1
            found[layer] += seen
    for layer, count in sorted(total.items(), key=lambda item: (item[0] == "in all", item[0])):
        print(f"{layer}: {found[layer]} of {count} noticed, {100 * found[layer] / count:.0f} %")
    return 0


def is_code(source: bytes) -> bool:
    """Say whether a changed source still compiles."""
    try:
        compile(source, "changed", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
