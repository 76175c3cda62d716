"""What must be known of a workbook before and beside the library that reads it: kind, size, and cells without a value.

All of it runs in the child process of `spreadsheet`, within its limits of memory and time.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from typing import IO
from xml.etree import ElementTree
from xml.parsers import expat

from asyncsmtp.errors import RecipientError
from asyncsmtp.protocol.replies import safe_text

__all__ = ["CellFaults", "check_kind", "check_sheet", "check_size", "column_letters", "find_sheet_parts"]

MAX_CELLS = 25_000_000  # from A1 to the last row and column: a million rows of 23 columns
MAX_FILES = 10_000  # in a workbook
_CHUNK = 1 << 20  # bytes of a sheet that are searched at once
_MAX_FAULTS = 100_000

CellFaults = dict[tuple[int, int], str]  # by row and column from 1: why the cell has no value

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_AGAIN = "save it as CSV, or again as .xlsx"
_NO_VALUE = "a formula without a value: open the workbook in a spreadsheet program, and save it again"


def check_kind(path: str) -> None:
    """Raise RecipientError if a file is no workbook that can be read; the message has no name of the file."""
    with open(path, "rb") as file:
        beginning = file.read(4096)
        rest = file.read(1 << 20) if beginning.startswith(_OLE) else b""
    if not beginning:
        raise RecipientError("cannot be read as a workbook (it is an empty file): save it as CSV, or again as .xlsx")
    if "EncryptedPackage".encode("utf-16-le") in beginning + rest:
        raise RecipientError(_protected())
    if beginning.startswith((_OLE, b"PK")):
        if zipfile.is_zipfile(path):
            _check_archive(path)
        return
    text = beginning.decode("utf-8", "ignore").lstrip("\ufeff\r\n\t ").lower()
    if text.startswith(("<html", "<!doctype html", "<table", "<?xml", "<meta", "<head")):
        why = "is a web page or XML under the name of a workbook"
        raise RecipientError(f"{why}: open it in a spreadsheet program, and save it as CSV or .xlsx")
    if text and b"\0" not in beginning:
        why = "cannot be read as a workbook (it is text)"
        raise RecipientError(f"{why}: save it as CSV, or give it a name that ends in .csv if it is one")
    raise RecipientError(f"cannot be read as a workbook (it is of no known kind): {_AGAIN}")


def _protected() -> str:
    return "is protected by a password: save it without one, or save it as CSV"


def _check_archive(path: str) -> None:
    with suppress(zipfile.BadZipFile, RuntimeError, KeyError, OSError), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if any(name.endswith((".iwa", "Index.zip")) for name in names):
            raise RecipientError("is a Numbers document: export it with File > Export To as Excel or CSV")
        manifest = next((each for each in archive.infolist() if each.filename == "META-INF/manifest.xml"), None)
        if manifest and manifest.file_size < _CHUNK and b"encryption-data" in archive.read(manifest):
            raise RecipientError(_protected())
        if not any(name.lower().lstrip("/").startswith(("xl/", "content.xml")) for name in names):
            raise RecipientError(f"cannot be read as a workbook (it is a ZIP archive without sheets): {_AGAIN}")


def check_size(path: str, max_unpacked: int) -> None:
    """Raise RecipientError if a workbook has too many files, or is too large unpacked; no name of it in the message."""
    with _archive(path) as archive:
        if archive is None:
            return
        files = archive.infolist()
        if len(files) > MAX_FILES:
            raise RecipientError(f"has {len(files):,} files in it, more than any workbook needs: save it as CSV")
        size = sum(file.file_size for file in files)
        if size > max_unpacked:
            why = f"has {size >> 20:,} MiB when it is unpacked, more than {max_unpacked >> 20:,} MiB"
            raise RecipientError(f"{why}: save it as CSV")


class _archive:  # noqa: N801
    """A workbook as a ZIP archive; None for one of another kind or a damaged one: the library says what it is."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._archive: zipfile.ZipFile | None = None

    def __enter__(self) -> zipfile.ZipFile | None:
        with suppress(zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            self._archive = zipfile.ZipFile(self._path)
        return self._archive

    def __exit__(self, *error: object) -> bool:
        if self._archive is not None:
            self._archive.close()
        kind = error[0]
        return isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, RecipientError)


def check_sheet(path: str, name: str | None = None) -> CellFaults:
    """Check that the cells of a sheet are not too far apart; return those that have no value though they should.

    Args:
        name: of the sheet; None for all of an .ods, which the library reads as one.
    Raises:
        RecipientError: they are too far apart; the message has the cell, and no name of the file.
    """
    faults: CellFaults = {}
    with _archive(path) as archive:
        if archive is None:
            return faults
        if "content.xml" in archive.namelist():
            with archive.open("content.xml") as content:
                _OdsReader(name, faults).read(content)
            return faults
        for part in find_sheet_parts(archive, name):
            with archive.open(part) as sheet:
                check_cells(sheet, faults)
    return faults


_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"


def find_sheet_parts(archive: zipfile.ZipFile, name: str | None) -> list[str]:
    """Return the part of an xlsx that has a sheet, by its name; all sheets where it is unknown."""
    parts = [each for each in archive.namelist() if re.fullmatch(r"/?xl/worksheets/[^/]+\.xml", each, re.IGNORECASE)]
    try:
        # Entities that multiply are refused by expat 2.4.1 and newer, and memory is limited here.
        book = ElementTree.fromstring(archive.read("xl/workbook.xml"))  # noqa: S314
        relations = ElementTree.fromstring(archive.read("xl/_rels/workbook.xml.rels"))  # noqa: S314
    except (KeyError, ElementTree.ParseError):
        return parts
    sheets = [element for element in book.iter() if element.tag.endswith("}sheet")]
    wanted = next((element.get(_RELATION) for element in sheets if element.get("name") == name), None)
    targets = [element.get("Target", "") for element in relations if element.get("Id") == wanted]
    found = [part for part in parts if targets and part.lstrip("/").endswith(targets[0].lstrip("/"))]
    return found or parts


# Of cells that may make the sheet too large: beyond column W, or beyond row 999,999. Of an ordinary sheet none matches,
# so that the search costs little. A cell with a format but without a value is not read.
_FAR = re.compile(rb' r="([A-Za-z]{2,7}|[X-Zx-z]|[A-Za-z](?=[0-9]{7}))([0-9]{1,10})"[^<>]{0,200}(?<!/)>(?=[^<]|<[^/])')
_ROW = re.compile(rb'<(?:\w+:)?row [^<>]{0,200}?\br="([0-9]{1,10})"')
_OVERLAP = 512  # bytes: more than a match is long

# A cell with a formula and no value, as programs write it that do not calculate, or with an error such as #N/A. An
# empty text (t="str") is a value. The library reads all of these as empty.
_FORMULA = rb"<(?:\w+:)?f\b[^<>]{0,300}(?:/>|>[^<>]{0,40000}</(?:\w+:)?f>)"
_CELL = rb"<(?:\w+:)?c (?P<what>[^<>]{0,200}(?<!/))>"
_WITHOUT_VALUE = re.compile(_CELL + _FORMULA + rb"(?:<(?:\w+:)?v ?/>|<(?:\w+:)?v></(?:\w+:)?v>)?</(?:\w+:)?c>")
_ERROR = re.compile(_CELL + rb"(?:" + _FORMULA + rb")?<(?:\w+:)?v>(?P<value>#[^<>]{0,40})</")
_REFERENCE = re.compile(rb'\br="([A-Z]{1,7})([0-9]{1,10})"')
_TEXT_TYPE = re.compile(rb'\bt="str"')
_ERROR_TYPE = re.compile(rb'\bt="e"')
_FORMULA_OVERLAP = 64 * 1024  # bytes


def check_cells(sheet: IO[bytes], faults: CellFaults | None = None) -> None:
    """Check that the cells of a sheet of an xlsx are not too far apart; add those without a value.

    Raises:
        RecipientError: they are too far apart.
    """
    last_row = last_column = 1
    widest, name = 0, ""
    text = rest = b""
    while block := sheet.read(_CHUNK):
        text = text[-_OVERLAP:] + block
        for match in _FAR.finditer(text):
            column, row = _column_number(match[1]), int(match[2])
            if column > widest or row > last_row:
                name = f"{match[1].decode().upper()}{row}"
            widest = last_column = max(last_column, column)
            last_row = max(last_row, row)
        for match in _ROW.finditer(text, max(0, text.rfind(b"row ") - 2)):
            last_row = max(last_row, int(match[1]))
        if name:
            _check_area(name, last_row, last_column)
        rest = rest[-_FORMULA_OVERLAP:] + block
        if faults is not None and len(faults) < _MAX_FAULTS and (b"<f" in rest or b":f" in rest or b't="e"' in rest):
            _add_faults(rest, faults)


def _add_faults(text: bytes, faults: CellFaults) -> None:
    for match in _WITHOUT_VALUE.finditer(text):
        if not _TEXT_TYPE.search(match["what"]) and (place := _REFERENCE.search(match["what"])):
            faults[int(place[2]), _column_number(place[1])] = _NO_VALUE
    for match in _ERROR.finditer(text):
        if _ERROR_TYPE.search(match["what"]) and (place := _REFERENCE.search(match["what"])):
            faults[int(place[2]), _column_number(place[1])] = _describe_error(match["value"].decode("ascii", "replace"))


def _describe_error(value: str) -> str:
    return f"the error {safe_text(value, 40)} instead of a value: correct its formula"


def _check_area(name: str, rows: int, columns: int) -> None:
    if rows * columns > MAX_CELLS:
        why = f"has a cell at {name}, so that its sheet has {rows:,} rows of {columns:,} cells"
        raise RecipientError(f"{why}: delete what is far from the table, or save it as CSV")


def _column_number(letters: bytes) -> int:
    """Return the number of a column, from 1: XFD is 16384."""
    number = 0
    for letter in letters.upper():
        number = number * 26 + letter - 64
    return number


def column_letters(number: int) -> str:
    """Return the letters of a column, from 1: 16384 is XFD."""
    letters = ""
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(65 + rest) + letters
    return letters


class _OdsReader:
    """A reader of the tables of an .ods, for the places of cells alone.

    Args:
        name: the table whose faults are wanted; None for none.
    """

    def __init__(self, name: str | None, faults: CellFaults) -> None:
        self._name = name
        self._faults = faults
        self._is_wanted = False
        self._row = self._column = self._last_column = 0
        self._repeated_rows = self._repeated_cells = 1
        self._cell: Mapping[str, str] = {}
        self._text: list[str] | None = None
        self._found: list[tuple[int, str]] = []  # faults of the row
        self._depth = 0  # of tables: those in cells are not sheets

    def read(self, content: IO[bytes]) -> None:
        """Read the file. Raises RecipientError: the cells of a table are too far apart."""
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._add_text
        with suppress(expat.ExpatError):  # the library says what is wrong with it
            while block := content.read(_CHUNK):
                parser.Parse(block)
            parser.Parse(b"", True)

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "table:table":
            self._depth += 1
            if self._depth == 1:
                self._is_wanted = attributes.get("table:name") == self._name
                self._row = self._last_column = 0
        elif self._depth == 1 and tag == "table:table-row":
            self._column, self._found = 0, []
            self._repeated_rows = _number(attributes.get("table:number-rows-repeated"))
        elif self._depth == 1 and tag in ("table:table-cell", "table:covered-table-cell"):
            self._repeated_cells = _number(attributes.get("table:number-columns-repeated"))
            self._cell, self._text = attributes, []

    def _end(self, tag: str) -> None:
        if tag == "table:table":
            self._depth -= 1
        elif self._depth == 1 and tag == "table:table-row":
            self._end_row()
        elif self._depth == 1 and tag in ("table:table-cell", "table:covered-table-cell"):
            self._end_cell()

    def _add_text(self, text: str) -> None:
        if self._text is not None and len(self._text) < 100:
            self._text.append(text)

    def _end_cell(self) -> None:
        text = "".join(self._text or ())
        kind = self._cell.get("office:value-type") or self._cell.get("calcext:value-type")
        first, self._text = self._column + 1, None
        self._column += self._repeated_cells
        if not (kind or text.strip()):
            if "table:formula" in self._cell:
                self._found.append((first, _NO_VALUE))
            return
        self._last_column = max(self._last_column, self._column)
        row = self._row + self._repeated_rows
        _check_area(f"{column_letters(self._column)}{row}", row, self._last_column)
        is_error = self._cell.get("calcext:value-type") == "error" or (
            "table:formula" in self._cell and text.startswith(("#", "Err:"))
        )
        if is_error:
            self._found.append((first, _describe_error(text)))

    def _end_row(self) -> None:
        if self._found and self._is_wanted:
            for row in range(self._row + 1, self._row + 1 + min(self._repeated_rows, _MAX_FAULTS)):
                if len(self._faults) < _MAX_FAULTS:
                    self._faults.update({(row, column): why for column, why in self._found})
        self._row += self._repeated_rows


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else 1
