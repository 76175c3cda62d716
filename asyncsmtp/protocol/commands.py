"""Commands of the client and their encoding (RFC 5321 §4.1).

Every command passes one check, `Command.__new__`: after encoding, a byte below 0x20 or 0x7F in an argument is
refused, wherever it came from. No input can end a command line early.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple, Self

from asyncsmtp.errors import InvalidArgument
from asyncsmtp.protocol.envelope import Mailbox, is_address_literal, is_domain
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
MAX_LINE = 512  # bytes with CRLF, RFC 5321 §4.5.3.1.4
MAX_MAIL_LINE = 1024  # SIZE, SMTPUTF8, DSN and AUTH each add to the 512 (RFC 1870, 6531, 3461, 4954)
MAX_AUTH_LINE = 12_288  # RFC 4954 §4


class Verb(StrEnum):
    """The kind of a command. The last four have no verb on the wire."""

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


_MAIL, _RCPT = Verb.MAIL, Verb.RCPT  # looking up an Enum member costs a call on Python 3.11
_NOT_IN_ARGUMENT = re.compile(rb"[\x00-\x1f\x7f]").search
_MAX_LENGTH = dict.fromkeys(Verb, MAX_LINE) | {
    Verb.MAIL: MAX_MAIL_LINE,
    Verb.RCPT: MAX_MAIL_LINE,
    Verb.AUTH: MAX_AUTH_LINE,
    Verb.RESPONSE: MAX_AUTH_LINE,
}
_SECRET_VERBS = frozenset({Verb.AUTH, Verb.RESPONSE})
_WORD = {verb: verb.encode("ascii") for verb in Verb} | {
    Verb.BDAT_LAST: b"BDAT",
    Verb.GREETING: b"",
    Verb.CONTENT: b".",
    Verb.RESPONSE: b"",
    Verb.CANCEL: b"*",
}
_WORD_AND_SPACE = {verb: word + b" " if word else b"" for verb, word in _WORD.items()}  # the bytes before an argument


class _CommandTuple(NamedTuple):
    verb: Verb
    argument: bytes
    octets: bytes


class Command(_CommandTuple):
    """One unit that the client sends and the server answers: a verb and its argument, already encoded.

    The end of data and a SASL response are commands too: each is answered by one reply. A tuple, since a message takes
    several commands and a frozen dataclass costs twice as much to make.

    Attributes:
        octets: the line as it is sent; the bytes of a BDAT chunk follow it.
    """

    __slots__ = ()

    def __new__(cls, verb: Verb, argument: bytes = b"") -> Self:
        """Encode the command. Raises InvalidArgument: an argument with a control character, or too long for a line."""
        if _NOT_IN_ARGUMENT(argument):
            raise InvalidArgument(f"a control character in the argument of {verb}: nothing was sent")
        octets = (_WORD_AND_SPACE if argument else _WORD)[verb] + argument + CRLF
        if len(octets) > _MAX_LENGTH[verb]:
            raise InvalidArgument(f"the argument of {verb} is too long for a command line: nothing was sent")
        return tuple.__new__(cls, (verb, argument, octets))

    def __getnewargs__(self) -> tuple[Verb, bytes]:
        return self.verb, self.argument

    @property
    def public(self) -> Command:
        """The command without what it says of a secret, for errors: they may be pickled."""
        if self.verb not in _SECRET_VERBS:
            return self
        return Command(self.verb, self.argument.split(b" ")[0] if self.verb is Verb.AUTH else b"")

    def __repr__(self) -> str:
        """Omit the argument, which may be a secret."""
        return f"Command({self.verb!r})"

    def __bytes__(self) -> bytes:
        return self.octets

    def __str__(self) -> str:
        """Return the line for people: secrets masked, safe on a terminal."""
        if self.verb in _SECRET_VERBS:
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
    """Make EHLO with a domain or address literal (RFC 5321 §4.1.1.1)."""
    return Command(Verb.EHLO, _encode_client_name(name))


def helo(name: str) -> Command:
    """Make HELO, for a server that refuses EHLO; it offers no extensions (RFC 5321 §4.1.1.1)."""
    return Command(Verb.HELO, _encode_client_name(name))


def _encode_client_name(name: str) -> bytes:
    if not (is_domain(name) or is_address_literal(name)):
        advice = "use a domain or an address literal"
        raise InvalidArgument(f"“{safe_text(name, 80)}” is not a valid name for EHLO: {advice}")
    return name.encode("ascii")


def lhlo(name: str) -> Command:
    """Make LHLO, the EHLO of LMTP (RFC 2033 §4.1)."""
    return Command(Verb.LHLO, _encode_client_name(name))


def mail(reverse_path: Mailbox | None, parameters: Mapping[str, str | None] | None = None) -> Command:
    """Make MAIL FROM with ESMTP parameters; None is the null reverse-path (RFC 5321 §4.1.1.2, §4.5.5)."""
    return Command(_MAIL, b"FROM:" + _encode_path(reverse_path) + _encode_parameters(parameters))


def rcpt(forward_path: Mailbox, parameters: Mapping[str, str | None] | None = None) -> Command:
    """Make RCPT TO with ESMTP parameters (RFC 5321 §4.1.1.3)."""
    return Command(_RCPT, b"TO:" + _encode_path(forward_path) + _encode_parameters(parameters))


def _encode_path(mailbox: Mailbox | None) -> bytes:
    return f"<{mailbox.address}>".encode() if mailbox else b"<>"


_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
# esmtp-value, RFC 5321 §4.1.2 and RFC 6531 §3.3, less the C1 controls and lone surrogates
_VALUE = re.compile(r"[\x21-\x3c\x3e-\x7e\xa0-\ud7ff\ue000-\U0010ffff]+")


def _encode_parameters(parameters: Mapping[str, str | None] | None) -> bytes:
    if not parameters:
        return b""
    words = []
    for keyword, value in parameters.items():
        if keyword == "SIZE" and value is not None and value.isascii() and value.isdigit():
            pass  # nearly every message has it: skip two pattern matches
        elif not _KEYWORD.fullmatch(keyword) or (value is not None and not _VALUE.fullmatch(value)):
            shown = safe_text(f"{keyword}={value}", 80)
            raise InvalidArgument(f"“{shown}” is not a valid ESMTP parameter: nothing was sent")
        words.append(f" {keyword}" if value is None else f" {keyword}={value}")
    return "".join(words).encode("utf-8")


def vrfy(text: str) -> Command:
    """Make VRFY for a user or mailbox; few servers answer it (RFC 5321 §3.5.3, §7.3). ASCII only."""
    return Command(Verb.VRFY, _encode_query(text))


def expn(text: str) -> Command:
    """Make EXPN for a mailing list (RFC 5321 §3.5.2). ASCII only."""
    return Command(Verb.EXPN, _encode_query(text))


def _encode_query(text: str) -> bytes:
    if not text or not text.isascii():
        advice = "use a name or an address in ASCII"
        raise InvalidArgument(f"“{safe_text(text, 80)}” is not a valid argument of VRFY and EXPN: {advice}")
    return text.encode("ascii")


def bdat(octets: int, *, last: bool) -> Command:
    """Make BDAT with the number of bytes that follow it (RFC 3030 §2)."""
    if octets < 0:
        raise InvalidArgument("a chunk cannot have a negative number of bytes")
    return Command(Verb.BDAT_LAST if last else Verb.BDAT, f"{octets}{' LAST' if last else ''}".encode("ascii"))


_MECHANISM = re.compile(r"[A-Z0-9_-]{1,20}")  # sasl-mech, RFC 4422 §3.1


def auth(mechanism: str, initial_response: bytes | None = None) -> Command:
    """Make AUTH with an optional initial response; an empty one is sent as `=` (RFC 4954 §4)."""
    if not _MECHANISM.fullmatch(mechanism):
        raise InvalidArgument(f"“{safe_text(mechanism, 80)}” is not a valid SASL mechanism: nothing was sent")
    words = [mechanism.encode("ascii")]
    if initial_response is not None:
        words.append(b64encode(initial_response) or b"=")
    return Command(Verb.AUTH, b" ".join(words))


def response(octets: bytes) -> Command:
    """Make the answer to one SASL challenge; an empty one is an empty line (RFC 4954 §4)."""
    return Command(Verb.RESPONSE, b64encode(octets))
