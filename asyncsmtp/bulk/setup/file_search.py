"""Searching the folder of a campaign for attachments: wildcards, other normal forms of Unicode, the nearest name."""

from __future__ import annotations

import os
import re
import stat
import time
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from fnmatch import translate
from pathlib import Path
from typing import TYPE_CHECKING

from asyncsmtp.bulk.setup.config_types import resolve_path
from asyncsmtp.bulk.setup.source_files import DIRECTORY_FLAGS, WILDCARD, ConfinedFolder, check_pattern, is_pattern
from asyncsmtp.errors import ConfigError
from asyncsmtp.mail.attachment import Attachment, AttachmentPattern
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.setup.config import CampaignConfig
    from asyncsmtp.mail.templates.environment import Delimiters

__all__ = ["FileSearch", "load_attachments"]

_MAX_LISTINGS = 64  # folders whose names are kept
_MAX_COMPARED = 100  # names that are compared with one that is missing: two milliseconds
_SETTLED = 2_000_000_000  # nanoseconds since a folder changed
_ADVICE = "correct the name or its rights, then run the same command again"


_SPECIAL = re.compile(r"[*?\[]")


class FileSearch:
    """A search for the files of a folder, within the same limits as reading them; an `AttachmentFinder`.

    Args:
        where: what errors say before the key of the configuration.
    """

    def __init__(self, folder: ConfinedFolder, where: str = "") -> None:
        self._folder = folder
        self._where = where
        self._listings: dict[tuple[int, int], tuple[int, list[str], list[str]]] = {}

    def find_files(self, path: str, role: str, *, is_optional: bool) -> list[Path]:
        """Return the files that a path for everyone stands for: one, or all that match its wildcards.

        Raises:
            ConfigError: there is none.
        """
        file = resolve_path(path, self._folder.root)
        if not os.path.exists(file):
            file = resolve_path(path.replace("\\", "/"), self._folder.root)
        if os.path.exists(file):
            return [file]
        if not WILDCARD.search(path):
            return [] if is_optional else [self._find_same(file, role)]
        shown = f"{self._where}{role}: {safe_text(path, 120)}"
        if not file.is_relative_to(self._folder.root) or ".." in file.parts:
            raise ConfigError(f"{shown}: only files below {self._folder.root} are found by * and ?", "name each file")
        below = file.relative_to(self._folder.root).as_posix()
        try:
            found = self.match(below.replace("[", "[[]"))
        except OSError as error:
            raise ConfigError(f"{shown}: {error.strerror}", _ADVICE) from error
        if not found and not is_optional:
            raise ConfigError(f"{shown}: no file is called so", "correct the name, or make it optional_attachments")
        return [self._folder.root / each for each in found]

    def _find_same(self, file: Path, role: str) -> Path:
        """Return the file whose name differs in its normal form only. Raises ConfigError: another one is meant."""
        near, is_same = "", False
        if file.is_relative_to(self._folder.root) and ".." not in file.parts:
            with suppress(OSError):
                near, is_same = self.nearest(file.relative_to(self._folder.root).as_posix())
        if near and not is_same:
            why = f"{self._where}{role}: {safe_text(str(file))}: does not exist"
            raise ConfigError(f"{why}; did you mean {safe_text(near, 120)}?", _ADVICE)
        return self._folder.root / near if near else file  # reading it tells why it cannot be read

    def match(self, pattern: str) -> list[str]:
        """Return the regular files that a path stands for, sorted: `*` and `?` are any letters of a name, `[*]` is `*`.

        Hidden files, symbolic links and the campaign's own files are none of them.

        Raises:
            OSError: a folder cannot be read; see `strerror`.
        """
        found: list[str] = []
        here = os.open(self._folder.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._match(here, pattern.split("/"), "", found)
        finally:
            os.close(here)
        return sorted(found)

    def _match(self, here: int, steps: list[str], above: str, found: list[str]) -> None:
        if not _SPECIAL.search(steps[0]) and _exists(steps[0], here):
            names: list[str] = [steps[0]]
        else:
            names = self._list(here, unicodedata.normalize("NFC", _SPECIAL.split(steps[0])[0]))
        expression = re.compile(translate(unicodedata.normalize("NFC", steps[0])))
        for name in names:
            if name.startswith(".") or not expression.match(unicodedata.normalize("NFC", name)):
                continue
            if len(steps) == 1:
                status = os.stat(name, dir_fd=here, follow_symlinks=False)
                used = self._folder.own.find_use(status) or self._folder.own.find_side_file(
                    os.path.join(self._folder.real_root, above + name)
                )
                found += [] if used or not stat.S_ISREG(status.st_mode) else [above + name]
                continue
            try:
                inner = os.open(name, DIRECTORY_FLAGS, dir_fd=here)
            except OSError:  # no folder, or not ours to read
                continue
            try:
                self._match(inner, steps[1:], f"{above}{name}/", found)
            finally:
                os.close(inner)

    def nearest(self, path: str) -> tuple[str, bool]:
        """Return the path of the file or folder with the nearest name, or "", and whether only its normal form differs.

        macOS writes “ü” in names as two characters, where others write one.
        """
        steps, above = path.split("/"), ""
        here = os.open(self._folder.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for place, step in enumerate(steps):
                names = [name for name in self._list(here) if not name.startswith(".")]
                wanted = unicodedata.normalize("NFC", step)
                same = [name for name in names if unicodedata.normalize("NFC", name) == wanted]
                if len(same) != 1:
                    return (above + near if (near := _find_near(wanted, names)) else ""), False
                above += same[0] + ("" if place == len(steps) - 1 else "/")
                if place < len(steps) - 1:
                    here, last = os.open(same[0], DIRECTORY_FLAGS, dir_fd=here), here
                    os.close(last)
            return above, True
        finally:
            os.close(here)

    def _list(self, here: int, beginning: str = "") -> list[str]:
        """Return the names in a folder that begin with a text in NFC, sorted; they are kept until it changes."""
        status = os.fstat(here)
        key = status.st_dev, status.st_ino
        changed, names, _ = self._listings.get(key, (0, [], []))
        if changed != status.st_mtime_ns:
            names = sorted(os.listdir(here), key=lambda name: unicodedata.normalize("NFC", name))
            if len(self._listings) == _MAX_LISTINGS:
                self._listings.clear()
            if time.time_ns() - status.st_mtime_ns > _SETTLED:  # else it may change again at the same time stamp
                keys = [unicodedata.normalize("NFC", name) for name in names]
                self._listings[key] = status.st_mtime_ns, names, keys
        if not beginning:
            return names
        keys = self._listings[key][2] if key in self._listings and self._listings[key][1] is names else []
        if not keys:
            return [name for name in names if unicodedata.normalize("NFC", name).startswith(beginning)]
        begin = bisect_left(keys, beginning)
        return names[begin : bisect_left(keys, beginning + "\U0010ffff", begin)]


def _exists(name: str, here: int) -> bool:
    try:
        os.stat(name, dir_fd=here, follow_symlinks=False)
    except (OSError, ValueError):
        return False
    return True


def _find_near(wanted: str, names: list[str]) -> str:
    """Return the name that is most like another, "" if none is; of many names only those near it in the alphabet."""
    folded = {unicodedata.normalize("NFC", name).casefold(): name for name in names}
    if wanted.casefold() in folded:
        return folded[wanted.casefold()]
    if len(folded) > _MAX_COMPARED:
        ordered = sorted(folded)
        place = bisect_left(ordered, wanted.casefold())
        folded = {key: folded[key] for key in ordered[max(place - _MAX_COMPARED // 2, 0) : place + _MAX_COMPARED // 2]}
    near = get_close_matches(wanted.casefold(), folded, 1)
    return folded[near[0]] if near else ""


def load_attachments(
    config: CampaignConfig, folder: ConfinedFolder, read: Callable[[Path, str], bytes], delimiters: Delimiters
) -> tuple[Sequence[Attachment | AttachmentPattern], FileSearch]:
    """Read the files that everyone gets; those that differ from row to row are searched below the folder later.

    Raises:
        ConfigError: there is no such file, it cannot be read, or a path begins with no folder.
    """
    search = FileSearch(folder, f"{config.source}, [campaign] " if config.source else "")
    made: list[Attachment | AttachmentPattern] = []
    for role, is_optional, paths in (
        ("attachments", False, config.attachments),
        ("optional_attachments", True, config.optional_attachments),
    ):
        for path in paths:
            if is_pattern(path, delimiters):
                made.append(AttachmentPattern(check_pattern(path, role, delimiters), is_optional))
                continue
            for file in search.find_files(path, role, is_optional=is_optional):
                made.append(Attachment(file.name, read(file, role)))
    return made, search
