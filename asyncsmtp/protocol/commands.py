"""Commands: what the client says, values to octets (RFC 5321 §4.1).

Every command passes one choke point, `Command.__new__`: after encoding, an octet below 0x20 or
0x7F in an argument is refused, wherever it came from.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple, Self

from asyncsmtp.errors import InvalidArgument
from asyncsmtp.protocol.mailbox import Mailbox, is_address_literal, is_domain
from asyncsmtp.protocol.replies import safe_text

__all__ = [
    "DATA",
    "END_OF_CONTENT",
    "GREETING",
    "NOOP",
    "QUIT",
    "RSET",
    "STARTTLS",
    "Command",
    "Verb",
    "auth",
    "bdat",
    "ehlo",
    "expn",
    "helo",
    "lhlo",
    "mail",
    "rcpt",
    "response",
    "vrfy",
]

CRLF = b"\r\n"
MAX_LINE = 512  # octets with CRLF, RFC 5321 §4.5.3.1.4 …
MAX_MAIL_LINE = 1024  # … to which SIZE, SMTPUTF8, DSN and AUTH each add (RFC 1870, 6531, 3461, 4954)
MAX_AUTH_LINE = 12_288  # RFC 4954 §4


class Verb(StrEnum):
    """What a command is. The last four have no verb on the wire."""

    EHLO = "EHLO"
    HELO = "HELO"
    LHLO = "LHLO"
    STARTTLS = "STARTTLS"
    XCLIENT = "XCLIENT"
    AUTH = "AUTH"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    BDAT = "BDAT"
    BDAT_LAST = "BDAT LAST"
    RSET = "RSET"
    VRFY = "VRFY"
    EXPN = "EXPN"
    NOOP = "NOOP"
    QUIT = "QUIT"
    GREETING = "the greeting"
    CONTENT = "the content"
    RESPONSE = "an AUTH response"
    CANCEL = "the AUTH cancellation"


_MAIL, _RCPT = Verb.MAIL, Verb.RCPT  # on Python 3.11 a member is looked up by a call: these, once for each message
_NOT_IN_ARGUMENT = re.compile(rb"[\x00-\x1f\x7f]").search
_LIMIT = dict.fromkeys(Verb, MAX_LINE) | {
    Verb.MAIL: MAX_MAIL_LINE,
    Verb.RCPT: MAX_MAIL_LINE,
    Verb.AUTH: MAX_AUTH_LINE,
    Verb.RESPONSE: MAX_AUTH_LINE,
}
_SECRET = frozenset({Verb.AUTH, Verb.RESPONSE})
_WORD = {verb: verb.encode("ascii") for verb in Verb} | {
    Verb.BDAT_LAST: b"BDAT",
    Verb.GREETING: b"",
    Verb.CONTENT: b".",
    Verb.RESPONSE: b"",
    Verb.CANCEL: b"*",
}
_LEAD = {verb: word + b" " if word else b"" for verb, word in _WORD.items()}  # what stands before an argument


class _Line(NamedTuple):
    verb: Verb
    argument: bytes
    octets: bytes


class Command(_Line):
    """One thing the client says: a verb and its argument, already encoded.

    The end of mail data and a SASL response are commands too: each is answered by one reply.
    A tuple, since a message takes several and a frozen dataclass costs twice as much to make.

    Attributes:
        octets: the line as it goes out; the octets of a BDAT chunk follow it.
    """

    __slots__ = ()

    def __new__(cls, verb: Verb, argument: bytes = b"") -> Self:
        """Raises InvalidArgument: a control character in the argument, or it is too long for a line."""
        if _NOT_IN_ARGUMENT(argument):
            raise InvalidArgument(f"a control character in the argument of {verb}: nothing was sent")
        octets = (_LEAD if argument else _WORD)[verb] + argument + CRLF
        if len(octets) > _LIMIT[verb]:
            raise InvalidArgument(f"the argument of {verb} is too long for a command line: nothing was sent")
        return tuple.__new__(cls, (verb, argument, octets))

    def __getnewargs__(self) -> tuple[Verb, bytes]:
        return self.verb, self.argument

    def __repr__(self) -> str:
        """Without the argument, which may be a secret."""
        return f"Command({self.verb!r})"

    def __bytes__(self) -> bytes:
        return self.octets

    def __str__(self) -> str:
        """The line for people: secrets masked, harmless on a terminal."""
        if self.verb in _SECRET:
            mechanism = self.argument.split(b" ")[0].decode("ascii") + " " if self.verb is Verb.AUTH else ""
            return ("AUTH " if self.verb is Verb.AUTH else "") + mechanism + "***"
        return safe_text(bytes(self)[:-2].decode("utf-8", "backslashreplace"))


GREETING = Command(Verb.GREETING)
STARTTLS = Command(Verb.STARTTLS)
DATA = Command(Verb.DATA)
END_OF_CONTENT = Command(Verb.CONTENT)
RSET = Command(Verb.RSET)
NOOP = Command(Verb.NOOP)
QUIT = Command(Verb.QUIT)


def ehlo(name: str) -> Command:
    """EHLO with a domain or address literal (RFC 5321 §4.1.1.1)."""
    return Command(Verb.EHLO, _client_name(name))


def helo(name: str) -> Command:
    """The greeting of old, for a relay that refuses EHLO: no extension, then (RFC 5321 §4.1.1.1)."""
    return Command(Verb.HELO, _client_name(name))


def _client_name(name: str) -> bytes:
    if not (is_domain(name) or is_address_literal(name)):
        raise InvalidArgument(
            f"“{safe_text(name, 80)}” is no name to greet a relay with: give a domain or an address literal"
        )
    return name.encode("ascii")


def lhlo(name: str) -> Command:
    """What EHLO is to an LMTP relay (RFC 2033 §4.1)."""
    return Command(Verb.LHLO, _client_name(name))


def mail(reverse_path: Mailbox | None, parameters: Mapping[str, str | None] | None = None) -> Command:
    """MAIL FROM with ESMTP parameters; None is the null reverse-path (RFC 5321 §4.1.1.2, §4.5.5)."""
    return Command(_MAIL, b"FROM:" + _path(reverse_path) + _parameters(parameters))


def rcpt(forward_path: Mailbox, parameters: Mapping[str, str | None] | None = None) -> Command:
    """RCPT TO with ESMTP parameters (RFC 5321 §4.1.1.3)."""
    return Command(_RCPT, b"TO:" + _path(forward_path) + _parameters(parameters))


def _path(mailbox: Mailbox | None) -> bytes:
    return f"<{mailbox.wire}>".encode() if mailbox else b"<>"


_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
# esmtp-value, RFC 5321 §4.1.2 and RFC 6531 §3.3, less the C1 controls and lone surrogates
_VALUE = re.compile(r"[\x21-\x3c\x3e-\x7e\xa0-\ud7ff\ue000-\U0010ffff]+")


def _parameters(parameters: Mapping[str, str | None] | None) -> bytes:
    if not parameters:
        return b""
    words = []
    for keyword, value in parameters.items():
        if keyword == "SIZE" and value is not None and value.isascii() and value.isdigit():
            pass  # with nearly every message: two patterns less
        elif not _KEYWORD.fullmatch(keyword) or (value is not None and not _VALUE.fullmatch(value)):
            raise InvalidArgument(f"“{safe_text(f'{keyword}={value}', 80)}” is no ESMTP parameter: nothing was sent")
        words.append(f" {keyword}" if value is None else f" {keyword}={value}")
    return "".join(words).encode("utf-8")


def vrfy(text: str) -> Command:
    """Ask whether this is a user or a mailbox; few relays say (RFC 5321 §3.5.3, §7.3). ASCII only."""
    return Command(Verb.VRFY, _asked(text))


def expn(text: str) -> Command:
    """Ask who is on this mailing list (RFC 5321 §3.5.2). ASCII only."""
    return Command(Verb.EXPN, _asked(text))


def _asked(text: str) -> bytes:
    if not text or not text.isascii():
        raise InvalidArgument(f"“{safe_text(text, 80)}” cannot be asked about: give a name or an address in ASCII")
    return text.encode("ascii")


def bdat(octets: int, *, last: bool) -> Command:
    """BDAT with the count of the octets that follow it (RFC 3030 §2)."""
    if octets < 0:
        raise InvalidArgument("a chunk cannot have fewer than no octets")
    return Command(Verb.BDAT_LAST if last else Verb.BDAT, f"{octets}{' LAST' if last else ''}".encode("ascii"))


_MECHANISM = re.compile(r"[A-Z0-9_-]{1,20}")  # sasl-mech, RFC 4422 §3.1


def auth(mechanism: str, initial_response: bytes | None = None) -> Command:
    """AUTH with an optional initial response, which may be empty: then it is `=` (RFC 4954 §4)."""
    if not _MECHANISM.fullmatch(mechanism):
        raise InvalidArgument(f"“{safe_text(mechanism, 80)}” is no SASL mechanism: nothing was sent")
    words = [mechanism.encode("ascii")]
    if initial_response is not None:
        words.append(b64encode(initial_response) or b"=")
    return Command(Verb.AUTH, b" ".join(words))


def response(octets: bytes) -> Command:
    """The answer to one SASL challenge; an empty one is an empty line (RFC 4954 §4)."""
    return Command(Verb.RESPONSE, b64encode(octets))
