"""A workbook as recipients: its first sheet, cells as they are seen, rows by their numbers in the sheet."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from datetime import date, datetime, time
from io import BytesIO
from pathlib import Path

import openpyxl
import pytest

from asyncsmtp.bulk.recipients import spreadsheet, workbook_checks
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
        ("bob@example.org", "Bob", 12345678901234, None, datetime(2026, 3, 1), time(9, 5), False, ""),
    )
    zoe, bob = await read(path)
    assert isinstance(zoe, Recipient)
    assert list(zoe.fields.values()) == [
        *("zoe@example.org", "Zoë, Köln", "4711", "0.5", "2026-03-01", "2026-03-01 09:30:00", "true", "a\nb")
    ]
    assert isinstance(bob, Recipient)
    assert bob.row == 2
    assert list(bob.fields.values()) == [
        *("bob@example.org", "Bob", "12345678901234", "", "2026-03-01", "09:05:00", "false", "")
    ]


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


@pytest.mark.parametrize("suffix", [".xlsx", ".xlsm", ".xls", ".xlsb", ".ods", ".XLSX"])
async def test_a_workbook_is_known_by_its_name(tmp_path: Path, suffix: str) -> None:
    """Of whatever program; its content is not looked at as CSV."""
    path = tmp_path / f"people{suffix}"
    path.write_bytes(b"email\nann@example.org\n")
    with pytest.raises(RecipientError, match="cannot be read as a workbook"):
        await read(path)


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


SHEET = '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'

HEADER = '<row r="1"><c r="A1" t="inlineStr"><is><t>email</t></is></c></row>'


def replace_part(path: Path, part: str, pieces: Iterable[str]) -> Path:
    """Write another content into one part of a workbook, or add it, in pieces."""
    with zipfile.ZipFile(path) as old:
        parts = {name: old.read(name) for name in old.namelist() if name != part}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in parts.items():
            new.writestr(name, data)
        with new.open(part, "w", force_zip64=True) as file:
            for piece in pieces:
                file.write(piece.encode())
    return path


def cells(*references: str, value: str = "<is><t>x@example.org</t></is>") -> str:
    """Rows with one cell each."""
    numbers = [reference.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for reference in references]
    cell = '<c r="{}" t="inlineStr">{}</c>' if value else '<c r="{}" s="1"/>'
    pairs = zip(numbers, references, strict=True)
    return "".join(f'<row r="{number}">{cell.format(reference, value)}</row>' for number, reference in pairs)


def with_sheet(tmp_path: Path, *rows: str) -> Path:
    """A workbook whose first sheet has these rows."""
    path = workbook(tmp_path / "people.xlsx", ("email",))
    return replace_part(path, "xl/worksheets/sheet1.xml", [SHEET, HEADER, *rows, "</sheetData></worksheet>"])


@pytest.mark.parametrize(
    ("far", "size"),
    [
        ("XFD1048576", "1,048,576 rows of 16,384 cells"),
        ("AZ1048576", "1,048,576 rows of 52 cells"),
        ("A30000000", "30,000,000 rows of 1 cells"),
        ("ZZZZ2000", "2,000 rows of 475,254 cells"),
    ],
)
async def test_a_cell_far_away_is_named_and_not_reached(tmp_path: Path, far: str, size: str) -> None:
    """FT-57: the library asked for half a terabyte, and ended the process."""
    path = with_sheet(tmp_path, cells("A2", far))
    with pytest.raises(RecipientError) as caught:
        await read(path)
    assert f"people.xlsx has a cell at {far}, so that its sheet has {size}: delete what is far" in caught.value.reason


def test_a_sheet_may_have_so_many_cells_and_no_more() -> None:
    """FT-57: empty ones are counted, since the library makes them all; not read here, for it would."""
    last = workbook_checks.MAX_CELLS // 25
    workbook_checks.check_cells(BytesIO(f"{SHEET}{HEADER}{cells(f'Y{last}')}</sheetData></worksheet>".encode()))
    with pytest.raises(
        RecipientError, match=f"a cell at Y{last + 1}, so that its sheet has 1,000,001 rows of 25 cells"
    ):
        workbook_checks.check_cells(BytesIO(f"{SHEET}{HEADER}{cells(f'Y{last + 1}')}</sheetData></worksheet>".encode()))


async def test_far_cells_that_do_no_harm_are_allowed(tmp_path: Path) -> None:
    """FT-57: formats to the last cell, which people have; a wide sheet; a far cell in another sheet; a small table."""
    path = with_sheet(tmp_path, cells("A2"), cells("XFD1048576", value=""), '<row r="1048576" ht="15"/>')
    other = [SHEET, cells("XFD1048576"), "</sheetData></worksheet>"]
    replace_part(path, "xl/worksheets/sheet2.xml", other)
    assert [row.row for row in await read(path)] == [1]
    wide = workbook(tmp_path / "wide.xlsx", ("email", *range(500)), ("ann@example.org", *range(500)))
    (ann,) = await read(wide)
    assert ann.fields["499"] == "499"


@pytest.mark.parametrize(
    "part", ["xl/worksheets/sheet1.xml", "xl/sharedStrings.xml", "xl/media/image1.png", "docProps/x"]
)
async def test_a_workbook_that_unpacks_to_gigabytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """FT-57: zips of 2 MB ran for minutes; whichever part it is. The limit is lower here, to be quick."""
    assert spreadsheet.MAX_UNPACKED == 1 << 30
    monkeypatch.setattr(spreadsheet, "MAX_UNPACKED", 32 << 20)
    path = workbook(tmp_path / "people.xlsx", ("email",), ("ann@example.org",))
    assert len(await read(path)) == 1
    replace_part(path, part, (" " * (16 << 20) for _ in range(2)))
    assert path.stat().st_size < 100_000
    with pytest.raises(RecipientError, match=r"people\.xlsx has 32 MiB when it is unpacked, more than 32 MiB: save it"):
        await read(path)


async def test_a_workbook_may_unpack_to_the_limit_and_have_so_many_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FT-57: the limits themselves are allowed; a name in the archive may begin with a slash."""
    path = workbook(tmp_path / "people.xlsx", ("email",), ("ann@example.org",))
    with zipfile.ZipFile(path) as archive:
        size, number = sum(file.file_size for file in archive.infolist()), len(archive.infolist())
    monkeypatch.setattr(spreadsheet, "MAX_UNPACKED", size)
    assert len(await read(path)) == 1
    monkeypatch.setattr(spreadsheet, "MAX_UNPACKED", size - 1)
    with pytest.raises(RecipientError, match="when it is unpacked"):
        await read(path)
    monkeypatch.setattr(workbook_checks, "MAX_FILES", number)
    workbook_checks.check_size(str(path), size)
    monkeypatch.setattr(workbook_checks, "MAX_FILES", number - 1)
    with pytest.raises(RecipientError, match=f"has {number} files in it"):
        workbook_checks.check_size(str(path), size)


@pytest.mark.parametrize("target", ["worksheets/sheet2.xml", "/xl/worksheets/sheet2.xml"])
def test_the_first_sheet_is_the_one_that_the_workbook_names_first(tmp_path: Path, target: str) -> None:
    """FT-57: whatever the names of its files; where they are unknown, all are looked at."""
    path = workbook(tmp_path / "people.xlsx", ("email",))
    with zipfile.ZipFile(path) as archive:
        relations = archive.read("xl/_rels/workbook.xml.rels").decode()
    changed = re.sub(r"/?(xl/)?worksheets/sheet1\.xml", "X", relations)
    changed = re.sub(r"/?(xl/)?worksheets/sheet2\.xml", "worksheets/sheet1.xml", changed).replace("X", target)
    with zipfile.ZipFile(replace_part(path, "xl/_rels/workbook.xml.rels", [changed])) as archive:
        assert workbook_checks.find_sheet_parts(archive, "Sheet") == ["xl/worksheets/sheet2.xml"]
    with zipfile.ZipFile(replace_part(path, "xl/_rels/workbook.xml.rels", ["no XML"])) as archive:
        assert sorted(workbook_checks.find_sheet_parts(archive, "Sheet")) == [
            "xl/worksheets/sheet1.xml",
            "xl/worksheets/sheet2.xml",
        ]


async def test_a_workbook_of_many_files_is_refused(tmp_path: Path) -> None:
    """FT-57: each of them costs memory, also an empty one."""
    path = workbook(tmp_path / "people.xlsx", ("email",))
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(10_000):
            archive.writestr(f"x{number}", b"")
    with pytest.raises(RecipientError, match=r"people\.xlsx has 10,\d+ files in it, more than any workbook needs"):
        await read(path)


async def test_a_text_that_every_cell_repeats_is_not_written_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FT-57: one shared string of 100 KB, and a thousand cells that show it: a row is too long, or the whole is."""
    path = workbook(tmp_path / "people.xlsx", ("email",), ("ann@example.org",))
    head = '<sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><si><t>'
    replace_part(path, "xl/sharedStrings.xml", [f"{head}{'x' * 100_000}</t></si></sst>"])
    row = "".join('<c t="s"><v>0</v></c>' for _ in range(20))
    rows = [f"<row>{row}</row>" for _ in range(50)]
    replace_part(path, "xl/worksheets/sheet1.xml", [SHEET, HEADER, *rows, "</sheetData></worksheet>"])
    with pytest.raises(RecipientError, match=r"people\.xlsx, line 2: row 1 runs past 1048576 characters"):
        await read(path)
    monkeypatch.setattr(spreadsheet, "MAX_TEXT", 1 << 20)
    path = workbook(
        tmp_path / "people.xlsx", ("email", "text"), *[(f"r{n}@example.org", "x" * 1000) for n in range(3000)]
    )
    with pytest.raises(RecipientError, match=r"people\.xlsx has more than 1 MiB of text: save it as CSV"):
        await read(path)


def ods(path: Path, rows: int, columns: int) -> Path:
    """A sheet of OpenDocument with one cell that is repeated."""
    names = ("office", "table", "text")
    spaces = " ".join(f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in names)
    cell = f'<table:table-cell table:number-columns-repeated="{columns}" office:value-type="string"><text:p>x</text:p>'
    row = f'<table:table-row table:number-rows-repeated="{rows}">{cell}</table:table-cell></table:table-row>'
    body = f"<office:spreadsheet><table:table table:name='a'>{row}</table:table></office:spreadsheet>"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr("META-INF/manifest.xml", "<manifest/>")
        archive.writestr(
            "content.xml",
            f"<office:document-content {spaces}><office:body>{body}</office:body></office:document-content>",
        )
    return path


async def test_a_workbook_that_needs_too_much_memory_ends_only_its_own_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FT-57: where the size is not checked before; one cell of an .ods is repeated 24 million times."""
    monkeypatch.setattr(spreadsheet, "MAX_MEMORY", 512 << 20)
    with pytest.raises(
        RecipientError, match=r"cannot be read as a workbook: reading it takes more than 512 MiB of mem"
    ):
        await read(ods(tmp_path / "people.ods", 2_400, 10_000))


async def test_a_cell_of_an_ods_far_away_is_named(tmp_path: Path) -> None:
    """Cells that are repeated count as often."""
    with pytest.raises(
        RecipientError, match=r"people\.ods has a cell at NTP6000, so that its sheet has 6,000 rows of 10,"
    ):
        await read(ods(tmp_path / "people.ods", 6_000, 10_000))


@pytest.mark.slow
async def test_a_workbook_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FT-57: a limit of its process, since the library cannot be interrupted."""
    monkeypatch.setattr(spreadsheet, "MAX_CPU_TIME", 1)
    row = '<c t="inlineStr"><is><t>x</t></is></c>' * 6
    path = with_sheet(tmp_path, f"<row>{row}</row>" * 1_000_000)
    with pytest.raises(RecipientError, match="cannot be read as a workbook: reading it takes more than 1 seconds"):
        await read(path)


def children() -> set[str]:
    """The processes whose parent this one is, dead ones that nobody waited for included; servers of other tests too."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            if path.read_text(errors="replace").rpartition(")")[2].split()[1] == str(os.getpid()):
                found.add(path.parent.name)
    return found


async def test_what_is_left_early_leaves_no_process(tmp_path: Path) -> None:
    """FT-57: neither a reader that goes away, nor one that is cancelled."""
    before = children()
    path = workbook(tmp_path / "people.xlsx", ("email",), *[(f"r{n}@example.org",) for n in range(3000)])
    batches = RecipientFile(path).batches()
    assert len(await anext(batches)) == 500
    await batches.aclose()
    task = asyncio.create_task(read(path))
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert children() <= before


async def test_the_process_reads_nothing_but_the_workbook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FT-57: a module in the current folder, of the name of one that it imports, is not run."""
    path = workbook(tmp_path / "people.xlsx", ("email",), ("ann@example.org",))
    (tmp_path / "csv.py").write_text("raise SystemExit('run')", "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    assert len(await read(path)) == 1


async def test_a_program_without_an_interpreter_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FT-57: a frozen program would start itself."""
    path = workbook(tmp_path / "people.xlsx", ("email",))
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(RecipientError, match="there is no Python interpreter to read it: save it as CSV"):
        await read(path)
