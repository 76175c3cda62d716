"""Several rows of one mailbox: a message for the first, one each, or one for all of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from asyncsmtp.bulk.recipients import grouping
from asyncsmtp.bulk.recipients.file import RecipientFile
from asyncsmtp.bulk.recipients.preflight import run_preflight
from asyncsmtp.bulk.recipients.recipient import GroupedRow, Problem, Recipient, RowFilter, RowRules
from asyncsmtp.errors import InvalidArgument, RecipientError, TemplateError
from asyncsmtp.mail.mime import GroupedFields
from asyncsmtp.mail.templates.template import Composer, Template

CHILDREN = "email,child\nann@example.org,Zoe\nbob@example.org,Max\nAnn@example.org,Tom\nann@example.org,Eva\n"


def make_file(folder: Path, text: str, duplicates: str = "group", **given: bool) -> RecipientFile:
    path = folder / "people.csv"
    path.write_text(text, "utf-8", newline="")
    return RecipientFile(path, duplicates=duplicates, **given)  # type: ignore[arg-type]


async def read(file: RecipientFile, size: int = 2) -> list[Recipient | Problem]:
    return [row async for batch in file.batches(size) for row in batch]


def compile_text(text: str, *columns: str, subject: str = "News") -> Composer:
    return Template(from_="news@example.org", subject=subject, text=text).compile(columns, has_rows=True)


def rows_of(row: Recipient | Problem, column: str) -> list[str]:
    """The cells of all rows in the message of one row."""
    return [each[column] for each in row.fields.rows] if isinstance(row.fields, GroupedFields) else [row.fields[column]]


async def test_the_first_row_of_a_mailbox_has_all_of_them(tmp_path: Path) -> None:
    """The mailbox is compared as people mean it; the other rows say where they are."""
    ann, bob, *others = await read(make_file(tmp_path, CHILDREN))
    assert isinstance(ann, Recipient)
    assert (ann.row, rows_of(ann, "child"), dict(ann.fields)["child"]) == (1, ["Zoe", "Tom", "Eva"], "Zoe")
    assert rows_of(bob, "child") == ["Max"]
    assert [(row.row, row.first, row.address) for row in others if isinstance(row, GroupedRow)] == [
        (3, 1, "Ann@example.org"),
        (4, 1, "ann@example.org"),
    ]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.slow
async def test_rows_that_are_far_apart_are_found(tmp_path: Path, seed: int) -> None:
    """Every row is in one message, at any size of a batch, also of the second pass."""
    chance = random.Random(seed)
    mailboxes = [f"m{chance.randrange(700)}@example.org" for _ in range(2000)]
    file = make_file(tmp_path, "email,number\n" + "".join(f"{each},{i}\n" for i, each in enumerate(mailboxes)))
    expected: dict[str, list[str]] = {}
    for number, mailbox in enumerate(mailboxes):
        expected.setdefault(mailbox, []).append(str(number))
    for size in (1, 500):
        rows = await read(file, size)
        found = {str(row.mailbox): rows_of(row, "number") for row in rows if isinstance(row, Recipient)}
        assert found == expected
        assert [row.row for row in rows] == [*range(1, 2001)]


async def test_problems_and_rows_left_out_are_in_no_message(tmp_path: Path) -> None:
    file = make_file(tmp_path, CHILDREN + "ann@example.org,Ida\nann@,Kim\n")
    file.rules = RowRules(row_filter=RowFilter(await file.columns(), "child != 'Zoe' and child != 'Eva'"))
    rows = await read(file)
    assert [type(row) for row in rows] == [Problem, Recipient, Recipient, Problem, GroupedRow, Problem]
    assert rows_of(rows[2], "child") == ["Tom", "Ida"]


async def test_repaired_and_further_addresses_are_grouped(tmp_path: Path) -> None:
    """The second address of a cell may have rows of its own."""
    text = (
        'email,child\n"ann@example.org; bob@example.org",Zoe\nmailto:ann@example.org,Tom\nBob <bob@example.org>,Max\n'
    )
    rows = await read(make_file(tmp_path, text, repair=True))
    assert [(row.row, rows_of(row, "child")) for row in rows if isinstance(row, Recipient)] == [
        (1, ["Zoe", "Tom"]),
        (3, ["Max", "Zoe"]),
    ]
    report = await run_preflight(make_file(tmp_path, text, repair=True))
    assert (report.rows, report.recipients, report.grouped, report.repaired, report.further) == (4, 2, 2, 3, 1)


async def test_too_many_rows_of_one_mailbox_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody named the wrong column; nobody's memory is filled with one message."""
    monkeypatch.setattr(grouping, "MAX_ROWS", 2)
    rows = await read(make_file(tmp_path, CHILDREN))
    assert "3 rows have this mailbox, and a message can have 2" in str(rows[0])
    assert [type(row) for row in rows] == [Problem, Recipient, GroupedRow, GroupedRow]


async def test_no_space_for_groups_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "_TABLE", "CREATE TABLE sqlite_no (a)")
    with pytest.raises(RecipientError, match=r"cannot be put together on the disk: .*SQLITE_TMPDIR"):
        await read(make_file(tmp_path, CHILDREN))


async def test_with_send_each_row_is_marked_as_a_message_of_its_own(tmp_path: Path) -> None:
    rows = await read(make_file(tmp_path, CHILDREN, "send"))
    assert [isinstance(row, Recipient) and row.separate for row in rows] == [True] * 4
    report = await run_preflight(make_file(tmp_path, CHILDREN, "send"))
    assert (report.recipients, report.separate, report.duplicates, report.clean) == (4, 2, 0, True)
    assert report.repeated == ((3, 1), (4, 1))


async def test_by_default_the_first_row_gets_the_message(tmp_path: Path) -> None:
    report = await run_preflight(make_file(tmp_path, CHILDREN, "first"))
    assert (report.recipients, report.duplicates, report.separate, report.grouped) == (2, 2, 0, 0)
    assert not report.clean
    with pytest.raises(InvalidArgument, match="must be one of first, send, group"):
        make_file(tmp_path, CHILDREN, "all")


async def test_a_template_gets_the_rows_by_every_name_of_a_column(tmp_path: Path) -> None:
    """As identifiers, as they are written, and by the names of [columns]; the plain columns are the first row's."""
    text = "email,First Name\nann@example.org,Zoe\nann@example.org,Tom\n"
    [ann, _] = await read(make_file(tmp_path, text))
    assert isinstance(ann, Recipient)
    template = Template(
        from_="news@example.org",
        subject="{{ First_Name }} and {{ rows|length - 1 }} more",
        text="{% for each in rows %}{{ each.First_Name }} {{ each['First Name'] }} {{ each.child }};{% endfor %}",
    )
    composer = template.compile(("email", "First Name"), aliases={"child": "First Name"}, has_rows=True)
    message = bytes(composer.compose(ann.mailbox, ann.fields).content)  # type: ignore[arg-type]
    assert b"Subject: Zoe and 1 more\r\n" in message
    assert b"Zoe Zoe Zoe;Tom Tom Tom;" in message
    alone = bytes(composer.compose("bob@example.org", {"email": "", "First Name": "Max"}).content)  # type: ignore[arg-type]
    assert b"Subject: Max and 0 more\r\n" in alone


@pytest.mark.parametrize(
    ("text", "used"),
    [
        ("{% for each in rows %}{{ each.child }}{% endfor %}", {"child"}),
        ("{% for each in rows %}{{ each['child'] }}{% endfor %}{{ rows|length }}", {"child"}),
        ("{% for each in rows if each.child %}{{ loop.index }}{% endfor %}", {"child"}),
        ("{{ rows|length }}", set()),
        ("{{ rows|map(attribute='child')|join }}", {"email", "child", "age"}),
        ("{% for each in rows %}{{ each }}{% endfor %}", {"email", "child", "age"}),
        ("{{ rows[0].child }}", {"email", "child", "age"}),
    ],
)
def test_the_columns_that_rows_need_are_known(text: str, used: set[str]) -> None:
    """So that a short row that lacks one is a problem, and one that lacks another is not."""
    assert compile_text(text, "email", "child", "age").used_columns == used


@pytest.mark.parametrize("part", ["text", "subject"])
def test_a_misspelt_column_of_rows_is_found_at_once(part: str) -> None:
    source = {"text": "x", "subject": "x", part: "{% for each in rows %}{{ each.chidl }}{% endfor %}"}
    with pytest.raises(TemplateError, match="“chidl” is not a column: did you mean “child”"):
        compile_text(source["text"], "email", "child", subject=source["subject"])


def test_rows_are_there_only_where_they_are_grouped() -> None:
    """Then a column of that name is refused; otherwise it is one like any other."""
    with pytest.raises(TemplateError, match="“rows” is not a column"):
        Template(from_="news@example.org", subject="x", text="{{ rows }}").compile(["email"])
    with pytest.raises(TemplateError, match="have a column “rows” of their own: rename it"):
        compile_text("{{ rows }}", "email", "rows")
    Template(from_="news@example.org", subject="x", text="{{ rows }}").compile(["email", "rows"])


async def test_a_control_character_in_any_row_has_the_message_composed(tmp_path: Path) -> None:
    """Beyond the first hundred too: only the template knows whether the cell stands in a header."""
    file = make_file(tmp_path, 'email,child\nann@example.org,Zoe\nann@example.org,"T\nom"\n')
    composer = compile_text("x", "email", "child", subject="{% for each in rows %}{{ each.child }}{% endfor %}")
    report = await run_preflight(file, composer, compose=0)
    assert report.problems == 1
