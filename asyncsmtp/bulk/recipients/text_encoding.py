"""The encoding of a recipient file: named, detected where the evidence is strong, and decoded piece by piece."""

from __future__ import annotations

import codecs
import re
import shlex
from collections.abc import Sequence

from asyncsmtp.errors import RecipientError

__all__ = ["UTF_8", "SettingNeeded", "TextDecoder", "count_line_ends", "detect_encoding", "normalize_encoding"]

UTF_8 = "utf-8"
_UTF_16_MARKS = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_UTF_16_PATTERNS = (
    (re.compile(rb"[^\0]\0[^\0]\0", re.DOTALL), "utf-16-le"),
    (re.compile(rb"\0[^\0]\0[^\0]", re.DOTALL), "utf-16-be"),
)


class SettingNeeded(RecipientError):
    """A file that can be read in several ways, of which none may be guessed.

    Attributes:
        setting: the keyword that decides, such as `encoding`.
        values: those that may be meant, the most likely first; may be empty.
    """

    def __init__(self, reason: str, setting: str, values: Sequence[str]) -> None:
        super().__init__(reason)
        self.setting = setting
        self.values = tuple(values)


def normalize_encoding(encoding: str) -> str:
    """Return Python's name of an encoding. Raises RecipientError: there is none of that name."""
    try:
        found = codecs.lookup(encoding)
        "".encode(found.name)  # an encoding of text, not a compression
    except (LookupError, UnicodeError, ValueError):
        raise RecipientError(f"{encoding!r} is not an encoding: give one such as utf-8, cp1252 or utf-16") from None
    return found.name


def detect_encoding(data: bytes, *, whole: bool) -> str | None:
    """Return the encoding of the beginning of a file; None where it has to be guessed, as by `encoding_guess`.

    Byte order marks are tried first, then UTF-8. What is no text at all is UTF-8, whose decoder then says so.

    Args:
        whole: `data` is the whole file, so that no character can be cut at its end.
    """
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, *(beginning for beginning, _ in _OTHER_FORMATS))):
        return UTF_8
    for mark, encoding in _UTF_16_MARKS:
        if data.startswith(mark):
            return encoding
    for pattern, encoding in _UTF_16_PATTERNS:
        if pattern.match(data):
            return encoding
    if data.isascii():
        return None if b"+" in data or b"\x1b" in data or b"~{" in data or b"\0" in data else UTF_8
    try:
        codecs.getincrementaldecoder(UTF_8)().decode(data, whole)
    except UnicodeDecodeError:
        return None
    return UTF_8


# The beginnings of files that are not UTF-8 text. The longer mark stands first.
_OTHER_ENCODINGS = (
    (re.compile(rb"\xff\xfe\0\0|\0\0\xfe\xff"), "UTF-32"),
    (re.compile(rb"\xff\xfe|\xfe\xff|[^\0]\0[^\0]\0|\0[^\0]\0[^\0]", re.DOTALL), "UTF-16"),
)
_OTHER_FORMATS = (
    (b"PK\x03\x04", "a workbook or a ZIP archive"),
    (b"\xd0\xcf\x11\xe0", "a workbook of an old Excel"),
    (b"\x1f\x8b", "compressed"),
    (b"%PDF", "a PDF"),
)
_MAX_MARK = 4  # bytes of the longest of these


class TextDecoder:
    """An incremental decoder, with or without a byte order mark, of blocks that may end inside a character."""

    def __init__(self, name: str, encoding: str = UTF_8) -> None:
        """Name the file, for errors."""
        self._name = name
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)("strict")
        self._begun = False
        self._unread = b""
        self._offset = 0
        self._lines = 0
        self._last = ""

    def decode(self, data: bytes, *, final: bool = False) -> str:
        """Return the text of the next block: of the characters that end in it.

        Raises:
            RecipientError: not in that encoding; the message has the line, the byte and the remedy.
        """
        is_first = not self._begun
        if is_first:
            self._unread += data
            if len(self._unread) < _MAX_MARK and not final:
                return ""
            data, self._unread, self._begun = self._unread, b"", True
            self._refuse_other_formats(data)
        text = self._text(data, final)
        self._count(data, text)
        return text.removeprefix("\ufeff") if is_first else text

    def _text(self, data: bytes, final: bool) -> str:
        pending = len(self._decoder.getstate()[0])  # bytes of a character that the last block cut
        try:
            return self._decoder.decode(data, final)
        except UnicodeDecodeError as error:
            before = self._last + error.object[: error.start].decode(self._encoding, "replace")
            line = 1 + self._lines + count_line_ends(before) - count_line_ends(self._last)
            raise self._invalid(line, self._offset - pending + error.start, error.object[error.start]) from error
        except UnicodeError as error:  # of UTF-16, without a byte order mark
            raise RecipientError(f"{self._name} is not {self._encoding}: save it as “CSV UTF-8”") from error

    def _count(self, data: bytes, text: str) -> None:
        self._offset += len(data)
        self._lines += (
            count_line_ends(self._last + text) - count_line_ends(self._last) if self._last else count_line_ends(text)
        )
        self._last = "\r" if text.endswith("\r") or (not text and self._last) else ""

    def _refuse_other_formats(self, data: bytes) -> None:
        for mark, encoding in _OTHER_ENCODINGS if self._encoding == UTF_8 else ():
            if mark.match(data):
                raise RecipientError(
                    f"{self._name} is {encoding}, not UTF-8: save it as “CSV UTF-8”, "
                    f"or convert it: iconv -f {encoding} -t UTF-8 {shlex.quote(self._name)} > utf8.csv"
                )
        for beginning, kind in _OTHER_FORMATS:
            if data.startswith(beginning):
                raise RecipientError(f"{self._name} is {kind}, not a CSV: save or export it as “CSV UTF-8”")

    def _invalid(self, line: int, offset: int, value: int) -> RecipientError:
        if self._encoding != UTF_8:
            return RecipientError(
                f"{self._name}, line {line}: byte 0x{value:02X} at offset {offset} is not {self._encoding}: "
                "name the encoding with encoding=, or save the file as “CSV UTF-8”"
            )
        perhaps = bytes((value,)).decode("cp1252", "ignore")
        meant = f" (“{perhaps}” in Windows-1252)" if perhaps.isprintable() and perhaps else ""
        return RecipientError(
            f"{self._name}, line {line}: byte 0x{value:02X}{meant} at offset {offset} is not UTF-8: save the file as "
            f"“CSV UTF-8”, or name its encoding, such as cp1252, with encoding="
        )


def count_line_ends(text: str) -> int:
    """Return the number of lines that end in `text`, with CR LF, LF or CR."""
    ends = text.count("\n")
    return ends + text.count("\r") - text.count("\r\n") if "\r" in text else ends
