"""One record, judged: mailed, or not and why."""

from __future__ import annotations

import json

import pytest

from asyncsmtp.bulk.recipients.csv_format import Record
from asyncsmtp.bulk.recipients.recipient import Problem, Recipient, RowFields, RowRules, RowValidator
from asyncsmtp.protocol.envelope import Mailbox

COLUMNS = ("name", "email", "city")


def judged(*cells: str, rules: RowRules | None = None) -> Recipient | Problem:
    return RowValidator(COLUMNS, "email", rules or RowRules()).validate(Record(7, 9, list(cells)))


def problem(*cells: str, rules: RowRules | None = None) -> str:
    row = judged(*cells, rules=rules)
    assert isinstance(row, Problem)
    assert (row.row, row.line) == (7, 9)
    return row.reason


def test_a_good_row_is_a_recipient_with_its_cells_as_they_are() -> None:
    """Only the address is trimmed: a cell is the user's text."""
    assert judged(" Bob ", " bob@example.com ", "Wien") == Recipient(
        7, Mailbox.parse("bob@example.com"), {"name": " Bob ", "email": " bob@example.com ", "city": "Wien"}
    )


@pytest.mark.parametrize("address", ["", " ", "\u00a0", "\n"])
def test_a_blank_address_is_a_problem(address: str) -> None:
    """Nobody to mail; the other cells say that somebody was meant."""
    assert problem("Bob", address, "Wien") == "“email” is blank: fill in the address, or delete the row"


def test_a_row_of_blanks_is_distinguished_from_a_blank_address() -> None:
    """Spreadsheets export the empty rows below the last one."""
    assert problem("", " ", "") == "every cell is blank: delete the row"
    assert problem("") == "every cell is blank: delete the row"


def test_cells_beyond_the_header_are_a_problem() -> None:
    """“Wien, 1010” without quotes shifts what follows; the mail would hold the wrong cells."""
    assert problem("Bob", "b@example.com", "Wien", "1010").startswith("has 4 cells where the header has 3: put quotes")


def test_blank_cells_beyond_the_header_are_none() -> None:
    """Delimiters at the end of a line carry nothing."""
    row = judged("Bob", "b@example.com", "Wien", "", " ")
    assert isinstance(row, Recipient)
    assert (len(row.fields), row.remark) == (3, "")


def test_a_row_that_is_too_short_is_a_problem() -> None:
    """A missing cell is not a blank one: half a row may be the end of a broken download."""
    assert problem("Bob", "b@example.com") == "has 2 cells where the header has 3: “city” is missing"
    assert problem("Bob") == "has 1 cell where the header has 3: “email” is missing"


def test_a_row_too_short_for_columns_that_nobody_uses_is_mailed_with_a_remark() -> None:
    """The message is whole; the user should still know."""
    rules = RowRules(needed=frozenset({"name"}))
    row = judged("Bob", "b@example.com", rules=rules)
    assert isinstance(row, Recipient)
    assert row.remark.startswith("has 2 cells where the header has 3; the missing ones are not used")
    assert row.fields["city"] == ""
    assert "“email” is missing" in problem("Bob", rules=rules)


def test_a_record_with_a_fault_is_a_problem() -> None:
    """Its cells are not looked at."""
    row = RowValidator(COLUMNS, "email", RowRules()).validate(Record(7, 9, [], "has text behind a closing quote"))
    assert row == Problem(7, 9, "has text behind a closing quote")
    assert str(row) == "row 7 (line 9): has text behind a closing quote"


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_a_line_break_in_a_cell_of_a_header_is_a_problem_of_its_row(end: str) -> None:
    """MH-01: “Bob\\nBcc: …” in the subject must stop this row, and no other."""
    rules = RowRules(one_line=frozenset({"name"}))
    assert problem(f"Bob{end}Bcc: z@example.com", "b@example.com", "Wien", rules=rules).startswith("“name” stands in a")
    assert isinstance(judged("Bob", "b@example.com", f"Wien{end}1010", rules=rules), Recipient)


def test_each_check_may_refuse_a_row() -> None:
    """Whether a row's attachment is there, only the caller can tell."""
    rules = RowRules(checks=(lambda row: "", lambda row: f"no file {row.fields['name']}.pdf"))
    assert problem("Bob", "b@example.com", "Wien", rules=rules) == "no file Bob.pdf"


def test_a_strange_domain_is_remarked_and_mailed() -> None:
    """MH-09: it may be meant."""
    row = judged("Bob", "bob@ex\u0430mple.com", "Wien")
    assert isinstance(row, Recipient)
    assert "mixes Cyrillic and Latin" in row.remark


@pytest.mark.parametrize(
    ("address", "remark"),
    [
        ("abc.@docomo.ne.jp", "has a dot before the @"),
        ('"abc."@docomo.ne.jp', "has a dot before the @"),
        ("a..b@docomo.ne.jp", "has two dots in a row"),
        ("bob.@gmail.com", "has a dot before the @"),
    ],
)
def test_dots_where_the_rfc_has_none_are_remarked_and_mailed(address: str, remark: str) -> None:
    """FT-46: old addresses of Japanese carriers, or a slip."""
    row = judged("Bob", address, "Wien")
    assert isinstance(row, Recipient)
    assert row.mailbox.address == address
    assert remark in row.remark


@pytest.mark.parametrize("address", ["a.b@example.com", "a@b.example.com"])
def test_other_dots_are_not_remarked(address: str) -> None:
    """FT-46: a remark on each row would be read by nobody."""
    row = judged("Bob", address, "Wien")
    assert isinstance(row, Recipient)
    assert row.remark == ""


def test_fields_are_a_mapping_that_json_takes_as_a_dict() -> None:
    """The ledger keeps them as JSON, the template reads them by name."""
    fields = RowFields({"a": 0, "b": 1}, ("x", "é"))
    assert json.loads(json.dumps(dict(fields))) == {"a": "x", "b": "é"} == fields
    assert (list(fields), len(fields), "a" in fields, "c" in fields) == (["a", "b"], 2, True, False)
    assert fields.cells == ("x", "é")
    assert repr(fields) == "RowFields({'a': 'x', 'b': 'é'})"
    with pytest.raises(KeyError):
        fields["c"]


def test_recipients_can_stand_in_a_set() -> None:
    """They are values; the mapping inside has no hash of its own."""
    assert len({judged("a", "b@example.com", "c"), judged("a", "b@example.com", "c")}) == 1
