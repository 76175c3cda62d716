"""`.ci/release.py` makes a version of what is unreleased, or says why not and changes nothing."""

from __future__ import annotations

import importlib.util
import io
import tomllib
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
_spec = importlib.util.spec_from_file_location("release", ROOT / ".ci" / "release.py")
assert _spec is not None
assert _spec.loader is not None
script = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(script)
CHANGELOG = """\
# Changelog

## [Unreleased]

### Added

- A new thing.

## [0.2.1] - 2026-11-01

### Fixed

- An old thing.

## 0.1.0

First.
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a changelog, a pyproject.toml and notes about upgrading from 0.2."""
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG, encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "asyncsmtp"\nversion = "0.2.1"\n', encoding="utf-8")
    (tmp_path / "docs" / "howto").mkdir(parents=True)
    (tmp_path / "docs" / "howto" / "migration.md").write_text("# Coming from\n", encoding="utf-8")
    return tmp_path


@dataclass(frozen=True)
class Done:
    """What the command printed, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


def release(root: Path, *arguments: str) -> Done:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = script.main(["--root", str(root), *arguments])
    return Done(code, out.getvalue(), err.getvalue())


def version(root: Path) -> str:
    found = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert isinstance(found, str)
    return found


def changed(root: Path, old: str, new: str) -> None:
    path = root / "CHANGELOG.md"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new) if old else path.read_text(), encoding="utf-8")


def test_what_is_unreleased_becomes_a_version(project: Path) -> None:
    """With today's date, and an empty [Unreleased] above it; the next commands are printed."""
    done = release(project, "0.2.2")
    assert (done.returncode, done.stderr) == (0, "")
    assert version(project) == "0.2.2"
    text = (project / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## [Unreleased]\n\n## [0.2.2] - 20" in text
    assert text.index("- A new thing.") > text.index("## [0.2.2]")
    assert "git tag -a v0.2.2" in done.stdout
    assert "twine upload dist/asyncsmtp-0.2.2*" in done.stdout


def test_the_notes_are_those_of_the_version(project: Path) -> None:
    """And of no other."""
    assert release(project, "0.2.2").returncode == 0
    done = release(project, "--notes", "0.2.2")
    assert done.stdout == "# asyncsmtp 0.2.2\n\n### Added\n\n- A new thing.\n"


def test_a_change_needs_notes_about_upgrading(project: Path) -> None:
    """Whoever upgrades looks for what to do; then the notes have it."""
    changed(project, "### Added", "### Changed")
    refused = release(project, "0.3.0")
    assert refused.returncode == 2
    assert "no section “From asyncsmtp 0.2”" in refused.stderr
    assert version(project) == "0.2.1"
    (project / "docs" / "howto" / "migration.md").write_text("## From asyncsmtp 0.2\n\nRename it.\n", encoding="utf-8")
    assert release(project, "0.3.0").returncode == 0
    assert "## Upgrading from 0.2.1\n\nRename it.\n" in release(project, "--notes", "0.3.0").stdout


@pytest.mark.parametrize(
    ("given", "old", "new", "why"),
    [
        ("0.2.1", "", "", "0.2.1 is not above 0.2.1"),
        ("0.1.9", "", "", "0.1.9 is not above 0.2.1"),
        ("0.3", "", "", "'0.3' is not a version"),
        ("v0.3.0", "", "", "'v0.3.0' is not a version"),
        ("0.3.0", "### Added\n\n- A new thing.\n\n", "", "nothing below [Unreleased]"),
        ("0.3.0", "- A new thing.", "", "nothing below [Unreleased]"),
        ("0.3.0", "## [Unreleased]\n", "", "does not begin with [Unreleased]"),
        ("0.3.0", "### Added", "### News", "the heading 'News'"),
        ("0.2.2", "### Added", "### Removed", "has Removed: raise the second number of 0.2.1"),
        ("1.2.8", "## [0.2.1]", "## [1.2.9]", "1.2.8 is not above 1.2.9"),
        (
            "1.3.0",
            "### Added\n\n- A new thing.\n\n## [0.2.1]",
            "### Changed\n\n- It.\n\n## [1.2.9]",
            "the first number",
        ),
    ],
)
def test_what_cannot_be_released_changes_nothing(project: Path, given: str, old: str, new: str, why: str) -> None:
    """One sentence with what to do."""
    changed(project, old, new)
    before = (project / "CHANGELOG.md").read_text(encoding="utf-8")
    done = release(project, given)
    assert done.returncode == 2
    assert why in done.stderr
    assert (version(project), (project / "CHANGELOG.md").read_text(encoding="utf-8")) == ("0.2.1", before)


def test_notes_of_a_version_that_is_none(project: Path) -> None:
    done = release(project, "--notes", "9.9.9")
    assert (done.returncode, "it has Unreleased, 0.2.1, 0.1.0" in done.stderr) == (2, True)


def test_this_version_can_be_released(tmp_path: Path) -> None:
    """The files of this checkout, copied: what is unreleased has its notes, and the version is the next one."""
    (tmp_path / "docs" / "howto").mkdir(parents=True)
    for name in ("CHANGELOG.md", "pyproject.toml", "docs/howto/migration.md"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    done = release(tmp_path, version(ROOT))
    assert done.returncode == 0, done.stderr
    assert "Upgrading from 0.1.0" in release(tmp_path, "--notes", version(ROOT)).stdout
