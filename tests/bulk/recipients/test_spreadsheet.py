"""A workbook as recipients: its first sheet, cells as they are seen, rows by their numbers in the sheet."""

from __future__ import annotations

import sys
from datetime import date, datetime, time
from pathlib import Path

import openpyxl
import pytest

from asyncsmtp.bulk.recipients.file import RecipientFile
from asyncsmtp.bulk.recipients.recipient import Problem, Recipient
from asyncsmtp.errors import MissingDependency, RecipientError


def workbook(path: Path, *rows: tuple[object, ...]) -> Path:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.create_sheet("another").append(["not", "this"])
    book.save(path)
    return path


async def read(path: Path) -> list[Recipient | Problem]:
    return [row async for batch in RecipientFile(path).batches() for row in batch]


async def test_cells_are_what_a_person_sees(tmp_path: Path) -> None:
    """Numbers without a point where they are whole, dates and times by ISO 8601, a comma and a line break kept."""
    path = workbook(
        tmp_path / "people.xlsx",
        ("E-Mail", "name", "no", "share", "since", "at", "paid", "note"),
        ("zoe@example.org", "Zoë, Köln", 4711, 0.5, date(2026, 3, 1), datetime(2026, 3, 1, 9, 30), True, "a\nb"),
        (),
        ("bob@example.org", "=1+1", 12345678901234, None, None, time(9, 5), False, ""),
    )
    zoe, bob = await read(path)
    assert isinstance(zoe, Recipient)
    assert list(zoe.fields.values()) == [
        *("zoe@example.org", "Zoë, Köln", "4711", "0.5", "2026-03-01", "2026-03-01 09:30:00", "true", "a\nb")
    ]
    assert isinstance(bob, Recipient)
    assert (bob.row, bob.fields["no"], bob.fields["share"], bob.fields["at"]) == (2, "12345678901234", "", "09:05:00")


async def test_a_row_that_cannot_be_mailed_is_named_by_its_place_in_the_sheet(tmp_path: Path) -> None:
    path = workbook(tmp_path / "people.xlsx", ("email",), ("ann@example.org",), (None,), ("nobody",))
    rows = await read(path)
    assert isinstance(rows[1], Problem)
    assert (rows[1].row, rows[1].line) == (2, 4)


async def test_a_large_sheet_comes_in_pieces_and_has_a_digest(tmp_path: Path) -> None:
    path = workbook(tmp_path / "people.xlsx", ("email",), *[(f"r{n}@example.org",) for n in range(1300)])
    file = RecipientFile(path)
    rows = [row async for batch in file.batches() for row in batch]
    assert [row.row for row in rows] == list(range(1, 1301))
    assert file.digest


@pytest.mark.parametrize("octets", [b"", b"email\nann@example.org\n", b"PK\x03\x04 and no more"])
async def test_a_file_that_is_none_is_refused(tmp_path: Path, octets: bytes) -> None:
    """TF-09: with what to do."""
    path = tmp_path / "people.xlsx"
    path.write_bytes(octets)
    with pytest.raises(RecipientError, match=r"people\.xlsx cannot be read as a workbook .*: save it as CSV"):
        await read(path)


async def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workbook(tmp_path / "people.xlsx", ("email",))
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    with pytest.raises(MissingDependency, match=r"asyncsmtp\[xlsx\]"):
        await read(path)
