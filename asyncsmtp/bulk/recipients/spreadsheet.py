"""Workbooks (xlsx, xlsm, xls, xlsb, ods) as CSV: the first sheet, read by python-calamine in a process of its own.

The library keeps a whole sheet in memory, from its first to its last cell. A workbook of a kilobyte with a cell at
XFD1048576 needs half a terabyte then, and when memory cannot be had the library ends the process. So it runs in a child
process with limits of memory and time, and what can be known before is checked before, to name the cell.
"""

from __future__ import annotations

import csv
import io
import os
import re
import signal
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from importlib.util import find_spec
from threading import Lock
from typing import IO, BinaryIO
from xml.etree import ElementTree

from asyncsmtp.errors import MissingDependency, RecipientError
from asyncsmtp.protocol.replies import safe_text

__all__ = ["SheetReader", "run_child"]

MAX_CELLS = 25_000_000  # from A1 to the last row and column: a million rows of 23 columns
MAX_UNPACKED = 1 << 30  # bytes of all files in a workbook
MAX_FILES = 10_000  # in a workbook
MAX_TEXT = 1 << 30  # bytes of CSV: a text that the workbook has once may stand in every cell
MAX_MEMORY = 2 << 30  # bytes of the child process
MAX_CPU_TIME = 120  # seconds of the child process
_PIECE_ROWS = 500  # of one piece of text
_PIECE_SIZE = 1 << 20  # characters of one piece of text, or one row
_CHUNK = 1 << 20  # bytes of a sheet that are searched at once

_Cell = str | int | float | bool | time | date | datetime | timedelta

# What the child process writes to its standard output: pieces of text, then an end, or an error.
_HEAD = struct.Struct(">cI")  # kind, number of bytes that follow
_TEXT, _END, _ERROR = b"T", b"Z", b"E"
_SECRETS = ("ASYNCSMTP_", "PG")  # environment variables that a reader of workbooks does not need
_PROGRAM = "from asyncsmtp.bulk.recipients.spreadsheet import run_child; run_child()"


class SheetReader:
    """The first sheet of a workbook as CSV, read in a child process. Both methods block; `close` ends a `read`.

    Args:
        name: of the workbook, for errors.
    """

    def __init__(self, path: str, name: str) -> None:
        self._path = path
        self._name = name
        self._lock = Lock()  # while the process is started or ended
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closed = False

    def read(self) -> str:
        """Return the next piece of the text; "" at the end. An empty row is an empty line: lines are rows of the sheet.

        Raises:
            MissingDependency: python-calamine is missing.
            RecipientError: not a workbook, a protected one, or one that is too large.
        """
        with self._lock:
            if self._is_closed:
                return ""
            process = self._process = self._process or self._start()
        output = process.stdout
        assert output is not None
        head = output.read(_HEAD.size)
        if len(head) == _HEAD.size:
            kind, size = _HEAD.unpack(head)
            data = output.read(size)
            if len(data) == size:
                if kind == _ERROR:
                    raise RecipientError(f"{self._name} {data.decode('utf-8', 'replace')}")
                return data.decode("utf-8", "replace") if kind == _TEXT else ""
        raise RecipientError(f"{self._name} cannot be read as a workbook: {_explain(process.wait())}: save it as CSV")

    def close(self) -> None:
        """End the child process, wherever it is; a second call does nothing."""
        with self._lock:
            self._is_closed = True
            if self._process is not None:
                self._process.kill()
                self._process.wait()
                if self._process.stdout is not None:
                    self._process.stdout.close()

    def _start(self) -> subprocess.Popen[bytes]:
        if find_spec("python_calamine") is None:  # an extra
            raise MissingDependency(f"reading the workbook {self._name}", "asyncsmtp[xlsx]")
        if not sys.executable or getattr(sys, "frozen", False):
            why = "there is no Python interpreter to read it"
            raise RecipientError(f"{self._name} cannot be read: {why}: save it as CSV")
        folders = (folder or os.getcwd() for folder in sys.path)  # so that it imports what this process imports
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_SECRETS)}
        limits = map(str, (MAX_MEMORY, MAX_CPU_TIME, MAX_UNPACKED, MAX_TEXT))
        try:
            return subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-c", _PROGRAM, self._path, *limits],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**environment, "PYTHONPATH": os.pathsep.join(folders)},
                start_new_session=True,  # Ctrl-C is for this process
            )
        except OSError as error:
            why = f"no process can be started for it ({error.strerror})"
            raise RecipientError(f"{self._name} cannot be read: {why}: save it as CSV") from error


def _explain(code: int) -> str:
    """Explain how a child process ended that did not report an error."""
    if code == -signal.SIGXCPU:
        return f"reading it takes more than {MAX_CPU_TIME} seconds"
    if code in (-signal.SIGABRT, -signal.SIGKILL, -signal.SIGSEGV):
        return f"reading it takes more than {MAX_MEMORY >> 20:,} MiB of memory"
    return f"the process that read it ended with {code}"


def run_child() -> None:
    """Write a workbook to the standard output, as `SheetReader` reads it; the arguments are its name and the limits."""
    path = sys.argv[1]
    memory, cpu_time, max_unpacked, max_text = map(int, sys.argv[2:])
    _limit_resources(memory, cpu_time)
    output = os.fdopen(os.dup(1), "wb")
    size = 0
    try:
        for text in _read_as_csv(path, max_unpacked):
            size += _write(output, _TEXT, text)
            if size > max_text:
                raise RecipientError(f"has more than {max_text >> 20:,} MiB of text: save it as CSV")
        _write(output, _END, "")
    except RecipientError as error:
        _write(output, _ERROR, error.reason)
    except MemoryError:
        os.abort()


def _write(output: BinaryIO, kind: bytes, text: str) -> int:
    """Write one piece, unless it is empty text; return the number of its bytes."""
    data = text.encode("utf-8", "replace")
    if data or kind != _TEXT:
        output.write(_HEAD.pack(kind, len(data)))
        output.write(data)
        output.flush()
    return len(data)


def _limit_resources(memory: int, cpu_time: int) -> None:
    import resource  # POSIX; only in the child process

    limits = {resource.RLIMIT_AS: memory, resource.RLIMIT_CPU: cpu_time, resource.RLIMIT_CORE: 0}
    for limit, value in limits.items():
        _, hard = resource.getrlimit(limit)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(limit, (value, hard))
        except (ValueError, OSError):  # macOS refuses RLIMIT_AS
            continue


def _read_as_csv(path: str, max_unpacked: int) -> Iterator[str]:
    """Yield the first sheet as CSV, in pieces."""
    import python_calamine  # an extra

    _check_workbook(path, max_unpacked)
    try:
        sheet = python_calamine.CalamineWorkbook.from_path(path).get_sheet_by_index(0)
    except MemoryError:
        raise
    except BaseException as error:  # the library documents no exceptions, and panics are none of Exception
        why = f"cannot be read as a workbook ({safe_text(str(error), 100)})"
        raise RecipientError(f"{why}: save it as CSV, or again as .xlsx") from error
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    for number, row in enumerate(sheet.iter_rows(), 1):
        cells = [_text(cell) for cell in row]
        if any(cells):
            writer.writerow(cells)
        else:
            text.write("\r\n")
        if not number % _PIECE_ROWS or text.tell() > _PIECE_SIZE:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def _text(cell: _Cell) -> str:
    """Return a cell as displayed, except for its format: whole numbers without a point, times by ISO 8601."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime) and cell.time() == time(0):
        return cell.date().isoformat()
    return cell.isoformat(" ") if isinstance(cell, datetime) else str(cell)


def _check_workbook(path: str, max_unpacked: int) -> None:
    """Check what a workbook says about its size: of its files, and in an xlsx of its first sheet.

    Raises:
        RecipientError: too much; the message has no name of the file, and the cell if there is one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            files = archive.infolist()
            if len(files) > MAX_FILES:
                raise RecipientError(f"has {len(files):,} files in it, more than any workbook needs: save it as CSV")
            size = sum(file.file_size for file in files)
            if size > max_unpacked:
                why = f"has {size >> 20:,} MiB when it is unpacked, more than {max_unpacked >> 20:,} MiB"
                raise RecipientError(f"{why}: save it as CSV")
            for part in _first_sheet(archive):
                with archive.open(part) as sheet:
                    _check_cells(sheet)
    except RecipientError:
        raise
    except Exception:  # noqa: S110 no ZIP archive, or a damaged one: the library says what it is
        pass


_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"


def _first_sheet(archive: zipfile.ZipFile) -> list[str]:
    """Return the part of an xlsx that has the first sheet; all sheets where it is unknown."""
    parts = [name for name in archive.namelist() if re.fullmatch(r"/?xl/worksheets/[^/]+\.xml", name, re.IGNORECASE)]
    try:
        # Entities that multiply are refused by expat 2.4.1 and newer, and memory is limited here.
        book = ElementTree.fromstring(archive.read("xl/workbook.xml"))  # noqa: S314
        relations = ElementTree.fromstring(archive.read("xl/_rels/workbook.xml.rels"))  # noqa: S314
    except (KeyError, ElementTree.ParseError):
        return parts
    first = next((element.get(_RELATION) for element in book.iter() if element.tag.endswith("}sheet")), None)
    targets = [element.get("Target", "") for element in relations if element.get("Id") == first]
    found = [part for part in parts if targets and part.lstrip("/").endswith(targets[0].lstrip("/"))]
    return found or parts


# Of cells that may make the sheet too large: beyond column W, or beyond row 999,999. Of an ordinary sheet none matches,
# so that the search costs little. A cell with a format but without a value is not read.
_FAR = re.compile(rb' r="([A-Za-z]{2,7}|[X-Zx-z]|[A-Za-z](?=[0-9]{7}))([0-9]{1,10})"[^<>]{0,200}(?<!/)>(?=[^<]|<[^/])')
_ROW = re.compile(rb'<(?:\w+:)?row [^<>]{0,200}?\br="([0-9]{1,10})"')
_OVERLAP = 512  # bytes: more than a match is long


def _check_cells(sheet: IO[bytes]) -> None:
    """Check that the cells of a sheet are not too far apart. Raises RecipientError: they are."""
    last_row = last_column = 1
    widest, name = 0, ""
    text = b""
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
        if name and last_row * last_column > MAX_CELLS:
            why = f"has a cell at {name}, so that its sheet has {last_row:,} rows of {last_column:,} cells"
            raise RecipientError(f"{why}: delete what is far from the table, or save it as CSV")


def _column_number(letters: bytes) -> int:
    """Return the number of a column, from 1: XFD is 16384."""
    number = 0
    for letter in letters.upper():
        number = number * 26 + letter - 64
    return number
