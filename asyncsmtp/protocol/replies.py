"""Replies of the server and their parser (RFC 5321 §4.2, RFC 2034, RFC 3463)."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from asyncsmtp.errors import RemoteProtocolError

__all__ = ["EnhancedStatus", "Reply", "ReplyReader", "Severity", "safe_text"]

MAX_LINE = 2048  # bytes; RFC 5321 §4.5.3.1.5 says 512, real servers exceed it
MAX_LINES = 256
MAX_REPLY = 65_536  # bytes in all lines of one reply
CACHED_CODES = frozenset({250, 354})  # one-line replies that are parsed once; none of them answers AUTH
MAX_CACHED = 64  # replies in a session


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
        """Return the reply with each of `secrets` replaced by `***`, in the given order."""
        lines = self.lines
        for secret in secrets:
            lines = tuple(line.replace(secret, b"***") for line in lines)
        return Reply(self.code, lines)

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
    """An incremental reply parser: strict, bounded in memory, and independent of how the bytes are split."""

    __slots__ = ("_cache", "_code", "_lines", "_octets", "_tail", "_unparsed_lines")

    def __init__(self) -> None:
        self._tail = b""
        self._unparsed_lines: deque[bytes] = deque()
        self._code = b""
        self._lines: list[bytes] = []
        self._octets = 0
        self._cache: dict[bytes, Reply] = {}  # one-line replies: a server repeats the same few

    @property
    def is_empty(self) -> bool:
        """True if no byte and no partial reply is buffered."""
        return not (self._tail or self._unparsed_lines or self._lines)

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

    def receive_eof(self) -> RemoteProtocolError | None:
        """Return an error if the bytes left at the end of the connection do not begin a reply, else None."""
        if self._tail[:1] in (b"", b"2", b"3", b"4", b"5"):
            return None
        return _malformed(self._tail, "the connection ended inside it")

    def _read_line(self, line: bytes) -> Reply | None:
        if len(line) > MAX_LINE:
            raise RemoteProtocolError(f"a reply line runs past {MAX_LINE} bytes: is this an SMTP server?")
        match = _LINE.fullmatch(line)
        if match is None:
            whole = line.endswith(b"\r")
            raise _malformed(line, "a reply begins with three digits" if whole else "a line must end in CR LF")
        code, mark, text = match.groups(b"")
        if self._lines and code != self._code:
            raise _malformed(line, f"a reply that began with {self._code.decode('ascii')} changed its code")
        if mark != b"-" and not self._lines:
            return self._cache_reply(line, Reply(int(code), (text,)))
        self._code = code
        self._lines.append(text)
        self._octets += len(line) + 1
        if len(self._lines) > MAX_LINES or self._octets > MAX_REPLY:
            raise RemoteProtocolError(f"a reply runs past {MAX_LINES} lines or {MAX_REPLY} bytes")
        if mark == b"-":
            return None
        reply = Reply(int(code), tuple(self._lines))
        self._lines.clear()
        self._octets = 0
        return reply

    def _cache_reply(self, line: bytes, reply: Reply) -> Reply:
        if reply.code in CACHED_CODES and len(self._cache) < MAX_CACHED:
            self._cache[line] = reply
        return reply


def _malformed(line: bytes, rule: str) -> RemoteProtocolError:
    shown = safe_text(line[:80].removesuffix(b"\r").decode("utf-8", "backslashreplace"))
    return RemoteProtocolError(f"not an SMTP reply: “{shown}” ({rule}){_looks_like(line)}")


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
