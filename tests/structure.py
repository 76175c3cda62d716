"""The size and shape of the package in figures: `python -m tests.structure` prints them.

Files are all `*.py` below asyncsmtp/, `__init__.py` included; their lines are those of `str.splitlines()`. The entries
of a folder are its files of any kind and its folders, but for `__pycache__`.

*A crossing* is the number of files below asyncsmtp/, without asyncsmtp/testing/, in which a function runs, in any
thread. It is counted by `sys.setprofile` and `threading.setprofile` in a process of its own:

- of a CSV row: the campaign that `asyncsmtp init --rows 1` writes (text and HTML, an image, an unsubscribe link), from
  the call of `asyncsmtp bulk CAMPAIGN.toml --yes` until `asyncsmtp results CAMPAIGN.toml` has printed. The relay,
  `asyncsmtp sandbox`, is another process. The number may differ by two from run to run: a file that only draws the
  progress runs if the campaign lasts long enough.
- of a message: `asyncsmtp.send()` with an `email.message.EmailMessage` and a URL, from its call on: what looks its name
  up, and imports it, is not counted.

What runs while a module or a class body is executed is not counted, since an import is no part of a row's way: so a
code object named `<module>`, and all that it calls, in whatever file, is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from types import FrameType

__all__ = [
    "MAX_ENTRIES",
    "MAX_LINES",
    "MAX_ROW_FILES",
    "MAX_SEND_FILES",
    "MIN_AVERAGE_LINES",
    "PACKAGE",
    "Layout",
    "crossed_by_row",
    "crossed_by_send",
    "layout",
    "main",
]

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "asyncsmtp"

MIN_AVERAGE_LINES = 200
MAX_LINES = 600
MAX_ENTRIES = 14
MAX_ROW_FILES = 75
MAX_SEND_FILES = 25  # one more than the first measure: the owner of an event loop, and cancellation


@dataclass(frozen=True, slots=True)
class Layout:
    """Files and folders of the package.

    Attributes:
        lines: file, relative to the package -> its lines.
        entries: folder, relative to the package -> its entries.
    """

    lines: dict[str, int]
    entries: dict[str, int]

    @property
    def average(self) -> float:
        """Lines a file."""
        return sum(self.lines.values()) / len(self.lines)


def layout(package: Path = PACKAGE) -> Layout:
    """Read the files and folders of the package."""
    files = sorted(package.rglob("*.py"))
    folders = {package, *(parent for file in files for parent in file.parents if parent.is_relative_to(package))}
    return Layout(
        {str(file.relative_to(package)): len(file.read_text(encoding="utf-8").splitlines()) for file in files},
        {
            str(folder.relative_to(package)): sum(entry.name != "__pycache__" for entry in folder.iterdir())
            for folder in sorted(folders)
        },
    )


def crossed_by_row() -> list[str]:
    """Return the files that one CSV row crosses, sorted and relative to the package."""
    return _in_a_process("row")


def crossed_by_send() -> list[str]:
    """Return the files that one `send()` crosses, sorted and relative to the package."""
    return _in_a_process("send")


def _in_a_process(what: str) -> list[str]:
    """Count in a fresh interpreter: nothing is imported, cached or started yet."""
    with tempfile.TemporaryDirectory() as folder, _relay(Path(folder)) as url:
        command = [sys.executable, "-m", "tests.structure", what, url, folder]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(f"counting the files that a {what} crosses failed:\n{done.stderr}")
    found: list[str] = json.loads(done.stdout)
    return found


@contextlib.contextmanager
def _relay(folder: Path) -> Iterator[str]:
    """Run a relay in a process of its own; yield its URL."""
    command = [sys.executable, "-m", "asyncsmtp", "sandbox", "--port", "0", "--maildir", str(folder / "maildir")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


class _Counter:
    """Collects the files of the package whose functions run, from `with` to its end, in every thread."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._known: dict[str, str | None] = {}  # file name of a code object -> its place in the package, or None

    def __enter__(self) -> _Counter:
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *exception: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    @property
    def files(self) -> list[str]:
        """Sorted, and relative to the package."""
        return sorted(self._files)

    def _profile(self, frame: FrameType, event: str, argument: object) -> None:
        if event != "call":
            return
        name = frame.f_code.co_filename
        if name not in self._known:
            self._known[name] = _place(name)
        place = self._known[name]
        if place is not None and place not in self._files and not _is_import(frame):
            self._files.add(place)


def _place(name: str) -> str | None:
    path = Path(name)
    if not path.is_relative_to(PACKAGE) or path.is_relative_to(PACKAGE / "testing"):
        return None
    return path.relative_to(PACKAGE).as_posix()


def _is_import(frame: FrameType | None) -> bool:
    """Return whether the frame is a module's of the package, or was called by one."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and _place(frame.f_code.co_filename) is not None:
            return True
        frame = frame.f_back
    return False


def _count(what: str, url: str, folder: Path) -> list[str]:
    if what == "send":
        return _count_send(url)
    command = [sys.executable, "-m", "asyncsmtp", "init", str(folder / "demo"), "--rows", "1"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    campaign = str(folder / "demo" / "campaign.toml")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), _Counter() as counter:
        from asyncsmtp.cli.main import main as run

        codes = [run(["bulk", campaign, "--relay", url, "--yes"]), run(["results", campaign])]
    if codes != [0, 0] or ",accepted," not in printed.getvalue():
        raise RuntimeError(f"the campaign ended with {codes}: {printed.getvalue()}")
    return counter.files


def _count_send(url: str) -> list[str]:
    import asyncsmtp

    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "news@example.org", "ann@example.org", "Hello"
    message.set_content("Hello Ann\n")

    send = asyncsmtp.send

    async def send_one() -> None:
        delivery = await send(message, relay=url)
        delivery.raise_for_refusal()

    with _Counter() as counter:
        asyncio.run(send_one())
    return counter.files


def main(arguments: list[str]) -> int:
    """Print the figures; with `-v` the files that are crossed too."""
    if len(arguments) == 3:
        print(json.dumps(_count(arguments[0], arguments[1], Path(arguments[2]))))
        return 0
    found = layout()
    row, send = crossed_by_row(), crossed_by_send()
    largest, fullest = max(found.lines, key=found.lines.__getitem__), max(found.entries, key=found.entries.__getitem__)
    print(f"files                        {len(found.lines):6,}")
    print(f"lines                        {sum(found.lines.values()):6,}")
    print(f"average lines a file         {found.average:6.1f}   at least {MIN_AVERAGE_LINES}")
    print(f"largest file                 {found.lines[largest]:6,}   at most {MAX_LINES}: {largest}")
    print(f"largest folder               {found.entries[fullest]:6,}   at most {MAX_ENTRIES} entries: {fullest}")
    print(f"files that a row crosses     {len(row):6,}   at most {MAX_ROW_FILES}")
    print(f"files that send() crosses    {len(send):6,}   at most {MAX_SEND_FILES}")
    if "-v" in arguments:
        print("", "A row crosses", *row, "", "send() crosses", *send, sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
