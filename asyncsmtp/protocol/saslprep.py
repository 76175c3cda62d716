"""SASLprep: user names and passwords in the one form in which both sides compute with them (RFC 4013).

RFC 8265 replaces it for new mechanisms: it keeps compatibility characters, which are folded here (`Ⅸ` is
`IX`), drops nothing, and has no rule for the direction of a password. SCRAM is defined with SASLprep.
What Unicode 3.2 did not know yet is let through unchanged, as RFC 8265 does: the RFC forbids it to who stores
a password, and a server that has stored one with an emoji has answered that question.
"""

from __future__ import annotations

import stringprep
from unicodedata import ucd_3_2_0

__all__ = ["Unprepared", "saslprep"]

_PROHIBITED = (  # RFC 4013 §2.3
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


class Unprepared(ValueError):
    """A text that SASLprep forbids; the error does not repeat it."""


def saslprep(text: str) -> str:
    """The text mapped, normalised and checked.

    Raises:
        Unprepared: nothing is left of it, a character is prohibited, or it mixes directions of writing.
    """
    prepared, fault = _prepare(text)
    del text  # so that a traceback with its variables does not show a password
    if fault:
        del prepared
        raise Unprepared(fault)
    return prepared


def _prepare(text: str) -> tuple[str, str]:
    """The prepared text and what is wrong with it."""
    if text.isascii() and text.isprintable() and text:
        return text, ""
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c))
    prepared = ucd_3_2_0.normalize("NFKC", mapped)
    if not prepared:
        return "", "nothing is left of it"
    if any(prohibited(c) for c in prepared for prohibited in _PROHIBITED):
        return "", "it has a control character, or another one that SASLprep prohibits"
    return prepared, _direction(prepared)


def _direction(text: str) -> str:
    """RFC 3454 §6: what is written from the right begins and ends so, and has nothing from the left inside."""
    if not any(stringprep.in_table_d1(c) for c in text):
        return ""
    if any(stringprep.in_table_d2(c) for c in text):
        return "it mixes directions of writing"
    ends = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return "" if ends else "it is written from the right, but does not begin and end so"
