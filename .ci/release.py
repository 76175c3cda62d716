"""Turn `[Unreleased]` of CHANGELOG.md into a version, or print the notes of one: see CONTRIBUTING.md, “Releases”.

    python .ci/release.py 0.3.0            # or: make release VERSION=0.3.0
    python .ci/release.py --notes 0.3.0    # what the release page says

Nothing is committed, tagged or uploaded: the commands for that are printed.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
INCOMPATIBLE = ("Changed", "Removed")  # after these somebody has to read how to upgrade
_HEADING = re.compile(r"^## \[?([^\]\s]+)\]?(?: - (\S+))?$", re.MULTILINE)
_VERSION = re.compile(r'^version = "(.+)"$', re.MULTILINE)

Number = tuple[int, int, int]


class ReleaseError(Exception):
    """A reason why this cannot be released, with what to do."""


def parse_version(text: str) -> Number:
    """Parse a version of three numbers, without a suffix."""
    found = re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", text)
    if found is None:
        raise ReleaseError(f"{text!r} is not a version such as 0.3.0")
    major, minor, patch = map(int, found.groups())
    return major, minor, patch


def split_changelog(text: str) -> dict[str, str]:
    """Return the text of each version, the newest first, by its name; that of `Unreleased` as well."""
    found = list(_HEADING.finditer(text))
    ends = [each.start() for each in found[1:]] + [len(text)]
    return {each[1]: text[each.end() : end].strip("\n") for each, end in zip(found, ends, strict=True)}


def split_kinds(notes: str) -> dict[str, str]:
    """Return the text below each `###` of one version. Raises ReleaseError: a heading is not one of `KINDS`."""
    parts = re.split(r"^### (.+)$", notes, flags=re.MULTILINE)
    if wrong := [name for name in parts[1::2] if name not in KINDS]:
        raise ReleaseError(f"CHANGELOG.md has the heading {wrong[0]!r}: use one of {', '.join(KINDS)}")
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def upgrade_notes(root: Path, before: str) -> str:
    """Return the section of docs/howto/migration.md for those who have a version of the series of `before`."""
    series = before.rpartition(".")[0]
    text = (root / "docs" / "howto" / "migration.md").read_text(encoding="utf-8")
    found = re.search(rf"^## From asyncsmtp {re.escape(series)}$\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return found[1].strip("\n") if found else ""


def release(version: str, root: Path = ROOT, today: date | None = None) -> list[str]:
    """Write the version into CHANGELOG.md and pyproject.toml; return the commands that come next.

    Raises:
        ReleaseError: nothing was written.
    """
    number = parse_version(version)
    changelog, project = root / "CHANGELOG.md", root / "pyproject.toml"
    text, settings = changelog.read_text(encoding="utf-8"), project.read_text(encoding="utf-8")
    versions = split_changelog(text)
    if next(iter(versions), "") != "Unreleased":
        raise ReleaseError("CHANGELOG.md does not begin with [Unreleased]: add it above the versions")
    kinds = split_kinds(versions["Unreleased"])
    if not any(kinds.values()):
        raise ReleaseError("nothing below [Unreleased] in CHANGELOG.md: there is nothing to release")
    before = next((name for name in versions if name != "Unreleased"), "0.0.0")
    last = parse_version(before)
    if number <= last:
        raise ReleaseError(f"{version} is not above {before}, the last release: choose a higher version")
    incompatible = [name for name in INCOMPATIBLE if kinds.get(name)]
    series = number[:1] if last[0] else number[:2]  # before 1.0 the second number says that something changed
    if incompatible and series == (last[:1] if last[0] else last[:2]):
        what = "first" if last[0] else "second"
        raise ReleaseError(
            f"[Unreleased] has {' and '.join(incompatible)}: raise the {what} number of {before}, or move what "
            "needs no change in anybody's program or files to Added or Fixed"
        )
    if incompatible and not upgrade_notes(root, before):
        raise ReleaseError(
            f"[Unreleased] has {' and '.join(incompatible)}, and docs/howto/migration.md has no section "
            f"“From asyncsmtp {before.rpartition('.')[0]}”: write what somebody who upgrades has to do"
        )
    if len(_VERSION.findall(settings)) != 1:
        raise ReleaseError("pyproject.toml has no line version = …: add it below [project]")
    day = (today or datetime.now(UTC).date()).isoformat()
    changelog.write_text(
        text.replace("## [Unreleased]\n", f"## [Unreleased]\n\n## [{version}] - {day}\n", 1), encoding="utf-8"
    )
    project.write_text(_VERSION.sub(f'version = "{version}"', settings), encoding="utf-8")
    return [
        "bash .ci/run",
        f"git commit -am 'Release {version}' && git tag -a v{version} -m 'asyncsmtp {version}'",
        "python -m build && python -m twine check --strict dist/*",
        f"python .ci/release.py --notes {version} > dist/notes.md",
        f"python -m twine upload dist/asyncsmtp-{version}*",
    ]


def notes(version: str, root: Path = ROOT) -> str:
    """Return the notes of a release: its changes, then how to upgrade.

    Raises:
        ReleaseError: there is no such version.
    """
    versions = split_changelog((root / "CHANGELOG.md").read_text(encoding="utf-8"))
    if version not in versions:
        raise ReleaseError(f"CHANGELOG.md has no version {version}: it has {', '.join(versions)}")
    names = [*versions]
    before = names[names.index(version) + 1] if version != names[-1] else ""
    upgrade = upgrade_notes(root, before) if before else ""
    parts = [f"# asyncsmtp {version}", versions[version]]
    return "\n\n".join([*parts, *([f"## Upgrading from {before}", upgrade] if upgrade else [])]) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="release.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("version", metavar="VERSION", help="such as 0.3.0")
    parser.add_argument("--notes", action="store_true", help="print the notes of this version; change nothing")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    try:
        if given.notes:
            print(notes(given.version, given.root), end="")
            return 0
        following = release(given.version, given.root)
    except ReleaseError as error:
        print(f"release.py: {error}", file=sys.stderr)
        return 2
    print(f"CHANGELOG.md and pyproject.toml have version {given.version}. Next:", *following, sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
