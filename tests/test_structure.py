"""Modules are deep, not many: a reader opens few files to follow a row, and finds a subject in one of them."""

from __future__ import annotations

from tests.structure import (
    MAX_ENTRIES,
    MAX_LINES,
    MAX_ROW_FILES,
    MAX_SEND_FILES,
    MIN_AVERAGE_LINES,
    crossed_by_row,
    crossed_by_send,
    layout,
)


def test_files_are_long_enough_on_average() -> None:
    """At a hundred lines a file, one idea is spread over six of them."""
    assert layout().average >= MIN_AVERAGE_LINES


def test_no_file_is_too_long() -> None:
    """At six hundred lines there is a second subject in it."""
    assert {file: lines for file, lines in layout().lines.items() if lines > MAX_LINES} == {}


def test_no_folder_has_too_many_entries() -> None:
    """Those of a folder are taken in at a glance."""
    assert {folder: number for folder, number in layout().entries.items() if number > MAX_ENTRIES} == {}


def test_a_csv_row_crosses_few_files() -> None:
    """From the command to `results`: each file is one that a reader must have understood."""
    crossed = crossed_by_row()
    assert any(place.startswith("bulk/") for place in crossed)
    assert len(crossed) <= MAX_ROW_FILES, crossed


def test_one_send_crosses_few_files() -> None:
    """`asyncsmtp.send()` with a message of the standard library and a URL."""
    crossed = crossed_by_send()
    assert "protocol/client.py" in crossed
    assert len(crossed) <= MAX_SEND_FILES, crossed
