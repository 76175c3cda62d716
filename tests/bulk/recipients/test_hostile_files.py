"""TF-09: fourteen files as they really arrive. Each is read, or refused in one sentence with a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncsmtp.bulk.recipients.file import RecipientFile
from asyncsmtp.bulk.recipients.preflight import run_preflight
from asyncsmtp.errors import RecipientError

READ: dict[str, tuple[bytes, int, list[str]]] = {  # octets, recipients, problems
    "a byte order mark": (b"\xef\xbb\xbfemail,name\na@example.com,A\n", 1, []),
    "classic Mac line ends": (b"email,name\ra@example.com,A\rb@example.com,B\r", 2, []),
    "blank and empty rows": (b"email,name\n\na@example.com,A\n,\n \n\n", 1, []),
    "ragged rows": (
        b"email,name,city\na@example.com,A,X,1010\nb@example.com\nc@example.com,C,Y,,\n",
        1,
        [
            "row 1 (line 2): has 4 cells where the header has 3: put quotes round a cell that holds the delimiter",
            "row 2 (line 3): has 1 cell where the header has 3: “name” is missing",
        ],
    ),
    "a NUL in a row": (
        b"email,name\na@example.com,A\0\nb@example.com,B\n",
        1,
        ["row 1 (line 2): has a NUL character: is this text? take it out, or export the file again"],
    ),
    "quotes that are not doubled": (
        b'email,name\na@example.com,"Al "Scar" C"\nb@example.com,B\n',
        1,
        ['row 1 (line 2): has text behind a closing quote: write a quote inside quotes twice, as in "5"" disk"'],
    ),
}

REFUSED: dict[str, tuple[bytes, str]] = {
    "UTF-32": ("email,name\na@example.com,A\n".encode("utf-32"), "is UTF-32, not UTF-8"),
    "no text": (b"email,name\na@example.com,\xff\x00\xfe\n", "line 2: byte 0xFF"),
    "a NUL in the header": (b"email,name\0\na@example.com,A\n", "line 1: the header has a NUL"),
    "nothing but blank rows": (b",,\n,,\n", "has only blank rows"),
    "two columns of addresses": (b"email,name,email\na@example.com,A,b@example.com\n", "may each hold the address"),
    "a quote that is never closed": (b'email,name\na@example.com,"A\nb@example.com,B\n', "line 2: row 1 opens a quote"),
    "a cell of a megabyte": (b"email,name\na@example.com," + b"A" * 1_000_000 + b"\n", "line 2: row 1 has a cell of"),
    "eleven thousand columns": (
        b"email" + b",".join(b"c%d" % i for i in range(11_000)),
        "line 1: 11000 columns are more than 10000",
    ),
}


def test_there_are_fourteen() -> None:
    """The threat table counts them."""
    assert len(READ) + len(REFUSED) == 14


@pytest.mark.parametrize("kind", READ)
async def test_a_file_that_can_be_read_is_read_and_each_bad_row_named(tmp_path: Path, kind: str) -> None:
    """TF-09: what is wrong with one row stops no other."""
    octets, recipients, problems = READ[kind]
    path = tmp_path / "people.csv"
    path.write_bytes(octets)
    report = await run_preflight(RecipientFile(path))
    assert report.recipients == recipients
    assert list(map(str, report.problem_rows)) == problems


@pytest.mark.parametrize("kind", REFUSED)
async def test_a_file_that_cannot_be_trusted_is_refused_with_its_line(tmp_path: Path, kind: str) -> None:
    """TF-09: one sentence, the same for any size of a read."""
    octets, told = REFUSED[kind]
    path = tmp_path / "people.csv"
    path.write_bytes(octets)
    for block in (4096, 262_144):
        with pytest.raises(RecipientError) as caught:
            await run_preflight(RecipientFile(path, block=block))
        assert str(caught.value).startswith(str(path))
        assert told in str(caught.value)
        assert "\n" not in str(caught.value)
