"""Long texts from elsewhere: names of files, values of header fields, lines of Markdown."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from asyncsmtp.mail.attachment import sanitize_filename
from asyncsmtp.mail.conversion.convert import _IMAGE, _TABLE
from asyncsmtp.mail.headers import _WORDS
from asyncsmtp.mail.templates.variables import _STYLE_SHEET

LONG = 200_000


@pytest.mark.parametrize(
    "read", [sanitize_filename, _WORDS.findall, _TABLE.fullmatch, _IMAGE.findall, _STYLE_SHEET.findall]
)
def test_time_grows_with_the_length(read: Callable[[str], object]) -> None:
    """By the square, the spaces alone would take minutes."""
    for unit in (" ", ".", "a ", "| ", "-", "- ", "|-", ":", "\t", "<", "![", "![](", "<style ", "\\", "/"):
        for text in (unit * (LONG // len(unit)), f"a{unit * (LONG // len(unit))}|x", f"a{unit * (LONG // len(unit))}"):
            began = time.process_time()
            read(text)
            assert time.process_time() - began < 5, unit


@pytest.mark.parametrize(
    ("name", "kept"), [(" . a. b . ", "a. b"), ("...", "attachment"), ("a", "a"), ("a .b", "a .b")]
)
def test_the_ends_of_a_name_are_stripped(name: str, kept: str) -> None:
    assert sanitize_filename(name) == kept


def test_words_keep_the_spaces_before_them() -> None:
    assert _WORDS.findall("  a b\t c ") == [("  ", "a"), (" ", "b"), ("\t ", "c")]


@pytest.mark.parametrize(("line", "is_rule"), [("| - | :-: |", True), (" |---", True), ("-|-", True), ("| |", False)])
def test_the_line_below_the_head_of_a_table(line: str, is_rule: bool) -> None:
    assert bool(_TABLE.fullmatch(line)) is is_rule
