"""Header fields as bytes: values, encoded words and folding (RFC 5322 §2.2, §3.6; RFC 2047).

The caller's text is literal: text that looks like an encoded word is encoded, nothing is decoded, and a line break, a
NUL or another control character is an error, never a replacement. Lines are folded at white space only, at 78 bytes
if possible and never beyond 998.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

from asyncsmtp.errors import MessageError
from asyncsmtp.mail.address import Address, AddressGroup
from asyncsmtp.protocol.replies import safe_text

__all__ = [
    "DAYS",
    "MAX_LINE_LENGTH",
    "MONTHS",
    "UnencodableCharacter",
    "check_extra_header",
    "check_extra_headers",
    "check_header_name",
    "encode_utf8",
    "encode_words",
    "fold",
    "format_addresses",
    "format_content_id",
    "format_date",
    "format_field",
    "format_message_id",
    "format_tokens",
    "format_unstructured",
    "has_control_character",
    "strip_brackets",
]

MAX_ENCODED_LINE = 76  # bytes of a line with an encoded word, RFC 2047 §2
MAX_ENCODED_WORD = 75  # bytes of one encoded word, the same
_ENCODED_WORD_OVERHEAD = len("=?utf-8?q??=")
_MIN_ENCODED_WORD = _ENCODED_WORD_OVERHEAD + 12  # one character of four bytes, in Q

_IN_PHRASE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")  # §5 (3)
_Q = [chr(octet) if octet in _IN_PHRASE else "_" if octet == 0x20 else f"={octet:02X}" for octet in range(256)]


def encode_words(text: str, limit: int = MAX_ENCODED_WORD) -> list[str]:
    """Return `text` as encoded words in UTF-8, as Q or B, whichever is shorter; they decode to it exactly.

    Args:
        text: anything; text that looks like an encoded word is encoded like the rest.
        limit: maximum bytes of the first word; the others may have 75. Too few count as 75.
    Raises:
        MessageError: a lone surrogate, which no encoding can represent.
    """
    octets = encode_utf8(text)
    q_octets = sum(len(_Q[octet]) for octet in octets)
    if q_octets <= (len(octets) + 2) // 3 * 4:
        return _split_encoded(text, "q", _q, limit)
    return _split_encoded(text, "b", _b, limit)


class UnencodableCharacter(MessageError):
    """A character that is not allowed where it is; `character` is used to name its column."""

    def __init__(self, why: str, character: str, field: str | None = None) -> None:
        super().__init__(why, field)
        self.character = character


def name_column(error: BaseException | None, fields: Mapping[str, str]) -> str:
    """Return a note that names the column with the character that an error is about; "" for another error."""
    while error is not None and not isinstance(error, UnencodableCharacter):
        error = error.__cause__
    columns = [] if error is None else [column for column, value in fields.items() if error.character in value]
    return f" (look at the column “{columns[0]}”)" if columns else ""


def encode_utf8(text: str) -> bytes:
    """Encode in UTF-8; raise UnencodableCharacter for a lone surrogate."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = text[error.start]
        why = f"the character U+{ord(half):04X} is a lone surrogate, which no encoding can represent: remove it"
        raise UnencodableCharacter(why, half) from error


def _q(octets: bytes) -> str:
    return "".join(map(_Q.__getitem__, octets))


def _b(octets: bytes) -> str:
    return b2a_base64(octets, newline=False).decode("ascii")


def _split_encoded(text: str, letter: str, write: Callable[[bytes], str], limit: int) -> list[str]:
    """Encode text as words, cut between characters and never inside one (RFC 2047 §5)."""
    limit = MAX_ENCODED_WORD if limit < _MIN_ENCODED_WORD else min(limit, MAX_ENCODED_WORD)
    words: list[str] = []
    taken = b""
    for character in text:
        octets = character.encode("utf-8")
        if taken and len(write(taken + octets)) + _ENCODED_WORD_OVERHEAD > limit:
            words.append(f"=?utf-8?{letter}?{write(taken)}?=")
            taken, limit = b"", MAX_ENCODED_WORD
        taken += octets
    words.append(f"=?utf-8?{letter}?{write(taken)}?=")
    return words


# In English everywhere: strftime would follow the locale.
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)

PREFERRED_LINE_LENGTH = 78  # bytes without CRLF: SHOULD, RFC 5322 §2.1.1
MAX_LINE_LENGTH = 998  # MUST, the same; also of 7bit, RFC 2045 §2.7

_NAME = re.compile(r"[!-9;-~]{1,76}")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_WORDS = re.compile(r"(?<![ \t])([ \t]*)([^ \t]+)")  # looked for once in each run of spaces
_ID = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@(?:[A-Za-z0-9.-]+|\[[0-9A-Za-z.:-]+\])")
_CID = re.compile(r"[A-Za-z0-9._+-]+(?:@[A-Za-z0-9.-]+)?")
_PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_QUOTABLE = re.compile(r"[ -~]{1,60}")

_RESERVED_NAMES = {
    *("bcc", "cc", "date", "dkim-signature", "from", "message-id", "mime-version", "received", "reply-to"),
    *("return-path", "sender", "subject", "to"),
}
# Structured fields: an encoded word would break them, so they must be ASCII and are not changed.
_STRUCTURED_NAMES = {
    *("auto-submitted", "content-language", "errors-to", "feedback-id", "importance", "in-reply-to", "list-archive"),
    *("list-help", "list-owner", "list-post", "list-subscribe", "list-unsubscribe", "list-unsubscribe-post"),
    *("precedence", "references", "x-priority"),
}


def format_field(name: str, value: str) -> bytes:
    """Return a field from text, in the grammar that its name asks for; it ends with CRLF.

    Raises:
        MessageError: the value has a control character or cannot be folded; `field` is the name.
    """
    return format_tokens(name, value) if name.lower() in _STRUCTURED_NAMES else format_unstructured(name, value)


def format_unstructured(name: str, value: str) -> bytes:
    """Return a field of free text, such as Subject; white space at the ends is dropped (RFC 5322 §3.6.5)."""
    value = value.strip(" \t")
    is_plain = value.isascii() and value.isprintable() and "=?" not in value
    if is_plain and len(name) + 2 + len(value) <= PREFERRED_LINE_LENGTH:
        return f"{name}: {value}\r\n".encode("ascii")
    _check_value(name, value)
    return fold(name, _encode_text_words(name, value))


def format_tokens(name: str, value: str) -> bytes:
    """Return a field of ASCII words, such as References; they are kept as they are and folded between them."""
    value = value.strip(" \t")
    _check_value(name, value)
    if not value.isascii():
        raise MessageError("the value must be ASCII", name)
    return fold(name, _WORDS.findall(value))


def format_addresses(name: str, values: Iterable[Address | AddressGroup]) -> bytes:
    """Return a list of mailboxes and groups; display names are quoted or encoded, addresses are not changed.

    An address with other characters than ASCII stays in UTF-8: the message then needs SMTPUTF8 (RFC 6532). Nothing is
    returned for no values: a list must not be empty (RFC 5322 §3.6.3).
    """
    words = [word for value in values for word in _address_words(name, value)]
    if not words:
        return b""
    words[-1] = words[-1].removesuffix(",")
    if len(line := f"{name}: {' '.join(words)}") <= MAX_ENCODED_LINE:
        return encode_utf8(line) + b"\r\n"
    return fold(name, [(" ", word) for word in words])


def format_date(moment: datetime, name: str = "Date") -> bytes:
    """Return a date in its own offset; without an offset as UTC of an unknown place, `-0000` (RFC 5322 §3.3)."""
    offset = moment.utcoffset()
    if offset is None:
        zone = "-0000"
    else:
        hours, minutes = divmod(abs(offset) // timedelta(minutes=1), 60)
        zone = f"{'-' if offset < timedelta() else '+'}{hours:02}{minutes:02}"
    day, month = DAYS[moment.weekday()][:3], MONTHS[moment.month - 1][:3]
    return f"{name}: {day}, {moment.day:02} {month} {moment.year:04} {moment:%H:%M:%S} {zone}\r\n".encode("ascii")


def format_message_id(value: str, name: str = "Message-ID") -> bytes:
    """Return a Message-ID field for `value`, left@right without angle brackets (RFC 5322 §3.6.4)."""
    if len(value) > MAX_LINE_LENGTH - 80 or not _ID.fullmatch(value):
        raise MessageError(f"“{safe_text(value, 80)}” is not an identifier: it must look like left@right", name)
    return f"{name}: <{value}>\r\n".encode("ascii")


def format_content_id(value: str) -> bytes:
    """Return a Content-ID field for `value`, the name that `cid:` URLs use (RFC 2392), or that name in brackets."""
    value = strip_brackets(value)
    if len(value) > 200 or not _CID.fullmatch(value):
        why = f"“{safe_text(value, 80)}” is not a valid name for an image"
        raise MessageError(f"{why}: use letters, digits, “.”, “-” and “_”", "cid")
    return f"Content-ID: <{value}>\r\n".encode("ascii")


def strip_brackets(value: str) -> str:
    """Return an identifier as `email.utils.make_msgid` makes it without its angle brackets."""
    return value[1:-1] if value.startswith("<") and value.endswith(">") else value


def check_header_name(name: str) -> None:
    """Refuse a name that would end its field or begin another (RFC 5322 §3.6.8)."""
    if not _NAME.fullmatch(name):
        raise MessageError(f"“{safe_text(name, 80)}” is not a valid header name: use letters, digits and “-”")


def check_extra_header(name: str) -> None:
    """Refuse a name that is not valid, or that belongs to a field which the message writes itself."""
    check_header_name(name)
    low = name.lower()
    if low in _RESERVED_NAMES or low.startswith(("content-", "resent-")):
        raise MessageError("this header is written by the library: set it by the parameter for it", name)


def check_extra_headers(names: Iterable[str]) -> None:
    """Refuse names that `check_extra_header` refuses, and duplicates; case does not matter."""
    seen: dict[str, str] = {}
    for name in names:
        check_extra_header(name)
        if (low := name.lower()) in seen:
            raise MessageError(f"this header is given twice, also as “{seen[low]}”: remove one of them", name)
        seen[low] = name


def fold(name: str, words: Iterable[tuple[str, str]]) -> bytes:
    """Return the (white space before, word) pairs after `name:`, with lines broken before white space only.

    Raises:
        MessageError: a word is too long for any line.
    """
    # A line with an encoded word may have 76 bytes (RFC 2047 §2), any other should have 78 and must have no more than
    # 998. Breaking a line never adds or removes white space: unfolding gives the same value.
    lines, line = [], f"{name}:"
    for space, word in words:
        longer = line + (space or " ") + word
        if len(encode_utf8(longer)) > (MAX_ENCODED_LINE if "=?utf-8?" in longer else PREFERRED_LINE_LENGTH):
            lines.append(line)
            longer = (space or " ") + word
        line = longer
    octets = [encode_utf8(each) for each in (*lines, line)]
    if max(map(len, octets)) > MAX_LINE_LENGTH:
        raise MessageError(f"a word of more than {MAX_LINE_LENGTH - 2} bytes does not fit on a line: shorten it", name)
    return b"\r\n".join(octets) + b"\r\n"


def has_control_character(text: str) -> bool:
    """Return whether text has a line break, a NUL or another control character but a tab."""
    return _CONTROL.search(text) is not None


def _check_value(name: str, value: str) -> None:
    if found := _CONTROL.search(value):
        what = "a line break" if found[0] in "\r\n" else f"the control character U+{ord(found[0]):04X}"
        raise UnencodableCharacter(f"{what} is not allowed in a header", found[0], name)


def _encode_text_words(name: str, value: str) -> list[tuple[str, str]]:
    """Return the words of free text; those from the first to the last that needs it are encoded."""
    # RFC 2047 §6.2: white space between two encoded words is dropped by readers, white space between an encoded word
    # and a plain one is kept. So the whole stretch from the first to the last word that needs encoding becomes encoded
    # words, with its inner spaces encoded in them; the plain words around it keep their spaces as they are. The first
    # encoded word shares its line with the field name, which leaves fewer bytes for it.
    words = _WORDS.findall(value)
    odd = [index for index, (_, word) in enumerate(words) if not word.isascii() or "=?" in word]
    if not odd:
        return words
    first, last = odd[0], odd[-1]
    stretch = "".join(space + word for space, word in words[first : last + 1])
    space = words[first][0]
    limit = MAX_ENCODED_LINE - len(name) - 2 if first == 0 else MAX_ENCODED_LINE
    encoded = _encode_for_field(name, stretch[len(space) :], limit)
    return [*words[:first], (space, encoded[0]), *((" ", word) for word in encoded[1:]), *words[last + 1 :]]


def _encode_for_field(name: str, text: str, limit: int) -> list[str]:
    try:
        return encode_words(text, limit)
    except MessageError as error:
        raise MessageError(str(error), name) from error


def _address_words(name: str, value: Address | AddressGroup) -> list[str]:
    """Return a mailbox or group of a list as words that stay whole, including the comma after it."""
    if isinstance(value, Address):
        words = _phrase(name, value.name)
        return [*words, f"<{value.mailbox.address}>,"] if words else [f"{value.mailbox.address},"]
    words = _phrase(name, value.name) or ['""']
    words[-1] += ":"
    words += [word for member in value.members for word in _address_words(name, member)]
    words[-1] = words[-1].removesuffix(",") + ";,"
    return words


def _phrase(name: str, display: str) -> list[str]:
    """Return a display name as words: as it is, in quotation marks, or as encoded words."""
    display = display.strip(" \t")
    _check_value(name, display)
    if not display:
        return []
    if _PHRASE.fullmatch(display) and "=?" not in display:
        return display.split(" ")
    if _QUOTABLE.fullmatch(display) and "=?" not in display:
        return ['"' + re.sub(r'(["\\])', r"\\\1", display) + '"']
    return _encode_for_field(name, display, MAX_ENCODED_LINE - len(name) - 2)
