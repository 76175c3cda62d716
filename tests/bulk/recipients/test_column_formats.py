"""The pre-flight reads dates and amounts of all rows first, wherever the rows come from; no row is lost for one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from asyncsmtp.bulk import Campaign
from asyncsmtp.errors import RecipientError, TemplateError
from asyncsmtp.protocol.content import Content

ROWS = [{"email": "ann@example.org", "since": "3/4/2026"}, {"email": "bob@example.org", "since": "25/4/2026"}]


def make(recipients: Any, folder: Path, text: str = "{{ since|date('%Y-%m-%d') }}", **settings: Any) -> Campaign:
    return Campaign(
        recipients=recipients, from_="n@example.org", subject="News", text=text, name="news", folder=folder, **settings
    )


def first(result: Any) -> str:
    content = result.report.sample.content
    assert isinstance(content, Content)
    return bytes(content).decode().split("\r\n\r\n", 1)[1].strip()


async def rows() -> AsyncIterator[dict[str, str]]:
    for row in ROWS:
        yield row


def csv_file(folder: Path, name: str, *cells: str) -> Path:
    path = folder / name
    lines = "".join(f"{name}{number}@example.org,{cell}\n" for number, cell in enumerate(cells))
    path.write_text("email,since\n" + lines, encoding="utf-8")
    return path


@pytest.mark.parametrize("source", ["list", "async", "csv", "xlsx"])
async def test_every_kind_of_rows_is_read_beforehand(source: str, tmp_path: Path) -> None:
    recipients: Any = {"list": ROWS, "async": rows()}.get(source)
    if source == "csv":
        recipients = csv_file(tmp_path, "people.csv", "3/4/2026", "25/4/2026")
    elif source == "xlsx":
        from openpyxl import Workbook  # type: ignore[import-untyped]

        book = Workbook()
        for line in (["email", "since"], *(list(row.values()) for row in ROWS)):
            book.active.append(line)
        book.save(recipients := tmp_path / "people.xlsx")
    result = await make(recipients, tmp_path).check()
    assert result.passed
    assert first(result) == "2026-04-03"


async def test_a_column_that_does_not_tell_stops_the_campaign_before_it_begins(tmp_path: Path) -> None:
    campaign = make([ROWS[0]], tmp_path, relay="smtp://127.0.0.1:9?security=none")
    with pytest.raises(TemplateError, match=r"row 1 may be 3 April 2026 or 4 March 2026: say which: date\("):
        await campaign.run()
    assert (await campaign.counts())["pending"] == 0
    assert first(await make([ROWS[0]], tmp_path, "{{ since|date('%d.%m.', input='%m/%d/%Y') }}").check()) == "04.03."


async def test_rows_that_are_left_out_tell_nothing(tmp_path: Path) -> None:
    """They may have anything in the column."""
    recipients = csv_file(tmp_path, "people.csv", "soon", "25/4/2026")
    result = await make(recipients, tmp_path, where="since != 'soon'").check()
    assert first(result) == "2026-04-25"


async def test_a_cell_that_is_shown_under_a_condition_is_composed_to_know(tmp_path: Path) -> None:
    """A row is not lost in silence: the campaign does not begin."""
    text = "{% if since != 'never' %}{{ since|date('%Y') }}{% endif %}."
    fine = csv_file(tmp_path, "people.csv", "never", "25/4/2026")
    assert (await make(fine, tmp_path, text).check()).passed
    wrong = csv_file(tmp_path, "others.csv", "never", "25/4/2026", "soon")
    with pytest.raises(RecipientError, match=r"row 3: text: line 1: “soon” is not a date.*\(line 4\)"):
        await make(wrong, tmp_path, text).check()


async def test_a_further_file_is_read_as_the_first_one(tmp_path: Path) -> None:
    campaign = make(csv_file(tmp_path, "people.csv", "25/4/2026"), tmp_path)
    assert (await campaign.check(add=csv_file(tmp_path, "more.csv", "3/4/2026"))).passed
    with pytest.raises(TemplateError, match="row 1: “4/25/2026” is not a date of its column"):
        await campaign.check(add=csv_file(tmp_path, "american.csv", "4/25/2026"))
