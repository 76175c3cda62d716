"""The parameters of MAIL and RCPT, as a relay checks them: known, offered, and well formed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from asyncsmtp.testing.policy import Policy
from asyncsmtp.testing.script import Stage

__all__ = ["CommandSyntaxError", "Path", "chunk_size", "fault_in_mail", "fault_in_rcpt", "path", "split"]

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


class CommandSyntaxError(Exception):
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
        raise CommandSyntaxError("the path is not UTF-8") from error
    if text[: len(keyword)].upper() != keyword:
        raise CommandSyntaxError(f"{keyword} is missing")
    match = _PATH.fullmatch(text, len(keyword))
    if match is None:
        raise CommandSyntaxError("a path is <local@domain>, with no space around it")
    if len(match[1].encode()) > 254:
        raise CommandSyntaxError("the path is too long")
    return Path(match[1], dict(map(_parameter, match[2].split())))


def _parameter(word: str) -> tuple[str, str | None]:
    match = _PARAMETER.fullmatch(word)
    if match is None:
        raise CommandSyntaxError("a parameter is KEYWORD or KEYWORD=value")
    return match[1].upper(), match[2]


def chunk_size(argument: bytes) -> tuple[int, bool]:
    """The octets of a BDAT and whether it is the last.

    Raises:
        Syntax: it is not a count, with LAST or without.
    """
    match = _CHUNK.fullmatch(argument)
    if match is None:
        raise CommandSyntaxError("BDAT takes a count of octets, and LAST")
    return int(match[1]), match[2] is not None


_OF_MAIL: Final[Mapping[str, str]] = {  # parameter -> the extension that must have been offered
    "SIZE": "SIZE",
    "BODY": "8BITMIME",
    "SMTPUTF8": "SMTPUTF8",
    "AUTH": "AUTH",
    "RET": "DSN",
    "ENVID": "DSN",
    "REQUIRETLS": "REQUIRETLS",
    "BY": "DELIVERBY",
    "HOLDFOR": "FUTURERELEASE",
    "HOLDUNTIL": "FUTURERELEASE",
    "MT-PRIORITY": "MT-PRIORITY",
}
_OF_RCPT: Final[Mapping[str, str]] = {"NOTIFY": "DSN", "ORCPT": "DSN", "RRVS": "RRVS"}
_XTEXT: Final = r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})"  # RFC 3461 §4
_UNITEXT: Final = r"(?:[!-*,-<>-\[\]-~\u0080-\U0010ffff]|\\x\{[0-9A-F]{2,6}\})"  # RFC 6533 §3
_MOMENT: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2})"
_WHEN: Final = "(?:SUCCESS|FAILURE|DELAY)"
_FORMS: Final[Mapping[str, re.Pattern[str]]] = {  # how a value is written; the case of its letters is free
    keyword: re.compile(form, re.IGNORECASE)
    for keyword, form in {
        "AUTH": rf"<>|{_XTEXT}{{1,500}}",
        "RET": "FULL|HDRS",
        "ENVID": rf"(?=.{{1,100}}\Z){_XTEXT}+",
        "BY": r"\+?0{0,8}[1-9][0-9]{0,8};RT?|[+-]?[0-9]{1,9};NT?",
        "HOLDFOR": "[0-9]{1,9}",
        "HOLDUNTIL": _MOMENT,
        "MT-PRIORITY": "[+-]?[0-9]",
        "NOTIFY": f"NEVER|{_WHEN}(?:,{_WHEN})*",
        "ORCPT": rf"(?=.{{1,500}}\Z)(?:utf-8;{_UNITEXT}+|(?!utf-8;)[!#-'*/-9?A-Z^-~-]+;{_XTEXT}+)",
        "RRVS": rf"{_MOMENT}(?:;[CR])?",
    }.items()
}
_BARE: Final = frozenset({"REQUIRETLS", "SMTPUTF8"})
_BODIES: Final[Mapping[str, str]] = {"7BIT": "8BITMIME", "8BITMIME": "8BITMIME", "BINARYMIME": "BINARYMIME"}


def fault_in_mail(path: Path, policy: Policy, *, extended: bool) -> str | None:
    """The reply that refuses this MAIL for its path or parameters; None when there is nothing wrong."""
    parameters = path.parameters
    if "HOLDFOR" in parameters and "HOLDUNTIL" in parameters:
        return "501 5.5.4 HOLDFOR and HOLDUNTIL exclude each other"
    fault = _fault_in(parameters, _OF_MAIL, policy, extended)
    if fault or not parameters:
        return fault or _beyond_ascii(path, parameters)
    body = (parameters.get("BODY") or "7BIT").upper() if "BODY" in parameters else "7BIT"
    if body not in _BODIES or ("BODY" in parameters and not policy.obeys(_BODIES[body])):
        return "555 5.5.4 this BODY is not offered"
    return _size(parameters, policy) or _beyond_ascii(path, parameters)


def fault_in_rcpt(path: Path, policy: Policy, *, extended: bool, utf8: bool) -> str | None:
    """The same for RCPT; `utf8` tells whether MAIL said SMTPUTF8."""
    if path.address.rpartition("@")[0] == "" and path.address.lower() != "postmaster":
        return "501 5.1.3 a forward-path needs a local part and a domain"
    if not path.address.isascii() and not utf8:
        return "553 5.6.7 this path needs SMTPUTF8"
    return _fault_in(path.parameters, _OF_RCPT, policy, extended)


def _fault_in(
    parameters: Mapping[str, str | None], known: Mapping[str, str], policy: Policy, extended: bool
) -> str | None:
    for keyword in parameters:
        if not extended or keyword not in known or not policy.obeys(known[keyword]):
            return f"555 5.5.4 {keyword} is not offered"
    for keyword, value in parameters.items():
        if keyword in _BARE and value is not None:
            return f"501 5.5.4 {keyword} takes no value"
        if keyword in _FORMS and not _FORMS[keyword].fullmatch(value or ""):
            return f"501 5.5.4 {keyword} is not written so"
    return None


def _size(parameters: Mapping[str, str | None], policy: Policy) -> str | None:
    size = parameters.get("SIZE", "0")
    if size is None or not (size.isascii() and size.isdigit() and len(size) <= 20):
        return "501 5.5.4 SIZE takes a number of octets"
    if policy.max_size is not None and int(size) > policy.max_size:
        return "552 5.3.4 the message is too big"
    return None


def _beyond_ascii(path: Path, parameters: Mapping[str, str | None]) -> str | None:
    return None if path.address.isascii() or "SMTPUTF8" in parameters else "553 5.6.7 this path needs SMTPUTF8"
