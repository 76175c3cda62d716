"""Addresses with display names, `Name <local@domain>`, lists of them (RFC 5322 §3.4), and organizational domains.

The parser is strict: a tolerant one that repairs its input would sooner or later produce another recipient. Groups,
comments, routes and guesses are not supported; parsing takes linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from asyncsmtp.errors import RecipientError
from asyncsmtp.protocol.envelope import Mailbox
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

__all__ = ["Address", "is_aligned", "organizational_domain", "require_domain"]

MAX_LIST_LENGTH = 1 << 20  # characters, about 20,000 addresses

_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|[^"<>,]+|[<>,"]', re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|([^" \t]+)', re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_SPECIALS = frozenset("()<>[]:;@\\,")  # allowed in a display name between quotes only, RFC 5322 §3.2.3


@dataclass(frozen=True, slots=True)
class Address:
    """A display name, literal and possibly empty, and a mailbox."""

    name: str
    mailbox: Mailbox

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse `Name <local@domain>`, `"Last, First" <local@domain>` or `local@domain`: exactly one address.

        Raises:
            RecipientError: the text is not one valid address.
        """
        found = cls.parse_list(text)
        if len(found) != 1:
            raise RecipientError(f"“{safe_text(text, 80)}” has {len(found)} addresses where one is expected")
        return found[0]

    @classmethod
    def parse_list(cls, text: str) -> tuple[Address, ...]:
        """Parse addresses with commas between them; none in empty text. Raises RecipientError: one is not valid."""
        if len(text) > MAX_LIST_LENGTH:
            raise RecipientError("this list of addresses is too long")
        if found := _CONTROL.search(text):
            what = "a line break" if found[0] in "\r\n" else f"the control character U+{ord(found[0]):04X}"
            raise RecipientError(f"“{safe_text(text, 80)}” contains {what}")
        return tuple(map(cls._parse_one, _split_at_commas(text))) if text.strip() else ()

    @classmethod
    def _parse_one(cls, text: str) -> Address:
        text = text.strip(" \t")
        if not text.endswith(">"):
            return cls("", Mailbox.parse(text))
        opening = _find_opening_bracket(text)
        return cls(_parse_display_name(text, text[:opening]), Mailbox.parse(text[opening + 1 : -1]))


def require_domain(mailbox: Mailbox) -> Mailbox:
    """Return `mailbox`. Raises RecipientError: a bare postmaster, which may only be a recipient (RFC 5321 §4.1.1.3)."""
    if not mailbox.domain:
        raise RecipientError(f"“{mailbox}” has no domain: write {mailbox}@ and your domain")
    return mailbox


def _tokenize(text: str) -> Iterator[re.Match[str]]:
    """Yield quoted strings whole, delimiters alone, and the text between them."""
    for piece in _PIECE.finditer(text):
        if piece[0] == '"':
            raise RecipientError(f"“{safe_text(text, 80)}” has a quotation mark that is not closed")
        yield piece


def _split_at_commas(text: str) -> Iterator[str]:
    """Split at each comma that is neither between quotes nor between angle brackets."""
    start, bracketed = 0, False
    for piece in _tokenize(text):
        if piece[0] == "," and not bracketed:
            yield text[start : piece.start()]
            start = piece.end()
        elif piece[0] in "<>":
            bracketed = piece[0] == "<"
    yield text[start:]


def _find_opening_bracket(text: str) -> int:
    """Return the index of the only `<`; the only `>` is known to be at the end."""
    brackets = [piece for piece in _tokenize(text) if piece[0] in "<>"]
    if [piece[0] for piece in brackets] != ["<", ">"]:
        raise RecipientError(f"“{safe_text(text, 80)}” needs one address in one pair of angle brackets")
    return brackets[0].start()


def _parse_display_name(text: str, phrase: str) -> str:
    words = []
    for quoted, plain in _WORD.findall(phrase):
        if not _SPECIALS.isdisjoint(plain):
            why = "has a character before < that needs quotation marks around the name"
            raise RecipientError(f"“{safe_text(text, 80)}” {why}")
        words.append(plain or _QUOTED_PAIR.sub(r"\1", quoted))
    return " ".join(words)


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
