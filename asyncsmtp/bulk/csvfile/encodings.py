"""In which encoding a recipient file is, where nobody said: UTF-8 first, a byte order mark, then a guess said aloud."""

from __future__ import annotations

import codecs
import re

from asyncsmtp.errors import RecipientError

__all__ = ["UTF_8", "detected", "known"]

UTF_8 = "utf-8"
_SAMPLE = 64 * 1024  # octets that a guess looks at
_MARKS = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_UTF_16 = (
    (re.compile(rb"[^\0]\0[^\0]\0", re.DOTALL), "utf-16-le"),
    (re.compile(rb"\0[^\0]\0[^\0]", re.DOTALL), "utf-16-be"),
)
# What spreadsheets of this century save, the most frequent first, and little else: among hundreds of encodings, many
# of which make the same sense of a few octets, a guess is often a strange one.
_LIKELY = ["cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "iso8859_15", "mac_roman"]
_ALIKE = 0.02  # how much more disorder a text may have and yet be as likely


def known(encoding: str) -> str:
    """The name by which Python knows an encoding. Raises RecipientError: it knows none of that name."""
    try:
        found = codecs.lookup(encoding)
        "".encode(found.name)  # one of text, that is, and not a compression
    except (LookupError, UnicodeError, ValueError):
        raise RecipientError(f"{encoding!r} is no encoding: give one such as utf-8, cp1252 or utf-16") from None
    return found.name


def detected(octets: bytes, *, whole: bool) -> str | None:
    """The encoding of the beginning of a file; None where there is no telling.

    Args:
        whole: that is all of the file, so that no character can be cut at its end.
    """
    if octets.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return None
    for mark, encoding in _MARKS:
        if octets.startswith(mark):
            return encoding
    for pattern, encoding in _UTF_16:
        if pattern.match(octets):
            return encoding
    try:
        codecs.getincrementaldecoder(UTF_8)().decode(octets, whole)
    except UnicodeDecodeError as error:
        return _guess(octets[max(0, error.start - _SAMPLE // 2) :][:_SAMPLE])
    return UTF_8


def _guess(octets: bytes) -> str | None:
    from charset_normalizer import from_bytes

    if b"\0" in octets:
        return None  # no text
    found = list(from_bytes(octets, cp_isolation=_LIKELY, preemptive_behaviour=False))
    fit = {name for match in found if match.chaos <= found[0].chaos + _ALIKE for name in match.could_be_from_charset}
    return next((codecs.lookup(name).name for name in _LIKELY if name in fit), None)
