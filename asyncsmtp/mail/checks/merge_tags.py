"""Merge tags of other programs that were left in a template, which would be mailed as they are.

`*|FNAME|*`, `[First_Name]`, `<<Name>>`, `%7B%7Bname%7D%7D` and the like come with templates that were written for
another program. What could be text as well is an objection only if it names a column or a field that every program
has, such as the first name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from urllib.parse import unquote

from asyncsmtp.mail.checks.rules import Finding, FindingLevel
from asyncsmtp.mail.conversion.images import blank_tags
from asyncsmtp.mail.list_unsubscribe import UNSUBSCRIBE_URL_VARIABLE
from asyncsmtp.mail.templates.variables import Columns
from asyncsmtp.protocol.replies import safe_text

__all__ = ["MERGE_TAG", "find_merge_tags"]

MERGE_TAG = "merge-tag"
MAX_FINDINGS = 20  # of one template

_NAME = r"[^\W\d][\w .:-]{0,39}?"
_OPEN, _CLOSE = r"(?:<<|&lt;&lt;)", r"(?:>>|&gt;&gt;)"
_CERTAIN = (  # nothing else is written so
    rf"\*(?:\||%7C)\s*({_NAME}|(?:IF|END|ELSE)[^|*\n]{{0,60}})\s*(?:\||%7C)\*",
    rf"%7B%7B(?:%20|\+)*({_NAME})(?:%20|\+)*%7D%7D",
    rf"%recipient\.({_NAME})%",
    r"%recipient(?:_(email|name|fname|lname))%",
)
_LIKELY = (  # text is hardly ever written so
    rf"{_OPEN}({_NAME}){_CLOSE}",
    rf"%%({_NAME})%%",
    rf"\$\{{\s*({_NAME})\s*\}}",
    rf"\[\[\s*({_NAME})\s*\]\]",
    rf"(?<!\{{)\{{\{{\{{?\s*({_NAME})\s*\}}?\}}\}}",  # where the campaign has other marks
    r"(?<![\w\]!\[])\[([^\W\d]+(?:_[^\W_]+)+)\](?![\w\[(:\]]|</a>)",
)
_POSSIBLE = (  # text may be written so: only a known name tells
    rf"{_OPEN}\s*({_NAME})\s*{_CLOSE}",
    rf"(?:«|&laquo;|&#171;)\s*({_NAME})\s*(?:»|&raquo;|&#187;)",
    rf"(?<![{{$%#\w])\{{[$!]?\s*({_NAME})\s*\}}(?!\}})",
    rf"(?<![\]!\[\w)])\[\s*({_NAME})\s*\](?![\[(:\]]|\s*</a>)",
    r"(?<![%\w])%([A-Za-z_]{2,40})%(?![%\w])",
    rf"%5B({_NAME})%5D",
)
_PATTERNS = [
    (re.compile(pattern, re.IGNORECASE), kind)
    for kind, patterns in enumerate((_CERTAIN, _LIKELY, _POSSIBLE))
    for pattern in patterns
]
_NO_TEXT = re.compile(r"<(style|script)\b.*?</\1\s*>|<!--.*?-->", re.IGNORECASE | re.DOTALL)
_LINK_DEFINITION = re.compile(r"^ {0,3}\[([^\]\n]+)\]:", re.MULTILINE)

_SYNONYMS = (  # names of fields that every program has, and of columns that have the same
    ("firstname", "fname", "first", "givenname", "forename", "vorname", "prenom", "nombre", "name"),
    ("lastname", "lname", "last", "surname", "familyname", "nachname", "nom", "apellido", "name"),
    ("fullname", "name", "displayname", "recipientname"),
    ("email", "emailaddress", "mail", "emailaddr", "recipientemail"),
    ("company", "companyname", "organization", "organisation", "firma"),
    ("phone", "phonenumber", "tel", "telefon"),
)
_FIELDS = {
    name: names for names in reversed(_SYNONYMS) for name in names if name not in ("first", "last", "name", "nom")
}
_UNSUBSCRIBE = frozenset(
    {"unsub", "unsubscribe", "unsubscribeurl", "unsubscribelink", "unsubscribetag", "optout", "unsubscriberaw"}
)
_LABELS = frozenset({"email", "company", "phone", "tel", "mail", "unsubscribe", "telefon"})  # as texts in brackets are


def find_merge_tags(sources: Mapping[str, str], columns: Columns) -> list[Finding]:
    """Return a finding for each merge tag of another program in some templates, by the names of their files."""
    return [finding for file, source in sources.items() for finding in _find(source, file, columns)]


def _find(source: str, file: str, columns: Columns) -> Iterator[Finding]:
    text = _NO_TEXT.sub(_blank, blank_tags(source, columns.delimiters))
    defined = {name.casefold() for name in _LINK_DEFINITION.findall(text)}
    found: dict[int, tuple[int, re.Match[str]]] = {}
    for pattern, kind in _PATTERNS:
        for tag in pattern.finditer(text):
            if tag[0].startswith("[") and tag[1].casefold() in defined:
                continue
            if not any(begin <= tag.start() < begin + len(earlier[0]) for begin, (_, earlier) in found.items()):
                found[tag.start()] = kind, tag
    reported: set[str] = set()
    for begin, (kind, tag) in sorted(found.items()):
        if tag[0] in reported or len(reported) == MAX_FINDINGS:
            continue
        name = unquote(tag[1]).strip()
        written, is_known = _find_spelling(name, columns, is_label=kind == 2 and tag[0].startswith("["))
        if kind == 2 and not is_known:
            continue
        reported.add(tag[0])
        line = text.count("\n", 0, begin) + 1
        where = file if "\n" not in source.strip() and line == 1 and "." not in file else f"{file}, line {line}"
        level = FindingLevel.OBJECTION if is_known or kind == 0 else FindingLevel.NOTE
        sentence = f"{where}: “{safe_text(tag[0], 60)}” looks like a merge tag of another program and is sent as it is"
        yield Finding(MERGE_TAG, level, sentence, written)


def _blank(found: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", found[0])


def _find_spelling(name: str, columns: Columns, *, is_label: bool) -> tuple[str, bool]:
    """Return how to write a name here, and whether it is a column or a field that every program has."""
    folded = _fold(name)
    names = {_fold(each): each for each in (*columns.names.values(), *columns.names)}
    spelled = {column: each for each, column in reversed([*columns.names.items()])}
    if folded in names:
        column = names[folded]
        return f"write {columns.delimiters.write(spelled.get(column, column))}", True
    if folded in _UNSUBSCRIBE and not is_label:
        if UNSUBSCRIBE_URL_VARIABLE in columns:
            return f"write {columns.delimiters.write(UNSUBSCRIBE_URL_VARIABLE)}", True
        return f"add [unsubscribe] with a url, and write {columns.delimiters.write(UNSUBSCRIBE_URL_VARIABLE)}", True
    is_field = folded in _FIELDS and not (is_label and folded in _LABELS)
    for synonym in _FIELDS.get(folded, ()):
        if synonym in names:
            column = names[synonym]
            return f"write {columns.delimiters.write(spelled.get(column, column))}", is_field
    if near := get_close_matches(folded, names, 1):
        column = names[near[0]]
        return f"write {columns.delimiters.write(spelled.get(column, column))} if that is meant", is_field
    return f"write it as {columns.delimiters.write('name')}, where {columns.advice(name)}", is_field


def _fold(name: str) -> str:
    return "".join(letter for letter in unicodedata.normalize("NFKD", name).casefold() if letter.isalnum())
