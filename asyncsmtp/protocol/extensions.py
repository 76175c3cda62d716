"""What EHLO offered, and what a message needs of it (RFC 5321 §2.2, §4.1.1.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Self

from asyncsmtp.errors import NotOffered
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.replies import Reply

__all__ = ["Extensions", "parameters"]

_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
MAX_SIZE_DIGITS = 20  # RFC 1870 §3


class Extensions(Mapping[str, tuple[str, ...]]):
    """Keywords in upper case with their parameters as the relay wrote them; unknown ones are kept."""

    __slots__ = ("_keywords",)

    def __init__(self, keywords: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self._keywords = dict(keywords or {})

    @classmethod
    def parse(cls, reply: Reply) -> Self:
        """Read a positive reply to EHLO. A line that is no keyword is passed over, never a failure.

        `AUTH=PLAIN`, written by servers older than RFC 2554's final form, counts as `AUTH PLAIN`.
        """
        keywords: dict[str, tuple[str, ...]] = {}
        for line in reply.lines[1:]:
            words = line.decode("utf-8", "backslashreplace").split()
            if words and words[0][:5].upper() == "AUTH=":
                words[:1] = ["AUTH", words[0][5:]]
            if words and _KEYWORD.fullmatch(words[0]):
                keyword = words[0].upper()
                earlier = keywords.get(keyword, ()) if keyword == "AUTH" else ()
                keywords[keyword] = tuple(dict.fromkeys((*earlier, *filter(None, words[1:]))))
        return cls(keywords)

    def without(self, keywords: Iterable[str]) -> Extensions:
        """The same, less the keywords that the caller does not want used."""
        masked = {keyword.upper() for keyword in keywords}
        return Extensions({key: value for key, value in self._keywords.items() if key not in masked})

    def __getitem__(self, keyword: str) -> tuple[str, ...]:
        return self._keywords[keyword.upper()]

    def __contains__(self, keyword: object) -> bool:
        return isinstance(keyword, str) and keyword.upper() in self._keywords

    def __iter__(self) -> Iterator[str]:
        return iter(self._keywords)

    def __len__(self) -> int:
        return len(self._keywords)

    def __repr__(self) -> str:
        return f"Extensions({self._keywords!r})"

    @property
    def pipelining(self) -> bool:
        return "PIPELINING" in self._keywords

    @property
    def chunking(self) -> bool:
        return "CHUNKING" in self._keywords

    @property
    def starttls(self) -> bool:
        return "STARTTLS" in self._keywords

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """SASL mechanisms in upper case, in the relay's order (RFC 4954 §3)."""
        return tuple(mechanism.upper() for mechanism in self._keywords.get("AUTH", ()))

    @property
    def size(self) -> int | None:
        """The most octets a message may have; None when the relay names no limit (RFC 1870 §4)."""
        limit = next(iter(self._keywords.get("SIZE", ())), "")
        if not (limit.isascii() and limit.isdigit() and len(limit) <= MAX_SIZE_DIGITS):
            return None
        return int(limit) or None  # "a value of 0 indicates that no fixed maximum message size is in force"


def parameters(envelope: Envelope, content: Content, offered: Extensions) -> dict[str, str | None]:
    """The parameters of MAIL that this message needs.

    Raises:
        NotOffered: the relay does not offer what the message needs; nothing was sent.
    """
    needed: dict[str, str | None] = {}
    if "SIZE" in offered:
        if offered.size is not None and content.size > offered.size:
            raise NotOffered("that SIZE", f"the message has {content.size} octets, the relay takes {offered.size}")
        needed["SIZE"] = str(content.size)
    if content.eight_bit:
        if "8BITMIME" not in offered:
            raise NotOffered("8BITMIME", "encode the parts as quoted-printable or base64")
        needed["BODY"] = "8BITMIME"
    if envelope.needs_smtputf8 or content.utf8_headers:
        if "SMTPUTF8" not in offered:
            raise NotOffered("SMTPUTF8", "an address or a header of the message is beyond ASCII")
        needed["SMTPUTF8"] = None
    return needed
