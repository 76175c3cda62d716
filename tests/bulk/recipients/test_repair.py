"""Address cells as people have them, with `repair` and without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsmtp.bulk.recipients.file import RecipientFile
from asyncsmtp.bulk.recipients.preflight import Repair, run_preflight
from asyncsmtp.bulk.recipients.recipient import Problem, Recipient, RowFilter, RowRules
from asyncsmtp.bulk.recipients.repair import is_repairable, repair_address_cell
from asyncsmtp.errors import RecipientError

ANN, BOB = "ann@example.org", "bob@example.net"


def people(folder: Path, *cells: str, repair: bool = True, name: str = "people.jsonl") -> RecipientFile:
    """A file with one column of addresses, which holds these cells."""
    path = folder / name
    path.write_text("".join(json.dumps({"email": cell, "name": f"N{i}"}) + "\n" for i, cell in enumerate(cells)))
    return RecipientFile(path, repair=repair, block=50)


async def read(file: RecipientFile) -> list[Recipient | Problem]:
    return [row async for batch in file.batches(2) for row in batch]


@pytest.mark.parametrize(
    "cell",
    [
        *(f"mailto:{ANN}", f"MailTo: {ANN}", f"mailto:{ANN}?subject=Hi%20Ann", "mailto:ann%40example.org"),
        *(f"<{ANN}>", f"< {ANN} >", f"<mailto:{ANN}>", f"{ANN}>", f"<{ANN}", f"{ANN}<mailto:{ANN}>"),
        *(f"{ANN}.", f"{ANN},", f"{ANN};", f"{ANN} ;,", f";{ANN}", f"{ANN}:", f"({ANN})"),
        *(f'"{ANN}"', f"'{ANN}'", f"“{ANN}”", f"«{ANN}»", f'""{ANN}""', f"{ANN}'"),
        *("ann @example.org", "ann@ example.org", "ann\u00a0@\u00a0example.org"),
        *(f"\u200b{ANN}", f"{ANN}\ufeff", "an\u00adn@exam\u200bple.org", f"\u202a{ANN}\u202c", f"\u2003{ANN}\u3000"),
        *("ann＠example.org", "ａｎｎ＠ｅｘａｍｐｌｅ．ｏｒｇ", "ann﹫example。org"),
        *("&lt;ann@example.org&gt;", "ann&#64;example.org", "&nbsp;ann@example.org"),
        *(f"SMTP:{ANN}", f"E-Mail: {ANN}", f"{ANN} (work)", f"{ANN}; ANN@EXAMPLE.ORG", f"\n{ANN}\n"),
    ],
)
def test_one_address_is_found(cell: str) -> None:
    """What stands around it has one meaning: none."""
    assert [(str(each.mailbox), each.name) for each in repair_address_cell(cell)] == [(ANN, "")]
    assert is_repairable(cell)


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        (f"Ann <{ANN}>", "Ann"),
        (f"Ann Doe<{ANN}>;", "Ann Doe"),
        (f'"Doe, Ann" <{ANN}>', "Doe, Ann"),
        (f"Doe, Ann <{ANN}>", "Doe, Ann"),
        (f"'Ann' <'{ANN}'>", "Ann"),
        (f'"Ann \\"A\\" Doe" <{ANN}>', 'Ann "A" Doe'),
        (f"Ann &lt;{ANN}&gt;", "Ann"),
        (f"[Ann](mailto:{ANN})", "Ann"),
        (f"Ann <{ANN}> (Sales)", "Ann"),
        (f"{ANN} <{ANN}>", ""),
        (f"=?utf-8?q?Ann?= <{ANN}>", ""),
        (f"Ann\u0007 <{ANN}>", ""),
        ("Ann" * 100 + f" <{ANN}>", ""),
    ],
)
def test_the_name_beside_an_address_is_kept(cell: str, name: str) -> None:
    """Unless it is the address again, or nothing that To can show."""
    assert [(str(each.mailbox), each.name) for each in repair_address_cell(cell)] == [(ANN, name)]


@pytest.mark.parametrize(
    "cell",
    [
        *(f"{ANN}; {BOB}", f"{ANN}, {BOB}", f"{ANN},{BOB},", f"{ANN}\n{BOB}", f"{ANN}\r\n\r\n{BOB}\n", f"{ANN} {BOB}"),
        *(f"{ANN} / {BOB}", f"{ANN} | {BOB}", f"{ANN}\t{BOB}", f"{ANN};;{BOB}", f"{ANN}；{BOB}", f"{ANN}、{BOB}"),
        *(f"<{ANN}>, <{BOB}>", f"mailto:{ANN},{BOB}", f"{ANN}; {BOB}; {ANN}", f'"{ANN}"; "{BOB}"'),
    ],
)
def test_several_addresses_are_found_in_order(cell: str) -> None:
    assert [str(each.mailbox) for each in repair_address_cell(cell)] == [ANN, BOB]


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        *((f"ann{at}example.org", "spells out its @") for at in (" (at) ", "[at]", " at ", "(at)", "{at}", "_at_")),
        ("ann@example (dot) org", "spells out its @ or dots"),
        ("ann@example,com", "“ann@example” has no dot after the @"),
        ("ann@mail.example,com", "“com” is not an e-mail address"),
        (f"ann@example, org; Bob <{BOB}>", "“ann@example” has no dot after the @"),
        (f"Ann\n<{ANN}>", "“Ann” is not an e-mail address"),
        (f"{ANN}, Smith, Bob <{BOB}>", "“Smith” is not an e-mail address"),
        (f"{ANN}, n/a", "“n/a” is not an e-mail address"),
        ("ann smith@example.org", "contains a space"),
        (f"Ann Smith {ANN}", "contains a space"),
        (f"{ANN}<{BOB}>", "another address beside it"),
        (f"{BOB} via Ann <{ANN}>", "another address beside it"),
        (f"Ann <{ANN}> Bob <{BOB}>", "more than the address"),
        (f"Ann <{ANN}> or somebody", "text behind the address"),
        ("ann@@example.org", "is not an e-mail address"),
        ("ann@localhost;", "no dot after the @"),
        ("mailto:ann@example.org%0d%0aRCPT", "is not an e-mail address"),
        ('"ann smith"@example.org', "quoted local part"),
        (f"{ANN}\0", "is not an e-mail address"),
        ("; ,", "has no address"),
        ("; ".join(f"a{n}@example.org" for n in range(51)), "more than 50 addresses"),
        (f"{ANN} " * 2000, "too long"),
    ],
)
def test_what_would_be_a_guess_is_not_repaired(cell: str, told: str) -> None:
    """The reason names the part that is wrong."""
    with pytest.raises(RecipientError, match=told.replace("(", r"\(")):
        repair_address_cell(cell)
    assert not is_repairable(cell)


@given(st.text(alphabet="ann@b.org<>\"(),;: \n\\'&#", max_size=40))
@settings(deadline=None)
def test_any_cell_is_repaired_or_refused(cell: str) -> None:
    """And what is repaired stays as it is."""
    try:
        found = repair_address_cell(cell)
    except RecipientError:
        return
    for mailbox, name in found:
        assert "@" not in name
        assert repair_address_cell(mailbox.address)[0].mailbox == mailbox


async def test_a_repaired_row_has_the_address_alone_and_the_name_in_a_column(tmp_path: Path) -> None:
    file = people(tmp_path, f"Ann <{ANN}>", BOB)
    assert await file.columns() == ("email", "name", "display_name")
    ann, bob = await read(file)
    assert dict(ann.fields) == {"email": ANN, "name": "N0", "display_name": "Ann"}
    assert dict(bob.fields) == {"email": BOB, "name": "N1", "display_name": ""}
    assert (ann.repaired, bob.repaired) == (f"Ann <{ANN}>", "")


async def test_a_column_of_display_names_goes_before_the_name_in_the_cell(tmp_path: Path) -> None:
    """`results --failed` writes that column: a file of it is read in the same way."""
    path = tmp_path / "people.csv"
    path.write_text(f"Display Name,email\nDr. Ann,Ann <{ANN}>\n,Bob <{BOB}>\nThe Does,{ANN}; Bob <{BOB}>\n")
    file = RecipientFile(path, repair=True)
    assert await file.columns() == ("Display Name", "email")
    assert [row.fields["Display Name"] for row in await read(file)] == ["Dr. Ann", "Bob", "The Does", "The Does"]


async def test_further_addresses_are_rows_behind_the_last_one(tmp_path: Path) -> None:
    """The numbers of all other rows stay those of the file."""
    file = people(tmp_path, f"Ann <{ANN}>; Bob <{BOB}>", "cid@example.org", "nobody", "dora@x.example, eve@x.example")
    rows = await read(file)
    assert [row.row for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [str(row.mailbox) for row in rows if isinstance(row, Recipient)] == [
        *(ANN, "cid@example.org", "dora@x.example", BOB, "eve@x.example")
    ]
    assert dict(rows[4].fields) == {"email": BOB, "name": "N0", "display_name": "Bob"}
    assert (rows[4].line, rows[5].line) == (1, 4)
    assert [row.row for row in await read(file)] == [1, 2, 3, 4, 5, 6]


async def test_a_condition_is_about_each_address(tmp_path: Path) -> None:
    """Also where it leaves out the first one of a cell."""
    file = people(tmp_path, f"{ANN}; {BOB}")
    file.rules = RowRules(row_filter=RowFilter(await file.columns(), "'example.net' in email"))
    first, further = await read(file)
    assert isinstance(first, Problem)
    assert isinstance(further, Recipient)
    assert str(further.mailbox) == BOB


async def test_a_short_row_is_repaired(tmp_path: Path) -> None:
    """Its own columns are padded, and that of the name follows."""
    path = tmp_path / "people.csv"
    path.write_text(f"email,city,note\nmailto:{ANN}\nBob <{BOB}>,Graz,,,\n")
    ann, bob = await read(RecipientFile(path, repair=True, rules=RowRules(needed=frozenset())))
    assert list(ann.fields.values()) == [ANN, "", "", ""]
    assert list(bob.fields.values()) == [BOB, "Graz", "", "Bob"]


async def test_the_report_has_what_was_repaired(tmp_path: Path) -> None:
    """The number, and three examples."""
    cells = [f"mailto:{ANN}", "cid@example.org", f"{BOB}; dora@x.example", "<e@x.example>", "f@x.example.", "n (at) x"]
    report = await run_preflight(people(tmp_path, *cells))
    assert (report.repaired, report.further, report.problems, report.repairable) == (4, 1, 1, 0)
    assert report.rows == report.recipients + report.problems == 7
    assert report.repairs == (
        Repair(1, 1, f"mailto:{ANN}", (ANN,)),
        Repair(3, 3, f"{BOB}; dora@x.example", (BOB, "dora@x.example")),
        Repair(4, 4, "<e@x.example>", ("e@x.example",)),
    )


async def test_without_repair_the_report_has_what_could_be(tmp_path: Path) -> None:
    """Nothing is changed."""
    cells = [f"mailto:{ANN}", f"{BOB}; {ANN}", "n (at) x", BOB, f"{ANN} "]
    file = people(tmp_path, *cells, repair=False)
    report = await run_preflight(file)
    assert (report.repaired, report.problems, report.repairable, report.recipients) == (0, 3, 2, 2)
    assert await file.columns() == ("email", "name")


@pytest.mark.parametrize("blank", [" ", "\t", "\u00a0", "  \u2003"])
async def test_cells_of_a_table_are_trimmed_unless_asked(tmp_path: Path, blank: str) -> None:
    """Blanks inside stay; so do all blanks of JSON, where somebody wrote them on purpose."""
    path = tmp_path / "people.csv"
    path.write_text(f"email,name\n{ANN}{blank},{blank}Ann Doe{blank}\n", encoding="utf-8")
    [row] = await read(RecipientFile(path))
    assert dict(row.fields) == {"email": ANN, "name": "Ann Doe"}
    [row] = await read(RecipientFile(path, trim=False))
    assert row.fields["name"] == f"{blank}Ann Doe{blank}"
    (tmp_path / "people.jsonl").write_text('{"email": "ann@example.org", "name": " Ann "}\n')
    [row] = await read(RecipientFile(tmp_path / "people.jsonl"))
    assert row.fields["name"] == " Ann "
