"""What is printed harms no terminal, and a reader who leaves harms no run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from asyncsmtp.cli.output import console


def test_foreign_bytes_reach_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """CT-01: escape sequences, C1 controls and bidi overrides are shown as text."""
    console.print_info("a\x1b]0;pwn\x07 b\x9b31m c\u202e d")
    console.print_result("e\x1b[31m")
    printed = capsys.readouterr()
    assert printed.err == "a\\x1b]0;pwn\\x07 b\\x9b31m c\\u202e d\n"
    assert printed.out == "e\\x1b[31m\n"


def test_lines_of_ours_stay_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A line break that we wrote is layout, not data."""
    console.print_info("one\ntwo")
    assert capsys.readouterr().err == "one\ntwo\n"


def _run(code: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run `code` with a stdout whose reader is gone from the start."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run(
            [sys.executable, "-c", "from asyncsmtp.cli.output import console; console.configure_streams()\n" + code],
            stdout=writing,
            stderr=subprocess.PIPE,
            env=os.environ | environment,
        )
    finally:
        os.close(writing)


def test_a_closed_stdout_is_reported_and_kills_nothing() -> None:
    """CT-05: `asyncsmtp bulk … --json | head` must go on sending, and end without a complaint."""
    ended = _run(
        "told = [console.print_result('x') for _ in range(3)]; console.print_info(str(told[0])); raise SystemExit(7)"
    )
    assert ended.returncode == 7
    assert ended.stderr == b"False\n"


def test_no_stdout_at_all_kills_nothing() -> None:
    """CT-05: started with `>&-`, Python has no sys.stdout."""
    ended = _run(
        "import sys; sys.stdout = sys.stderr = None; console.configure_streams()\n"
        "console.print_info('x'); console.print_result('x')"
    )
    assert ended.returncode == 0


def test_an_ascii_locale_escapes_what_it_cannot_write() -> None:
    """CT-05: a name with an accent is no reason to die under LC_ALL=C."""
    ended = _run("console.print_info('Łukasz → ok')", PYTHONIOENCODING="ascii")
    assert ended.returncode == 0
    assert ended.stderr == b"\\u0141ukasz \\u2192 ok\n"


def test_what_is_read_by_a_program_is_escaped_too() -> None:
    """CT-05: standard output is strict by itself, and would end the command."""
    code = (
        "from asyncsmtp.cli.output import console; console.configure_streams(); console.print_result('Łukasz → ok “x”')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, b'\\u0141ukasz \\u2192 ok "x"\n')


def test_nobody_is_asked_without_a_terminal() -> None:
    """A prompt in a cron job hangs for ever."""
    assert not console.is_interactive()
