"""The rows of the design's tables, and the tests that show them: `python -m tests.rows` prints rows without a test.

A test shows a row when its docstring, or a comment of the transcript that it plays, carries the row's id. `rows.txt`
has the ids, `open_rows.txt` those that no test, or a test in part only, shows yet, each with what is missing. Tests of
`testing/` show what the scripted relay does, and so no row.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

__all__ = ["complaints", "ids_of_file", "ids_of_list", "main"]

HERE = Path(__file__).parent

PREFIXES = "AU|BL|D|FT|MH|N|P|PC|R|RE|SV|TF|TL|TV|W|WI|WO"
"""What an id begins with; ids of other tables, CT-05 say, are none of ours."""

ID = re.compile(rf"\b(?<!-)(?:{PREFIXES})-(?:[0-9]{{2}}|(?<=PC-)[a-z])\b(?!-)")


def ids_of_list(path: Path) -> list[str]:
    """The first word of each line that is neither empty nor a comment."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]


def ids_of_file(path: Path) -> set[str]:
    """The ids that the tests of a Python file, or the comments of a transcript, carry."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".txt":
        return {found for line in text.splitlines() if line.startswith("#") for found in ID.findall(line)}
    tests = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")
    ]
    return {found for test in tests for found in ID.findall(ast.get_docstring(test) or "")}


def complaints(rows: list[str], waiting: list[str], ids_by_file: dict[str, set[str]]) -> list[str]:
    """Return the faults, a line each. `ids_by_file` maps a file's name to the ids that its tests carry."""
    tested = set().union(*ids_by_file.values())
    return [
        *(f"{row} is listed twice" for row in sorted({row for row in rows if rows.count(row) > 1})),
        *(f"{row} has no test" for row in rows if row not in tested and row not in waiting),
        *(f"{row} is open, and no row" for row in waiting if row not in rows),
        *(
            f"{file} carries {row}, which is no row"
            for file in sorted(ids_by_file)
            for row in sorted(ids_by_file[file] - {*rows})
        ),
    ]


def main(folder: Path = HERE) -> int:
    """Print what is wrong in a folder of tests, and say by the exit code whether anything is."""
    files = (*folder.rglob("test_*.py"), *folder.rglob("*_conformance.py"))
    tests = (path for path in files if path.parent.name != "testing")
    ids_by_file = {
        str(path.relative_to(folder)): ids_of_file(path) for path in (*tests, *folder.glob("transcripts/*.txt"))
    }
    wrong = complaints(ids_of_list(folder / "rows.txt"), ids_of_list(folder / "open_rows.txt"), ids_by_file)
    for line in wrong:
        print(line)
    for line in (folder / "open_rows.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            print(f"open: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
