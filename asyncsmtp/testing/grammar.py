"""The grammar of commands, read by a relay (RFC 5321 §4.1.2); strict, and apart from the client's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from asyncsmtp.testing.script import Stage

__all__ = ["Path", "Syntax", "chunk_size", "path", "split"]

_STAGES: Final = {
    b"EHLO": Stage.EHLO,
    b"LHLO": Stage.EHLO,
    b"HELO": Stage.HELO,
    b"STARTTLS": Stage.STARTTLS,
    b"AUTH": Stage.AUTH,
    b"MAIL": Stage.MAIL,
    b"RCPT": Stage.RCPT,
    b"DATA": Stage.DATA,
    b"BDAT": Stage.BDAT,
    b"RSET": Stage.RSET,
    b"NOOP": Stage.NOOP,
    b"QUIT": Stage.QUIT,
}

_TEXT = r"[^\x00-\x20\x7f\"(),:;<>@\[\\\]]"  # an atom, dots included, ASCII or beyond
_LOCAL = rf'(?:{_TEXT}+|"(?:[^\x00-\x1f\x7f"\\]|\\[\x20-\x7e])*")'
_DOMAIN = rf"(?:{_TEXT}+|\[[0-9A-Za-z:.\-]+\])"
_PATH = re.compile(rf"<({_LOCAL}(?:@{_DOMAIN})?|)>((?: [^ ]+)*)")
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^\x00-\x20=\x7f]+))?")
_CHUNK = re.compile(rb"([0-9]{1,20})( LAST)?", re.IGNORECASE)


class Syntax(Exception):
    """The line is not what RFC 5321 allows; the text says why."""


@dataclass(frozen=True, slots=True)
class Path:
    """A path and the parameters behind it; `<>` has an empty address. Keywords are in upper case."""

    address: str
    parameters: Mapping[str, str | None]


def split(line: bytes) -> tuple[Stage, bytes, bytes]:
    """The stage, verb and argument of a command line; verbs in any case."""
    verb, _, argument = line.partition(b" ")
    verb = verb.upper()
    return _STAGES.get(verb, Stage.OTHER), verb, argument


def path(argument: bytes, keyword: str) -> Path:
    """Read `FROM:<…> PARAMETER=value` (or `TO:`).

    Raises:
        Syntax: with what is wrong.
    """
    try:
        text = argument.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Syntax("the path is not UTF-8") from error
    if text[: len(keyword)].upper() != keyword:
        raise Syntax(f"{keyword} is missing")
    match = _PATH.fullmatch(text, len(keyword))
    if match is None:
        raise Syntax("a path is <local@domain>, with no space around it")
    if len(match[1].encode()) > 254:
        raise Syntax("the path is too long")
    return Path(match[1], dict(map(_parameter, match[2].split())))


def _parameter(word: str) -> tuple[str, str | None]:
    match = _PARAMETER.fullmatch(word)
    if match is None:
        raise Syntax("a parameter is KEYWORD or KEYWORD=value")
    return match[1].upper(), match[2]


def chunk_size(argument: bytes) -> tuple[int, bool]:
    """The octets of a BDAT and whether it is the last.

    Raises:
        Syntax: it is not a count, with LAST or without.
    """
    match = _CHUNK.fullmatch(argument)
    if match is None:
        raise Syntax("BDAT takes a count of octets, and LAST")
    return int(match[1]), match[2] is not None
