"""`--where` and `--offset`: who a campaign is for, and what becomes of the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncsmtp.bulk.ledger.interfaces import RowState
from asyncsmtp.bulk.ledger.sqlite.store import SqliteLedger
from asyncsmtp.bulk.recipients.file import RecipientFile
from asyncsmtp.bulk.recipients.preflight import run_preflight
from asyncsmtp.bulk.recipients.recipient import RowFilter, RowRules
from asyncsmtp.errors import InvalidArgument
from tests.bulk.ledger.ledgers import entries

COLUMNS = ("email", "E-Mail Plan", "age")
ANN = {"email": "ann@example.org", "E-Mail Plan": "free", "age": "41"}


@pytest.mark.parametrize(
    ("where", "holds"),
    [
        ('age == "41"', True),
        ("age|int > 40 and E_Mail_Plan != 'paid'", True),
        ("row['E-Mail Plan'] in ('paid', 'gold')", False),
        ("'@example.org' in email", True),
        ("not email", False),
        ("email.endswith('.net')", False),
    ],
)
def test_a_condition_is_about_the_cells(where: str, holds: bool) -> None:
    assert bool(RowFilter(COLUMNS, where).left_out(1, ANN)) is not holds


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("", "is not a valid condition"),
        ("age ==", "is not a valid condition"),
        ("ages > 3", "there is no column “ages”; did you mean “age”?"),
        ("}} {{ age", "is not a valid condition"),
    ],
)
def test_an_invalid_condition_is_reported_before_any_row(where: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match="where") as caught:
        RowFilter(COLUMNS, where)
    assert said in str(caught.value)


@pytest.mark.parametrize("where", ["age + 1", "email.__class__.__mro__[1].__subclasses__()", "email|int / 0"])
def test_a_condition_that_fails_names_the_row(where: str) -> None:
    """TF-01: the sandbox holds here as well."""
    with pytest.raises(InvalidArgument, match="where= fails on row 7: "):
        RowFilter(COLUMNS, where).left_out(7, ANN)


async def test_rows_that_are_left_out_have_a_fate_too(tmp_path: Path) -> None:
    """They are suppressed, with the reason; a blank address may be what is asked about."""
    path = tmp_path / "people.csv"
    path.write_text("email,plan\na@e.org,free\nb@e.org,paid\n,paid\nd@e.org,paid\ne@e.org,free\nnobody,paid\n", "utf-8")
    rules = RowRules(row_filter=RowFilter(("email", "plan"), "plan == 'paid' and email", 1))
    file = RecipientFile(path, rules=rules)
    report = await run_preflight(file)
    assert (report.rows, report.recipients, report.left_out, report.problems) == (6, 2, 3, 1)
    async with await SqliteLedger.open(tmp_path / "l", name="news", from_domain="example.org") as ledger:
        counts = await ledger.load(file.batches())
        assert (counts[RowState.PENDING], counts[RowState.SUPPRESSED], counts[RowState.REJECTED]) == (2, 3, 1)
        found = await entries(ledger, RowState.SUPPRESSED)
        assert [(entry.row, entry.reply) for entry in found] == [
            (1, "left out: before row 2"),
            (3, "left out: not plan == 'paid' and email"),
            (5, "left out: not plan == 'paid' and email"),
        ]


def test_an_offset_alone_leaves_out_the_first_rows() -> None:
    """The row behind it is the first that is mailed; rows of an added file are counted anew."""
    rows = RowFilter(COLUMNS, offset=2)
    assert bool(rows)
    assert [rows.left_out(row, ANN) for row in (1, 2, 3)] == ["left out: before row 3"] * 2 + [""]
    assert rows.for_added_file().left_out(1, ANN) == ""
    assert rows.left_out(1, ANN) != ""
    assert not RowFilter(COLUMNS)
    assert not rows.for_added_file()


@pytest.mark.parametrize(
    ("where", "columns"),
    [
        ("age|int > 40", {"age"}),
        ("E_Mail_Plan == 'free' and age", {"age", "E-Mail Plan"}),
        ("row['age']", set(COLUMNS)),
        ("1 == 1", set()),
    ],
)
def test_the_columns_of_a_condition_are_known(where: str, columns: set[str]) -> None:
    """A row may be too short for the others; `row` may be any of them."""
    assert RowFilter(COLUMNS, where).used_columns == columns


@pytest.mark.parametrize(
    ("where", "said"),
    [("(" * 1000 + "age" + ")" * 1000, "is nested too deeply"), ("9" * 5000 + " > 1", "has a number that is too long")],
)
def test_a_condition_beyond_the_limits_of_the_interpreter_is_reported(where: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=f"where= {said}: write a shorter"):
        RowFilter(COLUMNS, where)
