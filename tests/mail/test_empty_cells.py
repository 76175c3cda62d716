"""Cells that are empty where a template writes them: “Hello ,” is found before it is mailed."""

from __future__ import annotations

import pytest

from asyncsmtp.mail.checks.empty_cells import EmptyCells, find_written_columns
from asyncsmtp.mail.templates.environment import Delimiters
from asyncsmtp.mail.templates.variables import Columns

COLUMNS = Columns(["email", "name", "First Name", "company"])


def written(source: str, columns: Columns = COLUMNS) -> dict[str, str]:
    found = find_written_columns({"message.txt": source}, columns)
    return {column: each.place for column, each in found.items()}


@pytest.mark.parametrize(
    ("source", "column"),
    [
        ("Hello {{ name }},", "name"),
        ("Hello {{ name|title }},", "name"),
        ('Hello {{ row["First Name"] }},', "First Name"),
        ("Hello {{ First_Name }},", "First Name"),
        ("{% set x = 1 %}Hello {{ company | trim | e }}", "company"),
        ("{% block greeting %}Hello {{ name }}{% endblock %}", "name"),
    ],
)
def test_what_is_written_by_itself(source: str, column: str) -> None:
    assert written(source) == {column: "message.txt, line 1"}


@pytest.mark.parametrize(
    "source",
    [
        'Hello {{ name or "friend" }},',
        'Hello {{ name|default("friend", true) }},',
        "Hello{% if name %} {{ name }}{% endif %},",
        'Hello {{ name if name else "friend" }},',
        "{% for each in [1] %}{{ name }}{% endfor %}",
        "{{ name|length }} letters",
        "{# {{ name }} #}Hello",
    ],
)
def test_what_a_template_provides_for(source: str) -> None:
    """A condition, another text, or a use that is no text of the cell."""
    assert written(source) == {}


def test_the_line_and_the_advice_are_of_the_template_s_own_marks() -> None:
    columns = Columns(["name"], delimiters=Delimiters(("<<", ">>")))
    found = find_written_columns({"message.html": "<p>News</p>\n<p>Hello <<name>>, <<name>></p>"}, columns)
    assert found["name"].place == "message.html, line 2"
    assert '<< name or "…" >>' in found["name"].advice


def test_rows_with_an_empty_cell_are_named() -> None:
    """White space is empty."""
    cells = EmptyCells(find_written_columns({"message.txt": "Hello {{ name }}"}, COLUMNS))
    for number, name in enumerate(("Ann", "", " \t", "Dee"), 1):
        cells.add(number, {"name": name})
    (finding,) = cells.findings()
    assert str(finding) == (
        'note (empty-cell): message.txt, line 1: “name” is empty in 2 rows (2, 3): write {{ name or "…" }}, or leave it'
        " if that is meant"
    )


@pytest.mark.parametrize(
    ("names", "said"), [(("Ann", ""), "in row 2"), (("Ann", *[""] * 7), "7 rows (2, 3, 4, 5, 6, …)")]
)
def test_one_row_and_many_rows(names: tuple[str, ...], said: str) -> None:
    cells = EmptyCells(find_written_columns({"message.txt": "Hello {{ name }}"}, COLUMNS))
    for number, name in enumerate(names, 1):
        cells.add(number, {"name": name})
    assert said in cells.findings()[0].sentence


@pytest.mark.parametrize("names", [("Ann", "Bob"), ("", ""), ()])
def test_a_column_that_is_always_or_never_empty_is_no_mistake_of_a_row(names: tuple[str, ...]) -> None:
    cells = EmptyCells(find_written_columns({"message.txt": "Hello {{ name }}"}, COLUMNS))
    for number, name in enumerate(names, 1):
        cells.add(number, {"name": name})
    assert cells.findings() == []
