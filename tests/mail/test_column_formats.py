"""Dates and amounts are read by the whole column: one order that fits every cell, or an error that asks."""

from __future__ import annotations

import sys
from contextlib import suppress
from datetime import UTC, datetime
from time import perf_counter

import pytest

from asyncsmtp.errors import RecipientError, TemplateError
from asyncsmtp.mail.templates.amounts import format_money
from asyncsmtp.mail.templates.column_formats import ColumnFormats
from asyncsmtp.mail.templates.dates import format_date
from asyncsmtp.mail.templates.template import Composer, Template
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.envelope import Mailbox

FORM = '{{ since|date("%Y-%m-%d %H:%M") }}'


def compiled(text: str) -> tuple[Composer, ColumnFormats]:
    template = Template(from_="n@example.org", subject="News", text=text, text_name="message.txt")
    composer = template.compile(["since", "price", "Paid on"])
    assert composer.formats is not None
    return composer, composer.formats


def shown(composer: Composer, cells: dict[str, str], row: int = 1) -> str:
    to, date = Mailbox.parse("a@b.example"), datetime(2026, 3, 1, tzinfo=UTC)
    fields = {"since": "", "price": "", "Paid on": ""} | cells
    message = composer.compose(to, fields, message_id="a@b.example", date=date, row=row)
    assert isinstance(message.content, Content)
    return bytes(message.content).decode().split("\r\n\r\n", 1)[1].strip()


def read(text: str, column: str, cells: list[str]) -> list[str]:
    """Return what each cell of a column becomes, once the whole of it was read."""
    composer, formats = compiled(text)
    for number, cell in enumerate(cells, 1):
        formats.add_row(number, {column: cell})
    formats.settle()
    return [shown(composer, {column: cell}) for cell in cells]


@pytest.mark.parametrize(
    ("cells", "dates"),
    [
        (["3/4/2026", "13/4/2026", ""], ["2026-04-03 00:00", "2026-04-13 00:00", ""]),
        (["3/4/2026", "4/13/2026"], ["2026-03-04 00:00", "2026-04-13 00:00"]),
        (["3/4/2026 10:11", "12/31/2026 1:05 PM"], ["2026-03-04 10:11", "2026-12-31 13:05"]),
        (["4.3.26", "31.12.2026"], ["2026-03-04 00:00", "2026-12-31 00:00"]),
        (["4.3.2026", "12.31.2026"], ["2026-04-03 00:00", "2026-12-31 00:00"]),
        (["26. 9. 2026", "1. 10. 2026 8:30"], ["2026-09-26 00:00", "2026-10-01 08:30"]),
        (["3/4/26", "25/12/26"], ["2026-04-03 00:00", "2026-12-25 00:00"]),
        (["26-03-04", "99-12-31"], ["2026-03-04 00:00", "1999-12-31 00:00"]),
        (["Sep 26, 2026 7:05 PM", "Oct 1, 2026 12:00 a.m."], ["2026-09-26 19:05", "2026-10-01 00:00"]),
        (["Sat, 26 Sep 2026 19:05:00 +0200", "1st of October 2026"], ["2026-09-26 19:05", "2026-10-01 00:00"]),
        (["26-Sep-26", "1-Oct-26"], ["2026-09-26 00:00", "2026-10-01 00:00"]),
        (["46291", "46291.75"], ["2026-09-26 00:00", "2026-09-26 18:00"]),
        (
            ["2026-09-26T19:05:00Z", "2026/9/26", "20260926"],
            ["2026-09-26 19:05", "2026-09-26 00:00", "2026-09-26 00:00"],
        ),
        (["2026年9月26日", "2026年10月1日 08:05"], ["2026-09-26 00:00", "2026-10-01 08:05"]),
        (["3/3/2026", "4/4/2026"], ["2026-03-03 00:00", "2026-04-04 00:00"]),
        (["9/26/2026 7:05\u202fPM"], ["2026-09-26 19:05"]),
    ],
)
def test_one_order_fits_every_cell_of_a_column(cells: list[str], dates: list[str]) -> None:
    assert read(FORM, "since", cells) == dates


@pytest.mark.parametrize(
    ("cells", "dates"),
    [
        (["4. März 2026", "26. September 2026"], ["2026-03-04 00:00", "2026-09-26 00:00"]),
        (["4 de septiembre de 2026", "1 de enero de 2026"], ["2026-09-04 00:00", "2026-01-01 00:00"]),
        (["sam. 26 sept. 2026", "lundi 1 février 2027"], ["2026-09-26 00:00", "2027-02-01 00:00"]),
        (["26 сентября 2026 г.", "1 мая 2026 г."], ["2026-09-26 00:00", "2026-05-01 00:00"]),
    ],
)
def test_months_have_names_in_other_languages(cells: list[str], dates: list[str]) -> None:
    assert read(FORM, "since", cells) == dates


def test_names_of_other_languages_need_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from asyncsmtp.mail.templates.dates import load_languages

    load_languages.cache_clear()
    monkeypatch.setitem(sys.modules, "babel", None)
    with pytest.raises(TemplateError, match=r"row 1 has “4\. März 2026”.*pip install 'asyncsmtp\[dates\]'"):
        read(FORM, "since", ["4. März 2026"])


def test_a_name_that_means_two_months_is_asked_about() -> None:
    """Listopad is November in Polish and October in Croatian; another month of the column tells."""
    with pytest.raises(TemplateError, match="may be of two languages: write the months as numbers"):
        read(FORM, "since", ["4 listopada 2026"])
    assert read(FORM, "since", ["4 listopada 2026", "5 września 2026"])[0] == "2026-11-04 00:00"


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        (["1/1/2026", "3/4/2026"], "“3/4/2026” in row 2 may be 3 April 2026 or 4 March 2026: say which: date("),
        (["1/1/2026", "3/4/2026"], ': date("%d.%m.%Y", input="%m/%d/%Y") or date("%d.%m.%Y", input="%d/%m/%Y")'),
        (["13/4/2026", "", "4/13/2026"], "row 3 “4/13/2026”: no order of day and month fits both"),
        (["03-04-26"], "may be 3 April 2026 or 4 March 2026 or 26 April 2003"),
        (["03042026"], "may be 3 April 2026 or 4 March 2026: say which: date(\"%d.%m.%Y\", input=\"%m%d%Y\")"),
        (["13/4/2026", "soon"], "row 2: “soon” is not a date"),
        (["13/4/2026", "30/2/2026"], "row 2: “30/2/2026” is not a date"),
        (["2026-03-01", "2026"], "row 2: “2026” is not a date"),
        (["13/4/62"], "the century of “13/4/62” in row 1 is not known"),
        (["13.4.2026", "3/4/2026"], "“3/4/2026” in row 2 may be"),
        (["0000-00-00"], "row 1: “0000-00-00” is not a date"),
    ],
)  # fmt: skip
def test_what_the_column_does_not_tell_is_an_error_that_asks(cells: list[str], why: str) -> None:
    with pytest.raises(TemplateError) as caught:
        read(f"\n{FORM}", "since", cells)
    assert why in str(caught.value)
    assert str(caught.value).startswith("message.txt, line 2: |date of the column “since”: ")


def test_input_says_how_the_cells_are_written() -> None:
    """With a time behind it, as several forms, and for serial numbers; what does not fit is found before sending."""
    given = "{{ since|date('%d.%m.%Y', input='%m/%d/%Y') }}"
    assert read(given, "since", ["3/4/2026", " 3/4/2026 10:11 ", ""]) == ["04.03.2026", "04.03.2026", ""]
    several = "{{ since|date('%d.%m.%Y %I%p', input=['%m/%d/%y', '%B %d, %Y', 'excel']) }}"
    cells = ["3/4/62", "March 4, 2026 7:00 PM", "46085"]
    assert read(several, "since", cells) == ["04.03.2062 12AM", "04.03.2026 07PM", "04.03.2026 12AM"]
    with pytest.raises(TemplateError, match="row 2: “13/4/2026” is not a date of the form “%m/%d/%Y”"):
        read(given, "since", ["3/4/2026", "13/4/2026"])
    with pytest.raises(TemplateError, match="needs a year, a month and a day"):
        read("{{ since|date('%d', input='%m/%d') }}", "since", ["3/4"])
    assert read("{{ since|date('%d.%m.%Y', '%d/%m/%Y') }}", "since", ["3/4/2026"]) == ["03.04.2026"]


@pytest.mark.parametrize(
    ("cells", "amounts"),
    [
        (["1,234.50", "60", ""], ["1,234.50", "60.00", ""]),
        (["1.234,50", "1.234"], ["1,234.50", "1,234.00"]),
        (["1 234,50", "1\u202f234"], ["1,234.50", "1,234.00"]),
        (["$60.00", "-$5", "($1,234.50)", "$ 7"], ["60.00", "-5.00", "-1,234.50", "7.00"]),
        (["60 €", "1.234,50 €", "5- €"], ["60.00", "1,234.50", "-5.00"]),
        (["EUR 60,5", "−5,00"], ["60.50", "-5.00"]),
        (["1'234.50", "Fr. 1’234.-"], ["1,234.50", "1,234.00"]),
        (["12,34,567.00", "60,-"], ["1,234,567.00", "60.00"]),
        (["0.125", "1.234"], ["0.12", "1.23"]),
        (["1,234,567", "1,234"], ["1,234,567.00", "1,234.00"]),
        (["1234.5", "1e3"], ["1,234.50", "1,000.00"]),
    ],
)
def test_one_decimal_mark_fits_every_cell_of_a_column(cells: list[str], amounts: list[str]) -> None:
    assert read("{{ price|money }}", "price", cells) == amounts


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        (["60", "1.234"], "no cell shows which is the decimal mark: “1.234” in row 2 may be 1.234 or 1,234"),
        (["1,234.50", "1.234,50"], "row 2 “1.234,50”: no order of point and comma fits both"),
        (["60 €", "$60.00"], "which are of two currencies"),
        (["60", "cheap"], "row 2: “cheap” is not an amount"),
        (["12%"], "row 1: “12%” is not an amount"),
    ],
)
def test_an_amount_that_may_be_two_is_an_error_that_asks(cells: list[str], why: str) -> None:
    with pytest.raises(TemplateError) as caught:
        read("{{ price|money }}", "price", cells)
    assert why in str(caught.value)


def test_input_says_how_amounts_are_written_and_number_calculates() -> None:
    assert read("{{ price|money(input='1.234,50') }}", "price", ["1.234", "5"]) == ["1,234.00", "5.00"]
    assert read("{{ (price|number(',') * 2)|money(2, ',', '.') }}", "price", ["1.234,5"]) == ["2.469,00"]
    assert read("{{ price|number * 2 }}", "price", ["1.234,5", "60 €"]) == ["2469.0", "120"]


def test_a_column_is_found_by_each_of_its_names() -> None:
    for name in ("Paid_on", 'row["Paid on"]', "Paid_on|trim", 'row["Paid on"]|default("")'):
        text = f"{{{{ {name}|date('%Y-%m-%d') }}}}"
        assert read(text, "Paid on", ["3/4/2026", "25/4/2026"]) == ["2026-04-03", "2026-04-25"]


def test_in_a_loop_over_rows_each_row_has_the_columns() -> None:
    composer, formats = compiled("{% for each in [row, row] %}{{ each.since|date('%Y-%m-%d') }};{% endfor %}")
    for number, cell in enumerate(["3/4/2026", "25/4/2026"], 1):
        formats.add_row(number, {"since": cell})
    formats.settle()
    assert shown(composer, {"since": "3/4/2026"}) == "2026-04-03;2026-04-03;"


def test_a_cell_that_only_some_rows_show_need_not_be_a_date() -> None:
    """The caller composes the row to know."""
    composer, formats = compiled("{% if since != 'never' %}{{ since|date('%Y') }}{% endif %}")
    assert not formats.add_row(1, {"since": "never"})
    assert formats.add_row(2, {"since": "13/4/2026"})
    formats.settle()
    assert shown(composer, {"since": "never"}) == ""
    with pytest.raises(RecipientError, match=r"row 3: message\.txt: line 1: “soon” is not a date"):
        shown(composer, {"since": "soon"}, 3)


def test_a_further_file_is_written_as_the_first_one() -> None:
    _, formats = compiled(FORM)
    formats.add_row(1, {"since": "13/4/2026"})
    formats.settle()
    assert formats.check_row(1, {"since": "3/4/2026"})
    with pytest.raises(TemplateError, match=r"row 2: .*where the day comes first: write it as in the first file"):
        formats.check_row(2, {"since": "4/13/2026"})


def test_without_the_column_a_cell_must_be_certain() -> None:
    """A program that composes messages by itself gives no column to read."""
    composer, _ = compiled("{{ since|date('%Y-%m-%d') }}{{ price|money }}")
    assert shown(composer, {"since": "13/4/2026", "price": "1,5"}) == "2026-04-131.50"
    with pytest.raises(RecipientError, match=r"may be 3 April 2026 or 4 March 2026: say which: date\(.*input="):
        shown(composer, {"since": "3/4/2026"})
    with pytest.raises(RecipientError, match=r"may be 1\.234 or 1,234: say which: money\(input="):
        shown(composer, {"price": "1.234"})


@pytest.mark.parametrize(
    "cell", ["1" * 99, "1 " * 49, "a1" * 49, "1." * 49, "(" * 99, "$1 " * 33, "1:" * 49, "٣/٤/٢٠٢٦"]
)
def test_no_cell_takes_long(cell: str) -> None:
    begun = perf_counter()
    for convert in (format_date, format_money):
        with suppress(ValueError):
            convert(cell)
    assert perf_counter() - begun < 0.5


def test_templates_without_dates_and_amounts_read_nothing() -> None:
    template = Template(from_="n@example.org", subject="{{ since|upper }}", text="{{ price }}")
    assert template.compile(["since", "price"]).formats is None
