"""The script that finds rows without a test: nothing is missing, and it sees each kind of fault."""

from pathlib import Path

import pytest

from tests import rows


@pytest.mark.slow
def test_every_row_has_a_test(capsys: pytest.CaptureFixture[str]) -> None:
    """Or is listed with what is missing; the list is to become empty."""
    code = rows.main()
    assert code == 0, capsys.readouterr().out


SHOWN = "def test_it():\n    'W-01: shown.'\n\nclass TestIt:\n    async def test_them(self):\n        'PC-a'\n"


def folder(path: Path, listed: str, waiting: str = "", tests: str = SHOWN, comment: str = "") -> Path:
    (path / "rows.txt").write_text(listed)
    (path / "open_rows.txt").write_text(waiting)
    (path / "test_it.py").write_text(tests)
    (path / "transcripts").mkdir()
    (path / "transcripts" / "it.txt").write_text(f"=== it\n{comment}\nS: 220 W-77\n")
    return path


GOOD = "# ids\n\nW-01 one\nPC-a another\n"


@pytest.mark.parametrize(
    ("listed", "waiting", "comment"),
    [
        (GOOD, "", ""),
        (GOOD + "W-03 a third\n", "W-03 nobody wrote it\n", ""),
        (GOOD + "W-03 a third\n", "", "# W-03 in a transcript"),
        (GOOD, "W-01 in part\n", ""),
    ],
)
def test_complete_tables_pass(tmp_path: Path, listed: str, waiting: str, comment: str) -> None:
    """The text of a transcript's relay is no id."""
    assert rows.main(folder(tmp_path, listed, waiting, comment=comment)) == 0


@pytest.mark.parametrize(
    ("listed", "waiting", "tests", "comment", "complaint"),
    [
        (GOOD + "W-03 a third\n", "", SHOWN, "", "W-03 has no test"),
        (GOOD + "W-03 a third\n", "", SHOWN + "# W-03\n\ndef helper():\n    'W-03'\n", "", "W-03 has no test"),
        (GOOD + "W-01 again\n", "", SHOWN, "", "W-01 is listed twice"),
        (GOOD, "W-04 gone\n", SHOWN, "", "W-04 is open, and no row"),
        (GOOD, "", SHOWN.replace("PC-a", "PC-a, W-99"), "", "test_it.py carries W-99, which is no row"),
        (GOOD, "", SHOWN, "# TL-77", "it.txt carries TL-77, which is no row"),
    ],
)
def test_each_fault_is_told(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    listed: str,
    waiting: str,
    tests: str,
    comment: str,
    complaint: str,
) -> None:
    """A guard that cannot fail guards nothing."""
    assert rows.main(folder(tmp_path, listed, waiting, tests, comment)) == 1
    assert complaint in capsys.readouterr().out


@pytest.mark.parametrize("text", ["CT-06", "SCRAM-SHA-256", "UTF-16", "W-1", "W-123", "XW-01", "SHA-W-01-x"])
def test_what_only_looks_like_an_id_is_none(tmp_path: Path, text: str) -> None:
    """Names of algorithms, and rows of tables that are held elsewhere."""
    path = tmp_path / "test_it.py"
    path.write_text(f'def test_it():\n    """{text}"""\n')
    assert rows.ids_of_file(path) == set()
