"""A parser of command lines, and the checks of MAIL and RCPT parameters: known, offered, and well-formed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from asyncsmtp.testing.policy import Policy
from asyncsmtp.testing.script import Stage

__all__ = [
    "CommandSyntaxError",
    "ParsedPath",
    "check_mail",
    "check_rcpt",
    "parse_chunk_size",
    "parse_path",
    "split_command",
]

_VERBS = ("EHLO", "HELO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT")
_STAGES: Final = {b"LHLO": Stage.EHLO, **{verb.encode(): Stage[verb] for verb in _VERBS}}

_TEXT = r"[^\x00-\x20\x7f\"(),:;<>@\[\\\]]"  # an atom, dots included, ASCII or beyond
_LOCAL = rf'(?:{_TEXT}+|"(?:[^\x00-\x1f\x7f"\\]|\\[\x20-\x7e])*")'
_DOMAIN = rf"(?:{_TEXT}+|\[[0-9A-Za-z:.\-]+\])"
_PATH = re.compile(rf"<({_LOCAL}(?:@{_DOMAIN})?|)>((?: [^ ]+)*)")
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^\x00-\x20=\x7f]+))?")
_CHUNK = re.compile(rb"([0-9]{1,20})( LAST)?", re.IGNORECASE)


class CommandSyntaxError(Exception):
    """An error for a line that RFC 5321 does not allow; its text gives the reason."""


@dataclass(frozen=True, slots=True)
class ParsedPath:
    """A path and the parameters after it; `<>` has an empty address. Keywords are in upper case."""

    address: str
    parameters: Mapping[str, str | None]


def split_command(line: bytes) -> tuple[Stage, bytes, bytes]:
    """Return the stage, verb and argument of a command line; verbs in any case."""
    verb, _, argument = line.partition(b" ")
    verb = verb.upper()
    return _STAGES.get(verb, Stage.OTHER), verb, argument


def parse_path(argument: bytes, keyword: str) -> ParsedPath:
    """Parse `FROM:<…> PARAMETER=value` (or `TO:`).

    Raises:
        CommandSyntaxError: with the reason.
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
    return ParsedPath(match[1], dict(map(_parameter, match[2].split())))


def _parameter(word: str) -> tuple[str, str | None]:
    match = _PARAMETER.fullmatch(word)
    if match is None:
        raise CommandSyntaxError("a parameter is KEYWORD or KEYWORD=value")
    return match[1].upper(), match[2]


def parse_chunk_size(argument: bytes) -> tuple[int, bool]:
    """Return the byte count of a BDAT and whether it is the last one.

    Raises:
        CommandSyntaxError: not a number, with LAST or without.
    """
    match = _CHUNK.fullmatch(argument)
    if match is None:
        raise CommandSyntaxError("BDAT takes a number of bytes, and LAST")
    return int(match[1]), match[2] is not None


_MAIL_EXTENSIONS: Final[Mapping[str, str]] = {  # parameter -> the extension that must be offered
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
_RCPT_EXTENSIONS: Final[Mapping[str, str]] = {"NOTIFY": "DSN", "ORCPT": "DSN", "RRVS": "RRVS"}
_XTEXT: Final = r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})"  # RFC 3461 §4
_UNITEXT: Final = r"(?:[!-*,-<>-\[\]-~\u0080-\U0010ffff]|\\x\{[0-9A-F]{2,6}\})"  # RFC 6533 §3
_DATE_TIME: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2})"
_EVENT: Final = "(?:SUCCESS|FAILURE|DELAY)"
_VALUE_SYNTAX: Final[Mapping[str, re.Pattern[str]]] = {  # the syntax of the values; letters in any case
    keyword: re.compile(form, re.IGNORECASE)
    for keyword, form in {
        "AUTH": rf"<>|{_XTEXT}{{1,500}}",
        "RET": "FULL|HDRS",
        "ENVID": rf"(?=.{{1,100}}\Z){_XTEXT}+",
        "BY": r"\+?0{0,8}[1-9][0-9]{0,8};RT?|[+-]?[0-9]{1,9};NT?",
        "HOLDFOR": "[0-9]{1,9}",
        "HOLDUNTIL": _DATE_TIME,
        "MT-PRIORITY": "[+-]?[0-9]",
        "NOTIFY": f"NEVER|{_EVENT}(?:,{_EVENT})*",
        "ORCPT": rf"(?=.{{1,500}}\Z)(?:utf-8;{_UNITEXT}+|(?!utf-8;)[!#-'*/-9?A-Z^-~-]+;{_XTEXT}+)",
        "RRVS": rf"{_DATE_TIME}(?:;[CR])?",
    }.items()
}
_WITHOUT_VALUE: Final = frozenset({"REQUIRETLS", "SMTPUTF8"})
_BODY_TYPES: Final[Mapping[str, str]] = {"7BIT": "8BITMIME", "8BITMIME": "8BITMIME", "BINARYMIME": "BINARYMIME"}


def check_mail(path: ParsedPath, policy: Policy, *, is_esmtp: bool) -> str | None:
    """Return the reply that refuses this MAIL for its path or parameters; None if it is correct."""
    parameters = path.parameters
    if "HOLDFOR" in parameters and "HOLDUNTIL" in parameters:
        return "501 5.5.4 HOLDFOR and HOLDUNTIL exclude each other"
    refusal = _check_parameters(parameters, _MAIL_EXTENSIONS, policy, is_esmtp)
    if refusal or not parameters:
        return refusal or _check_ascii(path, parameters)
    body = (parameters.get("BODY") or "7BIT").upper() if "BODY" in parameters else "7BIT"
    if body not in _BODY_TYPES or ("BODY" in parameters and not policy.supports(_BODY_TYPES[body])):
        return "555 5.5.4 this BODY is not offered"
    return _check_size(parameters, policy) or _check_ascii(path, parameters)


def check_rcpt(path: ParsedPath, policy: Policy, *, is_esmtp: bool, utf8: bool) -> str | None:
    """Return the reply that refuses this RCPT; None if it is correct. `utf8`: MAIL had SMTPUTF8."""
    if path.address.rpartition("@")[0] == "" and path.address.lower() != "postmaster":
        return "501 5.1.3 a forward-path needs a local part and a domain"
    if not path.address.isascii() and not utf8:
        return "553 5.6.7 this path needs SMTPUTF8"
    return _check_parameters(path.parameters, _RCPT_EXTENSIONS, policy, is_esmtp)


def _check_parameters(
    parameters: Mapping[str, str | None], known: Mapping[str, str], policy: Policy, is_esmtp: bool
) -> str | None:
    for keyword in parameters:
        if not is_esmtp or keyword not in known or not policy.supports(known[keyword]):
            return f"555 5.5.4 {keyword} is not offered"
    for keyword, value in parameters.items():
        if keyword in _WITHOUT_VALUE and value is not None:
            return f"501 5.5.4 {keyword} takes no value"
        if keyword in _VALUE_SYNTAX and not _VALUE_SYNTAX[keyword].fullmatch(value or ""):
            return f"501 5.5.4 the value of {keyword} is not valid"
    return None


def _check_size(parameters: Mapping[str, str | None], policy: Policy) -> str | None:
    size = parameters.get("SIZE", "0")
    if size is None or not (size.isascii() and size.isdigit() and len(size) <= 20):
        return "501 5.5.4 SIZE takes a number of bytes"
    if policy.max_size is not None and int(size) > policy.max_size:
        return "552 5.3.4 the message is too big"
    return None


def _check_ascii(path: ParsedPath, parameters: Mapping[str, str | None]) -> str | None:
    return None if path.address.isascii() or "SMTPUTF8" in parameters else "553 5.6.7 this path needs SMTPUTF8"
