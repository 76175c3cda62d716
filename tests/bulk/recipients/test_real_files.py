"""Files as spreadsheets and other programs export them: titles, `sep=;`, blank and short rows, footers, odd headers."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import openpyxl
import pytest

from asyncsmtp.bulk.recipients.column_header import ColumnHeader, read_header
from asyncsmtp.bulk.recipients.file import RecipientFile
from asyncsmtp.bulk.recipients.preflight import PreflightReport, run_preflight
from asyncsmtp.bulk.recipients.recipient import Problem, Recipient, RowRules
from asyncsmtp.bulk.recipients.text_encoding import SettingNeeded
from asyncsmtp.errors import RecipientError, TemplateError
from asyncsmtp.mail.templates.template import Composer, Template


def header(text: str, **given: object) -> ColumnHeader:
    options: dict[str, object] = {"delimiter": None, "email": None, **given}
    return read_header("people.csv", text, whole=True, **options)  # type: ignore[arg-type]


async def read(folder: Path, text: str, rules: RowRules | None = None, **given: int) -> list[Recipient | Problem]:
    path = folder / "people.csv"
    path.write_text(text, "utf-8", newline="")
    return [row async for batch in RecipientFile(path, rules=rules, block=7, **given).batches() for row in batch]


async def check(folder: Path, text: str, composer: Composer | None = None) -> PreflightReport:
    path = folder / "people.csv"
    path.write_text(text, "utf-8", newline="")
    file = RecipientFile(path)
    file.rules = RowRules(needed=composer.used_columns if composer else None)
    return await run_preflight(file, composer, compose=None)


def composer(*columns: str, text: str, subject: str = "News") -> Composer:
    return Template(from_="news@example.org", subject=subject, text=text).compile(columns)


@pytest.mark.parametrize("line", ["sep=;\r\n", "SEP=;\n", '"sep=;"\n', "sep=;;;\r\n", "\ufeffsep=;\n"])
async def test_the_delimiter_line_of_excel_is_obeyed(tmp_path: Path, line: str) -> None:
    """It is no header, and it decides where commas fit as well."""
    one, two = await read(tmp_path, f"{line}name;email;a,b\nAnn;ann@example.org;1,2\nBob;bob@example.org;3,4\n")
    assert isinstance(one, Recipient)
    assert dict(one.fields) == {"name": "Ann", "email": "ann@example.org", "a,b": "1,2"}
    assert (one.row, one.line, two.row, two.line) == (1, 3, 2, 4)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", "^", ":"])
def test_the_delimiter_line_may_name_any_character(delimiter: str) -> None:
    """A tab and a circumflex as well."""
    found = header(f"sep={delimiter}\nname{delimiter}email\n")
    assert (found.columns, found.delimiter, found.skipped_lines) == (("name", "email"), delimiter, 1)


def test_the_option_goes_before_the_delimiter_line() -> None:
    """The user has seen the file; the line is no header nevertheless."""
    assert header("sep=;\nname,email\n", delimiter=",").columns == ("name", "email")


@pytest.mark.parametrize(
    ("title", "line"),
    [("Table 1\n", 2), ("Members 2026;;\n;;\n", 3), ("Members\n\nas of 3 May 2026\n\n", 5), ('"Members; all"\n', 2)],
)
def test_the_header_is_found_below_a_title(title: str, line: int) -> None:
    """Numbers and people write a title above the table; the line is told."""
    found = header(f"{title}Name;E-Mail;City\nAnn;ann@example.org;Wien\nBob;bob@example.org;Graz\n")
    assert (found.columns, found.email, found.found_line) == (("Name", "E-Mail", "City"), "E-Mail", line)


async def test_rows_below_a_title_keep_their_lines(tmp_path: Path) -> None:
    """An editor is opened at that line."""
    rows = await read(tmp_path, "Table 1\n\nemail,name\nann@example.org,Ann\nnobody,Bob\n")
    assert [(row.row, row.line) for row in rows] == [(1, 4), (2, 5)]


def test_a_header_below_more_than_a_title_is_asked_for() -> None:
    """What stands above may be rows; nothing is left out without a word."""
    with pytest.raises(
        RecipientError, match="line 3 may have the names of the columns: if it has, set skip_lines= to 2"
    ):
        header("Report,May\nSales,North\nname,email\nAnn,ann@example.org\n")


@pytest.mark.parametrize("text", ["contact\nnobody\nann@example.org\n", "from,to\na,b\nann@x.example,bob@x.example\n"])
def test_a_row_is_never_taken_for_a_header(text: str) -> None:
    """The first row of a file whose address column is unclear stays a row."""
    with pytest.raises(RecipientError, match="name it with email_column="):
        header(text)


@pytest.mark.parametrize(("skipped", "columns"), [(0, ("a", "email")), (1, ("b", "email")), (3, ("c", "email"))])
async def test_lines_are_skipped_as_told(tmp_path: Path, skipped: int, columns: tuple[str, ...]) -> None:
    """The number of lines, blank ones included; 0 looks for nothing."""
    text = "a,email\nb,email\n\nc,email\nAnn,ann@example.org\n"
    assert header(text, skip_lines=skipped).columns == columns
    rows = await read(tmp_path, text, skip_lines=skipped)
    assert (rows[-1].row, rows[-1].line) == ({0: 3, 1: 2, 3: 1}[skipped], 5)


@pytest.mark.parametrize("number", [4, 400])
def test_more_lines_than_there_are_cannot_be_skipped(number: int) -> None:
    """An empty file would be nobody to mail."""
    with pytest.raises(RecipientError, match="nothing below the lines that are skipped: give a smaller skip_lines="):
        header("name,email\nAnn,ann@example.org\n", skip_lines=number)
    with pytest.raises(RecipientError, match="skip_lines= is -1"):
        RecipientFile("people.csv", skip_lines=-1)


@pytest.mark.parametrize("blank", [",,", " , ,", '"",,', ",,,,,"])
async def test_rows_of_delimiters_are_blank(tmp_path: Path, blank: str) -> None:
    """No row, no problem, wherever they are."""
    text = f"email,name,city\n{blank}\nann@example.org,Ann,Wien\n{blank}\nbob@example.org,Bob,Graz\n{blank}\n{blank}\n"
    report = await check(tmp_path, text)
    assert (report.rows, report.problems, report.clean) == (2, 0, True)


async def test_short_rows_are_padded_and_reported_once(tmp_path: Path) -> None:
    """Excel leaves out delimiters at the end of a row."""
    wanted = composer("email", "name", "city", "note", text="Hello {{ name }}")
    text = "email,name,city,note\nann@example.org,Ann\nbob@example.org,Bob,Graz\ncid@example.org,Cid,Linz,x\n"
    report = await check(tmp_path, text, wanted)
    assert (report.recipients, report.problems, report.remarks) == (3, 0, 1)
    assert "has 2 cells where the header has 4" in report.remarked[0].remark


@pytest.mark.parametrize(
    "text", ["{{ city }}", '{{ row["city"] }}', "{{ row.values()|join }}", "{% if city %}x{% endif %}"]
)
async def test_a_short_row_that_lacks_what_a_template_names_is_a_problem(tmp_path: Path, text: str) -> None:
    """Half a row may be the end of a broken download."""
    wanted = composer("email", "name", "city", text=text)
    report = await check(tmp_path, "email,name,city\nann@example.org,Ann\n", wanted)
    assert [problem.reason for problem in report.problem_rows] == [
        "has 2 cells where the header has 3: “city” is missing"
    ]


@pytest.mark.parametrize(
    "footer", ["Total,2,\n", "Summe: 2\n", "\n2 rows\n", ",,\nExported on 3 May\nby Ann\n", "© Example Ltd,,\n"]
)
async def test_a_footer_is_left_out_and_told(tmp_path: Path, footer: str) -> None:
    """A total or a date below the table is nobody; the row is named nevertheless."""
    wide = "email,name,city,a,b\nann@example.org,Ann,Wien,,\nbob@example.org,Bob,Graz,,\n"
    report = await check(tmp_path, wide + footer, composer("email", "name", text="{{ name }}"))
    assert (report.recipients, report.problems) == (2, 0)
    assert report.left_out == len(report.footer) == footer.strip(",\n").count("\n") + 1
    assert "below the table" in str(report.footer[0])


@pytest.mark.parametrize(
    "row", [",Zoe,Linz\n", ",Zoe,\n", "\n,Zoe,Linz\n", "zoe,,\n", "\nzoe@,Zoe,\n", "Sum,,\nzoe@example.org,Zoe,X\n"]
)
async def test_a_person_without_an_address_is_no_footer(tmp_path: Path, row: str) -> None:
    """A recipient who was meant, or who follows, makes the row a problem."""
    report = await check(tmp_path, "email,name,city\nann@example.org,Ann,Wien\n" + row)
    assert (report.problems, report.left_out) == (1, 0)


async def test_many_rows_without_an_address_are_no_footer(tmp_path: Path) -> None:
    """A hundred of them are a fault of the file; all but the last few are problems, in order."""
    report = await check(tmp_path, "email,name\nann@example.org,Ann\n\n" + ",x\n" * 100)
    assert report.rows == 101
    assert report.problems >= 80
    assert [row.row for row in report.problem_rows] == list(range(2, 22))


async def test_unnamed_and_doubled_columns_are_refused_only_when_they_are_named(tmp_path: Path) -> None:
    """Mailchimp's exports have doubled columns, those of pandas one without a name."""
    [row] = await read(tmp_path, ",email,name,name\n0,ann@example.org,Ann,Ångström\n")
    assert isinstance(row, Recipient)
    columns = tuple(row.fields)
    assert columns == ("column 1", "email", "name (column 3)", "name (column 4)")
    composer(*columns, text="{{ name_column_4 }} {{ column_1 }}")
    told = "2 columns have that name: rename them, or write {{ name_column_3 }} or {{ name_column_4 }}"
    with pytest.raises(TemplateError, match=re.escape(told)):
        composer(*columns, text="Hello {{ name }}")


@pytest.mark.parametrize("wanted", ["name", "NAME", "Na me"])
async def test_an_option_that_names_a_doubled_column_is_refused(tmp_path: Path, wanted: str) -> None:
    """Either may be meant."""
    (tmp_path / "people.csv").write_text("name,email,name\n")
    file = RecipientFile(tmp_path / "people.csv")
    with pytest.raises(RecipientError, match=r"2 columns are named “.*”: rename them, or name one of “name \(column 1"):
        await file.find_column(wanted)
    assert await file.find_column("name (column 3)") == "name (column 3)"


def test_a_doubled_address_column_can_be_named() -> None:
    """By its number."""
    text = "E-Mail,E-Mail\na@example.org,b@example.org\n"
    assert header(text, email="E-Mail (column 2)").email == "E-Mail (column 2)"


@pytest.mark.parametrize(
    ("written", "spelling"),
    [
        ("{{ First Name }}", "{{ First_Name }}"),
        ("{{ first name | upper }}", "{{ First_Name }}"),
        ("{{ E-Mail }}", "{{ E_Mail }}"),
        ("{{ 2. Straße }}", "{{ _2_Straße }}"),
        ("{{- 1 -}}\n{{ 2nd }}", "line 2: “2nd” is not a name of a template: write {{ _2nd }}"),
        ("{{ STADT }}", "did you mean “Stadt”"),
        ("{{ no/yes }}", '{{ row["no/yes"] }}'),
    ],
)
def test_an_error_names_the_spelling_of_an_odd_column(written: str, spelling: str) -> None:
    """Spaces, umlauts, a leading digit: the names are those of the spreadsheet, and the error has what to write."""
    columns = ("email", "First Name", "E-Mail", "2. Straße", "2nd", "Stadt", "no/yes", "no_yes")
    for part in ("text", "html", "subject"):
        with pytest.raises(TemplateError) as caught:
            Template(**{"from_": "news@example.org", "subject": "News", "text": "x", part: written}).compile(columns)
        assert spelling in str(caught.value)


def test_what_jinja_can_read_is_not_argued_with() -> None:
    """A difference of two columns is one, also where a third has the name of both."""
    columns = ("email", "a", "b", "a - b")
    made = composer(*columns, text="{{ a|int - b|int }} {{ row['a - b'] }}")
    content = made.compose("a@example.org", dict(zip(columns, ("", "1", "2", "x"), strict=True))).content
    assert b"-1 x" in bytes(content)  # type: ignore[arg-type]


@pytest.mark.parametrize("column", ["Zu\u0308rich", "Z\u00fcrich"])
def test_a_decomposed_column_is_reached_as_it_is_typed(column: str) -> None:
    """Files of macOS may have the letter and the dots as two characters."""
    composer("email", column, text="Hello {{ Z\u00fcrich }}")


Sheets = Mapping[str, Sequence[Sequence[object]]]
PEOPLE = [["email", "name"], ["ann@example.org", "Ann"]]
GUESTS = [["E-Mail", "name"], ["bob@example.org", "Bob"]]
NOTES = [["Remarks"], ["paid in May"]]


def xlsx(path: Path, sheets: Sheets, hidden: Sequence[str] = ()) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        sheet.sheet_state = "hidden" if name in hidden else "visible"
        for row in rows:
            sheet.append(list(row))
    book.save(path)
    return path


SPACES = " ".join(
    f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "table", "text", "style")
)


def cell(text: str, kind: str = "string", more: str = "") -> str:
    return f'<table:table-cell office:value-type="{kind}" {more}><text:p>{text}</text:p></table:table-cell>'


def ods(path: Path, sheets: Mapping[str, Sequence[str]], hidden: Sequence[str] = ()) -> Path:
    """An .ods of sheets with rows of cells, or of whole rows."""
    style = (
        '<style:style style:name="h" style:family="table"><style:table-properties table:display="false"/></style:style>'
    )
    tables = "".join(
        f"<table:table table:name='{name}'{' table:style-name=' + chr(39) + 'h' + chr(39) if name in hidden else ''}>"
        + "".join(
            row if row.startswith("<table:table-row") else f"<table:table-row>{row}</table:table-row>" for row in rows
        )
        + "</table:table>"
        for name, rows in sheets.items()
    )
    body = f"<office:body><office:spreadsheet>{tables}</office:spreadsheet></office:body>"
    content = f"<office:document-content {SPACES}><office:automatic-styles>{style}</office:automatic-styles>{body}"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr("META-INF/manifest.xml", "<manifest/>")
        archive.writestr("content.xml", f"{content}</office:document-content>")
    return path


async def sheet_rows(path: Path, sheet: str | int | None = None) -> list[object]:
    rows = [row async for batch in RecipientFile(path, sheet=sheet).batches() for row in batch]
    return [list(row.fields.values()) if isinstance(row, Recipient) else str(row) for row in rows]


@pytest.mark.parametrize(
    ("sheets", "hidden"),
    [
        ({"Notes": NOTES, "Members": PEOPLE}, ()),
        ({"Old": GUESTS, "Members": PEOPLE}, ("Old",)),
        ({"Empty": [], "Members": PEOPLE}, ()),
    ],
)
async def test_the_only_sheet_with_addresses_is_read_and_told(
    tmp_path: Path, sheets: Sheets, hidden: Sequence[str]
) -> None:
    """Behind one of notes, a hidden one or an empty one."""
    path = xlsx(tmp_path / "people.xlsx", sheets, hidden)
    assert await sheet_rows(path) == [["ann@example.org", "Ann"]]
    file = RecipientFile(path)
    assert (await file.header()).sheet == "Members"
    assert file.sheet == "Members"


@pytest.mark.parametrize(
    ("sheets", "told"),
    [
        ({"People": PEOPLE, "Guests": GUESTS}, "several sheets have addresses: name one of “People”, “Guests”"),
        ({"A": NOTES, "B": NOTES}, "no sheet has a column of addresses: name one of “A”, “B” with sheet="),
    ],
)
async def test_which_of_several_sheets_is_asked_for(tmp_path: Path, sheets: Sheets, told: str) -> None:
    with pytest.raises(SettingNeeded) as caught:
        await sheet_rows(xlsx(tmp_path / "people.xlsx", sheets))
    assert told in str(caught.value)
    assert (caught.value.setting, caught.value.values) == ("sheet", tuple(sheets))


@pytest.mark.parametrize("sheet", ["Guests", "guests", 2, "2"])
async def test_the_sheet_that_is_named_is_read(tmp_path: Path, sheet: str | int) -> None:
    """By its name or by its number among those that are shown; a hidden one by its name."""
    path = xlsx(tmp_path / "people.xlsx", {"People": PEOPLE, "Old": NOTES, "Guests": GUESTS, "Nil": []}, ("Old",))
    assert await sheet_rows(path, sheet) == [["bob@example.org", "Bob"]]


async def test_a_sheet_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = xlsx(tmp_path / "people.xlsx", {"People": PEOPLE, "Nil": []})
    with pytest.raises(
        RecipientError, match=r"has no sheet “Poeple”; did you mean “People”\?: name one of “People”, “Nil”"
    ):
        await sheet_rows(path, "Poeple")
    with pytest.raises(
        RecipientError, match="has nothing in the sheet “Nil”: name another sheet with sheet=, or fill it"
    ):
        await sheet_rows(path, "Nil")
    with pytest.raises(RecipientError, match=r"people\.csv is no workbook: leave out sheet="):
        RecipientFile("people.csv", sheet=1)


async def test_a_cell_without_a_value_is_named(tmp_path: Path) -> None:
    """A formula that was never calculated, and an error: the library reads both as empty. An empty text is a value."""
    rows = [
        ["email", "a", "b"],
        ["ann@example.org", "=1+1", "x"],
        ["bob@example.org", "y", "#N/A"],
        ["cid@example.org"],
    ]
    found = await sheet_rows(xlsx(tmp_path / "people.xlsx", {"S": rows}))
    assert "row 1 (line 2): has in B2 a formula without a value: open the workbook in a spreadsheet program" in str(
        found[0]
    )
    assert "row 2 (line 3): has in C3 the error #N/A instead of a value: correct its formula" in str(found[1])
    assert found[2] == ["cid@example.org", "", ""]


HEAD = cell("email") + cell("since") + cell("amount") + cell("city", more='table:number-columns-spanned="2"')
COVERED = "<table:covered-table-cell/>"
DATE = cell("3.1.2026", "date", 'office:date-value="2026-01-03"')
AMOUNT = cell("1.234,50 €", "currency", 'office:value="1234.5"')


async def test_cells_of_an_ods_are_what_they_are(tmp_path: Path) -> None:
    """Dates, amounts, merged cells and repeated ones; rows without end below the table; a hidden sheet."""
    row = cell("ann@example.org") + DATE + AMOUNT + cell("Wien") + COVERED + cell("x")
    again = f'<table:table-row table:number-rows-repeated="2">{row}</table:table-row>'
    below = '<table:table-row table:number-rows-repeated="1048000"><table:table-cell/></table:table-row>'
    sheets = {"Old": [cell("a@example.org")], "New": [HEAD + COVERED + cell("note"), again, below]}
    path = ods(tmp_path / "people.ods", sheets, hidden=["Old"])
    assert await sheet_rows(path) == [["ann@example.org", "2026-01-03", "1234.5", "Wien", "", "x"]] * 2


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ('<table:table-cell table:formula="of:=[.A1]"/>', "has in B3 a formula without a value"),
        (cell("#N/A", more='table:formula="of:=NA()"'), "has in B3 the error #N/A instead of a value"),
    ],
)
async def test_a_cell_of_an_ods_without_a_value_is_named(tmp_path: Path, broken: str, told: str) -> None:
    rows = [cell("email") + cell("name"), cell("ann@example.org") + cell("Ann"), cell("bob@example.org") + broken]
    ann, bob = await sheet_rows(ods(tmp_path / "people.ods", {"S": rows}))
    assert ann == ["ann@example.org", "Ann"]
    assert told in str(bob)


def archive(path: Path, *names: str, content: str = "") -> bytes:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, content)
    return path.read_bytes()


OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


@pytest.mark.parametrize(
    ("name", "what", "told"),
    [
        (
            "people.xlsx",
            OLE + bytes(900) + "EncryptedPackage".encode("utf-16-le"),
            "is protected by a password: save it",
        ),
        ("people.ods", ("META-INF/manifest.xml", "<manifest:encryption-data/>"), "is protected by a password: save it"),
        ("people.xls", OLE + bytes(900), "cannot be read as a workbook"),
        ("people.xls", b"<html><table><tr><td>email", "is a web page or XML under the name of a workbook: open it"),
        ("people.xls", b'\xef\xbb\xbf<?xml version="1.0"?><Workbook>', "is a web page or XML under the name of a"),
        ("people.xlsx", ("Index/Document.iwa", ""), "is a Numbers document: export it with File > Export To"),
        (
            "people.xlsx",
            ("word/document.xml", ""),
            r"cannot be read as a workbook \(it is a ZIP archive without sheets\)",
        ),
        ("people.xlsx", b"email,name\nann@example.org,Ann\n", r"\(it is text\): save it as CSV, or give it a name"),
        ("people.xlsx", b"", r"\(it is an empty file\): save it as CSV"),
        ("people.xlsx", b"\x00\x01\x02", r"\(it is of no known kind\): save it as CSV"),
    ],
)
async def test_a_file_that_is_no_readable_workbook_says_what_to_do(
    tmp_path: Path, name: str, what: bytes | tuple[str, str], told: str
) -> None:
    path = tmp_path / name
    data = what if isinstance(what, bytes) else archive(path, what[0], content=what[1])
    path.write_bytes(data)
    with pytest.raises(RecipientError, match=told):
        await sheet_rows(path)


def test_a_numbers_document_is_asked_to_be_exported() -> None:
    with pytest.raises(RecipientError, match=r"people\.numbers is a Numbers document: export it with File > Export To"):
        RecipientFile("people.numbers")


async def test_an_empty_workbook_is_said_to_be_empty(tmp_path: Path) -> None:
    with pytest.raises(RecipientError, match=r"people\.xlsx is empty: it needs a line of column names"):
        await sheet_rows(xlsx(tmp_path / "people.xlsx", {"S": []}))


@pytest.mark.parametrize("name", ["people.csv", "people.xlsx"])
async def test_a_file_that_changes_between_two_passes_is_refused(tmp_path: Path, name: str) -> None:
    """After the rows of the second pass, which are not sent before its end is known to be the same."""
    path = tmp_path / name

    def write(people: Sequence[Sequence[object]]) -> None:
        if name.endswith(".xlsx"):
            xlsx(path, {"S": people})
        else:
            path.write_text("\n".join(",".join(map(str, row)) for row in people), "utf-8")

    write(PEOPLE)
    file = RecipientFile(path)
    await run_preflight(file)
    write([*PEOPLE, ["zoe@example.org", "Zoe"]])
    with pytest.raises(RecipientError, match="changed while it was read: wait until it is complete, then run the same"):
        [row async for batch in file.batches() for row in batch]
