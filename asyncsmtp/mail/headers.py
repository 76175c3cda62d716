"""Header fields as octets (RFC 5322 §2.2, §3.6): ours from the value to the fold.

The caller's text is literal: what looks like an encoded word in it is encoded, nothing is decoded, and
a line break, a NUL or another control character is an error, never a replacement. Lines are folded at
white space only, at 78 octets where that is possible and never beyond 998.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from asyncsmtp.errors import MessageError
from asyncsmtp.mail.address import Address
from asyncsmtp.protocol.replies import safe_text

__all__ = [
    "ENCODED_LINE",
    "UnencodableCharacter",
    "addresses",
    "check_extra",
    "check_extras",
    "check_name",
    "content_id",
    "date",
    "encode",
    "encoded_words",
    "field",
    "fold",
    "message_id",
    "tokens",
    "unstructured",
]

ENCODED_LINE = 76  # octets of a line that holds an encoded word, RFC 2047 §2
MAX_WORD = 75  # octets of one, the same
_FRAME = len("=?utf-8?q??=")
_LEAST = _FRAME + 12  # one character of four octets, in Q

_IN_PHRASE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")  # §5 (3)
_Q = [chr(octet) if octet in _IN_PHRASE else "_" if octet == 0x20 else f"={octet:02X}" for octet in range(256)]


def encoded_words(text: str, room: int = MAX_WORD) -> list[str]:
    """Write `text` as encoded words in UTF-8, as Q or B, whichever is shorter; they decode to it exactly.

    Args:
        text: anything; what looks like an encoded word in it is encoded like the rest.
        room: octets left for the first word; the others have 75. Too little room counts as 75.
    Raises:
        MessageError: a lone surrogate, which no encoding can carry.
    """
    octets = encode(text)
    q_octets = sum(len(_Q[octet]) for octet in octets)
    if q_octets <= (len(octets) + 2) // 3 * 4:
        return _words(text, "q", _q, room)
    return _words(text, "b", _b, room)


class UnencodableCharacter(MessageError):
    """A character that cannot stand where it is; `character` is it, so that its column can be found."""

    def __init__(self, why: str, character: str, field: str | None = None) -> None:
        super().__init__(why, field)
        self.character = character


def encode(text: str) -> bytes:
    """UTF-8; UnencodableCharacter for a lone surrogate."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = text[error.start]
        why = f"the character U+{ord(half):04X} is half a pair: no encoding can carry it"
        raise UnencodableCharacter(why, half) from error


def _q(octets: bytes) -> str:
    return "".join(map(_Q.__getitem__, octets))


def _b(octets: bytes) -> str:
    return b2a_base64(octets, newline=False).decode("ascii")


def _words(text: str, letter: str, write: Callable[[bytes], str], room: int) -> list[str]:
    """Cut between characters, never inside one (RFC 2047 §5)."""
    room = MAX_WORD if room < _LEAST else min(room, MAX_WORD)
    words: list[str] = []
    taken = b""
    for character in text:
        octets = character.encode("utf-8")
        if taken and len(write(taken + octets)) + _FRAME > room:
            words.append(f"=?utf-8?{letter}?{write(taken)}?=")
            taken, room = b"", MAX_WORD
        taken += octets
    words.append(f"=?utf-8?{letter}?{write(taken)}?=")
    return words


LINE = 78  # octets without CRLF: SHOULD, RFC 5322 §2.1.1
MAX_LINE = 998  # MUST

_NAME = re.compile(r"[!-9;-~]{1,76}")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_WORDS = re.compile(r"([ \t]*)([^ \t]+)")
_ID = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@(?:[A-Za-z0-9.-]+|\[[0-9A-Za-z.:-]+\])")
_CID = re.compile(r"[A-Za-z0-9._+-]+(?:@[A-Za-z0-9.-]+)?")
_PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_QUOTABLE = re.compile(r"[ -~]{1,60}")

_OURS = frozenset(
    {
        *("bcc", "cc", "date", "dkim-signature", "from", "message-id", "mime-version", "received", "reply-to"),
        *("return-path", "sender", "subject", "to"),
    }
)
# Fields whose grammar is their own: an encoded word would spoil them, so they are ASCII as they stand.
_TOKENS = frozenset(
    {
        *(
            "auto-submitted",
            "content-language",
            "errors-to",
            "feedback-id",
            "importance",
            "in-reply-to",
            "list-archive",
        ),
        *("list-help", "list-owner", "list-post", "list-subscribe", "list-unsubscribe", "list-unsubscribe-post"),
        *("precedence", "references", "x-priority"),
    }
)


def field(name: str, value: str) -> bytes:
    """One field from text, by the grammar its name asks for; ends with CRLF.

    Raises:
        MessageError: `field` is the name; the value holds a control character or cannot be folded.
    """
    return tokens(name, value) if name.lower() in _TOKENS else unstructured(name, value)


def unstructured(name: str, value: str) -> bytes:
    """Free text, such as a Subject; white space at its ends means nothing and is dropped (RFC 5322 §3.6.5)."""
    value = value.strip(" \t")
    if len(name) + 2 + len(value) <= LINE and value.isascii() and value.isprintable() and "=?" not in value:
        return f"{name}: {value}\r\n".encode("ascii")
    _check_value(name, value)
    return fold(name, _text_words(name, value))


def tokens(name: str, value: str) -> bytes:
    """Words of ASCII that are nobody's prose, such as References: kept as they are, folded between them."""
    value = value.strip(" \t")
    _check_value(name, value)
    if not value.isascii():
        raise MessageError("only ASCII can stand here", name)
    return fold(name, _WORDS.findall(value))


def addresses(name: str, values: Iterable[Address]) -> bytes:
    """A list of mailboxes; display names are quoted or encoded, addresses are not touched.

    An address beyond ASCII stays in UTF-8, which makes the message need SMTPUTF8 (RFC 6532).
    """
    words = [word for value in values for word in _address_words(name, value)]
    words[-1] = words[-1].removesuffix(",")
    if len(line := f"{name}: {' '.join(words)}") <= ENCODED_LINE:
        return encode(line) + b"\r\n"
    return fold(name, [(" ", word) for word in words])


def date(moment: datetime, name: str = "Date") -> bytes:
    """The moment in its own offset; without one it is UTC of an unknown place, `-0000` (RFC 5322 §3.3)."""
    offset = moment.utcoffset()
    if offset is None:
        zone = "-0000"
    else:
        hours, minutes = divmod(abs(offset) // timedelta(minutes=1), 60)
        zone = f"{'-' if offset < timedelta() else '+'}{hours:02}{minutes:02}"
    day, month = _DAYS[moment.weekday()], _MONTHS[moment.month - 1]
    return f"{name}: {day}, {moment.day:02} {month} {moment.year:04} {moment:%H:%M:%S} {zone}\r\n".encode("ascii")


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")  # strftime would speak the user's language
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def message_id(value: str, name: str = "Message-ID") -> bytes:
    """`value` is left@right, without the angle brackets (RFC 5322 §3.6.4)."""
    if len(value) > MAX_LINE - 80 or not _ID.fullmatch(value):
        raise MessageError(f"“{safe_text(value, 80)}” is no identifier: it must look like left@right", name)
    return f"{name}: <{value}>\r\n".encode("ascii")


def content_id(value: str) -> bytes:
    """`value` is the name that `cid:` URLs use (RFC 2392), without angle brackets."""
    if len(value) > 200 or not _CID.fullmatch(value):
        raise MessageError(
            f"“{safe_text(value, 80)}” cannot name an image: use letters, digits, “.”, “-” and “_”", "cid"
        )
    return f"Content-ID: <{value}>\r\n".encode("ascii")


def check_name(name: str) -> None:
    """Refuse what is no field name: it would end the field, or begin another (RFC 5322 §3.6.8)."""
    if not _NAME.fullmatch(name):
        raise MessageError(f"“{safe_text(name, 80)}” is no name for a header: use letters, digits and “-”")


def check_extra(name: str) -> None:
    """Refuse a name that is none, or the name of a field that is written from somewhere else."""
    check_name(name)
    low = name.lower()
    if low in _OURS or low.startswith(("content-", "resent-")):
        raise MessageError("this header is not for free use: it follows from the message itself", name)


def check_extras(names: Iterable[str]) -> None:
    """Refuse what `check_extra` refuses, and a name that is there twice: to a reader the case is no difference."""
    seen: dict[str, str] = {}
    for name in names:
        check_extra(name)
        if (low := name.lower()) in seen:
            raise MessageError(f"this header is here twice, also as “{seen[low]}”: take one of them out", name)
        seen[low] = name


def fold(name: str, words: Iterable[tuple[str, str]]) -> bytes:
    """Lay out (white space before, word) pairs after `name:`, a line broken before white space only.

    Raises:
        MessageError: a word is too long for any line.
    """
    lines, line = [], f"{name}:"
    for space, word in words:
        longer = line + (space or " ") + word
        if len(encode(longer)) > (ENCODED_LINE if "=?utf-8?" in longer else LINE):
            lines.append(line)
            longer = (space or " ") + word
        line = longer
    octets = [encode(each) for each in (*lines, line)]
    if max(map(len, octets)) > MAX_LINE:
        raise MessageError(f"a word of more than {MAX_LINE - 2} octets does not fit on a line: shorten it", name)
    return b"\r\n".join(octets) + b"\r\n"


def _check_value(name: str, value: str) -> None:
    if found := _CONTROL.search(value):
        what = "a line break" if found[0] in "\r\n" else f"the control character U+{ord(found[0]):04X}"
        raise UnencodableCharacter(f"{what} cannot stand in a header", found[0], name)


def _text_words(name: str, value: str) -> list[tuple[str, str]]:
    """The words of free text; from the first to the last that needs it they become encoded words."""
    words = _WORDS.findall(value)
    odd = [index for index, (_, word) in enumerate(words) if not word.isascii() or "=?" in word]
    if not odd:
        return words
    first, last = odd[0], odd[-1]
    stretch = "".join(space + word for space, word in words[first : last + 1])
    space = words[first][0]
    room = ENCODED_LINE - len(name) - 2 if first == 0 else ENCODED_LINE
    encoded = _encoded(name, stretch[len(space) :], room)
    return [*words[:first], (space, encoded[0]), *((" ", word) for word in encoded[1:]), *words[last + 1 :]]


def _encoded(name: str, text: str, room: int) -> list[str]:
    try:
        return encoded_words(text, room)
    except MessageError as error:
        raise MessageError(str(error), name) from error


def _address_words(name: str, value: Address) -> list[str]:
    """A mailbox of a list as words that stay whole, the comma after it included."""
    display = value.name.strip(" \t")
    _check_value(name, display)
    if not display:
        return [f"{value.mailbox.address},"]
    if _PHRASE.fullmatch(display) and "=?" not in display:
        words = display.split(" ")
    elif _QUOTABLE.fullmatch(display) and "=?" not in display:
        words = ['"' + re.sub(r'(["\\])', r"\\\1", display) + '"']
    else:
        words = _encoded(name, display, ENCODED_LINE - len(name) - 2)
    return [*words, f"<{value.mailbox.address}>,"]
