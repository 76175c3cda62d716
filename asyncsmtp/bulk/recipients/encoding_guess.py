"""A guess at the encoding of a file that is not UTF-8: made on strong evidence only, else the encodings to ask about.

A wrong guess is a wrong name in a thousand letters, so that a question is always better. There are two kinds of strong
evidence:

1. *Elimination.* Of all encodings, those are left in which the cells look like words: letters of one script, no
   capital inside a word, no control characters. If they all read the cells alike, it does not matter which it is.
   “Jörg” in cp1252 is a word in no encoding that reads its bytes otherwise.
2. *Letter statistics* of at least `_MIN_CELLS` different cells, by chardet (an extra), with a distance to the second
   best. The winner must also win each comparison with an encoding that is left, made from those cells alone that the
   two read differently: in a list of 290 German and 10 Czech names in cp1250, all that tells cp1250 from cp1252 is the
   Czech ones. For the double-byte encodings charset-normalizer must agree.

Measured on 5,173 files of generated names, from 1 to 800 rows, alone and mixed, in capitals, and with few letters that
are not ASCII: none was read wrongly. The thresholds were chosen on such files. chardet alone reads 17 % wrongly.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec

from asyncsmtp.bulk.recipients.text_encoding import UTF_8, SettingNeeded
from asyncsmtp.protocol.replies import safe_text

__all__ = ["CellCollector", "guess_encoding", "guess_from_sample"]

# What files of recipients are in. The first of those that read a file alike gives the name.
_GUESSED = (
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258"),
    *("iso8859-15", "iso8859-2", "iso8859-5", "iso8859-7", "iso8859-9", "mac-roman", "cp850", "cp437", "cp866"),
    *("koi8-r", "koi8-u", "cp932", "euc_jp", "gb18030", "big5hkscs", "cp949", "cp874"),
)
# What is asked about but never guessed.
_RARE = (
    *("iso8859-13", "iso8859-16", "iso8859-4", "iso8859-10", "iso8859-6", "iso8859-8", "mac-latin2", "mac-cyrillic"),
    *("mac-greek", "mac-turkish", "cp852", "cp857", "cp737", "cp775", "cp865", "cp862"),
)
_DOUBLE_BYTE = frozenset({"cp932", "euc_jp", "gb18030", "big5hkscs", "cp949"})
_CHARDET_NAMES = {"euc_jp": "euc_jis_2004"}
_CYRILLIC = frozenset({"cp1251", "koi8-r", "koi8-u"})  # capitals in one are small letters in the other

_MIN_CELLS = 20  # different ones, for statistics
_MIN_DIFFERENT = 6  # cells that two encodings read differently
_MIN_DISTANCE = 0.1  # between the best and the second best, as a part of the best
_MIN_WORDS = 0.98  # part of the cells that look like words in the encoding of the file
_MAX_WORDS = 0.5  # part of the cells that may do so in an encoding that is eliminated
_SHOWN_CELLS = 3
_SHOWN_ENCODINGS = 5
_SETTING = "encoding"

_DELIMITERS = re.compile(
    rb'[,;\t\r\n"]+'
)  # no | and no quote of others, which are halves of characters in some encodings
_TEXT_DELIMITERS = re.compile(r'[,;|\t\r\n"]+')
_MAX_CELL = 200  # bytes of a cell as evidence
_MAX_CELLS = 1000
_CELLS_A_BYTE = 12  # when there are more, those with a byte that is rare


class CellCollector:
    """The different cells of a file that are not ASCII, as bytes, from blocks; in constant memory.

    Attributes:
        cells: in the order of the file.
    """

    def __init__(self) -> None:
        self.cells: dict[bytes, None] = {}
        self._rest = b""
        self._bytes: Counter[int] = Counter()

    def add(self, block: bytes, *, final: bool = False) -> None:
        """Add the next block; the last one is `final`."""
        data = self._rest + block
        end = len(data) if final else max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        self._rest = data[end:] if len(data) - end < 1 << 20 else b""  # a line of that length is refused later
        for cell in _DELIMITERS.split(data[:end]):
            if cell.isascii() or cell in self.cells or len(cell) > _MAX_CELL:
                continue
            high = {byte for byte in cell if byte > 127}
            if len(self.cells) < _MAX_CELLS or any(self._bytes[byte] < _CELLS_A_BYTE for byte in high):
                self.cells[cell] = None
                self._bytes.update(high)


def guess_encoding(name: str, cells: Sequence[bytes]) -> str:
    """Return the encoding of the cells of a file.

    Raises:
        SettingNeeded: the evidence is not strong; the message has three cells as each encoding reads them.
    """
    if 2 * sum(_decode([cell], UTF_8) is not None for cell in cells) >= max(3, len(cells)):
        return UTF_8  # whose decoder then reports the line that is not
    readings = {encoding: read for encoding in (*_GUESSED, *_RARE) if (read := _decode(cells, encoding))}
    words = {encoding: _count_words(read) / len(read) for encoding, read in readings.items()}
    likely = sorted((each for each in readings if words[each] > 0.5), key=lambda each: -words[each] // 0.02)
    for found in (_eliminate(readings, words, likely), _compare(cells, readings, words)):
        if found is not None and found in _GUESSED:
            return found
    raise _ask(name, {encoding: readings[encoding] for encoding in likely})


def _eliminate(readings: dict[str, list[str]], words: dict[str, float], likely: Sequence[str]) -> str | None:
    """Return the encoding if all in which the cells look like words read them alike."""
    if not likely or words[likely[0]] < _MIN_WORDS:
        return None
    best = readings[likely[0]]
    limit = 0.0 if len(best) < 5 else _MAX_WORDS
    for read in readings.values():
        others = [other for other, cell in zip(read, best, strict=True) if other != cell]
        if others and _count_words(others) > limit * len(others):
            return None
    return likely[0]


def _compare(cells: Sequence[bytes], readings: dict[str, list[str]], words: dict[str, float]) -> str | None:
    """Return the encoding that wins by the statistics of chardet; None if none does, or without that library."""
    if len(cells) < _MIN_CELLS or find_spec("chardet") is None:  # an extra
        return None
    scores = _score(cells)
    if not scores or (best := _decode(cells, scores[0][0])) is None:
        return None
    found = next((encoding for encoding, read in readings.items() if read == best), None)
    if found is None or words[found] < _MIN_WORDS:
        return None
    second = next((score for other, score in scores[1:] if _decode(cells, other) not in (None, best)), 0.0)
    if scores[0][1] - second < _MIN_DISTANCE * scores[0][1]:
        return None
    if found in _DOUBLE_BYTE and not _is_confirmed(cells, best):
        return None
    for rival, read in readings.items():
        if rival in _DOUBLE_BYTE and found in _DOUBLE_BYTE:
            continue
        places = [place for place, (cell, other) in enumerate(zip(best, read, strict=True)) if cell != other]
        if places and _count_words([read[place] for place in places]) >= _MAX_WORDS * len(places):
            if len(places) < _MIN_DIFFERENT or ({found, rival} <= _CYRILLIC and "cp1251" in (found, rival)):
                return None
            if not _wins([cells[place] for place in places], found, rival):
                return None
    return found


def _wins(cells: Sequence[bytes], found: str, rival: str) -> bool:
    """Return whether one encoding wins the comparison with another from the cells that they read differently."""
    scores = dict(_score(cells, found, rival))
    best = scores.get(_chardet_name(found), 0.0)
    return best > 0 and best - scores.get(_chardet_name(rival), 0.0) >= _MIN_DISTANCE * best


def _score(cells: Sequence[bytes], *encodings: str) -> list[tuple[str, float]]:
    """Return encodings with their scores by chardet, the best first."""
    import chardet  # an extra

    try:
        found = chardet.detect_all(
            b"\n".join(cells),
            compat_names=False,
            ignore_threshold=True,
            include_encodings=[_chardet_name(each) for each in encodings] or None,
        )
    except ValueError:  # it does not know one of them, so that nothing speaks for it
        return [(_chardet_name(encodings[0]), 1.0)] if encodings else []
    return [(codecs.lookup(str(each["encoding"])).name, each["confidence"]) for each in found if each["encoding"]]


def _chardet_name(encoding: str) -> str:
    return _CHARDET_NAMES.get(encoding, encoding)


def _is_confirmed(cells: Sequence[bytes], read: Sequence[str]) -> bool:
    """Return whether charset-normalizer reads the cells so too."""
    from charset_normalizer import from_bytes  # late: start-up time

    found = from_bytes(b"\n".join(cells), preemptive_behaviour=False).best()
    return found is not None and _decode(cells, found.encoding) == read


def guess_from_sample(name: str, data: bytes) -> str | None:
    """Return the encoding if the beginning of a file tells it; None if all of its cells are needed for a guess.

    Raises:
        SettingNeeded: there are few escapes of UTF-7 or the like, and they might be meant as they are.
    """
    if data.isascii():
        return _guess_escaped(name, data[: data.rfind(b"\n") + 1] or data) or UTF_8
    if b"\0" in data:
        return _guess_utf_16(data) or UTF_8  # whose decoder then reports the byte that does not fit
    return None


def _guess_escaped(name: str, data: bytes) -> str | None:
    """Return the encoding of ASCII bytes with escapes, such as UTF-7 or ISO-2022-JP; None if they are plain ASCII."""
    for mark, encodings in _ESCAPES.items():
        for encoding in encodings if mark in data else ():
            try:
                cells = [cell for cell in _TEXT_DELIMITERS.split(data.decode(encoding)) if not cell.isascii()]
            except UnicodeError:
                continue
            if not cells or any("@" in cell or not _looks_like_words(cell) for cell in cells):
                continue
            if len(set(cells)) >= _MIN_CELLS or mark == b"\x1b$":
                return encoding
            raw = [cell.encode(encoding).decode("ascii") for cell in cells]
            raise _ask(name, {encoding: cells, "utf-8": raw})
    return None


# A “+A” of UTF-7 begins a letter below U+0400; those of other scripts begin with other letters.
_ESCAPES = {b"\x1b$": ("iso2022_jp", "iso2022_jp_ext", "iso2022_kr"), b"~{": ("hz",), b"+": ("utf-7",)}


def _guess_utf_16(data: bytes) -> str | None:
    """Return the byte order of UTF-16 without a mark, of which `data` has whole lines or a part; None if unclear."""
    found = []
    for encoding in ("utf-16-le", "utf-16-be"):
        text = data[: len(data) & ~1].decode(encoding, "ignore")
        cells = [cell for cell in _TEXT_DELIMITERS.split(text)[:1000] if cell]
        if "@" in text and "\n" in text and cells and _count_words(cells) >= _MIN_WORDS * len(cells):
            found.append(encoding)
    return found[0] if len(found) == 1 else None


def _decode(cells: Sequence[bytes], encoding: str) -> list[str] | None:
    """Return the cells as text; None if a byte does not belong to the encoding."""
    try:
        return b"\n".join(cells).decode(encoding).split("\n")
    except (UnicodeError, LookupError):
        return None


def _ask(name: str, readings: dict[str, list[str]]) -> SettingNeeded:
    """Return the error that shows what each encoding makes of three cells; of those that agree on them, the first."""
    if not readings:
        what = f"{name} is not UTF-8, and in no usual encoding do its cells look like words"
        return SettingNeeded(f"{what}: save it as “CSV UTF-8”, or name its encoding with encoding=", _SETTING, ())
    columns = list(zip(*readings.values(), strict=True))
    # first the cells that tell most of the encodings apart
    places = sorted(range(len(columns)), key=lambda place: (-len(set(columns[place])), place))[:_SHOWN_CELLS]
    shown: dict[tuple[str, ...], str] = {}
    for encoding, read in readings.items():
        shown.setdefault(tuple(read[place] for place in sorted(places)), encoding)
    listed = [
        f"{encoding} reads {', '.join(f'“{safe_text(cell, 40)}”' for cell in cells)}"
        for cells, encoding in list(shown.items())[:_SHOWN_ENCODINGS]
    ]
    what = f"{name} is not plain UTF-8, and its encoding is not certain: {'; '.join(listed)}"
    advice = "name the right one with encoding=, or save the file as “CSV UTF-8”"
    return SettingNeeded(f"{what}: {advice}", _SETTING, list(shown.values()))


# Whether cells look like words.

_INSIDE = "’ʼ·‧‐–・々ー\u00a0\u00ad\u200c\u200d\u3000"  # signs between letters
_BESIDE = frozenset(_INSIDE + "—‘“”„«»…°ªº€№§©®™、。「」（）％＆¿¡")
_JOINERS = frozenset("\u200c\u200d\u200e\u200f\u00ad")
_JAPANESE = frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC"})


def _count_words(cells: Sequence[str]) -> int:
    return sum(map(_looks_like_words, cells))


@lru_cache(200_000)
def _looks_like_words(cell: str) -> bool:
    return not any(True for _ in _find_faults(cell))


def _find_faults(cell: str) -> Iterator[str]:
    """Yield the characters that a person would not have written there."""
    script, before, earlier = "", "", ""  # of the word so far: its script, its last two categories
    was_ascii = True
    for place, character in enumerate(cell):
        category = unicodedata.category(character)
        if category[0] in "LM":
            here = _script(character)
            if (category[0] == "M" and not script) or (script and here not in (script, "COMBINING")):
                yield character
            is_ascii = was_ascii and character.isascii()
            if not is_ascii and (
                (category == "Lu" and before == "Ll") or (category == "Ll" and before == earlier == "Lu")
            ):
                yield character
            script = script if here == "COMBINING" else here
            if category[0] == "L":
                was_ascii, before, earlier = character.isascii(), category, before
            continue
        if category[0] == "C" and character not in _JOINERS:
            yield character
        elif not character.isascii():
            is_between = script and cell[place + 1 : place + 2].isalpha()
            if character not in _INSIDE if is_between else character not in _BESIDE and category not in ("Nd", "Zs"):
                yield character
        script, before, earlier, was_ascii = "", "", "", True


@lru_cache(10_000)
def _script(letter: str) -> str:
    first = unicodedata.name(letter, "UNKNOWN").split()[0]
    return "CJK" if first in _JAPANESE else first
