"""The tests can fail: each of these small mistakes, put into a copy of the package, is found out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import asyncsmtp

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SOURCE = Path(asyncsmtp.__file__).parent
TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Mutant:
    """Changes of the source, file by file, and the tests of the project that must notice."""

    changes: tuple[tuple[str, str, str], ...]
    file: str
    check: str  # as pytest's -k takes it


MUTANTS = {
    "M5: one reply is skipped behind a refused RCPT": Mutant(
        (
            (
                "protocol/client.py",
                "            for reply in self._reader.receive(data):\n",
                "            replies = self._reader.receive(data)\n            for reply in replies:\n",
            ),
            (
                "protocol/client.py",
                "                yield self._answer(reply)\n",
                (
                    "                answered = self._answer(reply)\n"
                    "                yield answered\n"
                    "                if answered.command is not None and answered.command.verb is Verb.RCPT:\n"
                    "                    next(replies, None)\n"
                ),
            ),
        ),
        "client/test_session.py",
        "refusals_among_many_go_to_the_right_senders",
    ),
    "M2: a commit is not synchronised": Mutant(
        (("bulk/ledger/sqlite/ledger_file.py", '"synchronous = FULL"', '"synchronous = OFF"'),),
        "bulk/ledger/sqlite/test_ledger_opening.py",
        "durable_is_synchronised",
    ),
    "M3: a cursor passes the rows that are handed out": Mutant(
        (
            (
                "bulk/ledger/base.py",
                "                self._claimed.last_row = last_row\n",
                (
                    "                self._claimed.last_row = last_row\n"
                    "                await self.write_value('at', str(self._claimed.last_row))\n"
                ),
            ),
            (
                "bulk/ledger/base.py",
                "            if self._suppressions:\n                await",
                (
                    "            self._claimed.last_row = int(await self.read_value('at') or 0)\n"
                    "            if self._suppressions:\n                await"
                ),
            ),
        ),
        "bulk/ledger/sqlite/test_ledger.py",
        "claimed_at_a_crash",
    ),
    "M6: a message is said to be accepted before its reply": Mutant(
        (
            (
                "bulk/running/row_sender.py",
                "                return _failure(claim, RowState.IN_DOUBT, error)\n",
                "                return _failure(claim, RowState.ACCEPTED, error)\n",
            ),
        ),
        "cli/test_bulk.py",
        "lost_reply_is_in_doubt",
    ),
    "M7: the connection is closed where it must be aborted": Mutant(
        (
            (
                "client/connection/smtp_connection.py",
                "        self.failure = error\n        self.writer.transport.abort()\n",
                "        self.failure = error\n        self.writer.transport.close()\n",
            ),
        ),
        "client/test_cancelling.py",
        "does_not_read_the_session_is_aborted or never_sees_the_end_of_data",
    ),
    # Octets in the segment of the 220 meet two guards, the reader's residue and the state that takes none; with one
    # left, the other still stands. Both go.
    "M9: octets in clear behind the 220 to STARTTLS are not looked for": Mutant(
        (
            ("protocol/client.py", "            if self.state is _TLS and data:\n", "            if False:\n"),
            (
                "protocol/client.py",
                "        if self.state is _TLS and not self._reader.is_empty:\n",
                "        if False:\n",
            ),
        ),
        "client/test_tls.py",
        "bytes_behind_the_220",
    ),
    "M10: the time counts from each read, not from the command": Mutant(
        (
            (
                "client/connection/smtp_connection.py",
                (
                    "        if exchange is None:  # part of a reply: the time for the whole of it goes on\n"
                    "            if self.protocol.is_closing:\n"
                ),
                "        if exchange is None:\n            if True:\n",
            ),
        ),
        "client/test_faults.py",
        "drip_does_not_stretch",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_found_out(tmp_path: Path, name: str) -> None:
    """Check the checker: with the mistake the named tests fail."""
    mutant = MUTANTS[name]
    ended = check(mutate(tmp_path, mutant.changes), mutant)
    assert ended.returncode == 1, ended.stdout + ended.stderr  # tests were run, and some failed
    assert " failed" in ended.stdout


@pytest.mark.parametrize("name", MUTANTS)
def test_the_copy_without_a_mistake_passes(tmp_path: Path, name: str) -> None:
    """Otherwise a mutant might be found out for being a copy."""
    ended = check(mutate(tmp_path, ()), MUTANTS[name])
    assert ended.returncode == 0, ended.stdout + ended.stderr


def mutate(home: Path, changes: tuple[tuple[str, str, str], ...]) -> Path:
    """Copy the package and make the mistakes; a mutant that no longer fits the source is an error."""
    shutil.copytree(SOURCE, home / "asyncsmtp", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(TESTS, home / "tests", ignore=shutil.ignore_patterns("__pycache__", "mutants"))
    shutil.copy(TESTS.parent / "pyproject.toml", home)
    for file, right, wrong in changes:
        source = (home / "asyncsmtp" / file).read_text(encoding="utf-8")
        if source.count(right) != 1:
            raise LookupError(f"{file} has changed: find another way to make this mistake")
        (home / "asyncsmtp" / file).write_text(source.replace(right, wrong), encoding="utf-8")
    return home


def check(home: Path, mutant: Mutant) -> subprocess.CompletedProcess[str]:
    """Run the mutant's tests on the copy, on asyncio's loop."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/{mutant.file}"]
    environment = {**os.environ, "PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    for name in [name for name in environment if name.startswith("PYTEST_")]:
        del environment[name]
    return subprocess.run(
        [*command, "-k", f"({mutant.check}) and not uvloop"],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
