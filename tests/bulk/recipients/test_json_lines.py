"""JSON lines as recipients: the same records, wherever the text is cut, and faults by their lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.bulk.recipients.csv_format import MAX_CELL, MAX_RECORD, JsonLinesReader, Record
from asyncsmtp.bulk.recipients.file import RecipientFile
from asyncsmtp.bulk.recipients.recipient import Problem
from asyncsmtp.errors import RecipientError

GOOD = '{"email": "a@example.org", "n": 1.50, "on": true}\n\n{"email": "b@example.org", "on": null}\n'


def records(text: str, *cuts: int) -> list[Record]:
    reader, found, begin = JsonLinesReader("people.jsonl"), [], 0
    for cut in (*sorted(cuts), len(text)):
        found += list(reader.feed(text[begin:cut]))
        begin = cut
    return found + list(reader.feed("", final=True))


@given(st.lists(st.integers(0, len(GOOD)), max_size=5))
def test_records_are_the_same_wherever_the_text_is_cut(cuts: list[int]) -> None:
    """Numbers as they are written, words for true and false, nothing for null and what is not there."""
    assert records(GOOD, *cuts) == [
        Record(0, 1, ["email", "n", "on"]),
        Record(1, 1, ["a@example.org", "1.50", "true"]),
        Record(2, 3, ["b@example.org", "", ""]),
    ]
    assert records(GOOD.rstrip("\n"), *(min(cut, len(GOOD) - 1) for cut in cuts)) == records(GOOD)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "is not JSON"),
        ("[1]", "is not an object"),
        ('"x"', "is not an object"),
        ('{"email": "b@example.org", "m": 1}', "has a key “m” that the first line does not have"),
        ('{"email": "b@example.org", "email": "c@example.org"}', "duplicate key"),
        ('{"email": ["b@example.org"]}', "has a list or an object as “email”"),
        ('{"email": "b@example.org", "n": {"x": 1}}', "has a list or an object as “n”"),
        ('{"email": "a\\u0000b"}', "has a NUL"),
        ("[" * 100_000, "is not JSON"),
        (json.dumps({"email": "x" * 200_000}), "has a cell of more than"),
    ],
)
def test_a_line_that_cannot_be_read_costs_its_row_alone(line: str, fault: str) -> None:
    found = records(GOOD + line + "\n" + '{"email": "c@example.org"}\n')
    assert (found[3].row, found[3].line, fault in found[3].fault) == (3, 4, True), found[3].fault
    assert found[4] == Record(4, 5, ["c@example.org", "", ""])


@pytest.mark.parametrize("text", ["[]\n", "email,name\n", '{"email": 1', "{" * (MAX_RECORD + 1)])
def test_a_first_line_that_is_no_object_names_no_columns(text: str) -> None:
    with pytest.raises(RecipientError, match=r"people\.jsonl, line 1: "):
        records(text)


@pytest.mark.parametrize("end", ["\n", ""])
def test_a_line_may_have_a_million_characters_and_no_more(end: str) -> None:
    """Its end is not counted, and it may lack one."""
    most = '{"email": "b@example.org"}'.ljust(MAX_RECORD)
    assert len(records(GOOD + most + end)) == 4
    with pytest.raises(RecipientError, match=r"people\.jsonl, line 4: runs past 1048576 characters"):
        records(GOOD + most + " " + end)


def test_a_cell_may_have_128_kib_and_no_more() -> None:
    found = records("".join(json.dumps({"email": "x" * size}) + "\n" for size in (MAX_CELL, MAX_CELL + 1)))
    assert [record.fault for record in found[1:]] == ["", "has a cell of more than 131072 characters"]


async def test_a_file_of_json_lines_is_a_recipient_file(tmp_path: Path) -> None:
    path = tmp_path / "people.jsonl"
    path.write_text('{"name": "Zoë", "E-Mail": "zoe@example.org"}\n{"name": "x", "E-Mail": "nobody"}\n', "utf-8")
    file = RecipientFile(path)
    assert (await file.header()).email == "E-Mail"
    rows = [row async for batch in file.batches() for row in batch]
    assert rows[0].fields == {"name": "Zoë", "E-Mail": "zoe@example.org"}
    assert isinstance(rows[1], Problem)
    assert file.digest
