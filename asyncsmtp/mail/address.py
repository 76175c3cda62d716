"""Addresses with display names, `Name <local@domain>`, lists of them (RFC 5322 §3.4), and organizational domains.

One parser serves every kind of message. It takes groups, comments, and empty elements of a list (§4.4), which can be
read in one way only; routes and whatever a tolerant parser would have to guess are refused, since a guess sooner or
later produces another recipient. Parsing takes linear time.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, a2b_qp
from codecs import lookup
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from asyncsmtp.errors import RecipientError
from asyncsmtp.protocol.envelope import Mailbox
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

__all__ = [
    "Address",
    "AddressGroup",
    "flatten_groups",
    "is_aligned",
    "organizational_domain",
    "parse_address_list",
    "require_domain",
    "unquote_local_part",
]

MAX_LIST_LENGTH = 1 << 20  # characters, about 20,000 addresses

_QUOTED = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_TOKEN = re.compile(_QUOTED + r'|\[[^][\\]*\]|[ \t]+|[^][()<>:;@\\," \t]+|.', re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_SPECIALS = frozenset("()<>[]:;@\\,")  # allowed in a display name between quotes only, RFC 5322 §3.2.3
_BLANK = frozenset(" \t")
_OUTSIDE_COMMENT = re.compile(_QUOTED + r'|["(]', re.DOTALL)
_INSIDE_COMMENT = re.compile(r"\\.|[()]", re.DOTALL)
_ENCODED_WORD = re.compile(r"=\?([!-)+->@-~]+)(?:\*[A-Za-z0-9-]*)?\?([BbQq])\?([!->@-~]*)\?=")
_NOT_CHARSETS = frozenset({"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7"})


@dataclass(frozen=True, slots=True)
class Address:
    """A display name, literal and possibly empty, and a mailbox."""

    name: str
    mailbox: Mailbox

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse `Name <local@domain>`, `"Last, First" <local@domain>` or `local@domain`: exactly one address.

        An encoded word in the name is decoded (RFC 2047), so the result of `email.utils.formataddr` is understood.

        Raises:
            RecipientError: the text is not one valid address.
        """
        found = parse_address_list(text)
        if len(found) != 1:
            raise RecipientError(f"“{safe_text(text, 80)}” has {len(found)} addresses where one is expected")
        if isinstance(found[0], AddressGroup):
            raise RecipientError(f"“{safe_text(text, 80)}” is a group where one address is expected")
        return found[0]

    @classmethod
    def parse_list(cls, text: str) -> tuple[Address, ...]:
        """Parse addresses with commas between them, and the members of groups; none in empty text.

        Raises:
            RecipientError: one is not valid.
        """
        return flatten_groups(parse_address_list(text))


@dataclass(frozen=True, slots=True)
class AddressGroup:
    """A name for several addresses, or for none: `undisclosed-recipients:;` (RFC 5322 §3.4)."""

    name: str
    members: tuple[Address, ...]


def flatten_groups(found: Iterable[Address | AddressGroup]) -> tuple[Address, ...]:
    """Return the addresses in order, those of a group in its place."""
    return tuple(address for each in found for address in (each.members if isinstance(each, AddressGroup) else (each,)))


def parse_address_list(text: str) -> tuple[Address | AddressGroup, ...]:
    """Parse the value of a field such as To. Raises RecipientError: it is not a list of addresses and groups."""
    if len(text) > MAX_LIST_LENGTH:
        raise RecipientError("this list of addresses is too long")
    if found := _CONTROL.search(text):
        what = "a line break" if found[0] in "\r\n" else f"the control character U+{ord(found[0]):04X}"
        raise RecipientError(f"“{safe_text(text, 80)}” contains {what}")
    return tuple(_ListParser(text).parse())


def unquote_local_part(local: str) -> str:
    """Return the meaning of a local part: `"a b"` and `"a\\ b"` are `a b` (RFC 5322 §3.2.4)."""
    return _QUOTED_PAIR.sub(r"\1", local[1:-1]) if local.startswith('"') else local


class _ListParser:
    """The elements of one list, from its tokens."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._element: list[str] = []
        self._group: tuple[str, list[Address]] | None = None  # the one that is open
        self._after_group = False

    def parse(self) -> Iterator[Address | AddressGroup]:
        text = self._text
        bracketed = False
        for piece in _tokenize(_remove_comments(text) if "(" in text else text, text):
            if piece in "<>":
                bracketed = piece == "<"
            if bracketed or piece not in ",:;":
                self._element.append(piece)
            elif piece == ":":
                self._open_group()
            else:
                yield from self._end_element()
                if piece == ";":
                    yield self._close_group()
                self._after_group = piece == ";"
        yield from self._end_element()
        if self._group is not None:
            raise self._refused("has a group that is not closed: write ; after its last address")

    def _end_element(self) -> Iterator[Address]:
        tokens = _strip(self._element)
        self._element = []
        if not tokens:
            return
        if self._after_group:
            raise self._refused("has a group without a comma after it")
        address = self._parse_address(tokens)
        if self._group is None:
            yield address
        else:
            self._group[1].append(address)

    def _open_group(self) -> None:
        tokens = _strip(self._element)
        self._element = []
        if self._group is not None or self._after_group or not tokens:
            raise self._refused("has a colon where no group begins")
        self._group = self._parse_name(tokens), []

    def _close_group(self) -> AddressGroup:
        if self._group is None:
            raise self._refused("has a semicolon: separate addresses by commas")
        name, members = self._group
        self._group = None
        return AddressGroup(name, tuple(members))

    def _parse_address(self, tokens: list[str]) -> Address:
        if "<" not in tokens and ">" not in tokens:
            return Address("", Mailbox.parse(_join_address(tokens)))
        if tokens.count("<") != 1 or tokens.count(">") != 1 or tokens[-1] != ">":
            raise self._refused("needs one address in one pair of angle brackets")
        opening = tokens.index("<")
        name = self._parse_name(tokens[:opening])
        return Address(name, Mailbox.parse(_join_address(tokens[opening + 1 : -1])))

    def _parse_name(self, tokens: list[str]) -> str:
        """Return the words of a display name with one space between them, quotes and encoded words undone."""
        words: list[str] = []
        follows_encoded = False
        for piece in tokens:
            if piece[0] in _BLANK:
                continue
            if piece[0] in _SPECIALS:
                raise self._refused("has a name with a character that needs quotation marks around the name")
            if piece[0] == '"':
                word, is_encoded = _QUOTED_PAIR.sub(r"\1", piece[1:-1]), False
            else:
                word, is_encoded = _decode_word(piece)
            if is_encoded and follows_encoded:  # RFC 2047 §6.2: the white space between two of them is ignored
                words[-1] += word
            else:
                words.append(word)
            follows_encoded = is_encoded
        return " ".join(words)

    def _refused(self, why: str) -> RecipientError:
        return RecipientError(f"“{safe_text(self._text, 80)}” {why}")


def require_domain(mailbox: Mailbox) -> Mailbox:
    """Return `mailbox`. Raises RecipientError: a bare postmaster, which may only be a recipient (RFC 5321 §4.1.1.3)."""
    if not mailbox.domain:
        raise RecipientError(f"“{mailbox}” has no domain: write {mailbox}@ and your domain")
    return mailbox


def _tokenize(text: str, whole: str) -> Iterator[str]:
    """Yield quoted strings and address literals whole, special characters alone, and the text between them."""
    for found in _TOKEN.finditer(text):
        if (piece := found[0]) == '"':
            raise RecipientError(f"“{safe_text(whole, 80)}” has a quotation mark that is not closed")
        yield piece


def _remove_comments(text: str) -> str:
    """Put a space in place of each comment; they may be nested (RFC 5322 §3.2.2)."""
    kept, start, at = [], 0, 0
    while found := _OUTSIDE_COMMENT.search(text, at):
        at = found.end()
        if found[0] != "(":
            if found[0] == '"':
                break
            continue
        kept.append(text[start : found.start()])
        depth = 1
        while depth:
            inner = _INSIDE_COMMENT.search(text, at)
            if inner is None:
                raise RecipientError(f"“{safe_text(text, 80)}” has a comment that is not closed: write ) after it")
            at = inner.end()
            depth += {"(": 1, ")": -1}.get(inner[0], 0)
        start = at
    return " ".join([*kept, text[start:]])


def _strip(tokens: list[str]) -> list[str]:
    first, end = 0, len(tokens)
    while first < end and tokens[first][0] in _BLANK:
        first += 1
    while end > first and tokens[end - 1][0] in _BLANK:
        end -= 1
    return tokens[first:end]


def _join_address(tokens: list[str]) -> str:
    """Join the tokens of `local@domain`, without the white space around it and around the @."""
    tokens = _strip(tokens)
    return "".join(
        token
        for index, token in enumerate(tokens)
        if token[0] not in _BLANK or (tokens[index - 1] != "@" and tokens[index + 1] != "@")
    )


def _decode_word(word: str) -> tuple[str, bool]:
    """Return the text of an encoded word, and whether it is one; one that is not text stays as it is."""
    found = _ENCODED_WORD.fullmatch(word) if word.startswith("=?") else None
    if found is None:
        return word, False
    charset, encoding, encoded = found.groups()
    try:
        octets = a2b_qp(encoded, header=True) if encoding in "Qq" else a2b_base64(encoded + "=" * (-len(encoded) % 4))
        known = lookup(charset).name.replace("_", "-") not in _NOT_CHARSETS
        text = octets.decode(charset) if known else ""
    except (LookupError, ValueError):  # a UnicodeError and a binascii.Error are ValueErrors
        return word, False
    return (text, True) if text and _is_text(text) else (word, False)


def _is_text(text: str) -> bool:
    return not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in text) and (
        text.encode("utf-8", "replace").decode("utf-8") == text
    )


def organizational_domain(name: str, *, private_suffixes: bool = True) -> str:
    """Return the public suffix of a name and the label before it, in lower case; a suffix is returned as it is.

    `aspmx.l.google.com` is `google.com`, `mx1.acme.ltd.uk` is `acme.ltd.uk`. RFC 7489 §3.2.

    Args:
        name: a domain, of U-labels or A-labels.
        private_suffixes: whether companies' suffixes count beside those of registries: `ann.github.io` belongs to a
            customer of the owner of `github.io`.
    """
    name = name.rstrip(".").lower()
    labels = name.split(".")
    found = _suffixes(private_suffixes).privatesuffix(_to_ascii(name))
    return ".".join(labels[-found.count(".") - 1 :]) if found else name


def is_aligned(domain: str, author: str) -> bool:
    """Return whether `domain` is aligned with the author's in DMARC's relaxed mode (RFC 7489 §3.1.1)."""
    return organizational_domain(domain) == organizational_domain(author)


def _to_ascii(name: str) -> str:
    if name.isascii():
        return name
    import idna  # late: few names are not ASCII, and its tables take 10 ms

    try:
        return idna.encode(name, uts46=True).decode("ascii")
    except idna.IDNAError:
        return name


@cache
def _suffixes(private: bool) -> PublicSuffixList:
    # Imported late, and loaded once: the list takes 40 ms, and most commands never need it.
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList(only_icann=not private)
