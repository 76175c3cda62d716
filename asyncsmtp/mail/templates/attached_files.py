"""Attachments that differ from row to row: the files that a path with cells in it stands for.

A cell may name no file, one, or several that are separated by semicolons; with `/` or `\\` between folders, as people
copy paths from Windows. Only the path of the campaign itself is a pattern: `*` and `?` in a cell are letters. A cell
leads nowhere but below the folder of attachments.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from asyncsmtp.errors import MessageError, TemplateError
from asyncsmtp.mail.attachment import Attachment, AttachmentFinder, AttachmentPattern, AttachmentReader
from asyncsmtp.mail.mime import RowValues, encode_attachment
from asyncsmtp.mail.templates.environment import TemplateEnvironment
from asyncsmtp.mail.templates.slotted_text import SlottedText, split_slots
from asyncsmtp.mail.templates.variables import Columns
from asyncsmtp.protocol.replies import safe_text

__all__ = ["FilePattern"]

MAX_FILES = 100  # of one attachment of a row
_WILDCARD = re.compile(r"[*?]")
_SPECIAL = re.compile(r"([*?\[])")


class FilePattern:
    """The files that one path stands for, for each row.

    Args:
        find: see `Template.compile`.
    Raises:
        TemplateError: the path is not a valid template, or nothing can read it.
    """

    def __init__(
        self,
        wanted: AttachmentPattern,
        columns: Columns,
        environment: TemplateEnvironment,
        read: AttachmentReader | None,
        find: AttachmentFinder | None = None,
    ) -> None:
        text = split_slots(wanted.path, wanted.path, columns, environment)
        if read is None:
            raise TemplateError("there is no read= to read this attachment with", wanted.path)
        pieces = [piece.replace("\\", "/") if isinstance(piece, str) else piece for piece in text.pieces]
        self.is_constant = text.constant is not None
        self._pattern = wanted
        self._pieces = SlottedText(pieces).pieces
        self._read = read
        self._find = find
        self._is_wild = find is not None and any(_WILDCARD.search(each) for each in pieces if isinstance(each, str))
        first = pieces[0] if pieces and isinstance(pieces[0], str) else ""
        self._folder = first[: first.rfind("/") + 1]
        ends = [place for place, each in enumerate(pieces) if isinstance(each, str) and "/" in each]
        self._last_step = ends[-1] if ends else 0  # the place from which on pieces make the name of the file

    def encode(self, values: RowValues) -> list[bytes]:
        """Return the part for each file of a row. Raises MessageError: one cannot be read."""
        return [b"".join(encode_attachment(file)) for file in self.read(values)]

    def read_one(self, values: RowValues | None) -> Attachment:
        """Return the file of a row; raise MessageError if there is not exactly one."""
        files = self.read(values)
        if len(files) != 1:
            shown = safe_text(self._pattern.path, 120)
            raise MessageError(f"{shown} stands for {len(files)} files in this row, and one is shown: name one file")
        return files[0]

    def read(self, values: RowValues | None) -> list[Attachment]:
        """Return the files of a row, without a row those of everyone."""
        texts = [piece if isinstance(piece, str) else piece(values) for piece in self._pieces]  # type: ignore[arg-type]
        if self._is_blank(texts):
            return []
        if any(";" in text for text in self._cells(texts)) and not self._is_wild:
            try:  # a name may have a semicolon in it
                return [self._open(self._clean("".join(texts)))]
            except (OSError, MessageError):
                pass
        found: dict[str, Attachment] = {}
        for path in self._paths(texts):
            if len(found) == MAX_FILES:
                raise MessageError(f"{safe_text(self._pattern.path, 120)} stands for more than {MAX_FILES} files")
            for each in self._match(path) if self._is_wild else [path]:
                if each not in found and (file := self._open_or_explain(each)) is not None:
                    found[each] = file
        return list(found.values())

    def _cells(self, texts: list[str], begin: int = 0) -> list[str]:
        return [text for text, piece in zip(texts[begin:], self._pieces[begin:], strict=True) if callable(piece)]

    def _is_blank(self, texts: list[str]) -> bool:
        """Return whether the cells that make the name of the file, or all cells, are empty: there is no file."""
        named = self._cells(texts, self._last_step) or self._cells(texts)
        return bool(named) and not "".join(named).strip(" ;\t\u00a0")

    def _paths(self, texts: list[str]) -> Iterator[str]:
        """Yield the path for each of the names in a cell; with wildcards, those of cells are escaped."""
        listed = [
            [part for each in text.split(";") if (part := each.strip())] or [""] if callable(piece) else [text]
            for text, piece in zip(texts, self._pieces, strict=True)
        ]
        several = [place for place, parts in enumerate(listed) if len(parts) > 1]
        if len(several) > 1:
            why = "two cells name several files each: name them all in one"
            raise MessageError(f"{safe_text(self._pattern.path, 120)}: {why}")
        for chosen in range(len(listed[several[0]]) if several else 1):
            parts = [each[chosen if len(each) > 1 else 0] for each in listed]
            if self._is_wild:
                parts = [
                    _SPECIAL.sub(r"[\1]", part) if callable(piece) else part.replace("[", "[[]")
                    for part, piece in zip(parts, self._pieces, strict=True)
                ]
            yield self._clean("".join(parts))

    def _clean(self, path: str) -> str:
        """Return a path with `/` and without `.`; raise MessageError if it leads out of the folder."""
        steps = [step for step in path.replace("\\", "/").split("/") if step != "."]
        outside = not {"", ".."}.isdisjoint(steps) or not steps or ":" in steps[0]
        if outside or not path.isprintable():
            raise MessageError(f"“{safe_text(path, 120)}” is not a path below the folder of attachments")
        return "/".join(steps)

    def _match(self, pattern: str) -> list[str]:
        """Return the files that a path with wildcards stands for. Raises MessageError: there are none."""
        assert self._find is not None
        try:
            found = list(self._find.match(pattern))
        except OSError as error:
            raise MessageError(f"the attachments {pattern} cannot be read: {error.strerror or error}") from error
        if not found and not self._pattern.optional:
            shown = safe_text(re.sub(r"\[([*?\[])\]", r"\1", pattern), 120)
            raise MessageError(f"no file is called {shown}: correct the name, or make the attachment optional")
        return found

    def _open(self, path: str) -> Attachment:
        return Attachment(unicodedata.normalize("NFC", path.rpartition("/")[2]), self._read(path))

    def _open_or_explain(self, path: str) -> Attachment | None:
        """Read a file; one that is missing is looked for under nearly the same name, which only NFC may differ from."""
        try:
            return self._open(path)
        except FileNotFoundError as error:
            missing = error
        except OSError as error:
            raise MessageError(f"the attachment {path} cannot be read: {error.strerror or error}") from error
        if self._folder and path.startswith(self._folder * 2):  # the cell names the folder too
            try:
                return self._open_nearest(path[len(self._folder) :])[0] or self._open(path[len(self._folder) :])
            except OSError:
                pass
        file, near = self._open_nearest(path)
        if file is not None or self._pattern.optional:
            return file
        why = missing.strerror or str(missing)
        if near and _fold(near) == _fold(path):
            why = f"there is only {near}, in other capitals"
        elif near:
            why += f"; the nearest is {near}"
        raise MessageError(f"the attachment {path} cannot be read: {why}") from missing

    def _open_nearest(self, path: str) -> tuple[Attachment | None, str]:
        if self._find is None:
            return None, ""
        try:
            near, is_same = self._find.nearest(path)
            return (self._open(near) if is_same else None), safe_text(near, 120)
        except OSError:
            return None, ""


def _fold(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()
