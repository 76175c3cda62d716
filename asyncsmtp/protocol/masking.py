"""Masking of secrets in replies: a relay may echo a password or a token, plain or encoded, at any stage.

A secret of 16 bytes or more is masked in every run of 16 of its bytes, so that a part of a token is not shown either;
one of 8 to 15 bytes wherever it occurs as a whole. A shorter one may be a common word: to mask every "mail" would spoil
the replies and tell the password. With 4 to 7 bytes it is masked where it stands alone, and with fewer only in the
response of a mechanism.

The encoded forms are base64 in each alignment (so it is found in the response of every mechanism, and in that to a
proxy), URL-safe base64, hex, percent-encoding and Latin-1. A base64 word that holds a secret is masked whole.

Lines are searched as one text without white space, with and without the codes that each may begin with: it does not
matter where a server folds a line. What is spread over several replies, or encoded otherwise, is not found.

Nearly every reply has nothing to mask, and to find that out must cost nothing that can be measured. So long secrets are
kept as the set of their substrings of 8 bytes. A run of 16 has one of them at any 9 consecutive offsets, therefore it
is enough to look at every ninth offset of a reply: about five look-ups. Of a form of over 1,024 bytes only every fifth
substring is kept, which finds runs of 52 bytes (9 and 5 have no common divisor).
"""

from __future__ import annotations

import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import suppress
from itertools import accumulate, pairwise
from urllib.parse import quote_from_bytes

__all__ = ["SecretMask"]

MIN_RUN = 16  # bytes of a long secret that are masked together
GRAM = 8  # bytes
STRIDE = MIN_RUN - GRAM + 1
MIN_ANYWHERE = 8  # bytes from which a secret is masked inside a word
MIN_MASKED = 4  # bytes from which it is masked at all; also of the beginning of a secret in a line that was cut off
LONG, LONG_STEP = 1024, 5  # bytes of a form from which not every substring is kept
MAX_HEX = 256  # bytes of a secret that is also masked in hex; nobody writes a token so
MAX_EXAMINED = 4096  # bytes; a longer reply with a secret is masked whole, since finding it would block the event loop

_LAST_GRAM = GRAM - 1
_STARS = b"***"
_SPACE = b" \t\v\f\r\n"
_CODES = re.compile(rb"(?:[2-5][0-9][0-9][ -])?(?:[245]\.[0-9]{1,3}\.[0-9]{1,3}[ \t]+)?")
_BASE64 = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=")


class SecretMask:
    """The secrets that no reply of a connection may show.

    The sessions of a pool share one: a relay may echo to one of them what another has sent.
    """

    __slots__ = ("_encoded", "_forms", "_grams", "_secrets", "_whole", "_words")

    def __init__(self, *secrets: bytes) -> None:
        self._secrets: set[bytes] = set()
        self._forms: list[bytes] = []  # without white space
        self._encoded: set[bytes] = set()  # those that are a part of a base64 word
        self._grams: dict[bytes, bytes] = {}  # substrings of the forms of 16 bytes or more, each with its form
        self._whole: list[bytes] = []  # forms that are masked wherever they occur
        self._words: list[tuple[bytes, re.Pattern[bytes]]] = []  # forms that are masked where they stand alone
        self.add(*secrets)

    def __repr__(self) -> str:
        return "SecretMask(***)"

    def add(self, *secrets: bytes) -> None:
        """Mask these secrets too, in all forms."""
        for secret in secrets:
            if len(secret) >= MIN_MASKED and secret not in self._secrets:
                self._secrets.add(secret)
                for form in _spellings(secret):
                    self._add(form)
                for core in _base64_cores(secret):
                    self._add(core, encoded=True)

    def add_encoded(self, *words: bytes) -> None:
        """Mask these base64 words too, such as the response of a mechanism."""
        for word in words:
            if word not in self._secrets:
                self._secrets.add(word)
                self._add(word.rstrip(b"="), encoded=True)

    def _add(self, spelling: bytes, *, encoded: bool = False) -> None:
        form = spelling.translate(None, _SPACE)
        self._forms.append(form)
        if encoded:
            self._encoded.add(form)
        if len(form) >= MIN_RUN:
            offsets = range(0, len(form) - _LAST_GRAM, LONG_STEP if len(form) > LONG else 1)
            self._grams.update(dict.fromkeys([form[at : at + GRAM] for at in offsets], form))
        elif len(form) >= MIN_ANYWHERE or (encoded and len(form) >= MIN_MASKED):
            self._whole.append(form)
        elif len(form) >= MIN_MASKED:
            alone = rb"(?<![A-Za-z0-9])" + re.escape(spelling) + rb"(?![A-Za-z0-9])"
            self._words.append((spelling, re.compile(alone)))

    def mask(self, lines: tuple[bytes, ...], *, incomplete: bool = False) -> tuple[bytes, ...]:
        """Return the lines with `***` in place of each secret; the same tuple if there is none.

        Args:
            incomplete: the last line has no end, so a secret may be cut off at its end.
        """
        if not self._forms:
            return lines
        if not incomplete:
            for text in lines if len(lines) == 1 else _joined(lines):
                if self._may_hold_secret(text):
                    break
            else:
                return lines
        size = sum(map(len, lines))
        if size > MAX_EXAMINED:
            return (_STARS,) * len(lines)
        masked, whole, begins = bytearray(size), b"".join(lines), [0, *accumulate(map(len, lines))]
        ends = {begin - 1 for begin in begins}
        for kept in _readings(lines):
            self._mark(kept, ends, whole, masked, incomplete=incomplete)
        for begin, end in pairwise(begins) if self._words and len(lines) > 1 else ():
            self._mark(list(range(begin, end)), ends, whole, masked, incomplete=False)
        return tuple(_replaced(lines, masked)) if any(masked) else lines

    def mask_text(self, text: str) -> str:
        """Return a text with `***` in place of each secret."""
        octets = text.encode("utf-8", "backslashreplace")
        masked = self.mask((octets,))[0]
        return text if masked is octets else masked.decode("utf-8", "replace")

    def _may_hold_secret(self, text: bytes) -> bool:
        """Tell if a text may hold a secret; as a rule it does not, so this is all that a reply costs."""
        squeezed, grams = text.translate(None, _SPACE), self._grams
        for at in range(0, len(squeezed) - _LAST_GRAM, STRIDE):
            if squeezed[at : at + GRAM] in grams:
                return True
        for form in self._whole:
            if form in squeezed:
                return True
        return any(word in text for word, _ in self._words) if self._words else False

    def _mark(self, kept: list[int], ends: set[int], whole: bytes, masked: bytearray, *, incomplete: bool) -> None:
        """Set the bytes of `masked` that belong to a secret.

        Args:
            kept: the offsets of `whole` that are searched. ends: those of the last byte of each line.
        """
        text = bytes(whole[at] for at in kept)
        places = [at for at, octet in enumerate(text) if octet not in _SPACE]
        squeezed = text.translate(None, _SPACE)
        spans = [word.span() for _, pattern in self._words for word in pattern.finditer(text)]
        for begin, end, form in (*self._runs(squeezed), *self._occurrences(squeezed, incomplete=incomplete)):
            begin, end = places[begin], places[end - 1] + 1
            if form in self._encoded:  # with the rest of the word, in the same line
                while begin > 0 and text[begin - 1] in _BASE64 and kept[begin - 1] == kept[begin] - 1 not in ends:
                    begin -= 1
                while end < len(text) and text[end] in _BASE64 and kept[end - 1] == kept[end] - 1 not in ends:
                    end += 1
            spans.append((begin, end))
        for begin, end in spans:
            for at in kept[begin:end]:
                masked[at] = True

    def _runs(self, squeezed: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Yield begin, end and form of each run of 16 bytes or more of a long secret."""
        at = 0
        while at < len(squeezed) - _LAST_GRAM:
            form = self._grams.get(squeezed[at : at + GRAM])
            begin = end = at
            if form is not None:
                offset = form.index(squeezed[at : at + GRAM]) - at
                while begin > 0 and begin + offset > 0 and squeezed[begin - 1] == form[begin + offset - 1]:
                    begin -= 1
                while end < len(squeezed) and end + offset < len(form) and squeezed[end] == form[end + offset]:
                    end += 1
                if end - begin >= MIN_RUN:
                    yield begin, end, form
            at = max(end - _LAST_GRAM, at + 1)

    def _occurrences(self, squeezed: bytes, *, incomplete: bool) -> Iterator[tuple[int, int, bytes]]:
        """Yield the same for each secret that is not long, and for one that is cut off at the end."""
        for form in self._whole:
            found = squeezed.find(form)
            while found >= 0:
                yield found, found + len(form), form
                found = squeezed.find(form, found + 1)
        for form in self._forms if incomplete else ():
            for length in range(min(len(form), len(squeezed)), MIN_MASKED - 1, -1):
                if squeezed.endswith(form[:length]):
                    yield len(squeezed) - length, len(squeezed), form
                    break


def _spellings(secret: bytes) -> set[bytes]:
    """Return the ways in which a secret may be written, without base64."""
    found = {secret, quote_from_bytes(secret, safe="").encode("ascii")}
    if len(secret) <= MAX_HEX:
        found |= {secret.hex().encode("ascii"), secret.hex().upper().encode("ascii")}
    with suppress(UnicodeError):  # it cannot be written so
        found.add(secret.decode("utf-8").encode("latin-1"))
    return found


def _base64_cores(secret: bytes) -> set[bytes]:
    """Return what base64 makes of a secret inside any longer text: of each of its alignments, in both alphabets.

    The characters at the ends that also depend on what stands before and behind the secret are left out.
    """
    found = set()
    for before in range(3):
        first, rest = (0, 2, 3)[before], (before + len(secret)) % 3
        for encode in (b64encode, urlsafe_b64encode):
            encoded = encode(bytes(before) + secret).rstrip(b"=")
            found.add(encoded[first:-1] if rest else encoded[first:])
    return found


def _joined(lines: tuple[bytes, ...]) -> tuple[bytes, bytes]:
    """Return several lines as the texts to search: joined, and joined without the codes that repeat."""
    first, *others = [line.strip(_SPACE) for line in lines]
    return first + b"".join(others), first + b"".join(_CODES.sub(b"", other, count=1) for other in others)


def _readings(lines: tuple[bytes, ...]) -> tuple[list[int], list[int]]:
    """Return the offsets of the bytes that `_joined` keeps."""
    plain: list[int] = []
    without_codes: list[int] = []
    offset = 0
    for number, line in enumerate(lines):
        begin, end = len(line) - len(line.lstrip(_SPACE)), len(line.rstrip(_SPACE))
        code = _CODES.match(line, begin) if number else None
        plain += range(offset + begin, offset + end)
        without_codes += range(offset + (code.end() if code is not None else begin), offset + end)
        offset += len(line)
    return plain, without_codes


def _replaced(lines: tuple[bytes, ...], masked: bytearray) -> Iterator[bytes]:
    offset = 0
    for line in lines:
        marks = masked[offset : offset + len(line)]
        shown = bytes(octet if not mark else 0 for octet, mark in zip(line, marks, strict=True))  # a reply has no NUL
        yield re.sub(rb"\x00+", _STARS, shown)
        offset += len(line)
