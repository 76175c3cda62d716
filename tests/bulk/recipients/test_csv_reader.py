"""Text to records: what the csv module says of the whole text, said piece by piece and bounded."""

from __future__ import annotations

import csv
import io

from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsmtp.bulk.recipients.csv_format import MAX_CELL, MAX_RECORD, Record, RecordReader
from asyncsmtp.errors import RecipientError

# more quotes and line ends than people write, with characters that str.splitlines takes for line ends
CSV_TEXT = st.text('ab,";\r\n\t\0 é\x0b\x1c\x85\u2028', max_size=40) | st.lists(
    st.sampled_from(['"a"', '"a\nb"', '"a\r\nb"', '"a""b"', "a", "", ",", ",", "\n", "\r\n", "\r", '"a"b']), max_size=20
).map("".join)


def read(*pieces: str, delimiter: str = ",") -> tuple[list[Record], str]:
    """Every record that is reached, and what ended the reading, if anything did."""
    reader, records = RecordReader("people.csv", delimiter), []
    try:
        for piece in pieces:
            for record in reader.feed(piece):
                records.append(record)  # one by one: those before an error count
        for record in reader.feed("", final=True):
            records.append(record)
    except RecipientError as error:
        return records, error.reason
    return records, ""


def judged_by_csv(text: str) -> list[tuple[int, list[str] | None]]:
    """The line and cells of each record by the csv module; None for one that it refuses."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    records: list[tuple[int, list[str] | None]] = []
    begin = 1
    while True:
        cells: list[str] | None = None
        try:
            cells = next(reader)
        except StopIteration:
            return records
        except csv.Error as error:
            if reader.line_num > begin or "unexpected end" in str(error):
                return records  # the reading ends here
        if cells != []:
            records.append((begin, cells))
        begin = reader.line_num + 1


@settings(deadline=None)
@given(st.data(), CSV_TEXT)
def test_where_text_is_cut_changes_nothing(data: st.DataObject, text: str) -> None:
    """A quote, a CR LF or a cell lies across the edge of two blocks: same records, lines, rows and errors."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
    pieces = [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(*pieces) == read(text)
    assert read(*text) == read(text)


@settings(deadline=None)
@given(CSV_TEXT.map(lambda text: text.replace("\0", "")))
def test_records_are_those_of_the_csv_module_over_the_whole_text(text: str) -> None:
    """The csv module is the judge of what a record is, and of the line on which it begins."""
    records = [(record.line, None if record.fault else record.cells) for record in read(text)[0]]
    assert records == [(line, cells) for line, cells in judged_by_csv(text) if cells is None or "".join(cells).strip()]


def test_rows_count_from_one_behind_the_header_and_empty_lines_do_not_count() -> None:
    """A person counts the rows that are there; the line says where the editor must go."""
    records, _ = read("\nname,email\n\n\na,a@example.com\r\n\r\nb,b@example.com\n\n")
    assert [(record.row, record.line) for record in records] == [(0, 2), (1, 5), (2, 7)]


def test_a_row_of_blank_cells_is_an_empty_line() -> None:
    """Spreadsheets export the empty rows below and between the others as delimiters."""
    records = read(',\na,b\n,\n , \n"",\n,x\n')[0]
    assert [(record.row, record.line, record.cells) for record in records] == [(0, 2, ["a", "b"]), (1, 6, ["", "x"])]


def test_a_quote_inside_an_unquoted_cell_is_a_character() -> None:
    """5" is five inches."""
    assert read('a,b\n5" disk,x\n')[0][1].cells == ['5" disk', "x"]


def test_text_behind_a_closing_quote_is_the_fault_of_its_row_alone() -> None:
    """Its cells are a guess, the rows around it are not."""
    records, broken = read('a,b\n"Robert "Bob" Smith",x\nc,d\n')
    assert [bool(record.fault) for record in records] == [False, True, False]
    assert "inside quotes twice" in records[1].fault
    assert not broken


def test_a_quote_that_swallows_rows_ends_the_reading() -> None:
    """Line 3's quote is closed by line 5's: row 3 would be part of a cell of row 2, and lost without a word."""
    records, broken = read('a,b\nx,y\n"Bob,y\nx,y\n"Eve",y\n')
    assert [record.row for record in records] == [0, 1]
    assert broken.startswith("people.csv, line 3: row 2 opens a quote that runs on to line 5")


def test_a_quote_never_closed_names_the_row_and_line_that_opened_it() -> None:
    """TF-08: the end of the file, a million lines on, is not where the mistake is."""
    records, broken = read('a,b\nx,y\n"Bob,y\n' + "x,y\n" * 50)
    assert len(records) == 2
    assert broken.startswith("people.csv, line 3: row 2 opens a quote that is not closed before the end of the file")


def test_a_cell_may_have_128_kib_and_no_more() -> None:
    """TF-08: the csv module's own limit can be moved by any other code in the process; ours stands."""
    most = "x" * MAX_CELL
    assert read(f"a,b\n{most},y\n")[0][1].cells[0] == most
    before = csv.field_size_limit(10 * MAX_CELL)
    try:
        assert "line 2: row 1 has a cell of more than 131072 characters" in read(f"a,b\n{most}x,y\n")[1]
        assert "line 2: row 1 has a cell of more than" in read(f'a,b\n"{most[:-5]}\r\n\r\n\r\n",y\n')[1]
    finally:
        csv.field_size_limit(before)
    assert "line 2: row 1 has a cell of more than 131072 characters" in read(f"a,b\n{most}x,y\n")[1]


def test_a_limit_of_the_csv_module_that_was_lowered_is_reported() -> None:
    """The program around us may have its reasons; the row is not cut."""
    before = csv.field_size_limit(10)
    try:
        assert "row 1 has a cell of more than 10 characters" in read("a,b\n01234567890,y\n")[1]
    finally:
        csv.field_size_limit(before)


def test_a_row_may_have_a_million_characters_and_no_more() -> None:
    """TF-08: many cells, each within its limit."""
    cell = "x" * 1023 + ","
    assert not read("a,b\n" + cell * (MAX_RECORD // 1024 - 1) + "x" * 1023 + "\n")[1]
    assert "line 2: row 1 runs past 1048576 characters" in read("a,b\n" + cell * (MAX_RECORD // 1024) + "\n")[1]


def test_a_row_without_an_end_is_refused_before_it_fills_the_memory() -> None:
    """TF-08: what is kept of an unfinished row is bounded, whatever follows."""
    pieces = iter(['a,b\n"', *["x" * 65_536] * 1000])
    assert "line 2: row 1 runs past 1048576 characters" in read(*pieces)[1]
    assert "line 2: row 1 runs past 1048576 characters" in read("a,b\n", *["x" * 65_536] * 17)[1]


def test_a_nul_is_the_fault_of_its_row() -> None:
    """TF-09: MySQL and broken exports leave them; no header and no mail may carry one."""
    records, broken = read("a,b\nx\0,y\nx,y\n")
    assert ["NUL" in record.fault for record in records] == [False, True, False]
    assert not broken
