"""Attachments by row: none, several, by wildcards, with any slash, in any normal form; never what is not for others."""

from __future__ import annotations

import os
import re
import sqlite3
import unicodedata
from contextlib import closing
from email import message_from_bytes, policy
from pathlib import Path
from time import time

import pytest

from asyncsmtp.bulk.setup.config import load_config
from asyncsmtp.bulk.setup.file_search import FileSearch
from asyncsmtp.bulk.setup.prepare import prepare
from asyncsmtp.bulk.setup.source_files import ConfinedFolder
from asyncsmtp.errors import ConfigError, RecipientError
from asyncsmtp.mail.templates.template import Composer

CAMPAIGN = """\
[campaign]
name = "news"
from = "news@example.org"
subject = "News"
recipients = "people.csv"
text = "message.txt"
{}
"""
NFD = unicodedata.normalize("NFD", "März.pdf")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "message.txt").write_text("Hello", encoding="utf-8")
    (tmp_path / "people.csv").write_text("email,id,file\nann@example.org,7,1.pdf\n", encoding="utf-8")
    for name in (
        "1.pdf",
        "2.pdf",
        "7-a.pdf",
        "7-b.pdf",
        "17-c.pdf",
        ".7-x.pdf",
        "8-*.pdf",
        NFD,
        "old/1.pdf",
        "a;b.pdf",
    ):
        path = tmp_path / "inv" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"%PDF-1.7 " + name.encode())
    (tmp_path / "terms.pdf").write_bytes(b"%PDF-1.7")
    return tmp_path


async def compile_campaign(folder: Path, lines: str) -> Composer:
    path = folder / "campaign.toml"
    path.write_text(CAMPAIGN.format(lines), encoding="utf-8")
    return (await prepare(load_config(path))).composer


def attached(composer: Composer, file: str = "", number: str = "") -> list[str]:
    """Return the names of the files that a row gets."""
    message = composer.compose("ann@example.org", {"email": "ann@example.org", "id": number, "file": file}, row=5)
    parsed = message_from_bytes(bytes(message.content), policy=policy.default)  # type: ignore[arg-type]
    return [part.get_filename() or "" for part in parsed.iter_attachments()]


@pytest.mark.parametrize(
    ("pattern", "file", "names"),
    [
        ("inv/{{ file }}", "", []),
        ("inv/{{ file }}", "  ", []),
        ("inv/{{ file }}.pdf", "", []),
        ("inv/{% if file %}{{ file }}{% endif %}", "", []),
        ("inv/{{ file }}/1.pdf", "", []),
        ("inv/{{ file }}", "1.pdf", ["1.pdf"]),
        ("inv/{{ file }}", "1.pdf;2.pdf", ["1.pdf", "2.pdf"]),
        ("inv/{{ file }}", " 1.pdf ; 2.pdf; ;1.pdf", ["1.pdf", "2.pdf"]),
        ("inv/{{ file }}.pdf", "1;2;old/1", ["1.pdf", "2.pdf", "1.pdf"]),
        ("inv/{{ file }}", "a;b.pdf", ["a;b.pdf"]),
        ("inv/{{ file }}", ".\\\\inv\\\\1.pdf", ["1.pdf"]),
        ("inv/{{ file }}", "old\\\\1.pdf;./2.pdf", ["1.pdf", "2.pdf"]),
        ("inv/{{ file }}", "inv/old/1.pdf", ["1.pdf"]),
        ("./inv/{{ file }}", "1.pdf", ["1.pdf"]),
        (".\\\\inv\\\\{{ file }}", "1.pdf", ["1.pdf"]),
        ("inv/{{ file }}", "März.pdf", ["März.pdf"]),
        ("inv/{{ file }}", NFD, ["März.pdf"]),
        ("inv/M*{{ file }}", ".pdf", ["März.pdf"]),
    ],
)
async def test_a_cell_names_none_one_or_several_files(folder: Path, pattern: str, file: str, names: list[str]) -> None:
    composer = await compile_campaign(folder, f'attachments = ["{pattern}"]')
    assert attached(composer, file.replace("\\\\", "\\")) == names


@pytest.mark.parametrize(
    ("pattern", "number", "names"),
    [
        ("inv/{{ id }}-*.pdf", "7", ["7-a.pdf", "7-b.pdf"]),
        ("inv/{{ id }}-?.pdf", "17", ["17-c.pdf"]),
        ("*/{{ id }}.pdf", "2", None),
        ("inv/*/{{ id }}.pdf", "1", ["1.pdf"]),
        ("inv/{{ id }}-*.pdf", "8", ["8-*.pdf"]),
        ("inv/{{ id }}.p?f", "1;2", ["1.pdf", "2.pdf"]),
    ],
)
async def test_wildcards_of_the_campaign_find_files(
    folder: Path, pattern: str, number: str, names: list[str] | None
) -> None:
    """A folder of the campaign comes first, so that no cell can name what lies beside the campaign file."""
    if names is None:
        with pytest.raises(ConfigError, match="does not begin with the name of a folder"):
            await compile_campaign(folder, f'attachments = ["{pattern}"]')
        return
    assert attached(await compile_campaign(folder, f'attachments = ["{pattern}"]'), number=number) == names


@pytest.mark.parametrize("cell", ["*", "?", "[17]", "7-*", "*;1"])
async def test_a_cell_is_no_pattern(folder: Path, cell: str) -> None:
    for pattern in ("inv/{{ file }}.pdf", "inv/{{ file }}.p*"):
        with pytest.raises(RecipientError, match=r"row 5: .*(cannot be read: No such file|no file is called)"):
            attached(await compile_campaign(folder, f'attachments = ["{pattern}"]'), cell)


async def test_wildcards_find_nothing_that_is_not_for_others(folder: Path) -> None:
    """No hidden file, link, folder, or file of the campaign, whatever its name; nor what lies elsewhere."""
    inside = folder / "inv"
    for name in ("news.pdf", "x.pdf-wal"):
        with closing(sqlite3.connect(inside / name)) as database:
            database.execute("CREATE TABLE t (a)")
    (inside / "people.pdf").hardlink_to(folder / "people.csv")
    (inside / "message.pdf").hardlink_to(folder / "message.txt")
    (inside / "link.pdf").symlink_to(folder / "terms.pdf")
    (inside / "away").symlink_to(folder, target_is_directory=True)
    (inside / "dir.pdf").mkdir()
    composer = await compile_campaign(folder, 'attachments = ["inv/*{{ file }}"]\nledger = "inv/news.pdf"')
    found = ["1.pdf", "17-c.pdf", "2.pdf", "7-a.pdf", "7-b.pdf", "8-*.pdf", "März.pdf", "a;b.pdf"]
    assert sorted(attached(composer, ".pdf")) == sorted(found)
    composer = await compile_campaign(folder, 'attachments = ["inv/*/{{ file }}"]')
    with pytest.raises(RecipientError, match=r"no file is called inv/\*/terms\.pdf: correct the name, or make"):
        attached(composer, "terms.pdf")


@pytest.mark.parametrize("cell", ["../terms.pdf", "..\\terms.pdf", "/etc/passwd", "old/../../terms.pdf", "C:\\x.pdf"])
async def test_no_cell_leads_out_of_the_folder(folder: Path, cell: str) -> None:
    for pattern in ("inv/{{ file }}", "inv/*/{{ file }}"):
        with pytest.raises(RecipientError, match=r"row 5: .*(is not a path below|cannot be read|no file is called)"):
            attached(await compile_campaign(folder, f'attachments = ["{pattern}"]'), cell)


async def test_a_missing_file_is_named_with_the_nearest(folder: Path) -> None:
    composer = await compile_campaign(folder, 'attachments = ["inv/{{ file }}"]')
    for cell, why in {
        "7-c.pdf": r"inv/7-c\.pdf cannot be read: No such file or directory; the nearest is inv/(7-a|7-b|17-c)\.pdf",
        "MÄRZ.PDF": r"cannot be read: there is only inv/März\.pdf, in other capitals",
        "odl/1.pdf": r"the nearest is inv/old",
        "1.pdf;3.pdf": r"inv/3\.pdf cannot be read",
    }.items():
        with pytest.raises(RecipientError, match="row 5") as caught:
            attached(composer, cell)
        assert re.search(why, unicodedata.normalize("NFC", str(caught.value)))


async def test_an_optional_file_may_be_missing(folder: Path) -> None:
    lines = 'optional_attachments = ["inv/{{ id }}-*.pdf", "inv/{{ file }}", "gone.pdf", "gone-*.pdf", "ter*.pdf"]'
    composer = await compile_campaign(folder, lines)
    assert attached(composer, "gone.pdf", "99") == ["terms.pdf"]
    assert attached(composer, "1.pdf", "7") == ["7-a.pdf", "7-b.pdf", "1.pdf", "terms.pdf"]
    with pytest.raises(RecipientError, match="is not a path below the folder"):
        attached(composer, "../terms.pdf")


async def test_files_for_everyone_are_found_too(folder: Path) -> None:
    """By wildcards, in another normal form, with backslashes; a missing one is named with the nearest."""
    composer = await compile_campaign(folder, r"""attachments = ["inv/7-*.pdf", 'inv\1.pdf', "inv/März.pdf"]""")
    assert attached(composer) == ["7-a.pdf", "7-b.pdf", "1.pdf", NFD]
    for line, why in {
        "term.pdf": r"term\.pdf: does not exist; did you mean terms\.pdf\?",
        "inv/9-*.pdf": "no file is called so",
        "../*.pdf": "only files below .* are found by",
        "gone": "does not exist",
    }.items():
        with pytest.raises(ConfigError, match=rf"\[campaign\] attachments: .*{why}"):
            await compile_campaign(folder, f'attachments = ["{line}"]')


async def test_what_is_optional_is_part_of_the_fingerprint(folder: Path) -> None:
    path = folder / "campaign.toml"
    found = []
    for lines in ("", 'optional_attachments = ["inv/{{ id }}.pdf"]', 'optional_attachments = ["inv/{{ file }}"]'):
        path.write_text(CAMPAIGN.format(lines), encoding="utf-8")
        found.append((await prepare(load_config(path))).parts.get("optional_attachments"))
    assert found[0] is None
    assert len({*found}) == 3


def test_a_large_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And again when it has changed."""
    inside = tmp_path / "inv"
    inside.mkdir()
    for number in range(300):
        (inside / f"{number:03}-a.pdf").touch()
    os.utime(inside, (time() - 60, time() - 60))
    listed: list[object] = []
    listdir = os.listdir

    def count(folder: int) -> list[str]:
        listed.append(folder)
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", count)
    search = FileSearch(ConfinedFolder(tmp_path))
    assert [search.match(f"inv/{number:03}-*.pdf") for number in range(300)][299] == ["inv/299-a.pdf"]
    assert len(listed) <= 4  # the folder of the campaign is new
    (inside / "299-b.pdf").touch()
    assert search.match("inv/299-*.pdf") == ["inv/299-a.pdf", "inv/299-b.pdf"]
    assert search.nearest("inv/299-c.pdf")[0].startswith("inv/299-")
