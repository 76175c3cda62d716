"""An address cell to a Mailbox: one address, alone, as it will stand in RCPT."""

from __future__ import annotations

import unicodedata

from asyncsmtp.errors import RecipientError
from asyncsmtp.protocol.envelope import Mailbox
from asyncsmtp.protocol.replies import safe_text

__all__ = ["mailbox_in", "oddity_of"]

_AROUND = " \t\u00a0"  # what spreadsheets and web pages leave round a copied address; never a line break


def mailbox_in(cell: str) -> Mailbox:
    """Read the one address in `cell`; spaces round it are not part of it.

    Raises:
        RecipientError: it holds anything else; nothing is guessed or cut off, so what is mailed is
            what the cell says. Quoted local parts are refused: no list needs them, and they are how
            parameters are smuggled into a command.
    """
    text = cell.strip(_AROUND)
    try:
        mailbox = Mailbox.parse(text)
    except RecipientError as error:
        raise RecipientError(_advice(text) or error.reason) from None
    if mailbox.local[0] == '"':
        raise RecipientError(f"{_shown(text)} has a quoted local part, which is not accepted from a file")
    if not mailbox.domain:
        raise RecipientError(f"{_shown(text)} has no domain: write name@domain")
    return mailbox


def oddity_of(cell: str) -> str:
    """What a person should look at in an address that is valid; empty for nothing.

    A domain label that mixes alphabets looks like another one: “exаmple” with a Cyrillic “а”.
    """
    for label in cell.rpartition("@")[2].split("."):
        if not label.isascii():
            scripts = {unicodedata.name(letter, "").partition(" ")[0] for letter in label if letter.isalpha()}
            if len(alike := sorted(scripts & _ALIKE)) > 1:
                return f"the domain of {_shown(cell)} mixes {' and '.join(map(str.title, alike))} letters: is it meant?"
    return ""


_ALIKE = frozenset({"ARMENIAN", "CHEROKEE", "CYRILLIC", "GREEK", "LATIN"})  # have letters that look the same


def _advice(text: str) -> str:
    """What is wrong with a cell that people often write; empty when the grammar's own words are better."""
    if "\n" in text or "\r" in text:
        return f"{_shown(text)} holds a line break: keep one address alone in the cell"
    if "<" in text or ">" in text:
        return f"{_shown(text)} holds more than the address: keep what is between < and >, the name in its own column"
    if text.count("@") > 1 and any(mark in text for mark in ",; \t"):
        return f"{_shown(text)} holds more than one address: give each a row of its own"
    if text.lower().startswith("mailto:"):
        return f"{_shown(text)} begins with “mailto:”: keep the address alone"
    return ""


def _shown(text: str) -> str:
    return f"“{safe_text(text, 80)}”"
