"""How a parameter carries what a command line cannot (RFC 3461 §4, RFC 6533 §3)."""

from __future__ import annotations

import re

__all__ = ["uxtext", "xtext"]

_NOT_AN_XCHAR = re.compile(rb"[^!-*,-<>-~]")  # "any ASCII CHAR between "!" (33) and "~" (126), except "+" and "=""
_NOT_A_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")  # as well, less the backslash


def xtext(octets: bytes) -> str:
    """Any octets as printable ASCII without space, `+` and `=`; such an octet is `+` and two hex digits."""
    return _NOT_AN_XCHAR.sub(lambda found: b"+%02X" % found[0][0], octets).decode("ascii")


def uxtext(text: str) -> str:
    """Any text as `utf-8-addr-xtext`, safe for a relay without SMTPUTF8 too; a character is `\\x{…}`."""
    return _NOT_A_QCHAR.sub(lambda found: rf"\x{{{ord(found[0]):02X}}}", text)
