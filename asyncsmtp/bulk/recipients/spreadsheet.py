"""Workbooks (xlsx, xlsm, xls, xlsb, ods) as CSV: one sheet, read by python-calamine in a process of its own.

The library keeps a whole sheet in memory, from its first to its last cell. A workbook of a kilobyte with a cell at
XFD1048576 needs half a terabyte then, and when memory cannot be had the library ends the process. So it runs in a child
process with limits of memory and time, and what can be known before is checked before, to name the cell.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from importlib.util import find_spec
from threading import Lock
from typing import IO, TYPE_CHECKING, BinaryIO

from asyncsmtp.bulk.recipients.csv_format import CELL_FAULT
from asyncsmtp.bulk.recipients.text_encoding import SettingNeeded
from asyncsmtp.bulk.recipients.workbook_checks import CellFaults, check_kind, check_sheet, check_size, column_letters
from asyncsmtp.errors import MissingDependency, RecipientError
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from python_calamine import CalamineSheet, CalamineWorkbook

__all__ = ["SheetReader", "run_child"]

MAX_UNPACKED = 1 << 30  # bytes of all files in a workbook
MAX_TEXT = 1 << 30  # bytes of CSV: a text that the workbook has once may stand in every cell
MAX_MEMORY = 2 << 30  # bytes of the child process
MAX_CPU_TIME = 120  # seconds of the child process
_PIECE_ROWS = 500  # of one piece of text
_PIECE_SIZE = 1 << 20  # characters of one piece of text, or one row
_SEARCHED_ROWS = 100  # of a sheet, for a column of addresses
_SHOWN_SHEETS = 10

_Cell = str | int | float | bool | time | date | datetime | timedelta

# What the child process writes to its standard output: the sheet, pieces of text, then an end; or an error, or the
# sheets of which one must be named.
_HEAD = struct.Struct(">cI")  # kind, number of bytes that follow
_SHEET, _TEXT, _END, _ERROR, _ASK = b"S", b"T", b"Z", b"E", b"A"
_SECRETS = ("ASYNCSMTP_", "PG")  # environment variables that a reader of workbooks does not need
_PROGRAM = "from asyncsmtp.bulk.recipients.spreadsheet import run_child; run_child()"


class SheetReader:
    """A sheet of a workbook as CSV, read in a child process. Both methods block; `close` ends a `read`.

    Attributes:
        sheet: the name of the sheet, once something has been read.
        is_first: whether it is the first one of the workbook. detected: whether it was chosen among several.
    """

    def __init__(self, path: str, name: str, sheet: str | None = None) -> None:
        """Name the workbook; `name` is the one for errors, `sheet` the name or number of one, None to choose it."""
        self.sheet = ""
        self.is_first = True
        self.detected = False
        self._path = path
        self._name = name
        self._wanted = "" if sheet is None else sheet
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
        assert process.stdout is not None
        kind, data = self._read_message(process.stdout)
        if kind == _SHEET:
            self.sheet, self.is_first, self.detected = json.loads(data)
            kind, data = self._read_message(process.stdout)
        if kind == _ASK:
            reason, sheets = json.loads(data)
            raise SettingNeeded(f"{self._name} {reason}", "sheet", sheets)
        if kind == _ERROR:
            raise RecipientError(f"{self._name} {data}")
        if not kind:
            why = _explain(process.wait())
            raise RecipientError(f"{self._name} cannot be read as a workbook: {why}: save it as CSV")
        return data if kind == _TEXT else ""

    def _read_message(self, output: IO[bytes]) -> tuple[bytes, str]:
        """Return a message of the child process; an empty kind: it has ended without one."""
        head = output.read(_HEAD.size)
        if len(head) == _HEAD.size:
            kind, size = _HEAD.unpack(head)
            data = output.read(size)
            if len(data) == size:
                return kind, data.decode("utf-8", "replace")
        return b"", ""

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
                [sys.executable, "-P", "-c", _PROGRAM, self._path, self._wanted, *limits],
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
    """Write a sheet to the standard output, as `SheetReader` reads it.

    The arguments are the name of the workbook, the sheet ("" to choose one), and the limits.
    """
    path, wanted = sys.argv[1:3]
    memory, cpu_time, max_unpacked, max_text = map(int, sys.argv[3:])
    _limit_resources(memory, cpu_time)
    output = os.fdopen(os.dup(1), "wb")
    size = 0
    try:
        sheet, detected, faults = _open_sheet(path, wanted, max_unpacked)
        _write(output, _SHEET, json.dumps((sheet.name, *detected)))
        for text in _format_sheet(sheet, faults):
            size += _write(output, _TEXT, text)
            if size > max_text:
                raise RecipientError(f"has more than {max_text >> 20:,} MiB of text: save it as CSV")
        _write(output, _END, "")
    except SettingNeeded as error:
        _write(output, _ASK, json.dumps((error.reason, error.values)))
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


def _open_sheet(path: str, wanted: str, max_unpacked: int) -> tuple[CalamineSheet, tuple[bool, bool], CellFaults]:
    """Return the sheet, whether it is the first and was chosen among several, and its cells without a value.

    Args:
        wanted: the name of a sheet, or its number among those that are shown; "" to choose one.
    Raises:
        SettingNeeded: several may be meant. RecipientError: there is none, it is too large, or no workbook.
    """
    import python_calamine  # an extra

    check_kind(path)
    check_size(path, max_unpacked)
    if path.lower().endswith(".ods"):  # the library reads all its sheets at once
        check_sheet(path)
    with _library_errors():
        book = python_calamine.CalamineWorkbook.from_path(path)
        names = book.sheet_names
        kind, shown = python_calamine.SheetTypeEnum.WorkSheet, python_calamine.SheetVisibleEnum.Visible
        visible = [each.name for each in book.sheets_metadata if each.typ == kind and each.visible == shown]
    if not names:
        raise RecipientError("has no sheets: save it as CSV")
    if wanted:
        name = _find_sheet(wanted, names, visible)
        faults = check_sheet(path, name)
        sheet = _load(book, name)
        if sheet.start is None:
            raise RecipientError(f"has nothing in the sheet {_quote(name)}: name another sheet with sheet=, or fill it")
        return sheet, (name == names[0], False), faults
    name = _choose_sheet(path, book, visible or names)
    faults = check_sheet(path, name)
    return _load(book, name), (name == names[0], len(names) > 1), faults


def _find_sheet(wanted: str, names: Sequence[str], visible: Sequence[str]) -> str:
    """Return the sheet of a name, exactly or except for case and spaces around, or of a number among the `visible`."""
    same = [name for name in names if name.strip().casefold() == wanted.strip().casefold()]
    if wanted in names or len(same) == 1:
        return wanted if wanted in names else same[0]
    if wanted.isascii() and wanted.isdigit() and 0 < int(wanted[:6]) <= len(visible):
        return visible[int(wanted[:6]) - 1]
    from difflib import get_close_matches  # late: only an error needs it

    near = get_close_matches(wanted, names, 1)
    meant = f"; did you mean {_quote(near[0])}?" if near else ""
    raise SettingNeeded(
        f"has no sheet {_quote(wanted)}{meant}: name one of {_list_sheets(names)} with sheet=",
        "sheet",
        near or names[:1],
    )


def _choose_sheet(path: str, book: CalamineWorkbook, names: Sequence[str]) -> str:
    """Return the only sheet that has something in it, or the only one of several with a column of addresses."""
    if len(names) == 1:
        return names[0]
    filled: list[str] = []
    addressed: list[str] = []
    too_large: RecipientError | None = None
    for name in names:
        try:
            check_sheet(path, name)
        except RecipientError as error:  # too large to look at
            too_large = error
            continue
        sheet = _load(book, name)
        if sheet.start is not None:
            filled.append(name)
            addressed += [name] if _has_addresses(sheet) else []
    if too_large is not None and not addressed:
        raise too_large
    if len(addressed) == 1 or len(filled) <= 1:
        return (addressed or filled or names)[0]
    what = "several sheets have addresses" if addressed else "no sheet has a column of addresses"
    found = addressed or filled
    raise SettingNeeded(
        f"has {len(names)} sheets, and {what}: name one of {_list_sheets(found)} with sheet=", "sheet", found
    )


def _has_addresses(sheet: CalamineSheet) -> bool:
    from asyncsmtp.bulk.recipients.column_header import is_called_email  # late: most workbooks have one sheet

    for number, row in enumerate(sheet.iter_rows()):
        texts = [cell for cell in row if isinstance(cell, str)]
        if any(is_called_email(text) or _ADDRESS.fullmatch(text.strip()) for text in texts):
            return True
        if number == _SEARCHED_ROWS:
            break
    return False


_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


def _list_sheets(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_SHEETS
    return ", ".join(map(_quote, names[:_SHOWN_SHEETS])) + (f" and {more} more" if more > 0 else "")


def _quote(name: str) -> str:
    return f"“{safe_text(name, 60)}”"


def _load(book: CalamineWorkbook, name: str) -> CalamineSheet:
    with _library_errors():
        return book.get_sheet_by_name(name)


@contextmanager
def _library_errors() -> Iterator[None]:
    """Explain what the library raises: it documents no exceptions, and panics are none of Exception."""
    try:
        yield
    except MemoryError:
        raise
    except BaseException as error:
        if "password" in str(error).lower():
            raise RecipientError("is protected by a password: save it without one, or save it as CSV") from error
        why = f"cannot be read as a workbook ({safe_text(str(error), 100)})"
        raise RecipientError(f"{why}: save it as CSV, or again as .xlsx") from error


def _format_sheet(sheet: CalamineSheet, faults: CellFaults) -> Iterator[str]:
    """Yield a sheet as CSV, in pieces; a cell without a value has the reason in it, with the mark of a fault."""
    rows = {row for row, _ in faults}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    for number, row in enumerate(sheet.iter_rows(), 1):
        cells = [_text(cell) for cell in row]
        if number in rows:
            _mark_faults(cells, number, faults)
        if any(cells):
            writer.writerow(cells)
        else:
            text.write("\r\n")
        if not number % _PIECE_ROWS or text.tell() > _PIECE_SIZE:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def _mark_faults(cells: list[str], row: int, faults: CellFaults) -> None:
    for column, why in sorted((column, why) for (each, column), why in faults.items() if each == row):
        cells += [""] * (column - len(cells))
        cells[column - 1] = f"{CELL_FAULT}has in {column_letters(column)}{row} {why}"


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
