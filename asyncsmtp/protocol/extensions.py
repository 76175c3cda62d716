"""Extensions offered by EHLO (RFC 5321 §2.2, §4.1.1.1), by keyword and as typed properties."""

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
    """Limits announced by a server (RFC 9422); None is a limit that it does not announce.

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
        """Parse the parameters of LIMITS; unknown names and values that are not numbers are ignored."""
        values = {name.upper(): value for name, _, value in (word.partition("=") for word in words)}
        names = ("MAILMAX", "RCPTMAX", "RCPTDOMAINMAX")
        return cls(*(_number(values.get(name, ""), MAX_LIMIT_DIGITS) or None for name in names))


@dataclass(frozen=True, slots=True)
class FutureRelease:
    """The longest hold that a server allows, in seconds and as a date (RFC 4865 §3); None if it announces none."""

    seconds: int | None = None
    moment: datetime | None = None

    @classmethod
    def parse(cls, words: tuple[str, ...]) -> Self:
        """Parse the parameters of FUTURERELEASE; an unreadable one is no limit."""
        seconds, moment = (*words, "", "")[:2]
        return cls(_number(seconds, MAX_SECONDS_DIGITS), _moment(moment))


class Extensions(Mapping[str, tuple[str, ...]]):
    """Keywords in upper case with their parameters as the server wrote them; unknown ones are kept.

    Attributes:
        pipelining: true if commands may be sent before earlier ones are answered (RFC 2920).
        size: the maximum size of a message in bytes; None if the server announces no limit (RFC 1870 §4).
        limits: the parameters of LIMITS; None if it is not offered (RFC 9422).
    """

    __slots__ = ("_keywords", "limits", "pipelining", "size")

    def __init__(self, keywords: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self._keywords = dict(keywords or {})
        # parsed once, since each message asks; SIZE 0 means "that no fixed maximum message size is in force"
        self.pipelining = "PIPELINING" in self._keywords
        self.size: int | None = _number(self._first("SIZE"), MAX_SIZE_DIGITS) or None
        self.limits: Limits | None = Limits.parse(self._keywords["LIMITS"]) if "LIMITS" in self._keywords else None

    @classmethod
    def parse(cls, reply: Reply) -> Self:
        """Parse a positive reply to EHLO. A line that is not a keyword is ignored.

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
        """Return the extensions minus the keywords that the caller does not want used."""
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
        """True if the content may have bytes above 127 (RFC 6152)."""
        return "8BITMIME" in self._keywords

    @property
    def binary_mime(self) -> bool:
        """True if the content may be any bytes; it is sent by BDAT (RFC 3030 §3)."""
        return "BINARYMIME" in self._keywords and self.chunking

    @property
    def smtputf8(self) -> bool:
        """True if addresses and headers may be non-ASCII (RFC 6531)."""
        return "SMTPUTF8" in self._keywords

    @property
    def dsn(self) -> bool:
        """True if delivery status notifications may be requested (RFC 3461)."""
        return "DSN" in self._keywords

    @property
    def require_tls(self) -> bool:
        """True if TLS may be required on every hop (RFC 8689); servers offer it under TLS only."""
        return "REQUIRETLS" in self._keywords

    @property
    def deliver_by(self) -> bool:
        """True if the delivery may have a time limit (RFC 2852)."""
        return "DELIVERBY" in self._keywords

    @property
    def min_by_time(self) -> int | None:
        """The shortest time limit with return of the message, in seconds; None if the server names none."""
        return _number(self._first("DELIVERBY").partition(",")[0], MAX_SECONDS_DIGITS)

    @property
    def future_release(self) -> FutureRelease | None:
        """The limits for holding a message; None if it cannot be held (RFC 4865)."""
        words = self._keywords.get("FUTURERELEASE")
        return None if words is None else FutureRelease.parse(words)

    @property
    def mt_priority(self) -> bool:
        """True if a message may have a priority (RFC 6710)."""
        return "MT-PRIORITY" in self._keywords

    @property
    def rrvs(self) -> bool:
        """True if delivery may depend on since when a recipient owns the mailbox (RFC 7293)."""
        return "RRVS" in self._keywords

    @property
    def xclient(self) -> tuple[str, ...]:
        """Attributes of another client that the server accepts from this one, in upper case (Postfix's XCLIENT)."""
        return tuple(attribute.upper() for attribute in self._keywords.get("XCLIENT", ()))

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """SASL mechanisms in upper case, in the server's order (RFC 4954 §3)."""
        return tuple(mechanism.upper() for mechanism in self._keywords.get("AUTH", ()))


def _number(text: str, digits: int) -> int | None:
    """Return a number of at most so many digits; None for anything else, which is not an error."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= digits else None


def _moment(text: str) -> datetime | None:
    """Return an RFC 3339 date-time in UTC; None for anything else."""
    try:
        moment = datetime.fromisoformat(text.upper())
        return moment.astimezone(UTC) if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
