"""Repair of an address cell as people have it: a link, a name beside the address, several addresses, odd blanks.

Only what has one meaning is repaired. An address that would have to be guessed stays a problem of its row, such as
`ann (at) example.org`, `ann@example,com` and `ann smith@example.org`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from urllib.parse import unquote

from asyncsmtp.bulk.recipients.recipient import NamedMailbox, address_key, parse_address_cell
from asyncsmtp.errors import RecipientError

__all__ = ["MAX_ADDRESSES", "is_repairable", "repair_address_cell"]

MAX_ADDRESSES = 50  # in one cell
_MAX_CELL = 16 * 1024  # characters
_MAX_NAME = 200  # characters

# Nobody sees these: soft hyphen, zero-width characters, marks of the direction of writing, byte order mark.
_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")
# Of HTML. A semicolon stands in no address outside quotes, so none of these can belong to one.
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|commat|period|#[0-9]{1,6}|#x[0-9a-f]{1,5});", re.IGNORECASE)
# As an East Asian keyboard types them: a wide @ is no @ of any address.
_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3001: ",", 0x3002: ".", 0xFE6B: "@", 0xFF61: "."}
_CLOSING = {'"': '"', "<": ">", "(": ")"}
_LIST_MARK = re.compile(r"(@\S+)\s+[/|&]\s+(?=\S+@)")  # ann@example.org / bob@example.org
_NAMED = re.compile(r"([^<>]*)<([^<>]*)>([^<>]*)")
_COMMENT = re.compile(r"^\([^()]*\)\s+|\s+\([^()]*\)$")
_LINK = re.compile(r"\[([^\[\]]*)\]\s*\(([^()]+)\)")  # of Markdown
_URL = re.compile(r"\bmailto:([^\s<>?]*)(?:\?[^\s<>,;]*)?", re.IGNORECASE)  # RFC 6068; header fields may follow
_SCHEME = re.compile(r"\s*(?:mailto|smtp|e-?mail)\s*:", re.IGNORECASE)
_QUOTES = "\"'\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb`\u00b4"
_ENDS = " \t.,;:>"


def is_repairable(cell: str) -> bool:
    """Return whether a cell that is not an address can be repaired."""
    try:
        parse_address_cell(cell)
    except RecipientError:
        try:
            return bool(repair_address_cell(cell))
        except RecipientError:
            pass
    return False


def repair_address_cell(cell: str) -> list[NamedMailbox]:
    """Return the addresses in a cell, each once, in order; at least one.

    Raises:
        RecipientError: it has none, or anything that is not part of an address or a name.
    """
    if len(cell) > _MAX_CELL:
        raise RecipientError("this cell is too long for a list of addresses: give each a row of its own")
    text = html.unescape(cell) if _ENTITY.search(cell) else cell
    text = _URL.sub(lambda found: unquote(found[1]), _INVISIBLE.sub("", text).translate(_WIDE))
    text = _LIST_MARK.sub(r"\1; ", text)
    found: dict[str, NamedMailbox] = {}
    for piece in _join_names(_split(text)):
        for named in map(_read, _split_blanks(piece)):
            if "." not in named.mailbox.domain:  # half of `ann@example, org`, or of `ann@example (dot) org`
                raise RecipientError(f"“{named.mailbox}” has no dot after the @: correct the address")
            found.setdefault(address_key(named.mailbox), named)
    if not found:
        raise RecipientError("the cell has no address: fill it in, or delete the row")
    if len(found) > MAX_ADDRESSES:
        raise RecipientError(f"the cell has more than {MAX_ADDRESSES} addresses: give each a row of its own")
    return list(found.values())


def _split(text: str) -> list[tuple[str, str]]:
    """Split at separators outside of quotes, angle brackets and comments; return each piece with what ends it."""
    pieces, begin, closing = list[tuple[str, str]](), 0, ""
    for place, character in enumerate(text):
        if closing:
            closing = "" if character == closing else closing
        elif character in _CLOSING:
            closing = _CLOSING[character]
        elif character in ",;\n\r\t\v\f\u2028\u2029":
            pieces.append((text[begin:place], character))
            begin = place + 1
    if closing == ">":  # cut off
        return _split(f"{text}>")
    if closing:
        return [(piece, ";") for piece in re.split(r"[,;\n\r\t]", text)]
    return [*pieces, (text[begin:], "")]


def _join_names(pieces: list[tuple[str, str]]) -> Iterator[str]:
    """Join what a comma in a name has split: `Doe, Ann <ann@example.org>`; leave out blank pieces.

    Raises:
        RecipientError: a piece has no address. After an address and a comma it may be anything, and is never a name.
    """
    waiting, before = list[str](), ""
    for piece, end in pieces:
        piece = piece.strip()
        if not piece.strip(" .,;:"):
            continue
        if "@" not in piece and end == "," and (waiting or before != ","):
            waiting.append(piece)
            continue
        if "@" not in piece or (waiting and "<" not in piece):
            raise RecipientError(_describe_rest(piece if "@" not in piece else waiting[0]))
        yield ", ".join([*waiting, piece])
        waiting, before = [], end
    if waiting:
        raise RecipientError(_describe_rest(waiting[0]))


def _describe_rest(piece: str) -> str:
    parse_address_cell(piece)  # raises: it says what is wrong, as for `ann (at) example.org`
    return "the cell has more than addresses: keep one address alone in the cell"  # a bare postmaster


def _split_blanks(piece: str) -> list[str]:
    """Split addresses with nothing but blanks between them."""
    tokens = piece.split()
    if len(tokens) > 1 and "<" not in piece and all("@" in token.strip("@") for token in tokens):
        return tokens
    return [piece]


def _read(piece: str) -> NamedMailbox:
    name, address = "", piece
    if named := _NAMED.fullmatch(piece):
        name, address, rest = named.groups()
        if _COMMENT.sub("", f" {rest.strip()}").strip(_ENDS):
            raise RecipientError("there is text behind the address: keep one address alone in the cell")
    elif link := _LINK.fullmatch(piece.strip()):
        name, address = link.groups()
    else:
        whole = piece.startswith("(") and piece.endswith(")")
        address = piece.strip("() ") if whole else _COMMENT.sub("", piece)
    mailbox = parse_address_cell(_clean_address(address))
    if "@" in name and _clean_address(_COMMENT.sub("", name)).lower() != str(mailbox).lower():
        raise RecipientError(f"{mailbox} has another address beside it: keep one address alone in the cell")
    return NamedMailbox(mailbox, _clean_name(name))


def _clean_address(text: str) -> str:
    text = _strip_quotes(text)
    text = re.sub(r"\s*@\s*", "@", _strip_quotes(_SCHEME.sub("", text)))
    return text.lstrip(" \t,;:<").rstrip(_ENDS)


def _strip_quotes(text: str) -> str:
    """Take off quotes around the whole; those of a local part stay."""
    text = text.strip().rstrip(_ENDS if not text.strip().endswith('"') else "")
    while len(text) > 1 and text[0] in _QUOTES and text[-1] in _QUOTES:
        text = text[1:-1].strip()
    return text if text[:1] in ('"', "'") else text.rstrip(_QUOTES)


def _clean_name(text: str) -> str:
    """Return a display name; "" for the address once more, and for what cannot be printed."""
    name = " ".join(_SCHEME.sub("", text).split()).strip(" ,;:")
    while len(name) > 1 and name[0] in _QUOTES and name[-1] in _QUOTES:
        name = name[1:-1].strip()
    name = re.sub(r"\\(.)", r"\1", name)
    usable = name.isprintable() and len(name) <= _MAX_NAME and not {"@", "<", ">"} & {*name} and "=?" not in name
    return name if usable else ""
