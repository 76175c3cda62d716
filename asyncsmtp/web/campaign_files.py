"""Files of a campaign that is being edited: which there are, whether one has changed, and where in one an error is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from asyncsmtp.bulk.ledger.suppression_list import is_text_list
from asyncsmtp.errors import ConfigError, RecipientError, SMTPError, TemplateError
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.setup.config import CampaignConfig
    from asyncsmtp.mail.checks.rules import Finding

__all__ = ["CampaignFiles", "Fault", "Remark", "stamp_file"]

MAX_FOLDERS = 500  # that are watched for files which differ from row to row
MAX_FILES = 20_000  # in them
MAX_EXCERPT_SIZE = 4 * 1024 * 1024  # characters of a file that are searched for a line
CONTEXT = 3  # lines before and after one that is shown
MAX_LINE = 240  # characters of such a line

_PLACE = re.compile(r"^(?P<file>[^:]{1,300}?), line (?P<line>\d{1,9})\b")
_TOML_LINE = re.compile(r"\(at line (\d{1,9}),")
_KEY = re.compile(r"\[campaign\] (\w+)")
_SEVERAL = re.compile(r"[*?{<\[]")  # in a path that stands for several files


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that keeps the campaign, or one row, from being shown.

    Attributes:
        sentence: what is wrong. advice: what to do; "" if the sentence says it.
        file: the name of the file in which it is; "" if it is in none. line: its line; 0 if that is not known.
        excerpt: the lines round it, each with its number.
    """

    sentence: str
    advice: str = ""
    file: str = ""
    line: int = 0
    excerpt: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that was found: the weight (`objection`, `note`), the sentence, and what to do.

    Attributes:
        place: the file, line and excerpt; without a sentence.
    """

    weight: str
    sentence: str
    advice: str = ""
    place: Fault | None = None


class CampaignFiles:
    """The files that a campaign is made of.

    Args:
        path: the campaign file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sources: set[Path] = {path}
        self._keys: set[Path] = set()  # of which nothing is shown
        self._folders: set[Path] = set()  # whose files may be attached
        self._seen: Mapping[Path, object] = {}  # what the files were like when they were read
        self._recipients: Path | None = None

    def begin(self) -> None:
        """Take down what the campaign file is like, before it is read."""
        self._seen = {self._path: stamp_file(self._path)}

    def add_named(self, config: CampaignConfig) -> None:
        """Add the files that a configuration names, before they are read: what is saved meanwhile is a change."""
        self._sources |= set(_list_sources(config))
        self._keys = set(_list_keys(config))
        self._folders = set(_list_folders(config))
        self._recipients = config.recipients
        self.note()

    def add_from_error(self, config: CampaignConfig, error: TemplateError) -> None:
        """Add a file that a template includes, or would include if it were there."""
        names = (name for name in (error.file, error.field or error.file) if ".." not in Path(name).parts)
        self._sources |= {config.folder / name for name in names if not os.path.isabs(name)}

    def keep(self, config: CampaignConfig, read: tuple[Path, ...]) -> None:
        """Forget the files that are neither named nor were read."""
        self._sources = {self._path, *_list_sources(config), *read}

    def note(self) -> None:
        """Take down which files there are; those that were noted before stay as they were then."""
        self._seen = {path: self._seen.get(path, stamp) for path, stamp in self._stamp().items()}

    def have_changed(self) -> bool:
        """Return whether a file is not what it was when it was read."""
        return self._stamp() != self._seen

    def list_watched_folders(self) -> set[Path]:
        """Return the folders in which something may change."""
        found = {
            folder for path in self._sources | self._keys for folder in (path.absolute().parent, path.resolve().parent)
        }
        found.update(islice(self._list_attachment_folders(), MAX_FOLDERS))
        return {folder for folder in found if folder.is_dir()}

    def _list_attachment_folders(self) -> Iterator[Path]:
        for folder in sorted(self._folders):
            for root, inner, _ in os.walk(folder):
                inner.sort()
                yield Path(root)

    def _stamp(self) -> Mapping[Path, object]:
        """Return what tells one content of each file from another."""
        folders = islice(self._list_attachment_folders(), MAX_FOLDERS)
        listed = islice((path for folder in folders for path in _list_files(folder)), MAX_FILES)
        return {path: stamp_file(path) for path in (*self._sources, *self._keys, *listed)}

    def explain(self, error: Exception, line: int = 0) -> Fault:
        """Return what is wrong, with the place in a file."""
        if not isinstance(error, SMTPError | OSError):
            what = safe_text(f"{type(error).__name__}: {error}", 300)
            return Fault(f"a bug of asyncsmtp: {what}", "report it with the campaign file")
        advice = error.advice if isinstance(error, ConfigError) else ""
        sentence = error.why if isinstance(error, ConfigError) else str(error)
        file, key = "", ""
        if isinstance(error, TemplateError):
            file, line, key = error.file, error.line or 0, error.file
        elif (match := _PLACE.match(sentence)) is not None:
            file, line = match["file"], int(match["line"])
        elif isinstance(error, RecipientError) and self._recipients is not None:
            file = str(self._recipients)
        elif isinstance(error, ConfigError):
            file = str(self._path)
            found, named = _TOML_LINE.search(sentence), _KEY.search(sentence)
            line, key = int(found[1]) if found else 0, named[1] if named else ""
        return self._make_fault(safe_text(sentence, 800), safe_text(advice, 400), file, line, key)

    def _make_fault(self, sentence: str, advice: str, file: str, line: int, key: str = "") -> Fault:
        path = self._find_source(file)
        if key and (path is None or not line or not path.is_file()):
            path, line = self._path, find_key(self._path, key)
        if path is None or not line:
            return Fault(sentence, advice)
        shown = path.relative_to(self._path.parent) if path.is_relative_to(self._path.parent) else path
        return Fault(sentence, advice, safe_text(str(shown), 200), line, read_excerpt(path, line))

    def _find_source(self, name: str) -> Path | None:
        """Return the file that an error names, by its path or its last part."""
        if not name:
            return None
        paths = {str(path): path for path in self._sources} | {path.name: path for path in self._sources}
        paths |= {
            path.relative_to(self._path.parent).as_posix(): path
            for path in self._sources - self._keys
            if path.is_relative_to(self._path.parent)
        }
        return None if (found := paths.get(name)) in self._keys else found

    def locate(self, finding: Finding) -> Remark:
        """Return a finding with the lines that its sentence is about, if it names a file."""
        sentence, advice = safe_text(finding.sentence, 600), safe_text(finding.advice, 400)
        place = None
        if (match := _PLACE.match(finding.sentence)) is not None and self._find_source(match["file"]) is not None:
            place = self._make_fault("", "", match["file"], int(match["line"]))
        return Remark(str(finding.weight), sentence, advice, place=place)


def _list_sources(config: CampaignConfig) -> Iterator[Path]:
    """Yield the files that a campaign names, whether or not they are there."""
    found: list[object] = [config.source, config.recipients, config.text, config.html, *config.suppression]
    files = (*config.inline.values(), *(config.folder / each for each in config.attachments))
    found += [path for path in files if not _SEVERAL.search(str(path))]
    yield from (each for each in found if isinstance(each, Path))


def _list_keys(config: CampaignConfig) -> Iterator[Path]:
    """Yield the files of keys and secrets, and of what SQLite writes first: only their age is looked at."""
    found = [each.key for each in config.dkim]
    found += [path.with_name(f"{path.name}-wal") for path in config.suppression if not is_text_list(path)]
    if config.smime is not None:
        found += [config.smime.certificate, config.smime.key, config.smime.chain]
    if config.unsubscribe is not None:
        found.append(config.unsubscribe.secret_file)
    yield from filter(None, found)


def _list_folders(config: CampaignConfig) -> Iterator[Path]:
    """Yield the folders of files whose names differ from row to row, or are found by `*` and `?`."""
    for path in (*config.attachments, *config.optional_attachments, *map(str, config.inline.values())):
        whole = str(config.folder / path)
        if (mark := _SEVERAL.search(whole)) is not None:
            folder = Path(whole[: mark.start()] + "x").parent
            if folder.is_dir():
                yield folder


def stamp_file(path: Path) -> tuple[int, ...] | None:
    """Return what changes when a file is written or replaced; None if it is not there."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev


def _list_files(folder: Path) -> Iterator[Path]:
    with suppress(OSError), os.scandir(folder) as entries:
        yield from (Path(entry.path) for entry in entries if entry.is_file())


def find_key(path: Path, key: str) -> int:
    """Return the line of a key in a campaign file; 0 if it is not there."""
    if not key:
        return 0
    name = re.sub(r"[-_]", "[-_]", re.escape(key).replace("\\-", "-"))  # Reply-To is the key reply_to
    expression = re.compile(rf"""^\s*(?:\[[^\]]*\b)?["']?{name}["']?\s*(?:=|\])""", re.IGNORECASE)
    return next((number for number, line in _read_lines(path) if expression.match(line)), 0)


def read_excerpt(path: Path, line: int) -> tuple[tuple[int, str], ...]:
    """Return the lines round one, each with its number; nothing if the file cannot be read."""
    lines = islice(_read_lines(path), max(0, line - 1 - CONTEXT), line + CONTEXT)
    return tuple((number, safe_text(text.expandtabs(4), MAX_LINE)) for number, text in lines)


def _read_lines(path: Path) -> Iterator[tuple[int, str]]:
    if not path.is_file():  # to open a FIFO would wait for its writer
        return
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            left = MAX_EXCERPT_SIZE
            for number, line in enumerate(file, start=1):
                left -= len(line)
                if left < 0:
                    return
                yield number, line.rstrip("\r\n")
    except (OSError, ValueError):
        return
