"""Octets of a recipient file to text: UTF-8 unless it is told otherwise, and what to do when that does not fit."""

from __future__ import annotations

import codecs
import re
import shlex

from asyncsmtp.bulk.csvfile.encodings import UTF_8
from asyncsmtp.errors import RecipientError

__all__ = ["TextDecoder", "line_ends"]

# What a file begins with when it is no UTF-8 text, and what it is then. The longer mark stands first.
_ENCODED = (
    (re.compile(rb"\xff\xfe\0\0|\0\0\xfe\xff"), "UTF-32"),
    (re.compile(rb"\xff\xfe|\xfe\xff|[^\0]\0[^\0]\0|\0[^\0]\0[^\0]", re.DOTALL), "UTF-16"),
)
_PACKED = (
    (b"PK\x03\x04", "a workbook or a ZIP archive"),
    (b"\xd0\xcf\x11\xe0", "a workbook of an old Excel"),
    (b"\x1f\x8b", "compressed"),
    (b"%PDF", "a PDF"),
)
_MARK = 4  # octets of the longest of these


class TextDecoder:
    """With or without a byte order mark, in blocks that may end anywhere inside a character."""

    def __init__(self, name: str, encoding: str = UTF_8) -> None:
        """`name` is the file's, for errors."""
        self._name = name
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)("strict")
        self._begun = False
        self._unread = b""
        self._octets = 0
        self._lines = 0
        self._last = ""

    def decode(self, octets: bytes, *, final: bool = False) -> str:
        """Return the text of the next block; less or more than it when a character lies on its edge.

        Raises:
            RecipientError: not in that encoding; names the line, the octet and the way out.
        """
        if not self._begun:
            self._unread += octets
            if len(self._unread) < _MARK and not final:
                return ""
            octets, self._unread, self._begun = self._unread, b"", True
            self._refuse_other_kinds(octets)
            text = self._text(octets, final)
            self._count(octets, text)
            return text.removeprefix("\ufeff")
        text = self._text(octets, final)
        self._count(octets, text)
        return text

    def _text(self, octets: bytes, final: bool) -> str:
        begun = len(self._decoder.getstate()[0])  # octets of a character that the last block cut
        try:
            return self._decoder.decode(octets, final)
        except UnicodeDecodeError as error:
            before = self._last + error.object[: error.start].decode(self._encoding, "replace")
            line = 1 + self._lines + line_ends(before) - line_ends(self._last)
            raise self._unfit(line, self._octets - begun + error.start, error.object[error.start]) from error
        except UnicodeError as error:  # of UTF-16, without the mark that says which
            raise RecipientError(f"{self._name} is not {self._encoding}: save it as “CSV UTF-8”") from error

    def _count(self, octets: bytes, text: str) -> None:
        self._octets += len(octets)
        self._lines += line_ends(self._last + text) - line_ends(self._last) if self._last else line_ends(text)
        self._last = "\r" if text.endswith("\r") or (not text and self._last) else ""

    def _refuse_other_kinds(self, octets: bytes) -> None:
        for mark, encoding in _ENCODED if self._encoding == UTF_8 else ():
            if mark.match(octets):
                raise RecipientError(
                    f"{self._name} is {encoding}, not UTF-8: save it as “CSV UTF-8”, "
                    f"or convert it: iconv -f {encoding} -t UTF-8 {shlex.quote(self._name)} > utf8.csv"
                )
        for beginning, kind in _PACKED:
            if octets.startswith(beginning):
                raise RecipientError(f"{self._name} is {kind}, not a CSV: save or export it as “CSV UTF-8”")

    def _unfit(self, line: int, octet: int, value: int) -> RecipientError:
        if self._encoding != UTF_8:
            return RecipientError(
                f"{self._name}, line {line}: octet 0x{value:02X} at offset {octet} is not {self._encoding}: "
                "say with --encoding what the file is in, or save it as “CSV UTF-8”"
            )
        perhaps = bytes((value,)).decode("cp1252", "ignore")
        meant = f" (“{perhaps}” in Windows-1252)" if perhaps.isprintable() and perhaps else ""
        return RecipientError(
            f"{self._name}, line {line}: octet 0x{value:02X}{meant} at offset {octet} is not UTF-8: save the file as "
            f"“CSV UTF-8”, or say what it is in: --encoding cp1252"
        )


def line_ends(text: str) -> int:
    """How many lines end in `text`, with CR LF, LF or CR."""
    ends = text.count("\n")
    return ends + text.count("\r") - text.count("\r\n") if "\r" in text else ends
