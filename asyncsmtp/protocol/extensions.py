"""What EHLO offered (RFC 5321 §2.2, §4.1.1.1), keyword by keyword, and with types where there is a type to it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from asyncsmtp.protocol.replies import Reply

__all__ = ["Extensions", "FutureRelease", "Limits"]

_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
MAX_SIZE_DIGITS = 20  # RFC 1870 §3
MAX_SECONDS_DIGITS = 9  # RFC 2852 §4, RFC 4865 §3
MAX_LIMIT_DIGITS = 6  # RFC 9422 §3.3


@dataclass(frozen=True, slots=True)
class Limits:
    """What a relay takes at most (RFC 9422); None is a limit it does not name.

    Attributes:
        mail_max: messages in a session.
        rcpt_max: recipients of a message.
        rcpt_domain_max: different domains of recipients.
    """

    mail_max: int | None = None
    rcpt_max: int | None = None
    rcpt_domain_max: int | None = None

    @classmethod
    def parse(cls, words: Iterable[str]) -> Self:
        """Read the parameters of LIMITS; what is unknown or no number is passed over."""
        said = {name.upper(): value for name, _, value in (word.partition("=") for word in words)}
        names = ("MAILMAX", "RCPTMAX", "RCPTDOMAINMAX")
        return cls(*(_number(said.get(name, ""), MAX_LIMIT_DIGITS) or None for name in names))


@dataclass(frozen=True, slots=True)
class FutureRelease:
    """For how long, and until when, a relay keeps a message at most (RFC 4865 §3); None where it does not say."""

    seconds: int | None = None
    moment: datetime | None = None

    @classmethod
    def parse(cls, words: tuple[str, ...]) -> Self:
        """Read the parameters of FUTURERELEASE; what is unreadable is no limit."""
        seconds, moment = (*words, "", "")[:2]
        return cls(_number(seconds, MAX_SECONDS_DIGITS), _moment(moment))


class Extensions(Mapping[str, tuple[str, ...]]):
    """Keywords in upper case with their parameters as the relay wrote them; unknown ones are kept.

    Attributes:
        pipelining: whether commands may be said before the ones ahead are answered (RFC 2920).
        size: the most octets a message may have; None when the relay names no limit (RFC 1870 §4).
        limits: what LIMITS says; None where it is not offered (RFC 9422).
    """

    __slots__ = ("_keywords", "limits", "pipelining", "size")

    def __init__(self, keywords: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self._keywords = dict(keywords or {})
        # asked for with each message, and so read once; 0 says "that no fixed maximum message size is in force"
        self.pipelining = "PIPELINING" in self._keywords
        self.size: int | None = _number(self._first("SIZE"), MAX_SIZE_DIGITS) or None
        self.limits: Limits | None = Limits.parse(self._keywords["LIMITS"]) if "LIMITS" in self._keywords else None

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
        return keyword in self._keywords or (isinstance(keyword, str) and keyword.upper() in self._keywords)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keywords)

    def __len__(self) -> int:
        return len(self._keywords)

    def __repr__(self) -> str:
        return f"Extensions({self._keywords!r})"

    def _first(self, keyword: str) -> str:
        return next(iter(self._keywords.get(keyword, ())), "")

    @property
    def chunking(self) -> bool:
        return "CHUNKING" in self._keywords

    @property
    def starttls(self) -> bool:
        return "STARTTLS" in self._keywords

    @property
    def eight_bit_mime(self) -> bool:
        """Whether octets above 127 may stand in a content (RFC 6152)."""
        return "8BITMIME" in self._keywords

    @property
    def binary_mime(self) -> bool:
        """Whether a content may be any octets at all; it goes by BDAT (RFC 3030 §3)."""
        return "BINARYMIME" in self._keywords and self.chunking

    @property
    def smtputf8(self) -> bool:
        """Whether addresses and headers may be beyond ASCII (RFC 6531)."""
        return "SMTPUTF8" in self._keywords

    @property
    def dsn(self) -> bool:
        """Whether notifications may be asked for (RFC 3461)."""
        return "DSN" in self._keywords

    @property
    def require_tls(self) -> bool:
        """Whether TLS may be demanded of every hop (RFC 8689); a relay says so under TLS only."""
        return "REQUIRETLS" in self._keywords

    @property
    def deliver_by(self) -> bool:
        """Whether a time limit may be set for the delivery (RFC 2852)."""
        return "DELIVERBY" in self._keywords

    @property
    def min_by_time(self) -> int | None:
        """The shortest such limit, in seconds, past which a message may be returned; None where none is named."""
        return _number(self._first("DELIVERBY").partition(",")[0], MAX_SECONDS_DIGITS)

    @property
    def future_release(self) -> FutureRelease | None:
        """How long a message may be held; None where that is not offered (RFC 4865)."""
        words = self._keywords.get("FUTURERELEASE")
        return None if words is None else FutureRelease.parse(words)

    @property
    def mt_priority(self) -> bool:
        """Whether a message may have a priority (RFC 6710)."""
        return "MT-PRIORITY" in self._keywords

    @property
    def rrvs(self) -> bool:
        """Whether a recipient may be required to have had the mailbox for so long (RFC 7293)."""
        return "RRVS" in self._keywords

    @property
    def xclient(self) -> tuple[str, ...]:
        """Which attributes of another client the relay takes from this one, in upper case (Postfix's XCLIENT)."""
        return tuple(attribute.upper() for attribute in self._keywords.get("XCLIENT", ()))

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """SASL mechanisms in upper case, in the relay's order (RFC 4954 §3)."""
        return tuple(mechanism.upper() for mechanism in self._keywords.get("AUTH", ()))


def _number(text: str, digits: int) -> int | None:
    """A number of so many digits at most; None for anything else, which is no reason to fail."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= digits else None


def _moment(text: str) -> datetime | None:
    """A date-time of RFC 3339, in UTC; None for anything else."""
    try:
        moment = datetime.fromisoformat(text.upper())
        return moment.astimezone(UTC) if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
