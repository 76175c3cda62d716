"""The header: delimiter, columns, the address column; guessed only when it is obvious, and said."""

from __future__ import annotations

import pytest

from asyncsmtp.bulk.recipients.column_header import ColumnHeader, read_header
from asyncsmtp.bulk.recipients.csv_format import JsonLinesReader
from asyncsmtp.errors import RecipientError


def heading(text: str, *, email: str | None = None, delimiter: str | None = None, whole: bool = True) -> ColumnHeader:
    return read_header("people.csv", text, whole=whole, delimiter=delimiter, email=email)


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("name,email\na,a@example.com\n", ","),
        ("name;email\na;a@example.com\n", ";"),
        ("name\temail\na\ta@example.com\n", "\t"),
        ("name|email\na|a@example.com\n", "|"),
        ('"last, first, title";email\n"Rossi, Maria, Dr";a@example.com\n', ";"),
        ("last, first;e-mail, work;no\nRossi, M;a@example.com;1\nX, Y;b@example.com;2\n", ";"),
        ('"name\n;;;;\n",email\na,a@example.com\n', ","),
        ("email;price\na@example.com;1,50\nb@example.com;2,50\n", ";"),
        ("email,hours\na@example.com,9|12|15\n", ","),
        ("email\na@example.com\n", ","),
        ("email,name", ","),
    ],
)
def test_the_delimiter_is_the_one_that_fits_header_and_rows(text: str, delimiter: str) -> None:
    """Counting commas is fooled by names; what cuts header and rows alike is the delimiter."""
    assert heading(text).delimiter == delimiter


def test_two_delimiters_that_fit_alike_are_asked_about() -> None:
    """Any choice would be a coin."""
    with pytest.raises(RecipientError, match="the delimiter may be ',' and ';': name it with delimiter="):
        heading("a,email;b\nx,y;z\n")


def test_a_given_delimiter_is_not_argued_with() -> None:
    """The user has seen the file."""
    assert heading("a,email;b\nx,a@example.com;z\n", delimiter=",", email="email;b").columns == ("a", "email;b")


def test_names_lose_the_spaces_and_line_breaks_around_and_within() -> None:
    """Excel's Alt-Enter in a header would make a column that no template can name."""
    assert heading('"E-Mail\nAddress", name \na@example.com,b\n').columns == ("E-Mail Address", "name")


def test_nameless_columns_at_the_end_are_none() -> None:
    """A delimiter at the end of each line is how some programs export."""
    assert heading("name,email,,\na,a@example.com,,\n").columns == ("name", "email")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        (" \n\r\n", "is empty"),
        (",,\n , \n", "has only blank rows"),
        ("\nname,email,email\n", "“email \\(column 2\\)” and “email \\(column 3\\)” may each hold the address"),
        ("name,name,name (column 1),email\n", "line 1: two columns are named “name \\(column 1\\)”"),
        ("name,x\0,email\n", "line 1: the header has a NUL"),
        ('na"me,"em"ail"\n', "line 1: the header has text behind a closing quote"),
        ('"name,email\na,a@example.com\n', "line 1: the header opens a quote that is not closed"),
        ("Bob,bob@example.com\nEve,eve@example.com\n", "line 1 holds the address “bob@example.com” where the names"),
        (",".join(f"c{i}" for i in range(10_001)), "line 1: 10001 columns are more than 10000"),
    ],
)
def test_a_header_that_cannot_be_used_is_refused_with_its_line(text: str, told: str) -> None:
    """TF-09: guessing here would mail nobody, or everybody with the wrong cells."""
    with pytest.raises(RecipientError, match=f"^people.csv.*{told}"):
        heading(text)


def test_ten_thousand_columns_are_read() -> None:
    """TF-09: a wide export is slow to look at, not wrong."""
    assert len(heading("email," + ",".join(f"c{i}" for i in range(9_999))).columns) == 10_000


def test_a_header_without_an_end_is_refused() -> None:
    """Only the beginning of a file is looked at for a header; one that goes on is a quote that was left open."""
    with pytest.raises(RecipientError, match="header runs past 262144 characters: is a quote in it never closed"):
        heading('"name,email\n' + "a,a@example.com\n" * 1000, whole=False)


@pytest.mark.parametrize("name", ["email", "E-Mail", "e-mail address", "Email_Address", "MAIL", "E-Mail-Adresse"])
def test_a_column_called_e_mail_is_the_address_column_and_called_a_guess(name: str) -> None:
    """Obvious, but the user shall hear of it before anything is sent."""
    found = heading(f"name,{name}\n")
    assert (found.email, found.guessed) == (name, True)


def test_without_such_a_name_the_only_column_of_addresses_is_taken() -> None:
    """“Contact” with nothing but addresses in it is obvious too; blank cells do not speak against it."""
    found = heading("name,Contact\na,a@example.com\nb,\nc,c@example.com\n")
    assert (found.email, found.guessed) == ("Contact", True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name,Email,Mail\na,a@example.com,b@example.com\n", "“Email” and “Mail” may each hold the address"),
        ("from,to\na@example.com,b@example.com\n", "“from” and “to” may each hold the address"),
        ("name,contact\na,a@example.com\nb,none\n", "no column is called e-mail"),
        ("name,handle\na,@alice\nb,@bob\n", "no column is called e-mail"),
        ("name,contact\n", "no column is called e-mail"),
    ],
)
def test_an_ambiguous_address_column_is_asked_for(text: str, told: str) -> None:
    """The wrong column mails the wrong people."""
    with pytest.raises(RecipientError, match=f"{told}: name it with email_column=; it has “"):
        heading(text)


@pytest.mark.parametrize("wanted", ["E-Mail Address", "e-mail address", "E-MAILADDRESS", " e-mail  Address "])
def test_a_named_column_is_found_whatever_its_case_and_spaces(wanted: str) -> None:
    """What is typed in a shell rarely matches a spreadsheet to the letter."""
    found = heading("name,E-Mail Address\n", email=wanted)
    assert (found.email, found.guessed) == ("E-Mail Address", False)


def test_the_exact_name_wins_over_one_that_differs_in_case() -> None:
    """Both exist; the user typed one of them."""
    assert heading("Email,email\n", email="email").email == "email"


def test_a_name_that_fits_two_columns_but_for_case_is_asked_about() -> None:
    """Neither is what was typed."""
    with pytest.raises(RecipientError, match="“EMAIL” may be “Email” and “email”"):
        heading("Email,email\n", email="EMAIL")


def test_a_column_that_is_not_there_is_answered_with_those_that_are() -> None:
    """The next thing to type should be on the screen."""
    with pytest.raises(RecipientError, match=r"no column “emial” \(did you mean “Email”\?\); it has “name”, “Email”"):
        heading("name,Email\n", email="emial")


def test_of_many_columns_the_first_twenty_are_listed() -> None:
    """A screenful of names hides the sentence."""
    with pytest.raises(RecipientError, match=r"“c19” and 80 more$"):
        heading(",".join(f"c{i}" for i in range(100)), email="x")


def test_names_are_shown_without_what_moves_a_cursor() -> None:
    """CT-01: the header is foreign text."""
    with pytest.raises(RecipientError) as caught:
        heading("\x1b[2Jname,city\n", email="email")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("titles", ["News of March\n\n", "News of March\n,,\n", '"News, of March"\n'])
def test_a_title_of_one_cell_is_skipped(titles: str) -> None:
    """The line of the header is told."""
    found = heading(f"{titles}name,email\na,a@example.com\nb,b@example.com\n")
    line = titles.count("\n") + 1
    assert (found.columns, found.found_line, found.skipped_lines) == (("name", "email"), line, line - 1)


@pytest.mark.parametrize(
    "above", ["ann@example.com\n", '5" disks\n', "one,two\n", "one,two,three\n", "Ann,ann@example.com\n"]
)
def test_what_may_be_a_row_or_the_names_is_never_skipped(above: str) -> None:
    """An address, a quote that may go on, and two cells are no title: the person says what they are."""
    with pytest.raises(RecipientError):
        heading(f"{above}name,email\na,a@example.com\nb,b@example.com\n")


def test_a_header_is_searched_in_ten_lines() -> None:
    """And in no more of them where it is named."""
    table = "name,email\na,a@example.com\nb,b@example.com\n"
    assert heading("title\n" * 9 + table).found_line == 10
    with pytest.raises(RecipientError):
        heading("title\n" * 10 + table)
    far = read_header("people.csv", "title\n" * 30 + table, whole=True, delimiter=None, email=None, skip_lines=30)
    assert (far.skipped_lines, far.found_line, far.columns) == (30, 0, ("name", "email"))
    with pytest.raises(
        RecipientError, match="has nothing below the lines that are skipped: give a smaller skip_lines="
    ):
        read_header("people.csv", table, whole=True, delimiter=None, email=None, skip_lines=3)


@pytest.mark.parametrize(
    "name", ["E-Mail", "email addr", "Mail", "mail_address", "Correo", "Correo electronico", "Courriel"]
)
def test_an_address_column_is_known_in_other_languages(name: str) -> None:
    assert heading(f"name,{name}\n").email == name


@pytest.mark.parametrize(
    ("first", "delimiter"),
    [("sep=;\n", ";"), ('"sep=|"\r\n', "|"), ("SEP=\t\r", "\t"), ("sep=;;;\n", ";"), ("'sep=!'\n", "!")],
)
def test_the_line_for_excel_names_the_delimiter(first: str, delimiter: str) -> None:
    """One that is given goes before it; the line itself is skipped."""
    found = heading(f"{first}name{delimiter}email\nx{delimiter}a@example.com\n")
    assert (found.delimiter, found.columns, found.skipped_lines, found.found_line) == (
        delimiter,
        ("name", "email"),
        1,
        0,
    )
    assert heading(f"{first}name,email\nx,a@example.com\n", delimiter=",").columns == ("name", "email")


def test_a_blank_header_of_json_is_refused() -> None:
    """Of CSV, a row of blanks is an empty line."""
    reader = JsonLinesReader("people.jsonl")
    with pytest.raises(RecipientError, match="line 1: the header is blank: the first line must name the columns"):
        read_header("people.jsonl", '{" ": "x"}\n', whole=True, delimiter=None, email=None, reader=reader)
