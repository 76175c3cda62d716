"""Replies of the server, their parser (RFC 5321 §4.2, 2034, 3463), and the extensions that EHLO offers (§4.1.1.1)."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from typing import Self

from asyncsmtp.errors import RemoteProtocolError
from asyncsmtp.protocol.masking import SecretMask

__all__ = ["EnhancedStatus", "Extensions", "FutureRelease", "Limits", "Reply", "ReplyReader", "Severity", "safe_text"]

MAX_LINE = 2048  # bytes; RFC 5321 §4.5.3.1.5 says 512, real servers exceed it
MAX_LINES = 256
MAX_REPLY = 65_536  # bytes in all lines of one reply
CACHED_CODES = frozenset({250, 354})  # one-line replies that are parsed once; none of them answers AUTH
MAX_CACHED = 64  # replies in a session
MAX_SHOWN = 200  # characters of a line that is no reply


class Severity(IntEnum):
    """The first digit of a reply code (RFC 5321 §4.2.1)."""

    COMPLETION = 2
    INTERMEDIATE = 3
    TRANSIENT = 4
    PERMANENT = 5


@dataclass(frozen=True, slots=True)
class EnhancedStatus:
    """An enhanced status code: class.subject.detail, as in 5.1.1 (RFC 3463 §2)."""

    class_: int
    subject: int
    detail: int

    def __str__(self) -> str:
        return f"{self.class_}.{self.subject}.{self.detail}"


_ENHANCED = re.compile(rb"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?: |$)")


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply: a three-digit code and one text per line, as bytes without code or line end.

    Attributes:
        positive: true for 2xx and 3xx: the command was accepted, at least so far.
    """

    code: int
    lines: tuple[bytes, ...] = (b"",)
    positive: bool = field(init=False, repr=False, compare=False)  # stored: read several times for each message

    def __post_init__(self) -> None:
        object.__setattr__(self, "positive", self.code < 400)

    @property
    def severity(self) -> Severity:
        return Severity(self.code // 100)

    @property
    def status(self) -> EnhancedStatus | None:
        """The enhanced status code; None if it is missing or contradicts the reply code.

        RFC 2034 §4: the class of the enhanced code must match the first digit of the reply code.
        """
        match = _ENHANCED.match(self.lines[0])
        if match is None or int(match[1]) != self.code // 100:
            return None
        return EnhancedStatus(int(match[1]), int(match[2]), int(match[3]))

    @property
    def text(self) -> str:
        """The lines as text, joined by newlines. Untrusted: pass it through `safe_text` before showing it."""
        return b"\n".join(self.lines).decode("utf-8", "backslashreplace")

    def redact(self, secrets: Iterable[bytes]) -> Reply:
        """Return the reply with `***` in place of each of `secrets` and of its encoded forms; see `SecretMask`."""
        return Reply(self.code, SecretMask(*secrets).mask(self.lines))

    @property
    def raw_text(self) -> str:
        """The lines as received, `250-` included, joined by newlines. Untrusted, like `text`."""
        *first, last = self.text.split("\n")
        return "\n".join([f"{self.code}-{line}" for line in first] + [f"{self.code} {last}"])

    def __str__(self) -> str:
        """Return code and text on one line, safe for a terminal and a log."""
        return safe_text(f"{self.code} {' / '.join(self.text.splitlines())}".rstrip(), 512)


def safe_text(foreign: str, limit: int | None = None) -> str:
    """Escape what is not printable in untrusted text, and cut it at `limit` characters."""
    if not foreign.isprintable():
        foreign = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in foreign)
    return foreign if limit is None or len(foreign) <= limit else foreign[: limit - 1] + "…"


_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])([^\r\n\x00]*))?\r")  # the LF was removed by the split into lines


class ReplyReader:
    """An incremental reply parser: strict, bounded in memory, and independent of how the bytes are split.

    Attributes:
        mask: what no reply and no error may show; None if there is nothing.
    """

    __slots__ = ("_cache", "_code", "_lines", "_octets", "_tail", "_unmasked", "_unparsed_lines", "mask")

    def __init__(self, mask: SecretMask | None = None) -> None:
        self.mask = mask
        self._tail = b""
        self._unparsed_lines: deque[bytes] = deque()
        self._code = b""
        self._lines: list[bytes] = []
        self._octets = 0
        self._cache: dict[bytes, Reply] = {}  # one-line replies: a server repeats the same few
        self._unmasked: tuple[Reply, tuple[bytes, ...]] | None = None  # the last reply that was masked, and its lines

    @property
    def is_empty(self) -> bool:
        """True if no byte and no partial reply is buffered."""
        return not (self._tail or self._unparsed_lines or self._lines)

    @property
    def partial_code(self) -> bytes:
        """The first bytes, three at most, of a reply that is not complete."""
        return self._code if self._lines else self._tail[:3]

    @property
    def partial_reply(self) -> str:
        """The part of an incomplete reply that was received: one line, masked and safe to show; "" if nothing."""
        lines = [*(self._code + b"-" + line for line in self._lines), *filter(None, [self._tail.rstrip(b"\r")])]
        return safe_text(" / ".join(self._show(*lines)), 512) if lines else ""

    def lines_received(self, reply: Reply) -> tuple[bytes, ...]:
        """Return the lines of the latest reply without masking; never to be shown."""
        return self._unmasked[1] if self._unmasked is not None and self._unmasked[0] is reply else reply.lines

    def receive(self, data: bytes) -> Iterator[Reply]:
        """Yield each reply that `data` completes, in order.

        Args:
            data: bytes as read; may end anywhere inside a line.
        Raises:
            RemoteProtocolError: at the first malformed line, after the replies before it.
        """
        unparsed, cached = self._unparsed_lines, self._cache.get
        unparsed.extend((self._tail + data).split(b"\n"))
        self._tail = unparsed.pop()
        while unparsed:
            line = unparsed.popleft()
            if reply := (not self._lines and cached(line)) or self._read_line(line):
                yield reply
        if len(self._tail) > MAX_LINE:
            raise RemoteProtocolError(f"a reply line runs past {MAX_LINE} bytes: is this an SMTP server?")

    def receive_eof(self) -> Reply | RemoteProtocolError | None:
        """Return what the bytes left at the end of the connection mean.

        Returns:
            A 421 whose end is missing: its code says all, and its text may be the reason. An error for bytes that do
            not begin a reply. None for the beginning of another reply, which is worth nothing, and if nothing is left.
        """
        tail = self._tail.rstrip(b"\r")
        if self.partial_code == b"421" and (tail[3:4] in (b" ", b"-") or (self._lines and not tail)):
            lines = tuple(self._lines) + ((tail[4:],) if tail.startswith(b"421") else ())
            return Reply(421, self.mask.mask(lines, incomplete=True) if self.mask is not None else lines)
        if tail[:1] in (b"", b"2", b"3", b"4", b"5"):
            return None
        return self._malformed(tail, "the connection ended inside it")

    def _read_line(self, line: bytes) -> Reply | None:
        if len(line) > MAX_LINE:
            raise RemoteProtocolError(f"a reply line runs past {MAX_LINE} bytes: is this an SMTP server?")
        match = _LINE.fullmatch(line)
        if match is None:
            raise self._malformed(line, _broken_rule(line))
        code, mark, text = match.groups(b"")
        if self._lines and code != self._code:
            raise self._malformed(line, f"a reply that began with {self._code.decode('ascii')} changed its code")
        if mark != b"-" and not self._lines:
            reply = self._make_reply(code, (text,))
            if reply.code in CACHED_CODES and len(self._cache) < MAX_CACHED:
                self._cache[line] = reply
            return reply
        self._code = code
        self._lines.append(text)
        self._octets += len(line) + 1
        if len(self._lines) > MAX_LINES or self._octets > MAX_REPLY:
            raise RemoteProtocolError(f"a reply runs past {MAX_LINES} lines or {MAX_REPLY} bytes")
        if mark == b"-":
            return None
        reply = self._make_reply(code, tuple(self._lines))
        self._lines.clear()
        self._octets = 0
        return reply

    def _make_reply(self, code: bytes, lines: tuple[bytes, ...]) -> Reply:
        if self.mask is None or (masked := self.mask.mask(lines)) is lines:
            return Reply(int(code), lines)
        reply = Reply(int(code), masked)
        self._unmasked = (reply, lines)
        return reply

    def _show(self, *lines: bytes) -> tuple[str, ...]:
        """Return lines as text, masked; the last one may be cut off."""
        shown = self.mask.mask(lines, incomplete=True) if self.mask is not None else lines
        return tuple(line.decode("utf-8", "backslashreplace") for line in shown)

    def _malformed(self, line: bytes, rule: str) -> RemoteProtocolError:
        shown = safe_text(self._show(*self._lines, line.removesuffix(b"\r"))[-1], MAX_SHOWN)
        return RemoteProtocolError(f"not an SMTP reply: “{shown}” ({rule}){_looks_like(line)}")


def _broken_rule(line: bytes) -> str:
    """Return the rule that a malformed line breaks (RFC 5321 §4.2)."""
    if not line.endswith(b"\r"):
        return "a line must end in CR LF"
    if not (line[:3].isdigit() and len(line) > 3):
        return "a reply begins with three digits"
    if line[:1] not in (b"2", b"3", b"4", b"5"):
        return "a reply code is 200 to 599"
    if line[3:4] not in (b" ", b"-", b"\r"):
        return "a space or a hyphen follows the three digits"
    return "a line has no CR and no NUL in it"


def _looks_like(line: bytes) -> str:
    if line.startswith(b"SSH-"):
        return ": this port speaks SSH; use the relay's SMTP port (587, 465 or 25)"
    if line.startswith((b"HTTP/", b"<html", b"<!DOCTYPE")):
        return ": this port speaks HTTP; use the relay's SMTP port (587, 465 or 25)"
    if line[:1] in (b"\x15", b"\x16"):
        return ": this port speaks TLS; use smtps:// in the relay's URL"
    if line.startswith((b"* OK", b"+OK")):
        return ": this port speaks IMAP or POP3; use the relay's SMTP port (587, 465 or 25)"
    return ""


_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_STANDARD_WORD = re.compile(  # keywords of RFCs and names of mechanisms: kept in a line in which a secret was masked
    r"PIPELINING|SIZE|[0-9]{1,20}|STARTTLS|AUTH|8BITMIME|BINARYMIME|CHUNKING|SMTPUTF8|DSN|ENHANCEDSTATUSCODES"
    r"|REQUIRETLS|DELIVERBY|FUTURERELEASE|MT-PRIORITY|RRVS|LIMITS|XCLIENT|PLAIN|LOGIN|XOAUTH2|OAUTHBEARER|EXTERNAL|CRAM-MD5"
    r"|SCRAM-SHA-(?:1|256|512)(?:-PLUS)?",
    re.IGNORECASE,
)
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
    def parse(cls, reply: Reply, received: tuple[bytes, ...] | None = None) -> Self:
        """Parse a positive reply to EHLO. A line that is not a keyword is ignored.

        `AUTH=PLAIN`, written by servers older than RFC 2554's final form, counts as `AUTH PLAIN`.

        Args:
            received: the lines before secrets were masked in them: a password may be "PLAIN" or "SIZE".
        """
        keywords: dict[str, tuple[str, ...]] = {}
        for shown, line in zip(reply.lines[1:], (received or reply.lines)[1:], strict=True):
            words = line.decode("utf-8", "backslashreplace").split()
            if words and words[0][:5].upper() == "AUTH=":
                words[:1] = ["AUTH", words[0][5:]]
            if shown is not line:
                words = [word for word in words if _STANDARD_WORD.fullmatch(word)]
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
