"""Addresses as people write them: a display name and a mailbox (RFC 5322 §3.4).

Strict on purpose: what a generous parser would repair, it would sooner or later repair into another
recipient. No groups, comments, routes or guesses; the time is linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from asyncsmtp.errors import RecipientError
from asyncsmtp.protocol.envelope import Mailbox
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Address", "deduplicate", "require_domain"]

MAX_LIST_LENGTH = 1 << 20  # characters of a list of addresses: some 20,000 of them

_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|[^"<>,]+|[<>,"]', re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|([^" \t]+)', re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_SPECIALS = frozenset("()<>[]:;@\\,")  # these stand in a display name between quotes only, RFC 5322 §3.2.3


@dataclass(frozen=True, slots=True)
class Address:
    """A display name, literal and possibly empty, and the mailbox it is shown with."""

    name: str
    mailbox: Mailbox

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `Name <local@domain>`, `"Last, First" <local@domain>` or `local@domain`: exactly one.

        Raises:
            RecipientError: with the reason.
        """
        found = cls.parse_list(text)
        if len(found) != 1:
            raise RecipientError(f"“{safe_text(text, 80)}” holds {len(found)} addresses where one is expected")
        return found[0]

    @classmethod
    def parse_list(cls, text: str) -> tuple[Address, ...]:
        """Read addresses with commas between them; empty text is no address.

        Raises:
            RecipientError: for the first that is not one, with the reason.
        """
        if len(text) > MAX_LIST_LENGTH:
            raise RecipientError("this list of addresses is too long")
        if found := _CONTROL.search(text):
            what = "a line break" if found[0] in "\r\n" else f"the control character U+{ord(found[0]):04X}"
            raise RecipientError(f"“{safe_text(text, 80)}” holds {what}")
        return tuple(map(cls._parse_one, _split_at_commas(text))) if text.strip() else ()

    @classmethod
    def _parse_one(cls, text: str) -> Address:
        text = text.strip(" \t")
        if not text.endswith(">"):
            return cls("", Mailbox.parse(text))
        opening = _find_opening_bracket(text)
        return cls(_parse_display_name(text, text[:opening]), Mailbox.parse(text[opening + 1 : -1]))


def deduplicate(addresses: Iterable[Address]) -> tuple[Mailbox, ...]:
    """The mailboxes in their order; one that is named again is one recipient all the same."""
    found: dict[str, Mailbox] = {}
    for address in addresses:
        found.setdefault(address.mailbox.key, address.mailbox)
    return tuple(found.values())


def require_domain(mailbox: Mailbox) -> Mailbox:
    """The same mailbox, which must not be a bare postmaster: only a recipient may be one (RFC 5321 §4.1.1.3).

    Raises:
        RecipientError: it is.
    """
    if not mailbox.domain:
        raise RecipientError(f"“{mailbox}” has no domain: write {mailbox}@ and your domain")
    return mailbox


def _tokenize(text: str) -> Iterator[re.Match[str]]:
    """Quoted strings whole, delimiters alone, and what is between."""
    for piece in _PIECE.finditer(text):
        if piece[0] == '"':
            raise RecipientError(f"“{safe_text(text, 80)}” opens a quotation mark and does not close it")
        yield piece


def _split_at_commas(text: str) -> Iterator[str]:
    """Cut at each comma that is neither between quotes nor between angle brackets."""
    start, bracketed = 0, False
    for piece in _tokenize(text):
        if piece[0] == "," and not bracketed:
            yield text[start : piece.start()]
            start = piece.end()
        elif piece[0] in "<>":
            bracketed = piece[0] == "<"
    yield text[start:]


def _find_opening_bracket(text: str) -> int:
    """Where the one `<` stands; the one `>` is known to be at the end."""
    brackets = [piece for piece in _tokenize(text) if piece[0] in "<>"]
    if [piece[0] for piece in brackets] != ["<", ">"]:
        raise RecipientError(f"“{safe_text(text, 80)}” must have one address in one pair of angle brackets")
    return brackets[0].start()


def _parse_display_name(text: str, phrase: str) -> str:
    words = []
    for quoted, plain in _WORD.findall(phrase):
        if not _SPECIALS.isdisjoint(plain):
            raise RecipientError(
                f"“{safe_text(text, 80)}” has a character before the < that needs quotation marks around the name"
            )
        words.append(plain or _QUOTED_PAIR.sub(r"\1", quoted))
    return " ".join(words)
